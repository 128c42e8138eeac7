//! Collecting the header section of a message that arrives in pieces.
//!
//! Invariant: whether a header is within the limit does not depend on the pieces; no more is kept than four octets
//! above the limit; the body is never copied.

use crate::section;

/// Octets of the CRLF CRLF that ends a header section.
const END_LEN: usize = 4;

/// The header section so far.
#[derive(Debug)]
pub(crate) struct HeaderReader {
    kept: Vec<u8>,
    limit: usize,
    /// No end was found within the limit: nothing more is kept.
    full: bool,
}

impl HeaderReader {
    pub(crate) fn new(limit: usize) -> HeaderReader {
        HeaderReader { kept: Vec::new(), limit, full: false }
    }

    /// Takes the next octets. At the end of the header section gives it, without the empty line, and what is here of
    /// the body already; the reader is of no use then.
    pub(crate) fn feed<'o>(&mut self, octets: &'o [u8]) -> Option<(Vec<u8>, &'o [u8])> {
        if self.full {
            return None;
        }
        let searched = self.kept.len();
        let room = self.limit.saturating_add(END_LEN).saturating_sub(searched);
        // The end may lie across the border; behind it, it is looked for in place: no body is copied.
        let across = if searched == 0 { 0 } else { octets.len().min(END_LEN - 1).min(room) };
        self.kept.extend_from_slice(octets.get(..across)?);
        let end = if searched == 0 {
            section::end_of_header(octets, 0)
        } else {
            let across = section::end_of_header(&self.kept, searched);
            across.or_else(|| Some(section::end_of_fields(octets)?.behind(searched)))
        };
        let here = end.as_ref().map_or(octets.len(), |end| end.header.saturating_sub(searched));
        self.kept.extend_from_slice(octets.get(across..here.min(room)).unwrap_or_default());
        let Some(end) = end.filter(|end| end.header <= self.limit) else {
            self.full = self.kept.len() >= self.limit.saturating_add(END_LEN);
            return None;
        };
        let mut header = std::mem::take(&mut self.kept);
        header.truncate(end.header);
        Some((header, octets.get(end.body.saturating_sub(searched)..).unwrap_or_default()))
    }

    /// A message that ended without an empty line: all of it is header. On an error, the part of a header that is
    /// longer than the limit.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Vec<u8>> {
        if self.full || self.kept.len() > self.limit {
            self.kept.truncate(self.limit);
            Err(self.kept)
        } else {
            Ok(self.kept)
        }
    }
}

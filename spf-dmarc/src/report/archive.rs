//! Unpacking: gzip, zip or plain.
//!
//! Invariant: never more than the limit is decompressed, whatever sizes the archive claims; nothing is written.
//!
//! Standards: RFC 1952 (gzip), APPNOTE.TXT 4.3 and 4.4 (zip: stored and deflated entries).
//!
//! Not here: encrypted, split or ZIP64 archives, which no report needs.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder};

use super::ReportLimits;

/// Why a file cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// It unpacks to more than the limit.
    #[error("the report unpacks to more than {0} octets")]
    TooLarge(usize),
    /// Damaged.
    #[error("the compressed data is damaged: {0}")]
    Damaged(String),
    /// A zip archive without a file that can be a report.
    #[error("the zip archive holds no file that can be read")]
    NoFile,
}

/// The octets of a report file: of a gzip stream, of the first XML file of a zip archive, or as they are.
pub fn unpack(octets: &[u8], limits: &ReportLimits) -> Result<Vec<u8>, UnpackError> {
    if octets.starts_with(&[0x1f, 0x8b]) {
        return inflate(MultiGzDecoder::new(octets), limits);
    }
    if octets.starts_with(b"PK\x03\x04") {
        return unzip(octets, limits);
    }
    if octets.len() > limits.unpacked {
        return Err(UnpackError::TooLarge(limits.unpacked));
    }
    Ok(octets.to_vec())
}

/// Reads at most the limit. A stream that is damaged behind its data (wrong check sum, junk) keeps its data: some
/// reporters append junk.
fn inflate(mut stream: impl Read, limits: &ReportLimits) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    let most = u64::try_from(limits.unpacked).unwrap_or(u64::MAX);
    let read = stream.by_ref().take(most.saturating_add(1)).read_to_end(&mut out);
    if out.len() > limits.unpacked {
        return Err(UnpackError::TooLarge(limits.unpacked));
    }
    match read {
        Err(error) if out.is_empty() => Err(UnpackError::Damaged(error.to_string())),
        _ => Ok(out),
    }
}

/// A little-endian number in a record.
fn number(octets: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = octets.get(at..at.checked_add(len)?)?;
    let value = bytes.iter().rev().fold(0_u64, |value, b| value << 8 | u64::from(*b));
    usize::try_from(value).ok()
}

/// An entry of the central directory.
struct Entry {
    method: usize,
    packed: usize,
    at: usize,
    is_xml: bool,
}

fn unzip(octets: &[u8], limits: &ReportLimits) -> Result<Vec<u8>, UnpackError> {
    let entries = directory(octets, limits.zip_entries).unwrap_or_default();
    // The first file that says that it is XML, or else the first.
    let entry = entries.iter().find(|entry| entry.is_xml).or(entries.first()).ok_or(UnpackError::NoFile)?;
    let data = data_of(octets, entry).ok_or(UnpackError::NoFile)?;
    match entry.method {
        0 if data.len() > limits.unpacked => Err(UnpackError::TooLarge(limits.unpacked)),
        0 => Ok(data.to_vec()),
        8 => inflate(DeflateDecoder::new(data), limits),
        _ => Err(UnpackError::NoFile),
    }
}

fn directory(octets: &[u8], most: usize) -> Option<Vec<Entry>> {
    // The end record is the last thing but a comment of at most 65535 octets.
    let tail = octets.len().saturating_sub(65_557);
    let end = tail + octets.get(tail..)?.windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let mut at = number(octets, end.checked_add(16)?, 4)?;
    let mut entries = Vec::new();
    while entries.len() < most && octets.get(at..)?.starts_with(b"PK\x01\x02") {
        let (name_len, extra, comment) =
            (number(octets, at + 28, 2)?, number(octets, at + 30, 2)?, number(octets, at + 32, 2)?);
        let name = octets.get(at + 46..at + 46 + name_len)?;
        // Directories, and the resource forks that a Mac puts in, are no files.
        if !name.ends_with(b"/") && !name.starts_with(b"__MACOSX") {
            let is_xml = name.len() >= 4 && name.get(name.len() - 4..)?.eq_ignore_ascii_case(b".xml");
            let (method, packed) = (number(octets, at + 10, 2)?, number(octets, at + 20, 4)?);
            entries.push(Entry { method, packed, at: number(octets, at + 42, 4)?, is_xml });
        }
        at = at.checked_add(46 + name_len + extra + comment)?;
    }
    Some(entries)
}

fn data_of<'z>(octets: &'z [u8], entry: &Entry) -> Option<&'z [u8]> {
    let header = octets.get(entry.at..)?;
    let start = 30_usize.checked_add(number(header, 26, 2)?)?.checked_add(number(header, 28, 2)?)?;
    let rest = header.get(start..)?;
    Some(rest.get(..entry.packed).unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..64 {
            encoder.write_all(&[0; 65_536]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 8192);
        let limits = ReportLimits { unpacked: 1 << 20, ..ReportLimits::default() };
        assert_eq!(unpack(&bomb, &limits), Err(UnpackError::TooLarge(1 << 20)));
        assert_eq!(unpack(&bomb, &ReportLimits::default()).unwrap().len(), 4 << 20);
    }

    #[test]
    fn broken_archives_are_refused() {
        let limits = ReportLimits::default();
        for octets in
            [&b"PK\x03\x04"[..], b"PK\x03\x04junk PK\x05\x06aaaaaaaaaaaaaaaaaaaaaaaaaaaa", b"\x1f\x8bjunk"]
        {
            assert!(unpack(octets, &limits).is_err());
        }
    }
}

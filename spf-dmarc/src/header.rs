//! Walking the header section of a message: which fields it has and where they lie.
//!
//! Invariant: the ranges of the fields never overlap, and each is whole lines of the input, so that cutting one out
//! leaves a header section.
//!
//! Standards: RFC 5322 section 2.2. Lines may end in LF alone, as files on disk do.
//!
//! Not here: the grammar of any field.

use std::ops::Range;

/// A field of a header section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'m> {
    /// The name as written, blanks behind it left out.
    pub name: &'m [u8],
    /// The value with its folding, the last line's end left out.
    pub value: &'m [u8],
    /// Where the field lies in the message, its last line's end included.
    pub range: Range<usize>,
}

impl Field<'_> {
    /// Whether this is a field of that name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value as text: octets that are not UTF-8 replaced, line ends left out.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value).replace(['\r', '\n'], "")
    }
}

/// The fields of a message up to its empty line. A line that is no field ends the section, too: what follows is
/// what a reader shows as the body.
///
/// ```
/// use postwright_spf_dmarc::header::fields;
/// let message = b"From: a@example.org\r\nSubject: x\r\n y\r\n\r\nFrom: no field\r\n";
/// let names: Vec<&[u8]> = fields(message).map(|field| field.name).collect();
/// assert_eq!(names, [&b"From"[..], b"Subject"]);
/// ```
pub fn fields(message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let mut end = line_end(message, start)?;
        while message.get(end).is_some_and(|b| matches!(b, b' ' | b'\t')) {
            end = line_end(message, end)?;
        }
        let text = message.get(start..end)?;
        let colon = text.iter().position(|b| *b == b':')?;
        let (name, value) = text.split_at(colon);
        let name = name.trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        at = end;
        let value = value.get(1..)?;
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        Some(Field { name, value, range: start..end })
    })
}

/// The offset behind the line that starts at `start`; `None` behind the last one.
fn line_end(message: &[u8], start: usize) -> Option<usize> {
    let rest = message.get(start..).filter(|rest| !rest.is_empty())?;
    Some(rest.iter().position(|b| *b == b'\n').map_or(message.len(), |i| start + i + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_lines_up_to_the_first_line_that_is_none() {
        let message = b"A: 1\n\t2\r\nB :3\r\nno field\r\nC: 4\r\n";
        let found: Vec<_> = fields(message).map(|f| (f.name, f.text(), f.range)).collect();
        assert_eq!(found, [(&b"A"[..], " 1\t2".to_owned(), 0..9), (b"B", "3".to_owned(), 9..15)]);
        assert_eq!(fields(b"A: 1").count(), 1);
        assert_eq!(fields(b"\r\nA: 1").count(), 0);
        assert_eq!(fields(b" A: 1").count(), 0);
    }
}

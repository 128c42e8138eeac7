//! The header algorithms `simple` and `relaxed` (RFC 6376 3.4.1, 3.4.2), one field at a time.

use super::{CR, LF, SP, TAB, clean_prefix};

/// Appends a field in `simple` form: as it is. `raw` is the field without its final CRLF.
pub fn simple_field(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(raw);
}

/// Appends a field in `relaxed` form. `raw` is the field without its final CRLF; none is appended.
///
/// ```
/// let mut out = Vec::new();
/// postwright_dkim::relaxed_field(b"B \t: Y\t\r\n\tZ  ", &mut out);
/// assert_eq!(out, b"b:Y Z"); // the example of RFC 6376 3.4.5
/// ```
pub fn relaxed_field(raw: &[u8], out: &mut Vec<u8>) {
    let colon = memchr::memchr(b':', raw).unwrap_or(raw.len());
    let (name, rest) = raw.split_at(colon);
    let name = name.trim_ascii_end();
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    let Some((colon, value)) = rest.split_first() else { return };
    out.push(*colon);
    relaxed_value(value, out);
}

/// Unfolds, makes each run of blanks one SP, and drops blanks at both ends.
pub(crate) fn relaxed_value(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = skip_blanks(value);
    while !rest.is_empty() {
        let (clean, dirty) = rest.split_at(clean_prefix::<true>(rest));
        out.extend_from_slice(clean);
        let after = skip_blanks(dirty);
        if after.is_empty() {
            return;
        }
        if after.len() < dirty.len() {
            out.push(SP);
            rest = after;
        } else if let Some((lone_cr, behind)) = after.split_first() {
            out.push(*lone_cr);
            rest = behind;
        }
    }
}

/// Skips blanks and line folds. A CR that stands alone is no fold.
fn skip_blanks(mut octets: &[u8]) -> &[u8] {
    loop {
        octets = match octets {
            [SP | TAB, rest @ ..] | [CR, LF, rest @ ..] => rest,
            _ => return octets,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relaxed(raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        relaxed_field(raw, &mut out);
        out
    }

    #[test]
    fn fields_are_unfolded_and_their_blanks_reduced() {
        // RFC 6376 3.4.5.
        assert_eq!(relaxed(b"A: X"), b"a:X");
        assert_eq!(relaxed(b"Subject:"), b"subject:");
        assert_eq!(relaxed(b"Subject: \r\n "), b"subject:");
        assert_eq!(relaxed(b"S: a\r\n\tb  c\t\r\n d \r\n"), b"s:a b c d");
        assert_eq!(relaxed(b"S: a \rb\r"), b"s:a \rb\r");
    }
}

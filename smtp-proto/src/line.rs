//! Framing of command lines: where a line ends, and what no line may hold.
//!
//! Invariant: only CRLF ends a line. A line with a bare CR, a bare LF or a NUL is never handed on as a command, so
//! nothing behind such an octet can be taken for one.
//!
//! Standards: RFC 5321 2.3.8 (CR and LF only together), 4.5.3.1.4 (length).
//!
//! Not here: what the line says ([`command`](crate::command)), lines of messages ([`data`](crate::data)).

/// What the octets at hand begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line; `consumed` counts its CRLF too.
    Complete {
        /// The line without CRLF.
        text: &'a [u8],
        /// Octets to remove.
        consumed: usize,
    },
    /// No line end yet.
    Partial,
    /// A line longer than the limit, ended or not.
    TooLong,
    /// A bare CR, a bare LF or a NUL.
    Bad,
}

/// Looks for a line of at most `limit` octets, CRLF included.
///
/// ```
/// use postwright_smtp_proto::line::{Line, next_line};
/// assert_eq!(next_line(b"NOOP\r\nQUIT", 512), Line::Complete { text: b"NOOP", consumed: 6 });
/// assert_eq!(next_line(b"NOOP\nQUIT\r\n", 512), Line::Bad);
/// ```
pub fn next_line(input: &[u8], limit: usize) -> Line<'_> {
    match memchr::memchr3(b'\r', b'\n', 0, input) {
        None if input.len() >= limit => Line::TooLong,
        None => Line::Partial,
        Some(at) if at.saturating_add(2) > limit => Line::TooLong,
        Some(at) => match (input.get(at), input.get(at + 1)) {
            (Some(b'\r'), None) => Line::Partial,
            (Some(b'\r'), Some(b'\n')) => {
                Line::Complete { text: input.get(..at).unwrap_or_default(), consumed: at + 2 }
            }
            _ => Line::Bad,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        for bad in [&b"A\nB\r\n"[..], b"A\rB\r\n", b"A\0B\r\n", b"\n", b"A\r\r\n", b"\0"] {
            assert_eq!(next_line(bad, 512), Line::Bad, "{bad:?}");
        }
        for partial in [&b""[..], b"A", b"A\r"] {
            assert_eq!(next_line(partial, 512), Line::Partial, "{partial:?}");
        }
        assert_eq!(next_line(b"\r\nX", 512), Line::Complete { text: b"", consumed: 2 });
    }

    #[test]
    fn the_limit_counts_crlf() {
        assert!(matches!(next_line(b"12345678\r\n", 10), Line::Complete { .. }));
        assert_eq!(next_line(b"123456789\r\n", 10), Line::TooLong);
        assert_eq!(next_line(b"1234567890", 10), Line::TooLong);
        assert_eq!(next_line(b"123456789", 10), Line::Partial);
    }
}

//! Whether every CR and LF of a message belongs to a CRLF (RFC 5321 2.3.8).

/// Watches a message go by, in chunks of any size.
#[derive(Debug, Default)]
pub(crate) struct LineEnds {
    /// The last octet was a CR.
    cr: bool,
    broken: bool,
}

impl LineEnds {
    pub(crate) fn feed(&mut self, octets: &[u8]) {
        let (Some(first), Some(last)) = (octets.first(), octets.last()) else { return };
        self.broken |= self.cr != (*first == b'\n');
        let mut rest = octets.get(crate::wide::tidy(octets)..).unwrap_or_default();
        // Blocks without branches become vector code.
        while let Some(block) = rest.first_chunk::<65>() {
            self.broken |= any_broken(block);
            rest = rest.get(64..).unwrap_or_default();
        }
        self.broken |= any_broken(rest);
        self.cr = *last == b'\r';
    }

    /// At the end of the message.
    pub(crate) fn are_whole(&self) -> bool {
        !self.broken && !self.cr
    }
}

/// Whether among these octets a CR is not followed by LF, or an LF does not follow a CR.
#[inline(always)]
fn any_broken(octets: &[u8]) -> bool {
    let pairs = octets.iter().zip(octets.iter().skip(1));
    pairs.fold(false, |broken, (a, b)| broken | ((*a == b'\r') != (*b == b'\n')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_line_ends_pass_in_any_chunks() {
        for (text, whole) in [
            ("", true),
            ("a\r\nb\r\n", true),
            ("\r\n\r\n", true),
            ("a\nb", false),
            ("a\rb", false),
            ("a\r", false),
            ("\n", false),
            ("\r\r\n", false),
            ("\r\n\n", false),
        ] {
            for pad in [0, 62, 63, 64, 65, 130] {
                let padded = format!("{}{text}", "x".repeat(pad));
                for size in 1..=padded.len().max(1) {
                    let mut ends = LineEnds::default();
                    padded.as_bytes().chunks(size).for_each(|chunk| ends.feed(chunk));
                    assert_eq!(ends.are_whole(), whole, "{text:?} behind {pad} in chunks of {size}");
                }
            }
        }
    }
}

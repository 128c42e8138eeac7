//! The body algorithms `simple` and `relaxed` (RFC 6376 3.4.3, 3.4.4), streaming.
//!
//! Invariant: the canonical octets leave in slices of the input wherever they are unchanged; memory is constant.
//! A line ends with CRLF; a CR or LF that stands alone is an octet like any other (RFC 6376 3.4: CRLF only).

use super::{CR, Canon, LF, SP, clean_prefix, is_wsp};

const CRLF: &[u8] = b"\r\n";

/// The body of one message on its way through `simple` or `relaxed`.
///
/// ```
/// use postwright_dkim::{BodyCanon, Canon};
/// let mut out = Vec::new();
/// let mut body = BodyCanon::new(Canon::Relaxed);
/// body.feed(b" C \r\nD \t E\r", &mut |piece| out.extend_from_slice(piece));
/// body.feed(b"\n\r\n\r\n", &mut |piece| out.extend_from_slice(piece));
/// body.finish(&mut |piece| out.extend_from_slice(piece));
/// assert_eq!(out, b" C\r\nD E\r\n"); // the example of RFC 6376 3.4.5
/// ```
#[derive(Debug)]
pub struct BodyCanon {
    kind: Canon,
    gap: Gap,
    tail: Tail,
}

/// What is held back of a run of blanks at the end of a chunk (relaxed only).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    None,
    /// Blanks: one SP if text follows, nothing if the line ends.
    Blanks,
    /// Blanks and a CR: whether the line ends is told by the next octet.
    BlanksCr,
}

impl BodyCanon {
    /// Starts a body.
    pub fn new(kind: Canon) -> BodyCanon {
        BodyCanon { kind, gap: Gap::None, tail: Tail::default() }
    }

    /// Takes the next octets, in chunks of any size, and gives canonical octets to `out`.
    pub fn feed(&mut self, octets: &[u8], out: &mut impl FnMut(&[u8])) {
        match self.kind {
            Canon::Simple => self.tail.push(octets, out),
            Canon::Relaxed => self.feed_relaxed(octets, out),
        }
    }

    fn feed_relaxed(&mut self, octets: &[u8], out: &mut impl FnMut(&[u8])) {
        let Some(mut rest) = self.close_gap(octets, out) else { return };
        while !rest.is_empty() {
            let clean = clean_prefix::<false>(rest);
            let (head, blanks) = rest.split_at(clean);
            let after = blanks.trim_prefix_wsp();
            match after {
                [] => {
                    self.gap = if blanks.is_empty() { Gap::None } else { Gap::Blanks };
                    return self.tail.push(head, out);
                }
                [CR] => {
                    self.gap = Gap::BlanksCr;
                    return self.tail.push(head, out);
                }
                [CR, LF, ..] => self.tail.push(head, out),
                // The run's first octet serves as its SP where it is one: one slice instead of two.
                _ if blanks.first() == Some(&SP) => {
                    self.tail.push(rest.get(..=clean).unwrap_or(head), out);
                }
                _ => {
                    self.tail.push(head, out);
                    self.tail.push(b" ", out);
                }
            }
            rest = after;
        }
    }

    /// Decides what becomes of blanks at the end of the last chunk; `None` while that is still open.
    fn close_gap<'o>(&mut self, octets: &'o [u8], out: &mut impl FnMut(&[u8])) -> Option<&'o [u8]> {
        let rest = match self.gap {
            Gap::None => return Some(octets),
            Gap::Blanks => {
                let rest = octets.trim_prefix_wsp();
                match rest {
                    [] => return None,
                    [CR] => {
                        self.gap = Gap::BlanksCr;
                        return None;
                    }
                    [CR, LF, ..] => {}
                    _ => self.tail.push(b" ", out),
                }
                rest
            }
            Gap::BlanksCr => {
                let held: &[u8] = if *octets.first()? == LF { b"\r" } else { b" \r" };
                self.tail.push(held, out);
                octets
            }
        };
        self.gap = Gap::None;
        Some(rest)
    }

    /// Ends the body: trailing empty lines are gone, and what is not empty ends with CRLF.
    pub fn finish(mut self, out: &mut impl FnMut(&[u8])) {
        if self.gap == Gap::BlanksCr {
            self.tail.push(b" \r", out);
        }
        let content = self.tail.close(out);
        // An empty body is CRLF in simple (RFC 6376 3.4.3) and nothing in relaxed (3.4.4).
        if content || self.kind == Canon::Simple {
            out(CRLF);
        }
    }
}

/// Holds back trailing CRLFs, as a number, until something follows them.
#[derive(Debug, Default)]
struct Tail {
    empty_lines: u64,
    cr: bool,
    /// Whether anything has been let through.
    content: bool,
}

impl Tail {
    fn push(&mut self, mut octets: &[u8], out: &mut impl FnMut(&[u8])) {
        let Some(first) = octets.first() else { return };
        if self.cr {
            self.cr = false;
            if *first == LF {
                self.empty_lines = self.empty_lines.saturating_add(1);
                octets = octets.get(1..).unwrap_or_default();
            } else {
                self.release(out);
                out(b"\r");
            }
        }
        let mut kept = octets;
        let mut ends: u64 = 0;
        let cr = kept.last() == Some(&CR);
        if cr {
            kept = kept.split_last().map_or(kept, |(_, head)| head);
        }
        while let Some(head) = kept.strip_suffix(CRLF) {
            kept = head;
            ends = ends.saturating_add(1);
        }
        if kept.is_empty() {
            self.empty_lines = self.empty_lines.saturating_add(ends);
        } else {
            self.release(out);
            out(kept);
            self.empty_lines = ends;
        }
        self.cr = cr;
    }

    /// Lets the held CRLFs through: something that is not a CRLF comes behind them.
    fn release(&mut self, out: &mut impl FnMut(&[u8])) {
        const MANY: &[u8; 128] = &{
            let mut lines = [LF; 128];
            let mut at = 0;
            while at < 128 {
                lines[at] = CR;
                at += 2;
            }
            lines
        };
        self.content = true;
        let mut octets = self.empty_lines.saturating_mul(2);
        while octets > 0 {
            let now = octets.min(128);
            out(usize::try_from(now).ok().and_then(|now| MANY.get(..now)).unwrap_or(MANY));
            octets -= now;
        }
        self.empty_lines = 0;
    }

    /// Forgets trailing CRLFs; whether there was anything else.
    fn close(&mut self, out: &mut impl FnMut(&[u8])) -> bool {
        if self.cr {
            self.release(out);
            out(b"\r");
        }
        self.content
    }
}

trait TrimPrefix {
    fn trim_prefix_wsp(&self) -> &[u8];
}

impl TrimPrefix for [u8] {
    fn trim_prefix_wsp(&self) -> &[u8] {
        let run = self.iter().take_while(|octet| is_wsp(**octet)).count();
        self.get(run..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: Canon, chunks: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut body = BodyCanon::new(kind);
        for chunk in chunks {
            body.feed(chunk, &mut |piece| out.extend_from_slice(piece));
        }
        body.finish(&mut |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn empty_bodies_are_those_of_the_rfc() {
        for empty in [&b""[..], b"\r\n", b"\r\n\r\n\r\n"] {
            assert_eq!(run(Canon::Simple, &[empty]), b"\r\n");
            assert_eq!(run(Canon::Relaxed, &[empty]), b"");
        }
        assert_eq!(run(Canon::Relaxed, &[b" \t\r\n  \r\n"]), b"");
        assert_eq!(run(Canon::Simple, &[b" \r\n"]), b" \r\n");
    }

    #[test]
    fn a_missing_final_line_end_is_added() {
        assert_eq!(run(Canon::Simple, &[b"x"]), b"x\r\n");
        assert_eq!(run(Canon::Relaxed, &[b"x \t"]), b"x\r\n");
    }

    #[test]
    fn lone_cr_and_lf_are_octets() {
        assert_eq!(run(Canon::Relaxed, &[b"a \r", b"b\n \n\r"]), b"a \rb\n \n\r\r\n");
        assert_eq!(run(Canon::Simple, &[b"\r\n\r", b"\r\n"]), b"\r\n\r\r\n");
    }
}

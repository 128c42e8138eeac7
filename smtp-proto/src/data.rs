//! Decoding of DATA: dots removed, the end found, everything that is not CRLF-lines refused.
//!
//! Invariant: only CRLF `.` CRLF (or `.` CRLF at the very start) ends a message. A bare CR, a bare LF or a NUL is an
//! error and not data, so no octets of a message can be a command to this server or to one behind it.
//!
//! Standards: RFC 5321 4.5.2 (transparency), 2.3.8 and 4.1.1.4 (line ends).
//!
//! Not here: BDAT (its octets need no decoding), encoding (client), sizes (the session).

mod prefix;

/// What the octets at hand begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Octets of the message. `consumed` may be more than their length, by a removed dot.
    Text {
        /// The octets.
        text: &'a [u8],
        /// Octets of input that are done with.
        consumed: usize,
    },
    /// Too few octets to tell; keep them (at most two) and come again with more.
    More,
    /// The end of the message.
    End {
        /// Octets of input that are done with: three.
        consumed: usize,
    },
    /// A bare CR, a bare LF or a NUL.
    Bad,
}

/// Removes the dots of one message. Between calls it only remembers whether a line begins.
///
/// ```
/// use postwright_smtp_proto::data::{DotDecoder, Piece};
/// let mut decoder = DotDecoder::new();
/// let mut input = &b"a\r\n..b\r\n.\r\nQUIT\r\n"[..];
/// let mut message = Vec::new();
/// loop {
///     match decoder.next(input) {
///         Piece::Text { text, consumed } => { message.extend_from_slice(text); input = &input[consumed..]; }
///         Piece::End { consumed } => { input = &input[consumed..]; break; }
///         Piece::More | Piece::Bad => panic!("not in this example"),
///     }
/// }
/// assert_eq!((message.as_slice(), input), (&b"a\r\n.b\r\n"[..], &b"QUIT\r\n"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DotDecoder {
    at_line_start: bool,
}

impl Default for DotDecoder {
    fn default() -> Self {
        DotDecoder::new()
    }
}

impl DotDecoder {
    /// Before the first octet of a message.
    pub const fn new() -> DotDecoder {
        DotDecoder { at_line_start: true }
    }

    /// The longest piece that the input begins with: it runs over many lines, to the next dot that must go.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Piece<'a> {
        // A dot at a line start is removed, unless it is the whole line (RFC 5321 4.5.2).
        let start = match (self.at_line_start, input) {
            (true, [b'.', b'\r', b'\n', ..]) => return Piece::End { consumed: 3 },
            (true, [b'.'] | [b'.', b'\r']) => return Piece::More,
            (true, [b'.', b'\r', ..]) => return Piece::Bad,
            (true, [b'.', ..]) => 1,
            _ => 0,
        };
        let Some(body) = input.get(start..).filter(|body| !body.is_empty()) else { return Piece::More };
        let (len, line_start) = match scan(body) {
            Some(found) => found,
            None => return Piece::Bad,
        };
        if len == 0 {
            return Piece::More;
        }
        self.at_line_start = line_start;
        Piece::Text { text: body.get(..len).unwrap_or_default(), consumed: start + len }
    }
}

/// The length of the text that needs no change, and whether a line begins behind it. It stops before a dot at a
/// line start and before a CR whose LF has not come. `None`: a bare CR, a bare LF or a NUL; nothing of such a piece
/// is handed out, since its message is refused anyway.
fn scan(body: &[u8]) -> Option<(usize, bool)> {
    let mut line = 0;
    loop {
        // Most of a message is passed over here; what stopped it lies at or just behind `at`.
        let at = line + prefix::plain(body.get(line..)?);
        let from = if body.get(..at)?.ends_with(b"\r") { at - 1 } else { at };
        let Some(end) = memchr::memchr3(b'\r', b'\n', 0, body.get(from..)?) else {
            return Some((body.len(), from == body.len() && body.ends_with(b"\n")));
        };
        line = match body.get(from + end..)? {
            [b'\r'] => return Some((from + end, body.get(..from + end)?.ends_with(b"\n"))),
            [b'\r', b'\n', b'.', ..] => return Some((from + end + 2, true)),
            [b'\r', b'\n', ..] => from + end + 2,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What became of a stream: the message and the rest, or why not.
    #[derive(Debug, PartialEq, Eq)]
    enum Outcome {
        Message(Vec<u8>, Vec<u8>),
        Bad,
        Unfinished,
    }

    /// Feeds the stream in pieces that end at the given places.
    fn decode(stream: &[u8], cuts: &[usize]) -> Outcome {
        let (mut decoder, mut held, mut message) = (DotDecoder::new(), Vec::new(), Vec::new());
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            held.extend_from_slice(&stream[from..cut]);
            from = cut;
            loop {
                match decoder.next(&held) {
                    Piece::Text { text, consumed } => {
                        assert!(!text.is_empty() && consumed <= held.len());
                        message.extend_from_slice(text);
                        held.drain(..consumed);
                    }
                    Piece::More => break assert!(held.len() <= 2, "holds {held:?}"),
                    Piece::Bad => return Outcome::Bad,
                    Piece::End { consumed } => {
                        let rest = [&held[consumed..], &stream[from..]].concat();
                        return Outcome::Message(message, rest);
                    }
                }
            }
        }
        Outcome::Unfinished
    }

    /// The same by the letter of RFC 5321 and without any speed: lines, then dots.
    fn naive(stream: &[u8]) -> Outcome {
        let (mut message, mut line, mut i) = (Vec::new(), Vec::new(), 0);
        while i < stream.len() {
            match (stream[i], stream.get(i + 1)) {
                (b'\r', Some(b'\n')) => {
                    i += 2;
                    if line == b"." {
                        return Outcome::Message(message, stream[i..].to_vec());
                    }
                    message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                    message.extend_from_slice(b"\r\n");
                    line.clear();
                }
                (b'\r', None) => return Outcome::Unfinished,
                (b'\r' | b'\n' | 0, _) => return Outcome::Bad,
                (other, _) => {
                    line.push(other);
                    i += 1;
                }
            }
        }
        Outcome::Unfinished
    }

    #[test]
    fn known_streams() {
        let message = |text: &[u8], rest: &[u8]| Outcome::Message(text.to_vec(), rest.to_vec());
        for (stream, outcome) in [
            (&b".\r\n"[..], message(b"", b"")),
            (b"..\r\n.\r\nNOOP\r\n", message(b".\r\n", b"NOOP\r\n")),
            (b"..x\r\n.\r\n", message(b".x\r\n", b"")),
            (b".x\r\n.\r\n", message(b"x\r\n", b"")),
            (b"a\r\n.", Outcome::Unfinished),
            (b"a\r\n.\r", Outcome::Unfinished),
            (b"a\r\n.\r\r\n", Outcome::Bad),
            (b".\n", Outcome::Bad),
        ] {
            assert_eq!(decode(stream, &[]), outcome, "{stream:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_naive_twin_on_long_texts(
            lines in proptest::collection::vec((0usize..200, proptest::bool::weighted(0.02)), 0..40),
            odd in proptest::option::of((0usize..4000, proptest::sample::select(vec![&b"\r"[..], b"\n", b"\0", b"\n.", b"\r.\r\n"]))),
            cuts in proptest::collection::vec(0usize..4000, 0..4),
        ) {
            let mut stream = Vec::new();
            for (len, dot) in lines {
                stream.extend_from_slice(if dot { b".." } else { b"" });
                stream.resize(stream.len() + len, b'x');
                stream.extend_from_slice(b"\r\n");
            }
            stream.extend_from_slice(b".\r\nNOOP\r\n");
            if let Some((at, octets)) = odd {
                let at = at.min(stream.len());
                stream.splice(at..at, octets.iter().copied());
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            proptest::prop_assert_eq!(decode(&stream, &cuts), naive(&stream));
        }

        #[test]
        fn agrees_with_the_naive_twin_for_every_cut(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![&b"\r\n"[..], b".", b"\r\n.", b"\r", b"\n", b"\0", b"a", b"bcd", b"\r\n.\r\n", b".."]),
                0..12,
            ),
            weird in proptest::bool::weighted(0.5),
            cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let clean = parts.iter().filter(|part| weird || !matches!(**part, b"\r" | b"\n" | b"\0"));
            let stream = clean.copied().collect::<Vec<_>>().concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let expected = naive(&stream);
            let found = decode(&stream, &cuts);
            // A message may end before a bad octet behind it, and an unfinished naive stream may already be known bad.
            proptest::prop_assert_eq!(found, expected);
        }
    }
}

//! The reply parser: octets from a server into [`Reply`]s.
//!
//! Invariant: a reply ends at exactly one place, whatever the octets; what cannot be read with certainty is an
//! error that ends the session, never a guess that could shift one command's reply onto another. Memory is
//! bounded by [`ReplyLimits`]. How the octets are cut into pieces changes nothing.
//!
//! Standards: RFC 5321 4.2 and 4.2.1 (grammar, multi-line replies), 4.5.3.1.5 (512 octets a line);
//! RFC 2034 3 and 4 (enhanced status codes stand at the start of the text and have the class of the code).
//!
//! Not here: what a reply means to the session (client), writing replies (core's `Reply::write_to`).

use memchr::memchr;
use postwright_core::{EnhancedStatus, Reply, ReplyCode};

use crate::command::has_control;

/// How much of a reply is read before the peer is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplyLimits {
    /// Longest line in octets, CRLF included. RFC 5321 4.5.3.1.5 says 512; real servers quote whole policies, so
    /// the default is 2,048, and core cuts the stored text at 506.
    pub line: usize,
    /// Most lines in one reply. The RFC names no number; the longest EHLO replies in the wild have about 30.
    /// Default 128.
    pub lines: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        ReplyLimits { line: 2048, lines: 128 }
    }
}

/// What a server sent that is no reply: the fault is the peer's, and the session cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// A line does not begin with a code from 200 to 599.
    #[error("a reply line does not start with a three-digit code (RFC 5321 4.2)")]
    Code,
    /// The character behind the code is neither blank nor hyphen.
    #[error("a reply code is followed by neither a blank nor a hyphen (RFC 5321 4.2)")]
    Separator,
    /// A line of a multi-line reply has another code than the line before.
    #[error("a multi-line reply changes its code (RFC 5321 4.2.1)")]
    CodeChanged,
    /// A line feed without a carriage return, or the reverse.
    #[error("a reply holds a bare CR or LF (RFC 5321 2.3.8)")]
    BareLineEnd,
    /// A NUL octet.
    #[error("a reply holds a NUL octet")]
    Nul,
    /// A line is longer than [`ReplyLimits::line`].
    #[error("a reply line is too long")]
    LineTooLong,
    /// The reply has more lines than [`ReplyLimits::lines`].
    #[error("a reply has too many lines")]
    TooManyLines,
}

/// Reads replies piece by piece.
///
/// ```
/// use postwright_smtp_proto::reply::{ReplyLimits, ReplyParser};
/// let mut parser = ReplyParser::new(ReplyLimits::default());
/// let (used, reply) = parser.feed(b"550-5.1.1 No such\r\n550 5.1.1 user\r\n250 next").unwrap();
/// assert_eq!(used, 35);
/// assert_eq!(reply.unwrap().to_string(), "550 5.1.1 No such user");
/// ```
#[derive(Debug)]
pub struct ReplyParser {
    limits: ReplyLimits,
    /// The line that has not ended yet.
    partial: Vec<u8>,
    /// The reply that has not ended yet.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    wire_code: u16,
    code: ReplyCode,
    status: Option<EnhancedStatus>,
    /// Line feeds between the lines.
    text: Vec<u8>,
    lines: usize,
}

impl ReplyParser {
    /// A parser at the start of a reply.
    pub fn new(limits: ReplyLimits) -> ReplyParser {
        ReplyParser { limits, partial: Vec::new(), open: None }
    }

    /// Whether a reply has begun and not ended.
    pub fn is_midway(&self) -> bool {
        self.open.is_some() || !self.partial.is_empty()
    }

    /// Reads from `input` up to the end of one reply.
    ///
    /// Returns how many octets were used and the reply, if it ended in them; call again with the rest.
    ///
    /// # Errors
    /// The octets are no reply, or break a limit. The parser must not be used again.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let Some(end) = memchr(b'\n', rest) else {
                self.keep(rest)?;
                return Ok((input.len(), None));
            };
            let (piece, _) = rest.split_at(end + 1);
            used += piece.len();
            let ended = if self.partial.is_empty() {
                self.line(piece)?
            } else {
                self.keep(piece)?;
                let line = std::mem::take(&mut self.partial);
                self.line(&line)?
            };
            if ended {
                return Ok((used, self.open.take().map(Open::finish)));
            }
        }
        Ok((used, None))
    }

    /// Stores part of a line. A wrong start is reported at once, not when the line ends.
    fn keep(&mut self, piece: &[u8]) -> Result<(), ReplyError> {
        if self.partial.len() + piece.len() > self.limits.line {
            return Err(ReplyError::LineTooLong);
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    /// Takes one line with its line feed; true if it ends the reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        if line.len() > self.limits.line {
            return Err(ReplyError::LineTooLong);
        }
        let body = line.strip_suffix(b"\r\n").ok_or(ReplyError::BareLineEnd)?;
        check_octets(body)?;
        let (wire_code, rest) = split_code(body)?;
        let (more, text) = match rest.split_first() {
            // RFC 5321 4.2: clients should accept a code without text and without a blank.
            None => (false, rest),
            Some((b' ', text)) => (false, text),
            Some((b'-', text)) => (true, text),
            Some(_) => return Err(ReplyError::Separator),
        };
        match &mut self.open {
            None => self.open = Some(Open::start(wire_code, text)?),
            Some(open) if open.wire_code != wire_code => return Err(ReplyError::CodeChanged),
            Some(open) => open.add(text),
        }
        let lines = self.open.as_ref().map_or(0, |open| open.lines);
        if lines > self.limits.lines {
            return Err(ReplyError::TooManyLines);
        }
        Ok(!more)
    }
}

fn check_octets(body: &[u8]) -> Result<(), ReplyError> {
    if !has_control(body) {
        return Ok(());
    }
    // A bare CR is told before a NUL, wherever they stand; others are for `Reply` to mend.
    match (memchr(b'\r', body), memchr(0, body)) {
        (Some(_), _) => Err(ReplyError::BareLineEnd),
        (None, Some(_)) => Err(ReplyError::Nul),
        (None, None) => Ok(()),
    }
}

fn split_code(line: &[u8]) -> Result<(u16, &[u8]), ReplyError> {
    let (digits, rest) = line.split_at_checked(3).ok_or(ReplyError::Code)?;
    let mut code = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(ReplyError::Code);
        }
        code = code * 10 + u16::from(digit - b'0');
    }
    if (200..600).contains(&code) { Ok((code, rest)) } else { Err(ReplyError::Code) }
}

impl Open {
    fn start(wire_code: u16, text: &[u8]) -> Result<Open, ReplyError> {
        // A second digit beyond 5 (some servers say 571) is not of the grammar; RFC 5321 4.3.2 has clients act on
        // the first digit then. The number that was sent is kept in the text.
        let (code, mut kept) = match ReplyCode::new(wire_code) {
            Some(code) => (code, Vec::with_capacity(TEXT_HINT)),
            None => {
                let class = ReplyCode::new(wire_code / 100 * 100 + 50).ok_or(ReplyError::Code)?;
                (class, format!("({wire_code}) ").into_bytes())
            }
        };
        let (status, text) = split_status(code, text);
        kept.extend_from_slice(text);
        Ok(Open { wire_code, code, status, text: kept, lines: 1 })
    }

    fn add(&mut self, text: &[u8]) {
        let (status, text) = split_status(self.code, text);
        // RFC 2034 4 wants the same status on every line; where they differ the last one stands, as the text of
        // the last line is what servers add last.
        self.status = status.or(self.status);
        self.text.push(b'\n');
        self.text.extend_from_slice(text);
        self.lines += 1;
    }

    fn finish(mut self) -> Reply {
        // `Reply::new` takes one final line feed as the end of the last line, which may be empty.
        if self.text.ends_with(b"\n") {
            self.text.push(b'\n');
        }
        let reply = match std::str::from_utf8(&self.text) {
            Ok(text) => Reply::new(self.code, text),
            Err(_) => Reply::new(self.code, &String::from_utf8_lossy(&self.text)),
        };
        match self.status {
            Some(status) => reply.with_status(status),
            None => reply,
        }
    }
}

/// Octets that the text of a reply gets at once: a reply to EHLO fits as a rule.
const TEXT_HINT: usize = 512;

/// Takes an enhanced status code off the text, if one is there and has the class of the reply code.
fn split_status(code: ReplyCode, text: &[u8]) -> (Option<EnhancedStatus>, &[u8]) {
    // Most texts do not begin with one, and show it by their first octets.
    if !matches!(text, [b'2' | b'4' | b'5', b'.', ..]) {
        return (None, text);
    }
    let end = memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let status = std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse::<EnhancedStatus>().ok())
        .filter(|status| u16::from(status.class()) == code.get() / 100);
    match status {
        Some(status) => (Some(status), rest.strip_prefix(b" ").unwrap_or(rest)),
        None => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &[u8]) -> Result<Option<Reply>, ReplyError> {
        ReplyParser::new(ReplyLimits::default()).feed(wire).map(|(_, reply)| reply)
    }

    #[test]
    fn replies_of_rfc_5321_are_read() {
        // RFC 5321 4.2.1 shows the multi-line form; 4.2 the bare code.
        let reply = parse(b"250-First line\r\n250-Second line\r\n250-234 Text beginning with numbers\r\n250 The last line\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(reply.code().get(), 250);
        let lines: Vec<_> = reply.lines().collect();
        assert_eq!(lines, ["First line", "Second line", "234 Text beginning with numbers", "The last line"]);
        let bare = parse(b"250\r\n").unwrap().unwrap();
        assert_eq!((bare.code().get(), bare.text().as_str()), (250, ""));
        assert_eq!(parse(b"250-more\r\n"), Ok(None));
    }

    #[test]
    fn enhanced_codes_have_the_class_of_the_code() {
        let reply = parse(b"452-4.5.3 Too\r\n452 4.5.3 many\r\n").unwrap().unwrap();
        assert_eq!(reply.status(), Some(EnhancedStatus::known(4, 5, 3)));
        assert_eq!(reply.text(), "Too many");
        let other = parse(b"550 4.5.3 odd\r\n").unwrap().unwrap();
        assert_eq!((other.status(), other.text().as_str()), (None, "4.5.3 odd"));
        let address = parse(b"550 5.1.1.example is gone\r\n").unwrap().unwrap();
        assert_eq!((address.status(), address.text().as_str()), (None, "5.1.1.example is gone"));
    }

    #[test]
    fn what_is_no_reply_ends_the_session() {
        use ReplyError::*;
        let long = [b"250 ".as_slice(), &vec![b'x'; 1 << 20]].concat();
        let endless = b"250-x\r\n".repeat(1_000_000);
        for (wire, error) in [
            (&b"250-one\r\n550 two\r\n"[..], CodeChanged),
            (b"250 one\n", BareLineEnd),
            (b"250 one\r250 two\r\n", BareLineEnd),
            (b"250 one\r\r\n", BareLineEnd),
            (b"250 o\0ne\r\n", Nul),
            (b"\r\n", Code),
            (b"25\r\n", Code),
            (b"2x0 hi\r\n", Code),
            (b"199 hi\r\n", Code),
            (b"600 hi\r\n", Code),
            (b"250_hi\r\n", Separator),
            (b"2500 hi\r\n", Separator),
            (&long, LineTooLong),
            (&endless, TooManyLines),
        ] {
            assert_eq!(parse(wire), Err(error), "{:?}", &wire[..wire.len().min(40)]);
        }
    }

    #[test]
    fn a_code_outside_the_grammar_counts_by_its_first_digit() {
        let reply = parse(b"571 5.7.1 blocked\r\n").unwrap().unwrap();
        assert_eq!(reply.to_string(), "550 5.7.1 (571) blocked");
    }

    proptest::proptest! {
        #[test]
        fn cutting_the_octets_changes_nothing(
            wire in proptest::collection::vec(proptest::sample::select(&b"2503 -.\r\n\0xA5"[..]), 0..60),
            cuts in proptest::collection::vec(1usize..7, 1..40),
        ) {
            let wire = [b"250-a\r\n250 b\r\n".as_slice(), &wire].concat();
            let all = |cuts: &mut dyn Iterator<Item = usize>| {
                let mut parser = ReplyParser::new(ReplyLimits { line: 40, lines: 3 });
                let mut replies = Vec::new();
                let mut rest = &wire[..];
                while !rest.is_empty() {
                    let (mut piece, later) = rest.split_at(cuts.next().unwrap_or(usize::MAX).min(rest.len()));
                    rest = later;
                    while !piece.is_empty() {
                        match parser.feed(piece) {
                            Ok((used, reply)) => {
                                replies.extend(reply.map(Ok));
                                piece = &piece[used..];
                            }
                            Err(error) => {
                                replies.push(Err(error));
                                return replies;
                            }
                        }
                    }
                }
                replies
            };
            let whole = all(&mut std::iter::empty());
            proptest::prop_assert!(matches!(whole.first(), Some(Ok(_))));
            proptest::prop_assert_eq!(&whole, &all(&mut cuts.into_iter().cycle()));
            proptest::prop_assert_eq!(&whole, &all(&mut std::iter::repeat(1)));
        }
    }
}

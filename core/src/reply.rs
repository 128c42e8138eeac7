//! SMTP replies: [`ReplyCode`], [`EnhancedStatus`], [`Reply`], [`Refusal`].
//!
//! Invariant: a reply can be written to the wire as it stands; its lines hold no CR, LF or other control
//! characters, and an enhanced status has the class of its code.
//!
//! Standards: RFC 5321 4.2; RFC 2034; RFC 3463; RFC 5248.
//!
//! Not here: reading replies from a peer (smtp-proto), what a refusal means (bounce).

use std::fmt;
use std::str::FromStr;

/// A three-digit reply code, 200 to 599 (RFC 5321 4.2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

impl ReplyCode {
    /// The code, if it lies in 200..=599 and its second digit in 0..=5; `None` otherwise.
    pub const fn new(code: u16) -> Option<ReplyCode> {
        if code >= 200 && code <= 599 && code / 10 % 10 <= 5 { Some(ReplyCode(code)) } else { None }
    }

    /// The code as a number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// 2xx: the action is done.
    pub const fn is_positive(self) -> bool {
        self.0 / 100 == 2
    }

    /// 3xx: the peer waits for more.
    pub const fn is_intermediate(self) -> bool {
        self.0 / 100 == 3
    }

    /// 4xx: may work later.
    pub const fn is_transient(self) -> bool {
        self.0 / 100 == 4
    }

    /// 5xx: will not work as it is.
    pub const fn is_permanent(self) -> bool {
        self.0 / 100 == 5
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An enhanced mail system status code such as `5.1.1` (RFC 3463).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

impl EnhancedStatus {
    /// `class.subject.detail`; `None` unless the class is 2, 4 or 5 and the others are at most 999.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Option<EnhancedStatus> {
        if matches!(class, 2 | 4 | 5) && subject <= 999 && detail <= 999 {
            Some(EnhancedStatus { class, subject, detail })
        } else {
            None
        }
    }

    /// For constants of the source: as [`EnhancedStatus::new`], but a wrong one does not compile in a `const`.
    ///
    /// # Panics
    /// If the numbers are out of range. Use it in constants only.
    pub const fn known(class: u8, subject: u16, detail: u16) -> EnhancedStatus {
        match EnhancedStatus::new(class, subject, detail) {
            Some(status) => status,
            None => panic!("not an enhanced status code of RFC 3463"),
        }
    }

    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub const fn class(self) -> u8 {
        self.class
    }

    /// What the status is about: 1 addressing, 2 mailbox, 3 system, 4 network, 5 protocol, 6 content, 7 security.
    pub const fn subject(self) -> u16 {
        self.subject
    }

    /// The exact condition within the subject.
    pub const fn detail(self) -> u16 {
        self.detail
    }

    /// Appends the text of the status, such as `5.1.1`.
    pub fn write_to(self, out: &mut Vec<u8>) {
        write_number(self.class.into(), out);
        out.push(b'.');
        write_number(self.subject, out);
        out.push(b'.');
        write_number(self.detail, out);
    }

    /// The same condition with another class: `4.7.1` for `5.7.1`. `None` for a class that does not exist.
    pub const fn with_class(self, class: u8) -> Option<EnhancedStatus> {
        EnhancedStatus::new(class, self.subject, self.detail)
    }
}

/// Why a text is not an enhanced status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an enhanced status code: want class.subject.detail with class 2, 4 or 5 and at most three digits each (RFC 3463)"
)]
pub struct EnhancedStatusError;

impl FromStr for EnhancedStatus {
    type Err = EnhancedStatusError;

    fn from_str(text: &str) -> Result<Self, EnhancedStatusError> {
        // Most words that are tried are none, and show it at once.
        if !matches!(text.as_bytes(), [b'2' | b'4' | b'5', b'.', ..]) {
            return Err(EnhancedStatusError);
        }
        let mut parts = text.split('.');
        let mut number = || -> Option<u16> {
            let part = parts.next()?;
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        };
        let (class, subject, detail) = (number(), number(), number());
        match (class, subject, detail, parts.next()) {
            (Some(class), Some(subject), Some(detail), None) => {
                u8::try_from(class).ok().and_then(|class| EnhancedStatus::new(class, subject, detail))
            }
            _ => None,
        }
        .ok_or(EnhancedStatusError)
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl fmt::Debug for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest text of one reply line in octets, code, separator and CRLF left out (RFC 5321 4.5.3.1.5).
pub const REPLY_TEXT_MAX: usize = 506;

/// A reply: a code, perhaps an enhanced status, and one or more lines of text.
///
/// The text is made safe on the way in: a line feed starts a new line, other control characters become `?`,
/// and a line is cut at [`REPLY_TEXT_MAX`] octets. So text from a policy engine or from a remote peer can never
/// end a reply early or add one of its own.
///
/// ```
/// use postwright_core::{Reply, ReplyCode, EnhancedStatus};
/// let reply = Reply::new(ReplyCode::new(550).unwrap(), "No such user here").with_status(EnhancedStatus::known(5, 1, 1));
/// assert_eq!(reply.to_string(), "550 5.1.1 No such user here");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    code: ReplyCode,
    status: Option<EnhancedStatus>,
    /// The lines, joined by line feeds.
    text: Box<str>,
}

impl Reply {
    /// A reply without an enhanced status. Each line of `text` becomes a line of the reply.
    pub fn new(code: ReplyCode, text: &str) -> Reply {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = if is_clean(text) { text.into() } else { clean(text).into() };
        Reply { code, status: None, text }
    }

    /// For replies whose code stands in the source.
    ///
    /// # Panics
    /// If `code` is not a reply code, or if `status` has another class. Use it with literals only.
    pub fn known(code: u16, status: EnhancedStatus, text: &str) -> Reply {
        let code = ReplyCode::new(code).expect("a literal reply code");
        Reply::new(code, text).with_status(status)
    }

    /// The same reply with an enhanced status.
    ///
    /// A status whose class is not that of the code is given the code's class, since RFC 2034 section 4 wants
    /// them to agree; on a 3xx reply, which has none, it is left out.
    pub fn with_status(mut self, status: EnhancedStatus) -> Reply {
        self.status = u8::try_from(self.code.get() / 100).ok().and_then(|class| status.with_class(class));
        self
    }

    /// The reply code.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// The enhanced status code, if there is one.
    pub fn status(&self) -> Option<EnhancedStatus> {
        self.status
    }

    /// The lines of text without code and status; at least one, perhaps empty.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = &str> {
        Lines { rest: Some(&self.text) }
    }

    /// All lines, joined by a blank: for logs and classification.
    pub fn text(&self) -> String {
        self.text.replace('\n', " ")
    }

    /// Appends the reply as it goes over the wire, CRLF and the code on every line included.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = Lines { rest: Some(&self.text) };
        while let Some(line) = lines.next() {
            write_number(self.code.get(), out);
            out.push(if lines.rest.is_none() { b' ' } else { b'-' });
            if let Some(status) = self.status {
                status.write_to(out);
                out.push(b' ');
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// In decimal, without the machinery of formatting: replies are written for every command.
fn write_number(number: u16, out: &mut Vec<u8>) {
    if number >= 10 {
        write_number(number / 10, out);
    }
    // A digit is below 10.
    out.push(b'0' + (number % 10) as u8);
}

/// The lines of a reply.
struct Lines<'r> {
    /// What was not given yet, if there is another line.
    rest: Option<&'r str>,
}

impl<'r> Iterator for Lines<'r> {
    type Item = &'r str;

    fn next(&mut self) -> Option<&'r str> {
        let rest = self.rest?;
        // Lines are short: looking at each octet is quicker than a search.
        let Some(end) = rest.bytes().position(|octet| octet == b'\n') else { return self.rest.take() };
        self.rest = rest.get(end + 1..);
        rest.get(..end)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ends = |rest: &str| rest.bytes().filter(|octet| *octet == b'\n').count();
        let left = self.rest.map_or(0, |rest| ends(rest) + 1);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Lines<'_> {}

/// Whether a text can stand in a reply as it is. Without branches in the loop, so that the compiler makes vector code.
fn is_clean(text: &str) -> bool {
    let odd = |octet: u8| !(b' '..=b'~').contains(&octet) & (octet != b'\n');
    !text.bytes().fold(false, |found, octet| found | odd(octet))
        && (text.len() <= REPLY_TEXT_MAX || text.split('\n').all(|line| line.len() <= REPLY_TEXT_MAX))
}

fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (nth, line) in text.split('\n').enumerate() {
        if nth > 0 {
            out.push('\n');
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        let line = &line[..line.floor_char_boundary(REPLY_TEXT_MAX)];
        out.extend(line.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }));
    }
    out
}

/// One line: lines are joined by a blank.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        self.lines().try_for_each(|line| write!(f, " {line}"))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

/// A reply that is known to refuse: 4xx or 5xx.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Refusal(Reply);

impl Refusal {
    /// For refusals whose code stands in the source.
    ///
    /// # Panics
    /// If `code` is not 4xx or 5xx. Use it with literals only.
    pub fn known(code: u16, status: EnhancedStatus, text: &str) -> Refusal {
        Refusal::try_from(Reply::known(code, status, text)).expect("a literal refusal")
    }

    /// The reply.
    pub fn reply(&self) -> &Reply {
        &self.0
    }

    /// The reply, owned.
    pub fn into_reply(self) -> Reply {
        self.0
    }
}

/// A reply that does not refuse, handed back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a refusal: its code is neither 4xx nor 5xx")]
pub struct NotARefusal(pub Reply);

impl TryFrom<Reply> for Refusal {
    type Error = NotARefusal;

    fn try_from(reply: Reply) -> Result<Self, NotARefusal> {
        if reply.code.is_transient() || reply.code.is_permanent() {
            Ok(Refusal(reply))
        } else {
            Err(NotARefusal(reply))
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        refusal.0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_out() {
        let reply = Reply::known(250, EnhancedStatus::known(2, 0, 0), "one\r\n221 two\rthree\0\n");
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        assert_eq!(wire, b"250-2.0.0 one\r\n250 2.0.0 221 two?three?\r\n");
    }

    #[test]
    fn status_takes_the_class_of_the_code() {
        let reply =
            Reply::new(ReplyCode::new(451).unwrap(), "later").with_status(EnhancedStatus::known(5, 7, 1));
        assert_eq!(reply.to_string(), "451 4.7.1 later");
        let reply =
            Reply::new(ReplyCode::new(354).unwrap(), "go").with_status(EnhancedStatus::known(2, 0, 0));
        assert_eq!(reply.status(), None);
    }

    #[test]
    fn numbers_are_written_as_they_are_printed() {
        for (class, subject, detail) in [(2, 0, 0), (4, 7, 10), (5, 100, 999), (5, 1, 101)] {
            let status = EnhancedStatus::known(class, subject, detail);
            let mut out = Vec::new();
            status.write_to(&mut out);
            assert_eq!(out, status.to_string().as_bytes());
        }
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        for text in ["", "one", "one\ntwo", "\n\nthree", "one\n\n", "a\tb\n\u{e9}"] {
            let reply = Reply::new(ReplyCode::new(250).unwrap(), text);
            let expected: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
            assert_eq!(reply.lines().collect::<Vec<_>>(), expected, "{text:?}");
            assert_eq!(reply.lines().len(), expected.len());
            assert_eq!(reply.text(), expected.join(" "));
        }
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let two = format!("{}\nshort", "x".repeat(REPLY_TEXT_MAX + 1));
        let reply = Reply::new(ReplyCode::new(250).unwrap(), &two);
        assert_eq!(reply.lines().map(str::len).collect::<Vec<_>>(), [REPLY_TEXT_MAX, 5]);
        let reply = Reply::new(ReplyCode::new(250).unwrap(), &"é".repeat(400));
        assert!(reply.lines().all(|line| line.len() <= REPLY_TEXT_MAX));
    }

    #[test]
    fn enhanced_status_is_parsed_strictly() {
        assert_eq!("5.1.10".parse(), Ok(EnhancedStatus::known(5, 1, 10)));
        for bad in ["", "5", "5.1", "5.1.1.1", "3.1.1", "5.+1.1", "5.1.1000", "5..1", "55.1.1", " 5.1.1"] {
            assert_eq!(bad.parse::<EnhancedStatus>(), Err(EnhancedStatusError), "{bad:?}");
        }
    }

    #[test]
    fn only_refusals_refuse() {
        assert!(Refusal::try_from(Reply::new(ReplyCode::new(250).unwrap(), "ok")).is_err());
        assert_eq!(ReplyCode::new(199), None);
        assert_eq!(ReplyCode::new(600), None);
        assert_eq!(ReplyCode::new(560), None);
    }
}

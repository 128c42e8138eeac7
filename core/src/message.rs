//! The message: an immutable rope of prepended header fields and shared body chunks, and the byte budget that
//! bodies in memory are counted against.
//!
//! Invariant: once built, a message never changes; prepending makes a new rope that shares the body. A chunk
//! holds at most [`CHUNK_MAX`] octets. A header field cannot break the header section it is put in.
//!
//! Standards: RFC 5322 2.2 (fields), 2.1.1 (998 octets a line).
//!
//! Not here: MIME, parsing of header fields.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};

/// Longest chunk of a body in octets.
pub const CHUNK_MAX: usize = 64 * 1024;
/// Longest line of a message in octets, CRLF left out (RFC 5322 2.1.1).
pub const LINE_MAX: usize = 998;

/// A header field, `Name: value` CRLF, that cannot break the header section.
///
/// ```
/// use postwright_core::HeaderField;
/// let field = HeaderField::new("Subject", "folded\r\n here").unwrap();
/// assert_eq!(field.as_bytes(), b"Subject: folded\r\n here\r\n");
/// assert!(HeaderField::new("Subject", "x\r\nBcc: you@example.org").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HeaderField {
    bytes: Bytes,
    name_len: usize,
}

/// Why a name and a value make no header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFieldError {
    /// The name is empty or holds something other than printable ASCII without colon.
    #[error("a field name is printable ASCII without a colon (RFC 5322 2.2)")]
    Name,
    /// The value holds a bare CR or LF, a NUL, or a line break that is not followed by white space.
    #[error(
        "a field value may hold a line break only as CRLF followed by white space and more text (RFC 5322 2.2.3)"
    )]
    Value,
    /// A line is longer than 998 octets.
    #[error("a line of the field is longer than 998 octets (RFC 5322 2.1.1)")]
    LineTooLong,
}

impl HeaderField {
    /// Joins a name and a value, which may be folded (CRLF followed by a blank or tab).
    pub fn new(name: &str, value: &str) -> Result<HeaderField, HeaderFieldError> {
        if name.is_empty() || !name.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b':') {
            return Err(HeaderFieldError::Name);
        }
        let mut fits = true;
        // A single octet is found far faster than two, so lines are cut at LF and then want their CR.
        let mut lines = value.split('\n').enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let ends = lines.peek().is_some();
            let line = if ends { line.strip_suffix('\r').ok_or(HeaderFieldError::Value)? } else { line };
            let continues = number == 0 || line.starts_with([' ', '\t']) && !line.trim().is_empty();
            if !is_clean(line) || !continues {
                return Err(HeaderFieldError::Value);
            }
            let before = if number == 0 { name.len() + ": ".len() } else { 0 };
            fits &= before + line.len() <= LINE_MAX;
        }
        if !fits {
            return Err(HeaderFieldError::LineTooLong);
        }
        let mut bytes = Vec::with_capacity(name.len() + value.len() + 4);
        for part in [name, ": ", value, "\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
        Ok(HeaderField { bytes: bytes.into(), name_len: name.len() })
    }

    /// The name as written.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.name_len]).unwrap_or_default()
    }

    /// The value as written, folding included, final CRLF left out.
    pub fn value(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.name_len + 2..self.bytes.len() - 2]).unwrap_or_default()
    }

    /// The whole field, final CRLF included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whether a line holds neither CR nor NUL. It looks at all of it, many octets at a time.
fn is_clean(line: &str) -> bool {
    !line.bytes().fold(false, |found, octet| found | (octet == b'\r') | (octet == 0))
}

impl fmt::Debug for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.value())
    }
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.value())
    }
}

/// The bytes of memory that all bodies together may take.
///
/// Nobody waits for budget: a request is granted at once or refused, so that two holders can never wait for
/// each other. Clones share one budget.
#[derive(Clone, Debug)]
pub struct Budget {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    limit: usize,
    used: AtomicUsize,
}

/// The budget is spent: the caller refuses with 452 4.3.1 and tries again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget for message bodies is spent")]
pub struct BudgetSpent;

impl Budget {
    /// A budget of `limit` octets.
    pub fn new(limit: usize) -> Budget {
        Budget { pool: Arc::new(Pool { limit, used: AtomicUsize::new(0) }) }
    }

    /// A budget that never runs out: for tests and tools that hold one message.
    pub fn unlimited() -> Budget {
        Budget::new(usize::MAX)
    }

    /// Octets granted and not yet given back.
    pub fn used(&self) -> usize {
        self.pool.used.load(Ordering::Relaxed)
    }

    /// The limit in octets.
    pub fn limit(&self) -> usize {
        self.pool.limit
    }

    fn grant(&self) -> Grant {
        Grant { pool: self.pool.clone(), octets: 0 }
    }
}

/// A share of a budget; given back when dropped.
struct Grant {
    pool: Arc<Pool>,
    octets: usize,
}

impl Grant {
    fn grow(&mut self, octets: usize) -> Result<(), BudgetSpent> {
        let limit = self.pool.limit;
        let fits = |used: usize| used.checked_add(octets).filter(|sum| *sum <= limit);
        self.pool.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| BudgetSpent)?;
        self.octets += octets;
        Ok(())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

/// Collects the octets of a message as they arrive, within a budget.
///
/// ```
/// use postwright_core::{Budget, MessageBuilder};
/// let budget = Budget::new(1 << 20);
/// let mut builder = MessageBuilder::new(&budget);
/// builder.push(b"Subject: x\r\n\r\nHello\r\n")?;
/// let message = builder.finish();
/// assert_eq!(message.len(), 21);
/// drop(message);
/// assert_eq!(budget.used(), 0);
/// # Ok::<(), postwright_core::BudgetSpent>(())
/// ```
pub struct MessageBuilder {
    chunks: Vec<Bytes>,
    open: BytesMut,
    len: usize,
    grant: Grant,
}

impl MessageBuilder {
    /// An empty message that takes its memory from `budget`.
    pub fn new(budget: &Budget) -> MessageBuilder {
        MessageBuilder { chunks: Vec::new(), open: BytesMut::new(), len: 0, grant: budget.grant() }
    }

    /// Appends octets. On an error nothing more can be added; drop the builder to give its memory back.
    pub fn push(&mut self, mut octets: &[u8]) -> Result<(), BudgetSpent> {
        self.grant.grow(octets.len())?;
        self.len += octets.len();
        while !octets.is_empty() {
            let room = CHUNK_MAX - self.open.len();
            let (now, later) = octets.split_at(room.min(octets.len()));
            self.open.extend_from_slice(now);
            octets = later;
            if self.open.len() == CHUNK_MAX {
                self.chunks.push(std::mem::take(&mut self.open).freeze());
            }
        }
        Ok(())
    }

    /// Octets so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The message.
    pub fn finish(mut self) -> Message {
        if !self.open.is_empty() {
            self.chunks.push(self.open.freeze());
        }
        Message {
            fields: Vec::new(),
            body: Arc::new(Chunks { chunks: self.chunks, len: self.len, _grant: Some(self.grant) }),
        }
    }
}

struct Chunks {
    chunks: Vec<Bytes>,
    len: usize,
    _grant: Option<Grant>,
}

/// A whole message, header and body: cheap to clone, never changed in place.
#[derive(Clone)]
pub struct Message {
    /// Prepended fields, the topmost last.
    fields: Vec<HeaderField>,
    body: Arc<Chunks>,
}

impl Message {
    /// A message of octets that are already in memory, outside any budget.
    pub fn from_bytes(octets: impl Into<Bytes>) -> Message {
        let mut rest: Bytes = octets.into();
        let len = rest.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(CHUNK_MAX));
        while !rest.is_empty() {
            chunks.push(rest.split_to(rest.len().min(CHUNK_MAX)));
        }
        Message { fields: Vec::new(), body: Arc::new(Chunks { chunks, len, _grant: None }) }
    }

    /// A message of pieces that are already in memory, outside any budget; the pieces are not copied.
    pub fn from_chunks(pieces: impl IntoIterator<Item = Bytes>) -> Message {
        let (mut chunks, mut len) = (Vec::new(), 0);
        for mut rest in pieces {
            len += rest.len();
            while !rest.is_empty() {
                chunks.push(rest.split_to(rest.len().min(CHUNK_MAX)));
            }
        }
        Message { fields: Vec::new(), body: Arc::new(Chunks { chunks, len, _grant: None }) }
    }

    /// The same message with one more field on top. The body is shared, not copied.
    #[must_use]
    pub fn prepend(&self, field: HeaderField) -> Message {
        let mut message = self.clone();
        message.fields.push(field);
        message
    }

    /// Octets in all.
    pub fn len(&self) -> usize {
        self.body.len + self.fields.iter().map(|field| field.bytes.len()).sum::<usize>()
    }

    /// Whether there are no octets at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The octets from first to last, in pieces of at most [`CHUNK_MAX`].
    pub fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.fields.iter().rev().map(|field| &field.bytes).chain(self.body.chunks.iter())
    }

    /// Copies the whole message into one piece of memory: for tests and small messages.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for chunk in self.chunks() {
            all.extend_from_slice(chunk);
        }
        all
    }
}

/// Same octets, however they are cut into chunks.
impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.len() == other.len()
            && self.chunks().flat_map(|chunk| chunk.iter()).eq(other.chunks().flat_map(|chunk| chunk.iter()))
    }
}

impl Eq for Message {}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} octets, {} prepended fields)", self.len(), self.fields.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepending_puts_the_newest_on_top_and_shares_the_body() {
        let message = Message::from_bytes(&b"Subject: x\r\n\r\nbody"[..]);
        let stamped = message
            .prepend(HeaderField::new("Received", "first").unwrap())
            .prepend(HeaderField::new("DKIM-Signature", "second").unwrap());
        assert_eq!(stamped.to_vec(), b"DKIM-Signature: second\r\nReceived: first\r\nSubject: x\r\n\r\nbody");
        assert_eq!(message.to_vec(), b"Subject: x\r\n\r\nbody");
        assert!(Arc::ptr_eq(&message.body, &stamped.body));
        assert_eq!(stamped.len(), stamped.to_vec().len());
    }

    #[test]
    fn fields_cannot_break_the_header() {
        use HeaderFieldError::*;
        let long = "x".repeat(995);
        for (name, value, error) in [
            ("", "x", Name),
            ("A B", "x", Name),
            ("A:", "x", Name),
            ("A", "x\n", Value),
            ("A", "x\r\n", Value),
            ("A", "x\r\n\r\nbody", Value),
            ("A", "x\r\n \r\n y", Value),
            ("A", "x\r\nB: y", Value),
            ("A", "x\r y", Value),
            ("A", "x\0", Value),
            ("A-name", long.as_str(), LineTooLong),
        ] {
            assert_eq!(HeaderField::new(name, value), Err(error), "{name:?} {value:?}");
        }
        assert_eq!(HeaderField::new("A", long.as_str()).unwrap().as_bytes().len(), 1000);
    }

    #[test]
    fn the_budget_is_exact_and_comes_back() {
        let budget = Budget::new(100_000);
        let mut one = MessageBuilder::new(&budget);
        one.push(&[7; 70_000]).unwrap();
        let mut two = MessageBuilder::new(&budget);
        assert_eq!(two.push(&[8; 30_001]), Err(BudgetSpent));
        two.push(&[8; 30_000]).unwrap();
        let message = one.finish();
        let copy = message.clone();
        drop(message);
        assert_eq!(budget.used(), 100_000);
        drop((copy, two));
        assert_eq!(budget.used(), 0);
    }

    proptest::proptest! {
        /// RFC 5322 2.2.3, word for word: cut at CRLF, then look at each line.
        #[test]
        fn folded_values_are_judged_like_line_by_line(value in "(\r\n[ \t]?|\r|\n|\0|[ \ta]|é|a{997}){0,8}") {
            let mut lines = value.split("\r\n");
            let first = lines.next().unwrap_or("");
            let rest: Vec<_> = lines.collect();
            let stray = |line: &str| line.contains(['\r', '\n', '\0']);
            let folded = |line: &&str| line.starts_with([' ', '\t']) && !line.trim().is_empty();
            let expected = if stray(first) || rest.iter().any(|line| stray(line)) || !rest.iter().all(folded) {
                Err(HeaderFieldError::Value)
            } else if "A: ".len() + first.len() > LINE_MAX || rest.iter().any(|line| line.len() > LINE_MAX) {
                Err(HeaderFieldError::LineTooLong)
            } else {
                Ok(format!("A: {value}\r\n").into_bytes())
            };
            let made = HeaderField::new("A", &value).map(|field| field.as_bytes().to_vec());
            proptest::prop_assert_eq!(made, expected);
        }

        #[test]
        fn chunks_are_bounded_and_keep_every_octet(pieces in proptest::collection::vec(0usize..150_000, 0..5)) {
            let mut builder = MessageBuilder::new(&Budget::unlimited());
            let mut expected = Vec::new();
            for (i, len) in pieces.iter().enumerate() {
                let piece = vec![i as u8; *len];
                builder.push(&piece).unwrap();
                expected.extend_from_slice(&piece);
            }
            let message = builder.finish();
            assert!(message.chunks().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_MAX));
            assert_eq!(message.to_vec(), expected);
            let whole = Bytes::from(expected);
            assert_eq!(message, Message::from_bytes(whole.clone()));
            let cuts = pieces.iter().scan(0, |at, len| {
                *at += len;
                Some(whole.slice(*at - len..*at))
            });
            let joined = Message::from_chunks(cuts);
            assert!(joined.chunks().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_MAX));
            assert_eq!(joined, message);
        }
    }
}

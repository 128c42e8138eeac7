//! The SPF record: its terms, read without copies.
//!
//! Invariant: a [`Record`] is free of syntax errors, so its [`Terms`] never fail: RFC 7208 4.6 wants a permerror
//! for an error *anywhere* in the record, before anything of it is evaluated.
//!
//! Standards: RFC 7208 sections 4.5 and 4.6.
//!
//! Not here: evaluation (check.rs), what one term is (term.rs).

use std::fmt;

use super::term::{Mechanism, Term, TermError, TermKind, read_network, read_term};

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("term {term:?}: {what}")]
pub struct RecordError {
    /// The offending term, shortened to 64 characters.
    pub term: String,
    /// What is wrong.
    pub what: TermError,
}

/// A record without syntax errors.
///
/// ```
/// use postwright_spf_dmarc::spf::{Mechanism, Qualifier, Record, TermKind};
/// let record = Record::parse(b"v=spf1 mx -all")?;
/// let last = record.terms().last().map(|term| term.kind);
/// assert_eq!(last, Some(TermKind::Directive(Qualifier::Fail, Mechanism::All)));
/// assert!(Record::parse("v=spf1 mx\u{200b} -all".as_bytes()).is_err());
/// # Ok::<(), postwright_spf_dmarc::spf::RecordError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    text: Box<str>,
    terms: Vec<Stored>,
    explanation: Option<Span>,
    redirect: Option<Span>,
}

/// A piece of a record's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or("")
    }
}

/// A term that was read: what it is, with its domain as a place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    text: Span,
    spec: Span,
    /// Empty texts stand for `spec`.
    kind: TermKind<'static>,
}

impl Stored {
    /// `start` is where the term begins in its record.
    fn new(start: usize, term: &str, kind: TermKind<'_>) -> Stored {
        use Mechanism::*;
        use TermKind::*;
        let (spec, kind) = match kind {
            Redirect(spec) => (spec, Redirect("")),
            Explanation(spec) => (spec, Explanation("")),
            UnknownModifier => ("", UnknownModifier),
            Directive(qualifier, mechanism) => {
                let (spec, mechanism) = match mechanism {
                    All => ("", All),
                    Include(spec) => (spec, Include("")),
                    A(spec, cidr) => (spec.unwrap_or(""), A(spec.map(|_| ""), cidr)),
                    Mx(spec, cidr) => (spec.unwrap_or(""), Mx(spec.map(|_| ""), cidr)),
                    Ptr(spec) => (spec.unwrap_or(""), Ptr(spec.map(|_| ""))),
                    Ip4(net, bits) => ("", Ip4(net, bits)),
                    Ip6(net, bits) => ("", Ip6(net, bits)),
                    Exists(spec) => (spec, Exists("")),
                };
                (spec, Directive(qualifier, mechanism))
            }
        };
        // A domain-spec begins behind the first colon or equals sign.
        let behind = match spec {
            "" => term.len(),
            _ => term.bytes().position(|b| matches!(b, b':' | b'=')).map_or(term.len(), |at| at + 1),
        };
        let text = Span { start, end: start + term.len() };
        Stored { text, spec: Span { start: start + behind, end: start + behind + spec.len() }, kind }
    }

    fn show<'r>(&self, text: &'r str) -> Term<'r> {
        use Mechanism::*;
        use TermKind::*;
        let spec = self.spec.of(text);
        let kind = match self.kind {
            Redirect(_) => Redirect(spec),
            Explanation(_) => Explanation(spec),
            UnknownModifier => UnknownModifier,
            Directive(qualifier, mechanism) => Directive(
                qualifier,
                match mechanism {
                    All => All,
                    Include(_) => Include(spec),
                    A(some, cidr) => A(some.map(|_| spec), cidr),
                    Mx(some, cidr) => Mx(some.map(|_| spec), cidr),
                    Ptr(some) => Ptr(some.map(|_| spec)),
                    Ip4(net, bits) => Ip4(net, bits),
                    Ip6(net, bits) => Ip6(net, bits),
                    Exists(_) => Exists(spec),
                },
            ),
        };
        Term { text: self.text.of(text), kind }
    }
}

const VERSION: &[u8] = b"v=spf1";

impl Record {
    /// Whether the octets of a TXT record claim to be an SPF record: `v=spf1` and then a blank or nothing
    /// (RFC 7208 4.5).
    pub fn is_claimed_by(text: &[u8]) -> bool {
        match text.split_at_checked(VERSION.len()) {
            Some((version, rest)) => {
                version.eq_ignore_ascii_case(VERSION) && rest.first().is_none_or(|b| *b == b' ')
            }
            None => false,
        }
    }

    /// Reads the octets of a TXT record, its character-strings joined.
    pub fn parse(text: impl Into<Vec<u8>> + AsRef<[u8]>) -> Result<Record, RecordError> {
        let octets = text.as_ref();
        if !Record::is_claimed_by(octets) {
            let start = String::from_utf8_lossy(octets.get(..64).unwrap_or(octets)).into_owned();
            return Err(RecordError { term: start, what: TermError::Version });
        }
        // All octets are looked at, without a way out in between: that is what makes it quick.
        let odd = octets.iter().fold(false, |odd, b| odd | !(0x20..=0x7e).contains(b));
        if odd {
            let mut terms = octets.split(|b| *b == b' ');
            let term = terms.find(|term| !term.iter().all(u8::is_ascii_graphic)).unwrap_or_default();
            return Err(error(&String::from_utf8_lossy(term), TermError::NotAscii));
        }
        let text: Box<str> = String::from_utf8(text.into()).unwrap_or_default().into();
        let mut terms = Vec::with_capacity(text.len() / 12);
        let (mut explanation, mut redirect) = (None, None);
        let mut words = words(&text);
        while let Some(word) = words.next() {
            let start = words.at.saturating_sub(word.len());
            if let Some(kind) = read_network(word) {
                let text = Span { start, end: words.at };
                terms.push(Stored { text, spec: Span { start, end: start }, kind });
                continue;
            }
            let kind = read_term(word).map_err(|what| error(word, what))?;
            let stored = Stored::new(start, word, kind);
            let slot = match kind {
                TermKind::Explanation(_) => Some(&mut explanation),
                TermKind::Redirect(_) => Some(&mut redirect),
                _ => None,
            };
            if let Some(slot) = slot {
                if slot.is_some() {
                    return Err(error(word, TermError::Twice));
                }
                *slot = Some(stored.spec);
            }
            terms.push(stored);
        }
        Ok(Record { text, terms, explanation, redirect })
    }

    /// The record as published.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The terms from left to right.
    pub fn terms(&self) -> Terms<'_> {
        Terms { text: &self.text, terms: self.terms.iter() }
    }

    /// What one of the terms is, counted from the left, without its domain.
    pub(super) fn kind(&self, index: usize) -> Option<TermKind<'static>> {
        self.terms.get(index).map(|stored| stored.kind)
    }

    /// One of the terms, counted from the left.
    pub(super) fn term(&self, index: usize) -> Option<Term<'_>> {
        self.terms.get(index).map(|stored| stored.show(&self.text))
    }

    /// The domain-spec of `redirect=`.
    pub fn redirect(&self) -> Option<&str> {
        self.redirect.map(|spec| spec.of(&self.text))
    }

    /// The domain-spec of `exp=`.
    pub fn explanation(&self) -> Option<&str> {
        self.explanation.map(|spec| spec.of(&self.text))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The terms of a record.
#[derive(Debug, Clone)]
pub struct Terms<'r> {
    text: &'r str,
    terms: std::slice::Iter<'r, Stored>,
}

impl<'r> Iterator for Terms<'r> {
    type Item = Term<'r>;

    fn next(&mut self) -> Option<Term<'r>> {
        self.terms.next().map(|stored| stored.show(self.text))
    }
}

/// The words of a record, and the offset behind the last one.
#[derive(Debug, Clone)]
struct Words<'r> {
    text: &'r str,
    at: usize,
}

impl<'r> Iterator for Words<'r> {
    type Item = &'r str;

    fn next(&mut self) -> Option<&'r str> {
        let octets = self.text.as_bytes();
        while octets.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        let start = self.at;
        let rest = octets.get(start..).filter(|rest| !rest.is_empty())?;
        self.at = memchr::memchr(b' ', rest).map_or(octets.len(), |len| start + len);
        self.text.get(start..self.at)
    }
}

fn words(record: &str) -> Words<'_> {
    Words { text: record, at: VERSION.len() }
}

fn error(term: &str, what: TermError) -> RecordError {
    RecordError { term: term.chars().take(64).collect(), what }
}

#[cfg(test)]
mod tests {
    use super::super::{DualCidr, MacroError, Qualifier};
    use super::*;

    #[test]
    fn only_a_whole_version_claims_a_record() {
        assert!(Record::is_claimed_by(b"V=SPF1"));
        assert!(Record::is_claimed_by(b"v=spf1 \xff"));
        for text in [&b""[..], b"v=spf", b"v=spf10", b"v=spf1\t", b" v=spf1", b"v=spf1\xe2\x80\x8b"] {
            assert!(!Record::is_claimed_by(text), "{text:?}");
        }
    }

    #[test]
    fn a_term_that_is_wrong_is_named() {
        use TermError::*;
        for (terms, term, what) in [
            ("a:museum", "a:museum", Domain),
            ("a:example.123", "a:example.123", Domain),
            ("a/33", "a/33", Prefix),
            ("a//129", "a//129", Prefix),
            ("a/08", "a/08", Prefix),
            ("a:example.com/", "a:example.com/", Prefix),
            ("mx: -all", "mx:", Argument),
            ("ip4:192.0.2", "ip4:192.0.2", Address),
            ("ip4:192.0.2.1/", "ip4:192.0.2.1/", Prefix),
            ("ip6:192.0.2.1", "ip6:192.0.2.1", Address),
            ("all:x", "all:x", Argument),
            ("include", "include", Argument),
            ("ipv4:192.0.2.1", "ipv4:192.0.2.1", UnknownMechanism),
            ("-", "-", UnknownMechanism),
            ("exp=a.example exp=b.example", "exp=b.example", Twice),
            ("=x", "=x", ModifierName),
            ("-redirect=a.example", "-redirect=a.example", ModifierName),
            ("mx\t-all", "mx\t-all", NotAscii),
            ("exists:%{x}", "exists:%{x}", Macro(MacroError::Letter)),
        ] {
            let error = Record::parse(format!("v=spf1 {terms}").into_bytes()).unwrap_err();
            assert_eq!((error.term.as_str(), error.what), (term, what), "{terms}");
        }
    }

    #[test]
    fn both_prefix_lengths_are_read_from_the_end() {
        let record = Record::parse(*b"v=spf1  a:%{l/}.example.com/24//64 mx//0 a/0 ").unwrap();
        let kinds: Vec<TermKind<'_>> = record.terms().map(|term| term.kind).collect();
        let pass = |mechanism| TermKind::Directive(Qualifier::Pass, mechanism);
        assert_eq!(
            kinds,
            [
                pass(Mechanism::A(Some("%{l/}.example.com"), DualCidr { v4: 24, v6: 64 })),
                pass(Mechanism::Mx(None, DualCidr { v4: 32, v6: 0 })),
                pass(Mechanism::A(None, DualCidr { v4: 0, v6: 128 })),
            ]
        );
    }
}

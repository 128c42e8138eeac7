//! The SPF record: a text that is known to be right, read without copies.
//!
//! Invariant: a [`Record`] is free of syntax errors, so its [`Terms`] never fail: RFC 7208 4.6 wants a permerror
//! for an error *anywhere* in the record, before anything of it is evaluated.
//!
//! Standards: RFC 7208 sections 4.5 and 4.6.
//!
//! Not here: evaluation (check.rs), what one term is (term.rs).

use std::fmt;
use std::ops::Range;

use postwright_core::Name;

use super::network::read_leading;
use super::term::{Mechanism, Qualifier, Term, TermError, TermKind, read_term};

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
    text: String,
    directives: Vec<Directive>,
    explanation: Option<Range<usize>>,
    redirect: Option<Range<usize>>,
}

/// A directive of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// Where it stands in the record.
    pub(super) place: Range<usize>,
    pub(super) qualifier: Qualifier,
    pub(super) mechanism: Mechanism<Spec>,
}

/// A domain-spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spec {
    /// Without macros: the name, if DNS could hold it.
    Fixed(Option<Name>),
    /// What the name is depends on the message.
    Macros(Box<str>),
}

impl Spec {
    pub(super) fn new(text: &str) -> Spec {
        if text.contains('%') { Spec::Macros(text.into()) } else { Spec::Fixed(name(text)) }
    }
}

/// The name that a domain-spec stands for once it is expanded; of one that is too long as many labels as fit, from the
/// right (RFC 7208 7.3).
pub(super) fn name(text: &str) -> Option<Name> {
    let mut text = text.strip_suffix('.').unwrap_or(text);
    while text.len() > Name::MAX {
        text = text.split_once('.')?.1;
    }
    text.parse().ok()
}

/// Octets of `v=spf1`.
const VERSION: usize = 6;

impl Record {
    /// Whether the octets of a TXT record claim to be an SPF record: `v=spf1` and then a blank or nothing
    /// (RFC 7208 4.5).
    pub fn is_claimed_by(text: &[u8]) -> bool {
        match text {
            [b'v' | b'V', b'=', b's' | b'S', b'p' | b'P', b'f' | b'F', b'1', rest @ ..] => {
                matches!(rest, [] | [b' ', ..])
            }
            _ => false,
        }
    }

    /// Reads the octets of a TXT record, its character-strings joined.
    pub fn parse(text: impl Into<Vec<u8>>) -> Result<Record, RecordError> {
        let octets = text.into();
        if !Record::is_claimed_by(&octets) {
            let start = String::from_utf8_lossy(octets.get(..64).unwrap_or(&octets)).into_owned();
            return Err(RecordError { term: start, what: TermError::Version });
        }
        let text = String::from_utf8(octets).map_err(|error| {
            let (octets, good) = (error.as_bytes(), error.utf8_error().valid_up_to());
            let start = octets.iter().take(good).rposition(|b| *b == b' ').map_or(0, |blank| blank + 1);
            let term = octets.get(start..).and_then(|rest| rest.split(|b| *b == b' ').next());
            self::error(&String::from_utf8_lossy(term.unwrap_or_default()), TermError::NotAscii)
        })?;
        // A network, its blank included, is seldom shorter; `all` and one more are.
        let directives = Vec::with_capacity(text.len() / 16 + 2);
        let mut record = Record { text: String::new(), directives, explanation: None, redirect: None };
        let mut rest = text.get(VERSION..).unwrap_or("").as_bytes();
        while let Some((first, more)) = rest.split_first() {
            if *first == b' ' {
                rest = more;
                continue;
            }
            let start = text.len() - rest.len();
            if let Some((network, behind)) = read_leading(rest) {
                let (place, qualifier) = (start..text.len() - behind.len(), Qualifier::Pass);
                record.directives.push(Directive { place, qualifier, mechanism: network });
                rest = behind;
                continue;
            }
            let len = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
            let place = start..start + len;
            let term = text.get(place.clone()).unwrap_or("");
            record.add(place, term).map_err(|what| error(term, what))?;
            rest = rest.get(len..).unwrap_or_default();
        }
        Ok(Record { text, ..record })
    }

    /// Adds a term, if it is right.
    fn add(&mut self, place: Range<usize>, term: &str) -> Result<(), TermError> {
        if !term.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TermError::NotAscii);
        }
        let slot = match read_term(term)? {
            TermKind::Directive(qualifier, mechanism) => {
                self.directives.push(Directive { place, qualifier, mechanism: mechanism.map(Spec::new) });
                return Ok(());
            }
            TermKind::Explanation(_) => &mut self.explanation,
            TermKind::Redirect(_) => &mut self.redirect,
            TermKind::UnknownModifier => return Ok(()),
        };
        if slot.replace(place).is_some() { Err(TermError::Twice) } else { Ok(()) }
    }

    /// The record as published.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The terms from left to right.
    pub fn terms(&self) -> Terms<'_> {
        Terms { rest: self.text.get(VERSION..).unwrap_or("") }
    }

    /// Gives back the room that reading left over.
    pub(super) fn shrink(&mut self) {
        self.directives.shrink_to_fit();
    }

    pub(super) fn directives(&self) -> &[Directive] {
        &self.directives
    }

    /// The term at a place.
    pub(super) fn word(&self, place: &Range<usize>) -> &str {
        self.text.get(place.clone()).unwrap_or("")
    }

    /// Where `redirect=` stands, and its domain-spec.
    pub(super) fn redirect_at(&self) -> Option<(Range<usize>, &str)> {
        self.redirect.clone().zip(self.redirect())
    }

    /// The domain-spec of `redirect=`.
    pub fn redirect(&self) -> Option<&str> {
        self.value(&self.redirect)
    }

    /// The domain-spec of `exp=`.
    pub fn explanation(&self) -> Option<&str> {
        self.value(&self.explanation)
    }

    fn value(&self, place: &Option<Range<usize>>) -> Option<&str> {
        self.text.get(place.clone()?)?.split_once('=').map(|(_, value)| value)
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
    rest: &'r str,
}

impl<'r> Iterator for Terms<'r> {
    type Item = Term<'r>;

    fn next(&mut self) -> Option<Term<'r>> {
        let rest = self.rest.trim_start_matches(' ');
        let (text, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        self.rest = rest;
        // All terms were read before, so this is an error only behind the last one.
        read_term(text).ok().map(|kind| Term { text, kind })
    }
}

fn error(term: &str, what: TermError) -> RecordError {
    RecordError { term: term.chars().take(64).collect(), what }
}

#[cfg(test)]
mod tests {
    use super::super::{DualCidr, MacroError, Mechanism};
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

    proptest::proptest! {
        /// Networks are read without looking for their end first: the twin reads each word by itself.
        #[test]
        fn a_record_is_the_sum_of_its_words(
            words in proptest::collection::vec(
                "[+?~-]?[iI][pP][46]:[0-9a-fA-F:./]{0,20}|ip4:[0-9]{1,3}([.][0-9]{1,3}){3}(/[0-9]{0,3})?\
                 |ip6:[0-9a-f]{0,4}(:[0-9a-f]{0,5}){1,8}(/[0-9]{0,3})?|-all|ALL|a:x[.]example/24|include:%[{]d[}]|mx", 0..6),
            blanks in " {1,3}",
        ) {
            let text = format!("v=spf1{blanks}{}", words.join(&blanks));
            let wrong = words.iter().find(|word| !word.is_empty() && read_term(word).is_err());
            let expected: Vec<_> = words.iter().filter_map(|word| match read_term(word) {
                Ok(TermKind::Directive(qualifier, mechanism)) => Some((word.as_str(), qualifier, mechanism.map(Spec::new))),
                _ => None,
            }).collect();
            match Record::parse(text.clone()) {
                Err(error) => assert_eq!(Some(&error.term), wrong, "{text}"),
                Ok(record) => {
                    assert_eq!(wrong, None, "{text}");
                    let found = record.directives().iter();
                    let found: Vec<_> =
                        found.map(|d| (record.word(&d.place), d.qualifier, d.mechanism.clone())).collect();
                    assert_eq!(found, expected, "{text}");
                    assert_eq!(record.terms().count(), expected.len());
                }
            }
        }
    }
}

//! What happened during a check: the steps, and the reason for a verdict without a match.
//!
//! Invariant: a temperror and a permerror always come with a [`Problem`].
//!
//! Not here: the JSON of it (the command line's).

use postwright_core::{DnsError, Name, RecordKind};

use super::record::RecordError;

/// Why a check ended without a match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The identity has no domain that DNS could know (RFC 7208 4.3).
    #[error("{0:?} is no domain name of two labels or more")]
    NoDomain(String),
    /// The domain publishes no record.
    #[error("{0} publishes no SPF record")]
    NoRecord(Name),
    /// A domain publishes several records (RFC 7208 4.5).
    #[error("{domain} publishes {count} SPF records; only one is allowed")]
    SeveralRecords {
        /// Whose.
        domain: Name,
        /// How many.
        count: usize,
    },
    /// A record is wrong.
    #[error("the record of {domain} is wrong: {error}")]
    Syntax {
        /// Whose.
        domain: Name,
        /// Where and what.
        error: RecordError,
    },
    /// `include` or `redirect` of a domain without record (RFC 7208 5.2, 6.1).
    #[error("{term} leads to a domain without SPF record")]
    Dangling {
        /// The term.
        term: String,
    },
    /// Too many terms with look-ups (RFC 7208 4.6.4).
    #[error("more than {limit} terms need DNS look-ups; {domain} has the one too many: {term}")]
    TooManyLookups {
        /// The limit.
        limit: u32,
        /// In whose record.
        domain: Name,
        /// The term.
        term: String,
    },
    /// Too many look-ups without answer (RFC 7208 4.6.4).
    #[error("more than {limit} look-ups found nothing; the last was {kind} of {name}")]
    TooManyVoidLookups {
        /// The limit.
        limit: u32,
        /// The last name.
        name: Name,
        /// The last type.
        kind: RecordKind,
    },
    /// Too many mail exchanges (RFC 7208 4.6.4).
    #[error("{name} has {count} mail exchanges, more than {limit}")]
    TooManyHosts {
        /// The limit.
        limit: usize,
        /// Whose.
        name: Name,
        /// How many.
        count: usize,
    },
    /// DNS failed.
    #[error("{kind} of {name}: {error}")]
    Dns {
        /// The name.
        name: Name,
        /// The type.
        kind: RecordKind,
        /// How.
        error: DnsError,
    },
}

/// One step of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How many includes deep.
    pub depth: usize,
    /// Whose record is being read.
    pub domain: String,
    /// What happened.
    pub event: Event,
    /// Terms with look-ups spent so far.
    pub lookups: u32,
    /// Look-ups without answer so far.
    pub void_lookups: u32,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The record was found.
    Record(String),
    /// A term was evaluated.
    Term {
        /// As written.
        term: String,
        /// The domain after macro expansion, if the term has one.
        target: Option<String>,
        /// Whether it matched.
        matched: bool,
    },
    /// An include or redirect is entered.
    Enter {
        /// As written.
        term: String,
        /// The domain after macro expansion.
        target: String,
    },
    /// The check ends here, for this reason.
    Stopped(String),
}

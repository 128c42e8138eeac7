//! DMARC: does a domain that vouches for a message belong to its author, and what if not?
//!
//! Invariant: [`evaluate`] always gives a verdict, and asks no name of DNS twice. It takes the *domains that
//! passed* SPF and DKIM as values; how they were checked is not its business.
//!
//! Standards: RFC 9989 (policy, tree walk); RFC 7489 as a mode of its own with feature `psl`, off by default.
//!
//! Not here: DKIM itself, reports (`report`), what the embedder makes of the disposition.

mod author;
mod discover;
mod evaluate;
mod record;

use std::fmt;
use std::sync::Arc;

use postwright_core::{DnsError, Name, Resolver};

pub use author::Authors;
pub use record::{
    Alignment, DmarcRecord, FailureOptions, Policy, PolicyOf, PolicyTag, Psd, ReportUri, ReportUris,
};

use crate::Limits;

/// Which standard decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// RFC 9989: the tree walk; `psd`, `np`, `t`.
    #[default]
    Rfc9989,
    /// RFC 7489: the public suffix list that was compiled in; `pct`. Only `p` and `sp` are policies.
    #[cfg(feature = "psl")]
    Rfc7489,
}

/// The verdict on a message (RFC 8601 2.7.4 and RFC 9989 9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The author domain has no record.
    None,
    /// A domain that passed is aligned.
    Pass,
    /// None is.
    Fail,
    /// DNS failed for the moment.
    TempError,
    /// The message has no usable author domain.
    PermError,
}

impl Verdict {
    /// As in `Authentication-Results`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::None => "none",
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::TempError => "temperror",
            Verdict::PermError => "permerror",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to evaluate.
#[derive(Debug, Clone)]
pub struct DmarcQuery {
    authors: Authors,
    spf: Option<Name>,
    dkim: Vec<Name>,
    undecided: Vec<Name>,
    mode: Mode,
    sample: u8,
    with_organization: bool,
    limits: Limits,
}

impl DmarcQuery {
    /// A message of these authors that nothing vouches for yet.
    pub fn new(authors: Authors) -> DmarcQuery {
        DmarcQuery {
            authors,
            spf: None,
            dkim: Vec::new(),
            undecided: Vec::new(),
            mode: Mode::default(),
            sample: 0,
            with_organization: false,
            limits: Limits::default(),
        }
    }

    /// A message of one author domain.
    pub fn of(author: Name) -> DmarcQuery {
        DmarcQuery::new(Authors { domains: vec![author], malformed: false })
    }

    /// The domain that SPF vouches for, see [`SpfResult::authenticated`](crate::spf::SpfResult::authenticated).
    #[must_use]
    pub fn spf(mut self, domain: Option<Name>) -> Self {
        self.spf = domain;
        self
    }

    /// The signing domains (`d=`) of the DKIM signatures that passed.
    #[must_use]
    pub fn dkim(mut self, domains: impl IntoIterator<Item = Name>) -> Self {
        self.dkim.extend(domains);
        self
    }

    /// Domains whose SPF or DKIM check ended in a temporary error: if one of them would have been aligned, a
    /// failure becomes a temperror, because the next try may pass.
    #[must_use]
    pub fn undecided(mut self, domains: impl IntoIterator<Item = Name>) -> Self {
        self.undecided.extend(domains);
        self
    }

    /// Which standard decides.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The message's place in the sample of `pct` (RFC 7489 6.6.4): 0 to 99, evenly random. Mail at or above
    /// `pct` gets the next weaker policy. Without effect in RFC 9989.
    #[must_use]
    pub fn sample(mut self, sample: u8) -> Self {
        self.sample = sample;
        self
    }

    /// Finds the organizational domain even if the verdict does not need it, at the cost of look-ups.
    #[must_use]
    pub fn with_organization(mut self) -> Self {
        self.with_organization = true;
        self
    }

    /// Other limits than the default.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// Why the verdict and the disposition are what they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A domain that passed SPF or DKIM is aligned.
    #[error("{0} passed {1} and is aligned with the author domain")]
    Aligned(Name, &'static str),
    /// The policy applies as published.
    #[error("no domain that passed SPF or DKIM is aligned; the published policy applies")]
    Policy,
    /// `t=y` weakens the policy.
    #[error("no aligned pass; the owner is testing (t=y), so the next weaker policy applies")]
    Testing,
    /// The message is outside of the sample of `pct`.
    #[error(
        "no aligned pass; the message is outside of the sample (pct={0}), so the next weaker policy applies"
    )]
    SampledOut(u8),
    /// There is no record.
    #[error("no DMARC record applies to {0}")]
    NoRecord(Name),
    /// The record's policy is wrong and it asks for no reports (RFC 9989 4.10.1).
    #[error("the record of {0} has no valid policy and no report address, so DMARC does not apply")]
    VoidRecord(Name),
    /// DNS failed.
    #[error("the records cannot be found at present: {0}")]
    Dns(DnsError),
    /// SPF or DKIM of an aligned domain ended in a temporary error.
    #[error("the check of {0}, which is aligned, ended in a temporary error")]
    Undecided(Name),
    /// No author domain, or a `From` field that cannot be read.
    #[error("the From field does not name its author's domain")]
    NoAuthor,
    /// More author domains than the limit.
    #[error("the From field names {count} author domains, more than {limit}")]
    TooManyAuthors {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// A verdict, what to do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DmarcResult {
    /// The verdict.
    pub verdict: Verdict,
    /// The author domain it is about; of several, the one that decided.
    pub author: Option<Name>,
    /// The policy for the author domain, after `sp` and `np`.
    pub policy: Option<Policy>,
    /// What to do with this message, after the verdict and `t` or `pct`.
    pub disposition: Policy,
    /// Whose record applies.
    pub record_domain: Option<Name>,
    /// The record.
    pub record: Option<Arc<DmarcRecord>>,
    /// The author's organizational domain, if it was needed or asked for.
    pub organizational_domain: Option<Name>,
    /// Whether SPF passed for an aligned domain.
    pub spf_aligned: bool,
    /// Whether DKIM passed for an aligned domain.
    pub dkim_aligned: bool,
    /// Why.
    pub reason: Reason,
}

/// Evaluates DMARC for a message.
///
/// With several author domains each is evaluated, and the failure with the strictest disposition counts, as
/// RFC 9989 11.5 recommends; a `From` field that cannot be read in full never passes.
///
/// ```
/// use postwright_core::MemoryZone;
/// use postwright_spf_dmarc::dmarc::{DmarcQuery, Policy, Verdict, evaluate};
/// # fn block_on<F: Future>(f: F) -> F::Output {
/// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #     match std::pin::pin!(f).poll(&mut cx) { std::task::Poll::Ready(v) => v, _ => unreachable!() }
/// # }
/// let zone = MemoryZone::parse("_dmarc.example.org. TXT \"v=DMARC1; p=reject; sp=quarantine\"")?;
/// let query = DmarcQuery::of("news.example.org".parse()?).dkim(["mail.example.org".parse()?]);
/// assert_eq!(block_on(evaluate(&query, &zone)).verdict, Verdict::Pass);
/// let unsigned = block_on(evaluate(&DmarcQuery::of("news.example.org".parse()?), &zone));
/// assert_eq!((unsigned.verdict, unsigned.disposition), (Verdict::Fail, Policy::Quarantine));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn evaluate(query: &DmarcQuery, resolver: &dyn Resolver) -> DmarcResult {
    evaluate::run(resolver, query).await
}

/// The one valid record that is published for exactly this domain, if there is one.
pub async fn record(domain: &Name, resolver: &dyn Resolver) -> Result<Option<Arc<DmarcRecord>>, DnsError> {
    discover::Finder::new(resolver, Mode::default()).record(domain).await
}

/// The organizational domain of a domain, by the tree walk of RFC 9989 4.10 or the public suffix list.
pub async fn organizational_domain(
    domain: &Name,
    resolver: &dyn Resolver,
    mode: Mode,
) -> Result<Name, DnsError> {
    let mut finder = discover::Finder::new(resolver, mode);
    finder.organization(domain).await.map(|organization| organization.domain)
}

//! SPF: is this client allowed to use this domain?
//!
//! Invariant: [`check`] always gives a verdict, spends no more look-ups than [`Limits`] allow, and says how many
//! it spent and why it stopped. Identities are raw strings as a client sent them: none is a usage error.
//!
//! Standards: RFC 7208 (all of it); RFC 8616 section 4 (internationalised mail); RFC 7208 9.1 (received.rs).
//!
//! Not here: what to do with a verdict (RFC 7208 8 and the embedder), time limits (the resolver's).

mod check;
mod macros;
mod memory;
mod network;
mod received;
mod record;
mod term;
mod trace;

use std::fmt;
use std::net::IpAddr;

use postwright_core::{Name, Resolver, Timestamp};

pub use macros::MacroError;
pub use memory::Memory;
pub use network::DualCidr;
pub use record::{Record, RecordError, Terms};
pub use term::{Mechanism, Qualifier, Term, TermError, TermKind};
pub use trace::{Event, Problem, Step};

use crate::Limits;

/// The verdict on a client (RFC 7208 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No domain to check, or no record (2.6.1).
    None,
    /// The domain says nothing about the client (2.6.2).
    Neutral,
    /// The client is authorised (2.6.3).
    Pass,
    /// The client is not authorised (2.6.4).
    Fail,
    /// The client is probably not authorised (2.6.5).
    SoftFail,
    /// DNS failed for the moment (2.6.6).
    TempError,
    /// The records are wrong or ask for too much (2.6.7).
    PermError,
}

impl Verdict {
    /// As in `Received-SPF` and `Authentication-Results`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::None => "none",
            Verdict::Neutral => "neutral",
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::SoftFail => "softfail",
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

impl From<Qualifier> for Verdict {
    fn from(qualifier: Qualifier) -> Verdict {
        match qualifier {
            Qualifier::Pass => Verdict::Pass,
            Qualifier::Fail => Verdict::Fail,
            Qualifier::SoftFail => Verdict::SoftFail,
            Qualifier::Neutral => Verdict::Neutral,
        }
    }
}

/// Which name of the client was checked (RFC 7208 2.3, 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The argument of HELO or EHLO; also stands in for a null reverse-path.
    Helo,
    /// The reverse-path of MAIL FROM.
    MailFrom,
}

impl Identity {
    /// As in `Received-SPF`.
    pub fn as_str(self) -> &'static str {
        match self {
            Identity::Helo => "helo",
            Identity::MailFrom => "mailfrom",
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to check. Strings are taken as the client sent them.
#[derive(Debug, Clone)]
pub struct SpfQuery<'q> {
    ip: IpAddr,
    helo: &'q str,
    mail_from: &'q str,
    receiver: Option<&'q str>,
    now: Timestamp,
    limits: Limits,
    memory: Option<&'q Memory>,
    traced: bool,
}

impl<'q> SpfQuery<'q> {
    /// Checks the reverse-path. An empty one (or `<>`) is null and is checked as `postmaster` at the HELO domain
    /// (RFC 7208 2.4); angle brackets are taken off; without an `@` the whole is a domain.
    ///
    /// An IPv4 address in IPv6 clothes (`::ffff:192.0.2.1`) is an IPv4 address.
    pub fn mail_from(ip: IpAddr, helo: &'q str, mail_from: &'q str) -> SpfQuery<'q> {
        let bare = mail_from.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(mail_from);
        SpfQuery {
            ip: ip.to_canonical(),
            helo,
            mail_from: bare,
            receiver: None,
            now: Timestamp::default(),
            limits: Limits::default(),
            memory: None,
            traced: false,
        }
    }

    /// Checks the HELO identity.
    pub fn helo(ip: IpAddr, helo: &'q str) -> SpfQuery<'q> {
        SpfQuery::mail_from(ip, helo, "")
    }

    /// Who checks: the macro `%{r}` of explanations.
    #[must_use]
    pub fn receiver(mut self, name: &'q str) -> Self {
        self.receiver = Some(name);
        self
    }

    /// What time it is: the macro `%{t}` of explanations.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// Other limits than the standard's.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where records may be remembered that were read before. The verdict is the same with and without.
    #[must_use]
    pub fn memory(mut self, memory: &'q Memory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Keeps a trace of every term.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    /// The client's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Which identity is checked.
    pub fn identity(&self) -> Identity {
        if self.mail_from.is_empty() { Identity::Helo } else { Identity::MailFrom }
    }

    /// The local part and the domain of the sender (RFC 7208 4.3): without a local part it is `postmaster`.
    fn sender(&self) -> (&'q str, &'q str) {
        let split = match self.identity() {
            Identity::Helo => ("", self.helo),
            Identity::MailFrom => self.mail_from.rsplit_once('@').unwrap_or(("", self.mail_from)),
        };
        if split.0.is_empty() { ("postmaster", split.1) } else { split }
    }
}

/// A verdict and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpfResult {
    /// The verdict.
    pub verdict: Verdict,
    /// Which identity was checked.
    pub identity: Identity,
    /// The domain that was checked: in lower-case A-labels if it is a DNS name, else as the client sent it.
    pub domain: String,
    /// Why the domain refuses the client, in its own words: text of a stranger, so quote it as such
    /// (RFC 7208 6.2). Only with [`Verdict::Fail`].
    pub explanation: Option<String>,
    /// The directive of the domain's record that decided.
    pub matched: Option<String>,
    /// Terms with DNS look-ups that were spent, of [`Limits::spf_terms`]. The one too many counts.
    pub lookups: u32,
    /// Look-ups without an answer, of [`Limits::spf_void_lookups`]. The one too many counts.
    pub void_lookups: u32,
    /// Why there is no better verdict.
    pub problem: Option<Problem>,
    /// What happened, if [`SpfQuery::traced`].
    pub trace: Vec<Step>,
}

impl SpfResult {
    /// The domain as a DNS name, if it is one.
    pub fn name(&self) -> Option<Name> {
        self.domain.parse().ok()
    }

    /// The domain that SPF vouches for: what DMARC compares (RFC 9989 4.4.2). Both identities count, as the
    /// HELO domain is checked in place of a null reverse-path.
    pub fn authenticated(&self) -> Option<Name> {
        if self.verdict == Verdict::Pass { self.name() } else { None }
    }
}

/// Checks whether a client may use a domain: `check_host()` of RFC 7208 section 4.
///
/// ```
/// use postwright_core::MemoryZone;
/// use postwright_spf_dmarc::spf::{SpfQuery, Verdict, check};
/// # fn block_on<F: Future>(f: F) -> F::Output {
/// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #     match std::pin::pin!(f).poll(&mut cx) { std::task::Poll::Ready(v) => v, _ => unreachable!() }
/// # }
/// let zone = MemoryZone::parse("example.org. TXT \"v=spf1 ip4:192.0.2.0/24 -all\"")?;
/// let query = SpfQuery::mail_from("192.0.2.1".parse()?, "mx.example.org", "joe@example.org");
/// let result = block_on(check(&query, &zone));
/// assert_eq!(result.verdict, Verdict::Pass);
/// assert_eq!(result.matched.as_deref(), Some("ip4:192.0.2.0/24"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn check(query: &SpfQuery<'_>, resolver: &dyn Resolver) -> SpfResult {
    check::run(resolver, query).await
}

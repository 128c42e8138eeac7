//! Which transport security a delivery to one host must have: one decision, with its reason.
//!
//! Invariant: the decision is a pure function of what was found out. A look-up that failed defers; nothing that
//! fails ever weakens what a policy asks for. Only an opportunistic decision may go on in clear text.
//!
//! Precedence: REQUIRETLS adds to everything; then DANE, MTA-STS, the configured level, opportunistic. DANE and
//! MTA-STS never weaken a stronger configured level into an unauthenticated one.
//!
//! Standards: RFC 7672 2.2 (DANE levels), RFC 8461 2 and 5 (MTA-STS beside DANE), RFC 8689 4 and 5 (REQUIRETLS and
//! TLS-Required: No), RFC 7435 (opportunistic).
//!
//! Not here: the look-ups (dane, sts), the handshake (tls).

use std::fmt;
use std::sync::Arc;

use postwright_core::{
    Cause, DeliveryStatus, DnsError, Domain, EnhancedStatus, Host, Name, Phase, Resolver, Timestamp,
};
use postwright_smtp_proto::client::{Config, StartTls};

use crate::connect::Target;
use crate::connection::Options;
use crate::dane;
use crate::route::MailHost;
use crate::sts;
use crate::tls::Demand;

/// What the operator asks for where no published policy asks for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// No TLS at all, whatever is published.
    Never,
    /// TLS if it is offered.
    #[default]
    Opportunistic,
    /// TLS, with any certificate.
    Encrypted,
    /// TLS, with a certificate that is valid for the host.
    Verified,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// Nobody asks for more than trying.
    Opportunistic,
    /// The operator's configuration.
    Configured,
    /// MTA-STS in mode `enforce`.
    Sts,
    /// MTA-STS in mode `testing`: nothing is enforced, failures are reported.
    StsTesting,
    /// TLSA records.
    Dane,
    /// TLSA records that are all unusable (RFC 7672 2.2).
    DaneUnusable,
    /// The message's own REQUIRETLS, where no policy gave a way to authenticate.
    RequireTls,
    /// The message's `TLS-Required: No` (RFC 8689 5).
    TlsOptional,
}

impl Source {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Opportunistic => "opportunistic",
            Source::Configured => "configured",
            Source::Sts => "mta-sts",
            Source::StsTesting => "mta-sts-testing",
            Source::Dane => "dane",
            Source::DaneUnusable => "dane-unusable",
            Source::RequireTls => "requiretls",
            Source::TlsOptional => "tls-optional",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How to talk to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// For the client machine.
    pub starttls: StartTls,
    /// For the handshake.
    pub demand: Demand,
    /// What decided.
    pub source: Source,
    /// The same in words.
    pub reason: Box<str>,
}

impl Decision {
    /// Whether the host may be asked again without TLS after a handshake failed: in this attempt only, and nothing
    /// about it is remembered.
    pub fn may_fall_back(&self) -> bool {
        self.starttls == StartTls::Opportunistic
    }

    fn new(starttls: StartTls, demand: Demand, source: Source, reason: impl Into<Box<str>>) -> Decision {
        Decision { starttls, demand, source, reason: reason.into() }
    }
}

/// What is known about a host when the decision is made.
#[derive(Debug, Clone)]
pub struct Facts<'f> {
    /// The recipients' domain (or the smart host's name).
    pub domain: &'f Domain,
    /// The host.
    pub host: &'f MailHost,
    /// What the operator asks for.
    pub level: Level,
    /// What the host's TLSA records say.
    pub dane: &'f dane::Lookup,
    /// The domain's MTA-STS policy.
    pub sts: &'f sts::Found,
    /// The message says REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// The message's header says `TLS-Required: No`, and it does not say REQUIRETLS.
    pub tls_optional: bool,
}

/// Why a host must not be used for this message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Its TLSA records cannot be looked up (RFC 7672 2.1.2).
    Dane(DnsError),
    /// The domain's MTA-STS policy cannot be told from its absence.
    Sts(Box<str>),
    /// The domain's MTA-STS policy does not name this host (RFC 8461 4.1).
    NotInPolicy,
    /// REQUIRETLS, and neither DNSSEC nor MTA-STS vouches for this host (RFC 8689 4.2.1).
    RequireTls,
    /// REQUIRETLS, and the operator forbids TLS.
    TlsForbidden,
}

impl Obstacle {
    /// What it means for a recipient if no other host is left: REQUIRETLS fails, everything else delays.
    pub fn status(&self, at: Timestamp) -> DeliveryStatus {
        let (status, cause) = match self {
            Obstacle::Dane(error) => (EnhancedStatus::known(4, 7, 5), Cause::Dns(*error)),
            Obstacle::Sts(why) => (EnhancedStatus::known(4, 7, 5), Cause::Tls(why.clone())),
            Obstacle::NotInPolicy => {
                let why = "the domain's MTA-STS policy does not name this mail host";
                (EnhancedStatus::known(4, 7, 5), Cause::Tls(why.into()))
            }
            Obstacle::RequireTls => {
                let why = "REQUIRETLS: neither DNSSEC nor MTA-STS vouches for the mail host";
                (EnhancedStatus::known(5, 7, 30), Cause::Tls(why.into()))
            }
            Obstacle::TlsForbidden => {
                (EnhancedStatus::known(5, 7, 30), Cause::Policy("REQUIRETLS, and TLS is switched off".into()))
            }
        };
        DeliveryStatus::local(status, cause, Phase::StartTls, at)
    }
}

/// Decides.
///
/// # Errors
/// The host must not be used for this message now; the next host may be.
pub fn decide(facts: &Facts<'_>) -> Result<Decision, Obstacle> {
    if facts.require_tls {
        return required_by_message(facts);
    }
    if facts.level == Level::Never {
        let reason = "TLS is switched off for this destination";
        return Ok(Decision::new(StartTls::None, Demand::Nothing, Source::Configured, reason));
    }
    if facts.tls_optional {
        let reason = "the message says TLS-Required: No";
        return Ok(Decision::new(StartTls::Opportunistic, Demand::Nothing, Source::TlsOptional, reason));
    }
    match published(facts)? {
        // Unauthenticated TLS is all that unusable records ask for: a configured level of verified asks for more.
        Some(decision) if decision.demand != Demand::Nothing || facts.level < Level::Verified => Ok(decision),
        _ => Ok(configured(facts)),
    }
}

/// What DANE and MTA-STS ask for, if anything.
fn published(facts: &Facts<'_>) -> Result<Option<Decision>, Obstacle> {
    let required = StartTls::Required;
    match facts.dane {
        dane::Lookup::Deferred(error) => return Err(Obstacle::Dane(*error)),
        dane::Lookup::Usable { records, base } => {
            let demand = Demand::Dane { records: records.clone(), names: dane_names(facts, base.as_str()) };
            let reason = format!("secure TLSA records at {base}");
            return Ok(Some(Decision::new(required, demand, Source::Dane, reason)));
        }
        dane::Lookup::Unusable | dane::Lookup::None => {}
    }
    let policy = match facts.sts {
        sts::Found::Unknown(why) => return Err(Obstacle::Sts(why.clone())),
        sts::Found::Policy(policy) => Some(policy),
        sts::Found::None => None,
    };
    match policy.map(|policy| (policy, policy.mode)) {
        Some((policy, sts::Mode::Enforce)) => {
            if !policy.names(&facts.host.name) {
                return Err(Obstacle::NotInPolicy);
            }
            let demand = Demand::Valid { names: Vec::new() };
            let reason = format!("{} has an MTA-STS policy in mode enforce", facts.domain);
            Ok(Some(Decision::new(required, demand, Source::Sts, reason)))
        }
        _ if *facts.dane == dane::Lookup::Unusable => {
            let reason = "there are secure TLSA records, none of them usable";
            Ok(Some(Decision::new(required, Demand::Nothing, Source::DaneUnusable, reason)))
        }
        Some((_, sts::Mode::Testing)) if facts.level == Level::Opportunistic => {
            let reason = format!("{} has an MTA-STS policy in mode testing", facts.domain);
            let (try_it, any) = (StartTls::Opportunistic, Demand::Nothing);
            Ok(Some(Decision::new(try_it, any, Source::StsTesting, reason)))
        }
        _ => Ok(None),
    }
}

fn configured(facts: &Facts<'_>) -> Decision {
    let (starttls, demand, reason) = match facts.level {
        Level::Never => (StartTls::None, Demand::Nothing, "TLS is switched off for this destination"),
        Level::Opportunistic => {
            let reason = "no policy asks for more than trying";
            return Decision::new(StartTls::Opportunistic, Demand::Nothing, Source::Opportunistic, reason);
        }
        Level::Encrypted => (StartTls::Required, Demand::Nothing, "TLS is configured as required"),
        Level::Verified => {
            let valid = Demand::Valid { names: Vec::new() };
            (StartTls::Required, valid, "a valid certificate is configured as required")
        }
    };
    Decision::new(starttls, demand, Source::Configured, reason)
}

/// RFC 8689 4.2.1: the host's name must be vouched for, and its certificate must verify.
fn required_by_message(facts: &Facts<'_>) -> Result<Decision, Obstacle> {
    if facts.level == Level::Never {
        return Err(Obstacle::TlsForbidden);
    }
    let decision = published(facts)?;
    if let Some(decision) = decision.filter(|decision| decision.demand != Demand::Nothing) {
        return Ok(decision);
    }
    let is_named_by_operator = facts.host.name.domain() == Some(facts.domain);
    let vouched = facts.host.mx_secure || is_named_by_operator && facts.level == Level::Verified;
    if !vouched {
        return Err(Obstacle::RequireTls);
    }
    let demand = Demand::Valid { names: Vec::new() };
    Ok(Decision::new(StartTls::Required, demand, Source::RequireTls, "the message says REQUIRETLS"))
}

/// RFC 7672 3.2.2: the base domain, the host's own name, the domain that the mail goes to, and the name behind its aliases.
fn dane_names(facts: &Facts<'_>, base: &str) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = vec![base.into()];
    let own = match &facts.host.name {
        Host::Domain(domain) => Some(domain),
        Host::Literal(_) => None,
    };
    let expanded = facts.host.expanded.as_ref().map(Name::as_str);
    for name in own.into_iter().chain([facts.domain]).map(Domain::as_str).chain(expanded) {
        if !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }
    names
}

/// One server to try, with the options that its policy asks for.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The server.
    pub target: Target,
    /// How to talk to it.
    pub options: Options,
    /// Why so.
    pub decision: Decision,
}

/// What a message and the operator ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// What the operator asks for.
    pub level: Level,
    /// The message says REQUIRETLS.
    pub require_tls: bool,
    /// The message's header says `TLS-Required: No`.
    pub tls_optional: bool,
}

/// Looks up the TLSA records of each host, decides, and lists the servers that may be tried, in order; beside them
/// the hosts that may not, with the reason.
pub async fn attempts(
    domain: &Domain,
    hosts: &[MailHost],
    port: u16,
    wishes: Wishes,
    base: &Options,
    sts: &sts::Found,
    resolver: &dyn Resolver,
) -> (Vec<Attempt>, Vec<(Host, Obstacle)>) {
    let (mut attempts, mut left_out) = (Vec::new(), Vec::new());
    for host in hosts {
        let dane = dane::lookup(host, port, resolver).await;
        let Wishes { level, require_tls, tls_optional } = wishes;
        match decide(&Facts { domain, host, level, dane: &dane, sts, require_tls, tls_optional }) {
            Err(obstacle) => left_out.push((host.name.clone(), obstacle)),
            Ok(decision) => {
                let mut session = Config::clone(&base.session);
                session.starttls = decision.starttls;
                let session = Arc::new(session);
                let options = Options { session, demand: decision.demand.clone(), ..base.clone() };
                let targets = crate::client::targets(std::slice::from_ref(host), port);
                attempts.extend(targets.into_iter().map(|target| Attempt {
                    target,
                    options: options.clone(),
                    decision: decision.clone(),
                }));
            }
        }
    }
    (attempts, left_out)
}

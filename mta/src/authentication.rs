//! What a receiving server finds out about a message, and what it does about it: [`Findings`], [`Authenticate`].
//!
//! Invariant: an `Authentication-Results` field with our name in a message that leaves here is ours.
//!
//! Standards: RFC 8601 5 (forged fields), 7.1; RFC 7208 8; RFC 9989 5.3; RFC 3463 3.8 (`5.7.1`).
//!
//! Not here: the methods themselves (dkim, spf-dmarc). DMARC takes the domains that passed: this file is where the
//! two crates, which do not know each other, meet.

use std::net::IpAddr;
use std::sync::Arc;

use postwright_core::{
    BoxFuture, Clock, Domain, EnhancedStatus, Envelope, HeaderField, Message, Name, Refusal, Resolver,
    Timestamp,
};
use postwright_dkim::arc::{ArcResult, ArcVerifier};
use postwright_dkim::{
    DkimResult, Limits as DkimLimits, Provider, Selector, Verdict, Verifier, VerifyPolicy,
};
use postwright_spf_dmarc::auth_results::{self, AuthResults, MethodResult};
use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery, DmarcResult, Policy};
use postwright_spf_dmarc::iprev::{self, IprevResult};
use postwright_spf_dmarc::spf::{self, Memory, SpfQuery, SpfResult};
use postwright_spf_dmarc::{Limits, header};

use crate::policy::{MessagePolicy, Visit};
use crate::section::header_section;

/// Who sent a message, as the session saw it. Identities are raw: whatever was sent gets a verdict.
#[derive(Debug, Clone, Copy)]
pub struct Inspection<'a> {
    /// The client's address.
    pub ip: IpAddr,
    /// The argument of HELO or EHLO.
    pub hello: &'a str,
    /// The reverse-path without brackets; empty for `<>`.
    pub mail_from: &'a str,
    /// Our name, for macros and for the field.
    pub authserv_id: &'a str,
    /// When.
    pub now: Timestamp,
    /// Accept SHA-1 in DKIM, against RFC 8301.
    pub sha1: bool,
    /// Where SPF records are remembered that were read before.
    pub memory: Option<&'a Memory>,
}

/// What was found out about a message.
#[derive(Debug)]
pub struct Findings {
    /// SPF of the reverse-path, or of the HELO name.
    pub spf: SpfResult,
    /// One for each DKIM signature.
    pub dkim: Vec<DkimResult>,
    /// The ARC chain.
    pub arc: ArcResult,
    /// DMARC of the author domain.
    pub dmarc: DmarcResult,
    /// Whether the client's address has a name that leads back to it.
    pub iprev: IprevResult,
}

impl Findings {
    /// Checks a message in every way. `adjust` may change how DMARC is evaluated.
    pub async fn of(
        inspection: Inspection<'_>,
        resolver: &dyn Resolver,
        message: &Message,
        adjust: impl FnOnce(DmarcQuery) -> DmarcQuery,
    ) -> Findings {
        let Inspection { ip, hello, mail_from, authserv_id, now, sha1, memory } = inspection;
        let query = SpfQuery::mail_from(ip, hello, mail_from).at(now).receiver(authserv_id);
        let query = memory.into_iter().fold(query, SpfQuery::memory);
        let spf = spf::check(&query, resolver).await;
        let mut policy = VerifyPolicy::default();
        policy.sha1 = sha1;
        let verifier = Verifier::new(Provider::ring(), policy, DkimLimits::default());
        let dkim = verifier.verify(message, resolver, now).await;
        let arc = ArcVerifier::default().verify(message, resolver, now).await;
        let dmarc = adjust(dmarc_query(authors(message), &spf, &dkim));
        let dmarc = dmarc::evaluate(&dmarc, resolver).await;
        let iprev = iprev::check(ip, resolver, &Limits::default()).await;
        Findings { spf, dkim, arc, dmarc, iprev }
    }

    /// The `Authentication-Results` field that tells of them.
    pub fn field(&self, authserv_id: &str) -> HeaderField {
        let mut results = AuthResults::new(authserv_id).with(&self.spf);
        if self.dkim.is_empty() {
            results = results.with(MethodResult::new("dkim", "none"));
        }
        for signature in &self.dkim {
            results = results.with(dkim_result(signature));
        }
        let arc = MethodResult::new("arc", self.arc.cv.as_str());
        results.with(arc).with(&self.dmarc).with(&self.iprev).field()
    }
}

/// The authors that the `From` field names.
pub(crate) fn authors(message: &Message) -> Authors {
    let section = header_section(message);
    let from: Vec<String> =
        header::fields(&section).filter(|field| field.is("From")).map(|field| field.text()).collect();
    Authors::parse_all(from.iter().map(String::as_str))
}

/// What DMARC needs of the other verdicts: the domains that passed, and those that might have.
fn dmarc_query(authors: Authors, spf: &SpfResult, dkim: &[DkimResult]) -> DmarcQuery {
    let of = |wanted: fn(&DkimResult) -> bool| {
        let chosen = dkim.iter().filter(move |result| wanted(result));
        chosen.filter_map(|result| result.domain.as_ref().map(Name::from))
    };
    let undecided = of(|result| result.verdict == Verdict::TempError);
    let spf_undecided = (spf.verdict == spf::Verdict::TempError).then(|| spf.name()).flatten();
    DmarcQuery::new(authors)
        .spf(spf.authenticated())
        .dkim(of(DkimResult::is_pass))
        .undecided(undecided.chain(spf_undecided))
}

/// One signature as a result (RFC 8601 2.7.1, RFC 6008).
fn dkim_result(signature: &DkimResult) -> MethodResult {
    let mut result = MethodResult::new("dkim", signature.verdict.as_str());
    result.reason = signature.reason.map(|reason| reason.as_str().to_owned());
    let properties = [
        ("d", signature.domain.as_ref().map(Domain::to_string)),
        ("s", signature.selector.as_ref().map(Selector::to_string)),
        ("a", signature.algorithm.map(|algorithm| algorithm.as_str().to_owned())),
        ("b", signature.tag.clone()),
    ];
    for (name, value) in properties {
        if let Some(value) = value {
            result = result.property("header", name, value);
        }
    }
    result
}

/// What is done about a message that its author domain's policy speaks against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Enforcement {
    /// The field tells, nothing more.
    #[default]
    Observe,
    /// As `Observe`, and `quarantine` or `reject` adds `X-Quarantine: yes` for a later filter.
    Mark,
    /// As `Mark`, but `reject` is refused with 550 5.7.1.
    Reject,
}

impl Enforcement {
    /// What is done where this is asked for.
    fn of(self, disposition: Policy) -> Policy {
        match self {
            Enforcement::Observe => Policy::None,
            Enforcement::Mark => disposition.min(Policy::Quarantine),
            Enforcement::Reject => disposition,
        }
    }
}

/// Checks messages from strangers, stamps the findings, and acts on DMARC.
pub struct Authenticate {
    authserv_id: Domain,
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    enforcement: Enforcement,
    memory: Memory,
    #[cfg(feature = "reports")]
    reports: Option<Arc<crate::reports::Reports>>,
}

/// SPF records that are remembered.
const REMEMBERED: usize = 1024;

impl Authenticate {
    /// Stamps with our name.
    pub fn new(
        authserv_id: Domain,
        resolver: Arc<dyn Resolver>,
        clock: Arc<dyn Clock>,
        enforcement: Enforcement,
    ) -> Authenticate {
        Authenticate {
            authserv_id,
            resolver,
            clock,
            enforcement,
            memory: Memory::new(REMEMBERED),
            #[cfg(feature = "reports")]
            reports: None,
        }
    }

    /// Notes each message for the daily reports.
    #[cfg(feature = "reports")]
    #[must_use]
    pub fn with_reports(mut self, reports: Arc<crate::reports::Reports>) -> Authenticate {
        self.reports = Some(reports);
        self
    }

    async fn check(
        &self,
        visit: Visit<'_>,
        envelope: &Envelope,
        message: Message,
    ) -> Result<Message, Refusal> {
        let authserv_id = self.authserv_id.as_str();
        let message = without_forged(message, authserv_id);
        if visit.trusted {
            return Ok(message);
        }
        let mail_from = envelope.reverse_path.mailbox().map(ToString::to_string).unwrap_or_default();
        let inspection = Inspection {
            ip: visit.peer.ip().to_canonical(),
            hello: visit.hello.unwrap_or_default(),
            mail_from: &mail_from,
            authserv_id,
            now: self.clock.now(),
            sha1: false,
            memory: Some(&self.memory),
        };
        let findings = Findings::of(inspection, &*self.resolver, &message, |query| query).await;
        let disposition = match findings.dmarc.verdict {
            // Nobody can say whose message this is: a `From` that cannot be read, or too many authors to check. A
            // reader would be shown one of them all the same (RFC 9989 11.5).
            dmarc::Verdict::PermError => Policy::Reject,
            _ => findings.dmarc.disposition,
        };
        let applied = self.enforcement.of(disposition);
        #[cfg(feature = "reports")]
        if let Some(reports) = &self.reports {
            reports.sight(&findings, inspection.ip, applied, envelope, &message).await;
        }
        if applied == Policy::Reject {
            let author = findings.dmarc.author.as_ref().map(Name::to_string).unwrap_or_default();
            let text = match &*author {
                "" => "The From field does not tell whose message this is (RFC 9989 11.5)".to_owned(),
                author => format!("Refused by the DMARC policy of {author}"),
            };
            return Err(Refusal::known(550, EnhancedStatus::known(5, 7, 1), &text));
        }
        let mut stamped = message;
        if applied == Policy::Quarantine {
            let mark = HeaderField::new("X-Quarantine", "yes").expect("a fixed field");
            stamped = stamped.prepend(mark);
        }
        Ok(stamped.prepend(findings.field(authserv_id)))
    }
}

impl MessagePolicy for Authenticate {
    fn apply<'a>(
        &'a self,
        visit: Visit<'a>,
        envelope: &'a Envelope,
        message: Message,
    ) -> BoxFuture<'a, Result<Message, Refusal>> {
        Box::pin(self.check(visit, envelope, message))
    }
}

/// Cuts out fields that claim to be ours. Nearly always there are none, and nothing is copied.
fn without_forged(message: Message, authserv_id: &str) -> Message {
    let forged = auth_results::forged(&header_section(&message), authserv_id);
    if forged.is_empty() {
        return message;
    }
    let octets = message.to_vec();
    let mut kept = Vec::with_capacity(octets.len());
    let mut from = 0;
    for range in forged {
        kept.extend_from_slice(octets.get(from..range.start).unwrap_or_default());
        from = range.end;
    }
    kept.extend_from_slice(octets.get(from..).unwrap_or_default());
    Message::from_bytes(kept)
}

#[cfg(test)]
mod tests {
    use postwright_core::{ManualClock, MemoryZone};

    use super::*;

    const ZONE: &str = "strict.example. TXT \"v=spf1 ip4:192.0.2.1 -all\"\n\
                        _dmarc.strict.example. TXT \"v=DMARC1; p=reject\"";

    fn apply(enforcement: Enforcement, peer: &str, trusted: bool, text: &str) -> Result<String, Refusal> {
        let zone = Arc::new(MemoryZone::parse(ZONE).unwrap());
        let name = "mx.example.net".parse().unwrap();
        let policy = Authenticate::new(name, zone, Arc::new(ManualClock::default()), enforcement);
        let visit = Visit { peer: peer.parse().unwrap(), hello: Some("h.example"), trusted };
        let sender: postwright_core::Mailbox = "joe@strict.example".parse().unwrap();
        let envelope = Envelope::new(sender, []);
        let message = Message::from_bytes(text.as_bytes().to_vec());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let message = runtime.block_on(policy.apply(visit, &envelope, message))?;
        Ok(String::from_utf8(message.to_vec()).unwrap())
    }

    const MAIL: &str = "Authentication-Results: mx.example.net; dkim=pass header.d=bank.example\r\n\
                        Authentication-Results: other.example; spf=pass\r\nFrom: joe@strict.example\r\n\r\nx\r\n";

    #[test]
    fn our_name_in_a_field_of_theirs_is_cut_out() {
        let stamped = apply(Enforcement::Observe, "192.0.2.1:1", false, MAIL).unwrap();
        assert!(!stamped.contains("bank.example"), "{stamped}");
        assert!(stamped.contains("other.example; spf=pass"), "{stamped}");
        assert!(stamped.starts_with("Authentication-Results: mx.example.net;\r\n\tspf=pass"), "{stamped}");
        assert!(stamped.contains("dmarc=pass"), "{stamped}");
        let relayed = apply(Enforcement::Reject, "198.51.100.1:1", true, MAIL).unwrap();
        assert!(!relayed.contains("bank.example"), "{relayed}");
    }

    #[test]
    fn the_policy_of_the_author_domain_is_kept() {
        let refusal = apply(Enforcement::Reject, "198.51.100.1:1", false, MAIL).unwrap_err();
        assert_eq!(refusal.to_string(), "550 5.7.1 Refused by the DMARC policy of strict.example");
        let marked = apply(Enforcement::Mark, "198.51.100.1:1", false, MAIL).unwrap();
        assert!(marked.contains("\r\nX-Quarantine: yes\r\n") && marked.contains("dmarc=fail"), "{marked}");
        let observed = apply(Enforcement::Observe, "198.51.100.1:1", false, MAIL).unwrap();
        assert!(!observed.contains("X-Quarantine"), "{observed}");
    }
}

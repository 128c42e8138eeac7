//! What one session counts as: the policy that was applied and, if it failed, why.
//!
//! Invariant: only what is about TLS counts. A host that cannot be reached, or that refuses the mail, is neither a
//! success nor a failure here. What a policy in mode `testing` would have refused counts as a failure although the
//! mail was delivered.
//!
//! Standards: RFC 8460 3 (policy domain), 4.2, 4.3; RFC 8461 5 (testing).
//!
//! Not here: counting (tally.rs).

use std::net::IpAddr;

use postwright_core::{Domain, Host};
use postwright_smtp_proto::client::StartTls;

use super::{PolicyInfo, PolicyType, ResultType};
use crate::connection::{ConnectError, Connection};
use crate::dane::{Matching, Selector, Tlsa, Usage};
use crate::policy::{Attempt, Decision, Obstacle, Source};
use crate::sts::{Found, Policy, Trouble};
use crate::tls::Demand;

/// One session, or one host that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where the mail was going: this domain is told, wherever the policy comes from.
    pub domain: Domain,
    /// The policy that was applied.
    pub policy: PolicyInfo,
    /// Why it failed, if it did.
    pub failure: Option<ResultType>,
    /// From which address.
    pub sending_ip: Option<IpAddr>,
    /// Which mail host.
    pub host: Option<Box<str>>,
    /// At which address.
    pub receiving_ip: Option<IpAddr>,
}

impl Seen {
    /// What a connection on the way to `domain` counts as; `None` if nobody tried TLS, or it did not get so far.
    pub fn of_session(
        domain: &Domain,
        attempt: &Attempt,
        sts: &Found,
        outcome: Result<&Connection, &ConnectError>,
    ) -> Option<Seen> {
        let Attempt { target, options, decision } = attempt;
        let without_tls = decision.starttls == StartTls::None && !options.implicit_tls;
        // A report that is mailed around broken TLS must not be reported about (RFC 8460 3).
        if without_tls || decision.source == Source::TlsOptional {
            return None;
        }
        let failure = match outcome {
            Err(error) => Some(ResultType::of(error)?),
            Ok(connection) => shortcoming(decision, &target.host, sts, connection),
        };
        Some(Seen {
            domain: domain.clone(),
            policy: PolicyInfo::of(decision, domain, &target.host, sts),
            failure,
            sending_ip: options.source,
            host: Some(target.host.to_string().into()),
            receiving_ip: Some(target.address.ip()),
        })
    }

    /// What a host that must not be used counts as, if that is about TLS.
    pub fn of_obstacle(domain: &Domain, host: &Host, obstacle: &Obstacle, sts: &Found) -> Option<Seen> {
        let failure = Some(ResultType::of_obstacle(obstacle)?);
        let policy = match (obstacle, sts) {
            (Obstacle::NotInPolicy, Found::Policy(policy)) => PolicyInfo::of_sts(policy, domain),
            _ => PolicyInfo::bare(PolicyType::Tlsa, host.to_string()),
        };
        let host = Some(host.to_string().into());
        Some(Seen { domain: domain.clone(), policy, failure, sending_ip: None, host, receiving_ip: None })
    }

    /// What an MTA-STS policy that cannot be had counts as.
    pub fn of_trouble(domain: &Domain, trouble: &Trouble) -> Seen {
        let failure = match trouble {
            Trouble::Fetch(_) => ResultType::StsPolicyFetchError,
            Trouble::Certificate(_) => ResultType::StsWebpkiInvalid,
            Trouble::Invalid(_) => ResultType::StsPolicyInvalid,
        };
        Seen {
            domain: domain.clone(),
            policy: PolicyInfo::bare(PolicyType::Sts, domain.to_string()),
            failure: Some(failure),
            sending_ip: None,
            host: None,
            receiving_ip: None,
        }
    }
}

/// What is wrong with a session that is open all the same.
fn shortcoming(decision: &Decision, host: &Host, sts: &Found, connection: &Connection) -> Option<ResultType> {
    if connection.session().remote().tls.is_none() {
        return Some(ResultType::StarttlsNotSupported);
    }
    match (decision.source, sts) {
        (Source::StsTesting, Found::Policy(policy)) if !policy.names(host) => {
            Some(ResultType::ValidationFailure)
        }
        (Source::StsTesting, _) => connection.tls_fault().map(ResultType::of_fault),
        (Source::DaneUnusable, _) => Some(ResultType::TlsaInvalid),
        _ => None,
    }
}

impl PolicyInfo {
    /// The policy behind a decision about `host`, on the way to `domain`. The policy domain of DANE is the TLSA
    /// base domain (RFC 8460 1.1).
    pub fn of(decision: &Decision, domain: &Domain, host: &Host, sts: &Found) -> PolicyInfo {
        match (PolicyType::of(decision), &decision.demand, sts) {
            (PolicyType::Tlsa, Demand::Dane { records, names }, _) => {
                let base =
                    names.first().map_or_else(|| host.to_string(), |base| base.trim_end_matches('.').into());
                let policy_string = records.iter().map(presentation).collect();
                PolicyInfo { policy_string, ..PolicyInfo::bare(PolicyType::Tlsa, base) }
            }
            (PolicyType::Tlsa, ..) => PolicyInfo::bare(PolicyType::Tlsa, host.to_string()),
            (PolicyType::Sts, _, Found::Policy(policy)) => PolicyInfo::of_sts(policy, domain),
            (kind, ..) => PolicyInfo::bare(kind, domain.to_string()),
        }
    }

    fn of_sts(policy: &Policy, domain: &Domain) -> PolicyInfo {
        let mx_host = policy.mx.iter().map(|pattern| pattern.to_string()).collect();
        let policy_string = policy.to_string().lines().map(str::to_owned).collect();
        PolicyInfo { policy_string, mx_host, ..PolicyInfo::bare(PolicyType::Sts, domain.to_string()) }
    }

    fn bare(policy_type: PolicyType, policy_domain: String) -> PolicyInfo {
        PolicyInfo { policy_type, policy_string: Vec::new(), policy_domain, mx_host: Vec::new() }
    }
}

/// The record's data as in a zone file (RFC 6698 2.2).
fn presentation(record: &Tlsa) -> String {
    let usage = match record.usage {
        Usage::TrustAnchor => 2,
        Usage::EndEntity => 3,
    };
    let selector = match record.selector {
        Selector::Certificate => 0,
        Selector::PublicKey => 1,
    };
    let matching = match record.matching {
        Matching::Full => 0,
        Matching::Sha256 => 1,
        Matching::Sha512 => 2,
    };
    let data: String = record.data.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{usage} {selector} {matching} {data}")
}

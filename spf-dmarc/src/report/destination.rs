//! Who may be sent reports: a domain can ask for its reports to go elsewhere, but elsewhere must agree.
//!
//! Invariant: a mailbox of another organization is named only if its domain publishes its consent; otherwise anyone
//! could have a stranger flooded.
//!
//! Standards: RFC 9990 section 4.

use postwright_core::{DnsError, Mailbox, Name, Record, RecordKind, Resolver};

use crate::dmarc::{DmarcRecord, Mode, ReportUri, ReportUris, organizational_domain};

/// A mailbox that asks for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// The largest report that it takes, after compression and encoding (RFC 9990 3.5); `None` for any.
    pub max_size: Option<u64>,
    /// Whether it may have them; an error if that cannot be found out at present.
    pub allowed: Result<bool, DnsError>,
}

/// Destinations that are looked at, of one record.
const DESTINATIONS_MAX: usize = 10;

/// The mailboxes that the `rua` (or `ruf`) of a record names, and whether each may have reports. A host that agrees
/// may name other mailboxes of its own in their place (RFC 9990 4, step 9); then those are given.
pub async fn destinations(
    policy_domain: &Name,
    uris: &ReportUris,
    resolver: &dyn Resolver,
    mode: Mode,
) -> Vec<Destination> {
    let mut found: Vec<Destination> = Vec::new();
    let mut add = |uri: &ReportUri, mailbox: Mailbox, allowed: Result<bool, DnsError>| {
        if found.len() < DESTINATIONS_MAX && !found.iter().any(|known| known.mailbox == mailbox) {
            found.push(Destination { mailbox, max_size: uri.max_size, allowed });
        }
    };
    for uri in uris.iter().take(DESTINATIONS_MAX) {
        let Some(mailbox) = uri.mailbox() else { continue };
        // An address literal cannot publish anything.
        let Some(host) = mailbox.domain().map(Name::from) else {
            add(&uri, mailbox, Ok(false));
            continue;
        };
        match consent(resolver, policy_domain, &host, mode).await {
            Err(error) => add(&uri, mailbox, Err(error)),
            Ok(Consent::No) => add(&uri, mailbox, Ok(false)),
            Ok(Consent::Yes) => add(&uri, mailbox, Ok(true)),
            Ok(Consent::Instead(uris)) => {
                for uri in uris {
                    uri.mailbox().into_iter().for_each(|mailbox| add(&uri, mailbox, Ok(true)));
                }
            }
        }
    }
    found
}

/// What a host says about reports of a domain.
enum Consent {
    No,
    Yes,
    /// Yes, but to these of its mailboxes.
    Instead(Vec<ReportUri>),
}

async fn consent(
    resolver: &dyn Resolver,
    policy_domain: &Name,
    host: &Name,
    mode: Mode,
) -> Result<Consent, DnsError> {
    if host == policy_domain {
        return Ok(Consent::Yes);
    }
    let home = organizational_domain(policy_domain, resolver, mode).await?;
    if host.is_within(&home) && organizational_domain(host, resolver, mode).await? == home {
        return Ok(Consent::Yes);
    }
    let Ok(name) = host.prepend(&format!("{policy_domain}._report._dmarc")) else { return Ok(Consent::No) };
    let answer = resolver.lookup(&name, RecordKind::Txt).await?;
    let texts = answer.records().iter().filter_map(Record::text);
    let records: Vec<DmarcRecord> = texts.filter_map(|text| DmarcRecord::parse(&text)).collect();
    let at_home = |uri: ReportUri| {
        let mailbox = uri.mailbox();
        mailbox.as_ref().and_then(Mailbox::domain).is_some_and(|domain| Name::from(domain) == *host)
    };
    match records.iter().find(|record| !record.rua.is_empty()) {
        _ if records.is_empty() => Ok(Consent::No),
        None => Ok(Consent::Yes),
        // A host that passes reports on to another gets none, and the other neither.
        Some(record) if record.rua.iter().all(at_home) => Ok(Consent::Instead(record.rua.iter().collect())),
        Some(_) => Ok(Consent::No),
    }
}

//! Who may be sent reports: a domain can ask for its reports to go elsewhere, but elsewhere must agree.
//!
//! Invariant: a mailbox of another organization is named only if its domain publishes its consent; otherwise anyone
//! could have a stranger flooded.
//!
//! Standards: RFC 9990 section 4.

use postwright_core::{DnsError, Mailbox, Name, Record, RecordKind, Resolver};

use crate::dmarc::{DmarcRecord, Mode, ReportUri, organizational_domain};

/// A mailbox that asks for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Whether it may have them; an error if that cannot be found out at present.
    pub allowed: Result<bool, DnsError>,
}

/// Destinations that are looked at, of one record.
const DESTINATIONS_MAX: usize = 10;

/// The mailboxes that the `rua` (or `ruf`) of a record names, and whether each may have reports.
pub async fn destinations(
    resolver: &dyn Resolver,
    policy_domain: &Name,
    uris: &[ReportUri],
    mode: Mode,
) -> Vec<Destination> {
    let mut found: Vec<Destination> = Vec::new();
    for mailbox in uris.iter().filter_map(ReportUri::mailbox).take(DESTINATIONS_MAX) {
        if found.iter().any(|known| known.mailbox == mailbox) {
            continue;
        }
        let allowed = match mailbox.domain() {
            Some(domain) => is_allowed(resolver, policy_domain, &Name::from(domain), mode).await,
            // An address literal cannot publish anything.
            None => Ok(false),
        };
        found.push(Destination { mailbox, allowed });
    }
    found
}

async fn is_allowed(
    resolver: &dyn Resolver,
    policy_domain: &Name,
    host: &Name,
    mode: Mode,
) -> Result<bool, DnsError> {
    if host == policy_domain {
        return Ok(true);
    }
    let home = organizational_domain(resolver, policy_domain, mode).await?;
    if host.is_within(&home) && organizational_domain(resolver, host, mode).await? == home {
        return Ok(true);
    }
    let Ok(name) = host.prepend(&format!("{policy_domain}._report._dmarc")) else { return Ok(false) };
    let answer = resolver.lookup(&name, RecordKind::Txt).await?;
    Ok(answer.records().iter().filter_map(Record::text).any(|text| DmarcRecord::parse(&text).is_some()))
}

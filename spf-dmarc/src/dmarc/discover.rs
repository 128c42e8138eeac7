//! Finding the record and the organizational domain: the DNS tree walk, or the public suffix list.
//!
//! Invariant: no name is asked twice in one evaluation; a walk asks at most eight names (RFC 9989 4.10).
//!
//! Standards: RFC 9989 sections 4.10 to 4.10.2; RFC 7489 sections 3.2 and 6.6.3 (feature `psl`).
//!
//! Not here: alignment and policy (evaluate.rs).

use std::sync::Arc;

use postwright_core::{DnsError, Found, Name, Record, RecordKind, Resolver};

use super::Mode;
use super::record::{DmarcRecord, Psd};

/// Labels that stay when a long name is shortened (RFC 9989 4.10 step 4): with the name itself, eight queries.
const LABELS_KEPT: usize = 7;

/// The records that were asked for so far.
pub(super) struct Finder<'f> {
    resolver: &'f dyn Resolver,
    mode: Mode,
    asked: Vec<(Name, Option<Arc<DmarcRecord>>)>,
}

impl<'f> Finder<'f> {
    pub(super) fn new(resolver: &'f dyn Resolver, mode: Mode) -> Finder<'f> {
        Finder { resolver, mode, asked: Vec::new() }
    }

    /// The one valid record published for exactly this domain.
    pub(super) async fn record(&mut self, domain: &Name) -> Result<Option<Arc<DmarcRecord>>, DnsError> {
        if let Some((_, record)) = self.asked.iter().find(|(name, _)| name == domain) {
            return Ok(record.clone());
        }
        let record = match domain.prepend("_dmarc") {
            Ok(name) => self.lookup(&name).await?.map(Arc::new),
            // Too long for DNS: nothing can be published there.
            Err(_) => None,
        };
        self.asked.push((domain.clone(), record.clone()));
        Ok(record)
    }

    async fn lookup(&self, name: &Name) -> Result<Option<DmarcRecord>, DnsError> {
        let answer = self.resolver.lookup(name, RecordKind::Txt).await?;
        let texts = answer.records().iter().filter_map(Record::text);
        let mut records = texts.filter_map(|text| DmarcRecord::parse(&text));
        let first = records.next();
        // Several records are as good as none (RFC 9989 4.10 step 2).
        Ok(if records.next().is_some() { None } else { first })
    }

    /// The organizational domain, and the public suffix above it that said so with `psd=y`.
    pub(super) async fn organization(&mut self, domain: &Name) -> Result<Organization, DnsError> {
        match self.mode {
            Mode::Rfc9989 => self.walk(domain).await,
            #[cfg(feature = "psl")]
            Mode::Rfc7489 => Ok(Organization { domain: registrable(domain), suffix: None }),
        }
    }

    async fn walk(&mut self, start: &Name) -> Result<Organization, DnsError> {
        let mut shortest = None;
        let mut below = start.clone();
        for target in targets(start) {
            let psd = self.record(&target).await?.map(|record| record.psd);
            match psd {
                Some(Psd::No) => return Ok(Organization { domain: target, suffix: None }),
                Some(Psd::Yes) if target == *start => {
                    return Ok(Organization { domain: target, suffix: None });
                }
                Some(Psd::Yes) => {
                    let domain = one_below(start, &target).unwrap_or(below);
                    return Ok(Organization { domain, suffix: Some(target) });
                }
                Some(Psd::Unknown) => shortest = Some(target.clone()),
                None => {}
            }
            below = target;
        }
        Ok(Organization { domain: shortest.unwrap_or_else(|| start.clone()), suffix: None })
    }

    /// Whether the domain has no place in DNS: NXDOMAIN (RFC 9989 3.2.15, RFC 8020). An alias to a missing name
    /// exists itself.
    pub(super) async fn is_missing(&self, domain: &Name) -> Result<bool, DnsError> {
        let answer = self.resolver.lookup(domain, RecordKind::A).await?;
        Ok(answer.found == Found::NoName && answer.canonical == *domain)
    }
}

/// Who is responsible for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Organization {
    pub(super) domain: Name,
    /// The public suffix domain whose `psd=y` ended the walk.
    pub(super) suffix: Option<Name>,
}

/// The names whose records a tree walk asks for, in order (RFC 9989 4.10).
fn targets(start: &Name) -> impl Iterator<Item = Name> {
    let labels = start.labels().count();
    let mut next = match labels {
        0 => None,
        few if few <= LABELS_KEPT => start.parent(),
        _ => shortened(start, LABELS_KEPT),
    };
    let rest = std::iter::from_fn(move || {
        let this = next.take().filter(|name| !name.is_root())?;
        next = this.parent();
        Some(this)
    });
    std::iter::once(start.clone()).chain(rest)
}

/// The last labels of a name.
fn shortened(name: &Name, labels: usize) -> Option<Name> {
    let mut name = name.clone();
    while name.labels().count() > labels {
        name = name.parent()?;
    }
    Some(name)
}

/// The domain one label below `suffix` on the way down to `domain`.
fn one_below(domain: &Name, suffix: &Name) -> Option<Name> {
    shortened(domain, suffix.labels().count().checked_add(1)?)
}

/// The registrable domain by the public suffix list; a public suffix is its own organisation.
#[cfg(feature = "psl")]
fn registrable(domain: &Name) -> Name {
    let found = psl::domain_str(domain.as_str()).and_then(|name| name.parse().ok());
    found.unwrap_or_else(|| domain.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(start: &str) -> Vec<String> {
        targets(&start.parse().unwrap()).map(|name| name.to_string()).collect()
    }

    /// The example of RFC 9989 4.10.
    #[test]
    fn eight_queries_at_most() {
        assert_eq!(
            walk("a.b.c.d.e.f.g.h.i.j.mail.example.com"),
            [
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                "g.h.i.j.mail.example.com",
                "h.i.j.mail.example.com",
                "i.j.mail.example.com",
                "j.mail.example.com",
                "mail.example.com",
                "example.com",
                "com",
            ]
        );
        assert_eq!(walk("a.b.c.d.e.f.g.h").len(), 8);
        assert_eq!(walk("example.com"), ["example.com", "com"]);
        assert_eq!(walk("com"), ["com"]);
    }
}

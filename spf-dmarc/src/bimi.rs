//! BIMI: whether a domain offers a logo for its mail, and whether the mail may carry it.
//!
//! Invariant: a logo is offered only for mail that passed DMARC under a policy that is enforced.
//!
//! Standards: draft-brand-indicators-for-message-identification sections 4.2 (record), 7.1 (DMARC), 7.2 (discovery).
//!
//! Not here: logos and mark certificates are not fetched or judged; that is a documented non-goal.

use postwright_core::{Name, Record, RecordKind, Resolver};

use crate::dmarc::{DmarcRecord, DmarcResult, Policy, PolicyOf, Verdict};

/// An assertion record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BimiRecord {
    /// `l=`: the logo's https URI; empty for "no logo".
    pub location: String,
    /// `a=`: the evidence's https URI, if any.
    pub evidence: Option<String>,
}

impl BimiRecord {
    /// Reads the octets of a TXT record; `None` if it is no valid assertion record.
    ///
    /// ```
    /// use postwright_spf_dmarc::bimi::BimiRecord;
    /// let record = BimiRecord::parse(b"v=BIMI1; l=https://example.org/logo.svg; a=").unwrap();
    /// assert_eq!(record.location, "https://example.org/logo.svg");
    /// assert!(BimiRecord::parse(b"v=BIMI1; l=http://example.org/logo.svg").is_none());
    /// ```
    pub fn parse(octets: &[u8]) -> Option<BimiRecord> {
        let text = std::str::from_utf8(octets).ok()?;
        let mut tags =
            text.split(';').filter_map(|tag| tag.split_once('=')).map(|(n, v)| (n.trim(), v.trim()));
        let (name, version) = tags.next()?;
        if name != "v" || version != "BIMI1" {
            return None;
        }
        let (mut location, mut evidence) = (None, None);
        for (name, value) in tags {
            match name {
                "l" => location = Some(value.to_owned()),
                "a" => evidence = Some(value.to_owned()).filter(|value| !value.is_empty()),
                _ => {}
            }
        }
        let https = |uri: &str| uri.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        let location = location?;
        let valid = (location.is_empty() || https(&location)) && evidence.as_deref().is_none_or(https);
        valid.then_some(BimiRecord { location, evidence })
    }

    /// Whether the domain declines to have a logo.
    pub fn is_declined(&self) -> bool {
        self.location.is_empty() && self.evidence.is_none()
    }
}

/// The verdict on a message (as in `bimi=` of Authentication-Results).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BimiResult {
    /// The domain offers a logo.
    Offered(BimiRecord),
    /// It declines to.
    Declined,
    /// It publishes nothing, or nothing valid.
    None,
    /// DMARC did not pass, or its policy is not enforced: the record is not even looked for.
    Skipped,
    /// DNS failed for the moment.
    TempError,
}

/// Whether a DMARC policy counts as enforced: quarantine or reject, for subdomains as well, on all mail.
pub fn is_enforced(record: &DmarcRecord) -> bool {
    let strict = |of| record.policy(of).is_some_and(|policy| policy > Policy::None);
    strict(PolicyOf::Itself) && strict(PolicyOf::Subdomain) && !record.testing && record.pct == 100
}

/// Looks for the record of a message's author domain, then of its organizational domain. The selector is that of
/// the message's `BIMI-Selector` field, or `default`.
pub async fn discover(dmarc: &DmarcResult, selector: &str, resolver: &dyn Resolver) -> BimiResult {
    let (Some(author), Some(record)) = (&dmarc.author, &dmarc.record) else { return BimiResult::Skipped };
    if dmarc.verdict != Verdict::Pass || !is_enforced(record) {
        return BimiResult::Skipped;
    }
    let organization = dmarc.organizational_domain.iter().filter(|domain| *domain != author);
    for domain in std::iter::once(author).chain(organization) {
        match lookup(domain, selector, resolver).await {
            Ok(None) => {}
            Ok(Some(record)) if record.is_declined() => return BimiResult::Declined,
            Ok(Some(record)) => return BimiResult::Offered(record),
            Err(_) => return BimiResult::TempError,
        }
    }
    BimiResult::None
}

/// The one valid record of a domain under a selector.
pub async fn lookup(
    domain: &Name,
    selector: &str,
    resolver: &dyn Resolver,
) -> Result<Option<BimiRecord>, postwright_core::DnsError> {
    let Ok(name) = domain.prepend(&format!("{selector}._bimi")) else { return Ok(None) };
    let answer = resolver.lookup(&name, RecordKind::Txt).await?;
    let mut records =
        answer.records().iter().filter_map(Record::text).filter_map(|text| BimiRecord::parse(&text));
    let first = records.next();
    Ok(if records.next().is_some() { None } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_valid_or_none() {
        let parse = |text: &str| BimiRecord::parse(text.as_bytes());
        assert!(parse("v=BIMI1; l=; a=").unwrap().is_declined());
        assert!(parse("v=BIMI1;l=https://a.example/x.svg;a=https://a.example/x.pem;avp=brand").is_some());
        for text in [
            "",
            "v=BIMI1",
            "v=BIMI2; l=https://a.example",
            "l=https://a.example; v=BIMI1",
            "v=BIMI1; l=ftp://a",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_enforced_policies_count() {
        let enforced = |text: &str| is_enforced(&DmarcRecord::parse(text.as_bytes()).unwrap());
        assert!(enforced("v=DMARC1; p=quarantine"));
        for text in ["p=none", "p=reject; sp=none", "p=reject; t=y", "p=quarantine; pct=50"] {
            assert!(!enforced(&format!("v=DMARC1; {text}")), "{text}");
        }
    }
}

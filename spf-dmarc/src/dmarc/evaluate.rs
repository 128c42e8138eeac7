//! Alignment, policy and disposition.
//!
//! Invariant: every path out of here sets a reason. The organizational domain is looked for only when the verdict
//! hangs on it, or the caller asks.
//!
//! Standards: RFC 9989 sections 4.4, 4.10.1, 4.10.2, 5.3 and 11.5.

use std::sync::Arc;

use postwright_core::{DnsError, Name, Resolver};

use super::discover::{Finder, Organization};
use super::record::{Alignment, DmarcRecord, Policy, PolicyOf};
use super::{DmarcQuery, DmarcResult, Mode, Reason, Verdict};

pub(super) async fn run(resolver: &dyn Resolver, query: &DmarcQuery) -> DmarcResult {
    let authors = &query.authors;
    let limit = query.limits.dmarc_authors;
    let count = authors.domains.len();
    if count > limit {
        return settled(Verdict::PermError, None, Reason::TooManyAuthors { count, limit });
    }
    let mut finder = Finder::new(resolver, query.mode);
    let mut worst: Option<DmarcResult> = None;
    for author in &authors.domains {
        let result = match one(&mut finder, query, author).await {
            Ok(result) => result,
            Err(error) => settled(Verdict::TempError, Some(author), Reason::Dns(error)),
        };
        if worst.as_ref().is_none_or(|worst| rank(&result) > rank(worst)) {
            worst = Some(result);
        }
    }
    match worst {
        Some(result) if !authors.malformed || result.verdict == Verdict::Fail => result,
        // What could be read may pass; what could not is what a reader may be shown.
        Some(result) => DmarcResult {
            verdict: Verdict::PermError,
            disposition: Policy::None,
            reason: Reason::NoAuthor,
            ..result
        },
        None => settled(Verdict::PermError, None, Reason::NoAuthor),
    }
}

/// Which of several authors' results counts.
fn rank(result: &DmarcResult) -> (u8, Policy) {
    let verdict = match result.verdict {
        Verdict::None => 0,
        Verdict::Pass => 1,
        Verdict::PermError => 2,
        Verdict::TempError => 3,
        Verdict::Fail => 4,
    };
    (verdict, result.disposition)
}

fn settled(verdict: Verdict, author: Option<&Name>, reason: Reason) -> DmarcResult {
    DmarcResult {
        verdict,
        author: author.cloned(),
        policy: None,
        disposition: Policy::None,
        record_domain: None,
        record: None,
        organizational_domain: None,
        spf_aligned: false,
        dkim_aligned: false,
        reason,
    }
}

/// The evaluation of one author domain.
async fn one(finder: &mut Finder<'_>, query: &DmarcQuery, author: &Name) -> Result<DmarcResult, DnsError> {
    let mut organization = None;
    let mut result = settled(Verdict::None, Some(author), Reason::NoRecord(author.clone()));
    if let Some((domain, record)) = find_policy(finder, author, &mut organization).await? {
        let policy = policy_for(finder, query.mode, author, &domain, &record).await?;
        result.reason = Reason::VoidRecord(domain.clone());
        if let Some(policy) = policy {
            result.policy = Some(policy);
            align(finder, query, author, &record, &mut organization, &mut result).await?;
            decide(query, policy, &record, &mut result);
        }
        result.record_domain = Some(domain);
        result.record = Some(record);
    }
    if organization.is_none() && query.with_organization {
        // Nothing hangs on it any more, so a failure here changes no verdict.
        organization = finder.organization(author).await.ok();
    }
    result.organizational_domain = organization.map(|organization| organization.domain);
    Ok(result)
}

/// The record that applies, and whose it is (RFC 9989 4.10.1).
async fn find_policy(
    finder: &mut Finder<'_>,
    author: &Name,
    organization: &mut Option<Organization>,
) -> Result<Option<(Name, Arc<DmarcRecord>)>, DnsError> {
    if let Some(record) = finder.record(author).await? {
        return Ok(Some((author.clone(), record)));
    }
    let found = organization.insert(finder.organization(author).await?);
    let places = [Some(found.domain.clone()), found.suffix.clone()];
    for place in places.into_iter().flatten() {
        if let Some(record) = finder.record(&place).await? {
            return Ok(Some((place, record)));
        }
    }
    Ok(None)
}

/// The policy for the author domain; `None` if the record asks for no processing.
async fn policy_for(
    finder: &Finder<'_>,
    mode: Mode,
    author: &Name,
    domain: &Name,
    record: &DmarcRecord,
) -> Result<Option<Policy>, DnsError> {
    if author == domain {
        return Ok(record.policy_in(mode, PolicyOf::Itself));
    }
    let (below, missing) =
        (record.policy_in(mode, PolicyOf::Subdomain), record.policy_in(mode, PolicyOf::Missing));
    // Whether the author domain exists is asked only if it makes a difference.
    if below == missing || !finder.is_missing(author).await? { Ok(below) } else { Ok(missing) }
}

impl DmarcRecord {
    /// RFC 7489 knows no `np`, and a record without a valid `p` is like one with a wrong one (6.6.3 step 6).
    fn policy_in(&self, mode: Mode, of: PolicyOf) -> Option<Policy> {
        match mode {
            Mode::Rfc9989 => self.policy(of),
            #[cfg(feature = "psl")]
            Mode::Rfc7489 => {
                let void = self.p.valid().is_none() || self.sp == super::PolicyTag::Invalid;
                let of = if of == PolicyOf::Missing { PolicyOf::Subdomain } else { of };
                if void {
                    return (!self.rua.is_empty()).then_some(Policy::None);
                }
                DmarcRecord { np: super::PolicyTag::Absent, ..self.clone() }.policy(of)
            }
        }
    }
}

/// Which of the domains that passed are aligned (RFC 9989 4.10.2).
async fn align(
    finder: &mut Finder<'_>,
    query: &DmarcQuery,
    author: &Name,
    record: &DmarcRecord,
    organization: &mut Option<Organization>,
    result: &mut DmarcResult,
) -> Result<(), DnsError> {
    let mut failure = None;
    let mut aligned = Vec::new();
    let passed = query.spf.iter().map(|name| (name, "SPF", record.aspf));
    let passed = passed.chain(query.dkim.iter().map(|name| (name, "DKIM", record.adkim)));
    let undecided = query.undecided.iter().map(|name| (name, "", Alignment::Relaxed));
    for (name, method, mode) in passed.chain(undecided) {
        let settled = aligned.iter().any(|(_, other)| *other == method || method.is_empty());
        if settled {
            continue;
        }
        match is_aligned(finder, author, name, mode, organization).await {
            Ok(true) => aligned.push((name, method)),
            Ok(false) => {}
            // Another domain may still be aligned without this answer.
            Err(error) => failure = Some(error),
        }
    }
    result.spf_aligned = aligned.iter().any(|(_, method)| *method == "SPF");
    result.dkim_aligned = aligned.iter().any(|(_, method)| *method == "DKIM");
    result.reason = match (aligned.first(), failure) {
        (Some((name, "")), _) => Reason::Undecided((*name).clone()),
        (Some((name, method)), _) => Reason::Aligned((*name).clone(), method),
        (None, Some(error)) => return Err(error),
        (None, None) => Reason::Policy,
    };
    Ok(())
}

async fn is_aligned(
    finder: &mut Finder<'_>,
    author: &Name,
    name: &Name,
    mode: Alignment,
    organization: &mut Option<Organization>,
) -> Result<bool, DnsError> {
    if name == author {
        return Ok(true);
    }
    // Domains without a common top-level label cannot have a common organisation: no look-up is due.
    if mode == Alignment::Strict || name.labels().next_back() != author.labels().next_back() {
        return Ok(false);
    }
    if organization.is_none() {
        *organization = Some(finder.organization(author).await?);
    }
    let Some(home) = organization.as_ref().map(|organization| &organization.domain) else { return Ok(false) };
    // An organizational domain is the domain itself or lies above it.
    Ok(name.is_within(home) && finder.organization(name).await?.domain == *home)
}

/// The verdict and what to do.
fn decide(query: &DmarcQuery, policy: Policy, record: &DmarcRecord, result: &mut DmarcResult) {
    match result.reason {
        Reason::Aligned(..) => result.verdict = Verdict::Pass,
        Reason::Undecided(_) => result.verdict = Verdict::TempError,
        _ => {
            result.verdict = Verdict::Fail;
            result.disposition = policy;
            let weaker = match query.mode {
                Mode::Rfc9989 if record.testing => Some(Reason::Testing),
                #[cfg(feature = "psl")]
                Mode::Rfc7489 if query.sample >= record.pct => Some(Reason::SampledOut(record.pct)),
                _ => None,
            };
            if let Some(reason) = weaker.filter(|_| policy != Policy::None) {
                result.disposition = policy.relaxed();
                result.reason = reason;
            }
        }
    }
}

//! Counting sessions until they are reported.
//!
//! Invariant: what is counted is bounded by [`Limits`], and each session is reported once. A tally that was written
//! out and read back goes on where it stood.
//!
//! Standards: RFC 8460 4.2 (summary), 4.3 (failure details).
//!
//! Not here: what a session counts as (seen.rs), where the tally is kept (mta).

use std::collections::BTreeMap;
use std::net::IpAddr;

use postwright_core::{Domain, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    DateRange, Day, Failure, Limits, PolicyInfo, PolicyReport, Report, ResultType, Seen, Summary, date,
};

/// Why octets are no tally.
#[derive(Debug, thiserror::Error)]
#[error("the counts of TLS sessions cannot be read: {0}")]
pub struct TallyError(Box<str>);

impl TallyError {
    pub(super) fn new(error: serde_json::Error) -> TallyError {
        TallyError(error.to_string().into())
    }
}

type FailureKey = (ResultType, Option<IpAddr>, Option<Box<str>>, Option<IpAddr>);

#[derive(Debug, Default)]
struct Count {
    summary: Summary,
    failures: BTreeMap<FailureKey, u64>,
}

/// Counts sessions until they are reported.
#[derive(Debug, Default)]
pub struct Tally {
    limits: Limits,
    counts: BTreeMap<Domain, BTreeMap<PolicyInfo, Count>>,
}

/// A tally as it is written out: JSON has no keys but strings, so maps become lists.
#[derive(Serialize, Deserialize)]
struct Written {
    domain: String,
    policies: Vec<PolicyReport>,
}

impl Tally {
    /// An empty tally.
    pub fn new(limits: Limits) -> Tally {
        Tally { limits, counts: BTreeMap::new() }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Counts one session.
    pub fn count(&mut self, seen: Seen) {
        let most = self.limits.failures;
        let Some(count) = self.entry(&seen.domain, seen.policy) else { return };
        let Some(failure) = seen.failure else {
            count.summary.total_successful_session_count += 1;
            return;
        };
        count.summary.total_failure_session_count += 1;
        let key = (failure, seen.sending_ip, seen.host, seen.receiving_ip);
        count.add(key, 1, most);
    }

    /// Takes what was counted as one report a domain, and starts anew.
    pub fn take(&mut self, organization: &str, contact: &str, day: Day) -> Vec<(Domain, Report)> {
        let report = |(domain, policies): (Domain, BTreeMap<PolicyInfo, Count>)| {
            let report = Report {
                organization_name: organization.to_owned(),
                date_range: DateRange { start_datetime: date(day.start), end_datetime: date(day.end) },
                contact_info: contact.to_owned(),
                report_id: format!("{}_{domain}", date(day.start)),
                policies: policies.into_iter().map(|(policy, count)| count.report(policy)).collect(),
            };
            (domain, report)
        };
        std::mem::take(&mut self.counts).into_iter().map(report).collect()
    }

    /// What was counted, for [`Tally::from_json`].
    pub fn to_json(&self) -> Vec<u8> {
        let written = |(domain, policies): (&Domain, &BTreeMap<PolicyInfo, Count>)| Written {
            domain: domain.to_string(),
            policies: policies.iter().map(|(policy, count)| count.clone_report(policy)).collect(),
        };
        let written: Vec<Written> = self.counts.iter().map(written).collect();
        // All keys are strings and all numbers are whole: nothing can fail to be written.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// A tally that goes on where the written one stood.
    ///
    /// # Errors
    /// The octets were not written by [`Tally::to_json`].
    pub fn from_json(octets: &[u8], limits: Limits) -> Result<Tally, TallyError> {
        let mut tally = Tally::new(limits);
        let written = serde_json::from_slice::<Vec<Written>>(octets).map_err(TallyError::new)?;
        for Written { domain, policies } in written {
            let Ok(domain) = domain.parse::<Domain>() else { continue };
            for report in policies {
                let most = tally.limits.failures;
                let Some(count) = tally.entry(&domain, report.policy) else { continue };
                count.summary.add(report.summary);
                for failure in report.failure_details {
                    let host = failure.receiving_mx_hostname.map(Into::into);
                    let key = (failure.result_type, failure.sending_mta_ip, host, failure.receiving_ip);
                    count.add(key, failure.failed_session_count, most);
                }
            }
        }
        Ok(tally)
    }

    fn entry(&mut self, domain: &Domain, policy: PolicyInfo) -> Option<&mut Count> {
        if !self.counts.contains_key(domain) && self.counts.len() >= self.limits.domains {
            return None;
        }
        let policies = self.counts.entry(domain.clone()).or_default();
        if !policies.contains_key(&policy) && policies.len() >= self.limits.policies {
            return None;
        }
        Some(policies.entry(policy).or_default())
    }
}

impl Summary {
    fn add(&mut self, other: Summary) {
        let (good, bad) = (&mut self.total_successful_session_count, &mut self.total_failure_session_count);
        *good = good.saturating_add(other.total_successful_session_count);
        *bad = bad.saturating_add(other.total_failure_session_count);
    }
}

impl Count {
    fn add(&mut self, key: FailureKey, times: u64, most: usize) {
        if self.failures.len() < most || self.failures.contains_key(&key) {
            let count = self.failures.entry(key).or_default();
            *count = count.saturating_add(times);
        }
    }

    fn clone_report(&self, policy: &PolicyInfo) -> PolicyReport {
        let copy = Count { summary: self.summary, failures: self.failures.clone() };
        copy.report(policy.clone())
    }

    fn report(self, policy: PolicyInfo) -> PolicyReport {
        let failure =
            |((result_type, sending_mta_ip, host, receiving_ip), count): (FailureKey, u64)| Failure {
                result_type,
                sending_mta_ip,
                receiving_mx_hostname: host.map(Into::into),
                receiving_mx_helo: None,
                receiving_ip,
                failed_session_count: count,
                additional_information: None,
                failure_reason_code: None,
            };
        let failure_details = self.failures.into_iter().map(failure).collect();
        PolicyReport { policy, summary: self.summary, failure_details }
    }
}

impl Day {
    /// The UTC day that a moment lies in (RFC 8460 4.1: reports are about whole UTC days).
    pub fn of(at: Timestamp) -> Day {
        const SECONDS: u64 = 86_400;
        let start = at.secs() / SECONDS * SECONDS;
        Day { start: Timestamp::from_secs(start), end: Timestamp::from_secs(start + SECONDS - 1) }
    }
}

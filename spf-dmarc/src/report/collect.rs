//! Collecting rows from evaluations, through a small store.
//!
//! Invariant: equal sightings become one row with a count; mail of domains that want no reports leaves no row.
//!
//! Standards: RFC 9990 section 3.1.
//!
//! Not here: a store that survives a restart (the embedder's, or the reference MTA's).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;

use postwright_core::{BoxFuture, Name};

use super::aggregate::{Disposition, DkimAuth, PolicyReason, PublishedPolicy, Row, SpfAuth};
use crate::dmarc::{Alignment, DmarcRecord, DmarcResult, Mode, Policy, PolicyTag, Verdict};
use crate::spf::{Identity, SpfResult};

/// What was seen of one message.
#[derive(Debug, Clone)]
pub struct Sighting<'s> {
    /// The client.
    pub ip: IpAddr,
    /// SPF's verdict.
    pub spf: &'s SpfResult,
    /// The DKIM signatures, failed ones as well.
    pub dkim: Vec<DkimAuth>,
    /// DMARC's verdict.
    pub dmarc: &'s DmarcResult,
    /// How it was evaluated.
    pub mode: Mode,
    /// What was done with the message.
    pub applied: Policy,
    /// Why that differs from the policy, if it does and `t` or `pct` does not explain it.
    pub reasons: Vec<PolicyReason>,
    /// The domain of the reverse-path, if there is one.
    pub envelope_from: Option<Name>,
}

impl Sighting<'_> {
    /// The row for the report, and the policy it belongs to; `None` if nobody asked for reports (RFC 9989 4.7,
    /// `rua`).
    pub fn row(&self) -> Option<(PublishedPolicy, Row)> {
        let dmarc = self.dmarc;
        let (record, domain) = (dmarc.record.as_ref()?, dmarc.record_domain.as_ref()?);
        if record.rua.is_empty() || !matches!(dmarc.verdict, Verdict::Pass | Verdict::Fail) {
            return None;
        }
        let disposition = match self.applied {
            Policy::None if dmarc.verdict == Verdict::Pass => Disposition::Pass,
            Policy::None => Disposition::None,
            Policy::Quarantine => Disposition::Quarantine,
            Policy::Reject => Disposition::Reject,
        };
        let mut reasons = self.reasons.clone();
        let testing = dmarc.verdict == Verdict::Fail && dmarc.policy.is_some_and(|p| p != dmarc.disposition);
        if testing && reasons.is_empty() {
            reasons.push(PolicyReason { kind: "policy_test_mode".to_owned(), comment: None });
        }
        let scope = match self.spf.identity {
            Identity::Helo => "helo",
            Identity::MailFrom => "mfrom",
        };
        let row = Row {
            source_ip: self.ip.to_canonical(),
            count: 1,
            disposition,
            dkim_aligned: dmarc.dkim_aligned,
            spf_aligned: dmarc.spf_aligned,
            reasons,
            header_from: dmarc.author.as_ref()?.to_string(),
            envelope_from: self.envelope_from.as_ref().map(Name::to_string),
            envelope_to: None,
            dkim: self.dkim.clone(),
            spf: vec![SpfAuth {
                domain: self.spf.domain.clone(),
                scope: Some(scope.to_owned()),
                result: self.spf.verdict.to_string(),
                human_result: None,
            }],
        };
        Some((published(domain, record, self.mode), row))
    }
}

fn published(domain: &Name, record: &DmarcRecord, mode: Mode) -> PublishedPolicy {
    let policy = |tag: PolicyTag| tag.valid().map(|policy| policy.as_str().to_owned());
    let alignment = |alignment: Alignment| Some(alignment.as_str().to_owned());
    let options = record.failure_options;
    let fo = [(options.any, "1"), (options.dkim, "d"), (options.spf, "s")];
    let fo: Vec<&str> = fo.iter().filter(|(on, _)| *on).map(|(_, letter)| *letter).collect();
    PublishedPolicy {
        domain: domain.to_string(),
        p: policy(record.p).or(Some("none".to_owned())),
        sp: policy(record.sp),
        np: policy(record.np),
        adkim: alignment(record.adkim),
        aspf: alignment(record.aspf),
        fo: Some(if fo.is_empty() { "0".to_owned() } else { fo.join(":") }),
        pct: None,
        testing: Some(if record.testing { "y" } else { "n" }.to_owned()),
        discovery_method: Some(if mode == Mode::Rfc9989 { "treewalk" } else { "psl" }.to_owned()),
    }
}

/// A policy and its rows: what one report is made of.
pub type PolicyRows = (PublishedPolicy, Vec<Row>);

/// Where rows wait until the report is due.
pub trait RowStore: Send + Sync {
    /// Adds a row to those of a policy; an equal one counts up.
    fn add<'a>(&'a self, policy: &'a PublishedPolicy, row: Row) -> BoxFuture<'a, io::Result<()>>;

    /// Takes all rows out, by policy.
    fn take(&self) -> BoxFuture<'_, io::Result<Vec<PolicyRows>>>;
}

/// Rows in memory: lost with the process, which RFC 9990 allows and its readers regret.
#[derive(Debug)]
pub struct MemoryRows {
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Counts by row, whose own count is zero.
    policies: BTreeMap<PublishedPolicy, BTreeMap<Row, u64>>,
    rows: usize,
}

impl MemoryRows {
    /// A store of at most so many different rows; what comes on top is refused.
    pub fn new(most: usize) -> MemoryRows {
        MemoryRows { most, held: Mutex::default() }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // A panic while the lock is held leaves counts that are whole.
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn insert(&self, policy: &PublishedPolicy, mut row: Row) -> io::Result<()> {
        let count = std::mem::take(&mut row.count);
        let mut held = self.held();
        let full = held.rows >= self.most;
        if let Some(known) = held.policies.get_mut(policy).and_then(|rows| rows.get_mut(&row)) {
            *known = known.saturating_add(count);
            return Ok(());
        }
        if full {
            return Err(io::Error::other("the store of report rows is full"));
        }
        held.policies.entry(policy.clone()).or_default().insert(row, count);
        held.rows += 1;
        Ok(())
    }
}

impl RowStore for MemoryRows {
    fn add<'a>(&'a self, policy: &'a PublishedPolicy, row: Row) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(self.insert(policy, row)))
    }

    fn take(&self) -> BoxFuture<'_, io::Result<Vec<PolicyRows>>> {
        let held = std::mem::take(&mut *self.held());
        let counted = |(row, count): (Row, u64)| Row { count, ..row };
        let rows = held.policies.into_iter();
        let taken = rows.map(|(policy, rows)| (policy, rows.into_iter().map(counted).collect())).collect();
        Box::pin(std::future::ready(Ok(taken)))
    }
}

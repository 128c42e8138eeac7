//! Collecting rows from evaluations, through a small store.
//!
//! Invariant: equal sightings become one row with a count; mail of domains that want no reports leaves no row; rows stay
//! until somebody says that their report is on its way ([`RowStore::settle`]), so that a failure loses nothing.
//!
//! Standards: RFC 9990 section 3.1.
//!
//! Not here: a store that survives a restart (the embedder's, or the reference MTA's).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;

use postwright_core::{BoxFuture, Name, Timestamp};

use super::aggregate::{Disposition, DkimAuth, PolicyReason, PublishedPolicy, Row, SpfAuth};
use crate::dmarc::{Alignment, DmarcRecord, DmarcResult, Mode, Policy, PolicyTag, Verdict};
use crate::spf::SpfResult;

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
            // "No action, passing DMARC with an enforcing policy" (appendix A).
            Policy::None
                if dmarc.verdict == Verdict::Pass && dmarc.policy.is_some_and(|p| p != Policy::None) =>
            {
                Disposition::Pass
            }
            Policy::None => Disposition::None,
            Policy::Quarantine => Disposition::Quarantine,
            Policy::Reject => Disposition::Reject,
        };
        let mut reasons = self.reasons.clone();
        let testing = dmarc.verdict == Verdict::Fail && dmarc.policy.is_some_and(|p| p != dmarc.disposition);
        if testing && reasons.is_empty() {
            reasons.push(PolicyReason { kind: "policy_test_mode".to_owned(), comment: None });
        }
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
                // "The only valid value" (3.1, contents of "spf"): a null reverse-path is checked as one of the HELO domain.
                scope: Some("mfrom".to_owned()),
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

/// A day of UTC, counted from 1970-01-01: the period of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    const SECONDS: u64 = 86_400;

    /// The day that a moment lies in.
    pub fn of(at: Timestamp) -> Day {
        Day(u32::try_from(at.secs() / Day::SECONDS).unwrap_or(u32::MAX))
    }

    /// Its first second.
    pub fn begin(self) -> Timestamp {
        Timestamp::from_secs(u64::from(self.0) * Day::SECONDS)
    }

    /// Its last second.
    pub fn end(self) -> Timestamp {
        Timestamp::from_secs(u64::from(self.0) * Day::SECONDS + (Day::SECONDS - 1))
    }
}

/// What one report is made of: all rows of one policy in one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The period.
    pub day: Day,
    /// The policy as it was found.
    pub policy: PublishedPolicy,
    /// The rows, in a fixed order.
    pub rows: Vec<Row>,
}

/// Where rows wait until the report is due.
pub trait RowStore: Send + Sync {
    /// Adds a row to those of a policy and a day; an equal one counts up.
    fn add<'a>(&'a self, day: Day, policy: &'a PublishedPolicy, row: Row) -> BoxFuture<'a, io::Result<()>>;

    /// The batches of all days before this one, the oldest first. They stay in the store.
    fn due(&self, before: Day) -> BoxFuture<'_, io::Result<Vec<Batch>>>;

    /// Forgets a batch: its report is on its way, or will never be sent.
    fn settle<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, io::Result<()>>;
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
    batches: BTreeMap<(Day, PublishedPolicy), BTreeMap<Row, u64>>,
    rows: usize,
}

impl MemoryRows {
    /// A store of at most so many different rows; what comes on top is refused.
    pub fn new(most: usize) -> MemoryRows {
        MemoryRows { most, held: Mutex::default() }
    }

    /// How many different rows are held.
    pub fn len(&self) -> usize {
        self.held().rows
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        // A panic while the lock is held leaves counts that are whole.
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn insert(&self, day: Day, policy: &PublishedPolicy, mut row: Row) -> io::Result<()> {
        let count = std::mem::take(&mut row.count);
        let mut held = self.held();
        let key = (day, policy.clone());
        if let Some(known) = held.batches.get_mut(&key).and_then(|rows| rows.get_mut(&row)) {
            *known = known.saturating_add(count);
            return Ok(());
        }
        if held.rows >= self.most {
            return Err(io::Error::other("the store of report rows is full"));
        }
        held.batches.entry(key).or_default().insert(row, count);
        held.rows += 1;
        Ok(())
    }

    fn before(&self, day: Day) -> Vec<Batch> {
        let held = self.held();
        let due = held.batches.iter().take_while(|((of, _), _)| *of < day);
        due.map(|((day, policy), rows)| {
            let rows = rows.iter().map(|(row, count)| Row { count: *count, ..row.clone() }).collect();
            Batch { day: *day, policy: policy.clone(), rows }
        })
        .collect()
    }

    fn forget(&self, batch: &Batch) {
        let mut held = self.held();
        if let Some(rows) = held.batches.remove(&(batch.day, batch.policy.clone())) {
            held.rows = held.rows.saturating_sub(rows.len());
        }
    }
}

impl RowStore for MemoryRows {
    fn add<'a>(&'a self, day: Day, policy: &'a PublishedPolicy, row: Row) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(self.insert(day, policy, row)))
    }

    fn due(&self, before: Day) -> BoxFuture<'_, io::Result<Vec<Batch>>> {
        Box::pin(std::future::ready(Ok(self.before(before))))
    }

    fn settle<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, io::Result<()>> {
        self.forget(batch);
        Box::pin(std::future::ready(Ok(())))
    }
}

//! Counters, fed by events only.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Event, Observer};

/// Counts of events since start. Add it as an observer and read it at any time.
#[derive(Debug, Default)]
pub struct Metrics {
    accepted: AtomicU64,
    accepted_recipients: AtomicU64,
    accepted_octets: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    delivered_late: AtomicU64,
    deferred: AtomicU64,
    bounced: AtomicU64,
    expired: AtomicU64,
    cancelled: AtomicU64,
    notified: AtomicU64,
    spool_failures: AtomicU64,
    damaged: AtomicU64,
    logins_refused: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Messages accepted, notifications of our own left out.
    pub accepted: u64,
    /// Their recipients.
    pub accepted_recipients: u64,
    /// Their octets.
    pub accepted_octets: u64,
    /// Refusals told to peers.
    pub refused: u64,
    /// Recipients delivered, notifications included.
    pub delivered: u64,
    /// Recipients delivered after at least one deferral.
    pub delivered_late: u64,
    /// Attempts that ended in "later", one a recipient.
    pub deferred: u64,
    /// Recipients refused for good.
    pub bounced: u64,
    /// Recipients whose lifetime ended.
    pub expired: u64,
    /// Recipients removed by an operator.
    pub cancelled: u64,
    /// Notifications queued.
    pub notified: u64,
    /// Failures of the spool.
    pub spool_failures: u64,
    /// Records that cannot be read.
    pub damaged: u64,
    /// Logins at smart hosts that were refused.
    pub logins_refused: u64,
}

impl Metrics {
    /// The counters now. Each is exact; together they may be a moment apart.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            accepted: read(&self.accepted),
            accepted_recipients: read(&self.accepted_recipients),
            accepted_octets: read(&self.accepted_octets),
            refused: read(&self.refused),
            delivered: read(&self.delivered),
            delivered_late: read(&self.delivered_late),
            deferred: read(&self.deferred),
            bounced: read(&self.bounced),
            expired: read(&self.expired),
            cancelled: read(&self.cancelled),
            notified: read(&self.notified),
            spool_failures: read(&self.spool_failures),
            damaged: read(&self.damaged),
            logins_refused: read(&self.logins_refused),
        }
    }
}

impl Observer for Metrics {
    fn event(&self, event: &Event<'_>) {
        let add = |counter: &AtomicU64, n: usize| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        match event {
            Event::Refused { .. } => add(&self.refused, 1),
            Event::Accepted { peer: Some(_), recipients, octets, .. } => {
                add(&self.accepted, 1);
                add(&self.accepted_recipients, *recipients);
                add(&self.accepted_octets, *octets);
            }
            Event::Accepted { peer: None, .. } | Event::Unnotified { .. } | Event::Feedback(_) => {}
            Event::Delivered { attempts, .. } => {
                add(&self.delivered, 1);
                add(&self.delivered_late, usize::from(*attempts > 1));
            }
            Event::Deferred { .. } => add(&self.deferred, 1),
            Event::Bounced { .. } => add(&self.bounced, 1),
            Event::Expired { .. } => add(&self.expired, 1),
            Event::Cancelled { .. } => add(&self.cancelled, 1),
            Event::Notified { .. } => add(&self.notified, 1),
            Event::SpoolFailed { .. } => add(&self.spool_failures, 1),
            Event::Damaged { .. } => add(&self.damaged, 1),
            Event::LoginRefused { .. } => add(&self.logins_refused, 1),
            Event::Loaded { damaged, .. } => add(&self.damaged, *damaged),
        }
    }
}

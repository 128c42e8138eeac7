//! [`Entry`]: what the spool keeps about a message, beside its body.
//!
//! Invariant: one [`Progress`] for each recipient, in the order of the envelope; a recipient whose fate is
//! decided is never attempted again.
//!
//! Standards: RFC 5321 4.5.4 (retries), RFC 4865 (future release).
//!
//! Not here: its form on disk ([`codec`](crate::codec)), when it is due next (the scheduler decides).

use std::collections::BTreeMap;
use std::time::Duration;

use postwright_core::{DeliveryStatus, EnhancedStatus, Envelope, Outcome, ReplyCode, Timestamp};

use crate::SpoolId;

/// How many past attempts an entry remembers for each recipient.
pub const HISTORY_MAX: usize = 16;

/// What has become of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fate {
    /// Still to be delivered.
    #[default]
    Pending,
    /// Delivered, or taken over by the next server.
    Delivered,
    /// Taken over by a server that gives no delivery notifications (RFC 3461 5.3.1).
    Relayed,
    /// Refused for good.
    Bounced,
    /// The lifetime of the message ended first.
    Expired,
    /// Removed by an operator.
    Cancelled,
}

/// An attempt of the past: the trace that an operator reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PastAttempt {
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Its status.
    pub status: EnhancedStatus,
    /// The remote's reply code, if a remote decided.
    pub code: Option<ReplyCode>,
}

/// How far one recipient has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// What has become of it.
    pub fate: Fate,
    /// Attempts that ended with a status.
    pub attempts: u32,
    /// Steps taken on the retry schedule; below `attempts` where an attempt cost no step (a 421, greylisting).
    pub steps: u32,
    /// Not to be attempted before this moment.
    pub due: Timestamp,
    /// Whether the sender was told of the delay.
    pub warned: bool,
    /// What the last attempt brought.
    pub last: Option<DeliveryStatus>,
    /// The attempts so far, the latest last; at most [`HISTORY_MAX`], the oldest are dropped.
    pub history: Vec<PastAttempt>,
}

impl Progress {
    /// Progress of a recipient that has not been attempted.
    pub fn due(due: Timestamp) -> Progress {
        Progress { due, ..Progress::default() }
    }

    /// Whether the recipient still has to be delivered.
    pub fn is_pending(&self) -> bool {
        self.fate == Fate::Pending
    }

    /// Notes an attempt: counts it, remembers it, and settles the fate if the status is final.
    pub fn note(&mut self, status: DeliveryStatus) {
        self.attempts = self.attempts.saturating_add(1);
        self.fate = match status.outcome {
            Outcome::Delivered => Fate::Delivered,
            Outcome::Relayed => Fate::Relayed,
            Outcome::Failed => Fate::Bounced,
            Outcome::Delayed | Outcome::Unknown => Fate::Pending,
        };
        let code = match &status.diagnostic {
            postwright_core::Diagnostic::Smtp(reply) => Some(reply.code()),
            postwright_core::Diagnostic::Local(_) => None,
        };
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(PastAttempt {
            at: status.at,
            outcome: status.outcome,
            status: status.status,
            code,
        });
        self.last = Some(status);
    }
}

/// What the spool keeps about a message, beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: SpoolId,
    /// Sender, recipients and options.
    pub envelope: Envelope,
    /// One for each recipient of the envelope, in its order.
    pub progress: Vec<Progress>,
    /// When the message was accepted.
    pub created: Timestamp,
    /// When its lifetime ends.
    pub expires: Timestamp,
    /// For whom the message is sent; empty where there is only one.
    pub tenant: Box<str>,
    /// The kind of mail, such as `transactional` or `bulk`; empty where there is only one.
    pub stream: Box<str>,
    /// Octets of the body as stored, header included.
    pub size: u64,
    /// What the embedder wants to find again: a job, a campaign, a submission's user.
    pub metadata: BTreeMap<Box<str>, Box<[u8]>>,
}

impl Entry {
    /// A new entry: everything is due at once (or when RFC 4865 says so) and lives for `lifetime`.
    ///
    /// The lifetime of a message with HOLDFOR or HOLDUNTIL begins when it is released.
    pub fn new(id: SpoolId, envelope: Envelope, size: u64, lifetime: Duration, now: Timestamp) -> Entry {
        let due = envelope.options.hold_until.map_or(now, |until| until.max(now));
        let progress = vec![Progress::due(due); envelope.recipients.len()];
        Entry {
            id,
            envelope,
            progress,
            created: now,
            expires: due + lifetime,
            tenant: "".into(),
            stream: "".into(),
            size,
            metadata: BTreeMap::new(),
        }
    }

    /// Indices of the recipients that still have to be delivered.
    pub fn pending(&self) -> impl Iterator<Item = usize> {
        self.progress.iter().enumerate().filter(|(_, progress)| progress.is_pending()).map(|(index, _)| index)
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.pending().next().is_none()
    }

    /// The earliest moment at which a pending recipient is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.progress.iter().filter(|progress| progress.is_pending()).map(|progress| progress.due).min()
    }
}

//! The words between the scheduler and whoever delivers: [`Next`], [`Attempt`], [`AttemptResult`], [`Settlement`].
//!
//! Invariant: an [`Attempt`] is given back exactly once; it cannot be copied.
//!
//! Not here: what they do (settle).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{DeliveryStatus, Timestamp};

use super::lane::{Lane, LaneId};
use super::ready::Site;
use crate::{Change, Entry, SpoolId};

/// What to do now.
#[derive(Debug)]
pub enum Next {
    /// Find out where the messages of a lane go and say so with [`Scheduler::routed`](super::Scheduler::routed).
    Route(RouteQuery),
    /// Do this and say with [`Scheduler::record`](super::Scheduler::record) what came of it.
    Attempt(Attempt),
    /// Commit this once more, as if it came from [`Scheduler::record`](super::Scheduler::record).
    Settle(Box<Settlement>),
    /// Nothing before this moment, or before something else happens if there is none.
    Wait {
        /// When to ask again at the latest.
        until: Option<Timestamp>,
    },
}

/// A question: where do the messages of this lane go?
#[derive(Debug, Clone)]
pub struct RouteQuery {
    /// The name of the lane, for the answer.
    pub id: LaneId,
    /// The lane.
    pub lane: Arc<Lane>,
    /// The name of the route that an operator bound the lane to, if one did.
    pub bound_to: Option<Box<str>>,
}

/// What an attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Deliver the message to these recipients.
    Deliver,
    /// Nothing to deliver: their lifetime is over. Load the entry and give it back without statuses.
    Expire,
    /// Nothing to deliver: the sender is to be told of the delay. Load the entry and give it back without statuses.
    Warn,
    /// Nothing to deliver: an operator removes it. Load the entry and give it back without statuses.
    Cancel,
}

/// Work on one message: all of its recipients that wait in one lane.
///
/// It is given back with [`Scheduler::record`](super::Scheduler::record), whatever happens; one that is dropped
/// keeps its message from being attempted again before a restart.
#[derive(Debug)]
#[must_use = "give it back with Scheduler::record"]
pub struct Attempt {
    /// The message.
    pub id: SpoolId,
    /// Indices into the recipients of its envelope.
    pub recipients: Vec<usize>,
    /// What for.
    pub task: Task,
    /// The lane that it waited in.
    pub lane: Arc<Lane>,
    /// Where it goes to; only [`Task::Deliver`] has one.
    pub site: Option<Arc<Site>>,
    /// Its lifetime ends here: give up an attempt that takes longer.
    pub deadline: Timestamp,
    pub(super) unit: u32,
    pub(super) turn: u32,
    pub(super) lane_number: u32,
    pub(super) site_number: Option<u32>,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum AttemptResult {
    /// It was made, or there was nothing to deliver.
    Finished {
        /// The entry that was loaded for it.
        entry: Box<Entry>,
        /// One status for each of [`Attempt::recipients`], in order; none for a task other than [`Task::Deliver`].
        statuses: Vec<DeliveryStatus>,
    },
    /// It was not made, and that costs the message nothing.
    Postponed {
        /// Not before this moment.
        until: Timestamp,
        /// What else waits with it.
        scope: Scope,
        /// Why, for whoever asks.
        because: Box<str>,
    },
    /// The message cannot be read, or is no longer there: it is forgotten. The spool has put it aside.
    Lost,
}

/// What a postponement applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Everything that goes to the same site: a rate limit, a site that is down.
    Site,
    /// Everything in the same lane: a limit of the tenant.
    Lane,
    /// This message only: it could not be loaded at the moment.
    Message,
}

/// What became of a recipient, for whoever tells the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Index into the recipients of the envelope.
    pub recipient: usize,
    /// What happened.
    pub event: ReportEvent,
}

/// What happened to a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportEvent {
    /// Delivered; of interest with NOTIFY=SUCCESS.
    Delivered,
    /// Passed on to where no notifications come from; of interest with NOTIFY=SUCCESS.
    Relayed,
    /// Refused for good, or removed by an operator who wants the sender to know.
    Failed,
    /// The lifetime ended first.
    Expired,
    /// Late: the first warning.
    Delayed,
    /// Removed by an operator silently.
    Cancelled,
}

/// A change that has to be committed, with what happened.
///
/// Compose the notifications that `reports` ask for, commit them *together with* `change`, and say with
/// [`Scheduler::settled`](super::Scheduler::settled) how that went.
#[derive(Debug, Clone)]
#[must_use = "commit it and call Scheduler::settled"]
pub struct Settlement {
    /// The message.
    pub id: SpoolId,
    /// The `Update` or `Remove`.
    pub change: Change,
    /// The entry as it is now. The last status of each recipient is in its progress.
    pub entry: Arc<Entry>,
    /// What happened since the last settlement.
    pub reports: Vec<Report>,
}

/// What to do about what was recorded.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Commit this and call [`Scheduler::settled`](super::Scheduler::settled).
    Settle(Settlement),
    /// Commit this; nothing waits for it.
    Store(Change),
}

/// Why a message waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was never attempted and its turn comes now.
    Turn,
    /// The sender asked for a later delivery (RFC 4865), or the first attempt lies ahead.
    NotYet,
    /// The last attempt failed for the time being; the next one lies ahead.
    Retry,
    /// An operator suspended it; what was given as the reason.
    Suspended(Box<str>),
    /// Its lane waits; why.
    LanePostponed,
    /// Its site waits; why.
    SitePostponed(Box<str>),
    /// It is not known yet where it goes to.
    Routing,
    /// It is being attempted.
    InFlight,
    /// What came of an attempt is being committed.
    Settling,
}

impl Reason {
    /// Its word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Reason::Turn => "turn",
            Reason::NotYet => "not-yet",
            Reason::Retry => "retry",
            Reason::Suspended(_) => "suspended",
            Reason::LanePostponed => "lane-postponed",
            Reason::SitePostponed(_) => "site-postponed",
            Reason::Routing => "routing",
            Reason::InFlight => "in-flight",
            Reason::Settling => "settling",
        }
    }

    /// What was given as the reason, by the operator who suspended it or by the pace that postponed its site.
    pub fn because(&self) -> Option<&str> {
        match self {
            Reason::Suspended(because) | Reason::SitePostponed(because) => Some(because),
            _ => None,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why some recipients of a message wait, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The lane that they wait in.
    pub lane: Arc<Lane>,
    /// Indices into the recipients of the envelope.
    pub recipients: Vec<usize>,
    /// Why.
    pub reason: Reason,
    /// Until when, if a time is known.
    pub until: Option<Timestamp>,
    /// When their lifetime ends.
    pub expires: Timestamp,
}

/// There is no room for one more message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full: it holds {limit} messages")]
pub struct QueueFull {
    /// Messages that it may hold.
    pub limit: usize,
}

/// How long a failed commit of a settlement waits before it is tried again.
pub(super) const SETTLE_AGAIN: Duration = Duration::from_secs(5);

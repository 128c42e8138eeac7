//! A [`Lane`]: a path with its limits at hand, and the decision on it.
//!
//! Invariant: something is granted only if every limit of the lane agrees at that moment, and no suspension holds it.
//! Lanes that were told to wait for the same limit are served in the order in which they came, if they come back when
//! they were told to; a lane waits in one queue at most.
//!
//! Not here: which limits a path has (`shaper.rs`), the counts (`store.rs`, `cell.rs`).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::Timestamp;

use crate::adapt::{Adaptation, Gate, PathState};
use crate::fast::Fast;
use crate::limit::{Bound, Limit, Limits};
use crate::path::Path;
use crate::permit::{Admission, Because, Later, Pass, Permit};
use crate::rate::RetryAt;
use crate::store::{Ask, LIMITS_PER_PATH, Receipt, Refused, TokenStore};

/// How long to wait before asking again about a path whose policy is in error.
pub(crate) const BROKEN_POLICY_RETRY: Duration = Duration::from_secs(60);
/// A waiter for a connection is not told a time, since connections end when they like.
const CONNECTION_SPACING: Duration = Duration::from_millis(20);

/// A path with its limits at hand: asking by lane spares the look-up by path.
#[derive(Clone)]
pub struct Lane {
    /// Copied from the state, which a decision that passes does not touch.
    pub(crate) generation: u64,
    pub(crate) until: Timestamp,
    pub(crate) fast: Option<Fast>,
    pub(crate) state: Arc<LaneState>,
}

impl Lane {
    pub(crate) fn of(state: Arc<LaneState>) -> Lane {
        let in_order = state.store.counts_in_cells() && state.limits.len() <= LIMITS_PER_PATH;
        let fast = if in_order { Fast::of(&state.limits, state.adaptive.as_ref()) } else { None };
        Lane { generation: state.generation, until: state.until, fast, state }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.state.path
    }

    /// The limits on it that are used up by sending.
    pub fn limits(&self) -> &[Limit] {
        &self.state.limits
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.fmt(f)
    }
}

pub(crate) struct LaneState {
    pub(crate) id: u64,
    pub(crate) generation: u64,
    /// The next midnight, if the limits change then.
    pub(crate) until: Timestamp,
    /// Beyond a warm-up's cap messages wait instead of leaving by another source.
    pub(crate) overflow_waits: bool,
    pub(crate) warming: bool,
    pub(crate) path: Path,
    pub(crate) limits: Limits,
    pub(crate) messages_per_connection: Option<u32>,
    pub(crate) recipients_per_message: Option<u32>,
    pub(crate) store: Arc<dyn TokenStore>,
    pub(crate) ttl: Duration,
    pub(crate) adaptation: Arc<Adaptation>,
    pub(crate) adaptive: Option<Arc<PathState>>,
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("path", &self.path).finish_non_exhaustive()
    }
}

#[inline]
pub(crate) fn leave_queues(lane: &LaneState) {
    for limit in lane.limits.iter() {
        limit.cell.leave(lane.id);
    }
}

#[cold]
pub(crate) fn pass_slowly(lane: &mut Lane, bytes: u64, now: Timestamp) -> Result<Pass<'_>, Later> {
    decide(&lane.state, Ask::message(bytes), now).map(|receipt| Pass::slow(lane, receipt))
}

#[inline]
pub(crate) fn admission(lane: &Arc<LaneState>, ask: Ask, now: Timestamp) -> Admission {
    match decide(lane, ask, now) {
        Ok(receipt) => Admission::Granted(Permit::new(Arc::clone(lane), receipt)),
        Err(later) => Admission::Later(later),
    }
}

#[inline]
fn decide(lane: &LaneState, ask: Ask, now: Timestamp) -> Result<Receipt, Later> {
    if lane.limits.len() > LIMITS_PER_PATH || lane.adaptation.has_suspensions() {
        stopped(lane, now)?;
    }
    let queued = lane.limits.have_waiters();
    if queued {
        in_turn(lane, &ask, now)?;
    }
    let entered = match &lane.adaptive {
        None => None,
        Some(state) => {
            let entered = state.enter(&ask, now);
            Some(entered.map_err(|(gate, until)| Later { until, because: shown(gate) })?)
        }
    };
    match lane.store.take(&lane.limits, ask, lane.ttl, now) {
        Ok(receipt) => {
            if queued {
                leave_queues(lane);
            }
            Ok(receipt)
        }
        Err(refused) => {
            if let (Some(state), Some(entered)) = (&lane.adaptive, &entered) {
                state.take_back(entered);
            }
            Err(refuse(lane, refused, now))
        }
    }
}

/// A policy in error, or a suspension.
#[cold]
fn stopped(lane: &LaneState, now: Timestamp) -> Result<(), Later> {
    if lane.limits.len() > LIMITS_PER_PATH {
        let because = Because::TooManyLimits(lane.limits.len());
        return Err(Later { until: now + BROKEN_POLICY_RETRY, because });
    }
    match lane.adaptation.suspension(&lane.path, now) {
        None => Ok(()),
        Some(suspension) => {
            Err(Later { until: suspension.until, because: Because::Suspended(suspension.into()) })
        }
    }
}

/// Whether it is the lane's turn in every queue; else it lines up.
#[cold]
fn in_turn(lane: &LaneState, ask: &Ask, now: Timestamp) -> Result<(), Later> {
    for limit in lane.limits.iter() {
        if ask.cost(limit.kind) != 0
            && let Err(RetryAt(until)) = limit.cell.turn(lane.id, now)
        {
            return Err(wait_in_line(lane, limit, until, now));
        }
    }
    Ok(())
}

fn shown(gate: Gate) -> Because {
    match gate {
        Gate::Connections(most) => Because::ReceiverConnections(most),
        Gate::Pace => Because::ReceiverPace,
        Gate::Backoff => Because::BackOff,
    }
}

#[cold]
fn wait_in_line(lane: &LaneState, limit: &Limit, ready: Timestamp, now: Timestamp) -> Later {
    let until = limit.cell.enqueue(lane.id, ready, spacing(limit), now);
    Later { until, because: Because::Queue(Arc::new(limit.clone())) }
}

#[cold]
fn refuse(lane: &LaneState, refused: Refused, now: Timestamp) -> Later {
    let Some(limit) = refused.limit.and_then(|index| lane.limits.get(index)) else {
        return Later { until: refused.until, because: Because::Store };
    };
    // A lane waits in the queue of one limit only: the one that binds.
    for other in lane.limits.iter() {
        if other.key != limit.key {
            other.cell.leave(lane.id);
        }
    }
    let until = match limit.bound {
        // At midnight there is room for many at once, and not before.
        Bound::Daily { .. } => refused.until,
        Bound::Rate(_) | Bound::AtMost(_) => limit.cell.enqueue(lane.id, refused.until, spacing(limit), now),
    };
    Later { until, because: Because::Limit(Arc::new(limit.clone())) }
}

fn spacing(limit: &Limit) -> Duration {
    match &limit.bound {
        Bound::Rate(rate) => rate.spacing(),
        Bound::Daily { .. } | Bound::AtMost(_) => CONNECTION_SPACING,
    }
}

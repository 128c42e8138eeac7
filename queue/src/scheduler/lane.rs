//! Scheduled lanes: where messages wait until they are due, one lane for each tenant, stream, destination,
//! priority and route.
//!
//! Invariant: a lane knows when its earliest message is due; its heap may hold stale items, which are recognised
//! when they come up, never missing ones.
//!
//! Standards: RFC 6710 (priorities).
//!
//! Not here: who goes first among lanes (ready).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use postwright_core::{Host, Timestamp};

use super::policy::RetryPolicy;
use crate::Entry;

/// What messages that wait together have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// For whom.
    pub tenant: Arc<str>,
    /// Which kind of mail.
    pub stream: Arc<str>,
    /// Where to.
    pub host: Host,
    /// MT-PRIORITY of RFC 6710, -9 to 9; 0 without.
    pub priority: i8,
    /// Which of several routes to the destination, as [`RouteOf`] names it; empty where there is one.
    pub route: Arc<str>,
}

/// Tells messages apart that go to the same destination by different routes, such as by their senders: each route
/// has lanes of its own, so that one that stands still holds up no other.
///
/// It is asked when a message is admitted, and again after a restart; the answer is not stored.
#[derive(Clone)]
pub struct RouteOf(Arc<NameOf>);

/// The name of the route of an entry's recipients at a host.
type NameOf = dyn Fn(&Entry, &Host) -> Arc<str> + Send + Sync;

impl RouteOf {
    /// Names routes by a function of the entry and the destination; an empty name is as good as any other.
    pub fn new(name_of: impl Fn(&Entry, &Host) -> Arc<str> + Send + Sync + 'static) -> RouteOf {
        RouteOf(Arc::new(name_of))
    }

    pub(super) fn name(&self, entry: &Entry, host: &Host) -> Arc<str> {
        (self.0)(entry, host)
    }
}

impl Default for RouteOf {
    /// One route to each destination.
    fn default() -> RouteOf {
        RouteOf::new(|_, _| Arc::default())
    }
}

impl fmt::Debug for RouteOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouteOf")
    }
}

/// The name of a lane in questions and answers; it outlives the lane harmlessly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneId {
    pub(super) number: u32,
    pub(super) generation: u64,
}

/// Whether it is known where the messages of a lane go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Unknown,
    /// The question was put, or waits to be put.
    Asked,
    Known {
        site: u32,
        until: Timestamp,
    },
}

/// Where a lane is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Waits for its timer, or has nothing to wait for.
    Idle,
    /// Has due messages and waits for its route.
    Routing,
    /// Has due messages and waits its turn at its site.
    Ready,
}

pub(super) struct LaneState {
    pub(super) lane: Arc<Lane>,
    pub(super) generation: u64,
    pub(super) policy: Arc<RetryPolicy>,
    /// Messages waiting to be due, earliest first; the second number is that of the unit.
    pub(super) due: BinaryHeap<Reverse<(Timestamp, u32)>>,
    /// Units of this lane, wherever they are.
    pub(super) units: usize,
    pub(super) in_flight: usize,
    pub(super) route: Route,
    pub(super) place: Place,
    /// The timer that counts; older ones that ring are ignored.
    pub(super) timer: Option<Timestamp>,
    /// Nothing is attempted before: an order's suspension, or a postponement of this lane.
    pub(super) suspended_until: Option<Timestamp>,
    pub(super) postponed_until: Option<Timestamp>,
}

impl LaneState {
    pub(super) fn new(lane: Arc<Lane>, generation: u64, policy: Arc<RetryPolicy>) -> LaneState {
        LaneState {
            lane,
            generation,
            policy,
            due: BinaryHeap::new(),
            units: 0,
            in_flight: 0,
            route: Route::Unknown,
            place: Place::Idle,
            timer: None,
            suspended_until: None,
            postponed_until: None,
        }
    }

    /// Until when nothing of this lane may be attempted.
    pub(super) fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.suspended_until.max(self.postponed_until).filter(|until| *until > now)
    }

    /// What one message of this lane costs in virtual time: less for a heavier weight and a higher priority.
    pub(super) fn cost(&self) -> u64 {
        const UNIT: u64 = 1 << 32;
        let cost = UNIT / u64::from(self.policy.weight.clamp(1, 1000));
        // Two steps of priority count twice as much.
        let shift = u32::from(self.lane.priority.unsigned_abs().min(9)).div_ceil(2);
        if self.lane.priority >= 0 { (cost >> shift).max(1) } else { cost << shift }
    }
}

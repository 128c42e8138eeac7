//! What an operator sees: totals, lanes, sites, and why a message waits.
//!
//! Invariant: looking changes nothing. Totals cost nothing, a lane costs a look at its head (its oldest message: at
//! all of it).
//!
//! Not here: the trace of a message's attempts (its entry has it).

use std::cmp::Reverse;
use std::sync::Arc;

use postwright_core::Timestamp;

use super::Scheduler;
use super::attempt::{Reason, Waiting};
use super::lane::{Lane, LaneState, Place};
use super::policy::RetryPolicy;
use super::ready::Site;
use super::unit::{Flags, State, Unit};
use crate::SpoolId;

/// Counts over everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Messages in the scheduler.
    pub messages: usize,
    /// Messages, and slots reserved for more.
    pub reserved: usize,
    /// Pairs of a message and a destination.
    pub units: usize,
    /// Lanes that hold messages.
    pub lanes: usize,
    /// Deliveries handed out.
    pub in_flight: usize,
    /// Expiries, warnings and cancellations handed out.
    pub housekeeping: usize,
    /// Messages between an attempt and its commit.
    pub settling: usize,
}

/// A lane as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// The lane.
    pub lane: Arc<Lane>,
    /// Messages in it, those in flight included.
    pub messages: usize,
    /// Messages of it in flight.
    pub in_flight: usize,
    /// When its earliest waiting message is due.
    pub next_due: Option<Timestamp>,
    /// When its oldest waiting message was accepted.
    pub oldest: Option<Timestamp>,
    /// Until when it is suspended or postponed.
    pub blocked_until: Option<Timestamp>,
}

/// A site as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteView {
    /// The site.
    pub site: Arc<Site>,
    /// Deliveries in flight.
    pub in_flight: usize,
    /// Until when nothing is attempted, and why.
    pub paused: Option<(Timestamp, Box<str>)>,
}

impl Scheduler {
    /// Counts over everything.
    pub fn totals(&self) -> Totals {
        Totals {
            messages: self.by_id.len(),
            reserved: self.messages.load(std::sync::atomic::Ordering::Acquire),
            units: self.units.len(),
            lanes: self.lanes.len(),
            in_flight: self.in_flight,
            housekeeping: self.housekeeping,
            settling: self.open.len(),
        }
    }

    /// All lanes that hold messages, in order.
    pub fn lanes(&self, now: Timestamp) -> impl Iterator<Item = LaneView> {
        let view = move |number: &u32| self.lanes.get(*number).map(|lane| self.lane_view(*number, lane, now));
        self.lane_names.values().filter_map(view)
    }

    fn lane_view(&self, number: u32, lane: &LaneState, now: Timestamp) -> LaneView {
        let waits = |unit: &&Unit| unit.lane == number && unit.state == State::Waiting;
        let waiting = lane.due.iter().filter_map(|Reverse((at, unit))| {
            let unit = self.units.get(*unit).filter(waits)?;
            (unit.due == *at).then_some(unit)
        });
        let (next_due, oldest) = waiting.fold((None, None), |(due, oldest), unit| {
            (earlier(due, unit.due), earlier(oldest, unit.id.created()))
        });
        LaneView {
            lane: lane.lane.clone(),
            messages: lane.units,
            in_flight: lane.in_flight,
            next_due,
            oldest,
            blocked_until: lane.blocked_until(now),
        }
    }

    /// All sites that mail waits for or goes to.
    pub fn sites(&self) -> impl Iterator<Item = SiteView> {
        self.ready.sites().map(|site| SiteView {
            site: site.site.clone(),
            in_flight: site.in_flight,
            paused: site.paused_until.map(|until| (until, site.because.clone())),
        })
    }

    /// The policy by which a lane is retried.
    pub fn policy_of(&self, lane: &Lane) -> &RetryPolicy {
        self.config.policies.of(lane)
    }

    /// Why a message waits and until when, for each of its destinations; empty if it is not here.
    pub fn why(&self, id: SpoolId, now: Timestamp) -> Vec<Waiting> {
        let waiting = |number: u32| {
            let unit = self.units.get(number)?;
            let lane = self.lanes.get(unit.lane)?;
            let (reason, until) = self.reason(unit, lane, now);
            Some(Waiting {
                lane: lane.lane.clone(),
                recipients: unit.members.iter().collect(),
                reason,
                until,
                expires: Timestamp::from_secs(u64::from(unit.expires)),
            })
        };
        self.units_of(id).into_iter().filter_map(waiting).collect()
    }

    fn reason(&self, unit: &Unit, lane: &LaneState, now: Timestamp) -> (Reason, Option<Timestamp>) {
        match unit.state {
            State::InFlight => return (Reason::InFlight, None),
            State::Settling => return (Reason::Settling, None),
            State::Urgent => return (Reason::Turn, None),
            State::Waiting => {}
        }
        if unit.flags.has(Flags::HELD) && unit.due > now {
            let order = self.orders.hold(unit.id, &self.jobs, &lane.lane, now);
            return (
                Reason::Suspended(order.map(|order| order.reason.clone()).unwrap_or_default()),
                Some(unit.due),
            );
        }
        if let Some(order) = self.orders.suspension(&lane.lane, now) {
            return (Reason::Suspended(order.reason.clone()), Some(order.until.max(unit.due)));
        }
        if unit.due > now {
            let reason = if unit.flags.has(Flags::TRIED) { Reason::Retry } else { Reason::NotYet };
            return (reason, Some(unit.due));
        }
        if let Some(until) = lane.postponed_until.filter(|until| *until > now) {
            return (Reason::LanePostponed, Some(until));
        }
        if let super::Route::Known { site, .. } = lane.route
            && let Some(site) = self.ready.site(site)
            && let Some(until) = site.paused_until
        {
            return (Reason::SitePostponed(site.because.clone()), Some(until));
        }
        match lane.place {
            Place::Routing => (Reason::Routing, None),
            Place::Idle | Place::Ready => (Reason::Turn, None),
        }
    }
}

fn earlier(known: Option<Timestamp>, at: Timestamp) -> Option<Timestamp> {
    Some(known.map_or(at, |known| known.min(at)))
}

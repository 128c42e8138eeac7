//! Taking charge of messages and letting them go: units, lanes and the rings that tie them together.
//!
//! Invariant: a lane counts its units; a message counts as one slot from its reservation to its last unit.
//!
//! Standards: RFC 4865 (future release), RFC 6710 (priorities).
//!
//! Not here: when they are attempted (mod).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use postwright_core::{Host, Timestamp};

use super::lane::{Lane, LaneState, Place, Route};
use super::policy::second_of;
use super::unit::{Flags, Members, State, Unit};
use super::{Scheduler, Timer};
use crate::{Claim, Entry, SpoolId};

impl Scheduler {
    pub(super) fn insert(&mut self, claim: Claim, entry: &Entry, now: Timestamp, restored: bool) -> bool {
        if self.by_id.contains_key(&entry.id) {
            return false;
        }
        let mut by_host: BTreeMap<&Host, Vec<u32>> = BTreeMap::new();
        for index in entry.pending() {
            if let (Some(recipient), Ok(index)) = (entry.envelope.recipients.get(index), u32::try_from(index))
            {
                by_host.entry(recipient.mailbox.host()).or_default().push(index);
            }
        }
        let mut last = None;
        for (host, members) in by_host {
            let number = self.insert_unit(claim, entry, host, members, now, restored);
            last = Some(self.link(number, last));
        }
        let Some(first) = last else { return false };
        self.by_id.insert(entry.id, first);
        self.jobs.note(entry);
        for number in self.units_of(entry.id) {
            self.start(number, now);
        }
        true
    }

    /// Adds a unit to the ring of its message and returns it.
    fn link(&mut self, number: u32, ring: Option<u32>) -> u32 {
        let next = ring.and_then(|ring| self.units.get(ring)).map_or(number, |unit| unit.sibling);
        if let Some(unit) = self.units.get_mut(number) {
            unit.sibling = next;
        }
        if let Some(unit) = ring.and_then(|ring| self.units.get_mut(ring)) {
            unit.sibling = number;
        }
        number
    }

    fn insert_unit(
        &mut self,
        claim: Claim,
        entry: &Entry,
        host: &Host,
        members: Vec<u32>,
        now: Timestamp,
        restored: bool,
    ) -> u32 {
        let lane_number = self.lane_for(entry, host, now);
        let progress = || {
            let index = |member: &u32| usize::try_from(*member).ok();
            members.iter().filter_map(index).filter_map(|index| entry.progress.get(index))
        };
        let mut flags = Flags::default();
        flags.set(Flags::TRIED, progress().any(|progress| progress.attempts > 0));
        flags.set(Flags::UNTRIED, restored);
        let policy = self.lanes.get(lane_number).map(|lane| lane.policy.clone()).unwrap_or_default();
        let warn_at = policy.warn_after.map(|after| entry.created + after);
        flags.set(Flags::WARNED, warn_at.is_none() || progress().all(|progress| progress.warned));
        let mut due = progress().map(|progress| progress.due).min().unwrap_or(now);
        let mut expires = entry.expires;
        if restored {
            let soon = now + self.config.policies.longest_retry();
            let held = entry.envelope.options.hold_until.unwrap_or_default();
            due = if entry.expires <= now { now } else { due.min(soon.max(held)) };
            let longest = now.max(held) + self.config.policies.longest_lifetime();
            expires = expires.min(longest).max(soon);
        }
        self.turns = self.turns.wrapping_add(1);
        self.units.insert(Unit {
            turn: self.turns,
            id: entry.id,
            epoch: claim.epoch,
            due,
            members: Members::new(members),
            expires: second_of(expires),
            warn_at: second_of(warn_at.unwrap_or_default()),
            lane: lane_number,
            sibling: u32::MAX,
            state: State::Waiting,
            flags,
        })
    }

    /// The lane for a destination of an entry, made if it is new; it has one unit more.
    fn lane_for(&mut self, entry: &Entry, host: &Host, now: Timestamp) -> u32 {
        let priority = entry.envelope.options.priority.unwrap_or(0).clamp(-9, 9);
        let lane = Lane {
            tenant: (&*entry.tenant).into(),
            stream: (&*entry.stream).into(),
            host: host.clone(),
            priority,
            route: self.config.route_of.name(entry, host),
        };
        let number = match self.lane_names.get(&lane) {
            Some(number) => *number,
            None => {
                self.generations += 1;
                let policy = Arc::new(self.config.policies.of(&lane).clone());
                let lane = Arc::new(lane);
                let mut state = LaneState::new(lane.clone(), self.generations, policy);
                state.suspended_until = self.orders.suspension(&lane, now).map(|order| order.until);
                let number = self.lanes.insert(state);
                self.lane_names.insert(lane, number);
                number
            }
        };
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.units += 1;
        }
        number
    }

    /// A new unit begins to wait, unless an order says otherwise.
    fn start(&mut self, number: u32, now: Timestamp) {
        let Some(unit) = self.units.get_mut(number) else { return };
        let Some(lane) = self.lanes.get(unit.lane) else { return };
        let restored = unit.flags.has(Flags::UNTRIED);
        let cancelled = || self.orders.cancellation(unit.id, &self.jobs, &lane.lane, unit.id.created(), now);
        // What is accepted now came after the order.
        if let Some(bounce) = restored.then(cancelled).flatten() {
            unit.flags.set(Flags::CANCELLED, true);
            unit.flags.set(Flags::BOUNCED, bounce);
        } else if let Some(order) = self.orders.hold(unit.id, &self.jobs, &lane.lane, now) {
            unit.flags.set(Flags::HELD, true);
            unit.due = unit.due.max(order.until);
        }
        unit.flags.set(Flags::SWEPT, true);
        self.release(number, now);
    }

    /// The units of a message.
    pub(super) fn units_of(&self, id: SpoolId) -> Vec<u32> {
        let Some(first) = self.by_id.get(&id) else { return Vec::new() };
        let mut numbers = vec![*first];
        let mut next = self.units.get(*first).map(|unit| unit.sibling);
        while let Some(number) = next.filter(|number| number != first) {
            numbers.push(number);
            next = self.units.get(number).map(|unit| unit.sibling);
        }
        numbers
    }

    /// Forgets a unit, and its message with the last one.
    pub(super) fn remove_unit(&mut self, number: u32) {
        let Some(unit) = self.units.get(number) else { return };
        let (id, next, lane_number) = (unit.id, unit.sibling, unit.lane);
        if next == number {
            self.by_id.remove(&id);
            self.jobs.forget(id);
            self.messages.fetch_sub(1, Ordering::AcqRel);
        } else {
            for other in self.units_of(id) {
                if let Some(unit) = self.units.get_mut(other)
                    && unit.sibling == number
                {
                    unit.sibling = next;
                }
            }
            self.by_id.insert(id, next);
        }
        self.units.remove(number);
        if let Some(lane) = self.lanes.get_mut(lane_number) {
            lane.units -= 1;
        }
        self.drop_lane_if_unused(lane_number);
    }

    /// A lane without messages is forgotten, so that a domain that was written to once costs nothing for ever.
    pub(super) fn drop_lane_if_unused(&mut self, number: u32) {
        let unused = |lane: &LaneState| lane.units == 0 && lane.in_flight == 0 && lane.place == Place::Idle;
        if !self.lanes.get(number).is_some_and(unused) {
            return;
        }
        if let Some(lane) = self.lanes.remove(number) {
            self.lane_names.remove(&lane.lane);
            if let Some(at) = lane.timer {
                self.timers.remove(&(at, Timer::Lane(number)));
            }
            if let Route::Known { site, .. } = lane.route {
                self.ready.unroute(site);
            }
        }
    }
}

//! What an operator does: lasting orders (suspend, bind, cancel), taking them back, flushing.
//!
//! Invariant: an order that lasts is an effect to store first, and is given again from its control after a
//! restart.
//!
//! Not here: their form in the spool (orders).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use postwright_core::Timestamp;

use super::attempt::Effect;
use super::lane::Route;
use super::orders::{Order, OrderKind, Orders};
use super::policy::Selector;
use super::unit::{Flags, State};
use super::{Scheduler, Timer};
use crate::SpoolId;
use crate::codec::DecodeError;

impl Scheduler {
    /// Gives an order. It takes the place of an earlier one of the same kind and selector.
    ///
    /// A suspension of a whole lane holds what comes later too; a cancellation applies to what is queued now.
    pub fn give(&mut self, order: Order, now: Timestamp) -> Vec<Effect> {
        let store = order.to_change();
        self.put_in_force(order, now);
        vec![Effect::Store(store)]
    }

    /// Gives an order again that was stored as a control: before any message is restored, and on a shared spool now and then,
    /// since another node may have been told. Controls that are not orders, and orders that are in force, are left alone.
    ///
    /// # Errors
    /// If the control is an order that cannot be read; it has no effect.
    pub fn restore_order(
        &mut self,
        key: &str,
        value: &Bytes,
        now: Timestamp,
    ) -> Result<Vec<Effect>, DecodeError> {
        if self.orders.knows(key, value) {
            return Ok(Vec::new());
        }
        let Some(order) = Orders::read(key, value).transpose()? else { return Ok(Vec::new()) };
        if order.until <= now {
            return Ok(vec![Effect::Store(order.forget())]);
        }
        self.put_in_force(order, now);
        Ok(Vec::new())
    }

    /// Takes an order back by its [key](Order::key): what it held goes on.
    pub fn take_back(&mut self, key: &str, now: Timestamp) -> Vec<Effect> {
        let Some(order) = self.orders.take_back(key) else { return Vec::new() };
        self.lift(&order, now);
        vec![Effect::Store(order.forget())]
    }

    /// The orders in force.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.iter()
    }

    /// Makes everything that matches and waits for its retry due now. Suspensions stay. Returns how many units.
    pub fn flush(&mut self, selector: &Selector, now: Timestamp) -> usize {
        let numbers: Vec<u32> = self.lanes.iter().map(|(number, _)| number).collect();
        let mut flushed = 0;
        for number in numbers {
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            let waiting = std::mem::take(&mut lane.due);
            let name = lane.lane.clone();
            lane.postponed_until = None;
            let mut due = BinaryHeap::with_capacity(waiting.len());
            for Reverse((at, unit_number)) in waiting {
                let valid = |unit: &&mut super::Unit| {
                    unit.lane == number && unit.state == State::Waiting && unit.due == at
                };
                let Some(unit) = self.units.get_mut(unit_number).filter(valid) else { continue };
                let held = unit.flags.has(Flags::HELD);
                if at > now && !held && selector.matches_message(unit.id, &self.jobs, &name) {
                    unit.due = now;
                    flushed += 1;
                }
                due.push(Reverse((unit.due, unit_number)));
            }
            if let Some(lane) = self.lanes.get_mut(number) {
                lane.due = due;
            }
            self.activate(number, now);
        }
        flushed
    }

    /// Lanes that were postponed ask again at once: what stood in their way is gone. Retries wait as before.
    pub fn end_postponements(&mut self, now: Timestamp) {
        let postponed = self.lanes.iter().filter(|(_, lane)| lane.postponed_until.is_some());
        let numbers: Vec<u32> = postponed.map(|(number, _)| number).collect();
        for number in numbers {
            if let Some(lane) = self.lanes.get_mut(number) {
                lane.postponed_until = None;
            }
            self.activate(number, now);
        }
    }

    fn put_in_force(&mut self, order: Order, now: Timestamp) {
        let selector = order.selector.clone();
        let kind = order.kind.clone();
        let (until, given) = (order.until, order.given);
        self.orders.give(order);
        match kind {
            OrderKind::Suspend if selector.is_of_messages() => self.hold(&selector, until),
            OrderKind::Suspend => self.suspend_again(now),
            OrderKind::Bind(_) => self.ask_again(&selector, now),
            OrderKind::Cancel { bounce } => self.cancel(&selector, bounce, given, now),
        }
    }

    /// What an order held, goes on.
    fn lift(&mut self, order: &Order, now: Timestamp) {
        match &order.kind {
            OrderKind::Suspend if order.selector.is_of_messages() => {
                for number in self.chosen(&order.selector) {
                    self.unhold(number, now);
                }
            }
            OrderKind::Suspend => self.suspend_again(now),
            OrderKind::Bind(_) => self.ask_again(&order.selector, now),
            OrderKind::Cancel { .. } => {}
        }
    }

    /// Drops the orders that have ended. Their controls are dropped at the next start.
    pub(super) fn end_orders(&mut self, now: Timestamp) {
        if self.orders.next_end().is_none_or(|end| end > now) {
            return;
        }
        for order in self.orders.ended(now) {
            self.lift(&order, now);
        }
    }

    /// The units of the message, or of the job, that a selector names.
    fn chosen(&self, selector: &Selector) -> Vec<u32> {
        let ids: Vec<SpoolId> = match (selector.message, &selector.job) {
            (Some(id), _) => vec![id],
            (None, Some(job)) => self.jobs.of(job).collect(),
            (None, None) => Vec::new(),
        };
        let matches = |number: &u32| {
            let lane = self.units.get(*number).and_then(|unit| Some((unit.id, self.lanes.get(unit.lane)?)));
            lane.is_some_and(|(id, lane)| selector.matches_message(id, &self.jobs, &lane.lane))
        };
        ids.into_iter().flat_map(|id| self.units_of(id)).filter(matches).collect()
    }

    fn hold(&mut self, selector: &Selector, until: Timestamp) {
        for number in self.chosen(selector) {
            let Some(unit) = self.units.get_mut(number) else { continue };
            let Some(lane) = self.lanes.get_mut(unit.lane) else { continue };
            unit.flags.set(Flags::HELD, true);
            unit.due = unit.due.max(until);
            if unit.state == State::Waiting {
                lane.due.push(Reverse((unit.due, number)));
            }
        }
    }

    fn unhold(&mut self, number: u32, now: Timestamp) {
        let Some(unit) = self.units.get_mut(number).filter(|unit| unit.flags.has(Flags::HELD)) else {
            return;
        };
        unit.flags.set(Flags::HELD, false);
        unit.due = now;
        if unit.state == State::Waiting {
            self.release(number, now);
        }
    }

    /// Works out anew what is suspended.
    fn suspend_again(&mut self, now: Timestamp) {
        let numbers: Vec<u32> = self.lanes.iter().map(|(number, _)| number).collect();
        for number in numbers {
            if let Some(lane) = self.lanes.get_mut(number) {
                lane.suspended_until = self.orders.suspension(&lane.lane, now).map(|order| order.until);
            }
            self.activate(number, now);
        }
    }

    /// Lanes that match forget their route when they next have something to send.
    fn ask_again(&mut self, selector: &Selector, now: Timestamp) {
        let matching = |(number, lane): (u32, &super::LaneState)| {
            (selector.matches_lane(&lane.lane) && matches!(lane.route, Route::Known { .. })).then_some(number)
        };
        let numbers: Vec<u32> = self.lanes.iter().filter_map(matching).collect();
        for number in numbers {
            if let Some(lane) = self.lanes.get_mut(number)
                && let Route::Known { until, .. } = &mut lane.route
            {
                *until = (*until).min(now);
            }
        }
    }

    fn cancel(&mut self, selector: &Selector, bounce: bool, given: Timestamp, now: Timestamp) {
        let matching = |(number, unit): (u32, &super::Unit)| {
            let lane = self.lanes.get(unit.lane)?;
            let old = unit.id.created() <= given;
            (old && selector.matches_message(unit.id, &self.jobs, &lane.lane)).then_some(number)
        };
        // A message or a job is found without a look at all the others.
        let numbers: Vec<u32> = if selector.is_of_messages() {
            let unit = |number: u32| self.units.get(number).map(|unit| (number, unit));
            self.chosen(selector).into_iter().filter_map(unit).filter_map(matching).collect()
        } else {
            self.units.iter().filter_map(matching).collect()
        };
        for number in numbers {
            let Some(unit) = self.units.get_mut(number) else { continue };
            unit.flags.set(Flags::CANCELLED, true);
            unit.flags.set(Flags::BOUNCED, bounce);
            if unit.state == State::Waiting {
                self.release(number, now);
            }
        }
    }

    /// Ends the pause of a site at once: whoever paused it knows better now.
    pub fn resume_site(&mut self, pool: &str, name: &str) {
        let found = self.ready.find(pool, name);
        let Some((number, until)) = found else { return };
        if let Some(until) = until {
            self.timers.remove(&(until, Timer::Site(number)));
        }
        self.ready.pause(number, None, "");
    }
}

//! The short way to a decision: [`Fast`], what one more message on a lane costs, laid out side by side.
//!
//! Invariant: it grants only what the long way (`Shaper::admit`) would grant at that moment, with the same words left
//! behind, and refuses nothing by itself: whatever is out of the ordinary (a limit is reached, somebody waits in
//! line, a receiver is being adapted to, a daily cap applies) is sent the long way.
//!
//! Why it exists: of what the long way does, most is finding out that nothing is the matter. Here the five or so
//! limits of a path are one array of numbers, taken under one latch, without a call, an allocation or a copy.
//!
//! Not here: reasons (`shaper.rs`), counts that are not in this process's cells.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postwright_core::Timestamp;

use crate::adapt::PathState;
use crate::cell::Cell;
use crate::latch::Latch;
use crate::limit::{Count, Kind, Limits};
use crate::rate::{Meter, Tat, pass};
use crate::store::{Ask, LIMITS_PER_PATH, Receipt};

/// The rates of a lane that a message uses up.
#[derive(Clone)]
pub(crate) struct Fast {
    latch: Arc<Latch>,
    /// What is learnt of the receiver, if anything is.
    receiver: Option<Arc<PathState>>,
    /// Those that count messages, then those that count octets.
    rates: Box<[FastRate]>,
    by_messages: usize,
    /// Of the rates that count octets, in their order.
    meters: Box<[Meter]>,
    /// The rates' places among the limits.
    places: Box<[usize]>,
}

/// Two to a cache line: a decision on a lane that was not used for a while waits for memory more than for anything.
#[derive(Clone)]
struct FastRate {
    cell: Arc<Cell>,
    /// What one message takes.
    ticks: u64,
    /// How early it may come.
    tolerance: u64,
    /// The word after the last grant.
    mark: u64,
}

impl FastRate {
    #[inline]
    fn look(&mut self, ticks: u64, tolerance: u64, here: u64) -> bool {
        let seen = self.cell.word.load(Ordering::Relaxed);
        let passed = pass(seen, ticks, tolerance, here);
        self.mark = passed.unwrap_or(seen);
        passed.is_ok() & !self.cell.has_waiters()
    }
}

impl Fast {
    /// For these limits, if a message needs nothing but rates under one latch.
    pub(crate) fn of(limits: &Limits, receiver: Option<&Arc<PathState>>) -> Option<Fast> {
        let (mut rates, mut places, mut meters) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_messages = 0;
        for kind in [Kind::Messages, Kind::Bytes] {
            // A message on an open connection does not touch the limits of connections.
            for (place, counter) in limits.counters.iter().enumerate().filter(|(_, c)| c.kind == kind) {
                let Count::Rate(meter) = counter.count else { return None };
                let (ticks, cell) = (meter.ticks(1), Arc::clone(&counter.cell));
                rates.push(FastRate { cell, ticks, tolerance: meter.tolerance(ticks), mark: 0 });
                places.push(place);
                if kind == Kind::Bytes { meters.push(meter) } else { by_messages += 1 }
            }
        }
        let latch = rates.first().map(|rate| Arc::clone(rate.cell.latch()))?;
        let one_latch = rates.iter().all(|rate| Arc::ptr_eq(rate.cell.latch(), &latch));
        let (receiver, rates) = (receiver.cloned(), rates.into());
        one_latch.then(|| Fast {
            latch,
            receiver,
            rates,
            by_messages,
            meters: meters.into(),
            places: places.into(),
        })
    }

    /// Whether a message of so many octets went through; if not, ask the long way.
    #[inline]
    pub(crate) fn pass(&mut self, bytes: u64, now: Timestamp) -> bool {
        if self.receiver.as_ref().is_some_and(|receiver| receiver.is_gated()) {
            return false;
        }
        let here = Tat::at(now).ticks();
        let _held = self.latch.hold();
        let mut fine = true;
        let (by_messages, by_bytes) = self.rates.split_at_mut(self.by_messages);
        for rate in by_messages {
            fine &= rate.look(rate.ticks, rate.tolerance, here);
        }
        // A message without octets uses up none; that is rare enough for the long way.
        fine &= bytes != 0 || by_bytes.is_empty();
        for (rate, meter) in by_bytes.iter_mut().zip(&self.meters) {
            let ticks = meter.ticks(bytes);
            fine &= rate.look(ticks, meter.tolerance(ticks), here);
        }
        if fine {
            for rate in &self.rates {
                rate.cell.put(rate.mark);
            }
        }
        fine
    }

    /// What the last grant took.
    pub(crate) fn receipt(&self, bytes: u64) -> Receipt {
        let mut marks = [0; LIMITS_PER_PATH];
        for (rate, place) in self.rates.iter().zip(&self.places) {
            if let Some(mark) = marks.get_mut(*place) {
                *mark = rate.mark;
            }
        }
        Receipt { ask: Ask::message(bytes), lease: 0, lease_until: Timestamp::default(), marks }
    }
}

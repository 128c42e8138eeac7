//! Where one limit is counted: [`Cell`], one atomic word for what is used up, a locked part for leases and queues.
//!
//! Invariant: the word of a rate is an arrival time that never goes back except by an exact refund; the word of a
//! daily cap is (day, count) and the count never exceeds the cap; leases never exceed the bound while none has
//! outlived its time. The word of a rate or a daily count changes only under the cell's latch.
//!
//! Why a refund is all or nothing: giving back an item in the middle of a busy stretch would let another one in
//! later, next to those that have already gone, and so exceed the limit in some window. If nothing was let
//! through since, taking the arrival time back is exact; otherwise the place stays used.
//!
//! Not here: several limits at once (`memory.rs`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Timestamp;

use crate::latch::Latch;
use crate::limit::Count;
use crate::path::Key;
use crate::rate::{RetryAt, Tat, pass};
use crate::{Day, Zone};

/// A daily count that has used up what was set aside asks again after this long.
const CHECKPOINT_POLL: Duration = Duration::from_secs(1);

/// The count of one limit.
///
/// In the order of writing, so that what a decision reads lies in one cache line.
#[derive(Debug)]
#[repr(C)]
pub struct Cell {
    /// An arrival time, or a day and its count, or the number of leases: by the kind of the bound.
    pub(crate) word: AtomicU64,
    /// A daily count must not exceed this before the next checkpoint: (day, count).
    ceiling: AtomicU64,
    /// How many wait in `cold.queue`; read without the lock.
    waiting: AtomicU32,
    daily: bool,
    latch: Arc<Latch>,
    key: Key,
    cold: Mutex<Cold>,
}

#[derive(Debug, Default)]
struct Cold {
    leases: Vec<Lease>,
    queue: VecDeque<Waiter>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: u64,
    until: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    lane: u64,
    /// When it was told to come back.
    until: Timestamp,
    /// When its place is given up.
    patience: Timestamp,
}

impl Cell {
    /// An unused count with a latch of its own.
    pub fn new(key: Key) -> Cell {
        Cell::under(Arc::new(Latch::new(0)), key)
    }

    /// An unused count that is changed under a latch.
    pub(crate) fn under(latch: Arc<Latch>, key: Key) -> Cell {
        let daily = key.as_str().contains("|daily");
        Cell {
            key,
            latch,
            word: AtomicU64::new(0),
            ceiling: AtomicU64::new(u64::MAX),
            daily,
            waiting: AtomicU32::new(0),
            cold: Mutex::default(),
        }
    }

    /// Its name.
    pub fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn move_under(&mut self, latch: Arc<Latch>) {
        self.latch = latch;
    }

    /// Held by whoever changes the word of a rate or of a daily count.
    pub(crate) fn latch(&self) -> &Arc<Latch> {
        &self.latch
    }

    /// Whether lanes wait in line.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Acquire) != 0
    }

    fn cold(&self) -> MutexGuard<'_, Cold> {
        // Nothing in this file panics between two changes that belong together.
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from this arrival time on.
    #[cfg(feature = "redis")]
    pub(crate) fn start_at(&self, tat: Tat) {
        self.word.store(tat.ticks(), Ordering::Release);
    }

    /// The word that this would leave behind if it may go. Looks only; the latch is held from here to the store.
    #[inline]
    pub(crate) fn look(&self, bound: &Count, cost: u64, now: Timestamp) -> Result<u64, RetryAt> {
        let seen = self.word.load(Ordering::Relaxed);
        match bound {
            Count::Rate(meter) => {
                let ticks = meter.ticks(cost);
                pass(seen, ticks, meter.tolerance(ticks), Tat::at(now).ticks()).map_err(retry)
            }
            Count::Daily { cap, zone } => self.look_daily(seen, *cap, *zone, cost, now),
            Count::Leases(most) => self.check_lease(*most, now).map(|()| seen),
        }
    }

    fn look_daily(&self, seen: u64, cap: u32, zone: Zone, cost: u64, now: Timestamp) -> Result<u64, RetryAt> {
        let next = daily(seen, cap, zone, cost, now)?;
        if next <= self.ceiling.load(Ordering::Acquire) {
            return Ok(next);
        }
        let day = next & !u64::from(u32::MAX);
        if day > seen {
            // The next checkpoint must know that a new day has begun.
            self.word.store(day, Ordering::Release);
        }
        Err(RetryAt(now + CHECKPOINT_POLL))
    }

    /// Lets through what was looked at; the latch is held.
    #[inline]
    pub(crate) fn put(&self, word: u64) {
        self.word.store(word, Ordering::Release);
    }

    /// Takes the last item back; `false` if it was not the last any more. The latch is held.
    pub(crate) fn untake_rate(&self, ticks: u64, receipt: u64) -> bool {
        let before = receipt.saturating_sub(ticks);
        self.word.compare_exchange(receipt, before, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes a count back within its day; exact whatever came since. The latch is held.
    pub(crate) fn untake_daily(&self, cost: u64, receipt: u64) -> bool {
        let day = receipt >> 32;
        let change = |seen: u64| {
            let left = (seen & u64::from(u32::MAX)).checked_sub(cost)?;
            (seen >> 32 == day).then_some((day << 32) | left)
        };
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// How many leases are held, expired ones included.
    pub fn leases(&self) -> usize {
        self.cold().leases.len()
    }

    /// What a daily cap has counted on a day.
    pub fn counted(&self, day: Day) -> u32 {
        let word = self.word.load(Ordering::Acquire);
        if word >> 32 == u64::from(day.0) { low(word) } else { 0 }
    }

    pub(crate) fn check_lease(&self, most: u32, now: Timestamp) -> Result<(), RetryAt> {
        if self.word.load(Ordering::Acquire) < u64::from(most) {
            return Ok(());
        }
        let mut cold = self.cold();
        self.drop_expired(&mut cold, now);
        match cold.leases.iter().map(|lease| lease.until).min() {
            Some(first) if cold.leases.len() >= most as usize => Err(RetryAt(first)),
            None if most == 0 => Err(RetryAt(now + Duration::from_secs(3600))),
            _ => Ok(()),
        }
    }

    /// A lease more; that there is room for it was looked up under the latch.
    pub(crate) fn push_lease(&self, id: u64, until: Timestamp) {
        let mut cold = self.cold();
        cold.leases.push(Lease { id, until });
        self.word.store(cold.leases.len() as u64, Ordering::Release);
    }

    pub(crate) fn prolong_lease(&self, id: u64, until: Timestamp) -> bool {
        let mut cold = self.cold();
        let found = cold.leases.iter_mut().find(|lease| lease.id == id);
        found.map(|lease| lease.until = lease.until.max(until)).is_some()
    }

    pub(crate) fn end_lease(&self, id: u64) -> bool {
        let mut cold = self.cold();
        let place = cold.leases.iter().position(|lease| lease.id == id);
        if let Some(place) = place {
            cold.leases.swap_remove(place);
            self.word.store(cold.leases.len() as u64, Ordering::Release);
        }
        place.is_some()
    }

    fn drop_expired(&self, cold: &mut Cold, now: Timestamp) {
        cold.leases.retain(|lease| lease.until > now);
        self.word.store(cold.leases.len() as u64, Ordering::Release);
    }

    /// Whose turn it is: `Err` with the moment to come back if somebody else is first in the queue.
    #[inline]
    pub(crate) fn turn(&self, lane: u64, now: Timestamp) -> Result<(), RetryAt> {
        if self.has_waiters() { self.queued_turn(lane, now) } else { Ok(()) }
    }

    #[cold]
    fn queued_turn(&self, lane: u64, now: Timestamp) -> Result<(), RetryAt> {
        let mut cold = self.cold();
        while cold.queue.front().is_some_and(|first| first.patience <= now && first.lane != lane) {
            cold.queue.pop_front();
        }
        self.note_waiting(&cold);
        match cold.queue.front() {
            Some(first) if first.lane != lane => {
                Err(RetryAt(first.until.max(now + Duration::from_millis(1))))
            }
            _ => Ok(()),
        }
    }

    /// Puts a lane in the queue, or leaves it where it is; says when it should come back.
    pub(crate) fn enqueue(
        &self,
        lane: u64,
        ready: Timestamp,
        spacing: Duration,
        now: Timestamp,
    ) -> Timestamp {
        // Long enough for the caller's timer to be late, short enough that a lane which lost interest costs little.
        let grace = (spacing * 8).clamp(Duration::from_millis(50), Duration::from_secs(1));
        let mut cold = self.cold();
        cold.queue.retain(|waiter| waiter.lane == lane || waiter.patience > now);
        let place = cold.queue.iter().position(|waiter| waiter.lane == lane);
        let ahead = u32::try_from(place.unwrap_or(cold.queue.len())).unwrap_or(u32::MAX);
        let until = ready + spacing.saturating_mul(ahead);
        let waiter = Waiter { lane, until, patience: until + grace };
        match place.and_then(|place| cold.queue.get_mut(place)) {
            Some(found) => *found = waiter,
            None => cold.queue.push_back(waiter),
        }
        self.note_waiting(&cold);
        until
    }

    /// Takes a lane out of the queue.
    #[inline]
    pub(crate) fn leave(&self, lane: u64) {
        if self.has_waiters() {
            let mut cold = self.cold();
            cold.queue.retain(|waiter| waiter.lane != lane);
            self.note_waiting(&cold);
        }
    }

    fn note_waiting(&self, cold: &Cold) {
        self.waiting.store(u32::try_from(cold.queue.len()).unwrap_or(u32::MAX), Ordering::Release);
    }

    /// Whether the cell counts calendar days.
    pub(crate) fn is_daily(&self) -> bool {
        self.daily
    }

    /// Counts no further than the latest checkpoint until there is a new one.
    pub(crate) fn keep_to_checkpoints(&self) {
        let word = self.word.load(Ordering::Acquire);
        let _ = self.ceiling.compare_exchange(u64::MAX, word, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn raise_ceiling(&self, ceiling: u64) {
        self.ceiling.store(ceiling, Ordering::Release);
    }

    /// What a successor should start from, daily counts raised by `ahead`; `None` if that is nothing.
    pub(crate) fn saved_word(&self, ahead: u32) -> Option<u64> {
        let word = self.word.load(Ordering::Acquire);
        match self.daily {
            true => Some((word & !u64::from(u32::MAX)) | u64::from(low(word).saturating_add(ahead))),
            // Leases end with the process that held them.
            false if self.key.as_str().starts_with("concurrency|") || word == 0 => None,
            false => Some(word),
        }
    }

    /// Whether forgetting the cell would change nothing: nobody waits, nothing is leased, and the word lies in
    /// the past, be it an arrival time or a day.
    pub(crate) fn is_idle(&self, now: Timestamp) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let yesterday = Zone::UTC.day(now).0.saturating_sub(1);
        let day = word >> 32;
        let cold = self.cold();
        let past = if self.daily { day < u64::from(yesterday) } else { word <= Tat::at(now).ticks() };
        cold.leases.is_empty() && cold.queue.is_empty() && past
    }
}

fn retry(earliest: u64) -> RetryAt {
    RetryAt(Tat::from_ticks(earliest).ceil())
}

fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// The word after counting, or when to ask again.
fn daily(word: u64, cap: u32, zone: Zone, cost: u64, now: Timestamp) -> Result<u64, RetryAt> {
    let (stored, today) = (word >> 32, u64::from(zone.day(now).0));
    // A `now` that another thread read a moment before midnight counts for the new day.
    let (day, count) = if stored >= today { (stored, u64::from(low(word))) } else { (today, 0) };
    let next = count.saturating_add(cost);
    if next > u64::from(cap) {
        let day = Day(u32::try_from(day).unwrap_or(u32::MAX));
        return Err(RetryAt(zone.start(day.plus(1))));
    }
    Ok((day << 32) | next)
}

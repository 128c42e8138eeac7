//! Counts in memory: [`MemoryTokenStore`], for one process.
//!
//! Invariant: all or nothing. A decision looks at every limit of its path and writes only if all agree; from the
//! first look to the last word it holds the latches of all of them, so nothing comes in between.
//!
//! Limits that have something in common (the source, the site, ...) share the latch of that, their home: so a
//! decision takes one latch and different homes never meet. Where nothing is common to all limits, as with a limit
//! for everything, one latch serves all: they would meet at that limit's word anyway.
//!
//! On the path of a decision there is no look-up and no allocation: the limits of a path hold their cells.
//!
//! Not here: keeping counts over a restart (`snapshot.rs`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Timestamp;

use crate::cell::Cell;
use crate::latch::Latch;
use crate::limit::{Bound, Count, Limits};
use crate::path::Key;
use crate::rate::RetryAt;
use crate::store::{Ask, LIMITS_PER_PATH, Receipt, Refused, TokenStore};

const SHARDS: usize = 64;
/// A concurrency limit is asked again after at most this long: a lease may end early at any time.
const LEASE_POLL: Duration = Duration::from_millis(100);

/// Counts in memory.
#[derive(Debug)]
pub struct MemoryTokenStore {
    shards: Vec<Mutex<HashMap<Key, Arc<Cell>>>>,
    latches: Vec<Arc<Latch>>,
    hasher: RandomState,
    leases: AtomicU64,
    crashed: Option<Timestamp>,
    /// Daily caps keep to what was written down.
    checkpoints: AtomicBool,
}

impl Default for MemoryTokenStore {
    fn default() -> Self {
        MemoryTokenStore::new()
    }
}

impl MemoryTokenStore {
    /// An empty store: nothing was sent yet.
    pub fn new() -> MemoryTokenStore {
        MemoryTokenStore {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            latches: (0..SHARDS).map(|number| Arc::new(Latch::new(number))).collect(),
            hasher: RandomState::new(),
            leases: AtomicU64::new(1),
            crashed: None,
            checkpoints: AtomicBool::new(false),
        }
    }

    /// A store for a process whose predecessor died, at `now` or before, without leaving its counts.
    ///
    /// Every rate starts as if its burst had just been used: what the predecessor may have sent in its last
    /// moments is within the limit together with what we send. Daily caps need a snapshot.
    pub fn after_crash(now: Timestamp) -> MemoryTokenStore {
        MemoryTokenStore { crashed: Some(now), ..MemoryTokenStore::new() }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Cell>>> {
        let place = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // A map is whole after every call; a panic elsewhere cannot break it.
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latch(&self, home: u64) -> Arc<Latch> {
        let place = usize::try_from(home % SHARDS as u64).unwrap_or(0);
        self.latches.get(place).map_or_else(|| Arc::new(Latch::new(SHARDS)), Arc::clone)
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.each_shard().map(|shard| shard.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        self.each_shard().flat_map(|shard| shard.values().cloned().collect::<Vec<_>>()).collect()
    }

    pub(crate) fn keep_to_checkpoints(&self) {
        self.checkpoints.store(true, Ordering::Release);
        for cell in self.cells() {
            cell.keep_to_checkpoints();
        }
    }

    pub(crate) fn put_word(&self, key: &Key, word: u64) {
        // Whoever comes to count there is told the home; until then any latch will do.
        let cell = Arc::new(Cell::under(self.latch(self.hasher.hash_one(key)), key.clone()));
        cell.word.store(word, Ordering::Release);
        self.shard(key).insert(key.clone(), cell);
    }

    fn each_shard(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<Key, Arc<Cell>>>> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes from all limits or from none: looks at every one of them, and writes only if all agree.
#[inline]
pub(crate) fn take_all(
    limits: &Limits,
    ask: Ask,
    lease: u64,
    ttl: Duration,
    now: Timestamp,
) -> Result<Receipt, Refused> {
    let mut receipt = Receipt { ask, lease, lease_until: now + ttl, marks: [0; LIMITS_PER_PATH] };
    let _held = limits.latches.hold();
    for (counter, mark) in limits.counters.iter().zip(&mut receipt.marks) {
        let cost = ask.cost(counter.kind);
        if cost != 0 {
            match counter.cell.look(&counter.count, cost, now) {
                Ok(word) => *mark = word,
                Err(_) => return Err(refusal(limits, &ask, now)),
            }
        }
    }
    for (counter, mark) in limits.counters.iter().zip(&mut receipt.marks) {
        if ask.cost(counter.kind) == 0 {
            continue;
        }
        match counter.count {
            Count::Rate(_) | Count::Daily { .. } => counter.cell.put(*mark),
            Count::Leases(_) => {
                // There was room a moment ago, and whoever takes room holds the latch.
                counter.cell.push_lease(lease, receipt.lease_until);
                *mark = lease;
            }
        }
    }
    Ok(receipt)
}

/// Of the limits that refuse, the one with the latest moment.
#[cold]
fn refusal(limits: &Limits, ask: &Ask, now: Timestamp) -> Refused {
    let mut worst = Refused { limit: None, until: now };
    for (index, counter) in limits.counters.iter().enumerate() {
        let cost = ask.cost(counter.kind);
        if cost == 0 {
            continue;
        }
        if let Err(RetryAt(mut until)) = counter.cell.look(&counter.count, cost, now) {
            if matches!(counter.count, Count::Leases(_)) {
                until = until.min(now + LEASE_POLL);
            }
            if worst.limit.is_none() || until > worst.until {
                worst = Refused { limit: Some(index), until };
            }
        }
    }
    worst
}

/// Ends leases, and with `refund` gives back tokens where that is exact.
pub(crate) fn give_back(limits: &Limits, receipt: &Receipt, refund: bool) {
    let _held = limits.latches.hold();
    for (limit, mark) in limits.iter().zip(&receipt.marks) {
        let cost = receipt.ask.cost(limit.kind);
        if cost == 0 {
            continue;
        }
        match &limit.bound {
            Bound::AtMost(_) => {
                limit.cell.end_lease(*mark);
            }
            Bound::Rate(rate) if refund => {
                limit.cell.untake_rate(rate.ticks(cost), *mark);
            }
            Bound::Daily { .. } if refund => {
                limit.cell.untake_daily(cost, *mark);
            }
            Bound::Rate(_) | Bound::Daily { .. } => {}
        }
    }
}

impl TokenStore for MemoryTokenStore {
    fn cell(&self, key: &Key, home: u64, bound: &Bound) -> Arc<Cell> {
        let mut shard = self.shard(key);
        if let Some(found) = shard.get_mut(key) {
            if let Some(alone) = Arc::get_mut(found) {
                // Nobody counts here at the moment: it may move to where it is wanted now.
                alone.move_under(self.latch(home));
            }
            return Arc::clone(found);
        }
        let cell = Arc::new(Cell::under(self.latch(home), key.clone()));
        if let (Some(crashed), Bound::Rate(rate)) = (self.crashed, bound) {
            cell.word.store(rate.spent_at(crashed).ticks(), Ordering::Release);
        }
        if cell.is_daily() && self.checkpoints.load(Ordering::Acquire) {
            cell.keep_to_checkpoints();
        }
        shard.insert(key.clone(), Arc::clone(&cell));
        cell
    }

    fn counts_in_cells(&self) -> bool {
        true
    }

    fn take(&self, limits: &Limits, ask: Ask, ttl: Duration, now: Timestamp) -> Result<Receipt, Refused> {
        // Only a connection needs a name for its lease; a message should not touch a line that all threads share.
        let lease = if !ask.connection { 0 } else { self.leases.fetch_add(1, Ordering::Relaxed) };
        take_all(limits, ask, lease, ttl, now)
    }

    fn lease(&self, limits: &Limits, receipt: &mut Receipt, ttl: Duration, now: Timestamp) -> bool {
        let until = now + ttl;
        let mut all = true;
        for limit in limits.iter() {
            if matches!(limit.bound, Bound::AtMost(_)) && receipt.ask.cost(limit.kind) != 0 {
                all &= limit.cell.prolong_lease(receipt.lease, until);
            }
        }
        if all {
            receipt.lease_until = until;
        }
        all
    }

    fn release(&self, limits: &Limits, receipt: &Receipt, refund: bool) {
        give_back(limits, receipt, refund);
    }

    fn sweep(&self, now: Timestamp) {
        for mut shard in self.each_shard() {
            shard.retain(|_, cell| Arc::strong_count(cell) > 1 || !cell.is_idle(now));
        }
    }
}

//! Counts in memory: [`MemoryTokenStore`], for one process.
//!
//! Invariant: all or nothing. A decision first looks at every limit, then takes from one after the other; when a
//! race lets one of them refuse after all, what was taken is given back (or, where that would not be exact,
//! stays used: a limit is never exceeded, at worst a place is wasted).
//!
//! On the path of a decision there is no look-up, no lock (but for leases of connections) and no allocation: the
//! limits of a path hold their cells.
//!
//! Not here: keeping counts over a restart (`snapshot.rs`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Timestamp;

use crate::cell::Cell;
use crate::limit::{Bound, Limit};
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
        let cell = Arc::new(Cell::new(key.clone()));
        cell.word.store(word, Ordering::Release);
        self.shard(key).insert(key.clone(), cell);
    }

    fn each_shard(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<Key, Arc<Cell>>>> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether all limits would let it through; of those that would not, the one with the latest moment.
pub(crate) fn check(limits: &[Limit], ask: &Ask, now: Timestamp) -> Result<(), Refused> {
    let mut worst: Option<Refused> = None;
    for (index, limit) in limits.iter().enumerate() {
        let cost = ask.cost(limit.kind);
        if cost == 0 {
            continue;
        }
        let verdict = match &limit.bound {
            Bound::Rate(rate) => limit.cell.check_rate(rate, cost, now),
            Bound::Daily { cap, zone } => limit.cell.check_daily(*cap, *zone, cost, now).map(|_| ()),
            Bound::AtMost(most) => limit.cell.check_lease(*most, now).map_err(|at| lease_retry(at, now)),
        };
        if let Err(RetryAt(until)) = verdict
            && worst.is_none_or(|other| until > other.until)
        {
            worst = Some(Refused { limit: Some(index), until });
        }
    }
    worst.map_or(Ok(()), Err)
}

fn lease_retry(at: RetryAt, now: Timestamp) -> RetryAt {
    RetryAt(at.0.min(now + LEASE_POLL))
}

/// Takes from all limits after a look at all of them.
pub(crate) fn take_all(
    limits: &[Limit],
    ask: Ask,
    lease: u64,
    ttl: Duration,
    now: Timestamp,
) -> Result<Receipt, Refused> {
    check(limits, &ask, now)?;
    let mut receipt = Receipt { ask, lease, lease_until: now + ttl, marks: [0; LIMITS_PER_PATH] };
    for (index, (limit, mark)) in limits.iter().zip(&mut receipt.marks).enumerate() {
        let cost = ask.cost(limit.kind);
        if cost == 0 {
            continue;
        }
        let taken = match &limit.bound {
            Bound::Rate(rate) => limit.cell.take_rate(rate, cost, now),
            Bound::Daily { cap, zone } => limit.cell.take_daily(*cap, *zone, cost, now),
            Bound::AtMost(most) => {
                let taken = limit.cell.take_lease(*most, lease, now + ttl, now);
                taken.map(|()| lease).map_err(|at| lease_retry(at, now))
            }
        };
        match taken {
            Ok(taken) => *mark = taken,
            Err(RetryAt(until)) => {
                give_back(limits.get(..index).unwrap_or_default(), &receipt, true);
                return Err(Refused { limit: Some(index), until });
            }
        }
    }
    Ok(receipt)
}

/// Ends leases, and with `refund` gives back tokens where that is exact.
pub(crate) fn give_back(limits: &[Limit], receipt: &Receipt, refund: bool) {
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
    fn cell(&self, key: &Key, bound: &Bound) -> Arc<Cell> {
        let mut shard = self.shard(key);
        if let Some(found) = shard.get(key) {
            return Arc::clone(found);
        }
        let cell = Arc::new(Cell::new(key.clone()));
        if let (Some(crashed), Bound::Rate(rate)) = (self.crashed, bound) {
            cell.word.store(rate.spent_at(crashed).ticks(), Ordering::Release);
        }
        if cell.is_daily() && self.checkpoints.load(Ordering::Acquire) {
            cell.keep_to_checkpoints();
        }
        shard.insert(key.clone(), Arc::clone(&cell));
        cell
    }

    fn take(&self, limits: &[Limit], ask: Ask, ttl: Duration, now: Timestamp) -> Result<Receipt, Refused> {
        // Only a connection needs a name for its lease; a message should not touch a line that all threads share.
        let lease = if !ask.connection { 0 } else { self.leases.fetch_add(1, Ordering::Relaxed) };
        take_all(limits, ask, lease, ttl, now)
    }

    fn lease(&self, limits: &[Limit], receipt: &mut Receipt, ttl: Duration, now: Timestamp) -> bool {
        let until = now + ttl;
        let mut all = true;
        for limit in limits {
            if matches!(limit.bound, Bound::AtMost(_)) && receipt.ask.cost(limit.kind) != 0 {
                all &= limit.cell.prolong_lease(receipt.lease, until);
            }
        }
        if all {
            receipt.lease_until = until;
        }
        all
    }

    fn release(&self, limits: &[Limit], receipt: &Receipt, refund: bool) {
        give_back(limits, receipt, refund);
    }

    fn sweep(&self, now: Timestamp) {
        for mut shard in self.each_shard() {
            shard.retain(|_, cell| Arc::strong_count(cell) > 1 || !cell.is_idle(now));
        }
    }
}

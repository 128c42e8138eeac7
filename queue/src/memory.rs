//! [`MemorySpool`]: a spool in memory whose crashes, write errors and damage are at your command.
//!
//! Invariant: what a commit with [`SyncLevel::Power`] acknowledged survives [`MemorySpool::crash`]; nothing else does,
//! unless the crash is told to keep it. It obeys the same contract as the spools on disk.
//!
//! Not here: anything that outlives the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use postwright_core::{BoxFuture, Timestamp};

use crate::error::{Damage, DamageReason, SpoolError};
use crate::oneshot::{self, Sender};
use crate::spool::{
    Change, Claim, Claimed, Condition, Durability, Health, Item, Loaded, Page, Scan, Spool, SyncLevel, Want,
};
use crate::{Entry, SpoolId, body, check, codec};

/// A fault that [`MemorySpool::inject`] plants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InjectedFault {
    /// The next commit but `after` is not written at all.
    Write {
        /// Commits that go well before.
        after: u64,
    },
    /// The next commit but `after` is written but not synced: an error, and a crash may or may not keep it.
    Sync {
        /// Commits that go well before.
        after: u64,
    },
    /// Commits with a `Put` are refused for want of space until [`MemorySpool::heal`].
    Full,
    /// Everything is refused until [`MemorySpool::heal`].
    Unavailable,
}

/// A spool in memory.
///
/// ```
/// use postwright_queue::contract::{block_on, sample};
/// use postwright_queue::{Change, MemorySpool, Spool};
///
/// let spool = MemorySpool::default();
/// let (entry, body) = sample(1);
/// let id = entry.id;
/// block_on(spool.commit(vec![Change::Put { entry, body: body.clone() }]))?;
/// spool.crash();
/// assert_eq!(block_on(spool.load(id))?.body, body); // acknowledged, so it is there
/// # Ok::<(), postwright_queue::SpoolError>(())
/// ```
#[derive(Default)]
pub struct MemorySpool {
    durability: Durability,
    inner: Mutex<Inner>,
}

#[derive(Clone)]
struct Stored {
    entry: Bytes,
    records: Vec<Bytes>,
}

/// What is on a disk: clones share their octets.
#[derive(Clone, Default)]
struct State {
    messages: BTreeMap<SpoolId, Stored>,
    controls: BTreeMap<Box<str>, Bytes>,
}

/// A validated change.
#[derive(Clone)]
enum Op {
    Store(SpoolId, Stored),
    Replace(SpoolId, Bytes),
    Delete(SpoolId),
    Control(Box<str>, Option<Bytes>),
}

/// What a valid commit does.
#[derive(Default)]
struct Valid {
    ops: Vec<Op>,
    claims: Vec<Claim>,
    released: Vec<SpoolId>,
}

impl State {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Store(id, stored) => {
                self.messages.entry(id).or_insert(stored);
            }
            Op::Replace(id, entry) => {
                if let Some(stored) = self.messages.get_mut(&id) {
                    stored.entry = entry;
                }
            }
            Op::Delete(id) => {
                self.messages.remove(&id);
            }
            Op::Control(key, Some(value)) => {
                self.controls.insert(key, value);
            }
            Op::Control(key, None) => {
                self.controls.remove(&key);
            }
        }
    }
}

#[derive(Default)]
struct Inner {
    /// What a crash leaves.
    stable: State,
    /// What readers see.
    current: State,
    /// Commits that `current` has (or whose sync failed) and `stable` has not.
    unsynced: Vec<Vec<Op>>,
    /// Stored messages that nobody has claimed since the last crash.
    unclaimed: BTreeSet<SpoolId>,
    quarantine: BTreeMap<SpoolId, DamageReason>,
    faults: Vec<InjectedFault>,
    holding_syncs: bool,
    waiting: Vec<Sender<()>>,
    crashes: u64,
    commits: u64,
    syncs: u64,
    closed: bool,
}

enum Committed {
    Now(Vec<Claim>),
    AfterSync(Vec<Claim>, oneshot::Receiver<()>),
}

impl MemorySpool {
    /// An empty spool with the given switches.
    pub fn new(durability: Durability) -> MemorySpool {
        MemorySpool { durability, inner: Mutex::default() }
    }

    /// A panic in a caller's test must not hide the spool from the rest of it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails and comes back: what was not synced is gone, and so are all claims.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// As [`MemorySpool::crash`], but the first `commits` of those not synced had reached the disk all the same:
    /// recovery may revive what was never acknowledged.
    pub fn crash_keeping(&self, commits: usize) {
        let mut inner = self.lock();
        let unsynced = std::mem::take(&mut inner.unsynced);
        unsynced.into_iter().take(commits).flatten().for_each(|op| inner.stable.apply(op));
        inner.current = inner.stable.clone();
        inner.unclaimed = inner.current.messages.keys().copied().collect();
        inner.crashes += 1;
        inner.closed = false;
        // Commits that wait for their sync learn that it will not come.
        inner.waiting.clear();
    }

    /// From now on commits are written but wait for [`MemorySpool::release_syncs`].
    pub fn hold_syncs(&self) {
        self.lock().holding_syncs = true;
    }

    /// Syncs everything that was written and acknowledges the commits that wait for it.
    pub fn release_syncs(&self) {
        let waiting = {
            let mut inner = self.lock();
            inner.holding_syncs = false;
            inner.sync();
            std::mem::take(&mut inner.waiting)
        };
        waiting.into_iter().for_each(|sender| sender.send(()));
    }

    /// Commits that wait for their sync.
    pub fn held(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Plants a fault.
    pub fn inject(&self, fault: InjectedFault) {
        self.lock().faults.push(fault);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Flips a bit of a stored entry, on the disk too. Says whether there was one.
    pub fn damage(&self, id: SpoolId) -> bool {
        let mut inner = self.lock();
        let Inner { stable, current, .. } = &mut *inner;
        let mut found = false;
        for state in [stable, current] {
            if let Some(stored) = state.messages.get_mut(&id) {
                let mut octets = stored.entry.to_vec();
                if let Some(octet) = octets.get_mut(20) {
                    *octet ^= 1;
                }
                stored.entry = octets.into();
                found = true;
            }
        }
        found
    }

    /// Refuses everything from now on, until a crash.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Messages stored.
    pub fn len(&self) -> usize {
        self.lock().current.messages.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn open(&self) -> Result<(), SpoolError> {
        if self.closed {
            return Err(SpoolError::Closed);
        }
        if self.faults.contains(&InjectedFault::Unavailable) {
            return Err(SpoolError::Unavailable("injected fault".into()));
        }
        Ok(())
    }

    fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        unsynced.into_iter().flatten().for_each(|op| self.stable.apply(op));
        self.syncs += 1;
    }

    fn owns(&self, claim: Claim) -> Result<(), SpoolError> {
        if claim.epoch != self.crashes {
            return Err(SpoolError::Fenced(claim.id));
        }
        if !self.current.messages.contains_key(&claim.id) {
            return Err(SpoolError::NotFound(claim.id));
        }
        if self.unclaimed.contains(&claim.id) {
            return Err(SpoolError::Fenced(claim.id));
        }
        Ok(())
    }

    /// Turns changes into operations, or says why none of them can be done.
    fn validate(&self, changes: Vec<Change>) -> Result<Valid, SpoolError> {
        let mut valid = Valid::default();
        let Valid { ops, claims, released } = &mut valid;
        check::changes(&changes)?;
        for change in changes {
            match change {
                Change::Put { mut entry, body } => {
                    entry.size = body.len() as u64;
                    claims.push(Claim { id: entry.id, epoch: self.crashes });
                    let stored = Stored { entry: codec::encode(&entry).into(), records: body::pack(&body) };
                    ops.push(Op::Store(entry.id, stored));
                }
                Change::Update { claim, entry } => {
                    self.owns(claim)?;
                    ops.push(Op::Replace(claim.id, codec::encode(&entry).into()));
                }
                Change::Remove { claim } => {
                    self.owns(claim)?;
                    ops.push(Op::Delete(claim.id));
                }
                Change::Release { claim } => {
                    self.owns(claim)?;
                    released.push(claim.id);
                }
                Change::Control { key, value } => ops.push(Op::Control(key, value)),
            }
        }
        Ok(valid)
    }

    /// Whether a planted fault strikes this commit.
    fn strike(&mut self, accepts: bool) -> Option<InjectedFault> {
        let mut struck = None;
        self.faults.retain_mut(|fault| match fault {
            InjectedFault::Write { after } | InjectedFault::Sync { after } => {
                if *after == 0 {
                    struck = Some(*fault);
                    return false;
                }
                *after -= 1;
                true
            }
            InjectedFault::Full => {
                if accepts {
                    struck = Some(*fault);
                }
                true
            }
            InjectedFault::Unavailable => true,
        });
        struck
    }

    fn commit(&mut self, changes: Vec<Change>, sync: SyncLevel) -> Result<Committed, SpoolError> {
        self.open()?;
        let accepts = check::accepts(&changes);
        let Valid { ops, claims, released } = self.validate(changes)?;
        match self.strike(accepts) {
            None | Some(InjectedFault::Unavailable) => {}
            Some(InjectedFault::Full) => return Err(SpoolError::Full { free: 0, min: 1 }),
            Some(InjectedFault::Write { .. }) => {
                return Err(SpoolError::Unavailable("injected write error".into()));
            }
            Some(InjectedFault::Sync { .. }) => {
                self.unsynced.push(ops);
                return Err(SpoolError::Unavailable("injected sync error".into()));
            }
        }
        ops.iter().cloned().for_each(|op| self.current.apply(op));
        for claim in &claims {
            self.unclaimed.remove(&claim.id);
        }
        self.unclaimed.extend(released);
        self.unsynced.push(ops);
        self.commits += 1;
        match sync {
            SyncLevel::Power if self.holding_syncs => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.push(sender);
                Ok(Committed::AfterSync(claims, receiver))
            }
            SyncLevel::Power => {
                self.sync();
                Ok(Committed::Now(claims))
            }
            SyncLevel::Relaxed => Ok(Committed::Now(claims)),
        }
    }

    fn entry(&self, id: SpoolId) -> Result<(Entry, &Stored), SpoolError> {
        self.open()?;
        let stored = self.current.messages.get(&id).ok_or(SpoolError::NotFound(id))?;
        let entry = check::entry(id, &stored.entry).map_err(|reason| damaged(id, reason, false))?;
        Ok((entry, stored))
    }

    fn claim(&mut self, limit: usize) -> Result<Vec<Claimed>, SpoolError> {
        self.open()?;
        let mut claimed = Vec::new();
        while claimed.len() < limit {
            let Some(id) = self.unclaimed.pop_first() else {
                break;
            };
            match self.entry(id) {
                Ok((entry, _)) => claimed.push(Claimed { claim: Claim { id, epoch: self.crashes }, entry }),
                Err(SpoolError::Damaged(damage)) => {
                    self.quarantine.insert(id, damage.reason);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(claimed)
    }

    fn scan(&self, scan: Scan) -> Result<Page, SpoolError> {
        self.open()?;
        let (after, limit) = match scan {
            Scan::Controls => {
                let controls = self.current.controls.clone();
                let items = controls.into_iter().map(|(key, value)| Item::Control { key, value });
                return Ok(Page { items: items.collect(), next: None });
            }
            Scan::Messages { after, limit } => (after, limit.max(1)),
        };
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut items = Vec::new();
        let mut last = None;
        for (id, stored) in self.current.messages.range((from, std::ops::Bound::Unbounded)).take(limit) {
            last = Some(*id);
            items.push(match check::entry(*id, &stored.entry) {
                Ok(entry) => Item::Entry(Box::new(entry)),
                Err(reason) => {
                    let quarantined = self.quarantine.contains_key(id);
                    Item::Damaged(Damage { id: *id, reason, quarantined })
                }
            });
        }
        Ok(Page { next: last.filter(|_| items.len() == limit), items })
    }
}

fn damaged(id: SpoolId, reason: DamageReason, quarantined: bool) -> SpoolError {
    SpoolError::Damaged(Damage { id, reason, quarantined })
}

impl Spool for MemorySpool {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<Claim>, SpoolError>> {
        Box::pin(async move {
            let sync = self.durability.for_changes(&changes);
            let committed = self.lock().commit(changes, sync)?;
            match committed {
                Committed::Now(claims) => Ok(claims),
                Committed::AfterSync(claims, synced) => match synced.await {
                    Some(()) => Ok(claims),
                    None => Err(SpoolError::Unavailable("the spool crashed before the sync".into())),
                },
            }
        })
    }

    fn claim(&self, want: Want, _: Timestamp) -> BoxFuture<'_, Result<Vec<Claimed>, SpoolError>> {
        Box::pin(async move { self.lock().claim(want.limit) })
    }

    fn renew<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claim>, SpoolError>> {
        Box::pin(async move {
            let inner = self.lock();
            inner.open()?;
            Ok(claims.iter().copied().filter(|claim| inner.owns(*claim).is_err()).collect())
        })
    }

    fn load(&self, id: SpoolId) -> BoxFuture<'_, Result<Loaded, SpoolError>> {
        Box::pin(async move {
            let (entry, records) = {
                let inner = self.lock();
                let (entry, stored) = inner.entry(id)?;
                (entry, stored.records.clone())
            };
            let body = body::unpack(records, entry.size).map_err(|reason| damaged(id, reason, false))?;
            Ok(Loaded { entry, body })
        })
    }

    fn piece(&self, id: SpoolId, index: u32) -> BoxFuture<'_, Result<Option<Bytes>, SpoolError>> {
        Box::pin(async move {
            let record = {
                let inner = self.lock();
                inner.open()?;
                let stored = inner.current.messages.get(&id).ok_or(SpoolError::NotFound(id))?;
                usize::try_from(index).ok().and_then(|index| stored.records.get(index)).cloned()
            };
            record
                .map(|record| body::open(&record, index).map_err(|reason| damaged(id, reason, false)))
                .transpose()
        })
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Page, SpoolError>> {
        Box::pin(async move { self.lock().scan(scan) })
    }

    fn health(&self) -> Health {
        let inner = self.lock();
        let condition = match inner.open() {
            Err(SpoolError::Closed) => Condition::Closed,
            Err(_) => Condition::Recovering,
            Ok(()) if inner.faults.contains(&InjectedFault::Full) => Condition::Full,
            Ok(()) => Condition::Healthy,
        };
        Health {
            condition,
            free: None,
            sync_latency: None,
            commits: inner.commits,
            syncs: inner.syncs,
            reopened: inner.crashes,
            quarantined: inner.quarantine.len() as u64,
        }
    }
}

impl std::fmt::Debug for MemorySpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemorySpool({} messages)", self.len())
    }
}

//! The one thread that writes: group commit, and reopening after an error.
//!
//! Invariant: a job is answered once, after the sync that covers it. What was answered with an error is taken back
//! if recovery revives it. No write is retried on a store that failed.
//!
//! Standards: fsync semantics as in POSIX.1-2017 `fdatasync`; after an error the page cache cannot be trusted, so
//! the files are closed, never synced again.
//!
//! Not here: what a record looks like (prepare, store).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fjall::{OwnedWriteBatch, PersistMode};
use postwright_core::Instant;

use super::Shared;
use super::inbox::{Inbox, Next, Weigh};
use super::prepare::{Job, Op, split};
use super::store::{Store, free_space, piece_key, put_aside_value, unavailable};
use crate::SpoolId;
use crate::error::{Damage, SpoolError};
use crate::spool::{Claim, Condition, Health, SyncLevel};

/// How often relaxed commits are synced, and how often reopening is tried.
const TICK: Duration = Duration::from_secs(1);

/// What the writer is asked to do.
pub(super) enum Message {
    Commit(Job),
    Quarantine(Damage),
}

impl Weigh for Message {
    fn octets(&self) -> usize {
        match self {
            Message::Commit(job) => job.octets,
            Message::Quarantine(_) => 0,
        }
    }
}

/// Counters that anyone may read.
#[derive(Default)]
pub(super) struct Status {
    commits: AtomicU64,
    syncs: AtomicU64,
    reopened: AtomicU64,
    quarantined: AtomicU64,
    sync_micros: AtomicU64,
    recovering: AtomicBool,
    min_free: AtomicU64,
}

impl Status {
    pub(super) fn new(min_free: u64) -> Status {
        Status { min_free: AtomicU64::new(min_free), ..Status::default() }
    }

    pub(super) fn quarantined_more(&self, count: usize) {
        self.quarantined.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    pub(super) fn set_min_free(&self, octets: u64) {
        self.min_free.store(octets, Ordering::Release);
    }

    pub(super) fn health(&self, free: Option<u64>) -> Health {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let full = free.is_some_and(|free| free < read(&self.min_free));
        let condition = match self.recovering.load(Ordering::Acquire) {
            true => Condition::Recovering,
            false if full => Condition::Full,
            false => Condition::Healthy,
        };
        let micros = read(&self.sync_micros);
        Health {
            condition,
            free,
            sync_latency: (micros > 0).then(|| Duration::from_micros(micros)),
            commits: read(&self.commits),
            syncs: read(&self.syncs),
            reopened: read(&self.reopened),
            quarantined: read(&self.quarantined),
        }
    }
}

/// A job whose claims hold, waiting for its batch.
struct Accepted {
    job: Job,
    claims: Vec<Claim>,
    /// For each change: in how many pieces its message was stored before, if it was.
    before: Vec<Option<u32>>,
}

/// A put that was answered with an error.
struct Unacknowledged {
    id: SpoolId,
    pieces: u32,
    /// Whether it came alone. One that settled another message must stay if it is revived, since what it tells of
    /// is revived with it.
    accepts: bool,
}

/// What a batch has done so far to the messages that it touches: their number of pieces, if they exist.
type Overlay = HashMap<SpoolId, Option<u32>>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    inbox: Inbox<Message>,
    /// Puts that were answered with an error and may be revived by recovery.
    unacknowledged: Vec<Unacknowledged>,
    /// Whether relaxed commits wait for a sync.
    dirty: bool,
    last_try: Instant,
    /// Whether it was, or is, want of room that keeps the store closed.
    full: Option<SpoolError>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, inbox: Inbox<Message>) -> Writer {
        Writer {
            shared,
            inbox,
            unacknowledged: Vec::new(),
            dirty: false,
            last_try: Instant::ZERO,
            full: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let next = self.inbox.next(TICK);
            if matches!(next, Next::Closed) {
                break;
            }
            if self.shared.status.recovering.load(Ordering::Acquire) {
                self.reopen_if_due();
            }
            let Next::Batch(messages) = next else {
                self.sync_relaxed();
                continue;
            };
            let (mut jobs, mut damage) = (Vec::with_capacity(messages.len()), Vec::new());
            for message in messages {
                match message {
                    Message::Commit(job) => jobs.push(job),
                    Message::Quarantine(found) => damage.push(found),
                }
            }
            self.write(jobs);
            damage.into_iter().for_each(|damage| self.put_aside(&damage));
        }
        self.sync_relaxed();
        *self.shared.store.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Writes the jobs as one batch with one sync and answers them.
    fn write(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let slot = shared.store.read().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = &*slot else {
            let error = self.reason();
            jobs.into_iter().for_each(|job| job.reply.send(Err(error.clone())));
            return;
        };
        let accepted = self.accept(store, jobs);
        let mut batch = store.db.batch();
        let mut level = SyncLevel::Relaxed;
        for Accepted { job, before, .. } in &accepted {
            if job.sync == SyncLevel::Power {
                level = SyncLevel::Power;
            }
            job.ops.iter().zip(before).for_each(|(op, before)| fill(&mut batch, store, op, *before));
        }
        if batch.is_empty() {
            // Nothing but releases and repeated puts: there is nothing to sync.
            level = SyncLevel::Relaxed;
        }
        let started = shared.options.clock.mono();
        let mode = if level == SyncLevel::Power { PersistMode::SyncData } else { PersistMode::Buffer };
        let result = batch.durability(Some(mode)).commit();
        drop(slot);
        match result {
            Ok(()) => self.acknowledge(accepted, level, started),
            Err(error) => self.fail(accepted, &unavailable(error)),
        }
    }

    /// Answers the jobs that cannot be done and returns the others.
    fn accept(&self, store: &Store, jobs: Vec<Job>) -> Vec<Accepted> {
        let full = self.lacks_space();
        let mut overlay = Overlay::new();
        let mut accepted = Vec::with_capacity(jobs.len());
        for job in jobs {
            let checked = match &full {
                Some(full) if job.accepts => Err(full.clone()),
                _ => self.validate(store, &job, &mut overlay),
            };
            match checked {
                Ok((claims, before)) => accepted.push(Accepted { job, claims, before }),
                Err(error) => job.reply.send(Err(error)),
            }
        }
        accepted
    }

    /// The refusal of new mail while too little space is free.
    fn lacks_space(&self) -> Option<SpoolError> {
        let min = self.shared.status.min_free.load(Ordering::Acquire);
        // A disk that does not say how much it has free is trusted until it fails.
        let free = free_space(&self.shared.options.path)?;
        (free < min).then_some(SpoolError::Full { free, min })
    }

    /// Checks the claims of a job against the store and what the batch does before it.
    fn validate(
        &self,
        store: &Store,
        job: &Job,
        overlay: &mut Overlay,
    ) -> Result<(Vec<Claim>, Vec<Option<u32>>), SpoolError> {
        let mut ledger = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut claims, mut before) = (Vec::new(), Vec::with_capacity(job.ops.len()));
        for op in &job.ops {
            let Some(id) = op.id() else {
                before.push(None);
                continue;
            };
            let stored = match overlay.get(&id) {
                Some(known) => *known,
                None => store.raw_entry(id)?.and_then(|value| split(&value).map(|(pieces, _)| pieces)),
            };
            match (op, stored) {
                (Op::Put { .. }, _) => claims.push(Claim { id, epoch: 0 }),
                (_, None) => return Err(SpoolError::NotFound(id)),
                _ if !ledger.owns(id) => return Err(SpoolError::Fenced(id)),
                (Op::Update { entry, .. }, Some(pieces))
                    if split(entry).is_none_or(|(new, _)| new != pieces) =>
                {
                    return Err(SpoolError::Invalid("an update does not change the size of a message"));
                }
                _ => {}
            }
            before.push(stored);
        }
        // Only a job that passes as a whole counts for the next ones. A message is noted as ours before it can
        // be seen, or a claim under way would hand it out a second time.
        for (op, stored) in job.ops.iter().zip(&before) {
            match op {
                Op::Put { id, records, .. } => {
                    ledger.put(*id);
                    overlay.insert(*id, stored.or(Some(u32::try_from(records.len()).unwrap_or(u32::MAX))));
                }
                Op::Remove { id } => drop(overlay.insert(*id, None)),
                _ => {}
            }
        }
        Ok((claims, before))
    }

    fn acknowledge(&mut self, accepted: Vec<Accepted>, level: SyncLevel, started: Instant) {
        let shared = &self.shared;
        let status = &shared.status;
        if level == SyncLevel::Power {
            let took = shared.options.clock.mono().since(started).as_micros();
            status.sync_micros.store(u64::try_from(took).unwrap_or(u64::MAX).max(1), Ordering::Release);
            status.syncs.fetch_add(1, Ordering::AcqRel);
            self.dirty = false;
        } else {
            self.dirty = true;
        }
        let mut cache = shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = Vec::with_capacity(accepted.len());
        for Accepted { job, claims, before } in accepted {
            for (op, before) in job.ops.into_iter().zip(before) {
                match op {
                    Op::Put { id, entry, records } if before.is_none() => cache.insert(id, entry, records),
                    Op::Put { .. } | Op::Control { .. } => {}
                    Op::Update { id, entry } => cache.update(id, &entry),
                    Op::Remove { id } => {
                        cache.remove(id);
                        ledger.forget(id);
                    }
                    Op::Release { id } => ledger.release(id),
                }
            }
            answers.push((job.reply, claims));
        }
        drop((cache, ledger));
        for (reply, claims) in answers {
            status.commits.fetch_add(1, Ordering::AcqRel);
            reply.send(Ok(claims));
        }
    }

    /// Answers with the error, remembers what recovery may revive, and reopens the store.
    fn fail(&mut self, accepted: Vec<Accepted>, error: &SpoolError) {
        self.shared.status.recovering.store(true, Ordering::Release);
        let mut ledger = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for Accepted { job, before, .. } in &accepted {
            for (op, before) in job.ops.iter().zip(before) {
                if let (Op::Put { id, records, .. }, None) = (op, before) {
                    ledger.forget(*id);
                    let pieces = u32::try_from(records.len()).unwrap_or(u32::MAX);
                    self.unacknowledged.push(Unacknowledged { id: *id, pieces, accepts: job.accepts });
                }
            }
        }
        drop(ledger);
        accepted.into_iter().for_each(|accepted| accepted.job.reply.send(Err(error.clone())));
        self.reopen();
    }

    /// Why nothing can be done while the store is closed.
    fn reason(&self) -> SpoolError {
        let reopening = || SpoolError::Unavailable("the store is being reopened after an error".into());
        self.full.clone().unwrap_or_else(reopening)
    }

    fn reopen_if_due(&mut self) {
        if self.shared.options.clock.mono().since(self.last_try) >= TICK {
            self.reopen();
        }
    }

    /// Closes the store and opens it again, waiting for those who read. On failure it is tried again later.
    fn reopen(&mut self) {
        self.last_try = self.shared.options.clock.mono();
        let mut slot = self.shared.store.write().unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        let mut store = match Store::open(&self.shared.options) {
            Ok(store) => store,
            Err(error) => {
                return self.full = Some(error).filter(|error| matches!(error, SpoolError::Full { .. }));
            }
        };
        self.shared.note_damage(std::mem::take(&mut store.damage));
        let Ok(revived) = take_back(&store, &self.unacknowledged) else { return };
        // Nobody knows of these any more: they can be claimed.
        let mut ledger = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        revived.into_iter().for_each(|id| ledger.release(id));
        drop(ledger);
        self.unacknowledged.clear();
        self.dirty = false;
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *slot = Some(store);
        self.shared.status.reopened.fetch_add(1, Ordering::AcqRel);
        self.shared.status.recovering.store(false, Ordering::Release);
    }

    /// Syncs relaxed commits, so that a power cut loses seconds and not minutes.
    fn sync_relaxed(&mut self) {
        if !self.dirty {
            return;
        }
        let result = match &*self.shared.store.read().unwrap_or_else(PoisonError::into_inner) {
            Some(store) => store.db.persist(PersistMode::SyncData),
            None => return,
        };
        match result {
            Ok(()) => {
                self.dirty = false;
                self.shared.status.syncs.fetch_add(1, Ordering::AcqRel);
            }
            Err(error) => self.fail(Vec::new(), &unavailable(error)),
        }
    }

    /// Moves a damaged record to where nothing trips over it again.
    fn put_aside(&mut self, damage: &Damage) {
        let result = match &*self.shared.store.read().unwrap_or_else(PoisonError::into_inner) {
            Some(store) => put_aside(store, damage),
            None => return,
        };
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(damage.id);
        match result {
            Ok(true) => drop(self.shared.status.quarantined.fetch_add(1, Ordering::AcqRel)),
            Ok(false) => {}
            Err(error) => self.fail(Vec::new(), &unavailable(error)),
        }
    }
}

/// Adds an operation to a batch.
fn fill(batch: &mut OwnedWriteBatch, store: &Store, op: &Op, before: Option<u32>) {
    match op {
        // Stored already: once is enough.
        Op::Put { .. } if before.is_some() => {}
        Op::Put { id, entry, records } => {
            for (record, index) in records.iter().zip(0u32..) {
                batch.insert(&store.bodies, piece_key(*id, index), record.clone());
            }
            batch.insert(&store.entries, *id.as_bytes(), entry.clone());
        }
        Op::Update { id, entry } => batch.insert(&store.entries, *id.as_bytes(), entry.clone()),
        Op::Remove { id } => {
            for index in 0..before.unwrap_or(0) {
                batch.remove(&store.bodies, piece_key(*id, index));
            }
            batch.remove(&store.entries, *id.as_bytes());
        }
        Op::Release { .. } => {}
        Op::Control { key, value: Some(value) } => batch.insert(&store.controls, &**key, value.clone()),
        Op::Control { key, value: None } => batch.remove(&store.controls, &**key),
    }
}

/// Removes what was answered with an error and is there all the same, and returns what has to stay.
fn take_back(store: &Store, puts: &[Unacknowledged]) -> fjall::Result<Vec<SpoolId>> {
    let mut batch = store.db.batch();
    let mut revived = Vec::new();
    for Unacknowledged { id, pieces, accepts } in puts {
        if !store.entries.contains_key(id.as_bytes())? {
            continue;
        }
        if !accepts {
            revived.push(*id);
            continue;
        }
        (0..*pieces).for_each(|index| batch.remove(&store.bodies, piece_key(*id, index)));
        batch.remove(&store.entries, *id.as_bytes());
    }
    batch.durability(Some(PersistMode::SyncData)).commit()?;
    Ok(revived)
}

/// Says whether there was something to put aside. The body stays where it is, for whoever looks into it.
fn put_aside(store: &Store, damage: &Damage) -> fjall::Result<bool> {
    if store.quarantine.contains_key(damage.id.as_bytes())? {
        return Ok(false);
    }
    // A block that cannot be read at all leaves at least its name.
    let value = store.entries.get(damage.id.as_bytes()).ok().flatten();
    let record = put_aside_value(&damage.reason.to_string(), value.as_deref().unwrap_or_default());
    let mut batch = store.db.batch();
    batch.insert(&store.quarantine, *damage.id.as_bytes(), record);
    batch.remove(&store.entries, *damage.id.as_bytes());
    batch.durability(Some(PersistMode::SyncData)).commit()?;
    Ok(true)
}

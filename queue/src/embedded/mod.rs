//! [`EmbeddedSpool`]: the spool on a local disk, on the log-structured store `fjall`.
//!
//! Invariant: a commit is acknowledged only after the sync that covers it returned. One process has the spool
//! open. A write or sync error is never retried on the same files: the store is closed and reopened, and
//! whatever was not acknowledged is taken back if recovery revives it.
//!
//! Concurrent commits share a batch and a sync: while one batch is being synced, the next one gathers. Threads of
//! its own do the work (one that writes, a few that read), so that no runtime is blocked and none is needed.
//!
//! Not here: leases (one process, so a claim is a formality), backup.

mod cache;
mod claiming;
mod inbox;
mod journal;
mod ledger;
mod making;
mod prepare;
#[cfg(test)]
mod schedules;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use postwright_core::{BoxFuture, Clock, Timestamp};

use crate::error::SpoolError;
use crate::spool::{Change, Claim, Claimed, Durability, Health, Loaded, Page, Scan, Spool, Want};
use crate::{SpoolId, oneshot, sync};
use cache::Cache;
use claiming::claim;
use inbox::{Outbox, Unsent};
pub use journal::JournalDamage;
use ledger::Ledger;
use prepare::Job;
use store::Store;
use writer::{Message, Status, Writer};

/// How an [`EmbeddedSpool`] is set up.
#[derive(Clone)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// Its directory; made if it does not exist.
    pub path: PathBuf,
    /// What commits wait for. [`Durability::default`] is the safe one.
    pub durability: Durability,
    /// Octets that have to stay free on the disk; below that, new mail is refused. Default 512 MiB.
    pub min_free: u64,
    /// Commits that may wait for the writer; one more is refused as busy. Default 4096.
    pub max_waiting: usize,
    /// Octets of accepted messages kept in memory, so that prompt delivery reads nothing back. Default 64 MiB.
    pub hot_bytes: usize,
    /// Octets of the store's block cache. Default 32 MiB.
    pub block_cache: u64,
    /// Threads that read. Default 2.
    pub readers: usize,
    /// What the time for a sync is measured with.
    pub clock: Arc<dyn Clock>,
}

impl EmbeddedOptions {
    /// The defaults, for a directory.
    pub fn new(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> EmbeddedOptions {
        EmbeddedOptions {
            path: path.into(),
            durability: Durability::default(),
            min_free: 512 * 1024 * 1024,
            max_waiting: 4096,
            hot_bytes: 64 * 1024 * 1024,
            block_cache: 32 * 1024 * 1024,
            readers: 2,
            clock,
        }
    }
}

/// What the handle and its threads share.
struct Shared {
    options: EmbeddedOptions,
    /// `None` while it is being reopened. Readers hold the lock for as long as they read.
    store: RwLock<Option<Store>>,
    ledger: Mutex<Ledger>,
    cache: Mutex<Cache>,
    status: Status,
    damaged_journals: Mutex<Vec<JournalDamage>>,
}

impl Shared {
    /// Notes what was found when the store was opened.
    fn note_damage(&self, found: Vec<JournalDamage>) {
        self.status.quarantined_more(found.len());
        self.damaged_journals.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }
}

/// A spool on a local disk.
///
/// ```
/// use std::sync::Arc;
/// use postwright_core::SystemClock;
/// use postwright_queue::contract::{block_on, sample};
/// use postwright_queue::{Change, EmbeddedOptions, EmbeddedSpool, Spool};
///
/// let directory = tempfile::tempdir()?;
/// let mut options = EmbeddedOptions::new(directory.path(), Arc::new(SystemClock::new()));
/// options.min_free = 0;
/// let spool = EmbeddedSpool::open(options.clone())?;
/// let (entry, body) = sample(1);
/// let id = entry.id;
/// block_on(spool.commit(vec![Change::Put { entry, body: body.clone() }]))?;
/// assert!(EmbeddedSpool::open(options.clone()).is_err()); // one process, one handle
/// drop(spool);
/// assert_eq!(block_on(EmbeddedSpool::open(options)?.load(id))?.body, body);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmbeddedSpool {
    shared: Arc<Shared>,
    jobs: Option<Outbox<Message>>,
    reads: Option<mpsc::Sender<ReadJob>>,
    threads: Vec<JoinHandle<()>>,
}

/// Work for a thread that reads.
type ReadJob = Box<dyn FnOnce(&Shared) + Send>;

impl EmbeddedSpool {
    /// Opens the spool, or makes a new one in an empty or missing directory.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] if another process has it open, [`SpoolError::Format`] if another version wrote it,
    /// [`SpoolError::Unavailable`] if the disk does not let us.
    pub fn open(options: EmbeddedOptions) -> Result<EmbeddedSpool, SpoolError> {
        let mut store = Store::open(&options)?;
        let damage = std::mem::take(&mut store.damage);
        let ledger = Ledger::new(store.is_empty()?);
        let cache = Cache::new(options.hot_bytes);
        let (jobs, inbox) = inbox::channel(options.max_waiting);
        let readers = options.readers.clamp(1, 64);
        let status = Status::new(options.min_free);
        let shared = Arc::new(Shared {
            options,
            store: RwLock::new(Some(store)),
            ledger: Mutex::new(ledger),
            cache: Mutex::new(cache),
            status,
            damaged_journals: Mutex::default(),
        });
        shared.note_damage(damage);
        let mut threads = Vec::new();
        let writer = Writer::new(shared.clone(), inbox);
        threads.push(spawn("spool-writer", move || writer.run())?);
        let (reads, read_inbox) = mpsc::channel::<ReadJob>();
        let read_inbox = Arc::new(Mutex::new(read_inbox));
        for _ in 0..readers {
            let (shared, inbox) = (shared.clone(), read_inbox.clone());
            threads.push(spawn("spool-reader", move || run_reader(&shared, &inbox))?);
        }
        Ok(EmbeddedSpool { shared, jobs: Some(jobs), reads: Some(reads), threads })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.shared.options.path
    }

    /// The journals that were found damaged since this opening: what could be read was kept, and as they were they lie in
    /// the folder `damaged` of the spool. Commits may be lost: say it aloud.
    pub fn damaged_journals(&self) -> Vec<JournalDamage> {
        self.shared.damaged_journals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All copies of damaged journals that lie in the spool, those of earlier openings included.
    pub fn journals_aside(&self) -> Vec<PathBuf> {
        journal::copies(&self.shared.options.path)
    }

    /// Changes how much has to stay free on the disk, from now on.
    pub fn set_min_free(&self, octets: u64) {
        self.shared.status.set_min_free(octets);
    }

    /// Hands work to the threads that read and waits for what it brings.
    fn read<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Store) -> Result<T, SpoolError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, SpoolError>> {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |shared| {
            let slot = shared.store.read().unwrap_or_else(PoisonError::into_inner);
            reply.send(match &*slot {
                Some(store) => work(shared, store),
                None => Err(SpoolError::Unavailable("the store is being reopened".into())),
            });
        });
        let sent = self.reads.as_ref().is_some_and(|reads| reads.send(job).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(SpoolError::Closed);
            }
            answer.await.unwrap_or(Err(SpoolError::Closed))
        })
    }

    fn send(&self, message: Message) -> Result<(), SpoolError> {
        let waiting = self.shared.options.max_waiting;
        match self.jobs.as_ref().map(|jobs| jobs.put(message)) {
            Some(Ok(())) => Ok(()),
            Some(Err(Unsent::Busy)) => Err(SpoolError::Busy { waiting }),
            Some(Err(Unsent::Closed)) | None => Err(SpoolError::Closed),
        }
    }

    /// Passes a result on; a damaged record is put aside first.
    fn note<T>(&self, result: Result<T, SpoolError>) -> Result<T, SpoolError> {
        if let Err(SpoolError::Damaged(damage)) = &result {
            // If the writer is too busy, the next one who trips over the record asks again.
            let _ = self.send(Message::Quarantine(damage.clone()));
        }
        result
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SpoolError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| SpoolError::Unavailable(format!("cannot start a thread: {error}").into()))
}

fn run_reader(shared: &Shared, inbox: &Mutex<mpsc::Receiver<ReadJob>>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(shared),
            Err(_) => return,
        }
    }
}

/// Waits for the commits under way and closes the store.
impl Drop for EmbeddedSpool {
    fn drop(&mut self) {
        self.jobs = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to close.
            let _ = thread.join();
        }
    }
}

impl Spool for EmbeddedSpool {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<Claim>, SpoolError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let job = Job::prepare(changes, self.shared.options.durability, reply)?;
            self.send(Message::Commit(job))?;
            answer.await.unwrap_or(Err(SpoolError::Closed))
        })
    }

    fn claim(&self, want: Want, _: Timestamp) -> BoxFuture<'_, Result<Vec<Claimed>, SpoolError>> {
        Box::pin(async move {
            let limit = want.limit;
            let walk = move |shared: &Shared, store: &Store| {
                claim(&mut shared.ledger.lock().unwrap_or_else(PoisonError::into_inner), store, limit)
            };
            let (claimed, damaged) = self.read(walk).await?;
            for damage in damaged {
                let _ = self.note::<()>(Err(SpoolError::Damaged(damage)));
            }
            Ok(claimed)
        })
    }

    fn renew<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claim>, SpoolError>> {
        let claims = claims.to_vec();
        self.read(move |shared, store| {
            let mut lost = Vec::new();
            for claim in claims {
                let owned = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).owns(claim.id);
                if !owned || store.raw_entry(claim.id)?.is_none() {
                    lost.push(claim);
                }
            }
            Ok(lost)
        })
    }

    fn load(&self, id: SpoolId) -> BoxFuture<'_, Result<Loaded, SpoolError>> {
        Box::pin(async move {
            let hot = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner).get(id);
            if let Some((entry, records)) = hot {
                return self.note(store::assemble(id, &entry, records));
            }
            let loaded = self.read(move |_, store| store.load(id)).await;
            self.note(loaded)
        })
    }

    fn piece(&self, id: SpoolId, index: u32) -> BoxFuture<'_, Result<Option<Bytes>, SpoolError>> {
        Box::pin(async move {
            let piece = self.read(move |_, store| store.piece(id, index)).await;
            self.note(piece)
        })
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Page, SpoolError>> {
        self.read(move |_, store| match scan {
            Scan::Controls => store.controls(),
            Scan::Messages { after, limit } => store.page(after, limit),
        })
    }

    fn health(&self) -> Health {
        let free = store::free_space(&self.shared.options.path);
        self.shared.status.health(free)
    }
}

impl std::fmt::Debug for EmbeddedSpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedSpool({})", self.shared.options.path.display())
    }
}

#[cfg(test)]
mod tests;

//! The suppression list and the journal on a local disk, on the engine of the spool (`fjall`).
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `meta` | `format` | format version, u32 little-endian |
//! | `list` | address, 0, tenant, 0, stream | the entry as a line of CSV |
//! | `departed` | id | tenant, stream, sender, message id, recipients: parted by tabs |
//! | `trails` | id, domain | way out, site, mail hosts: parted by tabs |
//! | `ids` | `Message-ID` | id |
//!
//! Invariant: what [`Suppressions::sync`] confirmed survives a power cut. An address that is not on the list costs one hash and one
//! look in memory. One process has the store open.
//!
//! Not here: what puts an address on the list (`feedback`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use postwright_bounce::suppress::{Entry, Filter, Scope, Suppressions, from_csv, key, to_csv};
use postwright_core::{Domain, Mailbox, Timestamp};
use postwright_queue::SpoolId;

use super::{Departed, Journal, Trail};

const FORMAT: u32 = 1;
/// Longest `Message-ID` that messages are found by, in octets (RFC 5322 2.1.1: a line).
const MESSAGE_ID_MAX: usize = 998;
/// What is gathered in memory before it is flushed, in octets.
const IN_MEMORY: u64 = 8 << 20;

/// Why the store cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open, such as a running server; its folder.
    Locked(Box<str>),
    /// It was written by another version; the format that was found.
    Format(u32),
    /// The disk does not let us; what it says.
    Unavailable(Box<str>),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Locked(path) => {
                write!(f, "{path} is open in another process (a running server?): stop it, or ask it")
            }
            StoreError::Format(found) => {
                write!(f, "the store has format {found}, and this program knows {FORMAT}")
            }
            StoreError::Unavailable(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StoreError {}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string().into())
}

/// The suppression list and the journal of departures in one folder.
///
/// ```
/// use postwright::bounce::suppress::{Entry, Reason, Scope, Suppressions};
/// use postwright::core::Timestamp;
/// use postwright::feedback::FeedbackStore;
///
/// let folder = tempfile::tempdir()?;
/// let (now, ann) = (Timestamp::from_secs(1), "ann@example.org".parse()?);
/// let store = FeedbackStore::open(folder.path())?;
/// let scope = Scope { tenant: "shop".into(), stream: None };
/// store.add(Entry { address: "Ann@example.org".into(), scope, reason: Reason::Complaint, since: now, until: None, note: "".into() });
/// assert_eq!(store.sync(), Ok(()));
/// drop(store);
/// let store = FeedbackStore::open(folder.path())?;
/// assert!(store.check("shop", Some("bulk"), &ann, now).is_some());
/// assert!(store.check("other", None, &ann, now).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FeedbackStore {
    db: Database,
    list: Keyspace,
    departed: Keyspace,
    trails: Keyspace,
    ids: Keyspace,
    filter: RwLock<Filter>,
    /// Changes wait for a sync.
    dirty: AtomicBool,
    /// A change could not be written; told at the next sync.
    failed: Mutex<Option<Box<str>>>,
}

impl FeedbackStore {
    /// Opens the store, or makes a new one.
    ///
    /// # Errors
    /// Another process has it open, another version wrote it, or the disk does not let us.
    pub fn open(path: &Path) -> Result<FeedbackStore, StoreError> {
        std::fs::create_dir_all(path)
            .map_err(|error| unavailable(format!("cannot make {}: {error}", path.display())))?;
        let db = Database::builder(path).worker_threads(1).open().map_err(|error| match error {
            fjall::Error::Locked => StoreError::Locked(path.display().to_string().into()),
            other => unavailable(other),
        })?;
        let plain = || KeyspaceCreateOptions::default().max_memtable_size(IN_MEMORY);
        let meta = db.keyspace("meta", plain).map_err(unavailable)?;
        match meta.get("format").map_err(unavailable)? {
            None => {
                meta.insert("format", FORMAT.to_le_bytes()).map_err(unavailable)?;
                db.persist(PersistMode::SyncAll).map_err(unavailable)?;
            }
            Some(value) => match <[u8; 4]>::try_from(&*value).map(u32::from_le_bytes) {
                Ok(FORMAT) => {}
                Ok(found) => return Err(StoreError::Format(found)),
                Err(_) => return Err(StoreError::Format(0)),
            },
        }
        let store = FeedbackStore {
            list: db.keyspace("list", plain).map_err(unavailable)?,
            departed: db.keyspace("departed", plain).map_err(unavailable)?,
            trails: db.keyspace("trails", plain).map_err(unavailable)?,
            ids: db.keyspace("ids", plain).map_err(unavailable)?,
            db,
            filter: RwLock::default(),
            dirty: AtomicBool::new(false),
            failed: Mutex::new(None),
        };
        store.rebuild()?;
        Ok(store)
    }

    /// Entries on the list, those past their expiry included.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn count(&self) -> Result<usize, StoreError> {
        self.list.len().map_err(unavailable)
    }

    fn rebuild(&self) -> Result<(), StoreError> {
        let mut filter = Filter::for_addresses(self.list.len().map_err(unavailable)? * 2);
        for row in self.list.iter() {
            let (row, _) = row.into_inner().map_err(unavailable)?;
            let address = row.split(|octet| *octet == 0).next().unwrap_or_default();
            filter.set(&String::from_utf8_lossy(address));
        }
        *self.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
        Ok(())
    }

    fn note_failure(&self, error: &fjall::Error) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string().into());
    }

    fn changed(&self, result: Result<(), fjall::Error>) {
        match result {
            Ok(()) => self.dirty.store(true, Ordering::Release),
            Err(error) => self.note_failure(&error),
        }
    }

    fn get(&self, address: &str, scope: &Scope) -> Option<Entry> {
        match self.list.get(row(address, scope)) {
            Ok(value) => entry(&value?),
            Err(error) => {
                // An address that cannot be looked up is tried: mail is not lost for a fault of ours.
                tracing::error!(%error, "the suppression list cannot be read");
                None
            }
        }
    }
}

fn row(address: &str, scope: &Scope) -> Vec<u8> {
    [address, &scope.tenant, scope.stream.as_deref().unwrap_or("")].join("\0").into_bytes()
}

fn entry(value: &[u8]) -> Option<Entry> {
    from_csv(std::str::from_utf8(value).ok()?, 1).ok()
}

impl Suppressions for FeedbackStore {
    fn check(&self, tenant: &str, stream: Option<&str>, address: &Mailbox, now: Timestamp) -> Option<Entry> {
        let address = key(&address.to_string());
        if !self.filter.read().unwrap_or_else(PoisonError::into_inner).may_hold(&address) {
            return None;
        }
        let all = Scope { tenant: tenant.into(), stream: None };
        let one = stream.map(|stream| Scope { tenant: tenant.into(), stream: Some(stream.into()) });
        [Some(all), one]
            .into_iter()
            .flatten()
            .filter_map(|scope| self.get(&address, &scope))
            .find(|entry| entry.until.is_none_or(|until| now < until))
    }

    fn add(&self, mut entry: Entry) {
        entry.address = key(&entry.address);
        let is_full = {
            // Before the entry is there: never a false "no".
            let mut filter = self.filter.write().unwrap_or_else(PoisonError::into_inner);
            filter.set(&entry.address);
            filter.is_full()
        };
        self.changed(self.list.insert(row(&entry.address, &entry.scope), to_csv(&entry)));
        if is_full && let Err(error) = self.rebuild() {
            tracing::error!(%error, "the suppression list's filter is not rebuilt; look-ups are slower");
        }
    }

    fn remove(&self, scope: &Scope, address: &str) -> bool {
        let address = key(address);
        let held = self.get(&address, scope).is_some();
        if held {
            self.changed(self.list.remove(row(&address, scope)));
        }
        held
    }

    fn list(&self, after: Option<(&str, &Scope)>, most: usize) -> Vec<Entry> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |(address, scope)| Excluded(row(&key(address), scope)));
        let rows = self.list.range((from, Unbounded));
        rows.filter_map(|row| entry(&row.into_inner().ok()?.1)).take(most).collect()
    }

    fn sync(&self) -> Result<(), Box<str>> {
        if let Some(error) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        if self.dirty.swap(false, Ordering::AcqRel) {
            self.db.persist(PersistMode::SyncData).map_err(|error| {
                self.dirty.store(true, Ordering::Release);
                Box::<str>::from(error.to_string())
            })?;
        }
        Ok(())
    }
}

fn write_departed(departed: &Departed) -> String {
    let clean = |text: &str| text.replace('\t', " ");
    let mut out =
        [&*departed.tenant, &departed.stream, &departed.sender, departed.message_id.as_deref().unwrap_or("")]
            .map(clean)
            .join("\t");
    for recipient in &departed.recipients {
        out.push('\t');
        out.push_str(&clean(recipient));
    }
    out
}

fn read_departed(value: &[u8]) -> Option<Departed> {
    let mut fields = std::str::from_utf8(value).ok()?.split('\t').map(Box::<str>::from);
    Some(Departed {
        tenant: fields.next()?,
        stream: fields.next()?,
        sender: fields.next()?,
        message_id: fields.next().filter(|id| !id.is_empty()),
        recipients: fields.collect(),
    })
}

fn trail_row(id: SpoolId, domain: &Domain) -> Vec<u8> {
    [id.as_bytes(), domain.as_str().as_bytes()].concat()
}

fn write_trail(trail: &Trail) -> String {
    let clean = |text: &str| text.replace('\t', " ");
    let mut out = [trail.exit.as_deref().unwrap_or(""), &trail.site].map(clean).join("\t");
    for host in &trail.hosts {
        out.push('\t');
        out.push_str(host.as_str());
    }
    out
}

fn read_trail(value: &[u8]) -> Option<Trail> {
    let mut fields = std::str::from_utf8(value).ok()?.split('\t');
    Some(Trail {
        exit: fields.next().filter(|exit| !exit.is_empty()).map(Into::into),
        site: fields.next()?.into(),
        hosts: fields.filter_map(|host| host.parse().ok()).collect(),
    })
}

impl FeedbackStore {
    /// What hangs on a departure goes before it: what is left after a failure is found again by the departure.
    fn try_forget(&self, before: Timestamp) -> Result<(), fjall::Error> {
        // Ids sort by the time they were made: the old ones stand at the beginning.
        for row in self.departed.iter() {
            let (id, value) = row.into_inner()?;
            let Ok(octets) = <[u8; 16]>::try_from(&*id) else { continue };
            if SpoolId::from_bytes(octets).created() >= before {
                break;
            }
            if let Some(message_id) = read_departed(&value).and_then(|departed| departed.message_id) {
                self.ids.remove(&*message_id)?;
            }
            for row in self.trails.prefix(octets) {
                self.trails.remove(row.key()?)?;
            }
            self.departed.remove(octets)?;
        }
        Ok(())
    }
}

impl Journal for FeedbackStore {
    fn note(&self, id: SpoolId, departed: &Departed, _: Timestamp) {
        let noted = self.departed.insert(*id.as_bytes(), write_departed(departed));
        let indexed = match departed.message_id.as_deref().filter(|id| id.len() <= MESSAGE_ID_MAX) {
            Some(message_id) => self.ids.insert(message_id, *id.as_bytes()),
            None => Ok(()),
        };
        if let Err(error) = noted.and(indexed) {
            tracing::error!(%error, %id, "a departure is not remembered: its bounces will not be matched");
        }
    }

    fn took(&self, id: SpoolId, domain: &Domain, trail: &Trail) {
        if let Err(error) = self.trails.insert(trail_row(id, domain), write_trail(trail)) {
            tracing::error!(%error, %id, "the way of a message is not remembered: its bounces will slow nothing down");
        }
    }

    fn trail(&self, id: SpoolId, domain: &Domain) -> Option<Trail> {
        read_trail(&self.trails.get(trail_row(id, domain)).ok()??)
    }

    fn find(&self, id: SpoolId) -> Option<Departed> {
        read_departed(&self.departed.get(id.as_bytes()).ok()??)
    }

    fn by_message_id(&self, message_id: &str) -> Option<(SpoolId, Departed)> {
        let id = self.ids.get(message_id.get(..MESSAGE_ID_MAX).unwrap_or(message_id)).ok()??;
        let id = SpoolId::from_bytes(<[u8; 16]>::try_from(&*id).ok()?);
        Some((id, self.find(id)?))
    }

    fn forget(&self, before: Timestamp) {
        if let Err(error) = self.try_forget(before) {
            tracing::warn!(%error, "old departures were not forgotten; they will be when this is tried again");
        }
    }
}

impl std::fmt::Debug for FeedbackStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FeedbackStore")
    }
}

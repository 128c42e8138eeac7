//! What is on the disk: the keyspaces of the store, how they are opened and read.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `meta` | `format` | format version, u32 little-endian |
//! | `entries` | id | number of pieces, u32 little-endian, then the entry as [`codec`](crate::codec) writes it |
//! | `bodies` | id, piece number u32 big-endian | at most 256 KiB of the body and their checksum; large values lie apart |
//! | `controls` | key | value |
//! | `quarantine` | id | length of the reason, u32 little-endian, the reason, then the value of `entries` as it was |
//!
//! Invariant: what is returned was checked: version, checksum, id and length. A format version that this code does
//! not know is refused before anything is written.
//!
//! Migration: a new format gets a new number and a step that rewrites the old one when it is opened; a spool of a
//! later format is refused, so going back means exporting with the newer program.
//!
//! Not here: writing (writer).

use std::io::ErrorKind;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError};

use super::EmbeddedOptions;
use super::journal::{self, JournalDamage};
use super::making;
use super::prepare::split;
use crate::codec::DecodeError;
use crate::error::{Damage, DamageReason, SpoolError};
use crate::spool::{Item, Loaded, Page};
use crate::{Entry, SpoolId, body, check};

/// The format that this code writes.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "format";
/// Journals that may lie on the disk before memory is flushed to make them superfluous: the least that the store takes.
/// At the start all of them are read and replayed, which takes about 8 ms for a MiB, so they decide how soon a server
/// accepts again.
const JOURNALS: u64 = 64 * 1024 * 1024;
/// What is gathered in memory before it is flushed: bodies, and everything else. A journal ends at the first flush after
/// 64 MB, so that less here is less to replay.
const BODIES_IN_MEMORY: u64 = 16 * 1024 * 1024;
const REST_IN_MEMORY: u64 = 8 * 1024 * 1024;
/// Values from this size on lie in files of their own, so that compaction does not move them.
const APART: u32 = 1024;
/// A file of large values is rewritten once so much of it is no longer needed.
const STALE: f32 = 0.25;

/// An open store.
pub(super) struct Store {
    pub(super) db: Database,
    pub(super) entries: Keyspace,
    pub(super) bodies: Keyspace,
    pub(super) controls: Keyspace,
    pub(super) quarantine: Keyspace,
    /// What was found wrong with the journals when it was opened.
    pub(super) damage: Vec<JournalDamage>,
}

/// An error of the store that is not the damage of one record.
pub(super) fn unavailable(error: fjall::Error) -> SpoolError {
    if is_full(&error) {
        return SpoolError::Full { free: 0, min: 0 };
    }
    SpoolError::Unavailable(error.to_string().into())
}

/// Whether there is no room, by the disk, a quota or a limit: it passes, and it is back-pressure.
fn is_full(error: &fjall::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        }
        _ => false,
    }
}

/// Whether this account may not write there, which no backup mends.
fn is_denied(error: &fjall::Error) -> bool {
    use ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
        }
        _ => false,
    }
}

/// An error while one message was read: damage if the store found its own octets changed.
fn reading(id: SpoolId, error: fjall::Error) -> SpoolError {
    match &error {
        fjall::Error::Storage(inner) if !matches!(inner, LsmError::Io(_)) => {
            damaged(id, DamageReason::Store(error.to_string().into()))
        }
        _ => unavailable(error),
    }
}

fn damaged(id: SpoolId, reason: DamageReason) -> SpoolError {
    SpoolError::Damaged(Damage { id, reason, quarantined: false })
}

pub(super) fn piece_key(id: SpoolId, index: u32) -> [u8; 20] {
    let mut key = [0; 20];
    let (head, tail) = key.split_at_mut(16);
    head.copy_from_slice(id.as_bytes());
    tail.copy_from_slice(&index.to_be_bytes());
    key
}

/// Octets that the disk of a path has free for us, if it says so.
pub(super) fn free_space(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Store {
    /// Opens the store, or makes one. One whose making was cut short, in which nothing was ever acknowledged, is put aside
    /// and made again.
    pub(super) fn open(options: &EmbeddedOptions) -> Result<Store, SpoolError> {
        making::directory(&options.path)?;
        if making::is_complete(&options.path) {
            return Store::open_files(options);
        }
        let store = match Store::open_files(options) {
            Err(SpoolError::Unavailable(_)) if making::put_aside(&options.path)? => {
                Store::open_files(options)?
            }
            opened => opened?,
        };
        making::complete(&options.path)?;
        Ok(store)
    }

    fn open_files(options: &EmbeddedOptions) -> Result<Store, SpoolError> {
        let damage = journal::mend(&options.path)?;
        let opened = Database::builder(&options.path)
            .cache_size(options.block_cache)
            .max_journaling_size(JOURNALS)
            .worker_threads(2)
            .open();
        let db = opened.map_err(|error| match error {
            fjall::Error::Locked => SpoolError::Locked(options.path.display().to_string().into()),
            other if is_full(&other) => SpoolError::Full { free: 0, min: 0 },
            other if is_denied(&other) => SpoolError::Unavailable(
                format!(
                    "cannot write in {}: {other}; give the folder and everything in it to the account that runs this",
                    options.path.display()
                )
                .into(),
            ),
            other => SpoolError::Unavailable(
                format!(
                    "the store in {} cannot be read: {other}; nothing was changed: keep a copy of the directory and \
                     restore it from a backup",
                    options.path.display()
                )
                .into(),
            ),
        })?;
        let plain = || KeyspaceCreateOptions::default().max_memtable_size(REST_IN_MEMORY);
        let meta = db.keyspace("meta", plain).map_err(unavailable)?;
        check_format(&db, &meta)?;
        let apart = KvSeparationOptions::default()
            .separation_threshold(APART)
            .staleness_threshold(STALE)
            .file_target_size(BODIES_IN_MEMORY);
        let bodies = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(BODIES_IN_MEMORY)
                .with_kv_separation(Some(apart.clone()))
        };
        Ok(Store {
            entries: db.keyspace("entries", plain).map_err(unavailable)?,
            bodies: db.keyspace("bodies", bodies).map_err(unavailable)?,
            controls: db.keyspace("controls", plain).map_err(unavailable)?,
            quarantine: db.keyspace("quarantine", plain).map_err(unavailable)?,
            db,
            damage,
        })
    }

    pub(super) fn is_empty(&self) -> Result<bool, SpoolError> {
        self.entries.is_empty().map_err(unavailable)
    }

    /// The value of an entry, unchecked.
    pub(super) fn raw_entry(&self, id: SpoolId) -> Result<Option<Bytes>, SpoolError> {
        let value = self.entries.get(id.as_bytes()).map_err(|error| reading(id, error))?;
        Ok(value.map(Bytes::from))
    }

    fn value(&self, id: SpoolId) -> Result<Bytes, SpoolError> {
        if let Some(value) = self.raw_entry(id)? {
            return Ok(value);
        }
        let put_aside = self.quarantine.get(id.as_bytes()).map_err(unavailable)?;
        Err(match put_aside {
            Some(record) => SpoolError::Damaged(put_aside_damage(id, &record)),
            None => SpoolError::NotFound(id),
        })
    }

    pub(super) fn entry(&self, id: SpoolId) -> Result<Entry, SpoolError> {
        decode(id, &self.value(id)?).map_err(|reason| damaged(id, reason))
    }

    pub(super) fn load(&self, id: SpoolId) -> Result<Loaded, SpoolError> {
        let value = self.value(id)?;
        let (pieces, _) = split(&value).ok_or_else(|| damaged(id, DecodeError::Truncated.into()))?;
        let mut records = Vec::new();
        for index in 0..pieces {
            match self.record(id, index)? {
                Some(record) => records.push(record),
                // The length will not agree.
                None => break,
            }
        }
        assemble(id, &value, records)
    }

    pub(super) fn piece(&self, id: SpoolId, index: u32) -> Result<Option<Bytes>, SpoolError> {
        let value = self.value(id)?;
        let (pieces, _) = split(&value).ok_or_else(|| damaged(id, DecodeError::Truncated.into()))?;
        if index >= pieces {
            return Ok(None);
        }
        let broken = DamageReason::BodyChecksum(index);
        let record = self.record(id, index)?.ok_or_else(|| damaged(id, broken))?;
        body::open(&record, index).map(Some).map_err(|reason| damaged(id, reason))
    }

    fn record(&self, id: SpoolId, index: u32) -> Result<Option<Bytes>, SpoolError> {
        let record = self.bodies.get(piece_key(id, index)).map_err(|error| reading(id, error))?;
        Ok(record.map(Bytes::from))
    }

    pub(super) fn controls(&self) -> Result<Page, SpoolError> {
        let mut items = Vec::new();
        for guard in self.controls.iter() {
            let (key, value) = guard.into_inner().map_err(unavailable)?;
            let key = String::from_utf8_lossy(&key).into();
            items.push(Item::Control { key, value: value.into() });
        }
        Ok(Page { items, next: None })
    }

    /// A page of messages by id, those that were put aside included.
    pub(super) fn page(&self, after: Option<SpoolId>, limit: usize) -> Result<Page, SpoolError> {
        let limit = limit.max(1);
        let mut found = self.rows(&self.entries, after, limit, |id, value| match decode(id, value) {
            Ok(entry) => Item::Entry(Box::new(entry)),
            Err(reason) => Item::Damaged(Damage { id, reason, quarantined: false }),
        })?;
        let aside = |id, record: &[u8]| Item::Damaged(put_aside_damage(id, record));
        found.append(&mut self.rows(&self.quarantine, after, limit, aside)?);
        found.sort_by_key(|(id, _)| *id);
        let more = found.len() >= limit;
        found.truncate(limit);
        let next = found.last().map(|(id, _)| *id).filter(|_| more);
        Ok(Page { items: found.into_iter().map(|(_, item)| item).collect(), next })
    }

    fn rows(
        &self,
        keyspace: &Keyspace,
        after: Option<SpoolId>,
        limit: usize,
        read: impl Fn(SpoolId, &[u8]) -> Item,
    ) -> Result<Vec<(SpoolId, Item)>, SpoolError> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().to_vec()));
        let mut rows = Vec::new();
        for guard in keyspace.range((from, Bound::Unbounded)).take(limit) {
            let (key, value) = guard.into_inner().map_err(unavailable)?;
            // A key of another length is not ours.
            if let Ok(id) = <[u8; 16]>::try_from(&*key) {
                let id = SpoolId::from_bytes(id);
                rows.push((id, read(id, &value)));
            }
        }
        Ok(rows)
    }
}

fn check_format(db: &Database, meta: &Keyspace) -> Result<(), SpoolError> {
    match meta.get(FORMAT_KEY).map_err(unavailable)? {
        None => {
            let mut batch = db.batch().durability(Some(fjall::PersistMode::SyncAll));
            batch.insert(meta, FORMAT_KEY, FORMAT.to_le_bytes());
            batch.commit().map_err(unavailable)
        }
        Some(value) => match <[u8; 4]>::try_from(&*value).map(u32::from_le_bytes) {
            Ok(FORMAT) => Ok(()),
            Ok(found) => Err(SpoolError::Format { found, known: FORMAT }),
            Err(_) => Err(SpoolError::Format { found: 0, known: FORMAT }),
        },
    }
}

fn decode(id: SpoolId, value: &[u8]) -> Result<Entry, DamageReason> {
    let (_, code) = split(value).ok_or(DecodeError::Truncated)?;
    check::entry(id, code)
}

/// Puts an entry and the records of its body together.
pub(super) fn assemble(id: SpoolId, value: &[u8], records: Vec<Bytes>) -> Result<Loaded, SpoolError> {
    let entry = decode(id, value).map_err(|reason| damaged(id, reason))?;
    let body = body::unpack(records, entry.size).map_err(|reason| damaged(id, reason))?;
    Ok(Loaded { entry, body })
}

/// The value under which a damaged entry is put aside.
pub(super) fn put_aside_value(reason: &str, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(4 + reason.len() + value.len());
    record.extend_from_slice(&u32::try_from(reason.len()).unwrap_or(0).to_le_bytes());
    record.extend_from_slice(reason.as_bytes());
    record.extend_from_slice(value);
    record
}

fn put_aside_damage(id: SpoolId, record: &[u8]) -> Damage {
    let reason = split(record).and_then(|(len, rest)| rest.get(..usize::try_from(len).ok()?));
    let reason = String::from_utf8_lossy(reason.unwrap_or(b"unknown")).into();
    Damage { id, reason: DamageReason::Store(reason), quarantined: true }
}

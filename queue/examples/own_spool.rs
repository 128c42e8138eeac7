//! A spool of your own, whole: every commit is one file, synced before it counts, and all of them are read again at the
//! start. `main` shows that it keeps the contract.
//!
//! Invariant: a commit is there once its file has its name and the name is synced; a file without it never counted.
//!
//! Not here: speed (each commit waits for a sync of its own), and files that are ever removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes};
use postwright_core::{BoxFuture, Message, Timestamp};
use postwright_queue::spool::PIECE_MAX;
use postwright_queue::{
    Change, Claim, Claimed, Condition, Entry, Health, Item, Loaded, Page, Scan, Spool, SpoolError, SpoolId,
    Want, check, codec, contract,
};

/// What the files add up to.
#[derive(Clone, Default)]
struct State {
    messages: BTreeMap<SpoolId, (Entry, Bytes)>,
    controls: BTreeMap<Box<str>, Bytes>,
    /// What nobody works on.
    free: BTreeSet<SpoolId>,
    commits: u64,
}

struct FileSpool {
    folder: PathBuf,
    state: Mutex<State>,
}

impl FileSpool {
    fn open(folder: &Path) -> io::Result<FileSpool> {
        let mut state = State::default();
        loop {
            match fs::read(file(folder, state.commits)) {
                Ok(octets) => state.read(octets.into()).ok_or(io::ErrorKind::InvalidData)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
            state.commits += 1;
        }
        state.free = state.messages.keys().copied().collect();
        Ok(FileSpool { folder: folder.to_owned(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, number: u64, octets: &[u8]) -> io::Result<()> {
        let (unfinished, finished) = (self.folder.join("unfinished"), file(&self.folder, number));
        let mut file = File::create(&unfinished)?;
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(&unfinished, finished)?;
        File::open(&self.folder)?.sync_all() // the name is durable now, and with it the commit
    }

    fn commit_now(&self, changes: Vec<Change>) -> Result<Vec<Claim>, SpoolError> {
        check::changes(&changes)?;
        let mut state = self.state();
        let (mut next, mut octets) = (state.clone(), Vec::new());
        let made = changes.into_iter().map(|change| next.make(change, &mut octets));
        let claims: Vec<Option<Claim>> = made.collect::<Result<_, _>>()?;
        self.write(next.commits, &octets)
            .map_err(|error| SpoolError::Unavailable(error.to_string().into()))?;
        next.commits += 1;
        *state = next;
        Ok(claims.into_iter().flatten().collect())
    }
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}"))
}

fn record(octets: &mut Vec<u8>, kind: u8, key: &[u8], value: &[u8]) {
    octets.put_u8(kind);
    for part in [key, value] {
        octets.put_u64(part.len() as u64);
        octets.put_slice(part);
    }
}

impl State {
    /// Makes a change here and writes it down. A message that was put has a claim.
    fn make(&mut self, change: Change, octets: &mut Vec<u8>) -> Result<Option<Claim>, SpoolError> {
        match change {
            Change::Put { mut entry, body } => {
                let claim = Claim { id: entry.id, epoch: 0 };
                if let std::collections::btree_map::Entry::Vacant(slot) = self.messages.entry(entry.id) {
                    let body: Bytes = body.chunks().flatten().copied().collect();
                    entry.size = body.len() as u64;
                    record(octets, b'e', entry.id.as_bytes(), &codec::encode(&entry));
                    record(octets, b'b', entry.id.as_bytes(), &body);
                    slot.insert((entry, body));
                }
                return Ok(Some(claim));
            }
            Change::Update { claim, entry } => {
                record(octets, b'e', claim.id.as_bytes(), &codec::encode(&entry));
                self.held(claim)?.0 = entry;
            }
            Change::Remove { claim } => {
                self.held(claim)?;
                record(octets, b'r', claim.id.as_bytes(), b"");
                self.messages.remove(&claim.id);
            }
            Change::Release { claim } => {
                self.held(claim)?;
                self.free.insert(claim.id);
            }
            Change::Control { key, value: Some(value) } => {
                record(octets, b'c', key.as_bytes(), &value);
                self.controls.insert(key, value);
            }
            Change::Control { key, value: None } => {
                record(octets, b'd', key.as_bytes(), b"");
                self.controls.remove(&key);
            }
        }
        Ok(None)
    }

    /// What a claim is for, if it is still worth something.
    fn held(&mut self, claim: Claim) -> Result<&mut (Entry, Bytes), SpoolError> {
        if self.free.contains(&claim.id) {
            return Err(SpoolError::Fenced(claim.id));
        }
        self.messages.get_mut(&claim.id).ok_or(SpoolError::NotFound(claim.id))
    }

    /// Makes the changes of a file; `None` if it is not one of ours.
    fn read(&mut self, mut octets: Bytes) -> Option<()> {
        while octets.has_remaining() {
            let kind = octets.get_u8();
            let (key, value) = (part(&mut octets)?, part(&mut octets)?);
            let id = || Some(SpoolId::from_bytes(key.as_ref().try_into().ok()?));
            let name = || Some(Box::<str>::from(std::str::from_utf8(&key).ok()?));
            match kind {
                b'e' => {
                    let entry = check::entry(id()?, &value).ok()?;
                    let body = self.messages.remove(&id()?).map(|(_, body)| body);
                    self.messages.insert(id()?, (entry, body.unwrap_or_default()));
                }
                b'b' => self.messages.get_mut(&id()?)?.1 = value,
                b'r' => drop(self.messages.remove(&id()?)),
                b'c' => drop(self.controls.insert(name()?, value)),
                b'd' => drop(self.controls.remove(&name()?)),
                _ => return None,
            }
        }
        Some(())
    }
}

fn part(octets: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(octets.try_get_u64().ok()?).ok()?;
    (length <= octets.len()).then(|| octets.split_to(length))
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Spool for FileSpool {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<Claim>, SpoolError>> {
        ready(self.commit_now(changes))
    }

    fn claim(&self, want: Want, _: Timestamp) -> BoxFuture<'_, Result<Vec<Claimed>, SpoolError>> {
        let mut state = self.state();
        let mut claimed = Vec::new();
        while claimed.len() < want.limit
            && let Some(id) = state.free.pop_first()
        {
            let entry = state.messages.get(&id).map(|(entry, _)| entry.clone());
            claimed.extend(entry.map(|entry| Claimed { claim: Claim { id, epoch: 0 }, entry }));
        }
        ready(Ok(claimed))
    }

    fn renew<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claim>, SpoolError>> {
        let mut state = self.state();
        ready(Ok(claims.iter().copied().filter(|claim| state.held(*claim).is_err()).collect()))
    }

    fn load(&self, id: SpoolId) -> BoxFuture<'_, Result<Loaded, SpoolError>> {
        let found = self.state().messages.get(&id).cloned().ok_or(SpoolError::NotFound(id));
        ready(found.map(|(entry, body)| Loaded { entry, body: Message::from_bytes(body) }))
    }

    fn piece(&self, id: SpoolId, index: u32) -> BoxFuture<'_, Result<Option<Bytes>, SpoolError>> {
        let found = self.state().messages.get(&id).cloned().ok_or(SpoolError::NotFound(id));
        let nth =
            |body: &Bytes| body.chunks(PIECE_MAX).nth(index as usize).map(|piece| body.slice_ref(piece));
        ready(found.map(|(_, body)| nth(&body)))
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Page, SpoolError>> {
        let state = self.state();
        let page = match scan {
            Scan::Messages { after, limit } => {
                let behind = |id: &SpoolId| after.is_none_or(|after| *id > after);
                let mut items: Vec<&Entry> = state
                    .messages
                    .values()
                    .map(|(entry, _)| entry)
                    .filter(|entry| behind(&entry.id))
                    .collect();
                let next = items.get(limit).and(limit.checked_sub(1)).and_then(|last| items.get(last));
                let next = next.map(|entry| entry.id);
                items.truncate(limit);
                Page {
                    items: items.into_iter().map(|entry| Item::Entry(Box::new(entry.clone()))).collect(),
                    next,
                }
            }
            Scan::Controls => {
                let controls = state.controls.clone().into_iter();
                Page {
                    items: controls.map(|(key, value)| Item::Control { key, value }).collect(),
                    next: None,
                }
            }
        };
        ready(Ok(page))
    }

    fn health(&self) -> Health {
        let commits = self.state().commits;
        Health {
            condition: Condition::Healthy,
            free: None,
            sync_latency: None,
            commits,
            syncs: commits,
            reopened: 0,
            quarantined: 0,
        }
    }
}

/// The spool under test: a crash is to forget all but the files.
struct Subject {
    folder: tempfile::TempDir,
    spool: FileSpool,
}

impl contract::Subject for Subject {
    fn spool(&self) -> &dyn Spool {
        &self.spool
    }

    fn crash(&mut self) -> BoxFuture<'_, ()> {
        match FileSpool::open(self.folder.path()) {
            Ok(spool) => self.spool = spool,
            Err(error) => panic!("its own files are not read again: {error}"),
        }
        ready(())
    }
}

fn main() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let spool = FileSpool::open(folder.path())?;
    contract::block_on(contract::check(&mut Subject { folder, spool }));
    writeln!(io::stdout(), "it keeps the contract")
}

#[test]
fn it_keeps_the_contract() {
    assert!(main().is_ok());
}

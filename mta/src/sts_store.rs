//! MTA-STS policies on disk, one file a domain.
//!
//! Invariant: a policy that was saved is read back whole after any crash: it is written beside its place, synced,
//! and moved there. A file that cannot be read is an error and never "no policy", because a domain that asked for
//! protection must not lose it to a broken disk; mail to it waits until the file is mended or removed.
//!
//! Standards: RFC 8461 10.2 (keeping policies over restarts).
//!
//! Not here: how long a policy holds (smtp-client's `sts`).

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use postwright_core::{BoxFuture, Domain, Timestamp};
use postwright_smtp_client::sts::{Kept, POLICY_MAX, Policy, Store};
use tokio::task::spawn_blocking;

/// Octets of a file beyond the policy: the two lines before it.
const HEAD_MAX: usize = 256;

/// A folder of policies.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    /// Names what is being written, so that two of it never meet.
    written: AtomicU64,
}

impl FileStore {
    /// Opens a folder, making it if need be. What a crash left half-written is removed.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>) -> std::io::Result<FileStore> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(FileStore { folder, written: AtomicU64::new(0) })
    }

    /// A domain of letters, digits, hyphens and dots is a file name as it is, and never a hidden one.
    fn place(&self, domain: &Domain) -> PathBuf {
        self.folder.join(domain.as_str())
    }
}

impl Store for FileStore {
    fn load<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Option<Kept>, String>> {
        let place = self.place(domain);
        Box::pin(blocking(move || read(&place)))
    }

    fn save<'a>(&'a self, domain: &'a Domain, kept: &'a Kept) -> BoxFuture<'a, Result<(), String>> {
        let place = self.place(domain);
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!(".new-{number}"));
        let text = format!("id: {}\nat: {}\n{}", kept.id, kept.at.millis(), kept.policy);
        Box::pin(blocking(move || {
            write(&beside, &place, text.as_bytes()).map_err(|error| format!("{}: {error}", place.display()))
        }))
    }

    fn domains(&self) -> BoxFuture<'_, Result<Vec<Domain>, String>> {
        let folder = self.folder.clone();
        Box::pin(blocking(move || {
            let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
            let mut domains = Vec::new();
            for entry in fs::read_dir(&folder).map_err(wrong)? {
                let name = entry.map_err(wrong)?.file_name();
                domains.extend(name.to_str().and_then(|name| name.parse().ok()));
            }
            domains.sort();
            Ok(domains)
        }))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn read(place: &Path) -> Result<Option<Kept>, String> {
    let text = match fs::read(place) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", place.display())),
    };
    parse(&text).map(Some).ok_or_else(|| format!("{} cannot be read; remove or mend it", place.display()))
}

fn parse(text: &[u8]) -> Option<Kept> {
    if text.len() > POLICY_MAX + HEAD_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let (id, rest) = text.strip_prefix("id: ")?.split_once('\n')?;
    let (at, rest) = rest.strip_prefix("at: ")?.split_once('\n')?;
    let policy = Policy::parse(rest.as_bytes()).ok()?;
    Some(Kept { policy, id: id.into(), at: Timestamp::from_millis(at.parse().ok()?) })
}

/// Writes beside the place and moves there, so that the place has the old text or the new one.
pub(crate) fn write(beside: &Path, place: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(beside, place)?;
    match place.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

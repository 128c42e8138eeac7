//! How a store comes to be: its folder, its names made durable, and a mark that says that it is whole.
//!
//! The store below syncs the files that it makes, but not the names of all its folders: after a power cut a new spool could
//! be there without them, and with it everything that was synced into them. So the names are synced here, once, before
//! anything is accepted.
//!
//! Invariant: a store without the mark has never acknowledged anything.
//!
//! Standards: POSIX.1-2017 `fsync` (a name is durable when its folder was synced).
//!
//! Not here: what is in the store (store).

use std::fs::{DirBuilder, File};
use std::io;
use std::path::Path;

use crate::error::SpoolError;

/// The mark.
const COMPLETE: &str = "complete";
/// What the store below makes in the folder of a spool, journals aside.
const PARTS: [&str; 3] = ["lock", "version", "keyspaces"];

fn failed(doing: &str, path: &Path, error: &io::Error) -> SpoolError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
        return SpoolError::Full { free: 0, min: 0 };
    }
    SpoolError::Unavailable(format!("cannot {doing} {}: {error}", path.display()).into())
}

/// Makes the folder, readable by nobody else, since mail lies in it, and makes its name in its parent durable. A folder
/// that is there keeps the permissions that somebody gave it.
pub(super) fn directory(path: &Path) -> Result<(), SpoolError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let make = || {
        std::fs::create_dir_all(parent)?;
        let mut folder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        match folder.create(path) {
            // Another process made it in between, and the lock decides.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }?;
        sync(parent)
    };
    make().map_err(|error| failed("make", path, &error))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn is_complete(spool: &Path) -> bool {
    spool.join(COMPLETE).exists()
}

/// Makes all names in a new store durable, and then the mark.
pub(super) fn complete(spool: &Path) -> Result<(), SpoolError> {
    let work = || {
        sync_below(spool)?;
        File::create(spool.join(COMPLETE))?.sync_all()?;
        sync(spool)
    };
    work().map_err(|error| failed("complete", spool, &error))
}

/// The folder and all folders in it, the inner ones first.
fn sync_below(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_below(&entry.path())?;
        }
    }
    sync(folder)
}

/// Moves what there is of an unfinished store to where nothing trips over it; `false` if there is nothing of one.
pub(super) fn put_aside(spool: &Path) -> Result<bool, SpoolError> {
    let work = || {
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(spool)? {
            let path = entry?.path();
            let is_journal = path.extension().is_some_and(|ending| ending == "jnl");
            if is_journal || path.file_name().is_some_and(|name| PARTS.iter().any(|part| name == *part)) {
                parts.push(path);
            }
        }
        if parts.is_empty() {
            return Ok(false);
        }
        let mut number = 1u32;
        let mut target = spool.join("damaged").join("unfinished.1");
        while target.exists() {
            number += 1;
            target.set_file_name(format!("unfinished.{number}"));
        }
        std::fs::create_dir_all(&target)?;
        for part in parts {
            let name = part.file_name().unwrap_or_default().to_owned();
            std::fs::rename(&part, target.join(name))?;
        }
        sync_below(&spool.join("damaged"))?;
        sync(spool)?;
        Ok(true)
    };
    work().map_err(|error: io::Error| failed("put aside what there is of", spool, &error))
}

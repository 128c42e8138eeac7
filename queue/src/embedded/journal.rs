//! A look at the journals before the store reads them, since the store reads a journal up to the first batch that it
//! cannot read and cuts off the rest without a word.
//!
//! A journal is a row of batches: a start (`1`, count, sequence number), items (`2`, ..) or clearings (`4`, ..), and an
//! end (`3`, checksum of the items, [`MAGIC`]); zeros follow, since the file is made longer in advance. A batch that was
//! being written when the process or the machine stopped has no end: that is no damage, nobody was told that it is there. An
//! end somewhere behind the first unreadable batch means that something was written, and perhaps synced, that cannot be
//! read now.
//!
//! Invariant: nothing is cut off that has not been copied aside first, and every whole batch behind a damaged one stays.
//! A journal in which nothing is wrong is not touched.
//!
//! Not here: damage in the tables of the store (it checks their blocks when it reads them); a journal that was made
//! shorter between two batches, which looks like one that was never longer.

use std::fs::{File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::error::SpoolError;

/// What a batch ends with.
const MAGIC: &[u8] = b"FJL\x03";
/// The folder in a spool that damaged journals are copied to.
const ASIDE: &str = "damaged";
/// Longest key and value that we write, with room to spare: a length beyond is no length.
const KEY_MAX: usize = 4096;
const VALUE_MAX: usize = 64 * 1024 * 1024;

/// A journal in which something cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalDamage {
    /// The name of its file.
    pub file: String,
    /// The octet that the first unreadable batch begins at.
    pub at: u64,
    /// Octets that cannot be read: commits that are lost, or were never acknowledged.
    pub unreadable: u64,
    /// Whole batches behind the first unreadable one, all of which are kept.
    pub saved: u64,
    /// The journal as it was found.
    pub copy: PathBuf,
}

impl std::fmt::Display for JournalDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let JournalDamage { file, at, unreadable, saved, copy } = self;
        write!(
            f,
            "journal {file} is damaged from octet {at} on: {unreadable} octets cannot be read, {saved} commits behind them \
             are kept; as it was, it is in {}",
            copy.display()
        )
    }
}

/// Looks through all journals of a spool that nobody has open, and mends those that are damaged.
pub(super) fn mend(spool: &Path) -> Result<Vec<JournalDamage>, SpoolError> {
    let failed = |error: io::Error| {
        SpoolError::Unavailable(format!("{}: cannot read the journals: {error}", spool.display()).into())
    };
    let Ok(lock) = File::options().read(true).write(true).open(spool.join("lock")) else {
        // There is no store yet.
        return Ok(Vec::new());
    };
    if !acquire(&lock).map_err(failed)? {
        return Err(SpoolError::Locked(spool.display().to_string().into()));
    }
    let mut found = Vec::new();
    for path in journals(spool).map_err(failed)? {
        found.extend(mend_one(spool, &path).map_err(failed)?);
    }
    Ok(found)
}

/// The copies that were made so far, by this opening or an earlier one.
pub(super) fn copies(spool: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(spool.join(ASIDE)).into_iter().flatten().flatten();
    let mut copies: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    copies.sort();
    copies
}

/// The lock of the store, for as long as the file is open. A process that just ended may hold it for a moment.
fn acquire(lock: &File) -> io::Result<bool> {
    for _ in 0..3 {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(Duration::from_millis(100)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

fn journals(spool: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(spool)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "jnl") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn mend_one(spool: &Path, path: &Path) -> io::Result<Option<JournalDamage>> {
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(path)?);
    let (mut at, mut scratch) = (0, Vec::new());
    while let Some(len) = batch(&mut reader, &mut scratch)? {
        at += len;
    }
    let tail = rest(reader.into_inner(), at)?;
    if find(&tail).is_none() {
        return Ok(None);
    }
    let (ranges, saved) = whole_batches(&tail);
    let copy = copy_aside(spool, path)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The store does not read files with this ending.
    let mended = path.with_extension("mended");
    let mut out = BufWriter::new(File::create(&mended)?);
    io::copy(&mut File::open(path)?.take(at), &mut out)?;
    let mut kept = 0;
    for range in ranges {
        let range = tail.get(range).unwrap_or_default();
        kept += range.len();
        out.write_all(range)?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&mended, path)?;
    File::open(spool)?.sync_all()?;
    let unreadable = u64::try_from(tail.len() - kept).unwrap_or(u64::MAX);
    Ok(Some(JournalDamage { file: name, at, unreadable, saved, copy }))
}

/// What is behind `at`, without the zeros at the end.
fn rest(mut file: File, at: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let (mut tail, mut piece, mut zeros) = (Vec::new(), vec![0; 256 * 1024], 0usize);
    loop {
        let count = file.read(&mut piece)?;
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else { return Ok(tail) };
        match read.iter().rposition(|octet| *octet != 0) {
            // Zeros are only kept when something follows them.
            None => zeros += read.len(),
            Some(last) => {
                tail.resize(tail.len() + zeros, 0);
                tail.extend_from_slice(read.get(..=last).unwrap_or_default());
                zeros = read.len() - last - 1;
            }
        }
    }
}

fn find(octets: &[u8]) -> Option<usize> {
    octets.windows(MAGIC.len()).position(|window| window == MAGIC)
}

/// Where whole batches stand behind an unreadable one, and how many there are.
fn whole_batches(tail: &[u8]) -> (Vec<std::ops::Range<usize>>, u64) {
    let (mut ranges, mut saved, mut scratch) = (Vec::new(), 0, Vec::new());
    let mut at = 0;
    while let Some(next) = tail.get(at..).and_then(find_start) {
        at += next;
        let start = at;
        // Reading from memory does not fail.
        while let Ok(Some(len)) = batch(&mut tail.get(at..).unwrap_or_default(), &mut scratch) {
            at += usize::try_from(len).unwrap_or(usize::MAX);
            saved += 1;
        }
        if at > start {
            ranges.push(start..at);
        } else {
            at += 1;
        }
    }
    (ranges, saved)
}

/// Where a batch may begin: a start with an item or a clearing behind it.
fn find_start(octets: &[u8]) -> Option<usize> {
    octets.windows(14).position(|window| matches!(window, [1, .., 2 | 4]))
}

/// Reads one batch; its length if it is whole and its checksum agrees.
fn batch(reader: &mut impl Read, scratch: &mut Vec<u8>) -> io::Result<Option<u64>> {
    match parse(reader, scratch) {
        Ok(len) => Ok(len),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(reader: &mut impl Read, scratch: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let [1, count @ .., _, _, _, _, _, _, _, _] = array::<13>(reader)? else { return Ok(None) };
    let (mut len, mut sum) = (13, Xxh3::new());
    for _ in 0..u32::from_le_bytes(count) {
        let [tag] = array(reader)?;
        sum.update(&[tag]);
        match tag {
            2 => {
                // Kind, compression, keyspace, length of the key, lengths of the value: whole, and as it stands here.
                let head = array::<20>(reader)?;
                sum.update(&head);
                let [kind, 0, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = head else {
                    return Ok(None);
                };
                let key = usize::from(u16::from_le_bytes([k0, k1]));
                let value = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).unwrap_or(usize::MAX);
                if kind > 4 || key > KEY_MAX || value > VALUE_MAX {
                    return Ok(None);
                }
                scratch.resize(key + value, 0);
                reader.read_exact(scratch)?;
                sum.update(scratch);
                len += 21 + u64::try_from(scratch.len()).unwrap_or(u64::MAX);
            }
            4 => {
                sum.update(&array::<8>(reader)?);
                len += 9;
            }
            _ => return Ok(None),
        }
    }
    let [3, checksum @ .., m0, m1, m2, m3] = array::<13>(reader)? else { return Ok(None) };
    let is_whole = [m0, m1, m2, m3] == MAGIC && u64::from_le_bytes(checksum) == sum.digest();
    Ok(is_whole.then_some(len + 13))
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    reader.read_exact(&mut octets)?;
    Ok(octets)
}

/// Copies a journal, without the zeros at its end, to where nobody touches it, and makes the copy durable.
fn copy_aside(spool: &Path, path: &Path) -> io::Result<PathBuf> {
    let folder = spool.join(ASIDE);
    std::fs::create_dir_all(&folder)?;
    File::open(spool)?.sync_all()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 1u32.. {
        let target = folder.join(format!("{name}.{number}"));
        let mut file = match File::create_new(&target) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        file.write_all(&rest(File::open(path)?, 0)?)?;
        file.sync_all()?;
        File::open(&folder)?.sync_all()?;
        return Ok(target);
    }
    Err(io::Error::other("there are too many copies of damaged journals"))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;

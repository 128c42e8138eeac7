//! Rows on disk: [`JournalRows`], a list in memory with a journal beside it.
//!
//! Invariant: what was added before the process ended is there after the next start, whether it ended well or not. The
//! journal is appended to and never synced for a row: a power cut may lose what the kernel had not written yet, which
//! for statistics is better than a sync for each message. Memory is bounded by the number of rows, the file by a few
//! times what is live.
//!
//! Not here: when rows are due (mod.rs).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use postwright_core::BoxFuture;
use postwright_spf_dmarc::report::{Batch, Day, PublishedPolicy, Row, RowStore};

use super::codec::{Reader, Writer};

/// Octets of dead lines that are put up with before the journal is written anew.
const DEAD_MAX: u64 = 16 << 20;

type Key = (Day, PublishedPolicy);

/// Rows that survive a restart.
#[derive(Debug)]
pub struct JournalRows {
    path: PathBuf,
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    /// By row, whose own count is zero: its number in the journal and how often it was seen.
    batches: BTreeMap<Key, BTreeMap<Row, (u64, u64)>>,
    rows: usize,
    next: u64,
    /// Octets in the file, and after the last rewriting.
    written: u64,
    live: u64,
}

impl JournalRows {
    /// Opens or makes a journal that holds at most so many different rows. Lines that cannot be read, such as one that a
    /// crash cut short, are left out.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: impl Into<PathBuf>, most: usize) -> io::Result<JournalRows> {
        let path = path.into();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let (batches, unreadable) = read(&path)?;
        if unreadable > 0 {
            tracing::warn!(lines = unreadable, path = %path.display(), "lines of the report journal cannot be read");
        }
        let rows = batches.values().map(BTreeMap::len).sum();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut held = Held { file, batches, rows, next: 0, written: 0, live: 0 };
        held.rewrite(&path)?;
        Ok(JournalRows { path, most, held: Mutex::new(held) })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic while the lock is held leaves counts that are whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, day: Day, policy: &PublishedPolicy, mut row: Row) -> io::Result<()> {
        let count = std::mem::take(&mut row.count);
        let key = (day, policy.clone());
        let mut held = self.held();
        let held = &mut *held;
        let known = held.batches.get_mut(&key).and_then(|rows| rows.get_mut(&row));
        let line = match known {
            Some((number, seen)) => {
                *seen = seen.saturating_add(count);
                Writer::new("again").number(*number).number(count).line()
            }
            None if held.rows >= self.most => {
                return Err(io::Error::other(format!("{} rows are the most", self.most)));
            }
            None => {
                let number = held.next;
                held.next += 1;
                held.rows += 1;
                let line = first(number, count, &key, &row);
                held.batches.entry(key).or_default().insert(row, (number, count));
                line
            }
        };
        held.append(&line)?;
        held.tidy(&self.path)
    }

    fn before(&self, day: Day) -> Vec<Batch> {
        let held = self.held();
        let due = held.batches.iter().take_while(|((of, _), _)| *of < day);
        due.map(|((day, policy), rows)| {
            let rows = rows.iter().map(|(row, (_, count))| Row { count: *count, ..row.clone() }).collect();
            Batch { day: *day, policy: policy.clone(), rows }
        })
        .collect()
    }

    fn forget(&self, batch: &Batch) -> io::Result<()> {
        let mut held = self.held();
        let key = (batch.day, batch.policy.clone());
        if let Some(rows) = held.batches.remove(&key) {
            held.rows = held.rows.saturating_sub(rows.len());
            let line = Writer::new("sent").number(key.0.0.into()).policy(&key.1).line();
            held.append(&line)?;
            // Once a day and policy, so that a power cut does not bring a report again.
            held.file.sync_data()?;
        }
        held.tidy(&self.path)
    }
}

fn first(number: u64, count: u64, (day, policy): &Key, row: &Row) -> String {
    Writer::new("row").number(number).number(count).number(day.0.into()).policy(policy).row(row).line()
}

impl Held {
    fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes())?;
        self.written = self.written.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn tidy(&mut self, path: &Path) -> io::Result<()> {
        if self.written > self.live.saturating_mul(2).saturating_add(DEAD_MAX) {
            self.rewrite(path)
        } else {
            Ok(())
        }
    }

    /// Writes what is live beside the journal and moves it there.
    fn rewrite(&mut self, path: &Path) -> io::Result<()> {
        let mut text = String::new();
        self.next = 0;
        for (key, rows) in &mut self.batches {
            for (row, (number, count)) in rows {
                *number = self.next;
                self.next += 1;
                text.push_str(&first(*number, *count, key, row));
            }
        }
        crate::sts_store::write(&path.with_extension("new"), path, text.as_bytes())?;
        self.file = OpenOptions::new().append(true).open(path)?;
        self.live = u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.written = self.live;
        Ok(())
    }
}

type Batches = BTreeMap<Key, BTreeMap<Row, (u64, u64)>>;

/// What a journal says, and how many of its lines say nothing.
fn read(path: &Path) -> io::Result<(Batches, usize)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Batches::new(), 0)),
        Err(error) => return Err(error),
    };
    let (mut batches, mut numbers, mut unreadable) = (Batches::new(), BTreeMap::new(), 0);
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let line = std::str::from_utf8(&line).ok();
        if line.and_then(|line| replay(line, &mut batches, &mut numbers)).is_none() {
            unreadable += 1;
        }
    }
    Ok((batches, unreadable))
}

fn replay(line: &str, batches: &mut Batches, numbers: &mut BTreeMap<u64, (Key, Row)>) -> Option<()> {
    let (kind, mut fields) = Reader::new(line)?;
    match kind {
        "row" => {
            let (number, count): (u64, u64) = (fields.number()?, fields.number()?);
            let key = (Day(fields.number()?), fields.policy()?);
            let row = fields.row(0)?;
            numbers.insert(number, (key.clone(), row.clone()));
            batches.entry(key).or_default().insert(row, (number, count));
        }
        "again" => {
            let (number, count): (u64, u64) = (fields.number()?, fields.number()?);
            let (key, row) = numbers.get(&number)?;
            let (_, seen) = batches.get_mut(key)?.get_mut(row)?;
            *seen = seen.saturating_add(count);
        }
        "sent" => {
            let key = (Day(fields.number()?), fields.policy()?);
            batches.remove(&key);
        }
        _ => return None,
    }
    Some(())
}

/// Each operation is a short write to a file that the kernel keeps in memory, once a message: a thread for it would cost
/// more than it.
impl RowStore for JournalRows {
    fn add<'a>(&'a self, day: Day, policy: &'a PublishedPolicy, row: Row) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(self.insert(day, policy, row)))
    }

    fn due(&self, before: Day) -> BoxFuture<'_, io::Result<Vec<Batch>>> {
        Box::pin(std::future::ready(Ok(self.before(before))))
    }

    fn settle<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(self.forget(batch)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::tests::odd_row;
    use super::*;

    #[test]
    fn rows_survive_a_restart_and_a_line_that_was_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reports/rows");
        let (policy, row) = odd_row();
        let add = |store: &JournalRows, day, row: &Row| store.insert(Day(day), &policy, row.clone());
        let other = Row { dkim_aligned: true, ..row.clone() };
        let store = JournalRows::open(&path, 3).unwrap();
        for row in [&row, &other, &row] {
            add(&store, 1, row).unwrap();
        }
        add(&store, 2, &row).unwrap();
        assert!(add(&store, 3, &row).is_err(), "three rows are the most");
        add(&store, 1, &row).unwrap();
        let before = store.before(Day(9));
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        // A crash in the middle of the last line loses that line alone.
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let store = JournalRows::open(&path, 3).unwrap();
        let counts = |batches: &[Batch]| -> Vec<Vec<u64>> {
            batches.iter().map(|batch| batch.rows.iter().map(|row| row.count).collect()).collect()
        };
        assert_eq!(counts(&before), [vec![9, 3], vec![3]]);
        assert_eq!(counts(&store.before(Day(9))), [vec![6, 3], vec![3]]);
        add(&store, 1, &row).unwrap();
        assert_eq!(store.before(Day(9)), before);
        assert_eq!(store.before(Day(2)).len(), 1, "the second day is not over");
        store.forget(&before[0]).unwrap();
        drop(store);
        let store = JournalRows::open(&path, 3).unwrap();
        assert_eq!(store.before(Day(9)), before[1..]);
        add(&store, 3, &row).unwrap();
    }

    #[test]
    fn the_journal_does_not_grow_without_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let (policy, row) = odd_row();
        let store = JournalRows::open(&path, 3).unwrap();
        store.insert(Day(1), &policy, row.clone()).unwrap();
        store.held().written = DEAD_MAX * 2;
        store.insert(Day(1), &policy, row).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1, "written anew");
        assert_eq!(store.before(Day(2))[0].rows[0].count, 6);
    }
}

//! Journals that somebody damaged: what is lost, what stays, and that it is said.

use std::sync::Arc;

use postwright_core::SystemClock;
use postwright_testkit::disk::scratch;

use super::*;
use crate::contract::{block_on, sample};
use crate::{Change, EmbeddedOptions, EmbeddedSpool, Spool};

const MESSAGES: u64 = 9;

fn open(path: &Path) -> EmbeddedSpool {
    let mut options = EmbeddedOptions::new(path, Arc::new(SystemClock::new()));
    options.min_free = 0;
    EmbeddedSpool::open(options).unwrap()
}

/// A spool of nine messages, a commit each, and where each commit begins in its journal; the end of the last one too.
fn fill(path: &Path) -> (PathBuf, Vec<u64>) {
    let spool = open(path);
    for number in 0..MESSAGES {
        let (entry, body) = sample(number);
        block_on(spool.commit(vec![Change::Put { entry, body }])).unwrap();
    }
    drop(spool);
    let journal = journals(path).unwrap().pop().unwrap();
    let mut reader = BufReader::new(File::open(&journal).unwrap());
    let (mut starts, mut at, mut scratch) = (Vec::new(), 0, Vec::new());
    while let Some(len) = batch(&mut reader, &mut scratch).unwrap() {
        starts.push(at);
        at += len;
    }
    starts.push(at);
    // The store writes a few of its own before ours.
    (journal, starts.split_off(starts.len() - usize::try_from(MESSAGES).unwrap() - 1))
}

/// Copies a spool, without the zeros behind its journal, whose place in the copy it returns.
fn copy(from: &Path, to: &Path, journal: &Path) -> PathBuf {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&path, &target, journal);
        } else if path == journal {
            std::fs::write(target, rest(File::open(path).unwrap(), 0).unwrap()).unwrap();
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
    to.join(journal.file_name().unwrap())
}

fn present(spool: &EmbeddedSpool) -> Vec<u64> {
    let is_there = |number: &u64| {
        let (entry, body) = sample(*number);
        block_on(spool.load(entry.id)).is_ok_and(|loaded| loaded.body == body)
    };
    (0..MESSAGES).filter(is_there).collect()
}

fn flip(path: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut octet = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut octet).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[octet[0] ^ 0x41]).unwrap();
}

#[test]
fn one_damaged_commit_costs_itself_alone_and_is_told_of() {
    // The tag and count of the start, the tag and lengths of the first item, its octets, the checksum and the end.
    let template = scratch();
    let (original, starts) = fill(template.path());
    let (at, len) = (starts[3], starts[4] - starts[3]);
    for place in [0, 1, 13, 15, 24, 30, len / 2, len - 13, len - 2] {
        let directory = scratch();
        let journal = copy(template.path(), directory.path(), &original);
        flip(&journal, at + place);
        let before = rest(File::open(&journal).unwrap(), 0).unwrap();
        let spool = open(directory.path());
        assert_eq!(present(&spool), [0, 1, 2, 4, 5, 6, 7, 8], "octet {place}");
        let [damage] = &spool.damaged_journals()[..] else { panic!("octet {place}: not told of") };
        assert_eq!((damage.at, damage.unreadable), (at, len), "octet {place}: {damage}");
        assert_eq!(damage.saved, 5, "octet {place}: {damage}");
        assert_eq!(std::fs::read(&damage.copy).unwrap(), before, "octet {place}: the copy is what was found");
        assert_eq!(spool.health().quarantined, 1);
        drop(spool);
        // Mended, it is like any other; the copy stays.
        let spool = open(directory.path());
        assert_eq!(spool.damaged_journals(), []);
        assert_eq!(spool.journals_aside().len(), 1);
        assert_eq!(present(&spool), [0, 1, 2, 4, 5, 6, 7, 8], "octet {place}");
    }
}

#[test]
fn two_damaged_places_leave_what_is_between_them() {
    let directory = scratch();
    let (journal, starts) = fill(directory.path());
    flip(&journal, starts[1] + 13);
    flip(&journal, starts[6] + 13);
    let spool = open(directory.path());
    assert_eq!(present(&spool), [0, 2, 3, 4, 5, 7, 8]);
    assert_eq!(spool.damaged_journals().len(), 1);
}

#[test]
fn the_last_commit_damaged_is_told_of_too() {
    let directory = scratch();
    let (journal, starts) = fill(directory.path());
    flip(&journal, starts[8] + 40);
    let spool = open(directory.path());
    assert_eq!(present(&spool), (0..8).collect::<Vec<u64>>());
    assert_eq!(spool.damaged_journals()[0].saved, 0);
}

#[test]
fn a_commit_that_was_being_written_is_no_damage() {
    let directory = scratch();
    let (journal, starts) = fill(directory.path());
    let (last, end) = (starts[8], starts[9]);
    for cut in [last + 1, last + 13, (last + end) / 2, end - 1] {
        let other = scratch();
        let journal = copy(directory.path(), other.path(), &journal);
        let file = File::options().write(true).open(journal).unwrap();
        // Cut off, with the zeros behind it that were there before.
        file.set_len(cut).unwrap();
        file.set_len(cut + 100_000).unwrap();
        let spool = open(other.path());
        assert_eq!(spool.damaged_journals(), [], "cut at {cut}");
        assert_eq!(present(&spool), (0..8).collect::<Vec<u64>>(), "cut at {cut}");
    }
}

#[test]
fn a_spool_in_use_is_not_touched() {
    let directory = scratch();
    let (journal, starts) = fill(directory.path());
    let spool = open(directory.path());
    let before = std::fs::read(&journal).unwrap();
    flip(&journal, starts[3]);
    assert!(matches!(mend(directory.path()), Err(SpoolError::Locked(_))));
    flip(&journal, starts[3]);
    assert_eq!(std::fs::read(&journal).unwrap(), before);
    drop(spool);
}

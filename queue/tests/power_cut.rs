//! The embedded spool on a disk that loses power, fails, or is full (FAULTS R3, R5, R6, D1): a layer beneath a child process
//! writes down what it does, and every moment of that can be a power cut.
//!
//! The child is this test binary again, told by an environment variable what to be. `POSTWRIGHT_LONG=1` for more moments,
//! more failing calls, and enough data that journals are changed and tables written.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use postwright_core::{Entropy, Message, SeededEntropy, SystemClock};
use postwright_queue::contract::{all, block_on, sample};
use postwright_queue::{Change, Claim, EmbeddedOptions, EmbeddedSpool, Entry, Spool, SpoolError};
use postwright_testkit::disk::{self, Cut, Disk, Names, Record, scratch};
use postwright_testkit::skip;

const ROLE: &str = "POSTWRIGHT_TEST_DISK_CHILD";
const DIRECTORY: &str = "POSTWRIGHT_TEST_DISK_SPOOL";
const OCTETS: &str = "POSTWRIGHT_TEST_DISK_OCTETS";
const COUNT: &str = "POSTWRIGHT_TEST_DISK_COUNT";

fn is_long() -> bool {
    std::env::var_os("POSTWRIGHT_LONG").is_some()
}

fn open(path: &Path) -> Result<EmbeddedSpool, SpoolError> {
    let mut options = EmbeddedOptions::new(path, Arc::new(SystemClock::new()));
    options.min_free = 0;
    EmbeddedSpool::open(options)
}

fn message(number: u64, octets: usize) -> (Entry, Message) {
    let (mut entry, _) = sample(number);
    let line = format!("{number:08}\r\n");
    let body = Message::from_bytes(line.repeat(octets / line.len() + 1).into_bytes());
    entry.size = body.len() as u64;
    (entry, body)
}

fn put(spool: &EmbeddedSpool, number: u64, octets: usize) -> Result<Vec<Claim>, SpoolError> {
    let (entry, body) = message(number, octets);
    block_on(spool.commit(vec![Change::Put { entry, body }]))
}

/// One write of one line, so that the layer sees it whole.
fn say(what: &str, number: u64) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(format!("@ {what} {number}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Not a test of its own: what the child does.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (count, octets) = (number(COUNT), usize::try_from(number(OCTETS)).unwrap());
    let path = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    match &*role {
        "load" => load(&path, count, octets),
        "sequence" => sequence(&path, count, octets),
        "full" => full(&path, octets),
        "no inodes" => no_inodes(&path, count, octets),
        other => panic!("unknown role {other}"),
    }
}

/// Four at a time are put; of each four the first is removed again, together with the put of another.
fn load(path: &Path, count: u64, octets: usize) {
    let spool = open(path).unwrap();
    for first in (0..count).step_by(4) {
        let four: Vec<u64> = (first..first + 4).collect();
        let commits = four.iter().map(|number| {
            let (entry, body) = message(*number, octets);
            spool.commit(vec![Change::Put { entry, body }])
        });
        let claims = block_on(all(commits.collect()));
        four.iter().for_each(|number| say("put", *number));
        let claim = claims[0].as_ref().unwrap()[0];
        let (entry, body) = message(first + 1_000_000, 10);
        say("removing", first);
        block_on(spool.commit(vec![Change::Put { entry, body }, Change::Remove { claim }])).unwrap();
        say("removed", first);
        say("put", first + 1_000_000);
    }
}

/// Puts one after the other, whatever happens. A spool that cannot be opened at all has promised nothing.
fn sequence(path: &Path, count: u64, octets: usize) {
    let spool = match open(path) {
        Ok(spool) => spool,
        Err(error) => {
            assert!((400..500).contains(&error.refusal().reply().code().get()));
            return say("closed", 0);
        }
    };
    for number in 0..count {
        match put(&spool, number, octets) {
            Ok(_) => say("put", number),
            Err(error) => {
                assert!((400..500).contains(&error.refusal().reply().code().get()));
                say("refused", number);
            }
        }
    }
}

/// The disk fills up, and becomes free again, while the spool stays open.
fn full(path: &Path, octets: usize) {
    let spool = open(path).unwrap();
    let flag = PathBuf::from(std::env::var_os("POSTWRIGHT_DISK_FULL").unwrap());
    for number in 0..5 {
        put(&spool, number, octets).unwrap();
    }
    std::fs::write(&flag, "").unwrap();
    for number in 5..10 {
        let error = put(&spool, number, octets).unwrap_err();
        let reply = error.refusal().reply().to_string();
        assert!(reply.starts_with("452 4.3.1"), "{error}: {reply}");
    }
    // What was accepted before can be read while it lasts, once the store is open again or from memory.
    std::fs::remove_file(&flag).unwrap();
    let mut tries = 0;
    while let Err(error) = put(&spool, 10, octets) {
        tries += 1;
        assert!(tries < 100_000, "it does not recover: {error}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    for number in 0..5 {
        let (entry, body) = message(number, octets);
        assert_eq!(block_on(spool.load(entry.id)).unwrap().body, body);
    }
    for number in 5..10 {
        let result = block_on(spool.load(message(number, octets).0.id));
        assert!(matches!(result, Err(SpoolError::NotFound(_))), "{number} was refused: {result:?}");
    }
    say("recovered", 0);
}

/// For a while no file can be made; what is there can grow. Whatever is taken meanwhile is kept, and what is not is a 4xx.
fn no_inodes(path: &Path, count: u64, octets: usize) {
    let spool = open(path).unwrap();
    let flag = PathBuf::from(std::env::var_os("POSTWRIGHT_DISK_NO_INODES").unwrap());
    let (mut taken, mut refused) = (Vec::new(), 0);
    for number in 0..count {
        if number == count / 4 {
            std::fs::write(&flag, "").unwrap();
        }
        match put(&spool, number, octets) {
            Ok(_) => taken.push(number),
            Err(error) => {
                assert!((400..500).contains(&error.refusal().reply().code().get()), "{error}");
                refused += 1;
            }
        }
    }
    std::fs::remove_file(&flag).unwrap();
    let mut tries = 0;
    while let Err(error) = put(&spool, count, octets) {
        tries += 1;
        assert!(tries < 1000, "it does not recover: {error}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    drop(spool);
    let spool = open(path).unwrap();
    for number in taken {
        let (entry, body) = message(number, octets);
        assert_eq!(block_on(spool.load(entry.id)).unwrap().body, body, "{number}");
    }
    say("refused", refused);
    say("recovered", 0);
}

/// A place for one child: its spool, and what lies beside it.
struct Place {
    directory: tempfile::TempDir,
    layer: PathBuf,
}

impl Place {
    fn new() -> Option<Place> {
        let directory = scratch();
        let layer = disk::layer(directory.path())?;
        Some(Place { directory, layer })
    }

    fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a child to its end and returns what it said, by word.
    fn run(&self, role: &str, count: u64, octets: usize, set: &[(&str, &str)]) -> BTreeMap<String, Vec<u64>> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env(DIRECTORY, self.spool());
        command.env(COUNT, count.to_string()).env(OCTETS, octets.to_string());
        command.env("LD_PRELOAD", &self.layer).env("POSTWRIGHT_DISK", self.spool());
        command.envs(set.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{role} {set:?}: {}", String::from_utf8_lossy(&output.stderr));
        let mut said: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            if let Some((what, number)) = words(line) {
                said.entry(what).or_default().push(number);
            }
        }
        said
    }
}

fn words(line: &str) -> Option<(String, u64)> {
    let (_, words) = line.split_once("@ ")?;
    let (what, number) = words.split_once(' ')?;
    Some((what.to_owned(), number.trim().parse().ok()?))
}

/// What has been promised so far.
#[derive(Default)]
struct Promises {
    there: BTreeSet<u64>,
    gone: BTreeSet<u64>,
}

impl Promises {
    fn note(&mut self, said: &[u8]) {
        for (what, number) in String::from_utf8_lossy(said).lines().filter_map(words) {
            match &*what {
                "put" => drop(self.there.insert(number)),
                "removing" => drop(self.there.remove(&number)),
                "removed" => drop(self.gone.insert(number)),
                _ => {}
            }
        }
    }

    fn check(&self, path: &Path, octets: usize, case: &str) {
        let spool = match open(path) {
            Ok(spool) => spool,
            Err(error) => {
                assert!(
                    self.there.is_empty(),
                    "{case}: {} messages were promised: {error}",
                    self.there.len()
                );
                return;
            }
        };
        for number in &self.there {
            let (entry, body) = message(*number, if *number < 1_000_000 { octets } else { 10 });
            let loaded = block_on(spool.load(entry.id));
            let loaded =
                loaded.unwrap_or_else(|error| panic!("{case}: message {number} was acknowledged: {error}"));
            assert!(loaded.body == body, "{case}: message {number} is not what it was");
        }
        for number in &self.gone {
            let result = block_on(spool.load(message(*number, 10).0.id));
            assert!(matches!(result, Err(SpoolError::NotFound(_))), "{case}: message {number} was removed");
        }
        // It works.
        put(&spool, 5_000_000, 10).unwrap();
    }
}

/// Cuts the power at `moments` places of a child's life, in two ways each; most of them lie behind the first promise.
/// Returns how many had promises to keep.
fn cut(place: &Place, octets: usize, moments: u64, names: Names) -> usize {
    let records = disk::read_log(&place.beside("log")).unwrap();
    let entropy = SeededEntropy::new(20_261_121);
    let length = records.len() as u64;
    let promised = |record: &Record| matches!(record, Record::Say { data } if data.starts_with(b"@ put"));
    let first = records.iter().position(promised).unwrap() as u64;
    let choose = |turn: u64| match turn % 4 {
        0 => entropy.below(first),
        _ => first + entropy.below(length - first),
    };
    let chosen: BTreeSet<u64> = (0..moments).map(choose).chain([length - 1]).collect();
    let (mut disk, mut promises, mut with_promises) = (Disk::new(names), Promises::default(), 0);
    for (record, moment) in records.iter().zip(0u64..) {
        disk.replay(record);
        if let Record::Say { data } = record {
            promises.note(data);
        }
        if !chosen.contains(&moment) {
            continue;
        }
        with_promises += usize::from(!promises.there.is_empty());
        for how in [Cut::Nothing, Cut::Some] {
            let after = scratch();
            disk.cut_power(how, || entropy.below(2) == 0, &place.spool(), after.path()).unwrap();
            promises.check(after.path(), octets, &format!("moment {moment} of {length}, {how:?}"));
        }
    }
    with_promises
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    let Some(place) = Place::new() else { skip!("power-cut", "there is no C compiler, or no Linux") };
    let log = place.beside("log");
    place.run("load", 40, 3000, &[("POSTWRIGHT_DISK_LOG", log.to_str().unwrap())]);
    let with_promises = cut(&place, 3000, if is_long() { 400 } else { 12 }, Names::ByFolder);
    assert!(with_promises > 5, "the cuts came too early to mean anything: {with_promises}");
}

/// Enough that memory is written to tables and, in the long run, that journals follow each other and are removed. The
/// store syncs the files of large values and not their folder, which is enough on ext4, XFS and btrfs.
#[test]
fn a_power_cut_while_tables_are_written_loses_nothing_either() {
    let Some(place) = Place::new() else { skip!("power-cut", "there is no C compiler, or no Linux") };
    let (log, octets) = (place.beside("log"), 250_000);
    let count = if is_long() { 600 } else { 88 };
    place.run("load", count, octets, &[("POSTWRIGHT_DISK_LOG", log.to_str().unwrap())]);
    assert!(cut(&place, octets, if is_long() { 60 } else { 4 }, Names::ByFile) > 2);
}

#[test]
fn whichever_write_or_sync_fails_nothing_is_acknowledged_falsely() {
    if Place::new().is_none() {
        skip!("disk-errors", "there is no C compiler, or no Linux");
    }
    // As Linux numbers them.
    let (eio, efbig, enospc, edquot) = (5, 27, 28, 122);
    let errors = if is_long() { &[eio, efbig, enospc, edquot][..] } else { &[enospc][..] };
    let (mut refused, mut closed, mut cases) = (0, 0, 0);
    // While a spool is made, and while one that is there is used.
    for (is_new, call, last, errors) in [
        (true, "write", 150, errors),
        (true, "sync", 60, &[eio][..]),
        (false, "write", 24, errors),
        (false, "sync", 16, &[eio][..]),
    ] {
        for nth in (1..=last).step_by(if is_long() { 1 } else { last / 4 }) {
            for error in errors {
                let fail = format!("{call}:{nth}:{error}");
                let said = fails(is_new, &fail);
                let count = |what: &str| said.get(what).map_or(0, Vec::len);
                cases += 1;
                closed += count("closed");
                refused += count("refused");
            }
        }
    }
    eprintln!("{cases} failing calls: {closed} kept a spool from opening, {refused} messages were refused");
    assert!(
        closed > 0 && refused > 3,
        "the errors did strike: {closed} at the start, {refused} later, of {cases}"
    );
}

/// Runs the sequence with one failing call, and checks that it promised nothing that is not there.
fn fails(is_new: bool, fail: &str) -> BTreeMap<String, Vec<u64>> {
    let place = Place::new().unwrap();
    if !is_new {
        drop(open(&place.spool()).unwrap());
    }
    let said = place.run("sequence", 12, 3000, &[("POSTWRIGHT_DISK_FAIL", fail)]);
    let of = |what: &str| said.get(what).cloned().unwrap_or_default();
    assert_eq!(of("put").len() + of("refused").len() + 12 * of("closed").len(), 12, "{fail}");
    let spool = open(&place.spool()).unwrap_or_else(|error| panic!("{fail}: {error}"));
    for number in of("put") {
        let (entry, body) = message(number, 3000);
        assert_eq!(block_on(spool.load(entry.id)).unwrap().body, body, "{fail}");
    }
    for number in of("refused") {
        let result = block_on(spool.load(message(number, 3000).0.id));
        assert!(matches!(result, Err(SpoolError::NotFound(_))), "{fail}: it was taken back");
    }
    said
}

#[test]
fn a_disk_that_is_full_is_a_452_and_passes_without_a_restart() {
    let Some(place) = Place::new() else { skip!("disk-full", "there is no C compiler, or no Linux") };
    let flag = place.beside("full");
    let said = place.run("full", 0, 3000, &[("POSTWRIGHT_DISK_FULL", flag.to_str().unwrap())]);
    assert!(said.contains_key("recovered"), "{said:?}");
}

#[test]
fn a_disk_without_inodes_loses_nothing_and_passes_without_a_restart() {
    let Some(place) = Place::new() else { skip!("no-inodes", "there is no C compiler, or no Linux") };
    let flag = place.beside("no-inodes");
    // Small ones go on into the journal that is there; large ones want files of their own before long.
    for (octets, count) in [(300, 200), (1_000_000, 46)] {
        let _ = std::fs::remove_dir_all(place.spool());
        let said =
            place.run("no inodes", count, octets, &[("POSTWRIGHT_DISK_NO_INODES", flag.to_str().unwrap())]);
        assert!(said.contains_key("recovered"), "{said:?}");
        let refused = said["refused"][0];
        eprintln!("{octets} octets: {refused} of {count} were refused");
        assert_eq!(refused > 0, octets > 1000, "the store never wanted a file");
    }
}

//! The embedded spool in a process of its own that is killed, and whose system calls fail.
//!
//! The child is this test binary again, told by an environment variable what to be.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use postwright_core::{Entropy, SeededEntropy, SystemClock};
use postwright_queue::contract::{block_on, sample};
use postwright_queue::{Change, Claim, EmbeddedOptions, EmbeddedSpool, Spool, SpoolError};

const ROLE: &str = "POSTWRIGHT_TEST_SPOOL_CHILD";
const DIRECTORY: &str = "POSTWRIGHT_TEST_SPOOL_DIRECTORY";
const ROUND: &str = "POSTWRIGHT_TEST_SPOOL_ROUND";
const WRITERS: u64 = 8;

fn open(path: &Path) -> EmbeddedSpool {
    let mut options = EmbeddedOptions::new(path, Arc::new(SystemClock::new()));
    options.min_free = 0;
    EmbeddedSpool::open(options).unwrap()
}

fn put(spool: &EmbeddedSpool, number: u64) -> Result<Vec<Claim>, SpoolError> {
    let (entry, body) = sample(number);
    block_on(spool.commit(vec![Change::Put { entry, body }]))
}

/// A line that the parent reads even if this process is killed right behind it.
fn say(what: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("@ {what} {number}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn start(role: &str, directory: &Path, round: u64, through: Option<Command>) -> Child {
    let binary = std::env::current_exe().unwrap();
    let mut command = match through {
        Some(mut command) => {
            command.arg(binary);
            command
        }
        None => Command::new(binary),
    };
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(DIRECTORY, directory).env(ROUND, round.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// What the child said, line by line; a line that was cut off by its end does not count.
fn lines(child: &mut Child) -> impl Iterator<Item = (String, u64)> + use<> {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    std::iter::from_fn(move || {
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 || !line.ends_with('\n') {
                return None;
            }
            // The test harness of the child prints in between.
            let Some(at) = line.find("@ ") else { continue };
            let mut words = line[at + 2..].split_whitespace();
            let (Some(what), Some(number)) = (words.next(), words.next()) else { continue };
            return Some((what.to_owned(), number.parse().unwrap()));
        }
    })
}

/// Not a test of its own: what the child does.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let spool = Arc::new(open(Path::new(&directory)));
    match &*role {
        "load" => {
            let writers = (0..WRITERS).map(|writer| {
                let spool = spool.clone();
                std::thread::spawn(move || load(&spool, round * 1_000_000 + writer * 100_000))
            });
            writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
        }
        "sequence" => sequence(&spool, round),
        "settle" => settle(&spool),
        other => panic!("unknown role {other}"),
    }
}

/// Puts for ever, and removes every third message again.
fn load(spool: &EmbeddedSpool, first: u64) {
    for number in first..first + 100_000 {
        let claims = put(spool, number).unwrap();
        say("put", number);
        if number % 3 == 0 {
            say("removing", number);
            block_on(spool.commit(vec![Change::Remove { claim: claims[0] }])).unwrap();
            say("removed", number);
        }
    }
}

/// Puts a few, one after the other, whatever happens.
fn sequence(spool: &EmbeddedSpool, round: u64) {
    for number in round * 1000..round * 1000 + 12 {
        // A store that is being reopened refuses for a moment; a client would come back as well.
        match put(spool, number) {
            Ok(_) => say("put", number),
            Err(error) => {
                assert!((400..500).contains(&error.refusal().reply().code().get()));
                say("refused", number);
            }
        }
    }
    say("reopened", spool.health().reopened);
}

/// Puts a message and settles it with a notification, trying again for as long as the spool fails.
fn settle(spool: &EmbeddedSpool) {
    let again = |changes: &dyn Fn() -> Vec<Change>| loop {
        match block_on(spool.commit(changes())) {
            Err(SpoolError::Unavailable(_)) => say("refused", 0),
            other => return other,
        }
    };
    let put = |number: u64| {
        let (entry, body) = sample(number);
        Change::Put { entry, body }
    };
    let claim = again(&|| vec![put(1)]).unwrap()[0];
    let settled = again(&|| vec![put(2), Change::Remove { claim }]);
    // Recovery may have revived the commit whose sync failed: then the original is gone, and settled.
    assert!(matches!(settled, Ok(_) | Err(SpoolError::NotFound(_))), "{settled:?}");
    let now = sample(1).0.created;
    let want = postwright_queue::Want { limit: 10, horizon: std::time::Duration::ZERO };
    let claimed = block_on(spool.claim(want, now)).unwrap();
    let known = usize::from(settled.is_ok()) + claimed.len();
    assert_eq!(known, 1, "the notification is in one pair of hands: {settled:?} {claimed:?}");
    say("settled", 2);
}

#[derive(Default)]
struct Book {
    must_be_there: BTreeSet<u64>,
    must_be_gone: BTreeSet<u64>,
}

impl Book {
    fn note(&mut self, what: &str, number: u64) {
        match what {
            "put" => drop(self.must_be_there.insert(number)),
            "removing" => drop(self.must_be_there.remove(&number)),
            "removed" => drop(self.must_be_gone.insert(number)),
            _ => {}
        }
    }

    fn check(&self, path: &Path) {
        let spool = open(path);
        for number in &self.must_be_there {
            let (entry, body) = sample(*number);
            let loaded = block_on(spool.load(entry.id));
            let loaded = loaded.unwrap_or_else(|error| panic!("message {number} was acknowledged: {error}"));
            assert_eq!(loaded.body, body, "message {number}");
        }
        for number in &self.must_be_gone {
            let result = block_on(spool.load(sample(*number).0.id));
            assert!(matches!(result, Err(SpoolError::NotFound(_))), "message {number} was removed");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let long = std::env::var_os("POSTWRIGHT_LONG").is_some();
    let directory = tempfile::tempdir().unwrap();
    let entropy = SeededEntropy::new(20_261_121);
    let mut book = Book::default();
    for round in 0..if long { 100 } else { 10 } {
        let mut child = start("load", directory.path(), round, None);
        let mut said = lines(&mut child);
        let enough = 1 + entropy.below(400);
        for (what, number) in said.by_ref().take(usize::try_from(enough).unwrap()) {
            book.note(&what, number);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too.
        for (what, number) in said {
            book.note(&what, number);
        }
    }
    assert!(book.must_be_there.len() > 100 && book.must_be_gone.len() > 30);
    book.check(directory.path());
}

/// Runs the sequence with the n-th call of a kind failing, on the files of the spool only.
fn injected(role: &str, directory: &Path, call: &str, error: &str, nth: u64) -> BTreeMap<String, Vec<u64>> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:error={error}:when={nth}")]);
    strace.arg("-P").arg(directory.join("0.jnl")).arg("--");
    let mut child = start(role, directory, 1, Some(strace));
    let mut said: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (what, number) in lines(&mut child) {
        said.entry(what).or_default().push(number);
    }
    assert!(child.wait().unwrap().success(), "{call} {nth}: the child survives");
    said
}

fn strace_works() -> bool {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if works.is_ok_and(|status| status.success()) {
        return true;
    }
    assert_ne!(std::env::var("POSTWRIGHT_REQUIRE").as_deref(), Ok("all"), "strace is required");
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    {
        eprintln!("skipped: system calls (strace is missing or may not trace)");
    }
    false
}

#[test]
fn every_acknowledgement_follows_a_sync_of_its_own() {
    if !strace_works() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=fdatasync,write", "-o"]).arg(&trace).arg("--");
    let spool = directory.path().join("spool");
    let mut child = start("sequence", &spool, 1, Some(strace));
    assert_eq!(lines(&mut child).filter(|(what, _)| what == "put").count(), 12);
    assert!(child.wait().unwrap().success());
    let (mut synced, mut acknowledged) = (0, 0);
    for line in std::fs::read_to_string(trace).unwrap().lines() {
        if line.contains("fdatasync") && line.trim_end().ends_with("= 0") {
            synced += 1;
        } else if line.contains("\"@ put") {
            acknowledged += 1;
            assert!(synced >= acknowledged, "acknowledgement {acknowledged} after {synced} syncs");
        }
    }
    assert_eq!(acknowledged, 12);
}

#[test]
fn a_write_or_sync_error_is_a_refusal_and_never_a_false_acknowledgement() {
    if !strace_works() {
        return;
    }
    let mut refused = 0;
    for (call, error) in [("fdatasync", "EIO"), ("write", "ENOSPC"), ("write", "EIO")] {
        for nth in 1..=6 {
            let directory = tempfile::tempdir().unwrap();
            // A spool that exists, so that the errors strike commits and not its making.
            drop(open(directory.path()));
            let said = injected("sequence", directory.path(), call, error, nth);
            let of = |what: &str| said.get(what).cloned().unwrap_or_default();
            assert_eq!(of("put").len() + of("refused").len(), 12, "{call} {nth}: {said:?}");
            assert!(of("put").contains(&1011), "{call} {nth}: it recovers without a restart: {said:?}");
            assert_eq!(of("refused").is_empty(), of("reopened") == [0], "{call} {nth}: {said:?}");
            refused += of("refused").len();
            let spool = open(directory.path());
            for number in of("put") {
                let (entry, body) = sample(number);
                assert_eq!(block_on(spool.load(entry.id)).unwrap().body, body, "{call} {nth}");
            }
            for number in of("refused") {
                let result = block_on(spool.load(sample(number).0.id));
                assert!(matches!(result, Err(SpoolError::NotFound(_))), "{call} {nth}: it was taken back");
            }
        }
    }
    assert!(refused >= 12, "the errors did strike: {refused}");
}

#[test]
fn a_notification_and_its_original_are_settled_together_whatever_fails() {
    if !strace_works() {
        return;
    }
    let mut refused = 0;
    for (call, error) in [("fdatasync", "EIO"), ("write", "EIO")] {
        for nth in 1..=4 {
            let directory = tempfile::tempdir().unwrap();
            drop(open(directory.path()));
            let said = injected("settle", directory.path(), call, error, nth);
            assert!(said.contains_key("settled"), "{call} {nth}: {said:?}");
            refused += said.get("refused").map_or(0, Vec::len);
            let spool = open(directory.path());
            let original = block_on(spool.load(sample(1).0.id));
            assert!(matches!(original, Err(SpoolError::NotFound(_))), "{call} {nth}: the original is gone");
            let (notice, body) = sample(2);
            assert_eq!(
                block_on(spool.load(notice.id)).unwrap().body,
                body,
                "{call} {nth}: its notification is there"
            );
        }
    }
    assert!(refused >= 4, "the errors did strike: {refused}");
}

//! How the queue behaves at size: memory a queued message, cost of a pick, speed of the spool, churn, restart.
//!
//! `cargo bench -p postwright-queue --bench scale`; `POSTWRIGHT_LONG=1` for the sizes of the tables in docs/queue.md.
//! Each part checks its own answers: a fast wrong one is no result.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{
    Clock, DeliveryStatus, EnhancedStatus, Envelope, Mailbox, Message, Phase, Reply, SeededEntropy,
    SystemClock, Timestamp,
};
use postwright_queue::contract::{all, block_on};
use postwright_queue::scheduler::{AttemptResult, Effect, Next, Scheduler, SchedulerConfig, Site};
use postwright_queue::{
    Change, Claim, Durability, EmbeddedOptions, EmbeddedSpool, Entry, Spool, SpoolId, SyncLevel, Want,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const LANES: u64 = 10_000;
const DAYS: Duration = Duration::from_secs(5 * 86_400);

fn is_long() -> bool {
    std::env::var_os("POSTWRIGHT_LONG").is_some()
}

/// Octets of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0 kB");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn octets_below(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => octets_below(&entry.path()),
            Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            Err(_) => 0,
        })
        .sum()
}

fn entry(number: u64) -> Entry {
    let id = SpoolId::new(NOW + Duration::from_millis(number / 100), &SeededEntropy::new(number));
    let from: Mailbox = "sender@example.org".parse().unwrap();
    let to = format!("user{number}@host{}.example", number % LANES).parse().unwrap();
    Entry::new(id, Envelope::new(from, [to]), 1024, NOW, DAYS)
}

fn delivered() -> DeliveryStatus {
    let reply = Reply::known(250, EnhancedStatus::known(2, 0, 0), "fine");
    DeliveryStatus::from_reply(reply, Phase::EndOfData, None, NOW)
}

/// Fills a scheduler with `messages`, then picks and settles up to 10,000 of them.
fn scheduler(clock: &dyn Clock, messages: u64) {
    let mut scheduler = Scheduler::new(SchedulerConfig::default(), Arc::new(SeededEntropy::new(1)));
    let (before, start) = (resident(), clock.mono());
    for number in 0..messages {
        let entry = entry(number);
        let slot = scheduler.reserve().unwrap();
        scheduler.admit(slot, Claim { id: entry.id, epoch: 0 }, &entry, NOW);
    }
    let admitting = clock.mono().since(start);
    let memory = resident().saturating_sub(before);
    let (picks, start) = (messages.min(10_000), clock.mono());
    let mut done = 0;
    while done < picks {
        match scheduler.poll(NOW) {
            Next::Route(query) => {
                let site = Site { pool: "pool".into(), name: query.lane.host.to_string().into() };
                scheduler.routed(query.id, site, NOW + DAYS);
            }
            Next::Attempt(attempt) => {
                let number = done;
                let mut entry = Box::new(entry(number));
                entry.id = attempt.id;
                let finished = AttemptResult::Finished { entry, statuses: vec![delivered()] };
                for effect in scheduler.record(attempt, finished, NOW) {
                    if let Effect::Settle(settlement) = effect {
                        scheduler.settled(settlement.id, Ok(()), NOW);
                    }
                }
                done += 1;
            }
            other => panic!("{other:?} with {done} of {picks} done"),
        }
    }
    let picking = clock.mono().since(start);
    assert_eq!(scheduler.totals().messages as u64, messages - picks);
    println!(
        "scheduler: {messages} messages, {} lanes: {} octets a message, admit {:.2} us, route + pick + settle {:.2} us",
        LANES.min(messages),
        memory / messages,
        admitting.as_secs_f64() * 1e6 / messages as f64,
        picking.as_secs_f64() * 1e6 / picks as f64,
    );
}

fn open(path: &Path, durability: Durability) -> EmbeddedSpool {
    let mut options = EmbeddedOptions::new(path, Arc::new(SystemClock::new()));
    options.durability = durability;
    options.min_free = 0;
    EmbeddedSpool::open(options).unwrap()
}

/// 64 at a time: put, then remove those of 10,000 ago.
fn churn(clock: &dyn Clock, operations: u64, durability: Durability) {
    const DEPTH: u64 = 10_000;
    const TOGETHER: u64 = 64;
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), durability);
    let body = Message::from_bytes(vec![b'x'; 10 * 1024]);
    let (start, mut largest) = (clock.mono(), 0);
    for first in (0..operations).step_by(64) {
        let commits = (first..first + TOGETHER).map(|number| {
            let mut changes = vec![Change::Put { entry: entry(number), body: body.clone() }];
            if let Some(old) = number.checked_sub(DEPTH) {
                changes.push(Change::Remove { claim: Claim { id: entry(old).id, epoch: 0 } });
            }
            spool.commit(changes)
        });
        assert!(block_on(all(commits.collect())).iter().all(Result::is_ok));
        if first % 16_384 == 0 {
            largest = largest.max(octets_below(directory.path()));
        }
    }
    let took = clock.mono().since(start);
    let health = spool.health();
    largest = largest.max(octets_below(directory.path()));
    drop(spool);
    let start = clock.mono();
    let spool = open(directory.path(), durability);
    let reopening = clock.mono().since(start);
    let mut found = 0;
    let want = Want { limit: 1000, horizon: DAYS };
    loop {
        let claimed = block_on(spool.claim(NOW, want)).unwrap();
        if claimed.is_empty() {
            break;
        }
        found += claimed.len() as u64;
    }
    let scanning = clock.mono().since(start).saturating_sub(reopening);
    assert_eq!(found, operations.div_ceil(TOGETHER).saturating_mul(TOGETHER).min(DEPTH));
    let live = found * (10 * 1024 + 200);
    assert!(largest <= 3 * live + 512 * 1024 * 1024, "{largest} octets for {live} live ones");
    println!(
        "churn: {operations} put + remove of 10 KiB at depth {found} ({:?}): {:.0} a second, {} syncs, disk at most {} MiB \
         (live {} MiB), memory {} MiB, reopened in {} ms, {found} entries claimed in {} ms",
        durability.accept,
        operations as f64 / took.as_secs_f64(),
        health.syncs,
        largest >> 20,
        live >> 20,
        resident() >> 20,
        reopening.as_millis(),
        scanning.as_millis(),
    );
}

fn main() {
    let clock = SystemClock::new();
    // Each size in a process of its own: memory that an earlier one gave back would hide what a later one takes.
    let mut arguments = std::env::args().skip_while(|argument| argument != "scheduler").skip(1);
    if let Some(messages) = arguments.next() {
        return scheduler(&clock, messages.parse().unwrap());
    }
    let sizes: &[&str] = if is_long() { &["10000", "100000", "1000000"] } else { &["10000", "50000"] };
    for messages in sizes {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        assert!(child.args(["scheduler", messages]).status().unwrap().success());
    }
    let operations = if is_long() { 500_000 } else { 20_000 };
    churn(&clock, operations, Durability::default());
    let relaxed = Durability { accept: SyncLevel::Relaxed, update: SyncLevel::Relaxed };
    churn(&clock, operations / 4, relaxed);
}

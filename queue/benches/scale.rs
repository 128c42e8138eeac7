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
/// Octets of memory that the process of a churn has at most: the hot cache (64 MiB), the block cache (32 MiB), tables that
/// are not written yet (as large as the journals, 64 MiB and the one in use), and as much again as the largest of these.
const CHURN_MEMORY: u64 = 256 << 20;

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
    Entry::new(id, Envelope::new(from, [to]), 1024, DAYS, NOW)
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
fn churn(clock: &dyn Clock, operations: u64, octets: usize, durability: Durability) {
    const DEPTH: u64 = 10_000;
    const TOGETHER: u64 = 64;
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path(), durability);
    let body = Message::from_bytes(vec![b'x'; octets]);
    let (start, mut largest, mut memory) = (clock.mono(), 0, 0);
    for first in (0..operations).step_by(64) {
        if first > 0 && first % 1_000_000 < TOGETHER {
            let rate = first as f64 / clock.mono().since(start).as_secs_f64();
            let (disk, memory) = (octets_below(directory.path()) >> 20, resident() >> 20);
            println!("churn: {first} done, {rate:.0} a second, disk {disk} MiB, memory {memory} MiB");
        }
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
            memory = memory.max(resident());
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
        let claimed = block_on(spool.claim(want, NOW)).unwrap();
        if claimed.is_empty() {
            break;
        }
        found += claimed.len() as u64;
    }
    let scanning = clock.mono().since(start).saturating_sub(reopening);
    assert_eq!(found, operations.div_ceil(TOGETHER).saturating_mul(TOGETHER).min(DEPTH));
    let live = found * (octets as u64 + 200);
    assert!(largest <= 3 * live + 512 * 1024 * 1024, "{largest} octets for {live} live ones");
    memory = memory.max(resident());
    assert!(memory <= CHURN_MEMORY, "{memory} octets of memory, of {CHURN_MEMORY}");
    println!(
        "churn: {operations} put + remove of {octets} octets at depth {found} ({:?}): {:.0} a second, {} syncs, disk at most {} MiB \
         (live {} MiB), memory at most {} MiB, reopened in {} ms, {found} entries claimed in {} ms",
        durability.accept,
        operations as f64 / took.as_secs_f64(),
        health.syncs,
        largest >> 20,
        live >> 20,
        memory >> 20,
        reopening.as_millis(),
        scanning.as_millis(),
    );
}

/// Stores `messages` and ends without a clean-up, as a process that is killed.
fn fill(path: &Path, messages: u64) {
    const TOGETHER: u64 = 1000;
    let spool = open(path, Durability::default());
    let body = Message::from_bytes(vec![b'x'; 1024]);
    for first in (0..messages).step_by(1000) {
        let commits = (first..messages.min(first + TOGETHER))
            .map(|number| spool.commit(vec![Change::Put { entry: entry(number), body: body.clone() }]));
        assert!(block_on(all(commits.collect())).iter().all(Result::is_ok));
    }
    // No destructor runs: what is not on the disk now is not written any more.
    std::process::exit(0);
}

/// Opens what [`fill`] left behind: how long until a message is accepted, and what reading the whole queue takes
/// while mail comes in.
fn restart(clock: &dyn Clock, path: &Path, messages: u64) {
    let disk = octets_below(path) >> 20;
    let start = clock.mono();
    let spool = open(path, Durability::default());
    let opened = clock.mono().since(start);
    let accept = |number: u64| {
        let body = Message::from_bytes(vec![b'y'; 1024]);
        block_on(spool.commit(vec![Change::Put { entry: entry(number), body }])).unwrap();
    };
    accept(messages);
    let accepting = clock.mono().since(start);
    let after_opening = resident() >> 20;
    let mut scheduler = Scheduler::new(SchedulerConfig::default(), Arc::new(SeededEntropy::new(1)));
    let (mut found, mut slowest, mut number) = (0, Duration::ZERO, messages);
    loop {
        let claimed = block_on(spool.claim(Want { limit: 1000, horizon: DAYS }, NOW)).unwrap();
        if claimed.is_empty() {
            break;
        }
        found += claimed.len() as u64;
        claimed.iter().for_each(|claimed| assert!(scheduler.restore(claimed, NOW)));
        number += 1;
        let before = clock.mono();
        accept(number);
        slowest = slowest.max(clock.mono().since(before));
    }
    assert_eq!(found, messages);
    println!(
        "restart: {messages} queued ({disk} MiB on the disk): open after {} ms, accepting after {} ms, memory then {} MiB; \
         all in the scheduler after {} ms, memory {} MiB, the slowest acceptance meanwhile {} ms",
        opened.as_millis(),
        accepting.as_millis(),
        after_opening,
        clock.mono().since(start).as_millis(),
        resident() >> 20,
        slowest.as_millis(),
    );
}

/// One part in this process: `scheduler N`, `churn N OCTETS`, `fill N DIRECTORY`, `restart N DIRECTORY`.
fn part(clock: &dyn Clock, name: &str, number: u64, rest: Option<String>) {
    let directory = || std::path::PathBuf::from(rest.clone().unwrap());
    match name {
        "scheduler" => scheduler(clock, number),
        "churn" => churn(clock, number, rest.unwrap().parse().unwrap(), Durability::default()),
        "fill" => fill(&directory(), number),
        "restart" => restart(clock, &directory(), number),
        other => panic!("no part {other}"),
    }
}

/// Each part in a process of its own: memory that an earlier one gave back would hide what a later one takes.
fn run(arguments: &[&str]) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    assert!(child.args(arguments).status().unwrap().success(), "{arguments:?}");
}

fn main() {
    let clock = SystemClock::new();
    let mut arguments = std::env::args().skip(1).skip_while(|argument| argument.starts_with('-'));
    if let Some(name) = arguments.next() {
        let number = arguments.next().unwrap().parse().unwrap();
        return part(&clock, &name, number, arguments.next());
    }
    let sizes: &[&str] = if is_long() { &["10000", "100000", "1000000"] } else { &["10000", "50000"] };
    sizes.iter().for_each(|messages| run(&["scheduler", messages]));
    for messages in if is_long() { ["10000", "1000000"] } else { ["10000", "50000"] } {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        run(&["fill", messages, path]);
        run(&["restart", messages, path]);
    }
    let operations = if is_long() { 500_000 } else { 20_000 };
    churn(&clock, operations, 10 * 1024, Durability::default());
    let relaxed = Durability { accept: SyncLevel::Relaxed, update: SyncLevel::Relaxed };
    churn(&clock, operations / 4, 10 * 1024, relaxed);
}

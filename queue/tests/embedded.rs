//! The embedded spool: the contract, its lock, its limits, damage on the disk, and what a restart finds.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{BoxFuture, SystemClock};
use postwright_queue::contract::{self, all, block_on, sample};
use postwright_queue::{
    Change, Claim, Condition, EmbeddedOptions, EmbeddedSpool, Fault, Spool, SpoolError, Want,
};

fn options(path: &Path) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::new(path, Arc::new(SystemClock::new()));
    // The machine that runs the tests may be nearly full.
    options.min_free = 0;
    options
}

struct Embedded {
    directory: tempfile::TempDir,
    spool: Option<EmbeddedSpool>,
    hot_bytes: usize,
}

impl Embedded {
    fn new(hot_bytes: usize) -> Embedded {
        let directory = tempfile::tempdir().unwrap();
        let mut subject = Embedded { directory, spool: None, hot_bytes };
        subject.open();
        subject
    }

    fn open(&mut self) {
        self.spool = None;
        let mut options = options(self.directory.path());
        options.hot_bytes = self.hot_bytes;
        self.spool = Some(EmbeddedSpool::open(options).unwrap());
    }
}

impl contract::Subject for Embedded {
    fn spool(&self) -> &dyn Spool {
        self.spool.as_ref().unwrap()
    }

    fn crash(&mut self) -> BoxFuture<'_, ()> {
        // Ending a process in earnest is another test; here the same files are opened again.
        self.open();
        Box::pin(std::future::ready(()))
    }
}

fn put(spool: &EmbeddedSpool, number: u64) -> Result<Vec<Claim>, SpoolError> {
    let (entry, body) = sample(number);
    block_on(spool.commit(vec![Change::Put { entry, body }]))
}

#[test]
fn the_contract_holds() {
    block_on(contract::check(&mut Embedded::new(64 << 20)));
}

#[test]
fn the_contract_holds_without_a_hot_cache() {
    block_on(contract::check(&mut Embedded::new(0)));
}

#[test]
fn a_second_opening_is_refused_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let spool = EmbeddedSpool::open(options(directory.path())).unwrap();
    let error = EmbeddedSpool::open(options(directory.path())).unwrap_err();
    assert!(matches!(error, SpoolError::Locked(_)));
    assert!(error.to_string().contains(&*directory.path().to_string_lossy()));
    drop(spool);
    EmbeddedSpool::open(options(directory.path())).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_the_environments_fault() {
    let error = EmbeddedSpool::open(options(Path::new("/proc/no-such/spool"))).unwrap_err();
    assert_eq!(error.fault(), Fault::Environment);
}

#[test]
#[cfg(target_os = "linux")]
fn a_directory_that_cannot_be_written_is_not_taken_for_a_broken_store() {
    // Nobody makes files there, root included.
    let error = EmbeddedSpool::open(options(Path::new("/sys"))).unwrap_err();
    assert_eq!(error.fault(), Fault::Environment);
    let said = error.to_string();
    assert!(said.contains("/sys") && said.contains("account") && !said.contains("backup"), "{said}");
}

#[test]
#[cfg(unix)]
fn a_new_spool_is_readable_by_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("a/spool");
    drop(EmbeddedSpool::open(options(&path)).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700, "mail lies in it");
    // What somebody decided stays as it is.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
    drop(EmbeddedSpool::open(options(&path)).unwrap());
    assert_eq!(mode(&path), 0o750);
}

#[test]
fn concurrent_commits_share_syncs() {
    let directory = tempfile::tempdir().unwrap();
    let spool = EmbeddedSpool::open(options(directory.path())).unwrap();
    let commits = (0..200).map(|number| {
        let (entry, body) = sample(number);
        spool.commit(vec![Change::Put { entry, body }])
    });
    assert!(block_on(all(commits.collect())).iter().all(Result::is_ok));
    let health = spool.health();
    assert_eq!(health.commits, 200);
    // The first may be synced alone; the rest gathers behind it.
    assert!((1..50).contains(&health.syncs), "{} syncs", health.syncs);
    assert!(health.sync_latency.is_some());
}

#[test]
fn too_many_waiting_commits_are_refused_as_busy() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.max_waiting = 2;
    let spool = EmbeddedSpool::open(options).unwrap();
    let commits = (0..500).map(|number| {
        let (entry, body) = sample(number);
        spool.commit(vec![Change::Put { entry, body }])
    });
    let results = block_on(all(commits.collect()));
    let busy = results.iter().filter(|result| **result == Err(SpoolError::Busy { waiting: 2 })).count();
    let stored = results.iter().filter(|result| result.is_ok()).count();
    assert!(busy > 0 && stored > 0 && busy + stored == 500, "{busy} busy, {stored} stored");
}

#[test]
fn a_full_disk_refuses_mail_lets_it_drain_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let spool = EmbeddedSpool::open(options(directory.path())).unwrap();
    let claim = put(&spool, 1).unwrap()[0];
    spool.set_min_free(u64::MAX);
    assert_eq!(spool.health().condition, Condition::Full);
    let error = put(&spool, 2).unwrap_err();
    assert!(matches!(error, SpoolError::Full { .. }));
    assert!(error.refusal().reply().to_string().starts_with("452 4.3.1"));
    // Delivery goes on, with the notification that it may bring.
    let (entry, body) = sample(3);
    block_on(spool.commit(vec![Change::Put { entry, body }, Change::Remove { claim }])).unwrap();
    spool.set_min_free(0);
    put(&spool, 2).unwrap();
    assert_eq!(spool.health().condition, Condition::Healthy);
}

#[test]
fn a_restart_hands_out_what_was_stored_and_not_what_came_since() {
    let directory = tempfile::tempdir().unwrap();
    let spool = EmbeddedSpool::open(options(directory.path())).unwrap();
    (0..50).for_each(|number| drop(put(&spool, number).unwrap()));
    drop(spool);
    let spool = EmbeddedSpool::open(options(directory.path())).unwrap();
    // New mail comes while the walk is under way, with ids on both sides of it.
    let want = Want { limit: 7, horizon: Duration::ZERO };
    let now = sample(0).0.created;
    let mut claimed = block_on(spool.claim(want, now)).unwrap();
    (50..60).for_each(|number| drop(put(&spool, number).unwrap()));
    loop {
        let mut more = block_on(spool.claim(want, now)).unwrap();
        if more.is_empty() {
            break;
        }
        claimed.append(&mut more);
    }
    let mut ids: Vec<_> = claimed.iter().map(|claimed| claimed.entry.id).collect();
    assert!(ids.is_sorted(), "oldest first");
    ids.dedup();
    assert_eq!(ids.len(), 50);
    // What came since belongs to whoever put it, and can be settled.
    let claim = Claim { id: sample(55).0.id, epoch: claimed[0].claim.epoch };
    block_on(spool.commit(vec![Change::Remove { claim }])).unwrap();
}

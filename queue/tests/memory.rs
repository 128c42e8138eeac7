//! The memory spool: the contract, and the crashes and faults that only it can play.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::thread::JoinHandle;

use postwright_core::BoxFuture;
use postwright_queue::contract::{self, block_on, sample};
use postwright_queue::{
    Change, Claim, Condition, Damage, DamageReason, Durability, InjectedFault, Item, MemorySpool, Scan,
    Spool, SpoolError, SyncLevel, Want, codec::DecodeError,
};

struct Memory(MemorySpool);

impl contract::Subject for Memory {
    fn spool(&self) -> &dyn Spool {
        &self.0
    }

    fn crash(&mut self) -> BoxFuture<'_, ()> {
        self.0.crash();
        Box::pin(std::future::ready(()))
    }
}

fn put(spool: &MemorySpool, number: u64) -> Result<Vec<Claim>, SpoolError> {
    let (entry, body) = sample(number);
    block_on(spool.commit(vec![Change::Put { entry, body }]))
}

/// A message that waits for its sync.
fn put_without_a_sync() -> (Arc<MemorySpool>, JoinHandle<Result<Vec<Claim>, SpoolError>>) {
    let spool = Arc::new(MemorySpool::default());
    spool.hold_syncs();
    let writer = std::thread::spawn({
        let spool = spool.clone();
        move || put(&spool, 1)
    });
    while spool.held() == 0 {
        std::thread::yield_now();
    }
    (spool, writer)
}

const WANT: Want = Want { limit: 100, horizon: std::time::Duration::ZERO };

#[test]
fn the_contract_holds() {
    block_on(contract::check(&mut Memory(MemorySpool::default())));
}

#[test]
fn nothing_is_acknowledged_before_its_sync() {
    let (spool, writer) = put_without_a_sync();
    assert!(!writer.is_finished());
    assert_eq!(spool.health().syncs, 0);
    spool.release_syncs();
    assert_eq!(writer.join().unwrap().unwrap().len(), 1);
    spool.crash();
    assert_eq!(spool.len(), 1);
}

#[test]
fn a_crash_before_the_sync_is_an_error_and_not_a_loss() {
    let (spool, writer) = put_without_a_sync();
    spool.crash();
    assert!(matches!(writer.join().unwrap(), Err(SpoolError::Unavailable(_))));
    assert!(spool.is_empty());
}

#[test]
fn relaxed_commits_may_be_lost_and_only_those() {
    let spool = MemorySpool::new(Durability { accept: SyncLevel::Power, update: SyncLevel::Relaxed });
    let claims = put(&spool, 1).unwrap();
    block_on(spool.commit(vec![Change::Remove { claim: claims[0] }])).unwrap();
    assert!(spool.is_empty());
    spool.crash();
    assert_eq!(spool.len(), 1, "the removal was not synced: a second delivery, not a loss");
}

#[test]
fn every_write_and_sync_error_is_a_refusal() {
    for after in 0..10 {
        for fault in [InjectedFault::Write { after }, InjectedFault::Sync { after }] {
            let spool = MemorySpool::default();
            spool.inject(fault);
            let acknowledged: Vec<_> =
                (0..10).filter(|number| put(&spool, *number).is_ok()).map(|n| sample(n).0.id).collect();
            assert_eq!(acknowledged.len(), 9, "{fault:?} strikes once");
            // Whatever recovery revives, what was acknowledged is there.
            spool.crash_keeping(usize::try_from(after % 2).unwrap());
            for id in acknowledged {
                assert!(block_on(spool.load(id)).is_ok(), "{fault:?}");
            }
        }
    }
}

#[test]
fn a_full_spool_refuses_mail_and_goes_on_settling() {
    let spool = MemorySpool::default();
    let claims = put(&spool, 1).unwrap();
    spool.inject(InjectedFault::Full);
    assert_eq!(spool.health().condition, Condition::Full);
    let error = put(&spool, 2).unwrap_err();
    assert!(error.refusal().reply().to_string().starts_with("452 4.3.1"));
    // A notification that replaces its original is part of settling.
    let (entry, body) = sample(3);
    let settle = vec![Change::Put { entry, body }, Change::Remove { claim: claims[0] }];
    assert!(block_on(spool.commit(settle)).is_ok());
    spool.heal();
    assert!(put(&spool, 2).is_ok());
}

#[test]
fn damage_is_reported_and_put_aside() {
    let spool = MemorySpool::default();
    (1..4).for_each(|number| drop(put(&spool, number).unwrap()));
    let id = sample(2).0.id;
    assert!(spool.damage(id));
    spool.crash();
    let reason = DamageReason::Entry(DecodeError::Checksum);
    let loaded = block_on(spool.load(id)).unwrap_err();
    assert_eq!(loaded, SpoolError::Damaged(Damage { id, reason: reason.clone(), quarantined: false }));
    assert_eq!(block_on(spool.claim(WANT, sample(1).0.created)).unwrap().len(), 2);
    assert_eq!(spool.health().quarantined, 1);
    let page = block_on(spool.scan(Scan::Messages { after: None, limit: 10 })).unwrap();
    assert_eq!(page.items.len(), 3);
    assert!(page.items.contains(&Item::Damaged(Damage { id, reason, quarantined: true })));
}

#[test]
fn a_closed_spool_says_so() {
    let spool = MemorySpool::default();
    spool.close();
    assert_eq!(put(&spool, 1), Err(SpoolError::Closed));
    assert_eq!(spool.health().condition, Condition::Closed);
}

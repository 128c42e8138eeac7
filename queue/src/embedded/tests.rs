//! What only somebody with a hand in the store can do: damaged records, leftovers, another format.

use std::time::Duration;

use postwright_core::SystemClock;

use super::*;
use crate::contract::{block_on, sample};
use crate::error::Damage;
use crate::error::DamageReason;
use crate::spool::Item;

fn options(path: &Path) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::new(path, Arc::new(SystemClock::new()));
    options.min_free = 0;
    options.hot_bytes = 0;
    options
}

/// A spool of three messages, closed again.
fn three(path: &Path) {
    let spool = EmbeddedSpool::open(options(path)).unwrap();
    for number in 0..3 {
        let (entry, body) = sample(number);
        block_on(spool.commit(vec![Change::Put { entry, body }])).unwrap();
    }
}

fn edit(path: &Path, edit: impl FnOnce(&Store, &mut fjall::OwnedWriteBatch)) {
    let store = Store::open(&options(path)).unwrap();
    let mut batch = store.db.batch().durability(Some(fjall::PersistMode::SyncAll));
    edit(&store, &mut batch);
    batch.commit().unwrap();
}

fn check_damage(path: &Path, is_expected: impl Fn(&DamageReason) -> bool) {
    let id = sample(1).0.id;
    let spool = EmbeddedSpool::open(options(path)).unwrap();
    let error = block_on(spool.load(id)).unwrap_err();
    assert!(matches!(&error, SpoolError::Damaged(damage) if is_expected(&damage.reason)), "{error}");
    // It is put aside, is still seen by a scan, and the others are fine.
    while spool.health().quarantined == 0 {
        std::thread::yield_now();
    }
    let again = block_on(spool.load(id)).unwrap_err();
    assert!(matches!(&again, SpoolError::Damaged(Damage { quarantined: true, .. })), "{again}");
    let page = block_on(spool.scan(Scan::Messages { after: None, limit: 10 })).unwrap();
    assert_eq!(page.items.len(), 3);
    assert!(matches!(&page.items[1], Item::Damaged(Damage { quarantined: true, .. })));
    let want = Want { limit: 10, horizon: Duration::ZERO };
    assert_eq!(block_on(spool.claim(want, Timestamp::default())).unwrap().len(), 2);
}

#[test]
fn torn_and_garbled_records_are_put_aside() {
    let id = sample(1).0.id;
    for garbage in [&b""[..], b"\0", b"\x01\0\0\0PWE\x01 torn", b"\x01\0\0\0no entry at all"] {
        let directory = tempfile::tempdir().unwrap();
        three(directory.path());
        edit(directory.path(), |store, batch| batch.insert(&store.entries, *id.as_bytes(), garbage));
        check_damage(directory.path(), |reason| matches!(reason, DamageReason::Entry(_)));
    }
}

#[test]
fn an_entry_under_anothers_name_is_put_aside() {
    let directory = tempfile::tempdir().unwrap();
    three(directory.path());
    let (id, other) = (sample(1).0.id, sample(2).0.id);
    edit(directory.path(), |store, batch| {
        let value = store.raw_entry(other).unwrap().unwrap();
        batch.insert(&store.entries, *id.as_bytes(), value);
    });
    check_damage(directory.path(), |reason| *reason == DamageReason::WrongId(other));
}

#[test]
fn a_body_that_is_missing_or_changed_is_put_aside_and_never_half_delivered() {
    let id = sample(1).0.id;
    let key = store::piece_key(id, 0);
    let directory = tempfile::tempdir().unwrap();
    three(directory.path());
    edit(directory.path(), |store, batch| batch.remove(&store.bodies, key));
    check_damage(directory.path(), |reason| matches!(reason, DamageReason::BodyLength { found: 0, .. }));

    let directory = tempfile::tempdir().unwrap();
    three(directory.path());
    edit(directory.path(), |store, batch| {
        let mut record = store.bodies.get(key).unwrap().unwrap().to_vec();
        record[0] ^= 1;
        batch.insert(&store.bodies, key, record);
    });
    check_damage(directory.path(), |reason| *reason == DamageReason::BodyChecksum(0));
}

#[test]
fn leftovers_of_unknown_kinds_hurt_nobody() {
    let directory = tempfile::tempdir().unwrap();
    three(directory.path());
    edit(directory.path(), |store, batch| {
        batch.insert(&store.entries, b"short", b"x");
        batch.insert(&store.bodies, b"no piece", b"x");
    });
    std::fs::write(directory.path().join("left.tmp"), b"over").unwrap();
    let spool = EmbeddedSpool::open(options(directory.path())).unwrap();
    let want = Want { limit: 10, horizon: Duration::ZERO };
    assert_eq!(block_on(spool.claim(want, Timestamp::default())).unwrap().len(), 3);
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    three(directory.path());
    edit(directory.path(), |store, batch| {
        let meta = store.db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        batch.insert(&meta, "format", 99u32.to_le_bytes());
    });
    let error = EmbeddedSpool::open(options(directory.path())).unwrap_err();
    assert_eq!(error, SpoolError::Format { found: 99, known: 1 });
}

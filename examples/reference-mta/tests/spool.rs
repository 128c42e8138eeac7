//! `postwright spool`: check, export and import, as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use postwright_core::SystemClock;
use postwright_queue::contract::{block_on, sample};
use postwright_queue::{Change, EmbeddedOptions, EmbeddedSpool, Spool};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postwright")).arg("spool").args(args).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn open(path: &Path) -> EmbeddedSpool {
    let mut options = EmbeddedOptions::new(path, Arc::new(SystemClock::new()));
    options.min_free = 0;
    EmbeddedSpool::open(options).unwrap()
}

#[test]
fn a_spool_is_checked_exported_and_imported() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (one, two, archive) = (place("one"), place("two"), place("archive"));
    let spool = open(Path::new(&one));
    let mut octets = 0;
    for number in 0..5 {
        let (entry, body) = sample(number);
        octets += body.len();
        block_on(spool.commit(vec![Change::Put { entry, body }])).unwrap();
    }
    let control = Change::Control { key: "order/x".into(), value: Some(b"y"[..].into()) };
    block_on(spool.commit(vec![control])).unwrap();

    let in_use = run(&["check", &one]);
    assert_eq!(in_use.status.code(), Some(2));
    let error = String::from_utf8(in_use.stderr).unwrap();
    assert!(error.contains("in use by another process") && error.lines().count() == 1, "{error}");
    drop(spool);

    let expected = serde_json::json!({"messages": 5, "octets": octets, "controls": 1, "damaged": []});
    assert_eq!(json(&run(&["check", &one])), expected);
    assert_eq!(json(&run(&["export", &one, "--to", &archive])), expected);
    assert_eq!(run(&["export", &one, "--to", &archive]).status.code(), Some(2), "nothing is overwritten");
    // Twice: what is there already stays.
    for _ in 0..2 {
        let imported = json(&run(&["import", &two, "--from", &archive]));
        assert_eq!(imported, serde_json::json!({"messages": 5, "controls": 1}));
    }
    assert_eq!(json(&run(&["check", &two])), expected);
    let spool = open(Path::new(&two));
    for number in 0..5 {
        let (entry, body) = sample(number);
        assert_eq!(block_on(spool.load(entry.id)).unwrap().body, body);
    }
}

#[test]
fn what_is_no_spool_and_no_archive_is_bad_input() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().to_str().unwrap();
    for args in [
        &["check", "/no/such/directory"][..],
        &["check", empty],
        &["import", empty, "--from", "/dev/null"],
        &["import", empty, "--from", "/no/such/file"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "{args:?}");
    }
    assert_eq!(std::fs::read_dir(empty).unwrap().count(), 0, "looking makes nothing");
}

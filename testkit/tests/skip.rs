//! `skip!` leaves a test with a line that can be read, and fails where nothing may be skipped.
//!
//! The same binary runs again as a child, since the switch is an environment variable.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::process::{Command, Output};

use postwright_testkit::{REQUIRE, skip};

/// Skips when it is run as a child; does nothing in an ordinary run.
#[test]
fn child() {
    if std::env::var_os("POSTWRIGHT_SKIP_CHILD").is_some() {
        skip!("sample-suite", "no {} here", "sample")
    }
}

fn run_child(require: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env("POSTWRIGHT_SKIP_CHILD", "1").env(REQUIRE, require);
    command.output().unwrap()
}

#[test]
fn a_skip_passes_and_names_the_suite() {
    let output = run_child("");
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.lines().any(|line| line == "skipped: sample-suite (no sample here)"), "{text}");
}

#[test]
fn a_skip_fails_where_everything_is_required() {
    assert!(!run_child("all").status.success());
}

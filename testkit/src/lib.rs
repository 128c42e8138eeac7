//! What the tests of every Postwright crate share.
//!
//! | module | what it does |
//! |---|---|
//! | [`suites`] | finds the public conformance data |
//! | [`disk`] | makes disks fail, and works out what a power cut leaves |
//! | [`peers`] | finds independent programs and Python packages to run beside ours |
//! | [`postgres`], [`redis`] | start a server of the test's own |
//! | [`sockets`] | ports of servers that a test plays |
//! | [`PausedClock`] | follows tokio's paused time |
//! | [`at_once`] | runs a future that never waits |
//! | [`end_of_data`] | look-alikes of the end of a message |
//! | [`skip!`] | leaves a test by name, or fails it where nothing may be missing |
//! | [`cases`] | says how much of a suite was run, and how much ends otherwise with us |
//!
//! ```no_run
//! use postwright_testkit::{skip, suites};
//!
//! fn every_scenario_of_the_suite() {
//!     let Some(dir) = suites::dir("spf") else {
//!         skip!("spf-rfc7208", "no public suites; see docs/suites.md")
//!     };
//!     let text = std::fs::read_to_string(dir.join("rfc7208-tests.yml"));
//!     # drop(text);
//! }
//! # every_scenario_of_the_suite();
//! ```
//!
//! Invariant: of ours it depends on postwright-core alone, so that any crate may use it as a dev-dependency;
//! nothing here is part of a shipped program.
//!
//! Not here: the tests of one crate (they stand beside it). Tests of several crates together are in `tests/`.

mod clock;
pub mod descriptors;
pub mod disk;
pub mod end_of_data;
pub mod peers;
pub mod postgres;
mod ready;
pub mod redis;
mod skip;
pub mod sockets;
pub mod suites;

pub use clock::{BEGINNING, PausedClock};
pub use ready::at_once;
pub use skip::{REQUIRE, announce, cases};

use std::path::{Path, PathBuf};

/// The folder of the workspace's root manifest.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The programs in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

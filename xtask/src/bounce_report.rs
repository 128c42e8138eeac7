//! `cargo xtask bounce-report`: precision, recall, confusion and every miss of the bounce suites and of the labelled refusals.
//!
//! Not here: the measuring itself, which is the tests of postwright-bounce; this only shows their output.

use crate::cli::{self, Outcome};

pub(crate) fn run() -> Outcome {
    let tests = ["--test", "suites", "--test", "corpus"];
    let shown = ["--", "--nocapture", "--test-threads", "1"];
    cli::shown(
        cli::cargo()
            .args(["test", "--quiet", "--no-fail-fast", "-p", "postwright-bounce"])
            .args(tests)
            .args(shown),
    )
}

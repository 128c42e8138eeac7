//! [`skip!`]: how a test says that it did not run; [`cases`]: how much a test of a suite did.
//!
//! Invariant: a test that is left early says so on stderr in one line of the form `skipped: SUITE (why)`, which
//! `cargo xtask test` collects; with `POSTWRIGHT_REQUIRE=all` it fails instead, so that a green run of the whole
//! cannot hide a missing neighbour.
//!
//! Not here: who is missing ([`crate::peers`], [`crate::suites`]).

/// The environment variable which, set to `all`, turns every skip into a failure.
pub const REQUIRE: &str = "POSTWRIGHT_REQUIRE";

/// Leaves the test function: `skip!("suite", "why, with {}", arguments)`.
///
/// The suite's name is what the table of `cargo xtask test` shows; write it without blanks. The function must
/// return `()`; elsewhere call [`announce`](crate::announce) and return what fits.
///
/// # Panics
/// With `POSTWRIGHT_REQUIRE=all`.
#[macro_export]
macro_rules! skip {
    ($suite:expr, $($why:tt)+) => {{
        $crate::announce($suite, &format!($($why)+));
        return
    }};
}

/// Prints `skipped: SUITE (why)`; [`skip!`](crate::skip) also returns.
///
/// # Panics
/// With `POSTWRIGHT_REQUIRE=all`.
#[expect(clippy::print_stderr, reason = "the line is read by the test runner")]
pub fn announce(suite: &str, why: &str) {
    let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "all");
    assert!(!required, "{suite}: {why}; {REQUIRE}=all forbids skipping");
    eprintln!("skipped: {suite} ({why})");
}

/// Prints `cases: SUITE RUN DEVIATING (why)`, which `cargo xtask test` gathers into its table of suites: how many cases
/// of public data, or questions put to an independent implementation, were run, and how many of them end otherwise with
/// us for the reason given. The test itself fails on any that has no reason. The suite's name has no blanks.
#[expect(clippy::print_stderr, reason = "the line is read by the test runner")]
pub fn cases(suite: &str, run: usize, deviating: usize, why: &str) {
    eprintln!("cases: {suite} {run} {deviating} ({why})");
}

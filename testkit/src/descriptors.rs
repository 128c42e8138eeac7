//! A test with few file descriptors: it runs itself again in a process of its own, since a limit holds for the whole
//! process.
//!
//! ```no_run
//! use postwright_testkit::descriptors;
//! #[test]
//! fn it_survives() {
//!     descriptors::run_with_few("in_a_process_with_few_descriptors");
//! }
//! #[test]
//! fn in_a_process_with_few_descriptors() {
//!     if descriptors::are_few() {
//!         println!("{}", descriptors::DONE);
//!     }
//! }
//! ```

use std::process::Command;

const MARK: &str = "POSTWRIGHT_FEW_DESCRIPTORS";

/// What the inner test prints when it comes to its end, so that one which did not run is found out.
pub const DONE: &str = "went through";

/// Runs a test of this program with at most 40 descriptors.
///
/// # Panics
/// If it fails, or does not say that it is [`DONE`].
pub fn run_with_few(test: &str) {
    let me = std::env::current_exe().expect("this program has a path");
    let limited = "ulimit -n 40 && exec \"$0\" --exact \"$1\" --nocapture";
    let output = Command::new("sh").args(["-c", limited]).arg(me).arg(test).env(MARK, "1").output();
    let output = output.expect("a shell runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains(DONE), "{text}");
}

/// Whether this is the process that [`run_with_few`] started; elsewhere the inner test does nothing.
pub fn are_few() -> bool {
    std::env::var_os(MARK).is_some()
}

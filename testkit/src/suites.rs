//! Where the public conformance data is.
//!
//! Invariant: the data is read where it lies and never copied; docs/suites.md says where each suite comes from.
//!
//! Not here: what a suite's files mean (the crate that is judged by it knows).

use std::path::PathBuf;

/// The environment variable that names the folder of all suites.
pub const VARIABLE: &str = "POSTWRIGHT_SUITES";

/// The folder of one suite, such as `spf` or `smtp/smuggling`: below `POSTWRIGHT_SUITES`, or else below
/// `../shared/suites` beside the workspace. `None` if it is not there.
pub fn dir(suite: &str) -> Option<PathBuf> {
    let all = match std::env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => crate::workspace_root().parent()?.join("shared").join("suites"),
    };
    let dir = all.join(suite);
    dir.is_dir().then_some(dir)
}

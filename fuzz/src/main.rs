//! libFuzzer's entry: runs the body that `POSTWRIGHT_FUZZ` names on each input.
//!
//! Not here: the bodies (`bodies`, which `cargo test` replays over the committed corpus too). Build and run it by
//! `cargo xtask fuzz`, which sets the compiler's coverage flags.

#![no_main]

mod bodies;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static BODY: OnceLock<bodies::Body> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let body = BODY.get_or_init(|| {
        let name = std::env::var("POSTWRIGHT_FUZZ").expect("POSTWRIGHT_FUZZ names the body to run");
        let found = bodies::ALL.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no body is called {name:?}")).1
    });
    body(data);
});

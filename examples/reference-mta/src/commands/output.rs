//! Writing results to stdout without a panic when the reader has gone.

use std::io::{self, Write};

use super::Failure;

/// Writes one compact line of JSON.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    text(&format!("{value}\n"))
}

/// Writes text as it is.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Writes octets as they are. A reader that closed its end early is no failure.
pub(crate) fn bytes(octets: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(octets).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

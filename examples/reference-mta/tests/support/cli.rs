//! The program as a script calls it: arguments, a folder to stand in, octets on stdin.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs it to its end.
pub fn run(dir: &Path, args: &[impl AsRef<OsStr>], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
    command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// What it prints; fails unless it succeeds.
pub fn ok(dir: &Path, args: &[impl AsRef<OsStr>], input: &[u8]) -> Vec<u8> {
    let output = run(dir, args, input);
    let (args, complaint) = (args.iter().map(AsRef::as_ref), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}: {complaint}", args.collect::<Vec<_>>());
    output.stdout
}

/// The one value that it prints.
pub fn json(dir: &Path, args: &[impl AsRef<OsStr>], input: &[u8]) -> Value {
    serde_json::from_slice(&ok(dir, args, input)).unwrap()
}

/// The values that it prints.
pub fn lines(dir: &Path, args: &[impl AsRef<OsStr>], input: &[u8]) -> Vec<Value> {
    let output = ok(dir, args, input);
    serde_json::Deserializer::from_slice(&output).into_iter::<Value>().map(Result::unwrap).collect()
}

/// How many messages a spool holds that nobody has open.
pub fn queued(spool: &Path) -> u64 {
    let report = json(Path::new("."), &[OsStr::new("spool"), OsStr::new("check"), spool.as_os_str()], b"");
    report["messages"].as_u64().unwrap()
}

//! A log that cannot be written: mail goes on, and nobody waits (FAULTS D2).
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const BODY: &[u8] = b"Subject: x\r\n\r\nx\r\n";

/// `serve` with its standard error led to `stderr`, telling everything.
fn serve(spool: &Path, receiver: &Receiver, stderr: Stdio) -> Mta {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--hostname", "mta.test", "--spool"]).arg(spool);
    command.args(["--smart-host", &receiver.address.to_string()]).env("RUST_LOG", "trace").stderr(stderr);
    Mta::spawn_quietly(command)
}

fn goes_on(mta: &Mta, receiver: &Receiver, messages: usize) {
    let mut client = Client::connect(mta.address).unwrap();
    for _ in 0..messages {
        client.send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    }
    wait_until("all of it has arrived", LIMIT, || receiver.count() == messages);
}

#[test]
fn a_full_volume_of_the_log_holds_up_nothing() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    // Every write to it fails with ENOSPC (full(4)).
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        postwright_testkit::skip!("log-full", "there is no /dev/full")
    };
    let mta = serve(spool.path(), &receiver, full.into());
    goes_on(&mta, &receiver, 50);
    assert!(mta.terminate(LIMIT).success());
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mta = serve(spool.path(), &receiver, writer.into());
    // Many times what a pipe holds.
    goes_on(&mta, &receiver, 300);
    // Its end is not held up either: the last lines are given a second.
    assert!(mta.terminate(LIMIT).success());
    let mut log = Vec::new();
    reader.read_to_end(&mut log).unwrap();
    assert!(log.len() > 60_000, "only {} octets: the pipe was never full", log.len());
}

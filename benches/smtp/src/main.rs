//! SMTP beside `smtp-proto` 0.2.5 (commands, EHLO, DATA) and `mailin` 0.6.5 (sessions), in one run, with the answers
//! compared first.
//!
//! ```text
//! cargo run --release -- [--quick] [--only NAME]    name, ours, peer, peer's name, unit: one line a case, by tabs
//! cargo run --release -- --only NAME:ours           one side and nothing else, for callgrind
//! cargo run --release -- --list                     what --only takes for callgrind, and how many calls that makes
//! ```
//!
//! Times are nanoseconds a call, the best of several rounds, the two sides by turns. Instructions, which do not depend
//! on the neighbours: `valgrind --tool=callgrind --toggle-collect='*measured_*' PROGRAM --only NAME:ours`, divided by
//! the calls.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "this is a stop-watch")]

mod codec;
mod session;

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Calls of one side that callgrind sees.
const CALLS: u32 = 100;

/// One thing that is measured.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) peer: &'static str,
    /// Octets that one call reads.
    pub(crate) octets: usize,
    pub(crate) ours: Box<dyn FnMut()>,
    /// Nobody else does it, if there is none.
    pub(crate) theirs: Option<Box<dyn FnMut()>>,
}

fn main() {
    let (mut quick, mut only, mut list) = (false, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => quick = true,
            "--list" => list = true,
            "--only" => only = Some(args.next().expect("--only NAME")),
            other => panic!("unknown: {other}; see the top of main.rs"),
        }
    }
    let mut cases = codec::cases();
    cases.extend(session::cases());
    let (name, side) = match only.as_deref().map(|only| only.split_once(':').unwrap_or((only, ""))) {
        None => ("", ""),
        Some(pair) => pair,
    };
    assert!(name.is_empty() || cases.iter().any(|case| case.name == name), "no case {name}; see --list");
    for case in cases.iter_mut().filter(|case| name.is_empty() || case.name == name) {
        match side {
            _ if list => sides(case).for_each(|side| println!("{}:{side}\t{CALLS}", case.name)),
            "" => time_both(case, quick),
            side => count(case, side),
        }
    }
}

fn sides(case: &Case) -> impl Iterator<Item = &'static str> {
    std::iter::once("ours").chain(case.theirs.as_ref().map(|_| "peer"))
}

fn count(case: &mut Case, side: &str) {
    let run = match side {
        "ours" => &mut case.ours,
        "peer" => case.theirs.as_mut().expect("nobody else does it"),
        other => panic!("no side {other}"),
    };
    (0..CALLS).for_each(|_| measured_call(run));
    println!("# {}:{side}: {CALLS} calls of {} octets", case.name, case.octets);
}

fn time_both(case: &mut Case, quick: bool) {
    // Short rounds: a busy machine leaves some of them alone.
    let (rounds, span) = if quick { (40, 1) } else { (600, 1) };
    let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        ours = ours.min(time(&mut case.ours, span));
        if let Some(run) = &mut case.theirs {
            theirs = theirs.min(time(run, span));
        }
    }
    let peer = if case.theirs.is_some() { format!("{theirs:.0}") } else { "-".to_owned() };
    println!("{}\t{ours:.0}\t{peer}\t{}\tns", case.name, case.peer);
}

/// The one function that callgrind looks for: what compares the answers beforehand does not go through it.
#[inline(never)]
fn measured_call(run: &mut dyn FnMut()) {
    run();
}

/// Nanoseconds a call.
fn time(run: &mut dyn FnMut(), milliseconds: u64) -> f64 {
    let (start, mut calls) = (Instant::now(), 0u32);
    while start.elapsed() < Duration::from_millis(milliseconds) {
        measured_call(run);
        calls += 1;
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// A message body: lines of 76 octets, as base64 has them, with a dot at the start of every 50th; not yet stuffed.
pub(crate) fn message(octets: usize) -> Vec<u8> {
    let mut all = b"From: a@client.example\r\nSubject: bench\r\n\r\n".to_vec();
    for line in 0usize.. {
        if all.len() >= octets {
            break;
        }
        if line % 50 == 49 {
            all.push(b'.');
        }
        all.extend_from_slice(&[b'A' + u8::try_from(line % 26).unwrap_or(0); 76]);
        all.extend_from_slice(b"\r\n");
    }
    all
}

/// As it goes behind DATA (RFC 5321 4.5.2).
pub(crate) fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(message.len() + 100);
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            all.push(b'.');
        }
        all.extend_from_slice(line);
    }
    all.extend_from_slice(b".\r\n");
    all
}

pub(crate) fn keep<T>(value: T) -> T {
    black_box(value)
}

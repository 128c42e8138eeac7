//! Sign and verify: ours, mail-auth 0.13.3, and the bare operations (ring's public-key operation and SHA-256 over the
//! very octets that are signed), on the same messages, answers asserted.
//!
//! ```text
//! cargo run --release [-- --quick]          a line a case: ours beside each peer, and what lies above the bare operations
//! cargo run --release -- --list             names and repetitions for --only
//! cargo run --release -- --only NAME        one side of one case, in `measured`, for callgrind
//! ```
//!
//! Not here: the judgement (docs/dkim.md).

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "this is a stop-watch")]

mod cache;
mod cases;

use std::hint::black_box;
use std::time::{Duration, Instant};

use cases::{Algorithm, Bench, What, Who};
use postwright_dkim::{BodyCanon, Canon};

const SIZES: [(&str, usize); 3] = [("2k", 2 << 10), ("50k", 50 << 10), ("5m", 5 << 20)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        [] => figures(200),
        ["--quick"] => figures(30),
        ["--list"] => cases().iter().for_each(|case| {
            Who::ALL.iter().for_each(|who| println!("{}-{}\t{}", case.name(), who.name(), case.times()));
        }),
        ["--only", name] => only(name),
        _ => panic!("usage: [--quick | --list | --only NAME]"),
    }
}

/// What is measured.
struct Case {
    what: What,
    algorithm: Algorithm,
    size: (&'static str, usize),
}

impl Case {
    fn name(&self) -> String {
        format!("{}-{}-{}", self.what.name(), self.algorithm.name(), self.size.0)
    }

    /// Repetitions under callgrind, which is some fifty times slower.
    fn times(&self) -> u32 {
        if self.size.1 > 1 << 20 { 2 } else { 50 }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for what in [What::Verify, What::Sign] {
        for algorithm in [Algorithm::Rsa, Algorithm::Ed25519] {
            cases.extend(SIZES.map(|size| Case { what, algorithm, size }));
        }
    }
    cases
}

fn only(name: &str) {
    for case in cases() {
        let who = Who::ALL.into_iter().find(|who| format!("{}-{}", case.name(), who.name()) == name);
        if let Some(who) = who {
            let bench = Bench::new(case.algorithm, case.size.1);
            return measured(&bench, who, case.what, case.times());
        }
    }
    panic!("no case is called {name:?}; see --list");
}

/// What callgrind counts.
#[inline(never)]
fn measured(bench: &Bench, who: Who, what: What, times: u32) {
    for _ in 0..times {
        black_box(bench.run(who, what));
    }
}

fn figures(rounds: u32) {
    println!("# best of {rounds} rounds, the three by turns; above: what lies above the bare operations");
    for case in cases() {
        let bench = Bench::new(case.algorithm, case.size.1);
        let [bare, ours, theirs] = interleaved(&bench, case.what, rounds);
        let name = case.name();
        println!("{name}\t{ours:.2}\t{bare:.2}\tbare ring\tus");
        println!("{name}\t{ours:.2}\t{theirs:.2}\tmail-auth 0.13.3\tus");
        println!("{name}-above\t{:.2}\t{:.2}\tmail-auth 0.13.3\tus", ours - bare, theirs - bare);
        println!("# {name}: {:.3} of bare", ours / bare);
    }
    canonicalisation(rounds);
}

/// The best of many short rounds, the three by turns so that the machine's moods meet all: microseconds.
fn interleaved(bench: &Bench, what: What, rounds: u32) -> [f64; 3] {
    let mut best = [f64::MAX; 3];
    let calibration = time(bench, Who::Ours, what, 1).max(Duration::from_nanos(1));
    let times = u32::try_from(Duration::from_millis(1).as_nanos() / calibration.as_nanos()).unwrap_or(1).max(1);
    for _ in 0..rounds {
        for (who, best) in Who::ALL.into_iter().zip(&mut best) {
            let round = time(bench, who, what, times);
            *best = best.min(round.as_secs_f64() * 1e6 / f64::from(times));
        }
    }
    best
}

fn time(bench: &Bench, who: Who, what: What, times: u32) -> Duration {
    let start = Instant::now();
    measured(bench, who, what, times);
    start.elapsed()
}

/// Relaxed bodies alone, beside memchr looking for an octet that is not there.
fn canonicalisation(rounds: u32) {
    for (size, octets) in SIZES {
        for (text, body) in [("text", cases::text(octets)), ("html", cases::html(octets))] {
            let times = u32::try_from((2 << 20) / body.len()).unwrap_or(1).max(1);
            let (mut ours, mut memchr) = (f64::MAX, f64::MAX);
            for _ in 0..rounds {
                ours = ours.min(seconds(times, || relaxed(black_box(&body))));
                memchr = memchr.min(seconds(times, || memchr::memchr(0, black_box(&body)).unwrap_or(0)));
            }
            let speed = |seconds: f64| body.len() as f64 / seconds / 1e9;
            println!("canon-{text}-{size}\t{:.1}\t{:.1}\tmemchr\tGB/s", speed(ours), speed(memchr));
        }
    }
}

fn relaxed(body: &[u8]) -> usize {
    let mut octets = 0;
    let mut canon = BodyCanon::new(Canon::Relaxed);
    canon.feed(body, &mut |piece| octets += black_box(piece).len());
    canon.finish(&mut |piece| octets += piece.len());
    octets
}

fn seconds(times: u32, work: impl Fn() -> usize) -> f64 {
    let start = Instant::now();
    (0..times).for_each(|_| {
        black_box(work());
    });
    start.elapsed().as_secs_f64() / f64::from(times)
}

//! Sign and verify: ours, mail-auth 0.13.3, and the bare operations (ring's public-key operation and SHA-256 of the
//! same number of octets), on the same messages, answers asserted.
//!
//! ```text
//! cargo run --release -- KEY.pem                 a table: time for each, ours against bare, and the rest
//! cargo run --release -- KEY.pem canon           canonicalisation alone, GB/s
//! cargo run --release -- KEY.pem one WHO WHAT ALGORITHM SIZE TIMES   one case, for valgrind --tool=callgrind
//! ```
//!
//! `KEY.pem` is an RSA key of 2048 bits in PKCS#1.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "this is a stop-watch")]

mod cache;
mod cases;

use std::hint::black_box;
use std::time::{Duration, Instant};

use cases::{Algorithm, Bench, What, Who};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        [key] => table(key),
        [key, "canon"] => canon(key),
        [key, "one", who, what, algorithm, size, times] => one(key, who, what, algorithm, size, times),
        _ => panic!("usage: KEY.pem [canon | one WHO WHAT ALGORITHM SIZE TIMES]"),
    }
}

const SIZES: [(&str, usize); 3] = [("2 KiB", 2 << 10), ("50 KiB", 50 << 10), ("5 MiB", 5 << 20)];

fn table(key: &str) {
    println!("| what | algorithm | size | bare | ours | mail-auth | ours / bare | above bare: ours | mail-auth | ratio |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for what in [What::Verify, What::Sign] {
        for algorithm in [Algorithm::Rsa, Algorithm::Ed25519] {
            for (name, size) in SIZES {
                let bench = Bench::new(key, algorithm, size);
                let [bare, ours, theirs] = interleaved(&bench, what);
                let above = |time: f64| time - bare;
                println!(
                    "| {what:?} | {algorithm:?} | {name} | {bare:.2} us | {ours:.2} us | {theirs:.2} us | {:.3} | {:.2} us | {:.2} us | {:.1} |",
                    ours / bare,
                    above(ours),
                    above(theirs),
                    above(theirs) / above(ours),
                );
            }
        }
    }
}

/// The best of many short rounds, the three by turns so that the machine's moods meet all: microseconds.
fn interleaved(bench: &Bench, what: What) -> [f64; 3] {
    let who = [Who::Bare, Who::Ours, Who::MailAuth];
    let mut best = [f64::MAX; 3];
    let calibration = time(bench, who[1], what, 1).max(Duration::from_nanos(1));
    let times = u32::try_from(Duration::from_millis(4).as_nanos() / calibration.as_nanos()).unwrap_or(1).max(1);
    for _ in 0..40 {
        for (who, best) in who.into_iter().zip(&mut best) {
            let round = time(bench, who, what, times);
            *best = best.min(round.as_secs_f64() * 1e6 / f64::from(times));
        }
    }
    best
}

fn time(bench: &Bench, who: Who, what: What, times: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        black_box(bench.run(who, what));
    }
    start.elapsed()
}

fn canon(key: &str) {
    for (name, size) in SIZES {
        let bench = Bench::new(key, Algorithm::Ed25519, size);
        for (kind, canon) in [("simple", postwright_dkim::Canon::Simple), ("relaxed", postwright_dkim::Canon::Relaxed)] {
            for (text, body) in [("plain text", bench.body()), ("indented HTML", bench.html())] {
                let mut best = f64::MAX;
                for _ in 0..60 {
                    let start = Instant::now();
                    let mut octets = 0;
                    let mut hasher = postwright_dkim::BodyCanon::new(canon);
                    hasher.feed(black_box(body), &mut |piece| octets += black_box(piece).len());
                    hasher.finish(&mut |piece| octets += piece.len());
                    black_box(octets);
                    best = best.min(start.elapsed().as_secs_f64());
                }
                println!("| {kind} | {text} | {name} | {:.1} GB/s |", body.len() as f64 / best / 1e9);
            }
        }
    }
}

fn one(key: &str, who: &str, what: &str, algorithm: &str, size: &str, times: &str) {
    let who = match who {
        "bare" => Who::Bare,
        "ours" => Who::Ours,
        _ => Who::MailAuth,
    };
    let what = if what == "sign" { What::Sign } else { What::Verify };
    let algorithm = if algorithm == "rsa" { Algorithm::Rsa } else { Algorithm::Ed25519 };
    let bench = Bench::new(key, algorithm, size.parse().expect("a size in octets"));
    for _ in 0..times.parse().expect("a number of times") {
        black_box(bench.run(who, what));
    }
}

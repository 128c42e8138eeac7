//! What a refusal means, beside a plain `RegexSet` of the same rules; reading notifications, beside mail-parser 0.11. The answers
//! of both sides are compared first, and only what both answer alike is measured.
//!
//! ```text
//! cargo run --release [-- --quick]          a line a case: ours, the peer's
//! cargo run --release -- --list             names and repetitions for --only
//! cargo run --release -- --only NAME        one side of one case, in `measured`, for callgrind
//! ```
//!
//! Not here: the judgement (docs/bounce.md).

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "this is a stop-watch")]

mod mails;
mod patterns;

use std::hint::black_box;
use std::time::Instant;

use mails::Mails;
use patterns::Patterns;
use postwright_bounce::classify::{Because, Classifier};

/// Typical refusals: the half of the labelled ones that the rules know.
const REFUSALS: &str = include_str!("../../../bounce/corpus/rule-making.tsv");

/// One side of one case.
trait Side {
    /// Works through everything once; what it gives keeps the work from being left out.
    fn once(&self) -> usize;
}

struct Case {
    name: &'static str,
    peer: &'static str,
    unit: &'static str,
    /// What one round amounts to, in the unit.
    amount: f64,
    /// Repetitions under callgrind.
    times: u32,
    sides: [Box<dyn Side>; 2],
}

struct Ours(Vec<&'static str>, Classifier);

impl Side for Ours {
    fn once(&self) -> usize {
        self.0.iter().filter(|line| self.1.classify_line(line).hard).count()
    }
}

struct Plain(Vec<&'static str>, Patterns);

impl Side for Plain {
    fn once(&self) -> usize {
        self.0.iter().filter_map(|line| self.1.first(line)).sum()
    }
}

fn refusals() -> Case {
    let classifier = Classifier::built_in();
    let patterns = Patterns::of(&classifier);
    let all: Vec<&str> = REFUSALS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split('\t').next())
        .collect();
    // The peer knows rules and no codes: what our rules decide, it must find by the same rule.
    let alike: Vec<&'static str> = all
        .iter()
        .copied()
        .filter(|line| match classifier.classify_line(line).rule {
            Because::Rule(name) => patterns.first(line).is_some_and(|rule| patterns.name(rule) == &*name),
            _ => false,
        })
        .collect();
    let octets: usize = alike.iter().map(|line| line.len()).sum();
    println!(
        "# refusals: {} of {} are decided by the same rule on both sides, {} octets on average; {} patterns",
        alike.len(),
        all.len(),
        octets / alike.len().max(1),
        patterns.len()
    );
    assert!(alike.len() * 10 >= all.len() * 7, "the two sides disagree too often to be compared");
    let amount = alike.len() as f64 / 1e6;
    let sides: [Box<dyn Side>; 2] =
        [Box::new(Ours(alike.clone(), classifier)), Box::new(Plain(alike, patterns))];
    Case { name: "classify", peer: "RegexSet", unit: "M/s", amount, times: 20, sides }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![refusals()];
    for (name, octets) in [("dsn-header", 0), ("dsn-50k", 50 << 10)] {
        let mails = Mails::of(octets);
        mails.check();
        let amount = mails.octets() as f64 / 1e6;
        let sides: [Box<dyn Side>; 2] = [Box::new(mails.ours()), Box::new(mails.theirs())];
        cases.push(Case { name, peer: "mail-parser 0.11.9", unit: "MB/s", amount, times: 20, sides });
    }
    cases
}

const NAMES: [&str; 2] = ["ours", "peer"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        [] => figures(40),
        ["--quick"] => figures(8),
        ["--list"] => {
            for case in cases() {
                NAMES.iter().for_each(|who| println!("{}-{who}\t{}", case.name, case.times));
            }
        }
        ["--only", name] => only(name),
        _ => panic!("usage: [--quick | --list | --only NAME]"),
    }
}

fn only(name: &str) {
    for case in cases() {
        for (who, side) in NAMES.iter().zip(&case.sides) {
            if format!("{}-{who}", case.name) == name {
                let sum: usize = (0..case.times).map(|_| measured(&**side)).sum();
                // Something is done with every answer, so that each call stays a call: callgrind counts between a call and its
                // return, and a jump has none.
                println!("# {name}: {sum}");
                return;
            }
        }
    }
    panic!("no case is called {name:?}; see --list");
}

/// What callgrind counts.
#[inline(never)]
fn measured(side: &dyn Side) -> usize {
    black_box(black_box(side).once())
}

/// The best of the rounds, the two sides by turns so that the machine's moods meet both.
fn figures(rounds: u32) {
    for case in cases() {
        let mut best = [f64::MAX; 2];
        for _ in 0..rounds {
            for (side, best) in case.sides.iter().zip(&mut best) {
                let start = Instant::now();
                black_box(measured(&**side));
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
        let [ours, theirs] = best.map(|seconds| case.amount / seconds);
        println!("{}\t{ours:.3}\t{theirs:.3}\t{}\t{}", case.name, case.peer, case.unit);
    }
}

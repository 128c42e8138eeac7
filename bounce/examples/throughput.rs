//! Classifications a second with the built-in rules: `cargo run --release --example throughput`.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use postwright_bounce::classify::Classifier;
use postwright_core::{Clock, SystemClock};

fn main() {
    let clock = SystemClock::new();
    let classifier = Classifier::built_in();
    let lines = include_str!("../corpus/rule-making.tsv").lines().filter(|line| !line.starts_with('#'));
    let texts: Vec<&str> = lines.filter_map(|line| line.split('\t').next()).collect();
    let (start, rounds) = (clock.mono(), 2000_u32);
    let mut hard = 0_usize;
    for _ in 0..rounds {
        hard += texts.iter().filter(|text| classifier.classify_line(text).hard).count();
    }
    let seconds = clock.mono().since(start).as_secs_f64();
    let count = texts.len() as f64 * f64::from(rounds);
    println!("{count} classifications in {seconds:.2} s: {:.0} a second ({hard} hard)", count / seconds);
}

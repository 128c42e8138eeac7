//! `postwright`: the reference MTA and the command line of the Postwright crates.
//!
//! This file only reads the command line and hands on; each command has a file of its own under `commands/`.

mod bench;
mod certificate;
mod commands;
mod config;
mod control;
mod demo;
mod guards;
mod keys;
mod listener;
mod log;
mod outbound;
mod pacing;
mod preflight;
mod relay_accounts;
mod reporting;
mod rotation_file;
mod shared_counts;
mod signals;
mod storage;

use std::process::ExitCode;

use clap::Parser;
use commands::{Command, Failure};

/// The reference MTA and the command line of the Postwright crates.
#[derive(Parser)]
#[command(name = "postwright", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => cli.command.run(),
        // Help and version are asked for: they go to stdout and are no failure.
        Err(shown) if !shown.use_stderr() => {
            return if shown.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) };
        }
        Err(wrong) => Err(Failure::new(gist(&wrong.to_string()))),
    };
    outcome.unwrap_or_else(|failure| {
        complain(&failure);
        ExitCode::from(2)
    })
}

/// What is wrong, without the usage behind it.
fn gist(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let end = ["\n\nUsage:", "\n\nFor more"].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].split_whitespace().collect::<Vec<_>>().join(" ") + "; see --help"
}

#[expect(clippy::print_stderr, reason = "a command line reports its failure there")]
fn complain(failure: &Failure) {
    eprintln!("postwright: {failure}");
}

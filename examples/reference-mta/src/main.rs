//! `postwright`: the reference MTA and the command line of the Postwright crates.
//!
//! This file only reads the command line and hands on; each command has a file of its own under `commands/`.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use commands::Command;

/// The reference MTA and the command line of the Postwright crates.
#[derive(Parser)]
#[command(name = "postwright", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[expect(clippy::print_stderr, reason = "a command line reports its failure there")]
fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("postwright: {failure}");
            ExitCode::from(2)
        }
    }
}

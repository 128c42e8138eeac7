//! `cargo xtask`: the project's chores, in Rust so that they run wherever the project builds.
//!
//! Invariant: a chore changes nothing outside `target/`; what must be installed on a machine is CI's business
//! (`.ci/run`).
//!
//! Not here: any code that ships.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who called it")]

mod bench;
mod bounce_report;
mod ci;
mod cli;
mod fuzz;
mod libtest;
mod package;
mod peers;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask <chore>

  test [-p PACKAGE]... [FILTER]   every test of the workspace, with a table of suites at the end
  peers [--python]                fetch independent programs to test against into target/peers
  peers --list debian|python      print the packages that would be fetched
  ci [STEP]...                    what CI does, step by step, with the time that each step took
  fuzz [BODY]... [--minutes N]    libFuzzer over each body of fuzz/, or those named; --seconds N for less
  bench [BENCH]... [--quick]      every bench beside its peer, and the MTA beside Postfix; --counts: instructions
  api [--check] [--base REV]      each crate's public list in docs/api; --check compares, and looks for breaks
  package                         pack every crate, look into it, build a stranger's program from the packages and run it
  bounce-report                   scores of the bounce reader and classifier, with every miss
  help                            this text";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (chore, rest) = args.split_first().map_or(("help", &[][..]), |(chore, rest)| (chore.as_str(), rest));
    let result = match chore {
        "test" => test::run(rest),
        "api" => ci::api(rest),
        "peers" => peers::run(rest),
        "bench" => bench::run(rest),
        "bounce-report" => bounce_report::run(),
        "ci" => ci::run(rest),
        "fuzz" => fuzz::run(rest),
        "package" => package::run(),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(format!("no chore is called {other:?}\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_empty() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

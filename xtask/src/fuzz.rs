//! `cargo xtask fuzz`: libFuzzer over the bodies of `fuzz/`, some time each, on the stable toolchain.
//!
//! Invariant: coverage comes from the compiler's own pass by stable flags, so no nightly and no further tool is
//! needed, only a C++ compiler for libFuzzer. What is found lands in `fuzz/artifacts`, what is new in the corpus
//! under `fuzz/target`; the committed corpus changes by hand only.
//!
//! Not here: the bodies, and their replay without libFuzzer (testkit/tests/fuzz_corpus.rs).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::{Outcome, cargo, root, shown};

/// Coverage counters for every edge, and values of comparisons, as libFuzzer reads them.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

struct Options {
    /// How long, as libFuzzer takes it.
    span: Vec<String>,
    bodies: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let seconds = |seconds: u64| vec![format!("-max_total_time={seconds}")];
        let mut options = Options { span: seconds(60), bodies: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                let text = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
                text.parse::<u64>().map_err(|_| format!("{arg}: {text:?} is no number"))
            };
            match arg.as_str() {
                "--minutes" => options.span = seconds(number()?.saturating_mul(60)),
                "--seconds" => options.span = seconds(number()?),
                // The same inputs each time: what CI does must not depend on luck.
                "--runs" => options.span = vec![format!("-runs={}", number()?), "-seed=1".to_owned()],
                flag if flag.starts_with('-') => return Err(format!("fuzz knows no option {flag}")),
                body => options.bodies.push(body.to_owned()),
            }
        }
        Ok(options)
    }
}

/// `[BODY]... [--minutes N | --seconds N | --runs N]`: each named body, or all of them, for so long each.
pub(crate) fn run(args: &[String]) -> Outcome {
    let mut options = Options::parse(args)?;
    let folder = root().join("fuzz");
    if options.bodies.is_empty() {
        options.bodies = bodies(&folder)?;
    }
    let triple = host()?;
    let mut build = cargo();
    // A target is named so that build scripts and procedural macros are built without the flags.
    build.args(["build", "--release", "--quiet", "--locked", "--target", &triple]).current_dir(&folder);
    shown(build.env("RUSTFLAGS", FLAGS))?;
    let program = folder.join("target").join(triple).join("release").join("fuzz");
    let mut broken = Vec::new();
    for body in &options.bodies {
        match fuzz(&folder, &program, body, &options.span) {
            Ok(summary) => println!("{body:<16} {summary}"),
            Err(error) => {
                println!("{body:<16} FAILED {error}");
                broken.push(body.as_str());
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("fuzzing broke {}", broken.join(", "))) }
}

/// The triple of this machine.
pub(crate) fn host() -> Result<String, String> {
    let text = crate::cli::output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not say what its host is".to_owned())
}

/// The corpus has a folder for each body; a test holds the two together.
fn bodies(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder.join("corpus")).map_err(|error| format!("fuzz/corpus: {error}"))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn fuzz(folder: &Path, program: &Path, body: &str, span: &[String]) -> Result<String, String> {
    let found = folder.join("target").join("corpus").join(body);
    let artifacts = folder.join("artifacts").join(body);
    for path in [&found, &artifacts] {
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut command = Command::new(program);
    command.env("POSTWRIGHT_FUZZ", body).stdin(Stdio::null());
    command.arg(&found).arg(folder.join("corpus").join(body));
    command.args(span).arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-print_final_stats=1", "-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"]);
    let output = command.output().map_err(|error| format!("{} cannot run: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(summary(&text));
    }
    let tail: Vec<&str> = text.lines().rev().take(40).collect();
    Err(format!("{}\n{}", output.status, tail.into_iter().rev().collect::<Vec<_>>().join("\n")))
}

/// Executions and edges reached, from libFuzzer's closing lines.
fn summary(log: &str) -> String {
    let executions = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let edges =
        log.lines().rev().find_map(|line| line.split(" cov: ").nth(1)).map(|rest| rest.split(' ').next());
    format!("{} executions, {} edges", executions.unwrap_or("?").trim(), edges.flatten().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_are_read() {
        let log = "#2\tINITED cov: 12 ft: 13 corp: 1/1b\n#900\tDONE   cov: 345 ft: 20\nstat::number_of_executed_units: 900\n";
        assert_eq!(summary(log), "900 executions, 345 edges");
    }

    #[test]
    fn options_are_read() {
        let args: Vec<String> = ["reply", "--minutes", "2"].map(str::to_owned).into();
        let options = Options::parse(&args).unwrap();
        assert_eq!(
            (options.span, options.bodies),
            (vec!["-max_total_time=120".to_owned()], vec!["reply".to_owned()])
        );
        assert!(Options::parse(&["--minutes".to_owned()]).is_err());
    }
}

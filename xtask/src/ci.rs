//! `cargo xtask ci`: what CI does, as steps that can be run one by one.
//!
//! Invariant: every step runs even if one before it failed, so that one run names every fault; the tests come
//! last, so that their closing line is the run's.
//!
//! Not here: installing anything (`.ci/run`).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cli::{Outcome, Stopwatch, cargo, output, shown};

type Step = (&'static str, fn() -> Outcome);

const STEPS: &[Step] = &[
    ("format", format),
    ("clippy", clippy),
    ("alone", alone),
    ("aws-lc", aws_lc),
    ("doc", doc),
    ("api", || api(&["--check".to_owned()])),
    ("package", crate::package::run),
    ("deny", deny),
    ("demo", demo),
    ("churn", churn),
    ("fuzz", || crate::fuzz::run(&["--runs".to_owned(), "30000".to_owned()])),
    ("test", || crate::test::run(&[])),
];

pub(crate) fn run(args: &[String]) -> Outcome {
    let known: BTreeSet<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = args.iter().find(|arg| !known.contains(arg.as_str())) {
        return Err(format!("ci has no step {unknown:?}; it has {known:?}"));
    }
    let mut faults = Vec::new();
    let mut times = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| args.is_empty() || args.iter().any(|arg| arg == name))
    {
        println!("\n== {name}");
        let watch = Stopwatch::start();
        let outcome = step();
        let seconds = watch.elapsed().as_secs_f64();
        println!("== {name}: {seconds:.0} s");
        times.push((*name, seconds));
        if let Err(error) = outcome {
            println!("== {name} FAILED {error}");
            faults.push(*name);
        }
    }
    eprint!("\n{}", time_table(&times));
    if faults.is_empty() { Ok(()) } else { Err(format!("failed: {}", faults.join(", "))) }
}

/// Where the minutes went, on stderr: the last line on stdout belongs to the tests.
fn time_table(times: &[(&str, f64)]) -> String {
    let all: f64 = times.iter().map(|(_, seconds)| seconds).sum();
    let line =
        |(name, seconds): &(&str, f64)| format!("{name:<8} {seconds:>7.0} {:>5.0}%\n", 100.0 * seconds / all);
    let lines: String = times.iter().map(line).collect();
    format!("{:<8} {:>7} {:>6}\n{lines}{}", "step", "seconds", "share", line(&("all", all)))
}

fn format() -> Outcome {
    // The workspaces of their own have no lines in ours.
    let mut outcome = shown(cargo().args(["fmt", "--all", "--check"]));
    for folder in ["fuzz", "xtask/consumer"] {
        let folder = crate::cli::root().join(folder);
        outcome = outcome.and(shown(cargo().args(["fmt", "--check"]).current_dir(folder)));
    }
    outcome
}

fn clippy() -> Outcome {
    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]);
    shown(&mut clippy)
}

/// Each library by itself, without its features and with each of them alone: a build of the whole workspace lends a crate
/// the features that its neighbours ask for. And the engines' tests without features.
fn alone() -> Outcome {
    let mut broken = Vec::new();
    for (package, features) in packages()? {
        for feature in std::iter::once("").chain(features.iter().map(String::as_str)) {
            let mut check = cargo();
            check.args(["check", "--quiet", "--lib", "--no-default-features", "-p", &package]);
            check.args(["--features", feature]).env("RUSTFLAGS", "");
            broken.extend(shown(&mut check).err());
        }
    }
    for engine in ["core", "smtp-proto", "dkim", "spf-dmarc", "queue", "shaping", "bounce"] {
        // Cryptography is not optional for those who sign; with one library or the other they have steps of their own.
        if engine != "dkim" {
            let package = format!("postwright-{engine}");
            let mut test = cargo();
            test.args(["test", "--quiet", "--no-default-features", "--lib", "--tests", "-p", &package]);
            broken.extend(shown(&mut test).err());
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

/// DKIM with AWS-LC and without ring. Both together are what the workspace's tests have.
fn aws_lc() -> Outcome {
    let features = ["--no-default-features", "--features", "aws-lc-rs,arc"];
    shown(cargo().args(["test", "--quiet", "-p", "postwright-dkim", "--tests", "--lib"]).args(features))
}

/// The workspace's packages that have a library, each with its features.
fn packages() -> Result<Vec<(String, Vec<String>)>, String> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let has_library = |package: &&Value| {
        let targets = package["targets"].as_array().into_iter().flatten();
        targets.flat_map(|target| target["kind"].as_array().into_iter().flatten()).any(|kind| kind == "lib")
    };
    let packages = metadata["packages"].as_array().into_iter().flatten().filter(has_library);
    let features = |package: &Value| {
        let features = package["features"].as_object().into_iter().flatten().map(|(name, _)| name.clone());
        features.filter(|name| name != "default").collect()
    };
    Ok(packages
        .filter_map(|package| Some((package["name"].as_str()?.to_owned(), features(package))))
        .collect())
}

fn doc() -> Outcome {
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--all-features", "--no-deps", "--quiet", "--keep-going"])
        .env("RUSTDOCFLAGS", "-D warnings");
    shown(&mut doc)
}

/// The public lists, by a program of its own: this one should not wait for the parser of rustdoc's JSON to be built.
pub(crate) fn api(args: &[String]) -> Outcome {
    shown(cargo().args(["run", "--quiet", "--package", "xtask-api", "--"]).args(args))
}

/// Licences, banned crates and sources by deny.toml, where cargo-deny is installed: building it takes longer than all the
/// steps up to here, so CI does not. What is banned is also held by a test (testkit/tests/architecture).
fn deny() -> Outcome {
    if output(cargo().args(["deny", "--version"])).is_err() {
        println!("skipped: cargo-deny is not installed (`cargo install --locked cargo-deny`)");
        return Ok(());
    }
    let check = ["deny", "--all-features", "--log-level", "error"];
    shown(cargo().args(check).args(["--offline", "check", "licenses", "bans", "sources"]))?;
    match output(cargo().args(check).args(["check", "advisories"])) {
        Err(error) if error.contains("failed to fetch advisory database") => {
            println!("skipped: advisories (their database cannot be fetched from here)");
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

fn demo() -> Outcome {
    shown(cargo().args(["run", "--release", "--quiet", "--bin", "postwright", "--", "demo", "--json"]))
}

/// 500,000 messages through the embedded spool at a depth of 10,000. The bench itself fails if disk or memory grow beyond
/// their bounds or a message is missing after the spool was opened again; how long it takes decides nothing.
fn churn() -> Outcome {
    let bench = ["bench", "--quiet", "-p", "postwright-queue", "--bench", "scale", "--"];
    shown(cargo().args(bench).args(["churn", "500000", "1024"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_times_adds_up() {
        let table = time_table(&[("doc", 30.0), ("test", 90.0)]);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1..], [["doc", "30", "25%"], ["test", "90", "75%"], ["all", "120", "100%"]]);
    }
}

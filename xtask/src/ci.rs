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
        times.push(format!("{name} {:.1}", watch.elapsed().as_secs_f64() / 60.0));
        println!("== {name}: {:.1} min", watch.elapsed().as_secs_f64() / 60.0);
        if let Err(error) = outcome {
            println!("== {name} FAILED {error}");
            faults.push(*name);
        }
    }
    eprintln!("minutes: {}", times.join(", "));
    if faults.is_empty() { Ok(()) } else { Err(format!("failed: {}", faults.join(", "))) }
}

fn format() -> Outcome {
    let fuzz = crate::cli::root().join("fuzz");
    let workspace = shown(cargo().args(["fmt", "--all", "--check"]));
    workspace.and(shown(cargo().args(["fmt", "--check"]).current_dir(fuzz)))
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

/// Each library by itself without its default features: a build of the whole workspace lends a crate the features
/// that its neighbours ask for.
fn alone() -> Outcome {
    let mut broken = Vec::new();
    for package in packages()? {
        let mut check = cargo();
        check
            .args(["check", "--quiet", "--lib", "--no-default-features", "-p", &package])
            .env("RUSTFLAGS", "");
        if let Err(error) = shown(&mut check) {
            broken.push(error);
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

/// DKIM with AWS-LC and without ring. Both together are what the workspace's tests have.
fn aws_lc() -> Outcome {
    let features = ["--no-default-features", "--features", "aws-lc-rs,arc"];
    shown(cargo().args(["test", "--quiet", "-p", "postwright-dkim", "--tests", "--lib"]).args(features))
}

/// The workspace's packages that have a library.
fn packages() -> Result<Vec<String>, String> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let has_library = |package: &&Value| {
        let targets = package["targets"].as_array().into_iter().flatten();
        targets.flat_map(|target| target["kind"].as_array().into_iter().flatten()).any(|kind| kind == "lib")
    };
    let packages = metadata["packages"].as_array().into_iter().flatten().filter(has_library);
    Ok(packages.filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
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

fn demo() -> Outcome {
    shown(cargo().args(["run", "--release", "--quiet", "--bin", "postwright", "--", "demo", "--json"]))
}

/// 500,000 messages through the embedded spool at a depth of 10,000. The bench itself fails if disk or memory grow beyond
/// their bounds or a message is missing after the spool was opened again; how long it takes decides nothing.
fn churn() -> Outcome {
    let bench = ["bench", "--quiet", "-p", "postwright-queue", "--bench", "scale", "--"];
    shown(cargo().args(bench).args(["churn", "500000", "1024"]))
}

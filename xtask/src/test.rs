//! `cargo xtask test`: every test of the workspace, all features on, suite by suite, and a table at the end.
//!
//! Invariant: its last line is `N passed, N failed, N skipped`, and it fails if anything failed. Everything is
//! built once, with one set of features; each test binary then runs by itself in its package's folder, as cargo
//! would run it, so that its package, its time and its end are known. A suite that hangs is ended and has failed.
//!
//! Not here: what the harness's lines mean (`libtest`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::cli::{Outcome, Stopwatch, cargo};
use crate::libtest::{Reader, Tally};

/// How often a suite that takes long says that it lives.
const WORD_EVERY: Duration = Duration::from_secs(30);

/// How long one suite may run.
const SUITE_TIME_MAX: Duration = Duration::from_secs(15 * 60);

struct Suite {
    name: String,
    tally: Tally,
    time: Duration,
}

/// What to build and which tests to run.
#[derive(Default)]
struct Selection {
    packages: Vec<String>,
    filter: Option<String>,
}

impl Selection {
    fn parse(args: &[String]) -> Result<Selection, String> {
        let mut selection = Selection::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-p" | "--package" => {
                    let package = args.next().ok_or("-p needs the name of a package")?;
                    selection.packages.push(package.clone());
                }
                flag if flag.starts_with('-') => return Err(format!("test knows no option {flag}")),
                filter => selection.filter = Some(filter.to_owned()),
            }
        }
        Ok(selection)
    }

    fn cargo_test(&self) -> Command {
        let mut command = cargo();
        command.args(["test", "--all-features"]);
        if self.packages.is_empty() {
            command.arg("--workspace");
        }
        for package in &self.packages {
            command.args(["-p", package]);
        }
        command
    }
}

pub(crate) fn run(args: &[String]) -> Outcome {
    let selection = Selection::parse(args)?;
    let watch = Stopwatch::start();
    println!("building the tests of the whole workspace; the first time this takes some minutes");
    let binaries = build(&selection)?;
    println!("built in {:.1} s", watch.elapsed().as_secs_f64());
    let mut suites = Vec::new();
    for (index, binary) in binaries.iter().enumerate() {
        print!("[{:>2}/{}] {:<52}", index + 1, binaries.len(), binary.name);
        let _ = std::io::stdout().flush();
        let mut command = Command::new(&binary.path);
        command.current_dir(&binary.folder).env("CARGO_MANIFEST_DIR", &binary.folder);
        command.args(selection.filter.iter()).arg("--show-output");
        let suite = run_suite(&binary.name, command)?;
        println!("{}", summary(&suite));
        suites.push(suite);
    }
    println!("doctests");
    suites.extend(doctests(&selection)?);
    report(&suites, watch.elapsed())
}

struct Binary {
    name: String,
    path: PathBuf,
    folder: PathBuf,
}

/// Builds all test binaries and says which they are.
fn build(selection: &Selection) -> Result<Vec<Binary>, String> {
    let mut command = selection.cargo_test();
    command.args(["--no-run", "--message-format=json-render-diagnostics"]).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cargo cannot run: {error}"))?;
    let mut binaries = BTreeMap::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(|error| format!("cargo's output: {error}"))?;
        if let Some(binary) = serde_json::from_str(&line).ok().as_ref().and_then(test_binary) {
            binaries.insert(binary.name.clone(), binary);
        }
    }
    let status = child.wait().map_err(|error| format!("cargo: {error}"))?;
    if status.success() {
        Ok(binaries.into_values().collect())
    } else {
        Err("the tests do not build".to_owned())
    }
}

/// The test binary that a message of cargo speaks of, if it does.
fn test_binary(message: &Value) -> Option<Binary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let package = package_name(message["package_id"].as_str()?)?;
    let target = &message["target"];
    let what = match target["kind"][0].as_str()? {
        "test" => target["name"].as_str()?.to_owned(),
        "bin" => format!("program {}", target["name"].as_str()?),
        "example" => format!("example {}", target["name"].as_str()?),
        _ => "unit".to_owned(),
    };
    Some(Binary { name: format!("{package}: {what}"), path, folder })
}

/// From `path+file:///folder#name@1.0.0`, or `path+file:///name#1.0.0` where the folder has the package's name.
fn package_name(id: &str) -> Option<&str> {
    let (place, version) = id.rsplit_once('#')?;
    Some(match version.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next()?,
    })
}

fn run_suite(name: &str, mut command: Command) -> Result<Suite, String> {
    let watch = Stopwatch::start();
    let (reader, writer) = std::io::pipe().map_err(|error| format!("no pipe: {error}"))?;
    let writer2 = writer.try_clone().map_err(|error| format!("no pipe: {error}"))?;
    command.stdin(Stdio::null()).stdout(writer).stderr(writer2);
    let mut child = command.spawn().map_err(|error| format!("{name} cannot run: {error}"))?;
    // The command holds this side's ends of the pipe.
    drop(command);
    let (lines, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut kept = Vec::new();
    let mut tally = Reader::default();
    let mut take = |line: String| {
        tally.line(&line);
        kept.push(line);
    };
    let (mut hung, mut done, mut word_at) = (false, 0, WORD_EVERY);
    let status = loop {
        match received.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => {
                done += usize::from(line.starts_with("test ") && line.contains(" ... "));
                take(line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break child.wait(),
            // A process that a test left behind may hold the pipe open: the suite's own end decides.
            Err(mpsc::RecvTimeoutError::Timeout) => match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            },
        }
        if watch.elapsed() > word_at {
            print!("\n{:>8} {done} tests done after {:.0} s, and on", "", word_at.as_secs_f64());
            let _ = std::io::stdout().flush();
            word_at += WORD_EVERY;
        }
        if watch.elapsed() > SUITE_TIME_MAX && !hung {
            hung = child.kill().is_ok();
        }
    };
    let status = status.map_err(|error| format!("{name}: {error}"))?;
    // The last lines may still be on their way; the pipe's end comes after them, unless somebody holds it open.
    while let Ok(line) = received.recv_timeout(Duration::from_secs(1)) {
        take(line);
    }
    let tally = tally.end(status.success() && !hung);
    if tally.failed > 0 {
        println!("\n{}", kept.join("\n"));
        if hung {
            println!("{name} was ended after {} minutes", SUITE_TIME_MAX.as_secs() / 60);
        }
    }
    Ok(Suite { name: name.to_owned(), tally, time: watch.elapsed() })
}

/// One run for all crates (a run for each would build each with features of its own).
fn doctests(selection: &Selection) -> Result<Vec<Suite>, String> {
    let mut command = selection.cargo_test();
    command.args(["--doc", "--no-fail-fast", "--"]).args(selection.filter.iter()).arg("--show-output");
    let watch = Stopwatch::start();
    let (reader, writer) = std::io::pipe().map_err(|error| format!("no pipe: {error}"))?;
    let writer2 = writer.try_clone().map_err(|error| format!("no pipe: {error}"))?;
    command.stdin(Stdio::null()).stdout(writer).stderr(writer2);
    let mut child = command.spawn().map_err(|error| format!("cargo cannot run: {error}"))?;
    drop(command);
    let mut suites: Vec<(String, Reader, Duration)> = Vec::new();
    let mut kept = Vec::new();
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        if let Some(name) = line.trim_start().strip_prefix("Doc-tests ") {
            let name = format!("{}: doc", name.replace('_', "-"));
            println!("[doc] {name}");
            suites.push((name, Reader::default(), watch.elapsed()));
        } else if let Some((_, reader, _)) = suites.last_mut() {
            reader.line(&line);
        }
        kept.push(line);
    }
    let status = child.wait().map_err(|error| format!("cargo: {error}"))?;
    // `-p` with programs only.
    if suites.is_empty() && kept.iter().any(|line| line.contains("no library targets found")) {
        return Ok(Vec::new());
    }
    if !status.success() {
        println!("{}", kept.join("\n"));
    }
    let ends: Vec<Duration> =
        suites.iter().skip(1).map(|(_, _, start)| *start).chain([watch.elapsed()]).collect();
    let mut done: Vec<Suite> = suites
        .into_iter()
        .zip(ends)
        .map(|((name, reader, start), end)| Suite { name, tally: reader.end(true), time: end - start })
        .collect();
    if !status.success() && done.iter().all(|suite| suite.tally.failed == 0) {
        let tally = Reader::default().end(false);
        done.push(Suite { name: "doctests".to_owned(), tally, time: watch.elapsed() });
    }
    Ok(done)
}

fn summary(suite: &Suite) -> String {
    let Tally { passed, failed, skipped, .. } = &suite.tally;
    format!("{passed:>5} passed {failed:>3} failed {skipped:>3} skipped {:>7.1} s", suite.time.as_secs_f64())
}

fn report(suites: &[Suite], time: Duration) -> Outcome {
    println!("\n{:<60} {:>6} {:>6} {:>7} {:>8}", "suite", "passed", "failed", "skipped", "seconds");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for suite in suites {
        let Tally { passed: ok, failed: bad, skipped: left, .. } = suite.tally;
        let seconds = suite.time.as_secs_f64();
        // Doctests that do not exist need no row.
        if ok + bad + left > 0 {
            println!("{:<60} {ok:>6} {bad:>6} {left:>7} {seconds:>8.1}", suite.name);
        }
        (passed, failed, skipped) = (passed + ok, failed + bad, skipped + left);
    }
    print!("{}", gathered(suites));
    let reasons = suites.iter().flat_map(|suite| suite.tally.reasons.iter().map(|why| (why, &suite.name)));
    let reasons: BTreeMap<_, _> = reasons.collect();
    if !reasons.is_empty() {
        println!(
            "\nskipped, and why (docs/suites.md says where to get what is missing; `cargo xtask peers` fetches programs):"
        );
        for (why, suite) in reasons {
            println!("  {why} [{suite}]");
        }
    }
    for suite in suites.iter().filter(|suite| suite.tally.failed > 0) {
        for test in &suite.tally.failures {
            println!("FAILED  {}  {test}", suite.name);
        }
    }
    println!("\ntotal time {:.0} s", time.as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { Ok(()) } else { Err(String::new()) }
}

/// The second table: what was judged by public data and by other implementations, and what was not, and why.
fn gathered(suites: &[Suite]) -> String {
    let row = |name: &str, run: &str, passed: &str, deviating: &str, why: &str| {
        format!("{name:<32} {run:>7} {passed:>7} {deviating:>10}  {why}").trim_end().to_owned() + "\n"
    };
    let mut table = String::new();
    let (mut run, mut deviating) = (0, 0);
    // What is run twice, with one library and with another, stands here once.
    let cases: BTreeMap<_, _> = suites.iter().flat_map(|suite| &suite.tally.cases).collect();
    for (name, cases) in cases {
        let passed = cases.run.saturating_sub(cases.deviating);
        let numbers = [cases.run, passed, cases.deviating].map(|number| number.to_string());
        table.push_str(&row(name, &numbers[0], &numbers[1], &numbers[2], &cases.why));
        (run, deviating) = (run + cases.run, deviating + cases.deviating);
    }
    for reason in suites.iter().flat_map(|suite| &suite.tally.reasons) {
        let (name, why) = reason.split_once(' ').unwrap_or((reason, ""));
        table.push_str(&row(name, "-", "-", "-", &format!("skipped: {}", why.trim_matches(['(', ')']))));
    }
    if table.is_empty() {
        return table;
    }
    let numbers = [run, run - deviating.min(run), deviating].map(|number| number.to_string());
    let head = row("public data, other programs", "cases", "passed", "deviations", "why");
    format!("\n{head}{table}{}", row("all", &numbers[0], &numbers[1], &numbers[2], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_public_suites_counts_deviations_and_skips() {
        let mut reader = Reader::default();
        reader.line("cases: pyspf 9000 12 (by rules)");
        reader.line("skipped: redis (no redis-server)");
        reader.line("test result: ok. 2 passed; 0 failed; 0 ignored");
        let suite = Suite { name: "x".to_owned(), tally: reader.end(true), time: Duration::ZERO };
        let table = gathered(&[suite]);
        let rows: Vec<Vec<&str>> =
            table.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["pyspf", "9000", "8988", "12", "by", "rules"]);
        assert_eq!(rows[1], ["redis", "-", "-", "-", "skipped:", "no", "redis-server"]);
        assert_eq!(rows[2], ["all", "9000", "8988", "12"]);
        assert_eq!(gathered(&[]), "");
    }

    #[test]
    fn package_ids_of_both_forms_are_read() {
        assert_eq!(package_name("path+file:///a/core#postwright-core@0.1.0"), Some("postwright-core"));
        assert_eq!(package_name("path+file:///a/xtask#0.1.0"), Some("xtask"));
    }

    #[test]
    fn a_message_names_its_suite() {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "profile": {"test": true}, "executable": "/t/zone-1",
            "package_id": "path+file:///a/core#postwright-core@0.1.0", "manifest_path": "/a/core/Cargo.toml",
            "target": {"kind": ["test"], "name": "zone"},
        });
        let binary = test_binary(&message).unwrap();
        assert_eq!(
            (binary.name.as_str(), binary.folder.as_path()),
            ("postwright-core: zone", Path::new("/a/core"))
        );
    }

    #[test]
    fn a_suite_runs_and_is_counted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; echo 'noise' >&2"]);
        let suite = run_suite("sample", command).unwrap();
        assert_eq!((suite.tally.passed, suite.tally.failed), (2, 0));
    }

    #[test]
    fn the_last_lines_count_however_late_they_come_and_whoever_holds_the_pipe() {
        let script = "sleep 0.06; (sleep 2 &) ; echo 'test result: ok. 1 passed; 0 failed; 0 ignored'";
        for _ in 0..2 {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let suite = run_suite("sample", command).unwrap();
            assert_eq!((suite.tally.passed, suite.tally.failed), (1, 0));
        }
    }
}

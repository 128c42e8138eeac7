//! `cargo xtask bench`: every bench of `benches/`, ours beside a peer, and the whole MTA beside Postfix, in one table.
//!
//! What a bench says on its standard output, a line a case, its words apart by tabs:
//!
//! ```text
//! CASE  OURS  PEER  PEER'S-NAME  UNIT      a figure; PEER and its name are "-" where there is none
//! # anything                               a remark
//! ```
//!
//! A unit with `/s` is a speed, any other a cost. With `--list` it prints the names for `--only NAME`, which runs one
//! side of one case a fixed number of times, `NAME<TAB>TIMES`; callgrind then counts instructions inside functions whose
//! name has `measured`. The sides of a case share a stem, and ours ends in `ours`.
//!
//! Not here: what is measured (benches/*), and the judgement of the figures (docs/performance.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::{Outcome, cargo, output, root, shown};

/// The name under which the whole MTA is measured.
const RELAY: &str = "relay";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    quick: bool,
    counts: bool,
    benches: Vec<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        for arg in args {
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--counts" => options.counts = true,
                flag if flag.starts_with('-') => return Err(format!("bench knows no option {flag}")),
                name => options.benches.push(name.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.benches.is_empty() || self.benches.iter().any(|wanted| wanted == name)
    }
}

/// `[BENCH]... [--quick] [--counts]`: each named bench, or all of them.
pub(crate) fn run(args: &[String]) -> Outcome {
    let options = Options::parse(args)?;
    let folders = folders()?;
    let known: Vec<&str> = folders.keys().map(String::as_str).chain([RELAY]).collect();
    if let Some(unknown) = options.benches.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("no bench is called {unknown:?}; there are {}", known.join(", ")));
    }
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for (name, folder) in folders.iter().filter(|(name, _)| options.wants(name)) {
        let found = if options.counts { counts(name, folder) } else { figures(name, folder, options.quick) };
        match found {
            Ok(found) => rows.extend(found),
            Err(error) => broken.push(format!("{name}: {error}")),
        }
    }
    if options.wants(RELAY) && !options.counts {
        match relay(options.quick) {
            Ok(found) => rows.extend(found),
            Err(error) => broken.push(format!("{RELAY}: {error}")),
        }
    }
    println!(
        "\n| bench | case | ours | peer | peer's name | unit | ours is better by |\n|---|---|---|---|---|---|---|"
    );
    rows.iter().for_each(|row| println!("{}", row.line()));
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

/// One figure beside another.
#[derive(Debug, PartialEq)]
struct Row {
    bench: String,
    case: String,
    ours: f64,
    peer: Option<(f64, String)>,
    unit: String,
}

impl Row {
    fn parse(bench: &str, line: &str) -> Option<Row> {
        let words: Vec<&str> = line.split('\t').map(str::trim).collect();
        let [case, ours, peer, name, unit] = words[..] else { return None };
        let peer = match peer {
            "-" => None,
            figure => Some((figure.parse().ok()?, name.to_owned())),
        };
        let (bench, case, unit) = (bench.to_owned(), case.to_owned(), unit.to_owned());
        Some(Row { bench, case, ours: ours.parse().ok()?, peer, unit })
    }

    /// How many times better: more of a speed, less of a cost.
    fn ratio(&self) -> Option<f64> {
        let (peer, _) = self.peer.as_ref()?;
        let (better, worse) = if self.unit.contains("/s") { (self.ours, *peer) } else { (*peer, self.ours) };
        Some(better / worse).filter(|ratio| ratio.is_finite())
    }

    fn line(&self) -> String {
        let (peer, name) =
            self.peer.as_ref().map_or(("-".to_owned(), "-"), |(figure, name)| (short(*figure), name));
        let ratio = self.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let Row { bench, case, unit, .. } = self;
        format!("| {bench} | {case} | {} | {peer} | {name} | {unit} | {ratio} |", short(self.ours))
    }
}

/// Three digits that matter, and no more.
fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// Each folder of `benches/` is a workspace of its own, so that the peers' trees do not weigh on the project's.
fn folders() -> Result<BTreeMap<String, PathBuf>, String> {
    let entries = fs::read_dir(root().join("benches")).map_err(|error| format!("benches: {error}"))?;
    let folders =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join("Cargo.toml").is_file());
    Ok(folders.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path))).collect())
}

/// One folder for what all benches are built from: the peers' trees have much in common.
fn built() -> PathBuf {
    root().join("target").join("benches")
}

fn figures(bench: &str, folder: &Path, quick: bool) -> Result<Vec<Row>, String> {
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--locked", "--"]).current_dir(folder);
    command.env("CARGO_TARGET_DIR", built());
    if quick {
        command.arg("--quick");
    }
    println!("== {bench}");
    let text = output(command.stderr(Stdio::inherit()))?;
    print!("{text}");
    let rows: Vec<Row> = text.lines().filter_map(|line| Row::parse(bench, line)).collect();
    if rows.is_empty() { Err("it printed no figure".to_owned()) } else { Ok(rows) }
}

/// Instructions a call, which do not depend on what else the machine does.
fn counts(bench: &str, folder: &Path) -> Result<Vec<Row>, String> {
    let mut build = cargo();
    build.args(["build", "--release", "--quiet", "--locked"]).current_dir(folder);
    shown(build.env("CARGO_TARGET_DIR", built()))?;
    let program = built().join("release").join(format!("postwright-bench-{bench}"));
    let cases = output(Command::new(&program).arg("--list"))?;
    let mut counted = Vec::new();
    for line in cases.lines() {
        let (case, times) = line.split_once('\t').ok_or_else(|| format!("--list says {line:?}"))?;
        let times: f64 = times.trim().parse().map_err(|_| format!("--list says {line:?}"))?;
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"]);
        valgrind.arg(&program).args(["--only", case]);
        let outcome = valgrind.output().map_err(|error| format!("valgrind cannot run: {error}"))?;
        let log = String::from_utf8_lossy(&outcome.stderr).into_owned();
        let collected = collected(&log).ok_or_else(|| format!("{case}: callgrind says {log}"))?;
        println!("{bench}\t{case}\t{:.0}", collected / times);
        counted.push((case.to_owned(), collected / times));
    }
    Ok(paired(bench, &counted))
}

/// Sides of one case share a stem: `NAME:ours` and `NAME:peer`, or `NAME-ours` and `NAME-of-the-peer`.
fn paired(bench: &str, counted: &[(String, f64)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, ours) in counted {
        let Some(stem) = name.strip_suffix("ours") else { continue };
        let peers = counted.iter().filter_map(|(other, figure)| {
            let peer = other.strip_prefix(stem).filter(|peer| *peer != "ours")?;
            Some(Some((*figure, peer.to_owned())))
        });
        let peers: Vec<_> = peers.collect();
        for peer in if peers.is_empty() { vec![None] } else { peers } {
            let case = stem.trim_end_matches([':', '-']).to_owned();
            let unit = "instructions".to_owned();
            rows.push(Row { bench: bench.to_owned(), case, ours: *ours, peer, unit });
        }
    }
    rows
}

/// The sum in callgrind's closing lines.
fn collected(log: &str) -> Option<f64> {
    let line = log.lines().find_map(|line| line.split_once("Collected : "))?;
    line.1.split_whitespace().next()?.parse().ok()
}

/// The MTA as a whole, durable; beside Postfix where that can be started.
fn relay(quick: bool) -> Result<Vec<Row>, String> {
    println!("== {RELAY}");
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "--bin", "postwright", "--", "bench", "relay", "--json"]);
    if quick {
        command.args(["--messages", "3000", "--rounds", "1"]);
    }
    let peer = can_start_postfix();
    if peer {
        command.args(["--beside", "postfix"]);
    } else {
        println!("# postfix is not installed or we are not root: ours alone");
    }
    let text = output(command.stderr(Stdio::inherit()))?;
    print!("{text}");
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Ok(beside(&lines))
}

fn can_start_postfix() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0"));
    root && Command::new("postfix").arg("-h").output().is_ok()
}

fn beside(lines: &[Value]) -> Vec<Row> {
    let same = |one: &Value, other: &Value| {
        ["job", "octets", "connections"].iter().all(|key| one[key] == other[key])
    };
    // Ours, the peer, and what a message is then: without an MTA nothing is kept.
    let pairs = [("bare", "smtp-source", "messages/s"), ("postwright", "postfix", "synced messages/s")];
    let mut rows = Vec::new();
    for (line, name, unit) in lines.iter().filter_map(|line| {
        let (_, peer, unit) = pairs.iter().find(|(ours, ..)| line["system"] == *ours)?;
        Some((line, *peer, *unit))
    }) {
        let peer = lines.iter().find(|other| other["system"] == name && same(line, other));
        for (key, unit) in [("per_second", unit.to_owned()), ("per_cpu_second", format!("{unit} of CPU"))] {
            let Some(ours) = line[key].as_f64() else { continue };
            let peer = peer.and_then(|peer| Some((peer[key].as_f64()?, name.to_owned())));
            let job = line["job"].as_str().unwrap_or_default();
            let case = format!("{job}, {} octets, {} connections", line["octets"], line["connections"]);
            rows.push(Row { bench: RELAY.to_owned(), case, ours, peer, unit });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_and_a_cost_point_different_ways() {
        let cost = Row::parse("smtp", "data\t2\t5\tother\tns").unwrap();
        let speed = Row::parse("smtp", "data\t2\t5\tother\tGB/s").unwrap();
        assert_eq!((cost.ratio(), speed.ratio()), (Some(2.5), Some(0.4)));
        assert_eq!(cost.line(), "| smtp | data | 2.00 | 5.00 | other | ns | 2.50 |");
    }

    #[test]
    fn what_is_no_figure_is_no_row() {
        assert_eq!(Row::parse("smtp", "# a remark"), None);
        assert_eq!(Row::parse("smtp", "data\tmany\t5\tother\tns"), None);
        assert_eq!(Row::parse("smtp", "data\t3\t-\t-\tns").unwrap().ratio(), None);
    }

    #[test]
    fn the_sides_of_a_case_meet() {
        let counted = [
            ("a:ours", 1.0),
            ("a:peer", 2.0),
            ("b-ours", 3.0),
            ("b-bare", 1.5),
            ("b-other", 6.0),
            ("c:ours", 9.0),
        ];
        let counted: Vec<(String, f64)> = counted.map(|(name, figure)| (name.to_owned(), figure)).into();
        let ratios: Vec<_> =
            paired("x", &counted).iter().map(|row| (row.case.clone(), row.ratio())).collect();
        let case = |name: &str, ratio| (name.to_owned(), ratio);
        assert_eq!(
            ratios,
            [case("a", Some(2.0)), case("b", Some(0.5)), case("b", Some(2.0)), case("c", None)]
        );
    }

    #[test]
    fn callgrinds_sum_is_read() {
        assert_eq!(collected("==1== \n==1== Collected : 12345\n==1== \n"), Some(12345.0));
        assert_eq!(collected("==1== Events    : Ir\n"), None);
    }

    #[test]
    fn lines_of_the_same_case_meet() {
        let line = |system: &str, job: &str, rate: u32| serde_json::json!({ "system": system, "job": job, "octets": 1024, "connections": 20, "per_second": rate });
        let rows = beside(&[
            line("bare", "load", 9),
            line("postwright", "relay", 8),
            line("postfix", "receive", 1),
            line("postfix", "relay", 2),
        ]);
        assert_eq!((rows.len(), rows[0].ratio()), (2, None));
        assert_eq!(rows[1].ratio(), Some(4.0));
    }
}

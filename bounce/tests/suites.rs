//! The public suites of bounces, notifications and complaints: recipients found, verdicts right, every miss listed.
//!
//! `cargo xtask bounce-report` runs this with its output shown.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the test is the report that xtask shows")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use postwright_bounce::Limits;
use postwright_bounce::classify::{Category, Classifier};
use postwright_bounce::report::{Kind, MailReport, read};

/// The suite's folder, or why its tests are skipped.
fn suite(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("POSTWRIGHT_SUITES")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("../shared/suites"));
    let path = root.join(name);
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        std::env::var_os("POSTWRIGHT_REQUIRE").is_none_or(|value| value != "all"),
        "the suite {name} is missing at {}",
        path.display()
    );
    eprintln!("skipped: {name} (not at {})", path.display());
    None
}

fn report(path: &Path, classifier: &Classifier) -> MailReport {
    read(&std::fs::read(path).unwrap(), classifier, &Limits::default())
}

/// Counts and misses of one measure.
#[derive(Default)]
struct Score {
    right: usize,
    total: usize,
    misses: Vec<String>,
}

impl Score {
    fn add(&mut self, right: bool, miss: impl FnOnce() -> String) {
        self.total += 1;
        if right {
            self.right += 1;
        } else {
            self.misses.push(miss());
        }
    }

    /// The line that `cargo xtask test` collects.
    fn tell(&self, suite: &str, why: &str) {
        println!("cases: {suite} {} {} ({why})", self.total, self.misses.len());
    }

    fn show(&self, name: &str) -> f64 {
        let share = 100.0 * self.right as f64 / self.total.max(1) as f64;
        println!("{name}: {} of {} ({share:.2}%)", self.right, self.total);
        for miss in &self.misses {
            println!("  miss: {miss}");
        }
        share
    }
}

#[test]
fn flufl() {
    let Some(folder) = suite("bounce/flufl") else { return };
    let classifier = Classifier::built_in();
    let (mut found, mut verdicts, mut extra) = (Score::default(), Score::default(), Score::default());
    let mut matrix: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (name, permanent, temporary) in
        expected_json(&std::fs::read_to_string(folder.join("expected.json")).unwrap())
    {
        let report = report(&folder.join("messages").join(&name), &classifier);
        let mut named = BTreeSet::new();
        for (list, expected) in [(&permanent, "permanent"), (&temporary, "transient")] {
            for address in list {
                let hit = report.reports.iter().find(|one| {
                    [Some(&one.recipient), one.original_recipient.as_ref()]
                        .into_iter()
                        .flatten()
                        .any(|it| it.eq_ignore_ascii_case(address))
                });
                let others: Vec<&str> = report.reports.iter().map(|one| &*one.recipient).collect();
                found.add(hit.is_some(), || {
                    format!("{name}: {address} not among {others:?} ({:?})", report.kind)
                });
                if let Some(hit) = hit {
                    named.insert(hit.recipient.to_ascii_lowercase());
                    let got = hit.classification.permanence.as_str();
                    *matrix.entry((expected, got)).or_default() += 1;
                    verdicts.add(got == expected, || {
                        format!("{name}: {address} want {expected}, got {got}: {:?}", hit.diagnostic)
                    });
                }
            }
        }
        for one in &report.reports {
            let settled = one.action.is_none_or(|action| {
                matches!(
                    action,
                    postwright_bounce::dsn::Action::Failed | postwright_bounce::dsn::Action::Delayed
                )
            });
            if settled && report.kind != Kind::AutoReply {
                extra.add(named.contains(&one.recipient.to_ascii_lowercase()), || {
                    format!("{name}: {} is not expected", one.recipient)
                });
            }
        }
    }
    println!("flufl, confusion (expected, got): {matrix:?}");
    verdicts.tell("bounce/flufl", "judged in docs/bounce.md");
    let (found, verdicts, _) = (
        found.show("flufl recipients found (recall)"),
        verdicts.show("flufl permanence"),
        extra.show("flufl precision of recipients"),
    );
    assert!(found >= 98.0 && verdicts >= 97.0, "{found} {verdicts}");
}

/// `{"name": {"permanent": [..], "temporary": [..]}}`: the suite's file needs no more of JSON than this.
fn expected_json(text: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>, Vec<String>)> = Vec::new();
    let mut list = "";
    for line in text.lines() {
        let Some(word) = line.split('"').nth(1) else { continue };
        if line.contains(": {") {
            all.push((word.to_owned(), Vec::new(), Vec::new()));
        } else if line.contains(": [") {
            list = if word == "permanent" { "permanent" } else { "temporary" };
        } else if let Some((_, permanent, temporary)) = all.last_mut() {
            if list == "permanent" {
                permanent.push(word.to_owned())
            } else {
                temporary.push(word.to_owned())
            }
        }
    }
    all
}

#[test]
fn sisimai() {
    let Some(folder) = suite("bounce/sisimai") else { return };
    let classifier = Classifier::built_in();
    let (mut found, mut verdicts, mut reasons) = (Score::default(), Score::default(), Score::default());
    let mut matrix: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut reports: BTreeMap<String, MailReport> = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join("expected.tsv")).unwrap().lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, index, _, _, reason, hard, ..] = columns[..] else { continue };
        if line.starts_with('#') || reason.is_empty() {
            continue;
        }
        let report = reports
            .entry(name.to_owned())
            .or_insert_with(|| report(&folder.join("messages").join(name), &classifier));
        let hit = report.reports.get(index.parse::<usize>().unwrap() - 1);
        found.add(hit.is_some(), || {
            format!("{name} #{index} ({reason}): {:?}, {} found", report.kind, report.reports.len())
        });
        let Some(hit) = hit else { continue };
        let got = hit.classification.hard;
        *matrix.entry((format!("hard={hard}"), format!("hard={got}"))).or_default() += 1;
        let tell = || {
            format!(
                "{name} #{index}: want {reason} hard={hard}, got {} ({}) for {} {:?}",
                hit.classification.category, hit.classification.rule, hit.recipient, hit.diagnostic
            )
        };
        verdicts.add(got.to_string() == hard, tell);
        reasons.add(hit.classification.category.row().sisimai == reason, tell);
    }
    println!("sisimai, confusion (expected, got): {matrix:?}");
    verdicts.tell("bounce/sisimai", "judged in docs/bounce.md");
    let (found, verdicts) = (found.show("sisimai recipients found"), verdicts.show("sisimai hard"));
    if std::env::var_os("POSTWRIGHT_REASONS").is_some() {
        reasons.show("sisimai reasons");
    } else {
        println!("sisimai reasons: {} of {}", reasons.right, reasons.total);
    }
    // Of the misses most are `filtered` for a plain "user unknown" without a phase: docs/bounce.md lists and judges them.
    assert!(found >= 98.0 && verdicts >= 95.9, "{found} {verdicts}");
}

#[test]
fn notifications_of_rfc_3464() {
    let Some(folder) = suite("bounce/rfc3464") else { return };
    let classifier = Classifier::built_in();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "eml") {
            let report = report(&path, &classifier);
            println!(
                "{}: {:?} {:?}",
                path.display(),
                report.kind,
                report.reports.iter().map(|one| (&one.recipient, one.action, one.status)).collect::<Vec<_>>()
            );
            assert_eq!(report.kind, Kind::Dsn, "{}", path.display());
            assert!(!report.reports.is_empty());
            count += 1;
        }
    }
    println!("cases: bounce/rfc3464 {count} 0 ()");
}

#[test]
fn complaints_of_rfc_5965() {
    let Some(folder) = suite("bounce/rfc5965") else { return };
    let classifier = Classifier::built_in();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let report = report(&path, &classifier);
        println!("{}: {:?} {:?}", path.display(), report.kind, report.feedback);
        assert_eq!(report.kind, Kind::Arf, "{}", path.display());
        assert!(report.feedback.is_some());
        assert!(
            report
                .reports
                .iter()
                .all(|one| one.classification.category == Category::Complaint && !one.classification.hard)
        );
        count += 1;
    }
    println!("cases: bounce/rfc5965 {count} 0 ()");
}

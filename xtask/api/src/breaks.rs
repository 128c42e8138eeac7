//! What of a public list breaks those who use it, and whether CHANGELOG.md says so.
//!
//! Invariant: a line that is gone, and a variant or field more in a type that is not `#[non_exhaustive]`, is a break; a break
//! must be named in backticks under "Breaking" of the changelog's unreleased section, itself or what it belongs to. Names of parameters are
//! no part of a contract and are not compared.
//!
//! Not here: what text cannot show (a method that a trait demands, a bound that got narrower inside a type, behaviour). A
//! reader of the difference sees the first two.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::list::path;

/// Lines that went (`-`) and came (`+`), in the order of the lists.
pub(crate) fn difference(name: &str, before: &str, after: &str) -> String {
    let old: BTreeSet<&str> = before.lines().collect();
    let new: BTreeSet<&str> = after.lines().collect();
    let mut text = format!("docs/api/{name}.txt\n");
    for line in before.lines().filter(|line| !new.contains(line)) {
        text.push_str(&format!("  - {line}\n"));
    }
    for line in after.lines().filter(|line| !old.contains(line)) {
        text.push_str(&format!("  + {line}\n"));
    }
    text
}

/// Compares the lists that are there with those of `base`, and fails for a break that CHANGELOG.md does not name.
pub(crate) fn look(root: &Path, base: Option<String>, lists: &[&str]) -> Result<(), String> {
    let Some(base) = base.or_else(|| base_of(root)) else {
        println!("breaks: no commit to compare with");
        return Ok(());
    };
    let changelog =
        fs::read_to_string(root.join("CHANGELOG.md")).map_err(|error| format!("CHANGELOG.md: {error}"))?;
    let named = named(&changelog);
    let (mut breaks, mut silent) = (0, Vec::new());
    // The testkit is published to nobody.
    for list in lists.iter().filter(|list| **list != "testkit") {
        let file = format!("docs/api/{list}.txt");
        // A list that was not there yet broke nobody.
        let Some(before) = git(root, &["show", &format!("{base}:{file}")]) else { continue };
        let after = fs::read_to_string(root.join(&file)).map_err(|error| format!("{file}: {error}"))?;
        for (line, why) in of(&before, &after) {
            breaks += 1;
            if !is_named(path(&line), &named) {
                silent.push(format!("  {list}: {why}: {line}"));
            }
        }
    }
    println!("breaks since {base}: {breaks}, of which CHANGELOG.md names {}", breaks - silent.len());
    if silent.is_empty() {
        return Ok(());
    }
    println!("{}", silent.join("\n"));
    Err("these break users: name each, or its type, in backticks under \"Unreleased\", \"### Breaking\" in CHANGELOG.md, with what to write instead".to_owned())
}

/// The latest release, else the commit before this one.
fn base_of(root: &Path) -> Option<String> {
    let tag = git(root, &["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]);
    let tag = tag.map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty());
    tag.or_else(|| {
        git(root, &["rev-parse", "--short", "--verify", "--quiet", "HEAD~1"])
            .map(|base| base.trim().to_owned())
    })
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Each break between two lists: the line and what about it breaks.
fn of(before: &str, after: &str) -> Vec<(String, &'static str)> {
    let old: BTreeSet<String> = before.lines().map(contract).collect();
    let new: BTreeSet<String> = after.lines().map(contract).collect();
    let gone = before.lines().filter(|line| !new.contains(&contract(line)));
    // Became open to additions: a break, but of the type's line, which is gone in its old form. `impl` lines move freely
    // between a type's public paths, and only an implementation of a trait is a promise.
    let gone = gone.filter(|line| !line.starts_with("impl") || line.contains(" for "));
    let mut breaks: Vec<(String, &'static str)> =
        gone.map(|line| (line.to_owned(), "gone or changed")).collect();
    for line in after.lines().filter(|line| !old.contains(&contract(line))) {
        let Some((owner, _)) = path(line).rsplit_once("::") else { continue };
        let closed = |kind: &str| {
            old.contains(&format!("pub {kind} {owner}")) && new.contains(&format!("pub {kind} {owner}"))
        };
        let member = line.strip_prefix("pub ").is_some_and(|rest| rest.starts_with(owner));
        // A struct that has a hidden field could not be written out anyway; the text does not tell, so say it.
        if member && (closed("enum") || closed("struct")) {
            breaks.push((line.to_owned(), "one more in a closed type"));
        }
    }
    breaks
}

/// A line without the names of its parameters.
fn contract(line: &str) -> String {
    if !line.contains(" fn ") {
        return line.to_owned();
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(": ") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
        let is_parameter = before[..start].ends_with('(')
            || before[..start].ends_with(", ")
            || before[..start].ends_with("mut ");
        let lower = before[start..].starts_with(|c: char| c.is_lowercase() || c == '_');
        text.push_str(&before[..start]);
        if !(is_parameter && lower) || &before[start..] == "self" {
            text.push_str(&before[start..]);
            text.push_str(": ");
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// What stands in backticks under the unreleased section's heading "Breaking".
fn named(changelog: &str) -> BTreeSet<String> {
    let sections = changelog.split("\n## ").filter(|section| section.starts_with("Unreleased"));
    let breaking =
        sections.flat_map(|section| section.split("\n### ").filter(|part| part.starts_with("Breaking")));
    let names = breaking.flat_map(|part| part.split('`').skip(1).step_by(2));
    names.map(|name| name.trim_end_matches("()").to_owned()).collect()
}

/// Whether an item, or what it belongs to, is among the names: any run of its path's segments counts.
fn is_named(path: &str, named: &BTreeSet<String>) -> bool {
    let segments: Vec<&str> = path.split("::").collect();
    (0..segments.len())
        .any(|from| (from..segments.len()).any(|to| named.contains(&segments[from..=to].join("::"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "pub enum Kind\npub Kind::A\n#[non_exhaustive] pub struct Limits\npub Limits::size: u64\n\
                          pub fn Shaper::admit(&self, path: &Path, now: Timestamp) -> Admission\nimpl Display for Kind\n";

    #[test]
    fn what_is_gone_breaks_and_what_is_new_does_not() {
        assert!(of(BEFORE, BEFORE).is_empty());
        let more = format!("{BEFORE}pub Limits::lines: u64\npub fn Shaper::new() -> Shaper\n");
        assert!(of(BEFORE, &more).is_empty(), "{:?}", of(BEFORE, &more));
        let less = BEFORE.replace("pub Limits::size: u64\n", "");
        assert_eq!(of(BEFORE, &less), [("pub Limits::size: u64".to_owned(), "gone or changed")]);
        let less = BEFORE.replace("impl Display for Kind\n", "");
        assert_eq!(of(BEFORE, &less).len(), 1);
    }

    #[test]
    fn one_more_variant_of_a_closed_enum_breaks() {
        let more = BEFORE.replace("pub Kind::A\n", "pub Kind::A\npub Kind::B\n");
        assert_eq!(of(BEFORE, &more), [("pub Kind::B".to_owned(), "one more in a closed type")]);
    }

    #[test]
    fn names_of_parameters_are_free_and_their_types_are_not() {
        assert!(of(BEFORE, &BEFORE.replace("path: &Path", "to: &Path")).is_empty());
        assert_eq!(of(BEFORE, &BEFORE.replace("now: Timestamp", "now: Instant")).len(), 1);
        assert_eq!(
            contract("pub fn f<T: Into<X>>(self: &Arc<Self>, a: T)"),
            "pub fn f<T: Into<X>>(self: &Arc<Self>, T)"
        );
    }

    #[test]
    fn the_changelog_names_an_item_or_its_type() {
        let names = named(
            "# Changelog\n\n## Unreleased\n\n- `Kind`\n\n### Breaking\n\n- queue: `Entry::tries` is now `attempts()`.\n\n## 0.1.0\n\n- `Old`\n",
        );
        assert!(is_named("scheduler::Entry::tries", &names));
        assert!(is_named("Entry::attempts", &names));
        assert!(!is_named("Entry::other", &names));
        assert!(!is_named("Old", &names) && !is_named("Kind::A", &names));
    }

    #[test]
    fn a_difference_shows_both_sides() {
        assert_eq!(difference("x", "a\nb\n", "b\nc\n"), "docs/api/x.txt\n  - a\n  + c\n");
    }
}

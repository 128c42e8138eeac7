//! docs/dependencies.md held to the manifests: every feature has a test, every dependency a reason, and no row is left
//! over.
//!
//! Not here: whether the named tests exist (claims.rs), how many packages a crate may bring (rules.rs).

use std::collections::BTreeSet;

use toml::{Table, Value};

/// A member of the workspace: its folder, and its manifest.
pub(crate) type Member = (String, Table);

/// What the page and the manifests do not agree about.
pub(crate) fn faults(page: &str, members: &[Member]) -> Vec<String> {
    let (features, dependencies) = page.split_once("\n## Dependencies\n").unwrap_or((page, ""));
    let mut faults = differences("feature", &features_of(members), &rows(features, 2));
    let known = rows(dependencies, 1);
    faults.extend(differences("dependency", &dependencies_of(members), &known));
    let bare = features.lines().filter(|line| rows(line, 2).len() == 1);
    let bare = bare.filter(|line| super::claims::claims(line).is_empty());
    faults.extend(bare.map(|line| format!("no test stands for {line:?}")));
    faults
}

fn differences(what: &str, there: &BTreeSet<String>, told: &BTreeSet<String>) -> Vec<String> {
    let missing = there.difference(told).map(|name| format!("docs/dependencies.md lacks the {what} {name}"));
    let gone =
        told.difference(there).map(|name| format!("docs/dependencies.md has a {what} {name} too many"));
    missing.chain(gone).collect()
}

/// The first so many columns of each row, without the marks of code; headings are left out.
fn rows(text: &str, columns: usize) -> BTreeSet<String> {
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
        cells.take(columns).collect::<Vec<_>>().join(" ")
    };
    text.lines().filter(|line| line.starts_with("| ") && line.contains('`')).map(cells).collect()
}

/// "folder feature" for each feature but `default`.
fn features_of(members: &[Member]) -> BTreeSet<String> {
    let of = |(folder, manifest): &Member| {
        let features = manifest.get("features").and_then(Value::as_table).cloned().unwrap_or_default();
        let names = features.into_iter().map(|(name, _)| name).filter(|name| name != "default");
        names.map(|name| format!("{folder} {name}")).collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

/// Everything that is not ours.
fn dependencies_of(members: &[Member]) -> BTreeSet<String> {
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = members.iter().flat_map(|(_, manifest)| {
        sections.into_iter().filter_map(|section| manifest.get(section).and_then(Value::as_table))
    });
    let names = tables.flat_map(Table::keys);
    names.filter(|name| !name.starts_with("postwright")).cloned().collect()
}

//! The checker: pure functions from manifests and sources to faults, so that it can be shown a bad one.

use toml::{Table, Value};

use crate::rules::{LINES_MAX, RULES, Ring, Rule, TEST_FEATURES, TESTKIT, WORLDLY};

/// What the checker reads of a `Cargo.toml`.
pub(crate) struct Manifest {
    pub(crate) package: String,
    dependencies: Vec<Dependency>,
    inherits_lints: bool,
    published: bool,
}

struct Dependency {
    name: String,
    kind: Kind,
    optional: bool,
    features: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Dev,
}

impl Manifest {
    /// Reads a manifest; features that the workspace gives to a dependency count as the crate's own.
    pub(crate) fn parse(text: &str, workspace: &Table) -> Result<Manifest, String> {
        let table: Table = text.parse().map_err(|error| format!("not TOML: {error}"))?;
        let package = table.get("package").ok_or("no [package]")?;
        let mut dependencies = Vec::new();
        collect(&table, workspace, &mut dependencies);
        for target in table.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values) {
            collect(target.as_table().unwrap_or(&Table::new()), workspace, &mut dependencies);
        }
        let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
        Ok(Manifest {
            package: package.get("name").and_then(Value::as_str).ok_or("no package.name")?.to_owned(),
            dependencies,
            inherits_lints: lints.and_then(Value::as_bool) == Some(true),
            published: package.get("publish").and_then(Value::as_bool) != Some(false),
        })
    }

    fn normal(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|dependency| dependency.kind == Kind::Normal)
    }
}

fn collect(table: &Table, workspace: &Table, into: &mut Vec<Dependency>) {
    for (section, kind) in [
        ("dependencies", Kind::Normal),
        ("build-dependencies", Kind::Normal),
        ("dev-dependencies", Kind::Dev),
    ] {
        for (name, value) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
            let shared = workspace.get(name).filter(|_| value.get("workspace").is_some());
            let features =
                [Some(value), shared].into_iter().flatten().filter_map(|value| value.get("features"));
            let features = features.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
            into.push(Dependency {
                name: value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned(),
                kind,
                optional: value.get("optional").and_then(Value::as_bool) == Some(true),
                features: features.map(str::to_owned).collect(),
            });
        }
    }
}

fn is_ours(name: &str) -> bool {
    name == "postwright" || name.starts_with("postwright-") || name.starts_with("xtask")
}

/// Everything that is wrong with a manifest.
pub(crate) fn manifest(manifest: &Manifest) -> Vec<String> {
    let package = &manifest.package;
    let Some(rule) = RULES.iter().find(|rule| rule.package == package) else {
        return vec![format!("{package} has no rule: say in rules.rs what it may import")];
    };
    let mut faults = arrows(manifest, rule);
    if matches!(rule.ring, Ring::Vocabulary | Ring::Engine) {
        faults.extend(worldly(manifest, rule));
    }
    for dependency in manifest.normal() {
        for (name, feature) in TEST_FEATURES {
            if dependency.name == *name && dependency.features.iter().any(|have| have == feature) {
                faults.push(format!("{package} turns on {name}'s feature {feature} outside its tests"));
            }
        }
    }
    if !manifest.inherits_lints {
        faults.push(format!("{package} does not inherit the workspace's lints"));
    }
    if manifest.published == (rule.ring == Ring::Beside) {
        faults.push(format!(
            "{package}: `publish = false` is for what stands beside the rings, and only for that"
        ));
    }
    faults
}

fn arrows(manifest: &Manifest, rule: &Rule) -> Vec<String> {
    let package = &manifest.package;
    let allowed = |dependency: &Dependency| {
        let name = dependency.name.as_str();
        rule.ours.contains(&name)
            || dependency.kind == Kind::Dev
                && match rule.ring {
                    // Engines are tested alone; what they share is in the testkit.
                    Ring::Vocabulary | Ring::Engine => name == TESTKIT || name == "postwright-core",
                    Ring::Driver | Ring::Composition | Ring::Beside => true,
                }
    };
    let ours = manifest.dependencies.iter().filter(|dependency| is_ours(&dependency.name));
    ours.filter(|dependency| !allowed(dependency))
        .map(|dependency| format!("{package} must not import {}", dependency.name))
        .collect()
}

fn worldly(manifest: &Manifest, rule: &Rule) -> Vec<String> {
    let package = &manifest.package;
    let forbidden = manifest.normal().filter(|dependency| WORLDLY.contains(&dependency.name.as_str()));
    forbidden
        .filter_map(|dependency| {
            let name = &dependency.name;
            match (rule.behind_a_feature.contains(&name.as_str()), dependency.optional) {
                (true, true) => None,
                (true, false) => Some(format!("{package} may have {name} behind a feature only")),
                (false, _) => Some(format!("{package} must do without {name}")),
            }
        })
        .collect()
}

/// Everything that is wrong with a source file; `lines_max` is the limit for this one.
pub(crate) fn source(path: &str, text: &str, lines_max: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > lines_max {
        faults.push(format!("{path} has {lines} lines, more than {lines_max}: one file, one job"));
    }
    if lines_max > LINES_MAX && lines <= LINES_MAX {
        faults.push(format!("{path} is short enough again: take it off the list in rules.rs"));
    }
    if !text.starts_with("//!") {
        faults.push(format!("{path} does not open with `//!`: what it is, its invariant, what is not here"));
    }
    faults
}

/// Words that belong to one person's machine or to one workplace, and not into a project.
pub(crate) fn words(path: &str, text: &str) -> Vec<String> {
    // Written in halves, so that this file passes its own check.
    let strangers = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("static.crates", ".io"),
        concat!("index.crates", ".io"),
        concat!("pypi", ".org"),
        concat!("deb.debian", ".org"),
    ];
    // At the beginning of a path only: a folder inside the project may have any name.
    let begins =
        |at: usize| !text[..at].ends_with(|before: char| before.is_alphanumeric() || "_-.}".contains(before));
    let found = strangers.iter().filter(|word| text.match_indices(**word).any(|(at, _)| begins(at)));
    found.map(|word| format!("{path} names {word:?}, which is nobody else's business")).collect()
}

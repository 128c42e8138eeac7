//! The house's plan as a test: who imports whom, how long files get, what every crate has in common.
//!
//! Invariant: a new crate, a new arrow or a long file fails here until `rules.rs` says that it is meant. The
//! checker is itself shown manifests and files that are wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod check;
mod claims;
mod page;
mod rules;
mod short;
mod standards;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use check::Manifest;
use postwright_testkit::workspace_root;
use rules::{BANNED, BANNED_BUT, LINES_MAX, LONGER, RULES};
use toml::{Table, Value};

fn root_manifest() -> Table {
    std::fs::read_to_string(workspace_root().join("Cargo.toml")).unwrap().parse().unwrap()
}

fn shared_dependencies() -> Table {
    root_manifest()["workspace"]["dependencies"].as_table().unwrap().clone()
}

fn members() -> Vec<PathBuf> {
    let manifest = root_manifest();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    members.iter().map(|member| workspace_root().join(member.as_str().unwrap())).collect()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_manifest_keeps_to_the_plan() {
    let shared = shared_dependencies();
    let mut faults = Vec::new();
    for folder in members() {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        faults.extend(check::manifest(&Manifest::parse(&text, &shared).unwrap()));
    }
    assert_none(&faults);
}

#[test]
fn the_workspace_forbids_what_it_promises_to_forbid() {
    let manifest = root_manifest();
    let lints = &manifest["workspace"]["lints"];
    assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("forbid"));
    assert_eq!(lints["rust"]["missing_docs"].as_str(), Some("warn"));
    for lint in ["unwrap_used", "disallowed_methods", "print_stdout", "todo", "dbg_macro"] {
        assert_eq!(lints["clippy"][lint].as_str(), Some("warn"), "{lint}; CI turns warnings into errors");
    }
    let lto = manifest["profile"]["release"].get("lto");
    assert_ne!(lto.and_then(Value::as_str), Some("fat"), "the first build must stay bearable");
}

#[test]
fn every_source_file_is_short_and_says_what_it_is() {
    let root = workspace_root();
    let mut faults = Vec::new();
    for path in files(&root).iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs")) {
        let shown = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let longer = LONGER.iter().find(|(path, _, _)| *path == shown);
        let text = std::fs::read_to_string(path).unwrap();
        faults.extend(check::source(&shown, &text, longer.map_or(LINES_MAX, |(_, lines, _)| *lines)));
    }
    let gone = LONGER.iter().filter(|(path, _, _)| !root.join(path).exists());
    faults.extend(gone.map(|(path, _, _)| format!("{path} is in rules.rs and nowhere else")));
    assert_none(&faults);
}

#[test]
fn every_test_that_a_page_names_exists() {
    let root = workspace_root();
    let mut faults = Vec::new();
    for (shown, at_least) in [("SECURITY.md", 80), ("docs/faults.md", 200), ("docs/dependencies.md", 30)] {
        let page = std::fs::read_to_string(root.join(shown)).unwrap();
        assert!(
            claims::claims(&page).len() >= at_least,
            "{shown} names {} tests",
            claims::claims(&page).len()
        );
        faults.extend(claims::faults(&root, shown, &page));
    }
    // Each threat names a test that shows its mitigation.
    let threats = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let threats = threats.split_once("## Threats").unwrap().1;
    let rows = threats.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat |"));
    let bare = rows.filter(|row| claims::claims(row).is_empty());
    faults.extend(bare.map(|row| format!("SECURITY.md: no test stands for {row:?}")));
    assert_none(&faults);
}

/// Each member's folder and manifest.
fn manifests() -> Vec<page::Member> {
    let root = workspace_root();
    let read = |folder: PathBuf| {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        (folder.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), text.parse().unwrap())
    };
    members().into_iter().map(read).collect()
}

#[test]
fn every_feature_has_a_test_and_every_dependency_a_reason() {
    let page = std::fs::read_to_string(workspace_root().join("docs/dependencies.md")).unwrap();
    assert_none(&page::faults(&page, &manifests()));
}

/// What the workspace names once is used by somebody.
#[test]
fn no_shared_dependency_is_left_over() {
    let used: BTreeSet<String> = manifests()
        .iter()
        .flat_map(|(_, manifest)| {
            ["dependencies", "dev-dependencies"].map(|section| manifest.get(section).cloned())
        })
        .flatten()
        .flat_map(|section| section.as_table().unwrap().keys().cloned().collect::<Vec<_>>())
        .collect();
    let shared = shared_dependencies();
    let left: Vec<&String> = shared.keys().filter(|name| !used.contains(*name)).collect();
    assert!(left.is_empty(), "nobody uses {left:?}");
}

/// A workspace of its own has a lock file of its own, which a change of ours makes stale; `cargo xtask fuzz` and `bench`
/// build by it. Where its packages are not at hand nothing can be said here, and those two still fail.
#[test]
fn the_lock_files_of_the_other_workspaces_are_not_stale() {
    let root = workspace_root();
    let benches = std::fs::read_dir(root.join("benches")).unwrap().map(|entry| entry.unwrap().path());
    for folder in benches.chain([root.join("fuzz")]).filter(|folder| folder.join("Cargo.toml").is_file()) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["metadata", "--locked", "--offline", "--format-version", "1"]).current_dir(&folder);
        let said = String::from_utf8_lossy(&cargo.output().unwrap().stderr).into_owned();
        let stale = said.contains("because --locked was passed");
        assert!(
            !stale,
            "{}: run `cargo metadata` there, and commit its Cargo.lock\n{said}",
            folder.display()
        );
    }
}

#[test]
fn no_file_names_somebodys_machine() {
    let root = workspace_root();
    let mut faults = Vec::new();
    for path in files(&root) {
        // Cargo writes the registry's address into the lock file.
        if path.ends_with("Cargo.lock") {
            continue;
        }
        if let Ok(text) = std::fs::read_to_string(&path) {
            faults.extend(check::words(&path.strip_prefix(&root).unwrap().to_string_lossy(), &text));
        }
    }
    assert_none(&faults);
}

/// Every file of the project, build output and hidden folders (but for CI's) left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let hidden = name.starts_with('.') && name != ".ci";
            if entry.file_type().unwrap().is_dir() {
                if !hidden && name != "target" && name != "corpus" {
                    folders.push(path);
                }
            } else if name != ".git" {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the project was not found");
    found
}

/// The Rust sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Folders of the libraries, and of the program.
fn crates() -> impl Iterator<Item = PathBuf> {
    members().into_iter().filter(|folder| !folder.starts_with(workspace_root().join("xtask")))
}

#[test]
fn every_rfc_that_code_names_is_listed_and_every_row_is_true() {
    let root = workspace_root();
    let read = |path: PathBuf| {
        let shown = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        (shown, std::fs::read_to_string(path).unwrap())
    };
    let texts: Vec<_> = crates().flat_map(|folder| sources(&folder.join("src"))).map(read).collect();
    let page = std::fs::read_to_string(root.join("docs/rfcs.md")).unwrap();
    assert_none(&standards::faults(&root, &texts, &page));
}

#[test]
fn every_front_page_has_its_parts() {
    let root = workspace_root();
    let mut faults = Vec::new();
    for folder in crates().filter(|folder| folder.join("src/lib.rs").is_file()) {
        let text = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
        let shown = folder.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        if shown != "testkit" {
            faults.extend(standards::front_page(&folder, &shown, &text, true));
        }
    }
    assert_none(&faults);
}

/// The names and versions in a crate's dependency tree.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace_root()).args(["tree", "--offline", "-e", "normal", "--prefix", "none"]);
    let output = cargo.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // "name v1.2.3 (path or proc-macro) (*)"
    let names = text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn engines_bring_few_packages() {
    let shared = shared_dependencies();
    let present: BTreeSet<String> = members()
        .iter()
        .map(|folder| std::fs::read_to_string(folder.join("Cargo.toml")).unwrap())
        .map(|text| Manifest::parse(&text, &shared).unwrap().package)
        .collect();
    for rule in RULES.iter().filter(|rule| present.contains(rule.package)) {
        let Some(budget) = rule.budget else { continue };
        let packages = tree(&["--no-default-features", "-p", rule.package]);
        assert!(packages.len() <= budget, "{}: {} of {budget}: {packages:?}", rule.package, packages.len());
    }
}

#[test]
fn nothing_brings_a_second_provider_of_cryptography() {
    for package in tree(&["--workspace", "--all-features"]) {
        let Some(banned) = BANNED.iter().find(|banned| package.split(' ').next() == Some(**banned)) else {
            continue;
        };
        let exact = package.replace(" v", "@");
        let importers = tree(&["--workspace", "--all-features", "--depth", "1", "-i", &exact]);
        for importer in importers.iter().filter(|importer| **importer != package) {
            let importer = importer.split(' ').next().unwrap_or_default();
            let meant = BANNED_BUT.iter().any(|(by, what)| *by == importer && what.contains(banned));
            assert!(meant, "{importer} brings {banned}");
        }
    }
    let by_default = tree(&["--workspace", "--exclude", "postwright-reference-mta"]);
    let names: Vec<&str> = by_default.iter().filter_map(|package| package.split(' ').next()).collect();
    assert!(
        BANNED.iter().all(|banned| !names.contains(banned)),
        "a banned package without being asked for: {names:?}"
    );
}

// The checker itself, shown what is wrong.

fn faults_of(text: &str) -> Vec<String> {
    check::manifest(&Manifest::parse(text, &shared_dependencies()).unwrap())
}

const LINTS: &str = "[lints]\nworkspace = true\n";

#[test]
fn a_good_manifest_has_no_faults() {
    let good = format!(
        "[package]\nname = \"postwright-dkim\"\n[dependencies]\npostwright-core.workspace = true\nring.workspace = true\n\
         [dev-dependencies]\npostwright-testkit.workspace = true\ntokio = {{ workspace = true, features = [\"test-util\"] }}\n{LINTS}"
    );
    assert_none(&faults_of(&good));
}

#[test]
fn wrong_manifests_are_found_out() {
    for (package, section, says) in [
        ("postwright-dkim", "[dependencies]\npostwright-spf-dmarc.workspace = true", "must not import"),
        ("postwright-dkim", "[build-dependencies]\npostwright-queue = \"1\"", "must not import"),
        ("postwright-dkim", "[target.'cfg(unix)'.dependencies]\npostwright = \"1\"", "must not import"),
        (
            "postwright-dkim",
            "[dependencies]\nq = { package = \"postwright-queue\", version = \"1\" }",
            "must not import",
        ),
        ("postwright-dkim", "[dev-dependencies]\npostwright-smtp-proto = \"1\"", "must not import"),
        ("postwright-smtp-server", "[dependencies]\npostwright-smtp-client = \"1\"", "must not import"),
        ("postwright-core", "[dependencies]\npostwright-testkit = \"1\"", "must not import"),
        (
            "postwright-smtp-proto",
            "[dependencies]\ntokio = { workspace = true, optional = true }",
            "must do without",
        ),
        ("postwright-queue", "[dependencies]\ntokio.workspace = true", "behind a feature only"),
        (
            "postwright",
            "[dependencies]\ntokio = { workspace = true, features = [\"test-util\"] }",
            "test-util",
        ),
        ("postwright-fresh", "", "no rule"),
    ] {
        let text = format!("[package]\nname = \"{package}\"\n{section}\n{LINTS}");
        let faults = faults_of(&text);
        assert!(faults.iter().any(|fault| fault.contains(says)), "{text}\n{faults:?}");
    }
    let bare = faults_of("[package]\nname = \"postwright-dkim\"\n");
    assert!(bare.iter().any(|fault| fault.contains("lints")), "{bare:?}");
    let published = faults_of(&format!("[package]\nname = \"xtask\"\n{LINTS}"));
    assert!(published.iter().any(|fault| fault.contains("publish")), "{published:?}");
}

#[test]
fn wrong_files_are_found_out() {
    assert_none(&check::source("a.rs", "//! What it is.\n", 3));
    assert_eq!(check::source("a.rs", "//! What it is.\n\n\n\n", 3).len(), 1);
    assert_eq!(check::source("a.rs", "use std::fs;\n", 3).len(), 1);
    assert_eq!(check::source("a.rs", "//! Short again.\n", LINES_MAX + 100).len(), 1);
    let path = ["", "wo", "rk", "x"].concat();
    assert_none(&check::words("a.md", &path));
    assert_eq!(check::words("a.md", &["/wo", "rk/x"].concat()).len(), 1);
    assert_none(&check::words("a.md", &["peers/ro", "ot/usr"].concat()));
}

#[test]
fn wrong_claims_are_found_out() {
    let page = "| x | `testkit/tests/architecture/main.rs`: `wrong_claims_are_found_out`, … `no_such_test`; `a.rs`: `b_c` |\n";
    let found = claims::claims(page);
    let main = "testkit/tests/architecture/main.rs";
    assert_eq!(found, [(main, "wrong_claims_are_found_out"), (main, "no_such_test"), ("a.rs", "b_c")]);
    assert_eq!(claims::faults(&workspace_root(), "page", page).len(), 2);
}

#[test]
fn wrong_standards_are_found_out() {
    let named = |text: &str| standards::named(text).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(
        named("RFC 5321 4.5.3 and RFC 1870, 6152 and 6531; RFCs 2045\n/// and 2046, RFC 14"),
        "1870 2045 2046 5321 6152 6531"
    );
    let root = workspace_root();
    let source = ("core/src/time.rs".to_owned(), "/// RFC 3339 and RFC 9999.".to_owned());
    let page = "| RFC | section | subject | file | test |\n|---|---|---|---|---|\n\
        | 3339 | 5.8 | time | core/src/time.rs, gone.rs | `dates_are_printed_as_the_rfcs_print_them`, `no_such_test` |\n\
        | 1234 | 1 | x | core/src/time.rs | `dates_are_printed_as_the_rfcs_print_them` |\n";
    let faults = standards::faults(&root, &[source], page);
    assert_eq!(faults.len(), 4, "{faults:?}");
    let bare = standards::front_page(&root.join("core"), "core", "//! What it is.\n", true);
    assert_eq!(bare.len(), 4, "{bare:?}");
    let page = "//! It is not y.\n//! ```\n//! ```\n//! # Limits\n//! # Standards\n//! | x | `tests/gone.rs` (`no_such_test`) |\n";
    assert_eq!(standards::front_page(&root.join("core"), "core", page, true).len(), 2);
}

#[test]
fn wrong_pages_are_found_out() {
    let manifest =
        "[features]\ndefault = []\nfast = []\n[dependencies]\nbytes = \"1\"\npostwright-core = \"1\"\n";
    let members = [("x".to_owned(), manifest.parse().unwrap())];
    let page = |feature: &str, dependency: &str| {
        format!("| crate | feature | a test |\n|---|---|---|\n{feature}\n\n## Dependencies\n\n{dependency}\n")
    };
    let good = "| x | `fast` | `a.rs`: `it_is_fast` |";
    assert_none(&page::faults(&page(good, "| `bytes` | x | y |"), &members));
    assert_eq!(page::faults(&page("", ""), &members).len(), 2);
    assert_eq!(page::faults(&page("| x | `fast` | none |", "| `bytes` | x | y |"), &members).len(), 1);
    let more = page(&format!("{good}\n| x | `slow` | `a.rs`: `it_is_slow` |"), "| `bytes` | |\n| `nom` | |");
    assert_eq!(page::faults(&more, &members).len(), 2);
}

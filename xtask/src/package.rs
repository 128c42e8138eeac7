//! `cargo xtask package`: the crates as they would be published, and a stranger's program built from them.
//!
//! Invariant: what is judged is what lies in the `.crate` files: their contents are looked at, and unpacked they make a
//! workspace of their own, in which each is checked by itself and `xtask/consumer` is built and run. Nothing is uploaded,
//! and the network is used for nothing but what Cargo.lock names.
//!
//! Cargo's own verification is left out: it unpacks siblings into cargo's home, outside of `target/`, and takes what it
//! finds there of an earlier run for the same version for what was just packed.
//!
//! Not here: publishing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::{Outcome, cargo, output, root, shown};

/// The most octets of a `.crate` file: the largest has a third of it. More means that data came along.
const CRATE_MAX: u64 = 512 * 1024;

/// What each package has beside its sources.
const ALWAYS: &[&str] = &["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"];

/// What no package has: tests lean on the testkit and on public suites, corpora are large.
const NEVER: &[&str] = &["tests", "benches", "corpus"];

pub(crate) fn run() -> Outcome {
    let packages = publishable()?;
    let mut faults: Vec<String> = packages.iter().flat_map(metadata).collect();
    // For this machine only: what others need is neither built nor wanted.
    shown(cargo().args(["fetch", "--quiet", "--locked", "--target", &crate::fuzz::host()?]))?;
    let mut package = cargo();
    // Offline: what Cargo.lock names is there, and siblings that are not published yet must come from here.
    package.args(["package", "--locked", "--offline", "--allow-dirty", "--no-verify", "--color", "never"]);
    for one in &packages {
        package.args(["-p", name(one)]);
    }
    println!("$ cargo package, {} crates", packages.len());
    // Its remarks about tests that are left out are no news.
    output(&mut package)?;
    let folder = root().join("target").join("package");
    let outside = folder.join("outside");
    let mut places = Vec::new();
    for one in &packages {
        let file =
            folder.join(format!("{}-{}.crate", name(one), one["version"].as_str().unwrap_or_default()));
        let place = unpack(&file, &outside)?;
        faults.extend(contents(name(one), &file, &place)?);
        places.push((name(one).to_owned(), place));
    }
    workspace(&outside, &places)?;
    for (name, _) in &places {
        faults.extend(shown(outsider(&outside).args(["check", "--quiet", "--offline", "-p", name])).err());
    }
    faults.extend(
        shown(outsider(&outside).args(["run", "--quiet", "--offline", "-p", "postwright-consumer"])).err(),
    );
    faults.iter().for_each(|fault| println!("{fault}"));
    if faults.is_empty() {
        Ok(())
    } else {
        Err(format!("{} faults in what would be published", faults.len()))
    }
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap_or_default()
}

/// The members of the workspace without `publish = false`.
fn publishable() -> Result<Vec<Value>, String> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages.filter(|package| package["publish"].is_null()).cloned().collect())
}

/// What a registry and a reader of its page want of a manifest.
fn metadata(package: &Value) -> Vec<String> {
    let said = |key: &str| package[key].as_str().is_some_and(|text| !text.is_empty());
    let listed = |key: &str| package[key].as_array().is_some_and(|list| (1..=5).contains(&list.len()));
    let texts = ["description", "license", "repository", "readme", "rust_version"];
    let mut missing: Vec<&str> = texts.into_iter().filter(|key| !said(key)).collect();
    missing.extend(["keywords", "categories"].into_iter().filter(|key| !listed(key)));
    if package["metadata"]["docs"]["rs"]["all-features"] != true {
        missing.push("metadata.docs.rs.all-features");
    }
    missing.into_iter().map(|key| format!("{}: its manifest has no good `{key}`", name(package))).collect()
}

fn unpack(file: &Path, into: &Path) -> Result<PathBuf, String> {
    let stem = file.file_stem().ok_or("a package without a name")?;
    let place = into.join(stem);
    let failed = |error: std::io::Error| format!("{}: {error}", place.display());
    if place.exists() {
        fs::remove_dir_all(&place).map_err(failed)?;
    }
    fs::create_dir_all(into).map_err(failed)?;
    // The times in a package are fixed; with them cargo would take what it built of an earlier one for this one's.
    output(Command::new("tar").arg("-xzmf").arg(file).arg("-C").arg(into))?;
    Ok(place)
}

/// Everything that is wrong with the contents of a package.
fn contents(name: &str, file: &Path, place: &Path) -> Result<Vec<String>, String> {
    let octets = fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
    let mut faults = Vec::new();
    if octets > CRATE_MAX {
        faults.push(format!("{name}: {octets} octets, more than {CRATE_MAX}"));
    }
    faults.extend(
        ALWAYS.iter().filter(|path| !place.join(path).is_file()).map(|path| format!("{name}: no {path}")),
    );
    faults.extend(
        NEVER.iter().filter(|path| place.join(path).exists()).map(|path| format!("{name}: has {path}")),
    );
    for path in files(place) {
        let shown = path.strip_prefix(place).unwrap_or(&path).display().to_string();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let links = strays(&shown, &text);
        faults
            .extend(links.into_iter().map(|line| format!("{name}: {shown}:{line} leads out of the package")));
    }
    println!("{name:<24} {:>4} files {:>6} KiB", files(place).len(), octets.div_ceil(1024));
    Ok(faults)
}

/// The lines that name a file outside of the package: relative links in documentation, files that are built in.
fn strays(path: &str, text: &str) -> Vec<usize> {
    let depth = Path::new(path).components().count().saturating_sub(1);
    let stray = |line: &str| {
        let included =
            line.split("include_str!(\"").nth(1).or_else(|| line.split("include_bytes!(\"").nth(1));
        let leaves = included.is_some_and(|file| file.matches("../").count() > depth);
        let readme = path == "README.md"
            && line.split("](").skip(1).any(|link| !link.starts_with("https://") && !link.starts_with('#'));
        let docs =
            line.trim_start().starts_with("//") && (line.contains("](../") || line.contains("](docs/"));
        leaves || readme || docs
    };
    text.lines().enumerate().filter(|(_, line)| stray(line)).map(|(index, _)| index + 1).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Makes the unpacked packages and the stranger's crate a workspace that knows nothing of ours, with our Cargo.lock.
fn workspace(folder: &Path, places: &[(String, PathBuf)]) -> Outcome {
    let source = root().join("xtask").join("consumer");
    let consumer = folder.join("consumer");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(consumer.join("src")).map_err(failed)?;
    fs::copy(source.join("src/main.rs"), consumer.join("src/main.rs")).map_err(failed)?;
    let manifest = fs::read_to_string(source.join("Cargo.toml")).map_err(failed)?;
    fs::write(consumer.join("Cargo.toml"), manifest.replace("[workspace]\n", "")).map_err(failed)?;
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).map_err(failed)?;
    let (mut members, mut patches) = (vec!["consumer".to_owned()], String::new());
    for (name, place) in places {
        let folder = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        patches.push_str(&format!("{name} = {{ path = {folder:?} }}\n"));
        members.push(folder);
    }
    let manifest =
        format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n[patch.crates-io]\n{patches}");
    fs::write(folder.join("Cargo.toml"), manifest).map_err(failed)
}

/// Cargo in that workspace. One folder for what is built: what the packages need is compiled already.
fn outsider(folder: &Path) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", root().join("target"));
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_a_package_is_found() {
        assert_eq!(strays("README.md", "[a](https://example.org)\n[b](docs/b.md) [c](#c)\n"), [2]);
        assert_eq!(strays("src/lib.rs", "//! [flow](../docs/flow.md)\nlet a = b[c](d);\n"), [1]);
        assert_eq!(
            strays("src/a/mod.rs", "include_str!(\"../../rules/x\")\ninclude_str!(\"../../../x\")\n"),
            [2]
        );
    }

    #[test]
    fn a_bare_manifest_is_not_ready() {
        let bare =
            serde_json::json!({ "name": "bare", "license": "MIT", "keywords": [], "categories": ["email"] });
        let faults = metadata(&bare);
        assert!(faults.iter().any(|fault| fault.contains("`keywords`")), "{faults:?}");
        assert!(
            !faults.iter().any(|fault| fault.contains("`license`") || fault.contains("`categories`")),
            "{faults:?}"
        );
    }
}

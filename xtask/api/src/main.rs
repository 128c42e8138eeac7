//! `cargo xtask api`: each crate's public list as text under `docs/api`, so that a change of it is read as a change.
//!
//! Invariant: the lists are those of the compiler (rustdoc's JSON), with all features; `--check` changes nothing outside
//! `target/`. rustdoc prints JSON on the stable toolchain only if told that it may, so this program stands in for rustdoc
//! and tells it; the compiler itself is never told, or every dependency would be built once more.
//!
//! Not here: what may be public (a reader decides), how a line reads (`list.rs`), what all lists keep to (`house.rs`), what is
//! a break (`breaks.rs`). A package
//! of its own, because `cargo xtask test` should not wait for the parser of rustdoc's JSON.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who called it")]

mod breaks;
mod house;
mod list;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

/// Set for the copies of this program that cargo starts in rustdoc's place.
const AS_RUSTDOC: &str = "POSTWRIGHT_API_AS_RUSTDOC";

const HELP: &str = "\
usage: cargo xtask api [--check] [--base REVISION]

  (nothing)          write docs/api
  --check            fail with the difference if docs/api is not what the sources say; then look for breaks
  --base REVISION    what breaks are looked for against: by default the latest tag v*, else the commit before";

/// A library of the workspace.
struct Library {
    /// The package's folder, which is also the list's name.
    folder: String,
    /// As rustdoc names its file.
    lib: String,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if std::env::var_os(AS_RUSTDOC).is_some() {
        return as_rustdoc(&args);
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api: {error}");
            ExitCode::FAILURE
        }
    }
}

fn as_rustdoc(args: &[String]) -> ExitCode {
    let rustdoc = std::env::var_os(AS_RUSTDOC).unwrap_or_else(|| "rustdoc".into());
    let status = Command::new(&rustdoc).args(args).env("RUSTC_BOOTSTRAP", "1").status();
    match status {
        Ok(status) => {
            status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            eprintln!("api: {} cannot run: {error}", rustdoc.display());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let (mut check, mut base) = (false, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--check" => check = true,
            "--base" => base = Some(rest.next().ok_or("--base needs a revision")?.clone()),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(format!("api knows no option {other:?}\n\n{HELP}")),
        }
    }
    let root = root();
    let (libraries, target) = libraries(&root)?;
    document(&root)?;
    let (mut stale, mut faults) = (Vec::new(), Vec::new());
    for library in &libraries {
        let list = list::of(&library.lib, &target.join("doc").join(format!("{}.json", library.lib)))?;
        let text = list.text;
        faults.extend(house::faults(&library.folder, &text, &list.foreign));
        let path = root.join("docs/api").join(format!("{}.txt", library.folder));
        let before = fs::read_to_string(&path).unwrap_or_default();
        let items = text.lines().filter(|line| !line.starts_with("impl")).count();
        println!("{:<12} {items:>5} public items", library.folder);
        if before == text {
            continue;
        }
        if check {
            print!("{}", breaks::difference(&library.folder, &before, &text));
            stale.push(library.folder.as_str());
        } else {
            fs::create_dir_all(root.join("docs/api")).map_err(|error| format!("docs/api: {error}"))?;
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    if !stale.is_empty() {
        let stale = stale.join(", ");
        return Err(format!(
            "docs/api is not what the sources say of {stale}: read the difference above, and if it is meant, `cargo xtask api` writes it"
        ));
    }
    if !faults.is_empty() {
        println!("{}", faults.join("\n"));
        return Err(
            "these break the rules of docs/vocabulary.md (xtask/api/src/house.rs says which)".to_owned()
        );
    }
    if !check {
        return Ok(());
    }
    breaks::look(&root, base, &libraries.iter().map(|library| library.folder.as_str()).collect::<Vec<_>>())
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

/// A command's standard output, or why there is none.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name} cannot run: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{name} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every library of the workspace in the order of their folders, and the folder of build output.
fn libraries(root: &Path) -> Result<(Vec<Library>, PathBuf), String> {
    let text = output(cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let target = metadata["target_directory"].as_str().ok_or("cargo metadata names no target directory")?;
    let mut libraries = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let targets = package["targets"].as_array().into_iter().flatten();
        let lib = targets.filter(|target| {
            target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib"))
        });
        let Some(lib) = lib.filter_map(|target| target["name"].as_str()).next() else { continue };
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest.parent().and_then(Path::file_name).and_then(OsStr::to_str).unwrap_or(lib);
        libraries.push(Library { folder: folder.to_owned(), lib: lib.to_owned() });
    }
    libraries.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok((libraries, target.into()))
}

/// Has rustdoc write the JSON of every library.
fn document(root: &Path) -> Result<(), String> {
    let this =
        std::env::current_exe().map_err(|error| format!("this program does not know its file: {error}"))?;
    let mut doc = cargo(root);
    doc.args(["doc", "--workspace", "--lib", "--all-features", "--no-deps", "--quiet"])
        .env(AS_RUSTDOC, std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into()))
        .env("RUSTDOC", this)
        .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json");
    let status = doc.status().map_err(|error| format!("cargo cannot run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo doc failed ({status})")) }
}

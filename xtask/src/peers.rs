//! `cargo xtask peers`: independent programs and Python packages to test against, under `target/peers`.
//!
//! Invariant: the machine is not changed. Debian packages are downloaded and unpacked, never installed; Python
//! packages go into a virtual environment. What is there already is kept.
//!
//! Not here: finding them again (postwright-testkit's `peers`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{Outcome, output, quiet, root, shown};

/// Debian packages, and what they judge. Their dependencies come along where the machine lacks them.
const DEBIAN: &[(&str, &str)] = &[
    ("postfix", "relaying in both directions; smtp-source and smtp-sink"),
    ("swaks", "a scripted SMTP client"),
    ("dovecot-lmtpd", "a mail store that takes mail over LMTP"),
    ("gsasl", "logging in by SASL, with channel binding"),
    ("opendkim", "DKIM verification as a milter"),
    ("opendkim-tools", "DKIM keys and test messages"),
    ("redis-server", "the shared token store"),
    ("postgresql", "the shared spool"),
    ("strace", "the order of fsync and 250"),
];

/// Packages from PyPI, and what they judge.
const PYTHON: &[(&str, &str)] = &[
    ("dkimpy", "DKIM and ARC"),
    ("pynacl", "Ed25519 for dkimpy"),
    ("pyspf", "SPF"),
    ("py3dns", "DNS for pyspf"),
    ("dnspython", "DNS for the others"),
    ("authheaders", "DMARC and Authentication-Results"),
    ("authres", "Authentication-Results"),
    ("checkdmarc", "SPF and DMARC records"),
    ("parsedmarc", "DMARC reports"),
    ("aiosmtpd", "an SMTP server"),
    ("flufl.bounce", "bounce classification"),
];

pub(crate) fn run(args: &[String]) -> Outcome {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            // The two do not depend on each other: one that fails must not keep the other back.
            let (debian, python) = (debian(), python());
            debian.and(python)
        }
        ["--python"] => python(),
        ["--debian"] => debian(),
        ["--list", "debian"] => list(DEBIAN),
        ["--list", "python"] => list(PYTHON),
        _ => Err("usage: cargo xtask peers [--debian | --python | --list debian|python]".to_owned()),
    }
}

fn list(packages: &[(&str, &str)]) -> Outcome {
    packages.iter().for_each(|(name, _)| println!("{name}"));
    Ok(())
}

fn home() -> PathBuf {
    root().join("target").join("peers")
}

fn debian() -> Outcome {
    if output(Command::new("apt-get").arg("--version")).is_err() {
        let names: Vec<&str> = DEBIAN.iter().map(|(name, _)| *name).collect();
        return Err(format!("no apt-get here; install these by other means to test against them: {names:?}"));
    }
    let (archive, unpacked) = (home().join("debs"), home().join("root"));
    for folder in [&archive, &unpacked] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let wanted: Vec<String> = missing()?.into_iter().filter(|name| !is_there(&archive, name)).collect();
    if !wanted.is_empty() {
        println!("fetching {} Debian packages", wanted.len());
        let fetched =
            shown(Command::new("apt-get").args(["download", "-qq"]).args(&wanted).current_dir(&archive));
        fetched.map_err(|error| {
            format!("{error}; the package lists may be old: run `apt-get update` as root")
        })?;
    }
    for package in files(&archive) {
        let stamp = package.with_extension("unpacked");
        if !stamp.exists() {
            quiet(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
            fs::write(&stamp, "").map_err(|error| format!("{}: {error}", stamp.display()))?;
        }
    }
    println!("Debian programs: {}", unpacked.display());
    Ok(())
}

/// The packages and everything that they depend on, less what the machine has installed.
fn missing() -> Result<BTreeSet<String>, String> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts"]);
    depends.args(["--no-breaks", "--no-replaces", "--no-enhances"]);
    let tree = output(depends.args(DEBIAN.iter().map(|(name, _)| name)))?;
    let installed =
        output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status} ${Package}\n"]))?;
    let installed: BTreeSet<&str> =
        installed.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    let named: BTreeSet<&str> = DEBIAN.iter().map(|(name, _)| *name).collect();
    // Lines without indent name packages; virtual ones stand in angle brackets, foreign ones have a colon.
    let names = tree.lines().filter(|line| !line.starts_with([' ', '<', '|']) && !line.contains(':'));
    let names = names.filter(|name| named.contains(name) || !installed.contains(name));
    let mut kept = BTreeSet::new();
    for name in names.filter(|name| !SYSTEM.iter().any(|prefix| name.starts_with(prefix))) {
        kept.insert(name.to_owned());
    }
    Ok(kept)
}

/// Parts of a system that unpacked programs do without: service managers, and what maintainer scripts use.
const SYSTEM: &[&str] = &[
    "systemd",
    "libsystemd-shared",
    "dbus",
    "init",
    "cdebconf",
    "debconf",
    "sysvinit",
    "opensysusers",
    "libpam-",
];

fn is_there(archive: &Path, package: &str) -> bool {
    let prefix = format!("{package}_");
    files(archive)
        .iter()
        .any(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
}

fn files(archive: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(archive).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .collect()
}

fn python() -> Outcome {
    let venv = home().join("venv");
    let python = venv.join("bin/python3");
    if !python.exists() {
        shown(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    shown(pip.args(PYTHON.iter().map(|(name, _)| name)))?;
    println!("Python packages: {}", venv.display());
    Ok(())
}

//! Independent programs to run beside ours: Debian's, and Python packages.
//!
//! Invariant: what `cargo xtask peers` unpacked under `target/peers` comes first, then the PATH; nothing is
//! installed, started or changed here.
//!
//! Not here: the list of peers and how they are fetched (xtask/src/peers.rs).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The environment variable that names another folder than `target/peers`.
pub const VARIABLE: &str = "POSTWRIGHT_PEERS";

/// Where `cargo xtask peers` puts what it fetches: `root/` holds unpacked packages, `venv/` the Python packages.
pub fn home() -> PathBuf {
    match std::env::var_os(VARIABLE) {
        Some(path) => path.into(),
        None => crate::workspace_root().join("target").join("peers"),
    }
}

/// The folder that unpacked Debian packages see as `/`; `None` before `cargo xtask peers`.
pub fn root() -> Option<PathBuf> {
    let root = home().join("root");
    root.is_dir().then_some(root)
}

/// Finds a program by its name: `postfix`, `smtp-sink`, `swaks`, `redis-server`, `initdb`.
///
/// Use [`command`] to run it: an unpacked program may need its own libraries.
pub fn find(program: &str) -> Option<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(root) = root() {
        dirs.extend(program_dirs(&root));
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path));
    }
    // Daemons live where a user's PATH does not look.
    dirs.extend(program_dirs(Path::new("/")));
    dirs.into_iter().map(|dir| dir.join(program)).find(|path| is_program(path))
}

/// Finds a program as [`find`] does, but only one that the system has installed: some need the accounts and folders
/// that their package's installation makes.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let mut dirs =
        path.into_iter().chain(program_dirs(Path::new("/"))).filter(|dir| !dir.starts_with(home()));
    dirs.find_map(|dir| Some(dir.join(program)).filter(|path| is_program(path)))
}

/// A command that runs `program` as [`find`] found it, with the libraries and Perl modules that were unpacked
/// beside it, and no standard input.
pub fn command(program: &str) -> Option<Command> {
    let path = find(program)?;
    let mut command = Command::new(&path);
    command.stdin(Stdio::null());
    if let Some(root) = root().filter(|root| path.starts_with(root)) {
        for (variable, dirs) in [("LD_LIBRARY_PATH", library_dirs(&root)), ("PERL5LIB", perl_dirs(&root))] {
            command.env(variable, joined(dirs, std::env::var_os(variable)));
        }
    }
    Some(command)
}

/// A Python 3 interpreter that can import all of `modules`: the one under `target/peers/venv`, or else the PATH's.
pub fn python(modules: &[&str]) -> Option<PathBuf> {
    let venv = home().join("venv/bin/python3");
    let candidates = [is_program(&venv).then_some(venv), find("python3")];
    candidates.into_iter().flatten().find(|python| imports(python, modules))
}

/// Whether this process may do everything: some daemons insist on it, others refuse it.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn imports(python: &Path, modules: &[&str]) -> bool {
    let script: String = modules.iter().map(|module| format!("import {module}\n")).collect();
    let mut command = Command::new(python);
    command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Where Debian puts programs below a root, PostgreSQL's and Postfix's own folders included.
fn program_dirs(root: &Path) -> Vec<PathBuf> {
    let fixed = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];
    let mut dirs: Vec<PathBuf> = fixed.iter().map(|dir| root.join(dir)).collect();
    dirs.extend(["usr/lib/postfix/sbin", "usr/libexec/postfix"].iter().map(|dir| root.join(dir)));
    let mut versions = children(&root.join("usr/lib/postgresql"));
    versions.sort();
    dirs.extend(versions.into_iter().rev().map(|version| version.join("bin")));
    dirs
}

fn library_dirs(root: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for base in ["usr/lib", "lib"].map(|dir| root.join(dir)) {
        // Debian's multi-arch folders: x86_64-linux-gnu, aarch64-linux-gnu.
        let multi_arch =
            children(&base).into_iter().filter(|dir| dir.to_string_lossy().ends_with("-linux-gnu"));
        dirs.extend(multi_arch);
        dirs.push(base);
    }
    dirs.push(root.join("usr/lib/postfix"));
    dirs
}

fn perl_dirs(root: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![root.join("usr/share/perl5")];
    for multi_arch in children(&root.join("usr/lib")) {
        dirs.extend(children(&multi_arch.join("perl5")));
    }
    dirs
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn joined(dirs: Vec<PathBuf>, inherited: Option<OsString>) -> OsString {
    let mut list: Vec<OsString> = dirs.into_iter().map(PathBuf::into_os_string).collect();
    list.extend(inherited);
    list.join(OsStr::new(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_the_path_is_found_and_runs() {
        let mut command = command("true").expect("every Unix has it");
        assert!(command.status().unwrap().success());
        assert_eq!(find("no-program-has-this-name"), None);
        assert!(installed("true").is_some_and(|path| !path.starts_with(home())));
        assert_eq!(installed("no-program-has-this-name"), None);
    }

    #[test]
    fn a_folder_or_a_plain_file_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert!(!is_program(dir.path()));
        assert!(!is_program(&file));
    }

    #[test]
    fn an_unpacked_root_has_its_folders_in_order() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["usr/lib/postgresql/9/bin", "usr/lib/x86_64-linux-gnu/perl5/5.36", "lib"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        assert!(program_dirs(root.path()).ends_with(&[root.path().join("usr/lib/postgresql/9/bin")]));
        assert_eq!(library_dirs(root.path())[0], root.path().join("usr/lib/x86_64-linux-gnu"));
        assert!(perl_dirs(root.path()).contains(&root.path().join("usr/lib/x86_64-linux-gnu/perl5/5.36")));
    }

    #[test]
    fn python_is_asked_for_its_modules() {
        if let Some(python) = python(&["sys"]) {
            assert!(imports(&python, &["sys", "os"]));
            assert!(!imports(&python, &["no_module_has_this_name"]));
        }
    }
}

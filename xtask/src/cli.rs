//! What the chores share: the workspace's folder, running a command, measuring time.
//!
//! Not here: anything that knows what is run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// An empty text means: the reason is printed already.
pub(crate) type Outcome = Result<(), String>;

/// The folder of the root manifest.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The cargo that runs this chore, in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Shows a command, runs it, and turns a failure into a sentence.
pub(crate) fn shown(command: &mut Command) -> Outcome {
    println!("$ {}", text(command));
    quiet(command)
}

/// Runs a command that the caller has announced.
pub(crate) fn quiet(command: &mut Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{}` failed ({status})", text(command))),
        Err(error) => Err(format!("`{}` cannot run: {error}", text(command))),
    }
}

/// A command's standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("`{}` cannot run: {error}", text(command)))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` failed ({}): {}", text(command), output.status, why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    let text = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    if text.chars().count() > 160 {
        format!("{} ...", text.chars().take(156).collect::<String>())
    } else {
        text
    }
}

/// Measures how long a chore takes.
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "a chore is no part of the product and its time decides nothing"
    )]
    pub(crate) fn start() -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

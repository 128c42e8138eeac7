//! `postwright config check FILE` and `postwright config print-default`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Failure, output};
use crate::config::{Config, DEFAULT_TEXT};

/// `postwright config ...`.
#[derive(Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Reads a configuration file and says whether `serve` would take it.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Prints every key with its default and what it means.
    PrintDefault,
}

impl ConfigCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.action {
            Action::Check { file } => {
                Config::load(&file)?;
                output::text(&format!("{}: fine\n", file.display()))?;
            }
            Action::PrintDefault => output::text(DEFAULT_TEXT)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

//! `postwright config check FILE` and `postwright config print-default`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_core::{Clock, SystemClock};

use super::{Failure, output};
use crate::config::{Config, DEFAULT_TEXT};
use crate::preflight;

/// `postwright config ...`.
#[derive(Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Reads a configuration file and the files that it names, and says whether `serve` would take them.
    Check {
        /// The file.
        file: PathBuf,
        /// Only the text: the files that it names are elsewhere.
        #[arg(long)]
        text_only: bool,
    },
    /// Prints every key with its default and what it means.
    PrintDefault,
}

impl ConfigCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.action {
            Action::Check { file, text_only } => {
                let (config, mut warnings) = (Config::load(&file)?, Vec::new());
                if !text_only {
                    let now = SystemClock::new().now();
                    preflight::check(&config, now)?;
                    warnings = preflight::warnings(&config, now);
                }
                output::text(&format!("{}: fine\n", file.display()))?;
                warnings.iter().try_for_each(|warning| output::text(&format!("warning: {warning}\n")))?;
            }
            Action::PrintDefault => output::text(DEFAULT_TEXT)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

//! `postwright accounts hash USER` and `postwright accounts check FILE`.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use postwright::core::SystemEntropy;
use postwright::smtp_proto::sasl::Secret;
use postwright::smtp_server::auth::{Accounts, Scheme};

use super::{Failure, output};

/// Longest password in octets: PLAIN has to fit a line of 12,288.
const PASSWORD_MAX: usize = 1024;

/// `postwright accounts ...`.
#[derive(Args)]
pub(crate) struct AccountsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Reads a password from the first line of standard input and prints a line for the file of accounts.
    Hash {
        /// The name to log in with, as a rule a mail address.
        user: String,
        /// What is kept of the password.
        #[arg(long, value_enum, default_value_t = Kind::Scram)]
        scheme: Kind,
    },
    /// Reads a file of accounts and says how many users it has.
    Check {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// SCRAM-SHA-256 keys: every mechanism works.
    Scram,
    /// An argon2id hash: PLAIN and LOGIN only, and harder to guess for whoever steals the file.
    Argon2,
}

impl AccountsCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.action {
            Action::Hash { user, scheme } => {
                let scheme = match scheme {
                    Kind::Scram => Scheme::Scram,
                    Kind::Argon2 => Scheme::Argon2,
                };
                output::text(&format!("{}\n", hash(&user, scheme)?))?;
            }
            Action::Check { file } => {
                let shown = file.display();
                let wrong = |what: &dyn std::fmt::Display| Failure::new(format!("{shown}: {what}"));
                let text = std::fs::read_to_string(&file).map_err(|error| wrong(&error))?;
                let accounts = Accounts::parse(&text).map_err(|error| wrong(&error))?;
                output::text(&format!("{shown}: fine, {} users\n", accounts.users()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn hash(user: &str, scheme: Scheme) -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Failure::new)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > PASSWORD_MAX || password.contains('\0') {
        return Err(Failure::new(format!(
            "give a password of 1 to {PASSWORD_MAX} octets on the first line of standard input"
        )));
    }
    let line = Accounts::line_of(scheme, user, &Secret::new(password), &SystemEntropy);
    // Read back, so that a name that the file could not hold is refused here and not at the next start.
    match Accounts::parse(&line) {
        Ok(accounts) if accounts.users() == 1 && !user.starts_with('#') && user.trim() == user => Ok(line),
        _ => {
            Err(Failure::new(format!("{user:?} cannot be a user's name: no blanks around it, no # in front")))
        }
    }
}

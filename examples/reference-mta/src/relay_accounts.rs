//! The accounts that `serve` has at smart hosts: their secrets are read at the start, and again at SIGHUP.
//!
//! Invariant: accounts change all together or not at all; if one of the new secrets cannot be used, the old ones stay and
//! an error is logged. A secret is never logged.
//!
//! Standards: RFC 6750 2.1 (what a bearer token may hold).
//!
//! Not here: logging in (the library), warning of files that strangers can read (preflight.rs).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use postwright::core::{BoxFuture, World};
use postwright::smtp_client::oauth::{Token, TokenSource, Tokens};
use postwright::smtp_proto::sasl::Secret;
use postwright::{Credential, Operator, RelayAccount};

use crate::commands::Failure;
use crate::config::Config;
use crate::config::route::{Accounts, Credentials};

/// Longest secret in octets: tokens of some providers have 4 KiB.
const LONGEST: u64 = 64 * 1024;

/// All accounts, by their names.
pub(crate) struct RelayAccounts {
    accounts: Accounts,
    world: World,
}

impl RelayAccounts {
    pub(crate) fn load(config: &Config, world: &World) -> Result<RelayAccounts, Failure> {
        let mut accounts = Accounts::new();
        for section in &config.credentials {
            let mut account =
                RelayAccount::new(&section.name, credential(section, world)?, world.entropy.clone());
            if section.clear_on_loopback {
                account = account.clear_on_loopback();
            }
            accounts.insert(section.name.clone(), Arc::new(account));
        }
        Ok(RelayAccounts { accounts, world: world.clone() })
    }

    pub(crate) fn all(&self) -> &Accounts {
        &self.accounts
    }

    /// Reads the sections and their secrets again. Mail that waited for an account is tried at once.
    pub(crate) fn reload(&self, file: Option<&Path>, operator: &Operator) {
        if self.accounts.is_empty() {
            return;
        }
        let read = |config: Config| {
            let known = config.credentials.iter().filter(|section| self.accounts.contains_key(&section.name));
            let read = |section: &Credentials| Ok((section.name.clone(), credential(section, &self.world)?));
            let read = known.map(read).collect::<Result<Vec<_>, Failure>>()?;
            Ok((config.credentials.len(), read))
        };
        let Some(file) = file else { return };
        match Config::load(file).and_then(read) {
            Ok((sections, read)) => {
                if sections > read.len() || read.len() < self.accounts.len() {
                    tracing::warn!("SIGHUP: [[credentials]] that came or went need a restart");
                }
                for (name, credential) in &read {
                    if let Some(account) = self.accounts.get(name) {
                        account.replace(credential.clone());
                    }
                }
                operator.ask_pace_again();
                tracing::info!(accounts = read.len(), "SIGHUP: credentials for smart hosts read again");
            }
            Err(error) => {
                tracing::error!(%error, "SIGHUP: credentials were not read again; the old ones stay in use")
            }
        }
    }
}

/// Reads every secret, and keeps none.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    config.credentials.iter().try_for_each(|section| match secret_of(section) {
        Ok(_) => Ok(()),
        Err(what) => Err(wrong(section, &what)),
    })
}

fn wrong(section: &Credentials, what: &str) -> Failure {
    Failure::new(format!("[[credentials]] {:?}: {what}", section.name))
}

fn secret_of(section: &Credentials) -> Result<Secret, String> {
    match (&section.password_file, &section.password_env, &section.token_file) {
        (Some(path), _, _) | (_, _, Some(path)) => from_file(path),
        (_, Some(variable), _) => from_variable(variable),
        // The check of the configuration has refused it.
        (None, None, None) => Err("has no secret".to_owned()),
    }
}

fn credential(section: &Credentials, world: &World) -> Result<Credential, Failure> {
    let secret = secret_of(section).map_err(|what| wrong(section, &what))?;
    let credential = match &section.token_file {
        None => Credential::password(&section.user, secret),
        Some(path) => {
            let source = Arc::new(TokenFile(path.clone()));
            Credential::tokens(&section.user, Arc::new(Tokens::new(source, world.clock.clone())))
        }
    };
    Ok(credential.by(section.mechanisms.0.iter().map(|name| name.0)))
}

/// The first line of a file.
fn from_file(path: &Path) -> Result<Secret, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let about = std::fs::metadata(path).map_err(|error| wrong(&error))?;
    if !about.is_file() {
        return Err(wrong(&"not a file"));
    }
    if about.len() > LONGEST {
        return Err(wrong(&"longer than 64 KiB: not a secret"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    secret(text.lines().next().unwrap_or_default()).map_err(|what| wrong(&what))
}

fn from_variable(name: &str) -> Result<Secret, String> {
    let text = std::env::var(name).map_err(|_| format!("the environment variable {name} is not there"))?;
    secret(&text).map_err(|what| format!("the environment variable {name}: {what}"))
}

fn secret(text: &str) -> Result<Secret, &'static str> {
    match text {
        "" => Err("the secret is empty"),
        text if text.chars().any(char::is_control) => Err("the secret holds a control character"),
        text => Ok(Secret::new(text)),
    }
}

/// A token that another program renews in a file: read when one is needed, and again when it was refused.
struct TokenFile(PathBuf);

impl TokenSource for TokenFile {
    fn fetch(&self) -> BoxFuture<'_, Result<Token, String>> {
        // One small file on this machine.
        Box::pin(async { from_file(&self.0).map(|secret| Token { secret, expires: None }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_first_line_of_a_file_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let long = "hush".repeat(20_000);
        for (text, expected) in [
            ("hush", Ok("hush")),
            ("hush\r\nsecond line\n", Ok("hush")),
            (" with blanks \n", Ok(" with blanks ")),
            ("", Err("empty")),
            ("\nhush", Err("empty")),
            ("hu\tsh", Err("control")),
            (&long, Err("64 KiB")),
        ] {
            std::fs::write(&path, text).unwrap();
            match (from_file(&path), expected) {
                (Ok(secret), Ok(expected)) => assert_eq!(secret.expose(), expected),
                (Err(what), Err(part)) => {
                    assert!(
                        what.contains(part) && what.contains("/secret") && !what.contains("hu"),
                        "{what}"
                    );
                }
                (found, expected) => panic!("{text:?}: {found:?}, not {expected:?}"),
            }
        }
        assert!(from_file(dir.path()).unwrap_err().contains("not a file"));
        assert!(from_file(&dir.path().join("none")).is_err());
    }

    /// A token is kept until it is refused; then the file is read again, which another program has renewed.
    #[tokio::test]
    async fn a_refused_token_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let clock = Arc::new(postwright::core::SystemClock::new());
        let tokens = Tokens::new(Arc::new(TokenFile(path.clone())), clock);
        assert!(tokens.token(None).await.unwrap_err().contains("/token"));
        std::fs::write(&path, "one\n").unwrap();
        let one = tokens.token(None).await.unwrap();
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(tokens.token(None).await.unwrap(), one);
        assert_eq!(tokens.token(Some(&one)).await.unwrap().expose(), "two");
    }
}

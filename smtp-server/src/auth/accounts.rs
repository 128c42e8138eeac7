//! Users in a file: [`Accounts`].
//!
//! Invariant: a password is never kept, only its SCRAM-SHA-256 keys; a file with one bad line changes nothing.
//!
//! One credential a line, several lines for several credentials of a user, so that each can be revoked alone:
//!
//! ```text
//! joe@example.org:SCRAM-SHA-256$4096:c2FsdA==$StoredKey:ServerKey
//! ```
//!
//! Standards: RFC 5803 (the form, as PostgreSQL writes it too), RFC 7677.
//!
//! Not here: when to reload (the embedder).

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postwright_core::Entropy;
use postwright_smtp_proto::sasl::{Hash, ScramKeys, Secret};

use super::{Answered, CredentialStore};

/// Iterations of new credentials (RFC 7677 4 asks for at least 4,096).
const ITERATIONS: u32 = 4096;
/// Most iterations of a credential, so that one line cannot make every login take seconds.
const ITERATIONS_MAX: u32 = 1_000_000;
/// Most credentials of one user.
const CREDENTIALS_MAX: usize = 16;

/// Why a file of users is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the accounts: {what}")]
pub struct AccountsError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Users and their SCRAM keys, from text; can be replaced while in use.
pub struct Accounts {
    users: RwLock<Users>,
    /// Stands in for an unknown user, so that it costs the same work.
    nobody: ScramKeys,
}

type Users = BTreeMap<Box<str>, Vec<ScramKeys>>;

impl Accounts {
    /// Reads all lines. Empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// A line is not `user:SCRAM-SHA-256$...`.
    pub fn parse(text: &str) -> Result<Accounts, AccountsError> {
        let nobody = ScramKeys::derive(Hash::Sha256, "", b"nobody's salt...", ITERATIONS);
        Ok(Accounts { users: RwLock::new(parse(text)?), nobody })
    }

    /// Uses other users from now on; those who are logged in stay so.
    ///
    /// # Errors
    /// As [`Accounts::parse`]; then nothing changes.
    pub fn replace(&self, text: &str) -> Result<(), AccountsError> {
        let users = parse(text)?;
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
        Ok(())
    }

    /// A line for a new credential, with a fresh salt.
    pub fn line(user: &str, password: &Secret, entropy: &dyn Entropy) -> String {
        let mut salt = [0; 16];
        entropy.fill(&mut salt);
        let keys = ScramKeys::derive(Hash::Sha256, password.expose(), &salt, ITERATIONS);
        let (stored, server) = (STANDARD.encode(&keys.stored_key), STANDARD.encode(&keys.server_key));
        format!("{user}:SCRAM-SHA-256${ITERATIONS}:{}${stored}:{server}", STANDARD.encode(salt))
    }

    fn of(&self, user: &str) -> Vec<ScramKeys> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).get(user).cloned().unwrap_or_default()
    }
}

fn parse(text: &str) -> Result<Users, AccountsError> {
    let mut users = Users::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what| AccountsError { line: number + 1, what };
        let (user, keys) =
            parse_line(line).ok_or(wrong("want user:SCRAM-SHA-256$iterations:salt$key:key"))?;
        let credentials = users.entry(user.into()).or_default();
        if credentials.len() >= CREDENTIALS_MAX {
            return Err(wrong("this user has too many credentials"));
        }
        credentials.push(keys);
    }
    Ok(users)
}

fn parse_line(line: &str) -> Option<(&str, ScramKeys)> {
    let (user, verifier) = line.rsplit_once(":SCRAM-SHA-256$")?;
    let (head, keys) = verifier.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let iterations: u32 = iterations.parse().ok().filter(|n| (ITERATIONS..=ITERATIONS_MAX).contains(n))?;
    let decode = |text: &str| STANDARD.decode(text).ok();
    let key = |text: &str| decode(text).filter(|key| key.len() == 32);
    let salt = decode(salt).filter(|salt| !salt.is_empty())?.into();
    let (stored_key, server_key) = (key(stored)?.into(), key(server)?.into());
    let keys = ScramKeys { hash: Hash::Sha256, salt, iterations, stored_key, server_key };
    if user.is_empty() { None } else { Some((user, keys)) }
}

/// Whether the password has these keys. Both sides are hashes, so nothing is learnt from how long it takes.
fn fits(keys: &ScramKeys, password: &Secret) -> bool {
    ScramKeys::derive(keys.hash, password.expose(), &keys.salt, keys.iterations) == *keys
}

impl CredentialStore for Accounts {
    fn verify<'a>(&'a self, user: &'a str, password: &'a Secret) -> Answered<'a, bool> {
        let credentials = self.of(user);
        let known = if credentials.is_empty() {
            fits(&self.nobody, password);
            false
        } else {
            credentials.iter().any(|keys| fits(keys, password))
        };
        Box::pin(std::future::ready(Ok(known)))
    }

    /// SCRAM can only try one credential: the user's first.
    fn keys<'a>(&'a self, user: &'a str, hash: Hash) -> Answered<'a, Option<ScramKeys>> {
        let keys = if hash == Hash::Sha256 { self.of(user).into_iter().next() } else { None };
        Box::pin(std::future::ready(Ok(keys)))
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accounts")
    }
}

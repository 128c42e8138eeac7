//! Users in a file: [`Accounts`].
//!
//! Invariant: a password is never kept; a file with one bad line changes nothing; checking passwords takes at most
//! [`CHECKS`] threads at a time, so that a flood of logins takes neither all memory nor all cores.
//!
//! One credential a line, several lines for several credentials of a user, so that each can be revoked alone. What
//! stands behind a blank and `#` is a note. A line `sends-as` names senders other than the user's own address: an
//! address, all of a domain, or `*` for any.
//!
//! ```text
//! joe@example.org:SCRAM-SHA-256$4096:c2FsdA==$StoredKey:ServerKey  # laptop
//! joe@example.org:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA  # phone
//! joe@example.org:sends-as sales@example.org @lists.example.org
//! ```
//!
//! Standards: RFC 6409 6.1 (who may send as whom); see `credential.rs` for the forms.
//!
//! Not here: when to reload (the embedder).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use postwright_core::{Entropy, Mailbox, ReversePath};
use postwright_smtp_proto::sasl::{Hash, ScramKeys, Secret};
use tokio::sync::Semaphore;

use super::credential::{ARGON2, Credential, SCRAM, Scheme};
use super::{Answered, CredentialStore, StoreDown, is_own_address};

/// Most credentials of one user.
const CREDENTIALS_MAX: usize = 16;
/// Most senders of one user.
const SENDERS_MAX: usize = 1000;
/// Passwords that are checked at a time.
pub const CHECKS: usize = 4;

/// Why a file of users is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the accounts: {what}")]
pub struct AccountsError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Users, what is kept of their passwords, and what they may send as; can be replaced while in use.
pub struct Accounts {
    file: RwLock<Arc<File>>,
    checks: Arc<Semaphore>,
}

#[derive(Default)]
struct File {
    users: BTreeMap<Box<str>, User>,
    /// Stands in for an unknown user, so that it costs the same work: of the first line's kind.
    nobody: Credential,
}

#[derive(Default)]
struct User {
    credentials: Arc<Vec<Credential>>,
    senders: Vec<Sender>,
}

/// What a user may send as beside its own address.
enum Sender {
    Anybody,
    Domain(postwright_core::Domain),
    Mailbox(Mailbox),
}

impl Accounts {
    /// Reads all lines. Empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// A line is none of the three forms, or a user has too many.
    pub fn parse(text: &str) -> Result<Accounts, AccountsError> {
        let file = RwLock::new(Arc::new(parse(text)?));
        Ok(Accounts { file, checks: Arc::new(Semaphore::new(CHECKS)) })
    }

    /// Uses other users from now on; those who are logged in stay so.
    ///
    /// # Errors
    /// As [`Accounts::parse`]; then nothing changes.
    pub fn replace(&self, text: &str) -> Result<(), AccountsError> {
        let file = Arc::new(parse(text)?);
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.file().users.len()
    }

    /// A line for a new credential with SCRAM keys and a fresh salt.
    pub fn line(user: &str, password: &Secret, entropy: &dyn Entropy) -> String {
        Accounts::line_of(Scheme::Scram, user, password, entropy)
    }

    /// A line for a new credential with a fresh salt.
    pub fn line_of(scheme: Scheme, user: &str, password: &Secret, entropy: &dyn Entropy) -> String {
        format!("{user}:{}", Credential::new(scheme, password, entropy).to_text())
    }

    fn file(&self) -> Arc<File> {
        self.file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn parse(text: &str) -> Result<File, AccountsError> {
    let mut file = File::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.split_once(" #").map_or(line, |(line, _note)| line).trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        add_line(&mut file, line).map_err(|what| AccountsError { line: number + 1, what })?;
    }
    Ok(file)
}

fn add_line(file: &mut File, line: &str) -> Result<(), &'static str> {
    const FORM: &str = "want user:SCRAM-SHA-256$..., user:$argon2id$... or user:sends-as ADDRESS ...";
    let first = file.users.is_empty();
    // From the right, since a user's name may hold a colon.
    let kinds = [SCRAM, ARGON2, "sends-as "];
    let found = kinds.iter().find_map(|kind| line.rfind(&format!(":{kind}")));
    let (user, rest) = found.and_then(|at| line.split_at_checked(at)).ok_or(FORM)?;
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    if user.is_empty() {
        return Err(FORM);
    }
    let account = file.users.entry(user.into()).or_default();
    if let Some(senders) = rest.strip_prefix("sends-as ") {
        for word in senders.split_ascii_whitespace() {
            account.senders.push(sender(word).ok_or("sends-as wants addresses, @domains or *")?);
        }
        return if account.senders.len() > SENDERS_MAX {
            Err("this user has too many senders")
        } else {
            Ok(())
        };
    }
    let credential = Credential::parse(rest)?;
    if account.credentials.len() >= CREDENTIALS_MAX {
        return Err("this user has too many credentials");
    }
    if first {
        file.nobody = credential.clone();
    }
    Arc::make_mut(&mut account.credentials).push(credential);
    Ok(())
}

fn sender(word: &str) -> Option<Sender> {
    match (word, word.strip_prefix('@')) {
        ("*", _) => Some(Sender::Anybody),
        (_, Some(domain)) => domain.parse().ok().map(Sender::Domain),
        _ => word.parse().ok().map(Sender::Mailbox),
    }
}

impl Sender {
    fn allows(&self, mailbox: &Mailbox) -> bool {
        match self {
            Sender::Anybody => true,
            Sender::Domain(domain) => mailbox.domain() == Some(domain),
            Sender::Mailbox(named) => named == mailbox,
        }
    }
}

impl CredentialStore for Accounts {
    fn verify<'a>(&'a self, user: &'a str, password: &'a Secret) -> Answered<'a, bool> {
        Box::pin(async move {
            let file = self.file();
            let known =
                file.users.get(user).map(|user| user.credentials.clone()).filter(|own| !own.is_empty());
            // Held by the work itself: whoever hangs up in the middle does not make room for more of it.
            let permit = self.checks.clone().acquire_owned().await;
            let (nobody, password) = (file.nobody.clone(), password.clone());
            let checked = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                match known {
                    Some(credentials) => credentials.iter().any(|credential| credential.fits(&password)),
                    None => {
                        nobody.fits(&password);
                        false
                    }
                }
            });
            checked.await.map_err(|_| StoreDown("checking a password failed".into()))
        })
    }

    /// SCRAM can only try one credential: the user's first that is of that kind.
    fn keys<'a>(&'a self, user: &'a str, hash: Hash) -> Answered<'a, Option<ScramKeys>> {
        let file = self.file();
        let own = file.users.get(user).filter(|_| hash == Hash::Sha256);
        let keys = own.and_then(|user| user.credentials.iter().find_map(Credential::keys).cloned());
        Box::pin(std::future::ready(Ok(keys)))
    }

    fn may_send_as<'a>(&'a self, user: &'a str, path: &'a ReversePath) -> Answered<'a, bool> {
        let file = self.file();
        let granted = match (path, file.users.get(user)) {
            (ReversePath::Mailbox(mailbox), Some(user)) => {
                user.senders.iter().any(|sender| sender.allows(mailbox))
            }
            _ => false,
        };
        Box::pin(std::future::ready(Ok(granted || is_own_address(user, path))))
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accounts")
    }
}

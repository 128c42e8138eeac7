//! Accounts at smart hosts: [`RelayAccount`].
//!
//! Invariants: credentials are exchanged as a whole while mail is on its way, and a connection that was opened with
//! the old ones carries no more mail. They leave over verified TLS, or to a loopback address where the operator says
//! so. A login that was refused is not repeated for every message: the account rests for a minute, then for twice as
//! long each time, and nothing is lost meanwhile, since waiting costs a message no try.
//!
//! Standards: RFC 4954.
//!
//! Not here: the exchange (smtp-proto), where secrets come from (the embedder).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::{Cause, Diagnostic, Entropy, Phase, Timestamp};
use postwright_smtp_client::oauth::Tokens;
use postwright_smtp_client::{Account, Options, Target};
use postwright_smtp_proto::client::{Protection, Report};
use postwright_smtp_proto::sasl::client::Credentials;
use postwright_smtp_proto::sasl::{Mechanism, Secret};

use crate::NotNow;

/// How long an account rests after a refusal: the first time, and at most.
const REST: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(1800)];

/// Who we are at a smart host, and how we prove it.
#[derive(Debug, Clone)]
pub struct Credential {
    credentials: Credentials,
    tokens: Option<Arc<Tokens>>,
    mechanisms: Vec<Mechanism>,
}

impl Credential {
    /// A user name and a password.
    pub fn password(user: &str, password: Secret) -> Credential {
        let credentials = Credentials::Password { user: user.into(), password };
        Credential { credentials, tokens: None, mechanisms: Vec::new() }
    }

    /// A user name and OAuth bearer tokens, which are fetched in time and once more after 535.
    pub fn tokens(user: &str, tokens: Arc<Tokens>) -> Credential {
        let credentials = Credentials::Token { user: user.into(), token: Secret::new("") };
        Credential { credentials, tokens: Some(tokens), mechanisms: Vec::new() }
    }

    /// The same by these mechanisms only; without any, by the best that the server has.
    #[must_use]
    pub fn by(self, mechanisms: impl IntoIterator<Item = Mechanism>) -> Credential {
        Credential { mechanisms: mechanisms.into_iter().collect(), ..self }
    }

    fn user(&self) -> &str {
        match &self.credentials {
            Credentials::Password { user, .. } | Credentials::Token { user, .. } => user,
            _ => "",
        }
    }
}

/// Tokens are the same only if they come from the same keeper.
impl PartialEq for Credential {
    fn eq(&self, other: &Credential) -> bool {
        let keeper = |one: &Credential| one.tokens.as_ref().map(Arc::as_ptr);
        self.credentials == other.credentials
            && self.mechanisms == other.mechanisms
            && keeper(self) == keeper(other)
    }
}

/// An account at a smart host, by its name in the configuration.
///
/// ```
/// use std::sync::Arc;
/// use postwright::core::SystemEntropy;
/// use postwright::smtp_proto::sasl::Secret;
/// use postwright::{Credential, RelayAccount, RouteRule, Routes, Via};
/// # use postwright::smtp_client::policy::Level;
/// let account = RelayAccount::new("shop", Credential::password("shop@example.org", Secret::new("...")), Arc::new(SystemEntropy));
/// let via = Via::SmartHost { host: "relay.example.net".parse()?, port: 587, tls: Level::Verified };
/// let routes = Routes::mx().or_else(RouteRule::new(via).with_account(Arc::new(account)));
/// routes.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RelayAccount {
    name: Arc<str>,
    clear_on_loopback: bool,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
}

struct State {
    credential: Credential,
    /// How often it was exchanged.
    version: u64,
    resting: Option<Resting>,
}

/// What is known of the last refusal.
#[derive(Debug, Clone)]
struct Resting {
    until: Timestamp,
    span: Duration,
    why: Box<str>,
}

/// What tells connections of different accounts apart, and those of one account before and after an exchange.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LoginId {
    name: Arc<str>,
    user: Box<str>,
    version: u64,
}

/// An account as it is for one attempt.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) id: LoginId,
    credential: Credential,
    clear_on_loopback: bool,
    entropy: Arc<dyn Entropy>,
}

impl RelayAccount {
    /// An account that is used over verified TLS only.
    pub fn new(name: &str, credential: Credential, entropy: Arc<dyn Entropy>) -> RelayAccount {
        let state = Mutex::new(State { credential, version: 0, resting: None });
        RelayAccount { name: name.into(), clear_on_loopback: false, entropy, state }
    }

    /// The same for a server on this machine that has no TLS: at a loopback address, and nowhere else, credentials go
    /// in clear.
    #[must_use]
    pub fn clear_on_loopback(self) -> RelayAccount {
        RelayAccount { clear_on_loopback: true, ..self }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes other credentials from now on, and tries at once if it was resting. With the same password as before, open
    /// connections stay in use.
    pub fn replace(&self, credential: Credential) {
        let mut state = self.state();
        state.resting = None;
        if state.credential != credential {
            state.credential = credential;
            state.version += 1;
        }
    }

    pub(crate) fn is_clear_on_loopback(&self) -> bool {
        self.clear_on_loopback
    }

    /// The account for one attempt.
    ///
    /// # Errors
    /// It rests.
    pub(crate) fn login(&self, now: Timestamp) -> Result<Login, NotNow> {
        let state = self.state();
        if let Some(Resting { until, why, .. }) = state.resting.as_ref().filter(|resting| now < resting.until)
        {
            return Err(NotNow::new(*until, format!("the account {:?} was refused: {why}", self.name)));
        }
        let user = state.credential.user().into();
        Ok(Login {
            id: LoginId { name: self.name.clone(), user, version: state.version },
            credential: state.credential.clone(),
            clear_on_loopback: self.clear_on_loopback,
            entropy: self.entropy.clone(),
        })
    }

    /// Learns from a report on a new connection. If the login was refused: until when the account rests.
    pub(crate) fn learn(&self, login: &LoginId, report: &Report, now: Timestamp) -> Option<Timestamp> {
        let status = report.statuses.first()?;
        let mut state = self.state();
        if state.version != login.version {
            return None;
        }
        match (status.phase, &status.diagnostic) {
            (Phase::Auth, Diagnostic::Local(Cause::Policy(_))) => {}
            (phase, _) => {
                // What ended the session before that, or in the middle of it, says nothing about the account.
                state.resting = state.resting.take().filter(|_| phase <= Phase::Auth);
                return None;
            }
        }
        let [first, longest] = REST;
        let span = state.resting.as_ref().map_or(first, |resting| match now < resting.until {
            // Attempts that ran side by side count as one.
            true => resting.span,
            false => (resting.span * 2).min(longest),
        });
        let until = now + span;
        state.resting = Some(Resting { until, span, why: status.diagnostic.to_string().into() });
        Some(until)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can leave it half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Login {
    /// Has a connection to `target` log in before anything else.
    pub(crate) fn arm(&self, target: &Target, options: &mut Options) {
        let Credential { credentials, tokens, mechanisms } = self.credential.clone();
        let protection = match self.clear_on_loopback && target.address.ip().is_loopback() {
            true => Protection::Clear,
            false => Protection::VerifiedTls,
        };
        options.account =
            Some(Account { credentials, protection, mechanisms, entropy: self.entropy.clone() });
        options.tokens = tokens;
    }
}

impl LoginId {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Debug for RelayAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayAccount").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use postwright_core::{DeliveryStatus, EnhancedStatus, SeededEntropy};

    use super::*;

    fn report(phase: Phase) -> Report {
        let status = EnhancedStatus::known(4, 7, 8);
        Report::same(&DeliveryStatus::local(status, Cause::Policy("535 no".into()), phase, NOW), 1)
    }

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn a_refused_account_rests_longer_each_time_and_an_exchange_ends_it() {
        let credential = || Credential::password("joe", Secret::new("hush"));
        let account = RelayAccount::new("shop", credential(), Arc::new(SeededEntropy::new(1)));
        let mut now = NOW;
        for seconds in [60, 120, 240, 480, 960, 1800, 1800] {
            let login = account.login(now).unwrap();
            let until = account.learn(&login.id, &report(Phase::Auth), now).unwrap();
            assert_eq!(until, now + Duration::from_secs(seconds));
            // Another attempt that ran at the same time does not make it worse.
            assert_eq!(account.learn(&login.id, &report(Phase::Auth), now), Some(until));
            let Err(refused) = account.login(now) else { panic!("it rests") };
            assert!(refused.until == until && refused.because.contains("535 no"), "{refused:?}");
            now = until;
        }
        let old = account.login(now).unwrap();
        // A server that cannot be reached says nothing about the account.
        assert_eq!(account.learn(&old.id, &report(Phase::Connect), now), None);
        account.learn(&old.id, &report(Phase::Auth), now);
        // The same once more is no exchange, but a new try.
        account.replace(credential());
        assert_eq!(account.login(now).unwrap().id, old.id, "its connections stay in use");
        account.learn(&old.id, &report(Phase::Auth), now);
        account.replace(Credential::password("joe", Secret::new("changed")));
        let new = account.login(now).unwrap();
        assert_ne!(old.id, new.id, "no connection of the old credentials is used again");
        assert_eq!(account.learn(&old.id, &report(Phase::Auth), now), None, "old news");
        account.learn(&new.id, &report(Phase::Auth), now);
        now = now + Duration::from_secs(60);
        account.learn(&new.id, &report(Phase::Mail), now);
        assert_eq!(account.learn(&new.id, &report(Phase::Auth), now), Some(now + Duration::from_secs(60)));
    }

    #[test]
    fn credentials_go_in_clear_to_loopback_alone_and_only_if_told_to() {
        let credential = || Credential::password("joe", Secret::new("hush"));
        let strict = RelayAccount::new("a", credential(), Arc::new(SeededEntropy::new(1)));
        let lax = RelayAccount::new("b", credential(), Arc::new(SeededEntropy::new(1))).clear_on_loopback();
        for (account, address, expected) in [
            (&strict, "127.0.0.1:25", Protection::VerifiedTls),
            (&lax, "127.0.0.1:25", Protection::Clear),
            (&lax, "[::1]:25", Protection::Clear),
            (&lax, "192.0.2.1:25", Protection::VerifiedTls),
        ] {
            let target = Target { host: "localhost".parse().unwrap(), address: address.parse().unwrap() };
            let mut options = Options::new(postwright_smtp_proto::client::Config::new(
                "c.example".parse::<postwright_core::Domain>().unwrap(),
            ));
            account.login(NOW).unwrap().arm(&target, &mut options);
            assert_eq!(options.account.as_ref().unwrap().protection, expected, "{address}");
            let shown = format!("{options:?} {account:?} {:?}", account.login(NOW).map(|login| login.id));
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}

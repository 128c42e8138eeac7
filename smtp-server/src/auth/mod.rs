//! AUTH for handlers: mechanisms, users, lock-out. Feature `auth`.
//!
//! Invariant: a store that is down never lets anybody in, and never counts as a failure of the user. A locked
//! account or address is not even asked about. An unknown user costs the same work as a known one.
//!
//! Standards: RFC 4954 4 and 6 (535 5.7.8, 454 4.7.0, 504 5.5.4); RFC 5802, RFC 7677, RFC 9266,
//! RFC 5929 4.
//!
//! Not here: the exchange around it (smtp-proto's session), which senders are whose (the store).

mod accounts;
mod credential;
mod lockout;

use std::sync::Arc;

use postwright_core::{BoxFuture, Clock, EnhancedStatus, Entropy, Refusal, ReversePath};
use postwright_smtp_proto::sasl::server::{Answer as Verdict, Exchange, Progress, Request, Setup};
use postwright_smtp_proto::sasl::{ChannelBinding, Hash, Mechanism, ScramKeys, Secret};

pub use accounts::{Accounts, AccountsError, CHECKS};
pub use credential::Scheme;
pub use lockout::Lockout;
pub use postwright_smtp_proto::sasl::server::Identity;

use crate::handler::Session;
use crate::{Answer, Peer};

/// The users cannot be asked about at present; why, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credential store is not available: {0}")]
pub struct StoreDown(pub Box<str>);

/// What a store answers.
pub type Answered<'a, T> = BoxFuture<'a, Result<T, StoreDown>>;

/// Who the users are. Only [`CredentialStore::verify`] has no default; the others serve more mechanisms.
pub trait CredentialStore: Send + Sync {
    /// Is this the user's password, or one of them?
    fn verify<'a>(&'a self, user: &'a str, password: &'a Secret) -> Answered<'a, bool>;

    /// The user's SCRAM keys for this hash function. Default: none.
    fn keys<'a>(&'a self, user: &'a str, hash: Hash) -> Answered<'a, Option<ScramKeys>> {
        let _ = (user, hash);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// The password itself, which CRAM-MD5 needs. Default: none.
    fn reveal<'a>(&'a self, user: &'a str) -> Answered<'a, Option<Secret>> {
        let _ = user;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Is this token good for this user? Default: no.
    fn token<'a>(&'a self, identity: &'a Identity, token: &'a Secret) -> Answered<'a, bool> {
        let _ = (identity, token);
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Does this peer's client certificate stand for this identity? Default: no.
    fn certificate<'a>(&'a self, identity: &'a Identity, peer: &'a Peer) -> Answered<'a, bool> {
        let _ = (identity, peer);
        Box::pin(std::future::ready(Ok(false)))
    }

    /// May this user act as another, as a message of the exchange asks? Default: no.
    fn may_act_as<'a>(&'a self, user: &'a str, other: &'a str) -> Answered<'a, bool> {
        let _ = (user, other);
        Box::pin(std::future::ready(Ok(false)))
    }

    /// May this user send with this reverse-path (RFC 6409 6.1)? Default: as itself, if its name is an address, and
    /// with the null path, which notifications need.
    fn may_send_as<'a>(&'a self, user: &'a str, path: &'a ReversePath) -> Answered<'a, bool> {
        Box::pin(std::future::ready(Ok(is_own_address(user, path))))
    }
}

/// Whether a user's name is this address, or the path is null. Case does not matter, as it does not to people.
fn is_own_address(user: &str, path: &ReversePath) -> bool {
    match path {
        ReversePath::Null => true,
        ReversePath::Mailbox(mailbox) => mailbox.to_string().eq_ignore_ascii_case(user),
    }
}

/// What all logins of a server share.
pub struct Authenticator {
    store: Arc<dyn CredentialStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    hostname: Box<str>,
    decoy: [u8; 32],
    lockout: Lockout,
}

impl Authenticator {
    /// With a lock-out of the usual numbers. `hostname` is for the challenge of CRAM-MD5; `decoy` is a secret that
    /// stays the same over restarts, so that unknown users keep their salts.
    pub fn new(
        store: Arc<dyn CredentialStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        hostname: &str,
        decoy: [u8; 32],
    ) -> Authenticator {
        Authenticator { store, clock, entropy, hostname: hostname.into(), decoy, lockout: Lockout::default() }
    }

    /// With another lock-out.
    #[must_use]
    pub fn with_lockout(mut self, lockout: Lockout) -> Authenticator {
        self.lockout = lockout;
        self
    }

    /// The state of one connection's logins: keep it in your handler and let `auth` call [`Login::step`].
    pub fn login(self: &Arc<Self>) -> Login {
        Login { shared: self.clone(), exchange: None, identity: None }
    }

    fn begin(&self, mechanism: Mechanism, session: &Session) -> Exchange {
        let mut random = [0; 18];
        self.entropy.fill(&mut random);
        let tls = session.peer.tls.as_ref();
        let exporter = tls.and_then(|tls| tls.exporter).map(ChannelBinding::Exporter);
        let end_point = tls.and_then(|tls| tls.server_end_point.clone()).map(ChannelBinding::ServerEndPoint);
        let bindings: Vec<_> = exporter.into_iter().chain(end_point).collect();
        let setup = Setup {
            random,
            decoy: self.decoy,
            hostname: self.hostname.clone(),
            plus_offered: session.binding_offered && !bindings.is_empty(),
            bindings,
        };
        Exchange::new(mechanism, setup)
    }

    async fn ask(&self, request: &Request, peer: &Peer) -> Result<Verdict, StoreDown> {
        Ok(match request {
            Request::Password { identity, password } => {
                Verdict::Verified(self.store.verify(&identity.user, password).await?)
            }
            Request::Token { identity, token } => Verdict::Verified(self.store.token(identity, token).await?),
            Request::Certificate(identity) => {
                Verdict::Verified(self.store.certificate(identity, peer).await?)
            }
            Request::Reveal { user } => Verdict::Password(self.store.reveal(user).await?),
            Request::Keys { user, hash } => Verdict::Keys(self.store.keys(user, *hash).await?),
        })
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("lockout", &self.lockout).finish_non_exhaustive()
    }
}

/// The logins of one connection.
#[derive(Debug)]
pub struct Login {
    shared: Arc<Authenticator>,
    /// The exchange that runs, and the user whom it is about as soon as that is known.
    exchange: Option<(Exchange, Option<Box<str>>)>,
    identity: Option<Identity>,
}

impl Login {
    /// Who logged in.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether whoever logged in may send with this reverse-path: for [`Handler::mail`](crate::Handler::mail).
    ///
    /// # Errors
    /// 530 5.7.0 before a login, 553 5.7.1 for a sender that is another's, 451 4.3.0 if the store cannot say.
    pub async fn check_sender(&self, path: &ReversePath) -> Result<(), Refusal> {
        let Some(identity) = &self.identity else {
            return Err(Refusal::known(530, EnhancedStatus::known(5, 7, 0), "Authentication required"));
        };
        // Who acts as another sends as the other.
        let user = identity.acts_as.as_deref().unwrap_or(&identity.user);
        match self.shared.store.may_send_as(user, path).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let text = "This sender address is not yours";
                Err(Refusal::known(553, EnhancedStatus::known(5, 7, 1), text))
            }
            Err(down) => {
                tracing::warn!(%down, "cannot check a sender");
                Err(Refusal::known(451, EnhancedStatus::known(4, 3, 0), "Temporary failure, try again later"))
            }
        }
    }

    /// Carries one message of an exchange further: the body of [`Handler::auth`](crate::Handler::auth).
    pub async fn step(
        &mut self,
        session: &Session,
        mechanism: &str,
        response: Option<&[u8]>,
        first: bool,
    ) -> Answer {
        let shared = self.shared.clone();
        let (ip, now) = (session.peer.address.ip(), shared.clock.mono());
        if shared.lockout.is_address_locked(ip, now) {
            return locked();
        }
        if first {
            let Some(mechanism) = Mechanism::from_name(mechanism) else { return unknown_mechanism() };
            self.exchange = Some((shared.begin(mechanism, session), None));
        }
        let Some((mut exchange, mut user)) = self.exchange.take() else { return unknown_mechanism() };
        let mut progress = exchange.step(response);
        loop {
            match progress {
                Progress::Challenge(octets) => {
                    self.exchange = Some((exchange, user));
                    return Answer::Challenge(octets);
                }
                Progress::Ask(request) => {
                    user = Some(user_of(&request).into());
                    if shared.lockout.is_account_locked(user_of(&request), now) {
                        return locked();
                    }
                    match shared.ask(&request, &session.peer).await {
                        Ok(verdict) => progress = exchange.answer(verdict),
                        Err(down) => {
                            tracing::warn!(%down, "cannot check credentials");
                            return unavailable();
                        }
                    }
                }
                Progress::Accepted(identity) => {
                    if let Some(other) = &identity.acts_as {
                        match shared.store.may_act_as(&identity.user, other).await {
                            Ok(true) => {}
                            Ok(false) => return wrong(),
                            Err(_) => return unavailable(),
                        }
                    }
                    shared.lockout.succeeded(&identity.user);
                    self.identity = Some(identity);
                    return Answer::accepted();
                }
                Progress::Refused(reason) => {
                    shared.lockout.failed(ip, user.as_deref(), now);
                    tracing::debug!(peer = %ip, %reason, "login refused");
                    return wrong();
                }
            }
        }
    }
}

fn user_of(request: &Request) -> &str {
    match request {
        Request::Password { identity, .. }
        | Request::Token { identity, .. }
        | Request::Certificate(identity) => &identity.user,
        Request::Reveal { user } | Request::Keys { user, .. } => user,
    }
}

fn wrong() -> Answer {
    Refusal::known(535, EnhancedStatus::known(5, 7, 8), "Authentication credentials invalid").into()
}

fn locked() -> Answer {
    Refusal::known(454, EnhancedStatus::known(4, 7, 0), "Too many failed logins, try again later").into()
}

fn unavailable() -> Answer {
    Refusal::known(454, EnhancedStatus::known(4, 7, 0), "Temporary authentication failure").into()
}

fn unknown_mechanism() -> Answer {
    Refusal::known(504, EnhancedStatus::known(5, 5, 4), "Unknown authentication mechanism").into()
}

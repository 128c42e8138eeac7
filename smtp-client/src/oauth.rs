//! Bearer tokens for smart hosts: [`Tokens`] keeps one, and gets a new one in time.
//!
//! Invariant: at most one token is being fetched at a time, however many connections want one; a token is not used
//! in its last minute; one that a server refused with 535 is never used again, and the connection is tried once
//! more with a new one, never twice.
//!
//! Standards: RFC 7628 (OAUTHBEARER), RFC 6750 (bearer tokens), RFC 4954 6 (535).
//!
//! Not here: how a token is had (the embedder's [`TokenSource`]), what is said in AUTH (smtp-proto).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{BoxFuture, Clock, Remote, Timestamp};
use postwright_smtp_proto::client::CloseReason;
use postwright_smtp_proto::sasl::Secret;
use postwright_smtp_proto::sasl::client::Credentials;
use tokio::sync::Mutex;

use crate::client::Client;
use crate::connect::Target;
use crate::connection::{ConnectError, ConnectFailure, Connection, Options};

/// A token is not used for the last minute of its life: the server's clock may be ahead.
const MARGIN: Duration = Duration::from_secs(60);

/// A token, and how long it may be used.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub secret: Secret,
    /// When it ends; `None` if that is not known.
    pub expires: Option<Timestamp>,
}

/// Where tokens come from: as a rule a request to an authorization server with a refresh token.
pub trait TokenSource: Send + Sync {
    /// Gets a new token. An error is a reason in words; the mail waits.
    fn fetch(&self) -> BoxFuture<'_, Result<Token, String>>;
}

/// The token of one account, fetched when it is needed.
pub struct Tokens {
    source: Arc<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    kept: Mutex<Option<Token>>,
}

impl Tokens {
    /// Nothing is fetched yet.
    pub fn new(source: Arc<dyn TokenSource>, clock: Arc<dyn Clock>) -> Tokens {
        Tokens { source, clock, kept: Mutex::new(None) }
    }

    /// A token that is alive and is not the one that was refused.
    ///
    /// # Errors
    /// The source's.
    pub async fn token(&self, refused: Option<&Secret>) -> Result<Secret, String> {
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        let alive = |token: &&Token| token.expires.is_none_or(|end| now + MARGIN < end);
        let good = kept.as_ref().filter(alive).filter(|token| Some(&token.secret) != refused);
        if let Some(token) = good {
            return Ok(token.secret.clone());
        }
        *kept = None;
        let token = self.source.fetch().await?;
        let secret = token.secret.clone();
        *kept = Some(token);
        Ok(secret)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// Opens a session with a token in place of the account's password; once more with a new one if it is refused.
pub(crate) async fn connect(
    client: &Client,
    tokens: &Tokens,
    target: &Target,
    options: &Options,
) -> Result<Connection, Box<ConnectError>> {
    let first = token(client, tokens, None, target).await?;
    match client.open(target, &with_token(options, &first)).await {
        Err(error) if is_refused(&error) => {
            tracing::debug!(host = %target.host, "the token was refused; trying a new one");
            let second = token(client, tokens, Some(&first), target).await?;
            client.open(target, &with_token(options, &second)).await
        }
        result => result,
    }
}

async fn token(
    client: &Client,
    tokens: &Tokens,
    refused: Option<&Secret>,
    target: &Target,
) -> Result<Secret, Box<ConnectError>> {
    tokens.token(refused).await.map_err(|why| {
        let remote = Remote { host: target.host.clone(), address: None, tls: None };
        let reason = CloseReason::Auth(format!("no token: {why}").into());
        Box::new(ConnectError::new(remote, ConnectFailure::Session(reason), client.now()))
    })
}

fn with_token(options: &Options, token: &Secret) -> Options {
    let mut options = options.clone();
    if let Some(account) = &mut options.account {
        let user = match &account.credentials {
            Credentials::Password { user, .. } | Credentials::Token { user, .. } => user.clone(),
            _ => Box::default(),
        };
        account.credentials = Credentials::Token { user, token: token.clone() };
    }
    options
}

/// RFC 4954 6: the credentials are wrong, as against "not now".
fn is_refused(error: &ConnectError) -> bool {
    matches!(error.close_reason(), Some(CloseReason::Auth(why)) if why.starts_with("535"))
}

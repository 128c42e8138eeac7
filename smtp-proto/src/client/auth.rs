//! AUTH on the client's side: which mechanism, and the exchange around it.
//!
//! Invariant: no password or token is sent over a connection that is less protected than [`Protection`] asks for;
//! without a usable mechanism the session ends instead of going on unauthenticated.
//!
//! Standards: RFC 4954 (4: AUTH, initial response, cancelling; 4.1: after AUTH); RFC 5802, RFC 9266 (bindings).
//!
//! Not here: the mechanisms (sasl), where credentials come from (the embedder).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postwright_core::{Phase, Reply};

use super::report::CloseReason;
use super::session::{Expect, Session};
use crate::sasl::client::{Credentials, Exchange};
use crate::sasl::{ChannelBinding, Mechanism, SaslError};

/// Longest AUTH command with an initial response; RFC 4954 4 has a longer one sent without it.
const COMMAND_MAX: usize = 512;

/// How well the connection must be protected before credentials are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Protection {
    /// TLS with a verified certificate.
    #[default]
    VerifiedTls,
    /// TLS, whoever is at the other end.
    AnyTls,
    /// None is needed: for a server on the same machine.
    Clear,
}

/// Credentials for one session.
#[derive(Debug)]
pub struct Login {
    credentials: Credentials,
    protection: Protection,
    random: [u8; 18],
    /// Those that may be used; all of them if there are none.
    mechanisms: Vec<Mechanism>,
    exchange: Option<Exchange>,
}

impl Login {
    /// Credentials for one session; `random` is 18 fresh random octets.
    pub fn new(credentials: Credentials, protection: Protection, random: [u8; 18]) -> Login {
        Login { credentials, protection, random, mechanisms: Vec::new(), exchange: None }
    }

    /// The same by one of these mechanisms and no other; of those that the server has, the best is taken.
    #[must_use]
    pub fn only(self, mechanisms: impl IntoIterator<Item = Mechanism>) -> Login {
        Login { mechanisms: mechanisms.into_iter().collect(), ..self }
    }

    fn allows(&self, name: &str) -> bool {
        self.mechanisms.is_empty()
            || Mechanism::from_name(name).is_some_and(|mechanism| self.mechanisms.contains(&mechanism))
    }
}

impl Session {
    /// Authenticates before the first transaction; call it before the session is ready.
    ///
    /// If no mechanism is in common, the connection is not [protected](Protection) enough, or the server refuses,
    /// the session ends with [`CloseReason::Auth`].
    pub fn set_login(&mut self, login: Login) {
        self.login = Some(login);
    }

    /// What TLS offers for channel binding, best first.
    fn bindings(&self) -> Vec<ChannelBinding> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let exporter = tls.exporter.map(ChannelBinding::Exporter);
        let end_point = tls.server_end_point.clone().map(ChannelBinding::ServerEndPoint);
        exporter.into_iter().chain(end_point).collect()
    }

    pub(super) fn begin_auth(&mut self) {
        let bindings = self.bindings();
        let Some(login) = &mut self.login else { return };
        let protected = match login.protection {
            Protection::VerifiedTls => self.tls.as_ref().is_some_and(|tls| tls.verified),
            Protection::AnyTls => self.tls.is_some(),
            Protection::Clear => true,
        };
        if !protected {
            let why = "the connection is not protected as the credentials ask for";
            return self.close(CloseReason::Auth(why.into()));
        }
        let offered = self.offer.auth.iter().map(|name| &**name).filter(|name| login.allows(name));
        let Some(mechanism) = login.credentials.choose(offered, true, !bindings.is_empty()) else {
            let why = format!("no usable mechanism among {:?}", self.offer.auth);
            return self.close(CloseReason::Auth(why.into()));
        };
        let mut exchange = match Exchange::new(mechanism, &login.credentials, &bindings, login.random) {
            Ok(exchange) => exchange,
            Err(error) => return self.close(CloseReason::Auth(error.to_string().into())),
        };
        let bare = format!("AUTH {mechanism}\r\n");
        // An empty initial response is written `=` (RFC 4954 4).
        let with_response = |message: Vec<u8>| match message.is_empty() {
            true => format!("AUTH {mechanism} =\r\n"),
            false => format!("AUTH {mechanism} {}\r\n", STANDARD.encode(message)),
        };
        // Whether it fits is asked before it is taken: too long a response waits for the server's empty challenge.
        let fits = exchange.first_len().is_none_or(|len| bare.len() + 1 + len.div_ceil(3) * 4 <= COMMAND_MAX);
        let line = if fits { exchange.first().map_or(bare, with_response) } else { bare };
        login.exchange = Some(exchange);
        self.write(&line, Expect::Auth);
    }

    pub(super) fn auth_answered(&mut self, reply: &Reply) {
        let Some(login) = &mut self.login else { return };
        let Some(exchange) = &mut login.exchange else { return };
        let code = reply.code();
        if code.is_positive() {
            if !exchange.is_proven() {
                let why = "the server reports success without its proof";
                return self.close(CloseReason::Auth(why.into()));
            }
            login.exchange = None;
            self.authenticated = true;
            return self.ready();
        }
        if code.get() != 334 {
            login.exchange = None;
            return self.close(match code.is_intermediate() {
                true => {
                    CloseReason::Protocol(Phase::Auth, format!("an answer that fits no AUTH: {reply}").into())
                }
                false => CloseReason::Auth(reply.to_string().into()),
            });
        }
        let text = reply.text();
        let challenge = STANDARD.decode(text.trim()).map_err(|_| SaslError::Malformed);
        match challenge.and_then(|challenge| exchange.step(&challenge)) {
            Ok(answer) => self.write(&format!("{}\r\n", STANDARD.encode(answer)), Expect::Auth),
            // RFC 4954 4: `*` cancels; the server's 501 then ends the session.
            Err(_) => self.write("*\r\n", Expect::Auth),
        }
    }
}

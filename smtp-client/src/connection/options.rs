//! How a connection is opened, what is said on it, and with which account.
//!
//! Not here: which options a host's TLS policy leads to (policy.rs).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use postwright_smtp_proto::client::{Config, StartTls};

use crate::tls::Demand;

/// How a connection is opened and what is said on it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What the client machine is told: name, STARTTLS, BDAT, time-outs.
    pub session: Arc<Config>,
    /// TLS from the first octet (port 465, RFC 8314), instead of STARTTLS.
    pub implicit_tls: bool,
    /// What the server's certificate must be.
    pub demand: Demand,
    /// How long the connection may take to open: 30 s. RFC 1123 5.3.1.1 leaves it to us; the kernel's own two
    /// minutes are too long for a host with several addresses.
    pub connect_timeout: Duration,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    /// With which account to authenticate, if at all.
    #[cfg(feature = "sasl")]
    pub account: Option<Account>,
    /// Where a bearer token comes from, in place of the account's password or token.
    #[cfg(feature = "sasl")]
    pub tokens: Option<Arc<crate::oauth::Tokens>>,
}

impl Options {
    /// The defaults, with what the client machine is told.
    pub fn new(session: Config) -> Options {
        Options {
            session: Arc::new(session),
            implicit_tls: false,
            demand: Demand::default(),
            connect_timeout: Duration::from_secs(30),
            source: None,
            #[cfg(feature = "sasl")]
            account: None,
            #[cfg(feature = "sasl")]
            tokens: None,
        }
    }

    /// The same without TLS, if nothing asks for it: for a second try after a handshake failed.
    pub(crate) fn in_clear(&self) -> Option<Options> {
        let Options { demand, session, implicit_tls, .. } = self;
        let optional = session.starttls == StartTls::Opportunistic && *demand == Demand::Nothing;
        (optional && !implicit_tls).then(|| {
            let mut session = Config::clone(&self.session);
            session.starttls = StartTls::None;
            Options { session: Arc::new(session), ..self.clone() }
        })
    }
}

/// An account at a smart host.
#[cfg(feature = "sasl")]
#[derive(Clone)]
pub struct Account {
    /// Who we are there.
    pub credentials: postwright_smtp_proto::sasl::client::Credentials,
    /// How well the connection must be protected first; verified TLS unless you say otherwise.
    pub protection: postwright_smtp_proto::client::Protection,
    /// By which mechanisms alone; with none here, by the best that the server has.
    pub mechanisms: Vec<postwright_smtp_proto::sasl::Mechanism>,
    /// Where nonces come from.
    pub entropy: Arc<dyn postwright_core::Entropy>,
}

#[cfg(feature = "sasl")]
impl Account {
    pub(super) fn login(&self) -> postwright_smtp_proto::client::Login {
        let mut random = [0; 18];
        self.entropy.fill(&mut random);
        let login =
            postwright_smtp_proto::client::Login::new(self.credentials.clone(), self.protection, random);
        login.only(self.mechanisms.iter().copied())
    }
}

#[cfg(feature = "sasl")]
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

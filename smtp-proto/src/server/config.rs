//! What a server session offers and to whom it talks: [`Config`], [`Peer`].
//!
//! Invariant: fixed for the life of a session; a session never changes its own configuration.
//!
//! Standards: RFC 5321 4.1.1.1 (EHLO), RFC 2033 (LMTP), RFC 3207, RFC 4954, RFC 9422 and the extensions named at
//! each field.
//!
//! Not here: certificates, sockets, rates (smtp-server).

use std::net::SocketAddr;

use postwright_core::{Host, Mailbox, Timestamp};

use crate::{Limits, TlsInfo};

/// SMTP or its local sibling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RFC 5321: HELO and EHLO, one reply to a message.
    #[default]
    Smtp,
    /// RFC 2033: LHLO, one reply to a message for each recipient.
    Lmtp,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The client's address (after a PROXY header, the one that it states).
    pub address: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// When it connected, by the wall clock: the zero of BY=, HOLDFOR= and HOLDUNTIL=.
    pub at: Timestamp,
    /// TLS, if the connection began with it (RFC 8314) or STARTTLS succeeded.
    pub tls: Option<TlsInfo>,
    /// What a trusted proxy said by XCLIENT or XFORWARD; empty otherwise.
    pub forwarded: Forwarded,
}

impl Peer {
    /// A peer in clear text.
    pub fn new(address: SocketAddr, local: SocketAddr, at: Timestamp) -> Peer {
        Peer { address, local, at, tls: None, forwarded: Forwarded::default() }
    }
}

/// What a trusted proxy says about the real client (Postfix XCLIENT and XFORWARD).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// NAME: the client's host name. `None` also for `[UNAVAILABLE]`.
    pub name: Option<Box<str>>,
    /// ADDR and PORT, as the proxy stated them by XFORWARD; XCLIENT replaces [`Peer::address`] instead.
    pub address: Option<SocketAddr>,
    /// HELO: what the client said at HELO or EHLO.
    pub hello: Option<Box<str>>,
    /// PROTO: `SMTP` or `ESMTP`.
    pub protocol: Option<Box<str>>,
    /// LOGIN: the SASL name that the proxy has authenticated.
    pub login: Option<Box<str>>,
    /// IDENT: the message's id at the proxy.
    pub ident: Option<Box<str>>,
    /// SOURCE: `LOCAL` or `REMOTE`.
    pub source: Option<Box<str>>,
}

/// What a session offers. Start from [`Config::new`] and change fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Our name in the greeting and in the reply to EHLO.
    pub hostname: Host,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// The limits.
    pub limits: Limits,
    /// Offer STARTTLS (RFC 3207); only if the driver can run a handshake.
    pub starttls: bool,
    /// Refuse all commands before TLS but NOOP, EHLO, STARTTLS, RSET and QUIT with 530 5.7.0 (RFC 3207 4).
    pub require_tls: bool,
    /// Refuse MAIL before AUTH with 530 5.7.0 (RFC 4954 6); for submission.
    pub require_auth: bool,
    /// SASL mechanisms to offer, best first; empty: no AUTH. Those that send a password or a token in clear
    /// (PLAIN, LOGIN, XOAUTH2, OAUTHBEARER) are offered and taken over TLS only.
    pub auth: Vec<Box<str>>,
    /// Offer and take clear-text mechanisms without TLS too. For tests and private links only.
    pub auth_in_clear: bool,
    /// Offer 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// Offer CHUNKING and BINARYMIME (RFC 3030).
    pub chunking: bool,
    /// Offer DSN (RFC 3461).
    pub dsn: bool,
    /// Offer SMTPUTF8 (RFC 6531), if 8BITMIME is offered too. Domains in U-labels need core's feature `idna`; without
    /// it they get 553 5.6.7, and whoever offers SMTPUTF8 should have it.
    pub smtp_utf8: bool,
    /// Offer REQUIRETLS, over TLS only (RFC 8689).
    pub offer_require_tls: bool,
    /// Offer LIMITS with MAILMAX and RCPTMAX (RFC 9422).
    pub announce_limits: bool,
    /// Offer DELIVERBY with this shortest by-time in seconds (RFC 2852).
    pub deliver_by: Option<u32>,
    /// Offer FUTURERELEASE with this longest interval in seconds (RFC 4865).
    pub future_release: Option<u32>,
    /// Offer MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// Take XCLIENT from this peer. Only for proxies that you run.
    pub xclient: bool,
    /// Take XFORWARD from this peer. Only for proxies that you run.
    pub xforward: bool,
    /// Refuse input that comes before the greeting, or behind EHLO, DATA or AUTH in the same group, with 554 5.5.0
    /// and the end (RFC 2920 3.1, RFC 5321 3.1). Input behind STARTTLS is refused whatever this says.
    pub forbid_early_talk: bool,
    /// Where `RCPT TO:<Postmaster>` goes; it is then always accepted (RFC 5321 4.5.1). `None` asks the embedder
    /// about `postmaster` at our name.
    pub postmaster: Option<Mailbox>,
    /// Lines to add to the reply to EHLO, such as `XMOOD cheerful`.
    pub private_lines: Vec<Box<str>>,
    /// Keywords of private MAIL parameters, upper-case; others that nobody knows get 555 5.5.4.
    pub private_mail: Vec<Box<str>>,
    /// Keywords of private RCPT parameters, upper-case.
    pub private_rcpt: Vec<Box<str>>,
}

impl Config {
    /// The defaults: every extension that needs nothing from the embedder is on, all others are off.
    pub fn new(hostname: impl Into<Host>) -> Config {
        Config {
            hostname: hostname.into(),
            protocol: Protocol::Smtp,
            limits: Limits::default(),
            starttls: false,
            require_tls: false,
            require_auth: false,
            auth: Vec::new(),
            auth_in_clear: false,
            eight_bit: true,
            chunking: true,
            dsn: true,
            smtp_utf8: true,
            offer_require_tls: false,
            announce_limits: true,
            deliver_by: None,
            future_release: None,
            mt_priority: false,
            xclient: false,
            xforward: false,
            forbid_early_talk: true,
            postmaster: None,
            private_lines: Vec::new(),
            private_mail: Vec::new(),
            private_rcpt: Vec::new(),
        }
    }
}

//! Who may send to whom: the answer to RCPT that keeps us from being an open relay.
//!
//! Invariant: a [`Relay`] that was told nothing refuses everything.
//!
//! Standards: RFC 5321 3.6.2, 7.1; RFC 3463 3.8 (`5.7.1`).
//!
//! Not here: whether a mailbox exists (the embedder says so: [`Relay::check_recipients`]), logging in.

use std::net::IpAddr;
use std::sync::Arc;

use postwright_core::{Domain, EnhancedStatus, Host, Mailbox, Refusal};
use postwright_smtp_server::Session;

/// Whether an address belongs to those who may send anywhere.
type Trusts = dyn Fn(IpAddr) -> bool + Send + Sync;

/// Whether a session may send anywhere for what it has shown: a login, a certificate.
type TrustsSession = dyn Fn(&Session) -> bool + Send + Sync;

/// Whether a mailbox of one of our domains exists.
type RecipientCheck = dyn Fn(&Mailbox) -> Result<(), Refusal> + Send + Sync;

/// The relay policy.
///
/// ```
/// use postwright::Relay;
/// let relay = Relay::nobody()
///     .trust(|ip| ip.is_loopback())
///     .accept_for(["example.org".parse()?]);
/// let (inside, outside) = ("127.0.0.1".parse()?, "192.0.2.1".parse()?);
/// assert!(relay.check(inside, &"joe@elsewhere.example".parse()?).is_ok());
/// assert!(relay.check(outside, &"joe@example.org".parse()?).is_ok());
/// assert!(relay.check(outside, &"joe@elsewhere.example".parse()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Relay {
    trusted: Arc<Trusts>,
    sessions: Arc<TrustsSession>,
    domains: Vec<Domain>,
    /// Domains of ours that strangers may not write to here.
    inside: Vec<Domain>,
    recipients: Arc<RecipientCheck>,
}

impl Relay {
    /// Refuses everything.
    pub fn nobody() -> Relay {
        Relay {
            trusted: Arc::new(|_| false),
            sessions: Arc::new(|_| false),
            domains: Vec::new(),
            inside: Vec::new(),
            recipients: Arc::new(|_| Ok(())),
        }
    }

    /// Lets those addresses send anywhere. An IPv4 address mapped into IPv6 is asked about as IPv4.
    #[must_use]
    pub fn trust(mut self, trusted: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Relay {
        self.trusted = Arc::new(trusted);
        self
    }

    /// Lets those sessions send anywhere that have shown enough, whatever their address: `|session|
    /// session.authenticated`, say.
    #[must_use]
    pub fn trust_session(mut self, trusted: impl Fn(&Session) -> bool + Send + Sync + 'static) -> Relay {
        self.sessions = Arc::new(trusted);
        self
    }

    /// Takes mail for these domains from anybody.
    #[must_use]
    pub fn accept_for(mut self, domains: impl IntoIterator<Item = Domain>) -> Relay {
        self.domains.extend(domains);
        self
    }

    /// Asks about recipients of these domains, too, when those who may send anywhere write to them: a listener for
    /// submission does not take mail from strangers, and refuses unknown recipients all the same.
    #[must_use]
    pub fn inside(mut self, domains: impl IntoIterator<Item = Domain>) -> Relay {
        self.inside.extend(domains);
        self
    }

    /// Asks about each recipient of our domains, so that unknown ones are refused and not bounced later.
    #[must_use]
    pub fn check_recipients(
        mut self,
        check: impl Fn(&Mailbox) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Relay {
        self.recipients = Arc::new(check);
        self
    }

    /// Whether `peer` may send anywhere: then we originate what it sends.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        (self.trusted)(peer.to_canonical())
    }

    /// Whether a session may send anywhere, for its address or for what it has shown.
    pub fn trusts_session(&self, session: &Session) -> bool {
        (self.sessions)(session) || self.trusts(session.peer.address.ip())
    }

    /// Whether mail from a session may go to `recipient`.
    pub fn check_session(&self, session: &Session, recipient: &Mailbox) -> Result<(), Refusal> {
        self.decide(|| self.trusts_session(session), recipient)
    }

    /// Whether mail from `peer` may go to `recipient`.
    ///
    /// The local part is never looked into: `user%there@here` and `"user@there"@here` are mailboxes of `here`.
    pub fn check(&self, peer: IpAddr, recipient: &Mailbox) -> Result<(), Refusal> {
        self.decide(|| self.trusts(peer), recipient)
    }

    fn decide(&self, trusted: impl FnOnce() -> bool, recipient: &Mailbox) -> Result<(), Refusal> {
        if let Host::Domain(domain) = recipient.host()
            && self.domains.contains(domain)
        {
            return (self.recipients)(recipient);
        }
        if trusted() {
            return match recipient.host() {
                Host::Domain(domain) if self.inside.contains(domain) => (self.recipients)(recipient),
                _ => Ok(()),
            };
        }
        Err(Refusal::known(550, EnhancedStatus::known(5, 7, 1), "Relaying denied: not a domain of ours"))
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay for {:?}", self.domains)
    }
}

//! How fast each receiver is sent to, and from where: the seam [`Pace`].
//!
//! Invariant: nothing is sent without a pass; a pass that is not granted costs the message no try. The pass for a
//! connection is held for as long as the connection is open, idle or not.
//!
//! Not here: the limits (shaping, by way of `shaped.rs`), what a refusal means (bounce), connections (transfer.rs).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use postwright_core::{DeliveryStatus, Domain, Timestamp};

/// What is about to be sent.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Departure<'a> {
    /// The recipients' domain.
    pub domain: &'a Domain,
    /// The mail hosts that may be tried.
    pub hosts: &'a [Domain],
    /// The next hop: the name that domains with the same mail hosts share, or `HOST:PORT` of the smart host that the
    /// operator chose.
    pub site: &'a str,
    /// For whom.
    pub tenant: &'a str,
    /// Which kind of mail.
    pub stream: &'a str,
    /// Octets of the message.
    pub octets: u64,
}

/// A way out of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its name.
    pub name: Arc<str>,
    /// The address to send from; `None` leaves it to the system.
    pub ip: Option<IpAddr>,
    /// The name to greet with instead of ours.
    pub ehlo: Option<Domain>,
    /// The proxy that sends from the address (PROXY protocol, version 2).
    pub proxy: Option<SocketAddr>,
}

/// Not now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotNow {
    /// When to ask again.
    pub until: Timestamp,
    /// What stands in the way.
    pub because: Box<str>,
    /// An idle connection less would help.
    pub connections: bool,
}

impl NotNow {
    /// For a reason that has nothing to do with open connections.
    pub fn new(until: Timestamp, because: impl Into<Box<str>>) -> NotNow {
        NotNow { until, because: because.into(), connections: false }
    }
}

/// The right to one connection and a first message on it; gives back what it took when it is dropped.
pub struct Pass {
    /// The way out; `None` is the system's own.
    pub exit: Option<Arc<Exit>>,
    /// Most messages on the connection.
    pub messages: Option<u32>,
    held: Box<dyn Send + Sync>,
}

impl Pass {
    /// A pass that holds something.
    pub fn new(held: impl Send + Sync + 'static) -> Pass {
        Pass { exit: None, messages: None, held: Box::new(held) }
    }

    /// The same for a connection by this way out.
    #[must_use]
    pub fn by(self, exit: Option<Arc<Exit>>) -> Pass {
        Pass { exit, ..self }
    }

    /// The same for at most so many messages.
    #[must_use]
    pub fn for_messages(self, messages: Option<u32>) -> Pass {
        Pass { messages, ..self }
    }
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = &self.held;
        f.debug_struct("Pass").field("exit", &self.exit).field("messages", &self.messages).finish()
    }
}

/// What became of one message on one connection.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Sent<'a> {
    /// The way out that was taken.
    pub exit: Option<&'a Exit>,
    /// Whether the connection was opened for it.
    pub new_connection: bool,
    /// One status for each recipient.
    pub statuses: &'a [DeliveryStatus],
}

/// What came back about a message that a server had taken.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Returned<'a> {
    /// The message, as it left; without its size.
    pub departure: Departure<'a>,
    /// The name of the way out that it took; `None` is the system's own, or unknown.
    pub exit: Option<&'a str>,
    /// Its recipient complained; else the address refused it.
    pub complaint: bool,
    /// What was said.
    pub note: &'a str,
}

/// Decides when something may be sent and from where, and hears what came of it.
pub trait Pace: Send + Sync {
    /// A pass for a new connection with a first message on it; or when to ask again.
    fn admit(&self, departure: Departure<'_>, now: Timestamp) -> Result<Pass, NotNow>;

    /// Whether one more message may be sent on a connection that is open.
    fn admit_on(&self, departure: Departure<'_>, exit: Option<&Exit>, now: Timestamp) -> Result<(), NotNow>;

    /// What became of a message. The pass of its connection is still held.
    fn observe(&self, departure: Departure<'_>, sent: Sent<'_>, now: Timestamp);

    /// What came back later by mail: a bounce, or a complaint of the recipient's.
    fn returned(&self, returned: Returned<'_>, now: Timestamp) {
        let _ = (returned, now);
    }

    /// Most recipients in one transaction; a message to more of them is sent as several.
    fn recipients(&self, departure: Departure<'_>, now: Timestamp) -> Option<u32> {
        let _ = (departure, now);
        None
    }

    /// Which connections it may share: only those of departures with the same name. Pools of ways out are kept
    /// apart by it.
    fn way(&self, departure: Departure<'_>) -> Arc<str> {
        let _ = departure;
        "".into()
    }

    /// A way out cannot be used: its address is not one of this host's, its proxy does not answer.
    fn exit_failed(&self, exit: &Exit, why: &str, now: Timestamp) {
        let _ = (exit, why, now);
    }
}

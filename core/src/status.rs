//! What became of a recipient: [`DeliveryStatus`], the one vocabulary from client to queue to bounce to DSN.
//!
//! Invariant: the class of `status` agrees with `outcome` (2 delivered, relayed; 4 delayed; 5 failed).
//!
//! Standards: RFC 3463, RFC 3464 2.3.
//!
//! Not here: what a failure means for the next message (bounce).

use std::fmt;
use std::net::SocketAddr;

use crate::{EnhancedStatus, Host, Reply, Timestamp};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// In the recipient's mailbox, as far as the remote says.
    Delivered,
    /// Taken over by a server that gives no delivery notifications (RFC 3461 5.3.1).
    Relayed,
    /// Refused for good.
    Failed,
    /// Not now.
    Delayed,
    /// The connection died after the end of the message was sent and before the reply: either.
    Unknown,
}

/// The part of a conversation in which something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Looking up where to go.
    Resolve,
    /// Opening the connection.
    Connect,
    /// Waiting for 220.
    Greeting,
    /// EHLO, HELO or LHLO.
    Hello,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, up to 354.
    Data,
    /// Sending the message.
    Body,
    /// The reply to the end of the message.
    EndOfData,
    /// RSET, NOOP or QUIT.
    Closing,
}

impl Phase {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Resolve => "resolve",
            Phase::Connect => "connect",
            Phase::Greeting => "greeting",
            Phase::Hello => "hello",
            Phase::StartTls => "starttls",
            Phase::Auth => "auth",
            Phase::Mail => "mail",
            Phase::Rcpt => "rcpt",
            Phase::Data => "data",
            Phase::Body => "body",
            Phase::EndOfData => "end-of-data",
            Phase::Closing => "closing",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason of our own, when no remote reply decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The domain does not exist, or has no mail host and no address.
    NoRoute,
    /// The domain says that it takes no mail (RFC 7505).
    NullMx,
    /// The look-up has no answer at present: time-out, SERVFAIL or a bogus signature.
    Dns(crate::DnsError),
    /// Every host refused the connection or could not be reached.
    Unreachable,
    /// The peer did not answer in time.
    Timeout(Phase),
    /// The connection ended.
    ConnectionLost(Phase),
    /// The peer broke the protocol; what it did.
    Protocol(Phase, Box<str>),
    /// TLS was asked for and could not be had; why.
    Tls(Box<str>),
    /// The peer lacks an extension that this message needs; its keyword.
    MissingExtension(Box<str>),
    /// The route leads back to this host.
    Loop,
    /// Our own limits or configuration; what.
    Policy(Box<str>),
    /// The time to live ended.
    Expired,
    /// Removed by an operator; why.
    Cancelled(Box<str>),
    /// A fault in this system; what.
    Internal(Box<str>),
    /// The address is on the sender's suppression list; why it is there, such as `hard-bounce`.
    Suppressed(Box<str>),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::NoRoute => f.write_str("the domain has no mail host and no address"),
            Cause::NullMx => f.write_str("the domain accepts no mail (null MX)"),
            Cause::Dns(error) => write!(f, "look-up: {error}"),
            Cause::Unreachable => f.write_str("no mail host of the domain can be reached"),
            Cause::Timeout(phase) => write!(f, "time-out in phase {phase}"),
            Cause::ConnectionLost(phase) => write!(f, "connection lost in phase {phase}"),
            Cause::Protocol(phase, what) => write!(f, "protocol error in phase {phase}: {what}"),
            Cause::Tls(why) => write!(f, "TLS: {why}"),
            Cause::MissingExtension(keyword) => write!(f, "the remote host does not offer {keyword}"),
            Cause::Loop => f.write_str("mail loops back to this host"),
            Cause::Policy(what) => write!(f, "policy: {what}"),
            Cause::Expired => f.write_str("delivery time expired"),
            Cause::Cancelled(why) => write!(f, "cancelled: {why}"),
            Cause::Internal(what) => write!(f, "internal error: {what}"),
            Cause::Suppressed(why) => write!(f, "the address is on the suppression list: {why}"),
        }
    }
}

/// What decided: the remote's reply, or a reason of our own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// The remote's reply.
    Smtp(Reply),
    /// A reason of our own.
    Local(Cause),
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Diagnostic::Smtp(reply) => reply.fmt(f),
            Diagnostic::Local(cause) => cause.fmt(f),
        }
    }
}

/// How a connection was protected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsSummary {
    /// Such as `TLSv1.3`.
    pub version: Box<str>,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Box<str>,
    /// Whether the peer's certificate was verified for its name or by TLSA records.
    pub verified: bool,
}

/// The server at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Its name, or its literal.
    pub host: Host,
    /// Where we connected to, if it came to that.
    pub address: Option<SocketAddr>,
    /// TLS, if it was in use when the recipient's fate was decided.
    pub tls: Option<TlsSummary>,
}

/// The fate of one recipient after one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryStatus {
    /// What happened.
    pub outcome: Outcome,
    /// Its code.
    pub status: EnhancedStatus,
    /// What decided.
    pub diagnostic: Diagnostic,
    /// The phase in which it was decided.
    pub phase: Phase,
    /// The server that decided, if one was reached.
    pub remote: Option<Remote>,
    /// When.
    pub at: Timestamp,
}

impl DeliveryStatus {
    /// The fate that a remote reply to a recipient or to the whole message means.
    ///
    /// 2xx is delivered, 4xx delayed, anything else failed. Without an enhanced code in the reply the status is
    /// `class.0.0` (RFC 3463 3.1, "other undefined status").
    pub fn from_reply(reply: Reply, phase: Phase, remote: Option<Remote>, at: Timestamp) -> DeliveryStatus {
        let (outcome, class) = match reply.code() {
            code if code.is_positive() => (Outcome::Delivered, 2),
            code if code.is_transient() => (Outcome::Delayed, 4),
            _ => (Outcome::Failed, 5),
        };
        let status = reply.status().unwrap_or(EnhancedStatus::known(class, 0, 0));
        DeliveryStatus { outcome, status, diagnostic: Diagnostic::Smtp(reply), phase, remote, at }
    }

    /// A fate that we decided ourselves: failed for a status of class 5, delayed for one of class 4.
    pub fn local(status: EnhancedStatus, cause: Cause, phase: Phase, at: Timestamp) -> DeliveryStatus {
        let outcome = if status.class() == 5 { Outcome::Failed } else { Outcome::Delayed };
        DeliveryStatus { outcome, status, diagnostic: Diagnostic::Local(cause), phase, remote: None, at }
    }

    /// Whether the recipient is done with: delivered, relayed or failed.
    pub fn is_final(&self) -> bool {
        matches!(self.outcome, Outcome::Delivered | Outcome::Relayed | Outcome::Failed)
    }
}

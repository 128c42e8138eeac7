//! What the client is told before it talks: [`Config`], [`Timeouts`], [`Limits`].
//!
//! Invariant: every wait and every buffer of the client has a number here.
//!
//! Standards: RFC 5321 4.5.3.2 (time-outs), 4.5.3.1.8 (recipients); RFC 2920 3.1 (window of a pipeline).
//!
//! Not here: which policy applies to a destination (smtp-client).

use std::time::Duration;

use postwright_core::Host;

use crate::reply::ReplyLimits;

/// Which protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// SMTP: EHLO, HELO if that is refused, one reply to the message.
    #[default]
    Smtp,
    /// LMTP (RFC 2033): LHLO, one reply to the message for each accepted recipient.
    Lmtp,
}

/// Whether STARTTLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StartTls {
    /// Never, even if it is offered.
    None,
    /// If it is offered; without it the session goes on in clear text.
    #[default]
    Opportunistic,
    /// The session ends before MAIL unless TLS is in use.
    Required,
}

/// Whether BDAT is used instead of DATA (RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Chunking {
    /// If it is offered: no end-of-data mark can be forged in a message that is counted out.
    #[default]
    WhenOffered,
    /// Only for a message that needs it (BODY=BINARYMIME).
    WhenNeeded,
}

/// What happens to a message with a bare CR, a bare LF or a NUL when it would have to go out behind DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StrayLineEnds {
    /// Its recipients fail with 5.6.0: sending it as it is would let it smuggle (RFC 5321 2.3.8).
    #[default]
    Refuse,
    /// A bare CR or LF becomes CRLF and a NUL is left out. This breaks a DKIM signature over the body.
    Repair,
}

/// What happens to a message with 8-bit octets when the server lacks 8BITMIME (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EightBit {
    /// Its recipients fail with 5.6.3.
    #[default]
    Refuse,
    /// It is sent as it is, without BODY: against RFC 6152 3, and what many servers take.
    SendAnyway,
}

/// What the client machine is told before it talks. All fields have defaults but the name.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The name or literal for EHLO, HELO and LHLO.
    pub hello: Host,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// Whether STARTTLS is used.
    pub starttls: StartTls,
    /// Whether BDAT is used.
    pub chunking: Chunking,
    /// What happens to bare CR, LF and NUL.
    pub stray_line_ends: StrayLineEnds,
    /// What happens to 8-bit octets.
    pub eight_bit: EightBit,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// How much the peer may send, and how far we run ahead of it.
    pub limits: Limits,
}

impl Config {
    /// The defaults, with the name for EHLO.
    pub fn new(hello: impl Into<Host>) -> Config {
        Config {
            hello: hello.into(),
            protocol: Protocol::default(),
            starttls: StartTls::default(),
            chunking: Chunking::default(),
            stray_line_ends: StrayLineEnds::default(),
            eight_bit: EightBit::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

/// How long each phase may take: the least values that RFC 5321 4.5.3.2 recommends, by default.
///
/// A wait ends when a whole reply has come, so a peer that sends one octet a minute gains nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// The 220 greeting: 5 min (4.5.3.2.1).
    pub greeting: Duration,
    /// EHLO, HELO, LHLO, STARTTLS and each step of AUTH: 5 min. The RFC names none; this is MAIL's.
    pub hello: Duration,
    /// MAIL, and RSET: 5 min (4.5.3.2.2).
    pub mail: Duration,
    /// Each RCPT: 5 min (4.5.3.2.3).
    pub rcpt: Duration,
    /// The reply to DATA: 2 min (4.5.3.2.4).
    pub data: Duration,
    /// Each block of the message, and each command, to be taken by the peer: 3 min (4.5.3.2.5).
    pub block: Duration,
    /// The reply to the end of the message: 10 min (4.5.3.2.6).
    pub end_of_data: Duration,
    /// The reply to QUIT: 5 s. The RFC names none; nothing depends on it.
    pub quit: Duration,
    /// The slowest rate at which the peer may take a message, in octets a second, after one `block`: 1,000.
    pub slowest: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Timeouts {
            greeting: minutes(5),
            hello: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end_of_data: minutes(10),
            quit: Duration::from_secs(5),
            slowest: 1000,
        }
    }
}

/// How much the peer may send, and how far the client runs ahead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Lines and line lengths of replies (RFC 5321 4.5.3.1.5).
    pub reply: ReplyLimits,
    /// Most commands without a reply, if PIPELINING is offered: 64. Their replies (at most 64 lines of 512 octets,
    /// as a rule) fit a receive buffer, so that neither side waits for the other to read (RFC 2920 3.1).
    pub pipeline: usize,
    /// Most recipients in one transaction: 1,000; further ones go in another transaction of the session. RFC 5321
    /// 4.5.3.1.8 has servers take 100 at least. A smaller RCPTMAX of the server (RFC 9422) comes first.
    pub recipients: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { reply: ReplyLimits::default(), pipeline: 64, recipients: 1000 }
    }
}

//! Decisions that the embedder makes: [`Question`] and [`Answer`].
//!
//! Invariant: at most one question is open; it is answered by its id, and an answer to a question that is not open
//! any more changes nothing.
//!
//! Not here: when a question is asked and what follows from the answer (the phases of the session).

use postwright_core::{Envelope, Host, MailOptions, Recipient, Refusal, Reply, ReversePath};

use super::config::Peer;
use crate::command::Parameter;

/// Names one question of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(pub(super) u64);

/// What the client calls itself at EHLO, HELO or LHLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The argument as sent: printable, one word, at most 255 octets.
    pub name: Box<str>,
    /// The argument as a domain or address literal, if it is one (RFC 5321 4.1.1.1 says it must be; many are not).
    pub host: Option<Host>,
    /// EHLO or LHLO rather than HELO.
    pub extended: bool,
}

/// A decision that the machine waits for. Everything is borrowed for reading only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question<'a> {
    /// Greet this peer? `Accepted { text }` adds text to the greeting.
    Connect {
        /// Who.
        peer: &'a Peer,
    },
    /// EHLO, HELO or LHLO.
    Hello {
        /// Its argument.
        hello: &'a Hello,
    },
    /// A message of an AUTH exchange (RFC 4954). Answer with `Challenge`, `Accepted` or `Refused`.
    Auth {
        /// The mechanism, upper-case; one of those offered.
        mechanism: &'a str,
        /// The client's response, base64 removed. `None`: no initial response was given, so the mechanism's
        /// first challenge is due.
        response: Option<&'a [u8]>,
        /// Whether this is the first message of the exchange.
        first: bool,
    },
    /// MAIL FROM.
    Mail {
        /// Its path.
        reverse_path: &'a ReversePath,
        /// Its parameters.
        options: &'a MailOptions,
        /// Private parameters ([`Config::private_mail`](super::Config::private_mail)).
        private: &'a [Parameter],
    },
    /// RCPT TO.
    Rcpt {
        /// Who is to receive.
        recipient: &'a Recipient,
        /// The transaction so far, without this recipient.
        envelope: &'a Envelope,
        /// Private parameters ([`Config::private_rcpt`](super::Config::private_rcpt)).
        private: &'a [Parameter],
    },
    /// May the message come? Asked before 354, or before the first chunk of BDAT.
    Data {
        /// The transaction, with at least one recipient.
        envelope: &'a Envelope,
    },
    /// The whole message has come: take it? A positive answer is sent as it is, so it must be true: "250 means
    /// ours". This question is never withdrawn, not even when the peer is gone.
    Message {
        /// The transaction.
        envelope: &'a Envelope,
        /// Octets of the message, dots removed.
        size: u64,
    },
    /// VRFY. Answer `Accepted` for the usual 252, or any `Reply`.
    Verify {
        /// The argument as sent.
        text: &'a str,
    },
    /// A verb that the machine does not know. Answer `Reply` to serve it, `Accepted` for a plain 250, or refuse.
    Command {
        /// The verb, upper-case.
        verb: &'a str,
        /// The rest of the line as sent.
        text: &'a str,
    },
}

/// The embedder's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes. The machine writes the code and status that belong to the question.
    Accepted {
        /// Text for the reply instead of the usual one.
        text: Option<Box<str>>,
    },
    /// No.
    Refused {
        /// What the client is told.
        reply: Refusal,
        /// Whether the session ends there. A 421 or 521 ends it anyway.
        close: bool,
    },
    /// For [`Question::Message`] in LMTP: one reply for each recipient, in order (RFC 2033 4.2).
    PerRecipient(Vec<Reply>),
    /// For [`Question::Auth`]: the mechanism's next challenge, before base64.
    Challenge(Vec<u8>),
    /// For [`Question::Command`] and [`Question::Verify`]: any reply.
    Reply(Reply),
}

impl Answer {
    /// Yes, with the usual text.
    pub fn accepted() -> Answer {
        Answer::Accepted { text: None }
    }

    /// Yes, with this text.
    pub fn accepted_with(text: &str) -> Answer {
        Answer::Accepted { text: Some(text.into()) }
    }

    /// No; the session goes on.
    pub fn refused(reply: Refusal) -> Answer {
        Answer::Refused { reply, close: false }
    }
}

impl From<Refusal> for Answer {
    fn from(reply: Refusal) -> Self {
        Answer::refused(reply)
    }
}

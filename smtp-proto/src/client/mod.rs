//! The client side of an SMTP or LMTP session, without input and output.
//!
//! Invariant: every reply is matched to the command it answers, in order; a recipient's fate is decided exactly
//! once; nothing that came in clear text is acted on after STARTTLS. Whatever the peer sends or fails to send,
//! the session ends within the sum of its [`Timeouts`], and a [`Report`] tells of every recipient.
//!
//! Standards: RFC 5321 (3.1 to 3.9, 4.2, 4.5.3.2), RFC 2920 (pipelining), RFC 3207 (STARTTLS; and CVE-2011-0411),
//! RFC 2033 (LMTP), RFC 3030 (BDAT).
//!
//! Not here: sockets and TLS (smtp-client), where to connect to (smtp-client), retries (queue).

#[cfg(feature = "sasl")]
mod auth;
mod body;
mod command;
mod config;
mod job;
mod report;
mod session;
mod timings;

#[cfg(feature = "sasl")]
pub use auth::{Login, Protection};
pub use config::{Chunking, Config, EightBit, Limits, Protocol, StartTls, StrayLineEnds, Timeouts};
pub use report::{CloseReason, Report, Transaction, queue_id};
pub use session::{Busy, Session, Step};
pub use timings::Timings;

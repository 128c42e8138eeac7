//! What a server session wants its driver to do next: [`Step`].
//!
//! Invariant: the list is closed on purpose; a driver that ignores a step is wrong.
//!
//! Not here: how a step is carried out (drivers).

use postwright_core::Instant;

use super::question::AskId;

/// The one output of a session. Call [`Session::poll`](super::Session::poll) until it says `Read`, `Ask`,
/// `StartTls` or `Close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'s> {
    /// Read from the peer and call `handle_input`, or `handle_eof`; at the deadline call `handle_timeout`.
    Read {
        /// When patience ends.
        deadline: Instant,
    },
    /// Write some of these octets and call `handle_written` with their number; at the deadline call
    /// `handle_timeout`.
    Write {
        /// What to write.
        bytes: &'s [u8],
        /// When patience ends.
        deadline: Instant,
    },
    /// A decision is due: look at `question`, then call `answer`.
    Ask(AskId),
    /// The next piece of the message, dots removed. It counts as taken when `poll` is called again.
    Body(&'s [u8]),
    /// The transaction ended without a [`Question::Message`](super::Question::Message): forget its body.
    Reset,
    /// Everything is written: run the handshake as server and call `handle_tls`, or `handle_eof` if it fails.
    /// Octets that were read but not handed in belong to the handshake.
    StartTls {
        /// When patience ends.
        deadline: Instant,
    },
    /// It is over. Comes again on every further call.
    Close(CloseReason),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// QUIT was answered.
    Quit,
    /// The peer closed the connection or it broke.
    Eof,
    /// The peer was too slow.
    Timeout,
    /// We are shutting down; 421 was sent.
    Drained,
    /// The embedder refused with `close`.
    Refused,
    /// A bare CR, bare LF or NUL where none may be.
    BadLineEnding,
    /// Input before it was asked for, or behind STARTTLS.
    EarlyTalk,
    /// Another protocol, such as HTTP.
    OtherProtocol,
    /// An overlong line or chunk that is not worth reading to its end, or a chunk size that is no number.
    Oversize,
    /// Too many errors, junk commands, transactions or failed logins.
    TooMany,
}

impl CloseReason {
    /// Whether the driver should linger: shut down writing, read and drop at most 1 MiB for at most 2 s, then
    /// close, so that a reset does not destroy the last reply on its way.
    pub fn lingers(self) -> bool {
        !matches!(self, CloseReason::Quit | CloseReason::Eof | CloseReason::Timeout)
    }
}

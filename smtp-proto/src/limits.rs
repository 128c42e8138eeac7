//! Every number that bounds a server session, in one struct: [`Limits`].
//!
//! Invariant: no input makes a session hold more than these numbers allow, or last longer.
//!
//! Standards: RFC 5321 4.5.3.1 (sizes), 4.5.3.2 (time-outs); RFC 4954 4 (AUTH lines); RFC 1870 (SIZE).
//!
//! Not here: limits over several connections (smtp-server).

use std::time::Duration;

/// The limits of one server session. The defaults are what an MX on the open Internet can use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest command line in octets, CRLF included. RFC 5321 4.5.3.1.4 asks for 512 and lets extensions add to
    /// it; the parameters of DSN, SIZE, SMTPUTF8 and AUTH= together add up to less than 2,048.
    pub command_line: usize,
    /// Longest line of an AUTH command or exchange in octets, CRLF included (RFC 4954 4: 12,288).
    pub auth_line: usize,
    /// Octets of an overlong line that are read and dropped before the session is closed.
    pub line_discard: usize,
    /// Recipients of one transaction (RFC 5321 4.5.3.1.8 asks for at least 100); the next one gets 452 4.5.3.
    pub recipients: usize,
    /// Largest message in octets, as offered by SIZE (RFC 1870). Zero is not "no limit": nothing is unlimited.
    pub message_size: u64,
    /// Longest line of a message sent by DATA, in octets with CRLF (RFC 5321 4.5.3.1.6 asks for 1,000). `None`
    /// leaves long lines to the embedder, as most servers do.
    pub text_line: Option<usize>,
    /// Largest BDAT chunk in octets that is read only to be dropped; a bigger one closes the session.
    pub chunk_discard: u64,
    /// Messages (accepted or refused) of one session; the next MAIL gets 421 4.7.0.
    pub transactions: u32,
    /// Refused commands of one session; then 421 4.7.0 and the end.
    pub errors: u32,
    /// Commands that do nothing (NOOP, RSET, VRFY, HELP, EHLO again, empty chunks) since the last message; then
    /// 421 4.7.0 and the end.
    pub junk_commands: u32,
    /// Failed AUTH exchanges of one session; then 421 4.7.0 and the end.
    pub auth_failures: u32,
    /// Wait for a whole command line (RFC 5321 4.5.3.2.7: at least 5 minutes).
    pub command_timeout: Duration,
    /// Wait for the next piece of a message (RFC 5321 4.5.3.2.5: 3 minutes).
    pub data_timeout: Duration,
    /// Wait for the peer to take a reply.
    pub write_timeout: Duration,
    /// Wait for a TLS handshake to end.
    pub handshake_timeout: Duration,
    /// Slowest message in octets a second, counted from its start and after `data_timeout`. Zero switches it off.
    pub min_data_rate: u64,
    /// Longest session, whatever it does; a message whose decision is open is still decided.
    pub session_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            command_line: 2048,
            auth_line: 12_288,
            line_discard: 64 * 1024,
            recipients: 1000,
            message_size: 36_700_160,
            text_line: None,
            chunk_discard: 64 * 1024 * 1024,
            transactions: 1000,
            errors: 20,
            junk_commands: 100,
            auth_failures: 3,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            write_timeout: Duration::from_secs(300),
            handshake_timeout: Duration::from_secs(60),
            min_data_rate: 500,
            session_timeout: Duration::from_secs(2 * 3600),
        }
    }
}

impl Limits {
    /// The same limits under stress: shorter waits and less patience, as Postfix does when its process limit is
    /// reached. A well-behaved peer does not notice.
    #[must_use]
    pub fn stressed(&self) -> Limits {
        Limits {
            command_timeout: self.command_timeout.min(Duration::from_secs(10)),
            data_timeout: self.data_timeout.min(Duration::from_secs(60)),
            write_timeout: self.write_timeout.min(Duration::from_secs(30)),
            handshake_timeout: self.handshake_timeout.min(Duration::from_secs(15)),
            errors: self.errors.min(1),
            junk_commands: self.junk_commands.min(2),
            ..self.clone()
        }
    }
}

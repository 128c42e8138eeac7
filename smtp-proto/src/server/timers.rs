//! Deadlines of a session.
//!
//! Invariant: every wait for the peer has an end. A command line is timed as a whole and a message by its rate, so
//! that an octet now and then buys no time.
//!
//! Standards: RFC 5321 4.5.3.2.
//!
//! Not here: sleeping (drivers).

use std::time::Duration;

use postwright_core::Instant;

use crate::Limits;

/// What the session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Nothing,
    Command,
    Body,
    Write,
    Handshake,
}

/// How long the last reply of a session that timed out may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Timers {
    /// The latest time that was told.
    pub(super) now: Instant,
    started: Instant,
    /// Since when the peer is expected to do something.
    since: Instant,
    /// Start and octets of the message that is being received.
    body: Option<(Instant, u64)>,
    /// Set when the session is given up, for the last reply.
    last_words: Option<Instant>,
    pub(super) wait: Wait,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Timers {
        Timers { now, started: now, since: now, body: None, last_words: None, wait: Wait::Nothing }
    }

    /// Age of the session.
    pub(super) fn age(&self) -> Duration {
        self.now.since(self.started)
    }

    /// The peer did what was expected, or we did our part: the next wait begins.
    pub(super) fn progress(&mut self) {
        self.since = self.now;
    }

    pub(super) fn body_begins(&mut self) {
        self.body = Some((self.now, 0));
        self.progress();
    }

    /// Octets of a message came.
    pub(super) fn body_grows(&mut self, octets: usize) {
        if let Some((_, total)) = &mut self.body {
            *total = total.saturating_add(octets as u64);
            self.since = self.now;
        }
    }

    pub(super) fn body_ends(&mut self) {
        self.body = None;
    }

    pub(super) fn give_up(&mut self) {
        self.last_words = Some(self.now + LAST_WORDS);
    }

    /// When the wait that was announced last ends.
    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        let session = self.started + limits.session_timeout;
        let deadline = match self.wait {
            Wait::Nothing => return session,
            Wait::Command => self.since + limits.command_timeout,
            Wait::Body => self.body_deadline(limits),
            Wait::Write => self.last_words.unwrap_or(self.since + limits.write_timeout),
            Wait::Handshake => self.since + limits.handshake_timeout,
        };
        if self.last_words.is_some() { deadline } else { deadline.min(session) }
    }

    fn body_deadline(&self, limits: &Limits) -> Instant {
        let pause = self.since + limits.data_timeout;
        match (self.body, limits.min_data_rate) {
            (Some((start, octets)), rate @ 1..) => {
                let earned = Duration::from_millis(octets.saturating_mul(1000) / rate);
                pause.min(start + limits.data_timeout + earned)
            }
            _ => pause,
        }
    }
}

//! Probing a path that is down or that blocks us: [`Backoff`].
//!
//! Invariant: while in back-off at most one probe starts in each interval, however many ask; the interval doubles
//! up to its bound with each failed probe; the first success ends it at once. So a path that recovers is in full
//! use again before one interval has passed.
//!
//! Not here: what counts as down (`state.rs`).

use std::time::Duration;

use postwright_core::Timestamp;

#[derive(Debug)]
pub(super) struct Backoff {
    interval: Duration,
    next_probe: Timestamp,
    /// The probe's connection is under way: it may send one message.
    message_left: bool,
    /// A probe is out; failures of what was on its way before tell nothing new.
    probing: bool,
    ends_with_a_connection: bool,
}

impl Backoff {
    /// Of a path that is down, whose first connection shows that it is up again; or of one that blocks us, where
    /// only an accepted message shows the end.
    pub(super) fn new(interval: Duration, ends_with_a_connection: bool, now: Timestamp) -> Backoff {
        Backoff {
            interval,
            next_probe: now + interval,
            message_left: false,
            probing: false,
            ends_with_a_connection,
        }
    }

    /// Whether an accepted connection ends it.
    pub(super) fn ends_with_a_connection(&self) -> bool {
        self.ends_with_a_connection
    }

    /// A probe may start, or when.
    pub(super) fn enter(&mut self, connection: bool, message: bool, now: Timestamp) -> Result<(), Timestamp> {
        if connection {
            if now < self.next_probe {
                return Err(self.next_probe);
            }
            self.next_probe = now + self.interval;
            self.message_left = !message;
            self.probing = true;
            return Ok(());
        }
        if std::mem::take(&mut self.message_left) {
            Ok(())
        } else {
            Err(self.next_probe.max(now + self.interval / 16))
        }
    }

    /// The probe failed.
    pub(super) fn failed(&mut self, longest: Duration, now: Timestamp) {
        if !std::mem::take(&mut self.probing) {
            return;
        }
        self.interval = (self.interval * 2).min(longest);
        self.next_probe = now + self.interval;
        self.message_left = false;
    }
}

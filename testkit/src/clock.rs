//! A clock that follows tokio's: paused time moves both.
//!
//! Not here: clocks that a test moves by hand (core's `ManualClock`).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Clock, Instant, Timestamp};

/// Where the clock stands when it starts: 2027-01-15T08:00:00Z.
pub const BEGINNING: Timestamp = Timestamp::from_secs(1_800_000_000);

/// For tests with `#[tokio::test(start_paused = true)]`.
#[derive(Debug, Clone, Copy)]
pub struct PausedClock {
    began: tokio::time::Instant,
    at: Timestamp,
}

impl PausedClock {
    /// A clock that starts now, at [`BEGINNING`].
    pub fn start() -> Arc<PausedClock> {
        PausedClock::starting_at(BEGINNING)
    }

    /// A clock that starts now, at a moment of the test's own.
    pub fn starting_at(at: Timestamp) -> Arc<PausedClock> {
        Arc::new(PausedClock { began: tokio::time::Instant::now(), at })
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.at + self.elapsed()
    }

    fn mono(&self) -> Instant {
        Instant::from_start(self.elapsed())
    }
}

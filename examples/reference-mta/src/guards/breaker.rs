//! A circuit breaker: after several failures in a row a helper is left alone for a while, then tried by one.
//!
//! Invariant: pure; time is an argument. While it is open nobody waits for the helper, and when the pause is over
//! exactly one caller finds out for all whether it is back.
//!
//! Not here: what a failure is (the caller).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright::core::Instant;

#[derive(Debug)]
pub(crate) struct Breaker {
    /// Failures in a row that open it.
    failures: u64,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failed: u64,
    },
    Open {
        until: Instant,
    },
    /// One caller is trying; whoever lets go of the matter without a word is given up at the time.
    Probing {
        until: Instant,
    },
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Go ahead.
    Ask,
    /// Go ahead, for all the others.
    Probe,
    /// Do without.
    Skip,
}

/// What changed by a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Opened,
    Closed,
}

impl Breaker {
    pub(crate) fn new(failures: u64, pause: Duration) -> Breaker {
        Breaker { failures: failures.max(1), pause, state: Mutex::new(State::Closed { failed: 0 }) }
    }

    pub(crate) fn ask(&self, now: Instant) -> Leave {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => Leave::Ask,
            State::Open { until } | State::Probing { until } if now < until => Leave::Skip,
            _ => {
                *state = State::Probing { until: now + self.pause };
                Leave::Probe
            }
        }
    }

    pub(crate) fn succeeded(&self) -> Change {
        let mut state = self.state();
        let was_closed = matches!(*state, State::Closed { .. });
        *state = State::Closed { failed: 0 };
        if was_closed { Change::Nothing } else { Change::Closed }
    }

    pub(crate) fn failed(&self, now: Instant) -> Change {
        let mut state = self.state();
        let open = State::Open { until: now + self.pause };
        match *state {
            State::Closed { failed } if failed + 1 < self.failures => {
                *state = State::Closed { failed: failed + 1 };
                Change::Nothing
            }
            State::Closed { .. } => {
                *state = open;
                Change::Opened
            }
            // The probe came back without an answer: another pause.
            State::Probing { .. } => {
                *state = open;
                Change::Nothing
            }
            // One of those who were asking when it opened: the pause does not grow by them.
            State::Open { .. } => Change::Nothing,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_probes_and_closes() {
        let breaker = Breaker::new(3, Duration::from_secs(30));
        let at = |secs| Instant::from_start(Duration::from_secs(secs));
        assert_eq!((breaker.failed(at(0)), breaker.failed(at(1))), (Change::Nothing, Change::Nothing));
        assert_eq!(breaker.succeeded(), Change::Nothing, "a success in between counts anew");
        for (second, change) in
            [(2, Change::Nothing), (3, Change::Nothing), (4, Change::Opened), (5, Change::Nothing)]
        {
            assert_eq!(breaker.ask(at(second)) == Leave::Ask, second < 5);
            assert_eq!(breaker.failed(at(second)), change, "{second}");
        }
        assert_eq!(breaker.ask(at(33)), Leave::Skip);
        assert_eq!(breaker.ask(at(34)), Leave::Probe);
        assert_eq!(breaker.ask(at(34)), Leave::Skip, "one is enough");
        assert_eq!(breaker.failed(at(35)), Change::Nothing);
        assert_eq!(breaker.ask(at(64)), Leave::Skip);
        assert_eq!(breaker.ask(at(65)), Leave::Probe);
        // A probe that nobody reports on does not keep it open for ever.
        assert_eq!(breaker.ask(at(95)), Leave::Probe);
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert_eq!(breaker.ask(at(96)), Leave::Ask);
    }
}

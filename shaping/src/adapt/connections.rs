//! How many connections a receiver takes: [`ConnectionWindow`].
//!
//! Invariant: the window is at least 1; it grows only while connections succeed, by one at a time once a limit is
//! known; a number that was refused is tried again only after a hold that doubles each time.
//!
//! Why a refusal alone is no reason to shrink: behind one name stand many hosts, and one bad host among K refuses
//! whatever we do. A limit refuses everything above it. So the window shrinks when so many attempts in a row at
//! this number of connections or more were refused that chance explains it once in [`BY_CHANCE`] times, given how
//! often connections were refused before. Postfix's feedback of 1/N shrinks on each refusal.
//!
//! Not here: the policy's own bound on concurrency.

use std::collections::VecDeque;
use std::time::Duration;

use postwright_core::Timestamp;

/// Attempts that are remembered.
const MEMORY: usize = 64;
/// A run of refusals is taken for a limit if chance would make it less often than once in this many attempts.
const BY_CHANCE: f64 = 200_000.0;

#[derive(Debug)]
pub(super) struct ConnectionWindow {
    window: f64,
    /// A number that is known to be fine, and when one more may be tried.
    ceiling: Option<(u32, Timestamp)>,
    hold: Duration,
    holds: (Duration, Duration),
    /// The latest attempts: how many connections there were, and whether it succeeded.
    attempts: VecDeque<(u32, bool)>,
}

impl ConnectionWindow {
    pub(super) fn new(initial: u32, holds: (Duration, Duration)) -> ConnectionWindow {
        let window = f64::from(initial.max(1));
        ConnectionWindow { window, ceiling: None, hold: holds.0, holds, attempts: VecDeque::new() }
    }

    /// How many connections may be open now.
    pub(super) fn most(&self, now: Timestamp) -> u32 {
        let grown = self.window.floor().clamp(1.0, f64::from(u32::MAX)) as u32;
        match self.ceiling {
            Some((known, probe_at)) if now >= probe_at => grown.min(known.saturating_add(1)),
            Some((known, _)) => grown.min(known),
            None => grown,
        }
    }

    fn remember(&mut self, open: u32, fine: bool) {
        if self.attempts.len() >= MEMORY {
            self.attempts.pop_front();
        }
        self.attempts.push_back((open, fine));
    }

    /// A connection was accepted while `open` were open, this one included.
    pub(super) fn succeeded(&mut self, open: u32, now: Timestamp) {
        self.remember(open, true);
        match self.ceiling {
            // The probe was accepted: the limit is not where it was.
            Some((known, probe_at)) if open > known && now >= probe_at => {
                self.ceiling = None;
                self.hold = self.holds.0;
                self.window = f64::from(open) + 1.0;
            }
            Some((known, _)) => self.window = (self.window + 1.0 / self.window).min(f64::from(known) + 1.0),
            // Nothing is known yet: as long as the window is really used it grows with each success.
            None if f64::from(open) >= self.window.floor() => self.window += 1.0,
            None => {}
        }
    }

    /// A connection was refused while `open` were open, this one included. The new bound if the window shrank.
    pub(super) fn refused(&mut self, open: u32, now: Timestamp) -> Option<u32> {
        self.remember(open, false);
        if open <= 1 {
            return None;
        }
        let was_probe = self.ceiling.is_some_and(|(known, _)| open > known);
        if !was_probe && !self.is_a_limit(open) {
            return None;
        }
        let known = match self.ceiling {
            None => open - 1,
            Some((known, _)) if was_probe => known,
            // Refused below what was fine before: the limit has come down, and may be far away.
            Some(_) => (open - 1).min(open.saturating_mul(4) / 5).max(1),
        };
        // What was learnt about another limit says nothing about how long this one stays.
        self.hold = if was_probe { (self.hold * 2).min(self.holds.1) } else { self.holds.0 };
        self.ceiling = Some((known, now + self.hold));
        // One above the known number, so that the probe is not held back by the window.
        self.window = f64::from(known) + 1.0;
        (!was_probe).then_some(known)
    }

    /// Whether the latest run of refusals with this many connections or more is too long for chance.
    fn is_a_limit(&self, open: u32) -> bool {
        let at_level = self.attempts.iter().rev().filter(|(level, _)| *level >= open);
        let run = at_level.take_while(|(_, fine)| !fine).count();
        let refused = self.attempts.iter().filter(|(_, fine)| !fine).count();
        let others = self.attempts.len().saturating_sub(run);
        let by_chance = (refused.saturating_sub(run) as f64 + 0.1) / (others as f64 + 2.0);
        by_chance.min(0.9).powi(i32::try_from(run).unwrap_or(i32::MAX)) * BY_CHANCE < 1.0
    }

    /// Holds the number down until a moment, by a rule.
    pub(super) fn hold_at(&mut self, most: u32, until: Timestamp) {
        self.ceiling = Some((most.max(1), until));
        self.window = f64::from(most.max(1)) + 1.0;
    }

    pub(super) fn forget_ceiling(&mut self) {
        self.ceiling = None;
        self.hold = self.holds.0;
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.ceiling.is_none()
    }
}

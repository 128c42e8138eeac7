//! How many messages a minute a receiver takes: [`Pace`].
//!
//! Invariant: without a throttled message there is no pace and no cost; with one, the pace falls at most once an
//! episode, never below the floor, and rises again every quiet minute until it is dropped.
//!
//! Why a pause comes first: receivers count by the clock's minute or hour, and whatever is sent in the rest of
//! that period is refused as well. The pause doubles as long as nothing is accepted in between.
//!
//! Not here: the policy's rates.

use std::time::Duration;

use postwright_core::Timestamp;

use crate::rate::{Rate, Tat, gcra};

const MINUTE: Duration = Duration::from_secs(60);
const SLOT_MILLIS: u64 = 10_000;
const SLOTS: u64 = 6;
/// After this long without a throttled message the pace rises by a tenth a minute.
const QUIET: Duration = Duration::from_secs(600);
/// After this long without one there is no pace any more.
const FORGET: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Pace {
    /// Accepted messages in slots of ten seconds: (slot number, count).
    accepted: [(u64, u32); SLOTS as usize],
    cap: Option<Cap>,
    paused_until: Timestamp,
    /// Throttled episodes since a message was last accepted.
    episodes: u32,
    held: Option<(f64, Timestamp)>,
}

#[derive(Debug)]
struct Cap {
    per_minute: f64,
    /// The pace at which a message was last throttled.
    refused_at: f64,
    throttled_at: Timestamp,
    changed_at: Timestamp,
    tat: Tat,
}

/// What the pace is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct PaceSettings {
    pub(super) pause: (Duration, Duration),
    pub(super) decrease: f64,
    pub(super) increase: f64,
    pub(super) floor: f64,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            accepted: [(0, 0); SLOTS as usize],
            cap: None,
            paused_until: Timestamp::default(),
            episodes: 0,
            held: None,
        }
    }

    /// Lets a message go, or says when.
    pub(super) fn enter(&mut self, now: Timestamp) -> Result<Option<Tat>, Timestamp> {
        if now < self.paused_until {
            return Err(self.paused_until);
        }
        let held = self.held.filter(|(_, until)| *until > now).map(|(per_minute, _)| per_minute);
        let Some(cap) = &mut self.cap else { return Ok(None) };
        let before = cap.tat;
        let per_minute = held.map_or(cap.per_minute, |held| held.min(cap.per_minute));
        cap.tat = gcra(cap.tat, &rate(per_minute), 1, now).map_err(|retry| retry.0)?;
        Ok(Some(before))
    }

    /// Takes back an `enter` that came to nothing.
    pub(super) fn undo_enter(&mut self, before: Option<Tat>) {
        if let (Some(cap), Some(before)) = (&mut self.cap, before) {
            cap.tat = before;
        }
    }

    fn measured(&self, now: Timestamp) -> f64 {
        let slot = now.millis() / SLOT_MILLIS;
        let recent = self.accepted.iter().filter(|(number, _)| number + SLOTS > slot);
        recent.map(|(_, count)| f64::from(*count)).sum()
    }

    pub(super) fn accepted(&mut self, settings: &PaceSettings, now: Timestamp) {
        let slot = now.millis() / SLOT_MILLIS;
        let place = usize::try_from(slot % SLOTS).unwrap_or(0);
        if let Some((number, count)) = self.accepted.get_mut(place) {
            *count = if *number == slot { count.saturating_add(1) } else { 1 };
            *number = slot;
        }
        self.episodes = 0;
        let Some(cap) = &mut self.cap else { return };
        if now.since(cap.throttled_at) >= FORGET {
            self.cap = None;
        } else if now.since(cap.changed_at) >= MINUTE {
            cap.changed_at = now;
            cap.per_minute += (cap.refused_at * settings.increase).max(0.5);
            if now.since(cap.throttled_at) >= QUIET {
                cap.per_minute *= 1.1;
            }
        }
    }

    /// A message was throttled; the new pace and the end of the pause, if this is a new episode.
    pub(super) fn throttled(&mut self, settings: &PaceSettings, now: Timestamp) -> Option<(f64, Timestamp)> {
        if now < self.paused_until {
            // Sent before the pause began.
            return None;
        }
        let measured = self.measured(now).max(settings.floor);
        let known = self.cap.as_ref().map(|cap| (cap.per_minute, cap.tat));
        let (refused_at, tat) = known.unwrap_or((measured, Tat::at(now)));
        let mut per_minute = refused_at * settings.decrease;
        if self.episodes == 0 {
            // What was accepted in the last minute is the best guess at a limit a minute.
            per_minute = per_minute.min(measured * 0.95);
        }
        let per_minute = per_minute.max(settings.floor);
        let doubled = settings.pause.0.saturating_mul(1 << self.episodes.min(16));
        self.paused_until = now + doubled.min(settings.pause.1);
        self.episodes = self.episodes.saturating_add(1);
        self.cap = Some(Cap { per_minute, refused_at, throttled_at: now, changed_at: now, tat });
        Some((per_minute, self.paused_until))
    }

    /// Holds the pace down until a moment, by a rule.
    pub(super) fn hold(&mut self, per_minute: f64, until: Timestamp, now: Timestamp) {
        self.held = Some((per_minute, until));
        if self.cap.is_none() {
            let tat = Tat::at(now);
            let high = f64::from(u32::MAX);
            self.cap = Some(Cap {
                per_minute: high,
                refused_at: per_minute,
                throttled_at: until,
                changed_at: now,
                tat,
            });
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Pace { accepted: self.accepted, ..Pace::new() };
    }

    /// Whether messages have to ask.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.cap.is_none() && self.paused_until <= now
    }
}

/// Below one a minute, one in so many minutes.
fn rate(per_minute: f64) -> Rate {
    let made = if per_minute >= 1.0 {
        Rate::per((per_minute.min(1e9) * 10.0) as u64, MINUTE * 10)
    } else {
        Rate::per(1, Duration::from_secs_f64((60.0 / per_minute.max(1e-4)).min(86_400.0)))
    };
    // One a minute is a rate whatever the numbers were.
    made.unwrap_or_else(|_| crate::rate::one_a_minute())
}

//! Where a source is in its schedule: [`Progress`], and what pauses it ([`Alarms`]).
//!
//! Invariant: a step forward takes a calendar day on which mail was sent; a pause lasts to midnight and goes back
//! to the last step with at most half the cap.
//!
//! Not here: counting what was let through (the store's daily cap).

use std::fmt;
use std::str::FromStr;

use super::schedule::Schedule;
use crate::adapt::Signal;
use crate::calendar::{Day, DayError};

/// What pauses a warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Alarms {
    /// Bounces, as a part of what was sent that day.
    pub bounces: f64,
    /// Complaints, as a part of what was sent that day; a single one never pauses.
    pub complaints: f64,
    /// Fewer messages than this say nothing yet.
    pub at_least: u32,
}

impl Default for Alarms {
    /// Bounces above 2 %, complaints above 0.1 %, from 50 messages on.
    fn default() -> Alarms {
        Alarms { bounces: 0.02, complaints: 0.001, at_least: 50 }
    }
}

/// The state of one plan; its text form survives restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The place in the schedule, from 0.
    pub step: u32,
    /// The day that the counts are about.
    pub day: Day,
    /// Nothing more today.
    pub paused: bool,
    /// The cap is halved: a pause on the first steps leaves no smaller one to go back to.
    pub halved: bool,
    /// Delivered and bounced today.
    pub sent: u32,
    /// Bounced today.
    pub bounced: u32,
    /// Complaints today.
    pub complained: u32,
}

impl Progress {
    pub(super) fn begin(start: Day, today: Day) -> Progress {
        let step = today.since(start);
        let day = today.max(start);
        Progress { step, day, paused: false, halved: false, sent: 0, bounced: 0, complained: 0 }
    }

    /// Moves on to a day.
    pub(super) fn advance(&mut self, schedule: &Schedule, today: Day) {
        if today <= self.day {
            return;
        }
        if self.paused {
            let half = schedule.days().get(self.step as usize).map_or(0, |cap| cap / 2);
            let back = schedule.days().iter().take(self.step as usize + 1).rposition(|cap| *cap <= half);
            self.halved = back.is_none();
            self.step = back.and_then(|step| u32::try_from(step).ok()).unwrap_or(0);
        } else if self.sent > 0 {
            self.step = self.step.saturating_add(1);
            self.halved = false;
        }
        *self = Progress { day: today, paused: false, sent: 0, bounced: 0, complained: 0, ..self.clone() };
    }

    /// Ends a pause.
    pub(super) fn resume(&mut self) {
        *self = Progress { paused: false, sent: 0, bounced: 0, complained: 0, ..self.clone() };
    }

    /// Today's cap; `None` when the schedule is done.
    pub(super) fn cap(&self, schedule: &Schedule) -> Option<u32> {
        let cap = *schedule.days().get(self.step as usize)?;
        Some(match (self.paused, self.halved) {
            (true, _) => 0,
            (false, true) => (cap / 2).max(1),
            (false, false) => cap,
        })
    }

    /// Counts a signal; the reason if it pauses the plan.
    pub(super) fn observe(&mut self, signal: Signal, alarms: &Alarms) -> Option<String> {
        match signal {
            Signal::Delivered => self.sent = self.sent.saturating_add(1),
            Signal::Bounced => {
                self.sent = self.sent.saturating_add(1);
                self.bounced = self.bounced.saturating_add(1);
            }
            Signal::Complained => self.complained = self.complained.saturating_add(1),
            _ => return None,
        }
        let over =
            |count: u32, part: f64| f64::from(count) > part * f64::from(self.sent.max(alarms.at_least));
        let why = if self.paused || self.sent < alarms.at_least {
            return None;
        } else if over(self.bounced, alarms.bounces) {
            format!("{} of {} bounced", self.bounced, self.sent)
        // One complaint is one person, whatever the part.
        } else if self.complained > 1 && over(self.complained, alarms.complaints) {
            format!("{} complaints about {}", self.complained, self.sent)
        } else {
            return None;
        };
        self.paused = true;
        Some(why)
    }
}

/// `2026-01-09 step=8 sent=20 bounced=0 complained=0 paused=no halved=no`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { step, day, sent, bounced, complained, .. } = self;
        let [paused, halved] = [self.paused, self.halved].map(|flag| if flag { "yes" } else { "no" });
        write!(f, "{day} step={step} sent={sent} bounced={bounced} complained={complained} ")?;
        write!(f, "paused={paused} halved={halved}")
    }
}

impl FromStr for Progress {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Progress, DayError> {
        let mut words = text.split(' ');
        let day: Day = words.next().ok_or(DayError)?.parse()?;
        let mut progress = Progress::begin(day, day);
        for word in words {
            let (name, value) = word.split_once('=').ok_or(DayError)?;
            let number = || value.parse::<u32>().map_err(|_| DayError);
            match name {
                "step" => progress.step = number()?,
                "sent" => progress.sent = number()?,
                "bounced" => progress.bounced = number()?,
                "complained" => progress.complained = number()?,
                "paused" => progress.paused = value == "yes",
                "halved" => progress.halved = value == "yes",
                _ => return Err(DayError),
            }
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        "100, 200, 400, 1000, 3000".parse().unwrap()
    }

    #[test]
    fn a_pause_goes_back_to_half_and_text_keeps_it() {
        let mut progress = Progress { step: 3, sent: 999, ..Progress::begin(Day(20_000), Day(20_000)) };
        assert_eq!(progress.observe(Signal::Complained, &Alarms::default()), None);
        assert_eq!(
            progress.observe(Signal::Complained, &Alarms::default()).as_deref(),
            Some("2 complaints about 999")
        );
        assert_eq!(progress.cap(&schedule()), Some(0));
        let mut progress: Progress = progress.to_string().parse().unwrap();
        progress.advance(&schedule(), Day(20_001));
        assert_eq!((progress.step, progress.cap(&schedule())), (2, Some(400)));
        progress.sent = 1;
        progress.advance(&schedule(), Day(20_002));
        assert_eq!(progress.cap(&schedule()), Some(1000));
        // A day without mail warms nothing.
        progress.advance(&schedule(), Day(20_005));
        assert_eq!(progress.cap(&schedule()), Some(1000));
    }

    #[test]
    fn a_pause_on_the_first_day_halves_the_first_cap() {
        let mut progress = Progress { sent: 60, ..Progress::begin(Day(1), Day(1)) };
        assert!((0..3).any(|_| progress.observe(Signal::Bounced, &Alarms::default()).is_some()));
        progress.advance(&schedule(), Day(2));
        assert_eq!(progress.cap(&schedule()), Some(50));
    }

    #[test]
    fn damaged_texts_are_refused() {
        for bad in ["", "x", "2026-01-01 step", "2026-01-01 step=x", "2026-01-01 steps=1"] {
            assert!(bad.parse::<Progress>().is_err(), "{bad}");
        }
    }
}

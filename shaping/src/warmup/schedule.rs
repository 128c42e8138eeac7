//! Schedules of warm-up: [`Schedule`], a cap for each day, and the presets.
//!
//! Invariant: a schedule has at least one day, at most [`DAYS_MAX`], and no cap of 0.
//!
//! Not here: where a source is in its schedule (`progress.rs`).

use std::fmt;
use std::str::FromStr;

use crate::rate::parse_count;

/// Longest schedule in days.
const DAYS_MAX: usize = 366;
/// Up to this many a day growth is nobody's concern.
const LINT_FROM: u32 = 50_000;
/// Beyond it, a cap should be at most this many times the cap of a week before.
const LINT_FACTOR: u32 = 3;
const WEEK: usize = 7;

/// A cap for each day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    days: Vec<u32>,
}

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// It is neither a preset nor a list of caps.
    #[error(
        "{0:?} is no schedule: write a preset ({presets}) or caps with their days, such as \"100*7, 500*7, 2000\"",
        presets = PRESETS.map(|preset| preset.0).join(", ")
    )]
    Text(Box<str>),
    /// It has no day, a day without a message, or more than a year.
    #[error("a schedule has 1 to 366 days, and each day's cap is at least 1")]
    Days,
}

/// A cap that grows faster than receivers like to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrowthWarning {
    /// The day, counted from 1.
    pub day: usize,
    /// Its cap.
    pub cap: u32,
    /// The cap of a week before (of the first day, in the first week).
    pub week_before: u32,
}

impl fmt::Display for GrowthWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GrowthWarning { day, cap, week_before } = self;
        write!(f, "day {day}: {cap} is more than {LINT_FACTOR} times the {week_before} of a week before")
    }
}

/// The presets: name, schedule in text, and what it follows.
///
/// Senders publish the first three as tables; of the last two they publish the start and the length, and the end
/// is ours.
pub const PRESETS: [(&str, &str, &str); 5] = [
    ("weekly-50k", "100*7, 500*7, 2000*7, 10000*7, 50000*7", "five weekly steps to 50,000 a day"),
    ("weekly-200k", "1000*7, 10000*7, 50000*7, 200000*7", "four weekly steps to 200,000 a day"),
    (
        "56-days",
        "500*7, 2000*7, 10000*7, 25000*7, 75000*7, 150000*7, 300000*7, 600000*7, 1000000",
        "eight weekly steps, one million from day 57",
    ),
    ("gentle-6-weeks", "50..10000*42", "from 50 a day over six weeks"),
    ("gentle-8-weeks", "100..50000*56", "from 100 a day over eight weeks"),
];

impl Schedule {
    /// A cap for each day.
    pub fn daily(days: Vec<u32>) -> Result<Schedule, ScheduleError> {
        if days.is_empty() || days.len() > DAYS_MAX || days.contains(&0) {
            return Err(ScheduleError::Days);
        }
        Ok(Schedule { days })
    }

    /// A preset by its name.
    pub fn preset(name: &str) -> Option<Schedule> {
        let (_, text, _) = PRESETS.iter().find(|(preset, ..)| *preset == name)?;
        parse_list(text)
    }

    /// The caps, from the first day on.
    pub fn days(&self) -> &[u32] {
        &self.days
    }

    /// Where the caps grow beyond 50,000 a day by more than 3 times in a week: the first day of each jump.
    pub fn lint(&self) -> Vec<GrowthWarning> {
        let first = self.days.first().copied().unwrap_or(1);
        let before =
            |day: usize| day.checked_sub(WEEK).and_then(|day| self.days.get(day)).copied().unwrap_or(first);
        let steep = self.days.iter().enumerate().filter(|(day, cap)| {
            let grew = day.checked_sub(1).and_then(|day| self.days.get(day)).is_none_or(|last| last < cap);
            grew && **cap > LINT_FROM && **cap / LINT_FACTOR > before(*day)
        });
        steep.map(|(day, cap)| GrowthWarning { day: day + 1, cap: *cap, week_before: before(day) }).collect()
    }
}

/// A preset's name, or a list of caps: `100*7, 500*7` (a cap and its days) or `50..10000*42` (evenly rising by
/// the same factor each day).
impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        if let Some(preset) = Schedule::preset(text) {
            return Ok(preset);
        }
        let list = parse_list(text).ok_or_else(|| ScheduleError::Text(text.into()))?;
        Schedule::daily(list.days)
    }
}

fn parse_list(text: &str) -> Option<Schedule> {
    let mut days = Vec::new();
    for item in text.split(',') {
        let (caps, times) = match item.trim().split_once('*') {
            None => (item.trim(), 1),
            Some((caps, times)) => (caps, times.parse::<usize>().ok()?),
        };
        if times > DAYS_MAX || days.len() + times > DAYS_MAX {
            return None;
        }
        let count = |text: &str| parse_count(text).and_then(|cap| u32::try_from(cap).ok());
        match caps.split_once("..") {
            None => days.extend(std::iter::repeat_n(count(caps)?, times)),
            Some((first, last)) => days.extend(rising(count(first)?, count(last)?, times)),
        }
    }
    Some(Schedule { days })
}

/// From the first to the last cap in so many days, each day by the same factor.
fn rising(first: u32, last: u32, days: usize) -> impl Iterator<Item = u32> {
    let (from, to) = (f64::from(first.max(1)), f64::from(last.max(1)));
    let steps = (days.max(2) - 1) as f64;
    (0..days).map(move |day| (from * (to / from).powf(day as f64 / steps)).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_what_they_say() {
        let at = |name: &str, day: usize| Schedule::preset(name).unwrap().days()[day - 1];
        assert_eq!(
            [1, 7, 8, 15, 22, 29, 35].map(|day| at("weekly-50k", day)),
            [100, 100, 500, 2000, 10_000, 50_000, 50_000]
        );
        assert_eq!([1, 8, 15, 22].map(|day| at("weekly-200k", day)), [1000, 10_000, 50_000, 200_000]);
        assert_eq!(
            [1, 8, 15, 50, 56, 57].map(|day| at("56-days", day)),
            [500, 2000, 10_000, 600_000, 600_000, 1_000_000]
        );
        assert_eq!([1, 42].map(|day| at("gentle-6-weeks", day)), [50, 10_000]);
        assert_eq!([1, 56].map(|day| at("gentle-8-weeks", day)), [100, 50_000]);
        for (name, text, _) in PRESETS {
            assert_eq!(text.parse::<Schedule>().unwrap(), name.parse().unwrap());
        }
    }

    #[test]
    fn lists_are_read_and_errors_named() {
        assert_eq!("1k*2, 5_000".parse::<Schedule>().unwrap().days(), [1000, 1000, 5000]);
        assert_eq!("10..1000*3".parse::<Schedule>().unwrap().days(), [10, 100, 1000]);
        for bad in ["", "fast", "0*7", "100*0", "100*367", "5*-1", "99999999999"] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn steep_growth_is_reported_beyond_fifty_thousand() {
        let lint = |text: &str| text.parse::<Schedule>().unwrap().lint();
        assert_eq!(lint("weekly-50k"), []);
        assert_eq!(lint("weekly-200k"), [GrowthWarning { day: 22, cap: 200_000, week_before: 50_000 }]);
        assert_eq!(lint("56-days"), [], "3 times, 2 times, 2 times: at most 3");
        assert_eq!(lint("60000, 60000, 200000").len(), 1);
    }
}

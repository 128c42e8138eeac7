//! Calendar days: [`Zone`] and [`Day`], for limits such as "500 on the first day" that follow the calendar.
//!
//! Invariant: days of one zone never overlap and leave no gap; each lasts 24 hours.
//!
//! Not here: daylight saving. A zone is a fixed distance from UTC, since a day of 23 or 25 hours would make a
//! daily cap mean something else twice a year, and a time zone database would be this crate's largest part.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use postwright_core::Timestamp;

const DAY_MILLIS: u64 = 86_400_000;
const MINUTE_MILLIS: i64 = 60_000;

/// A fixed distance from UTC, at most 14 hours either way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Zone {
    minutes: i16,
}

/// The text is not `Z`, `UTC` or `+HH:MM` up to 14 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a zone is written as UTC or as a distance such as +01:00 or -08:00, at most 14 hours")]
pub struct ZoneError;

impl Zone {
    /// UTC.
    pub const UTC: Zone = Zone { minutes: 0 };

    /// East of UTC for positive minutes.
    pub fn from_minutes(minutes: i16) -> Result<Zone, ZoneError> {
        if minutes.unsigned_abs() > 14 * 60 { Err(ZoneError) } else { Ok(Zone { minutes }) }
    }

    /// Minutes east of UTC.
    pub fn minutes(self) -> i16 {
        self.minutes
    }

    /// The calendar day of a moment.
    pub fn day(self, at: Timestamp) -> Day {
        let shifted = at.millis().saturating_add_signed(i64::from(self.minutes) * MINUTE_MILLIS);
        Day(u32::try_from(shifted / DAY_MILLIS).unwrap_or(u32::MAX))
    }

    /// Midnight at the start of a day.
    pub fn start(self, day: Day) -> Timestamp {
        let shifted = u64::from(day.0) * DAY_MILLIS;
        Timestamp::from_millis(shifted.saturating_add_signed(-i64::from(self.minutes) * MINUTE_MILLIS))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.minutes == 0 {
            return f.write_str("UTC");
        }
        let sign = if self.minutes < 0 { '-' } else { '+' };
        let minutes = self.minutes.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Zone, ZoneError> {
        if matches!(text, "UTC" | "Z" | "utc") {
            return Ok(Zone::UTC);
        }
        let sign = match text.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(ZoneError),
        };
        let (hours, minutes) = text.get(1..).and_then(|rest| rest.split_once(':')).ok_or(ZoneError)?;
        let two_digits = |part: &str| match part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()) {
            true => part.parse::<i16>().map_err(|_| ZoneError),
            false => Err(ZoneError),
        };
        match (two_digits(hours)?, two_digits(minutes)?) {
            (hours, minutes) if minutes < 60 => Zone::from_minutes(sign * (hours * 60 + minutes)),
            _ => Err(ZoneError),
        }
    }
}

/// A calendar day, counted from 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Day(pub u32);

impl Day {
    /// The day `days` later; saturates.
    #[must_use]
    pub fn plus(self, days: u32) -> Day {
        Day(self.0.saturating_add(days))
    }

    /// Days since `earlier`; 0 if that lies ahead.
    pub fn since(self, earlier: Day) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// `2026-11-21`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let midnight = Timestamp::from_millis(0) + Duration::from_secs(u64::from(self.0) * 86_400);
        let shown = midnight.to_string();
        f.write_str(shown.split_once('T').map_or(shown.as_str(), |(date, _)| date))
    }
}

/// Reads `2026-11-21`.
impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Day, DayError> {
        let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().map_err(|_| DayError));
        let mut next = || parts.next().unwrap_or(Err(DayError));
        let (year, month, day) = (next()?, next()?, next()?);
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return Err(DayError);
        }
        // Months are counted from March, so that the leap day is a year's last.
        let (year, shifted) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let before_month = (153 * shifted + 2) / 5;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + before_month + (day - 1);
        let found = Day(days - 719_468);
        // 31 April becomes 1 May: not the text that was given.
        if found.to_string() == text { Ok(found) } else { Err(DayError) }
    }
}

/// The text is not a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a day is written as YYYY-MM-DD, from 1970 to 9999")]
pub struct DayError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_starts_at_the_zones_midnight() {
        // `date -u -d '2026-11-21 02:20' +%s`; in California that is still the 20th.
        let at = Timestamp::from_secs(1_795_227_600);
        assert_eq!(Zone::UTC.day(at).to_string(), "2026-11-21");
        let west: Zone = "-08:00".parse().unwrap();
        assert_eq!(west.day(at).to_string(), "2026-11-20");
        assert_eq!(west.start(west.day(at)).to_string(), "2026-11-20T08:00:00.000Z");
        for zone in ["UTC", "+05:45", "-08:00", "+14:00"] {
            assert_eq!(zone.parse::<Zone>().unwrap().to_string(), zone);
        }
        for bad in ["", "+1:00", "+15:00", "+00:60", "CET", "+00:0é"] {
            assert!(bad.parse::<Zone>().is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_are_read_as_they_are_written() {
        for text in ["1970-01-01", "2000-02-29", "2024-02-29", "2026-12-31", "2100-03-01"] {
            assert_eq!(text.parse::<Day>().unwrap().to_string(), text);
        }
        for bad in ["", "2026", "2026-13-01", "2026-02-29", "1969-12-31", "2026-1-1", "2026-04-31"] {
            assert!(bad.parse::<Day>().is_err(), "{bad}");
        }
    }
}

//! Rates: [`Rate`] ("N per period", with or without burst) and [`gcra`], the one formula that every store uses.
//!
//! Invariant, for items of cost 1: a rate of N per P without burst lets at most N through in every half-open
//! window of length P; with burst B every half-open window of length w holds at most B + floor(w N / P). Rounding
//! always goes against the sender, so no sequence of moments breaks either bound.
//!
//! Standards: the generic cell rate algorithm in its virtual scheduling form (ITU-T I.371, annex A).
//!
//! Why the rate without burst has some slack: moments are whole milliseconds, so a sender that keeps strictly to
//! a spacing of P/N loses up to a millisecond an item, 17 % at 600 a second. Here an item may come `slack` early
//! (5 ms, at most P/200), and the spacing is (P + slack)/N instead, which pays for it: the bound stays exact and
//! at least 99.5 % of N can be used.
//!
//! Not here: where the arrival times are kept (`store.rs`), calendar days (`calendar.rs`).

use std::fmt;
use std::time::Duration;

use postwright_core::Timestamp;

/// One tick is 2^-20 ms, a little less than a nanosecond; 64 bits of ticks last until the year 2527.
const TICK_BITS: u32 = 20;
/// An item of a rate without burst may come this much early.
const SLACK_MAX_MILLIS: u64 = 5;
/// The slack is at most this fraction of the period: what the rate loses by it.
const SLACK_FRACTION: u64 = 200;

/// Shortest and longest period.
pub const PERIOD: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(366 * 86_400);

/// A theoretical arrival time: when the next item is due if all of them keep to the rate exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Tat(u64);

impl Tat {
    /// Long ago: nothing was let through yet.
    pub const IDLE: Tat = Tat(0);

    /// From ticks of 2^-20 ms since 1970.
    pub const fn from_ticks(ticks: u64) -> Tat {
        Tat(ticks)
    }

    /// Ticks of 2^-20 ms since 1970.
    pub const fn ticks(self) -> u64 {
        self.0
    }

    /// The arrival time at `now`: what an idle rate has.
    pub fn at(now: Timestamp) -> Tat {
        Tat(ticks_of_millis(now.millis()))
    }

    /// The first millisecond that is not before this.
    pub fn ceil(self) -> Timestamp {
        Timestamp::from_millis(self.0.div_ceil(1 << TICK_BITS))
    }
}

/// When to ask again: the first moment at which the same request would be let through, if nobody else comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RetryAt(pub Timestamp);

/// Why a rate is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// N is 0: nothing would ever pass. Suspend the path instead.
    #[error("a rate of zero lets nothing through; suspend the path instead")]
    Zero,
    /// The period is outside [`PERIOD`].
    #[error("the period of a rate is 100 ms to 366 days")]
    Period,
    /// The largest item is more than the whole period's allowance.
    #[error("the largest item ({largest}) is more than the rate allows in a period ({count})")]
    Largest {
        /// The largest item's cost.
        largest: u64,
        /// The rate's N.
        count: u64,
    },
    /// The text is not a rate.
    #[error(
        "a rate is written as COUNT/PERIOD, such as 100/min, 5000/h or 10MB/30s, with `burst N` if wanted"
    )]
    Text,
}

/// N per period.
///
/// ```
/// use postwright_shaping::Rate;
/// let rate: Rate = "600/min burst 20".parse()?;
/// assert_eq!((rate.count(), rate.burst()), (600, Some(20)));
/// # Ok::<(), postwright_shaping::RateError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    count: u64,
    period_millis: u64,
    burst: Option<u64>,
    largest: u64,
    meter: Meter,
}

/// What the formula needs of a rate, side by side: the part that every decision reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Meter {
    /// Ticks that an item of cost 1 takes, rounded up.
    unit: u64,
    /// With burst: the ticks of a whole burst. Without: how early an item may come.
    room: u64,
    burst: bool,
}

impl Meter {
    /// Ticks that an item of this cost takes.
    #[inline]
    pub(crate) const fn ticks(self, cost: u64) -> u64 {
        self.unit.saturating_mul(cost)
    }

    /// How far the arrival time may lie ahead when an item of this many ticks comes.
    #[inline]
    pub(crate) const fn tolerance(self, ticks: u64) -> u64 {
        if self.burst { self.room.saturating_sub(ticks) } else { self.room }
    }
}

/// The formula, in ticks: the arrival time after an item that takes `ticks`, at least 1, and may come `tolerance`
/// early; or the first moment for it.
#[inline]
pub(crate) fn pass(tat: u64, ticks: u64, tolerance: u64, here: u64) -> Result<u64, u64> {
    let earliest = tat.saturating_sub(tolerance);
    if here < earliest { Err(earliest) } else { Ok(tat.max(here).saturating_add(ticks)) }
}

impl Rate {
    /// `count` items in every half-open window of length `period`, evenly spaced, without burst.
    ///
    /// Rates above 10 million a second lose up to 10 % and more by rounding (always to the safe side); nothing is
    /// faster than 2^20 items a millisecond.
    pub fn per(count: u64, period: Duration) -> Result<Rate, RateError> {
        if count == 0 {
            return Err(RateError::Zero);
        }
        if !PERIOD.contains(&period) {
            return Err(RateError::Period);
        }
        let period_millis = u64::try_from(period.as_millis()).map_err(|_| RateError::Period)?;
        let rate = Rate {
            count,
            period_millis,
            burst: None,
            largest: 1,
            meter: Meter { unit: 0, room: 0, burst: false },
        };
        Ok(rate.settled())
    }

    /// The same rate with a burst: up to `burst` at once, then `count` a period. A burst of 0 counts as 1.
    ///
    /// An item that costs more than the burst passes when the burst is whole, and its cost is charged in full.
    #[must_use]
    pub fn with_burst(self, burst: u64) -> Rate {
        Rate { burst: Some(burst.max(1)), ..self }.settled()
    }

    /// For items of unequal cost (octets) without burst: no item costs more than `largest`, and the sum in every
    /// half-open window of one period stays within the count. Without this the bound is the count plus the cost
    /// of the last item less one. The rate in the long run falls to `count - largest + 1`.
    pub fn with_largest(self, largest: u64) -> Result<Rate, RateError> {
        if largest > self.count {
            return Err(RateError::Largest { largest, count: self.count });
        }
        Ok(Rate { largest: largest.max(1), ..self }.settled())
    }

    fn settled(self) -> Rate {
        let period = ticks_of_millis(self.period_millis);
        match self.burst {
            Some(burst) => {
                let unit = period.div_ceil(self.count);
                let meter = Meter { unit, room: unit.saturating_mul(burst), burst: true };
                Rate { meter, ..self }
            }
            None => {
                let slack = ticks_of_millis(SLACK_MAX_MILLIS).min(period / SLACK_FRACTION);
                let count = self.count - self.largest + 1;
                let unit = period.saturating_add(slack).div_ceil(count);
                Rate { meter: Meter { unit, room: slack, burst: false }, ..self }
            }
        }
    }

    /// N.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The period.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_millis)
    }

    /// The burst, if the rate has one.
    pub fn burst(&self) -> Option<u64> {
        self.burst
    }

    /// Items a second.
    pub fn per_second(&self) -> f64 {
        self.count as f64 * 1000.0 / self.period_millis as f64
    }

    /// Ticks of 2^-20 ms that an item of this cost takes.
    pub fn ticks(&self, cost: u64) -> u64 {
        self.meter.ticks(cost)
    }

    pub(crate) fn meter(&self) -> Meter {
        self.meter
    }

    /// How long one item takes, in whole milliseconds rounded up.
    pub fn spacing(&self) -> Duration {
        Duration::from_millis(self.meter.unit.div_ceil(1 << TICK_BITS))
    }

    /// How far the arrival time may lie ahead when an item of this many ticks comes.
    pub fn tolerance(&self, ticks: u64) -> u64 {
        self.meter.tolerance(ticks)
    }

    /// The arrival time that a rate has when it may have been used up to now: where to start after a crash.
    pub fn spent_at(&self, now: Timestamp) -> Tat {
        let used = match self.burst {
            Some(_) => self.meter.room,
            None => self.meter.room.saturating_add(self.meter.unit),
        };
        Tat(Tat::at(now).0.saturating_add(used))
    }
}

/// Lets an item of `cost` through at `now`, or says when.
///
/// Pure: the new arrival time is the whole effect. An item of cost 0 passes and changes nothing.
pub fn gcra(tat: Tat, rate: &Rate, cost: u64, now: Timestamp) -> Result<Tat, RetryAt> {
    if cost == 0 {
        return Ok(tat);
    }
    let ticks = rate.ticks(cost);
    let passed = pass(tat.0, ticks, rate.tolerance(ticks), Tat::at(now).0);
    passed.map(Tat).map_err(|earliest| RetryAt(Tat(earliest).ceil()))
}

/// The slowest rate that the adaptive pace falls back to.
pub(crate) const fn one_a_minute() -> Rate {
    let unit = 60_000 << TICK_BITS;
    let meter = Meter { unit, room: unit, burst: true };
    Rate { count: 1, period_millis: 60_000, burst: Some(1), largest: 1, meter }
}

fn ticks_of_millis(millis: u64) -> u64 {
    millis.saturating_mul(1 << TICK_BITS)
}

/// The periods that have a name, longest first, in milliseconds.
const PERIODS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)];

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.count)?;
        let named = PERIODS.iter().find(|(_, millis)| self.period_millis.is_multiple_of(*millis));
        match named {
            Some((name, millis)) if *millis == self.period_millis => f.write_str(name)?,
            Some((name, millis)) => write!(f, "{}{name}", self.period_millis / millis)?,
            None => write!(f, "{}ms", self.period_millis)?,
        }
        match self.burst {
            Some(burst) => write!(f, " burst {burst}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        let mut words = text.split_whitespace();
        let (count, period) = words.next().and_then(|word| word.split_once('/')).ok_or(RateError::Text)?;
        let count = parse_count(count).ok_or(RateError::Text)?;
        let mut rate = Rate::per(count, parse_span(period).ok_or(RateError::Text)?)?;
        while let Some(word) = words.next() {
            let value = words.next().and_then(parse_count).ok_or(RateError::Text)?;
            rate = match word {
                "burst" => rate.with_burst(value),
                "largest" => rate.with_largest(value)?,
                _ => return Err(RateError::Text),
            };
        }
        Ok(rate)
    }
}

/// A whole number, with `_` or `,` between digits and a decimal unit (`k`, `M`, `kB`, `MB`, `GB`) if wanted.
pub(crate) fn parse_count(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "" | "B" => 1,
        "k" | "K" | "kB" | "KB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        _ => return None,
    };
    let plain: String = digits.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    plain.parse::<u64>().ok()?.checked_mul(factor)
}

/// `s`, `min`, `h`, `d` or a number of them: `30s`, `2h`.
pub(crate) fn parse_span(text: &str) -> Option<Duration> {
    let name = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text.get(..text.len() - name.len())?;
    let number: u64 = if number.is_empty() { 1 } else { number.parse().ok()? };
    let millis = match name {
        "ms" => 1,
        "s" | "sec" | "second" => 1000,
        "m" | "min" | "minute" => 60_000,
        "h" | "hr" | "hour" => 3_600_000,
        "d" | "day" => 86_400_000,
        "w" | "week" => 604_800_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_767_225_600);

    #[test]
    fn text_goes_there_and_back() {
        for (text, shown) in [
            ("100/min", "100/min"),
            ("5000/hour burst 50", "5000/h burst 50"),
            ("10MB/30s", "10000000/30s"),
            ("1k/1d", "1000/d"),
            ("3/500ms", "3/500ms"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), shown);
            assert_eq!(shown.parse::<Rate>().unwrap(), rate);
        }
        for bad in
            ["", "100", "/min", "0/min", "1/", "1/eon", "1/min burst", "1/min bust 3", "1/10ms", "1/400d"]
        {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!("10/min largest 11".parse::<Rate>(), Err(RateError::Largest { largest: 11, count: 10 }));
    }

    #[test]
    fn an_item_larger_than_the_burst_waits_for_a_whole_burst_and_pays_in_full() {
        let rate = Rate::per(10, Duration::from_secs(1)).unwrap().with_burst(5);
        let after_one = gcra(Tat::IDLE, &rate, 1, START).unwrap();
        let RetryAt(when) = gcra(after_one, &rate, 20, START).unwrap_err();
        assert_eq!(when.since(START), Duration::from_millis(100));
        let after_large = gcra(after_one, &rate, 20, when).unwrap();
        // 20 items are two seconds; four of them may be owed for the next item of cost 1.
        let RetryAt(next) = gcra(after_large, &rate, 1, when).unwrap_err();
        assert_eq!(next.since(when), Duration::from_millis(1600));
    }

    #[test]
    fn the_end_of_time_saturates() {
        let rate = Rate::per(1, Duration::from_secs(86_400)).unwrap().with_burst(u64::MAX);
        let late = Timestamp::from_millis(u64::MAX);
        let tat = gcra(Tat::IDLE, &rate, u64::MAX, late).unwrap();
        assert_eq!(tat, Tat(u64::MAX));
        assert!(gcra(tat, &rate, 1, late).is_ok());
    }
}

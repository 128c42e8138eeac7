//! Time: [`Instant`] for deadlines, [`Timestamp`] for what is stored or printed, and the seam [`Clock`].
//!
//! Invariant: the two never mix; there is no conversion from one to the other. A [`SystemClock`] is steady: its
//! `now` never goes back and never jumps, however the machine's clock is set.
//!
//! Standards: RFC 5322 3.3 ([`Timestamp::to_rfc5322`]), RFC 3339 (its `Display`).
//!
//! Not here: timers (drivers use tokio's).

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A moment of monotonic time: nanoseconds since the clock's start. Good for deadlines, useless after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(u64);

impl Instant {
    /// The clock's start.
    pub const ZERO: Instant = Instant(0);

    /// The moment `since_start` after the clock's start.
    pub fn from_start(since_start: Duration) -> Instant {
        Instant(u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Time since the clock's start.
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Time since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of time (584 years).
    fn add(self, span: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Wall time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Timestamp {
        Timestamp(millis)
    }

    /// From seconds since 1970.
    pub const fn from_secs(secs: u64) -> Timestamp {
        Timestamp(secs.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// Time since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// As in a `Date:` or `Received:` field, in UTC: `Sat, 21 Nov 2026 02:20:00 +0000`.
    pub fn to_rfc5322(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let civil = Civil::of(self);
        let day_name = DAYS[usize::try_from(self.secs() / 86_400 % 7).unwrap_or(0)];
        let month_name = MONTHS[civil.month as usize - 1];
        format!(
            "{day_name}, {} {month_name} {} {:02}:{:02}:{:02} +0000",
            civil.day, civil.year, civil.hour, civil.minute, civil.second
        )
    }
}

/// A date and a time of day in UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// Days are turned into a date by counting from 1 March of year 0, where leap days fall at the year's end.
    fn of(at: Timestamp) -> Civil {
        let (days, of_day) = (at.secs() / 86_400 + 719_468, at.secs() % 86_400);
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Civil {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    /// Saturates; parts of a millisecond are dropped.
    fn add(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    /// Saturates at 1970; parts of a millisecond are dropped.
    fn sub(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339 with milliseconds: `2026-11-21T02:20:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second } = Civil::of(*self);
        let millis = self.0 % 1000;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What time it is.
pub trait Clock: Send + Sync {
    /// Wall time, steady: it never goes back and never jumps.
    fn now(&self) -> Timestamp;

    /// Monotonic time since some start.
    fn mono(&self) -> Instant;
}

/// The machine's clocks, steadied.
///
/// `now` is the wall time at start plus monotonic time, slewed towards the machine's wall clock by at most one
/// second a minute. A clock that is set a year ahead therefore expires nothing and storms nothing; after an hour
/// it has moved by a minute.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
    slew: Mutex<Slew>,
}

impl SystemClock {
    /// Starts at the machine's present wall time.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn new() -> SystemClock {
        SystemClock {
            origin: std::time::Instant::now(),
            slew: Mutex::new(Slew::at(Duration::ZERO, wall_clock())),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.mono().since_start();
        // A panic while the lock is held cannot leave `Slew` half-changed.
        let mut slew = self.slew.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if slew.is_due(elapsed) {
            slew.steer(elapsed, wall_clock());
        }
        slew.read(elapsed)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn mono(&self) -> Instant {
        Instant::from_start(std::time::Instant::now().duration_since(self.origin))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn wall_clock() -> Timestamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(0) + since_1970
}

/// A straight line from an anchor: wall time as a function of monotonic time.
#[derive(Debug)]
struct Slew {
    anchor_elapsed: Duration,
    anchor_wall: Timestamp,
    /// Microseconds gained (or lost) a second of monotonic time; at most [`Slew::MAX_DRIFT`] either way.
    drift: i64,
}

impl Slew {
    /// One second a minute, in microseconds a second.
    const MAX_DRIFT: i64 = 1_000_000 / 60;
    const STEER_EVERY: Duration = Duration::from_secs(1);

    fn at(elapsed: Duration, wall: Timestamp) -> Slew {
        Slew { anchor_elapsed: elapsed, anchor_wall: wall, drift: 0 }
    }

    fn is_due(&self, elapsed: Duration) -> bool {
        elapsed.saturating_sub(self.anchor_elapsed) >= Slew::STEER_EVERY
    }

    fn read(&self, elapsed: Duration) -> Timestamp {
        let span = elapsed.saturating_sub(self.anchor_elapsed);
        let micros = i128::try_from(span.as_micros()).unwrap_or(i128::MAX / 2_000_000);
        let gained = micros * i128::from(1_000_000 + self.drift) / 1_000_000;
        self.anchor_wall + Duration::from_micros(u64::try_from(gained).unwrap_or(u64::MAX))
    }

    /// Re-anchors here and chooses the slope that would meet the wall clock in a minute.
    fn steer(&mut self, elapsed: Duration, wall: Timestamp) {
        let here = self.read(elapsed);
        let ahead_millis = i128::from(wall.0) - i128::from(here.0);
        let wanted = ahead_millis * 1000 / 60;
        let limit = i128::from(Slew::MAX_DRIFT);
        *self = Slew {
            anchor_elapsed: elapsed,
            anchor_wall: here,
            drift: i64::try_from(wanted.clamp(-limit, limit)).unwrap_or(0),
        };
    }
}

/// A clock that stands still until it is told to move: for tests.
#[derive(Debug)]
pub struct ManualClock {
    start: Timestamp,
    elapsed: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `start`, with its monotonic time at zero.
    pub fn new(start: Timestamp) -> ManualClock {
        ManualClock { start, elapsed: AtomicU64::new(0) }
    }

    /// Moves both times ahead.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed.fetch_add(nanos, Ordering::SeqCst);
    }
}

/// Starts at 2026-01-01T00:00:00Z.
impl Default for ManualClock {
    fn default() -> Self {
        ManualClock::new(Timestamp::from_secs(1_767_225_600))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.start + Duration::from_nanos(self.elapsed.load(Ordering::SeqCst))
    }

    fn mono(&self) -> Instant {
        Instant(self.elapsed.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_printed_as_the_rfcs_print_them() {
        // RFC 3339 5.8 and well-known moments; each pair can be checked with `date -u -d @SECS -R`.
        for (secs, rfc5322, rfc3339) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000", "1970-01-01T00:00:00.000Z"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000", "2000-02-28T23:59:59.000Z"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000", "2000-02-29T00:00:00.000Z"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 +0000", "2024-02-29T00:00:00.000Z"),
            (4_102_444_800, "Fri, 1 Jan 2100 00:00:00 +0000", "2100-01-01T00:00:00.000Z"),
        ] {
            let at = Timestamp::from_secs(secs);
            assert_eq!(at.to_rfc5322(), rfc5322);
            assert_eq!(at.to_string(), rfc3339);
        }
    }

    #[test]
    fn a_jump_of_a_year_moves_an_hour_by_a_minute() {
        let start = Timestamp::from_secs(1_800_000_000);
        let year = Duration::from_secs(365 * 86_400);
        for (jumped, expected) in [(start + year, 3660), (start - year, 3540)] {
            let mut slew = Slew::at(Duration::ZERO, start);
            let mut last = start;
            for second in 1..=3601 {
                let elapsed = Duration::from_secs(second);
                assert!(slew.is_due(elapsed));
                slew.steer(elapsed, jumped + elapsed);
                let now = slew.read(elapsed);
                assert!(now >= last, "time went back");
                last = now;
            }
            let moved = last.since(start).as_secs();
            assert!(moved.abs_diff(expected) <= 2, "{moved} is not about {expected}");
        }
    }

    #[test]
    fn a_small_error_is_met_and_then_left_alone() {
        let start = Timestamp::from_secs(1_800_000_000);
        let mut slew = Slew::at(Duration::ZERO, start);
        for second in 1..=1800 {
            let elapsed = Duration::from_secs(second);
            slew.steer(elapsed, start + elapsed + Duration::from_millis(400));
        }
        let elapsed = Duration::from_secs(1800);
        let error = slew.read(elapsed).millis().abs_diff((start + elapsed).millis() + 400);
        assert!(error <= 60, "{error} ms off");
    }

    #[test]
    fn the_system_clock_runs_forward_from_the_wall_clock() {
        let clock = SystemClock::new();
        let (a, b) = (clock.now(), clock.now());
        assert!(a <= b);
        assert!(a.secs() > 1_700_000_000);
        assert!(clock.mono() <= clock.mono());
    }
}

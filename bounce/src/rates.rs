//! Bounce and complaint rates over a sliding window, with the levels at which senders act.
//!
//! Invariant: memory is bounded by keys times slots; a key that the table has no room for is counted nowhere rather than
//! pushing out another. Time that goes back is counted in the newest slot.
//!
//! Standards: none; the levels are those that mailbox providers publish (Gmail and Yahoo: complaints below 0.1%, never 0.3%).
//!
//! Not here: slowing down (shaping).

use std::collections::BTreeMap;
use std::time::Duration;

use postwright_core::Timestamp;

/// Slots of a window: it slides by a twenty-fourth of its length.
const SLOTS: usize = 24;

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The customer.
    pub tenant: Box<str>,
    /// Their stream.
    pub stream: Box<str>,
    /// The address or pool that sends.
    pub source: Box<str>,
    /// The provider that receives.
    pub provider: Box<str>,
}

/// What happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It was accepted or refused for good: the denominator of the bounce rate.
    Sent,
    /// It bounced.
    Bounced,
    /// Its recipient complained.
    Complained,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below the levels, or too few messages to tell.
    Fine,
    /// Bounces above 2%, or complaints above 0.1%.
    Warning,
    /// Bounces above 5%, or complaints above 0.3%.
    Critical,
}

/// Sums over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Messages that ended.
    pub sent: u64,
    /// Of them, bounced.
    pub bounced: u64,
    /// Complaints.
    pub complained: u64,
}

/// The levels, in hundredths of a percent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Levels {
    /// Bounces: warning and critical.
    pub bounce: (u64, u64),
    /// Complaints: warning and critical.
    pub complaint: (u64, u64),
    /// Messages below which nothing is said.
    pub least: u64,
}

/// 2% and 5%; 0.1% and 0.3%; from 100 messages on.
impl Default for Levels {
    fn default() -> Levels {
        Levels { bounce: (200, 500), complaint: (10, 30), least: 100 }
    }
}

impl Sums {
    /// The worse of the two levels.
    pub fn level(&self, levels: &Levels) -> Level {
        if self.sent < levels.least {
            return Level::Fine;
        }
        let above =
            |count: u64, limit: u64| u128::from(count) * 10_000 > u128::from(self.sent) * u128::from(limit);
        if above(self.bounced, levels.bounce.1) || above(self.complained, levels.complaint.1) {
            Level::Critical
        } else if above(self.bounced, levels.bounce.0) || above(self.complained, levels.complaint.0) {
            Level::Warning
        } else {
            Level::Fine
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Ring {
    slots: [Sums; SLOTS],
    newest: u64,
}

/// Counts for many keys over one length of window.
#[derive(Debug)]
pub struct Rates {
    slot: u64,
    most: usize,
    rings: BTreeMap<Key, Ring>,
}

impl Rates {
    /// Counts over `window` (at least 24 s) for at most `most` keys.
    pub fn new(window: Duration, most: usize) -> Rates {
        let slot = u64::try_from(window.as_millis()).unwrap_or(u64::MAX) / 24;
        Rates { slot: slot.max(1000), most, rings: BTreeMap::new() }
    }

    /// Counts one; `false` if there is no room for a new key.
    pub fn record(&mut self, key: &Key, what: Happening, now: Timestamp) -> bool {
        let slot = now.millis() / self.slot;
        if !self.rings.contains_key(key) {
            if self.rings.len() >= self.most {
                self.rings.retain(|_, ring| ring.newest + 24 > slot);
            }
            if self.rings.len() >= self.most {
                return false;
            }
        }
        let ring = self.rings.entry(key.clone()).or_insert_with(|| Ring { newest: slot, ..Ring::default() });
        ring.advance(slot);
        if let Some(sums) = ring.slots.get_mut(at(ring.newest)) {
            let count = match what {
                Happening::Sent => &mut sums.sent,
                Happening::Bounced => &mut sums.bounced,
                Happening::Complained => &mut sums.complained,
            };
            *count = count.saturating_add(1);
        }
        true
    }

    /// The sums of a key over the window that ends at `now`.
    pub fn sums(&self, key: &Key, now: Timestamp) -> Sums {
        let Some(mut ring) = self.rings.get(key).cloned() else { return Sums::default() };
        ring.advance(now.millis() / self.slot);
        ring.slots.iter().fold(Sums::default(), |all, one| Sums {
            sent: all.sent.saturating_add(one.sent),
            bounced: all.bounced.saturating_add(one.bounced),
            complained: all.complained.saturating_add(one.complained),
        })
    }
}

impl Ring {
    /// Empties the slots between the newest and `slot`.
    fn advance(&mut self, slot: u64) {
        let steps = slot.saturating_sub(self.newest);
        for step in 1..=steps.min(24) {
            if let Some(sums) = self.slots.get_mut(at(slot - (steps.min(24) - step))) {
                *sums = Sums::default();
            }
        }
        self.newest = self.newest.max(slot);
    }
}

fn at(slot: u64) -> usize {
    usize::try_from(slot % 24).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str) -> Key {
        Key { tenant: tenant.into(), stream: "s".into(), source: "ip".into(), provider: "p".into() }
    }

    #[test]
    fn levels_are_those_that_senders_use() {
        let level = |sent, bounced, complained| Sums { sent, bounced, complained }.level(&Levels::default());
        assert_eq!(level(99, 99, 99), Level::Fine);
        assert_eq!(level(1000, 20, 1), Level::Fine);
        assert_eq!(level(1000, 21, 0), Level::Warning);
        assert_eq!(level(1000, 51, 0), Level::Critical);
        assert_eq!(level(1000, 0, 2), Level::Warning);
        assert_eq!(level(1000, 0, 4), Level::Critical);
    }

    proptest::proptest! {
        /// Against a list of everything that happened, cut to whole slots.
        #[test]
        fn the_window_slides_like_a_naive_one(steps in proptest::collection::vec((0u64..5000, 0u8..3), 1..200)) {
            let mut rates = Rates::new(Duration::from_secs(24), 10);
            let mut log: Vec<(u64, u8)> = Vec::new();
            let mut now = 1_000_000;
            for (step, what) in steps {
                now += step;
                let happening = [Happening::Sent, Happening::Bounced, Happening::Complained][usize::from(what)];
                rates.record(&key("a"), happening, Timestamp::from_millis(now));
                log.push((now, what));
                let count = |kind| log.iter().filter(|(at, what)| *what == kind && at / 1000 + 24 > now / 1000).count() as u64;
                let sums = rates.sums(&key("a"), Timestamp::from_millis(now));
                proptest::prop_assert_eq!((sums.sent, sums.bounced, sums.complained), (count(0), count(1), count(2)));
            }
        }
    }

    #[test]
    fn keys_are_bounded_and_old_ones_make_room() {
        let mut rates = Rates::new(Duration::from_secs(24), 2);
        let now = Timestamp::from_secs(1000);
        assert!(
            rates.record(&key("a"), Happening::Sent, now) && rates.record(&key("b"), Happening::Sent, now)
        );
        assert!(!rates.record(&key("c"), Happening::Sent, now));
        assert!(rates.record(&key("c"), Happening::Sent, now + Duration::from_secs(60)));
    }
}

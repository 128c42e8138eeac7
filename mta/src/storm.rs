//! How fast one sender is told of failures: [`Storm`].
//!
//! Invariant: nobody gets more than a burst of notifications and then more than the hourly rate; none is lost for it: those
//! above the rate are queued, durable like the others, and sent when their time comes. Memory is bounded by [`SENDERS`].
//!
//! Standards: RFC 3834 2 (limits on what is sent automatically), RFC 5321 6.1.
//!
//! Not here: composing and storing (pipeline.rs).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use postwright_core::{Mailbox, Timestamp};

/// Senders that are remembered at a time; those whose last notification is an hour old are forgotten first.
const SENDERS: usize = 10_000;
const HOUR: u64 = 3_600_000;

/// When the next notification to a sender may leave.
#[derive(Debug)]
pub(crate) struct Storm {
    per_hour: u64,
    /// For each sender the moment up to which its share is spent, in milliseconds.
    spent: Mutex<BTreeMap<Box<str>, u64>>,
}

impl Storm {
    /// At most `per_hour` at once, and as many an hour after that; 0 is no limit.
    pub(crate) fn new(per_hour: u64) -> Storm {
        Storm { per_hour, spent: Mutex::default() }
    }

    /// The moment at which the next notification to `sender` may leave: now, or later.
    pub(crate) fn slot(&self, sender: &Mailbox, now: Timestamp) -> Timestamp {
        let Some(interval) = HOUR.checked_div(self.per_hour) else { return now };
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let key = sender.to_string().to_lowercase();
        if spent.len() >= SENDERS && !spent.contains_key(&*key) {
            spent.retain(|_, until| *until > now.millis());
            if spent.len() >= SENDERS {
                // So many storms at once: the newcomers share one place.
                return Storm::take(spent.entry("".into()).or_default(), interval, now);
            }
        }
        Storm::take(spent.entry(key.into()).or_default(), interval, now)
    }

    /// One formula (GCRA): the share is spent up to `until`; a burst is an hour's share.
    fn take(until: &mut u64, interval: u64, now: Timestamp) -> Timestamp {
        let next = (*until).max(now.millis()).saturating_add(interval);
        *until = next;
        Timestamp::from_millis(next.saturating_sub(HOUR).max(now.millis()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_at_the_rate() {
        let (storm, now) = (Storm::new(60), Timestamp::from_secs(1_800_000_000));
        let (ann, bob): (Mailbox, Mailbox) =
            ("ann@a.example".parse().unwrap(), "bob@a.example".parse().unwrap());
        let slots: Vec<Timestamp> = (0..180).map(|_| storm.slot(&ann, now)).collect();
        assert!(slots.iter().take(60).all(|slot| *slot == now));
        assert_eq!(slots[60], now + Duration::from_secs(60));
        assert_eq!(slots[179], now + Duration::from_secs(120 * 60));
        // In no hour after the burst do more than 60 leave.
        for hour in 0..3 {
            let from = now + Duration::from_secs(hour * 3600 + 1);
            let to = from + Duration::from_secs(3600);
            assert!(slots.iter().filter(|slot| **slot >= from && **slot < to).count() <= 60);
        }
        assert_eq!(storm.slot(&bob, now), now, "another sender has its own share");
        assert_eq!(storm.slot(&"ANN@a.example".parse().unwrap(), now), now + Duration::from_secs(121 * 60));
        assert_eq!(Storm::new(0).slot(&ann, now), now);
    }

    #[test]
    fn memory_is_bounded() {
        let (storm, now) = (Storm::new(1), Timestamp::from_secs(1_800_000_000));
        for i in 0..SENDERS + 500 {
            storm.slot(&format!("u{i}@a.example").parse().unwrap(), now);
        }
        assert!(storm.spent.lock().unwrap().len() <= SENDERS + 1);
        storm.slot(&"late@a.example".parse().unwrap(), now + Duration::from_secs(2 * 3600 * 1000));
        assert!(storm.spent.lock().unwrap().len() < 10);
    }
}

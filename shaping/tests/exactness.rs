//! The bounds of a rate, exactly: against a naive twin that keeps the whole history, and against the definition
//! of the window.
//!
//! Not here: several limits at once (`admission.rs`), several nodes (`redis.rs`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use postwright_core::{Entropy, SeededEntropy, Timestamp};
use postwright_shaping::{Rate, RetryAt, Tat, gcra};
use proptest::prelude::*;

const START: u64 = 1_767_225_600_000;

/// Keeps everything that was let through and decides by the definition: an item may come if for every earlier
/// item the time since then covers all that was let through from there on, but for what the tolerance forgives.
struct NaiveTwin {
    rate: Rate,
    history: Vec<(u64, u64)>,
}

impl NaiveTwin {
    fn admits(&mut self, cost: u64, millis: u64) -> bool {
        let tolerance = u128::from(self.rate.tolerance(self.rate.ticks(cost)));
        let mut owed: u128 = 0;
        for (at, ticks) in self.history.iter().rev() {
            owed += u128::from(*ticks);
            if (u128::from(millis) << 20) + tolerance < (u128::from(*at) << 20) + owed {
                return false;
            }
        }
        self.history.push((millis, self.rate.ticks(cost)));
        true
    }
}

/// The most that any half-open window of `width` ms holds, by looking at each window that starts with an item.
fn fullest_window(admitted: &[(u64, u64)], width: u64) -> u64 {
    let window = |start: u64| admitted.iter().filter(move |(at, _)| (start..start + width).contains(at));
    admitted.iter().map(|(at, _)| window(*at).map(|(_, cost)| cost).sum()).max().unwrap_or(0)
}

fn rates() -> impl Strategy<Value = (u64, u64)> {
    let periods = prop_oneof![Just(100), Just(1000), Just(60_000), Just(3_600_000), 100_u64..100_000];
    (prop_oneof![1_u64..50, 1_u64..5000], periods)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_formula_decides_as_the_history_does(
        (count, period) in rates(),
        burst in prop_oneof![Just(None), (1_u64..40).prop_map(Some)],
        steps in prop::collection::vec((0_u64..3000, 1_u64..6), 1..150),
    ) {
        let mut rate = Rate::per(count, Duration::from_millis(period)).unwrap();
        if let Some(burst) = burst {
            rate = rate.with_burst(burst);
        }
        let mut twin = NaiveTwin { rate, history: Vec::new() };
        let (mut tat, mut millis) = (Tat::IDLE, START);
        for (gap, cost) in steps {
            // Gaps around the rate's own spacing are the ones that matter.
            millis += gap * (period / count + 1) / 1500;
            let decided = gcra(tat, &rate, cost, Timestamp::from_millis(millis));
            prop_assert_eq!(decided.is_ok(), twin.admits(cost, millis));
            match decided {
                Ok(next) => tat = next,
                Err(RetryAt(when)) => {
                    // The moment that is named is the first one that will do.
                    prop_assert!(gcra(tat, &rate, cost, when).is_ok());
                    let before = Timestamp::from_millis(when.millis() - 1);
                    prop_assert!(gcra(tat, &rate, cost, before).is_err());
                }
            }
        }
    }

    #[test]
    fn no_window_holds_more_than_it_may(
        (count, period) in rates(),
        burst in prop_oneof![Just(None), (1_u64..40).prop_map(Some)],
        gaps in prop::collection::vec(0_u64..4000, 1..200),
        width in 1_u64..200_000,
    ) {
        let mut rate = Rate::per(count, Duration::from_millis(period)).unwrap();
        if let Some(burst) = burst {
            rate = rate.with_burst(burst);
        }
        let (mut tat, mut millis, mut admitted) = (Tat::IDLE, START, Vec::new());
        for gap in gaps {
            millis += gap * (period / count + 1) / 2000;
            // Everybody rushes in as long as it works.
            while let Ok(next) = gcra(tat, &rate, 1, Timestamp::from_millis(millis)) {
                tat = next;
                admitted.push((millis, 1));
                if admitted.len() > 400 {
                    break;
                }
            }
        }
        match burst {
            None => prop_assert!(fullest_window(&admitted, period) <= count),
            Some(burst) => {
                let most = u128::from(burst) + u128::from(width) * u128::from(count) / u128::from(period);
                prop_assert!(u128::from(fullest_window(&admitted, width)) <= most);
            }
        }
    }

    #[test]
    fn octets_with_a_largest_item_stay_within_the_count(
        largest in 1_u64..500,
        spare in 0_u64..2000,
        items in prop::collection::vec((0_u64..300, 1_u64..500), 1..200),
    ) {
        let count = largest + spare;
        let rate = Rate::per(count, Duration::from_secs(10)).unwrap().with_largest(largest).unwrap();
        let (mut tat, mut millis, mut admitted) = (Tat::IDLE, START, Vec::new());
        for (gap, cost) in items {
            millis += gap;
            let cost = cost.min(largest);
            if let Ok(next) = gcra(tat, &rate, cost, Timestamp::from_millis(millis)) {
                tat = next;
                admitted.push((millis, cost));
            }
        }
        prop_assert!(fullest_window(&admitted, 10_000) <= count);
    }
}

/// A sender that always has something to send and comes back when it is told to.
fn saturate(rate: &Rate, millis: u64) -> Vec<u64> {
    let (mut tat, mut now, mut admitted) = (Tat::IDLE, Timestamp::from_millis(START), Vec::new());
    while now.millis() < START + millis {
        match gcra(tat, rate, 1, now) {
            Ok(next) => {
                tat = next;
                admitted.push(now.millis());
            }
            Err(RetryAt(when)) => now = when,
        }
    }
    admitted
}

#[test]
fn ninety_nine_per_cent_of_a_rate_can_be_used_and_no_window_exceeds_it() {
    for (count, period, span) in [
        (1_u64, 1000_u64, 600_000_u64),
        (7, 1000, 600_000),
        (600, 1000, 60_000),
        (1999, 1000, 30_000),
        (30_000, 1000, 3000),
        (100, 60_000, 3_600_000),
        (7777, 60_000, 600_000),
        (5000, 3_600_000, 2 * 86_400_000),
        (86_400, 86_400_000, 4 * 86_400_000),
    ] {
        let rate = Rate::per(count, Duration::from_millis(period)).unwrap();
        let admitted = saturate(&rate, span);
        let usable = count * span / period;
        assert!(admitted.len() as u64 * 1000 >= usable * 990, "{rate}: {} of {usable}", admitted.len());
        // The (i + N)th item is at least one period after the ith: no half-open window holds N + 1.
        let skip = usize::try_from(count).unwrap();
        for (first, past) in admitted.iter().zip(admitted.iter().skip(skip)) {
            assert!(past - first >= period, "{rate}: {} in a window from {first}", count + 1);
        }
    }
}

#[test]
fn days_of_random_arrivals_keep_to_the_rate() {
    let entropy = SeededEntropy::new(7);
    for (text, count, period, burst) in [
        ("100/min", 100_usize, 60_000_u64, None),
        ("500/h", 500, 3_600_000, None),
        ("100/min burst 25", 100, 60_000, Some(25_u64)),
    ] {
        let rate: Rate = text.parse().unwrap();
        let (mut tat, mut millis, mut admitted) = (Tat::IDLE, START, Vec::new());
        while millis < START + 3 * 86_400_000 {
            // Bursts of up to 300 arrivals with quiet stretches of up to 5 minutes between them.
            millis += entropy.below(300_000);
            for _ in 0..entropy.below(300) {
                millis += entropy.below(700);
                if let Ok(next) = gcra(tat, &rate, 1, Timestamp::from_millis(millis)) {
                    tat = next;
                    admitted.push(millis);
                }
            }
        }
        assert!(admitted.len() > 10 * count);
        match burst {
            None => {
                for (first, past) in admitted.iter().zip(admitted.iter().skip(count)) {
                    assert!(past - first >= period, "{text}");
                }
            }
            // For every pair i <= j: j - i + 1 <= B + floor(w N / P) for the window just wide enough for both.
            Some(burst) => {
                for (i, first) in admitted.iter().enumerate() {
                    for (n, last) in admitted.iter().skip(i).take(400).enumerate() {
                        let most = burst + (last - first + 1) * count as u64 / period;
                        assert!((n as u64) < most, "{text}: {} in {} ms", n + 1, last - first + 1);
                    }
                }
            }
        }
    }
}

#[test]
fn after_a_crash_both_lives_together_keep_to_the_rate() {
    for text in ["50/s", "100/min", "50/s burst 30"] {
        let rate: Rate = text.parse().unwrap();
        let period = u64::try_from(rate.period().as_millis()).unwrap();
        let (mut tat, mut now, mut admitted) = (Tat::IDLE, Timestamp::from_millis(START), Vec::new());
        for life in 0..20_u64 {
            let end = now + Duration::from_millis(300 + 977 * life);
            while now < end {
                match gcra(tat, &rate, 1, now) {
                    Ok(next) => {
                        tat = next;
                        admitted.push((now.millis(), 1));
                    }
                    Err(RetryAt(when)) => now = when.min(end),
                }
            }
            // The process dies; the next one knows nothing but the time.
            tat = rate.spent_at(now);
        }
        let most = rate.count() + rate.burst().unwrap_or(0);
        assert!(fullest_window(&admitted, period) <= most, "{text}");
    }
}

#[test]
fn every_second_minute_and_hour_is_within_five_per_cent() {
    // 40 a second is 2400 a minute and 144,000 an hour; the process dies and starts again every 17 minutes.
    let rate: Rate = "40/s".parse().unwrap();
    let (mut tat, mut now, mut admitted) = (Tat::IDLE, Timestamp::from_millis(START), Vec::new());
    while now.millis() < START + 2 * 3_600_000 {
        if (now.millis() - START).is_multiple_of(1_020_000) && now.millis() > START {
            tat = tat.max(rate.spent_at(now));
        }
        match gcra(tat, &rate, 1, now) {
            Ok(next) => {
                tat = next;
                admitted.push(now.millis() - START);
            }
            Err(RetryAt(when)) => now = when.min(Timestamp::from_millis(now.millis() / 1000 * 1000 + 1000)),
        }
    }
    for (window, expected) in [(1000, 40_usize), (60_000, 2400), (3_600_000, 144_000)] {
        let mut counts = vec![0_usize; usize::try_from(2 * 3_600_000 / window).unwrap()];
        for at in &admitted {
            counts[usize::try_from(at / window).unwrap()] += 1;
        }
        let fits = |count: &usize| *count <= expected && *count * 100 >= expected * 95;
        assert!(
            counts.iter().all(fits),
            "{window} ms: {:?} to {:?}",
            counts.iter().min(),
            counts.iter().max()
        );
    }
}

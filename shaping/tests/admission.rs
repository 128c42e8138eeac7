//! Several limits at once: all or nothing, reasons, refunds, leases, queues.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::Timestamp;
use postwright_shaping::{
    Admission, Ask, Because, Bound, Dimension, Kind, Lane, Layer, MemoryTokenStore, Path, Policy, Rate,
    Scope, Settings, Shaper, Zone,
};
use proptest::prelude::*;

const START: Timestamp = Timestamp::from_secs(1_767_225_600);

fn rate(text: &str) -> Bound {
    Bound::Rate(text.parse::<Rate>().unwrap())
}

fn path(domain: &str) -> Path {
    Path::to(domain.parse().unwrap()).from_source("192.0.2.1")
}

fn shaper(layer: Layer) -> Shaper {
    Shaper::new(Policy::new().with(layer), Arc::new(MemoryTokenStore::new()))
}

fn ms(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

/// Comes back when told to; returns when it was let through.
fn wait(shaper: &Shaper, path: &Path, ask: Ask, mut now: Timestamp) -> Timestamp {
    loop {
        match shaper.admit(path, ask, now) {
            Admission::Granted(_permit) => return now,
            Admission::Later(later) => {
                assert!(later.until > now, "told to come back in the past");
                now = later.until;
            }
        }
    }
}

#[test]
fn the_reason_names_the_limit_that_binds() {
    let layer = Layer::defaults()
        .set(Kind::Messages, &[rate("10/s"), rate("2/h burst 2")])
        .and_then(|layer| layer.set(Kind::Bytes, &[rate("1000/min")]))
        .unwrap();
    let shaper = shaper(layer);
    let path = path("example.org");
    assert!(shaper.admit(&path, Ask::message(10), START).granted().is_some());
    let later = shaper.admit(&path, Ask::message(10), ms(1)).later().unwrap();
    assert_eq!(later.because.to_string(), "limit reached: bytes 1000/min by source+site (defaults)");
    assert!(shaper.admit(&path, Ask::message(1), ms(900)).granted().is_some());
    let later = shaper.admit(&path, Ask::message(1), ms(2000)).later().unwrap();
    assert_eq!(later.because.to_string(), "limit reached: messages 2/h burst 2 by source+site (defaults)");
    assert_eq!(later.until, ms(1_800_000));
}

#[test]
fn a_refusal_by_one_limit_takes_nothing_from_the_others() {
    let layer = Layer::defaults()
        .set(Kind::Messages, &[rate("1000/h burst 1000")])
        .and_then(|layer| layer.set_by(Scope::GLOBAL, Kind::Messages, &[rate("1/h")]))
        .unwrap();
    let shaper = shaper(layer);
    assert!(shaper.admit(&path("a.example"), Ask::message(1), START).granted().is_some());
    let other = path("b.example");
    for n in 0..500 {
        assert!(shaper.admit(&other, Ask::message(1), ms(n)).later().is_some());
    }
    let lane = shaper.lane(&other, START);
    let own = lane.limits().iter().find(|limit| limit.scope == Scope::SOURCE_SITE).unwrap();
    // The whole burst is there still: a store that took and gave back 500 times would show it in the key's count.
    let policy = Policy::new().with(Layer::defaults().set(own.kind, &[own.bound]).unwrap());
    shaper.set_policy(policy);
    let mut passed = 0;
    while shaper.admit(&other, Ask::message(1), ms(500)).granted().is_some() {
        passed += 1;
    }
    assert_eq!(passed, 1000);
}

#[test]
fn giving_back_is_exact_or_nothing() {
    let shaper = shaper(Layer::defaults().set(Kind::Messages, &[rate("1/h")]).unwrap());
    let path = path("example.org");
    let permit = shaper.admit(&path, Ask::message(1), START).granted().unwrap();
    permit.give_back();
    let permit = shaper.admit(&path, Ask::message(1), ms(5)).granted().expect("it was given back");
    // An hour later another one goes; giving the first back now must not let a third one in.
    let second = wait(&shaper, &path, Ask::message(1), ms(6));
    permit.give_back();
    let third = wait(&shaper, &path, Ask::message(1), second);
    assert!(third.since(second) >= Duration::from_secs(3600));
}

#[test]
fn dropping_a_message_permit_keeps_it_counted() {
    let shaper = shaper(Layer::defaults().set(Kind::Messages, &[rate("1/h")]).unwrap());
    drop(shaper.admit(&path("example.org"), Ask::message(1), START));
    assert!(shaper.admit(&path("example.org"), Ask::message(1), ms(1)).later().is_some());
}

#[test]
fn connections_come_back_on_every_way_out_and_when_their_lease_ends() {
    let policy = Policy::new().with(Layer::defaults().set(Kind::Concurrency, &[Bound::AtMost(2)]).unwrap());
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(60);
    let shaper = Shaper::with_settings(policy, Arc::new(MemoryTokenStore::new()), settings);
    let path = path("example.org");
    let open = |now| shaper.admit(&path, Ask::CONNECTION, now);
    let one = open(START).granted().unwrap();
    let mut two = open(START).granted().unwrap();
    assert!(
        matches!(open(START).later().unwrap().because, Because::Limit(limit) if limit.kind == Kind::Concurrency)
    );
    drop(one);
    let three = open(ms(200)).granted().expect("dropped");
    three.release();
    let four = open(ms(400)).granted().expect("released");
    four.give_back();
    let five = open(ms(600)).granted().expect("given back");
    // Two renews, five does not: its place is free when its minute is over, two's is not.
    assert!(two.renew(ms(50_000)));
    assert_eq!(two.lease_until(), ms(110_000));
    assert!(open(ms(59_000)).later().is_some());
    let six = open(ms(61_000)).granted().expect("the lease ended");
    assert!(open(ms(61_000)).later().is_some());
    let mut five = five;
    assert!(!five.renew(ms(62_000)), "a lost lease cannot be renewed");
    drop((two, five, six));
    let lane = shaper.lane(&path, START);
    assert_eq!(lane.limits().first().unwrap().cell().leases(), 0, "all permits are back");
}

#[test]
fn a_panic_gives_the_connection_back() {
    let shaper = Arc::new(shaper(Layer::defaults().set(Kind::Concurrency, &[Bound::AtMost(1)]).unwrap()));
    let other = Arc::clone(&shaper);
    let died = std::thread::spawn(move || {
        let _permit = other.admit(&path("example.org"), Ask::CONNECTION, START).granted().unwrap();
        panic!("the connection's task dies");
    });
    assert!(died.join().is_err());
    assert!(shaper.admit(&path("example.org"), Ask::CONNECTION, ms(200)).granted().is_some());
}

#[test]
fn a_daily_cap_starts_anew_at_the_zones_midnight() {
    let zone: Zone = "+02:00".parse().unwrap();
    let shaper = shaper(Layer::defaults().set(Kind::Messages, &[Bound::Daily { cap: 3, zone }]).unwrap());
    let path = path("example.org");
    for _ in 0..3 {
        assert!(shaper.admit(&path, Ask::message(1), START).granted().is_some());
    }
    let later = shaper.admit(&path, Ask::message(1), START).later().unwrap();
    assert_eq!(later.until.to_string(), "2026-01-01T22:00:00.000Z");
    let permit = shaper.admit(&path, Ask::message(1), later.until).granted().unwrap();
    permit.give_back();
    for _ in 0..3 {
        assert!(shaper.admit(&path, Ask::message(1), later.until).granted().is_some());
    }
    assert!(shaper.admit(&path, Ask::message(1), later.until).later().is_some());
}

#[test]
fn lanes_that_wait_for_one_limit_are_served_in_turn() {
    let layer =
        Layer::defaults().set_by(Scope::of(&[Dimension::Source]), Kind::Messages, &[rate("10/s")]).unwrap();
    let shaper = shaper(layer);
    let mut lanes: Vec<(Lane, Timestamp, u32)> =
        (0..5).map(|n| (shaper.lane(&path(&format!("d{n}.example")), START), START, 0)).collect();
    // Lane 0 asks again a moment after each permit, as often as it can; the others come when they are told to.
    let end = ms(20_000);
    loop {
        let (lane, next, served) = lanes.iter_mut().min_by_key(|(_, next, _)| *next).unwrap();
        if *next >= end {
            break;
        }
        match shaper.admit_on(lane, Ask::message(1), *next) {
            Admission::Granted(_) => *served += 1,
            Admission::Later(later) => *next = later.until,
        }
    }
    let served: Vec<u32> = lanes.iter().map(|(.., served)| *served).collect();
    assert!(served.iter().sum::<u32>() >= 195, "{served:?}");
    assert!(served.iter().all(|count| (38..=42).contains(count)), "{served:?}");
}

#[test]
fn a_large_message_is_not_starved_by_small_ones() {
    let layer = Layer::defaults().set_by(Scope::GLOBAL, Kind::Bytes, &[rate("1000/s burst 1000")]).unwrap();
    let shaper = shaper(layer);
    let (large, mut small) = (path("large.example"), shaper.lane(&path("small.example"), START));
    while shaper.admit_on(&mut small, Ask::message(10), START).granted().is_some() {}
    let mut small_next = ms(1);
    let mut large_next = ms(2);
    for _ in 0..10_000 {
        if large_next <= small_next {
            match shaper.admit(&large, Ask::message(1000), large_next) {
                Admission::Granted(_) => {
                    assert!(large_next <= ms(2500), "waited until {large_next}");
                    return;
                }
                Admission::Later(later) => large_next = later.until,
            }
        } else {
            match shaper.admit_on(&mut small, Ask::message(10), small_next) {
                Admission::Granted(_) => small_next = small_next + Duration::from_millis(1),
                Admission::Later(later) => small_next = later.until,
            }
        }
    }
    panic!("starved");
}

#[test]
fn a_lane_that_lost_interest_holds_the_others_up_for_a_moment_only() {
    let layer = Layer::defaults().set_by(Scope::GLOBAL, Kind::Messages, &[rate("10/s")]).unwrap();
    let shaper = shaper(layer);
    assert!(shaper.admit(&path("a.example"), Ask::message(1), START).granted().is_some());
    // B waits and never comes back; C waits behind it.
    let _ = shaper.admit(&path("b.example"), Ask::message(1), ms(1));
    let served = wait(&shaper, &path("c.example"), Ask::message(1), ms(2));
    assert!(served <= ms(1300), "{served}");
    // With a word of goodbye there is no delay at all.
    let lane = shaper.lane(&path("b.example"), START);
    let _ = shaper.admit(&path("b.example"), Ask::message(1), served);
    shaper.withdraw(&lane);
    let next = wait(&shaper, &path("d.example"), Ask::message(1), served);
    assert!(next.since(served) <= Duration::from_millis(101), "{next}");
}

#[test]
fn sweeping_forgets_only_what_makes_no_difference() {
    let store = Arc::new(MemoryTokenStore::new());
    let layer = Layer::defaults().set(Kind::Messages, &[rate("1/h")]).unwrap();
    let shaper = Shaper::new(Policy::new().with(layer), Arc::clone(&store) as _);
    for n in 0..100 {
        assert!(shaper.admit(&path(&format!("d{n}.example")), Ask::message(1), START).granted().is_some());
    }
    shaper.sweep(ms(1000));
    assert_eq!(store.len(), 100);
    assert!(shaper.admit(&path("d7.example"), Ask::message(1), ms(1000)).later().is_some());
    // The lane that waits keeps its cell; the rest is history.
    shaper.sweep(ms(3_700_000));
    assert_eq!(store.len(), 1);
}

#[test]
fn too_many_limits_are_an_error_of_the_policy_and_not_a_hole() {
    let bounds: Vec<Bound> = (1..=17).map(|n| rate(&format!("100/{n}s"))).collect();
    let shaper = shaper(Layer::defaults().set(Kind::Messages, &bounds).unwrap());
    let later = shaper.admit(&path("example.org"), Ask::message(1), START).later().unwrap();
    assert!(matches!(later.because, Because::TooManyLimits(17)));
}

#[test]
fn threads_that_race_for_several_limits_never_exceed_one() {
    let layer = Layer::defaults()
        .set(Kind::Messages, &[rate("1/h burst 700"), rate("1/d burst 900")])
        .and_then(|l| l.set_by(Scope::GLOBAL, Kind::Messages, &[rate("1/h burst 1000")]))
        .and_then(|l| l.set(Kind::Concurrency, &[Bound::AtMost(5)]))
        .unwrap();
    let mut settings = Settings::default();
    settings.adapt = None;
    let shaper =
        Shaper::with_settings(Policy::new().with(layer), Arc::new(MemoryTokenStore::new()), settings);
    let open = std::sync::atomic::AtomicUsize::new(0);
    let granted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (shaper, open) = (&shaper, &open);
                scope.spawn(move || {
                    let path = path(&format!("d{}.example", thread % 2));
                    let mut granted = 0;
                    for n in 0..3000 {
                        if let Some(permit) =
                            shaper.admit(&path, Ask::first_message(1), ms(n / 100)).granted()
                        {
                            // Two paths, five connections each.
                            assert!(open.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 10);
                            granted += 1;
                            open.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                    granted
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(granted <= 1000, "{granted}");
    assert!(granted >= 950, "{granted}: races waste few places");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Several limits of several scopes against a model that counts every window by hand.
    #[test]
    fn all_limits_hold_at_once(
        steps in prop::collection::vec((0_u64..400, 0_usize..3, 0_usize..2), 1..250),
        (site, source, all) in (1_u64..8, 1_u64..12, 1_u64..16),
    ) {
        let by_source = Scope::of(&[Dimension::Source]);
        let layer = Layer::defaults()
            .set(Kind::Messages, &[rate(&format!("{site}/2s"))])
            .and_then(|l| l.set_by(by_source, Kind::Messages, &[rate(&format!("{source}/2s"))]))
            .and_then(|l| l.set_by(Scope::GLOBAL, Kind::Messages, &[rate(&format!("{all}/2s"))]))
            .unwrap();
        let shaper = shaper(layer);
        let mut sent: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut now = 0;
        for (gap, domain, source) in steps {
            now += gap;
            let path = Path::to(format!("d{domain}.example").parse().unwrap()).from_source(["x", "y"][source]);
            if shaper.admit(&path, Ask::message(1), ms(now)).granted().is_some() {
                for key in [format!("{domain}/{source}"), format!("s{source}"), String::from("all")] {
                    sent.entry(key).or_default().push(now);
                }
            }
        }
        for (key, times) in &sent {
            let most = if key == "all" { all } else if key.starts_with('s') { source } else { site };
            for start in times {
                let held = times.iter().filter(|at| (*start..start + 2000).contains(*at)).count();
                prop_assert!(held as u64 <= most, "{key}: {held} > {most}");
            }
        }
    }
}

/// Two limits that are reached at about the same time, asked for by threads that meet: what one of them counted, the
/// other counted too, and that is what was let through.
#[test]
fn threads_that_meet_leave_no_decision_half_taken() {
    let daily = |cap| Bound::Daily { cap, zone: Zone::UTC };
    for (own, all) in
        [(daily(30_000), daily(40_000)), (rate("30000/d burst 30000"), rate("40000/d burst 40000"))]
    {
        let layer = Layer::defaults().set(Kind::Messages, &[own]).unwrap();
        let both = layer.clone().set_by(Scope::GLOBAL, Kind::Messages, &[all]).unwrap();
        let shaper = shaper(both);
        let ask = &|domain: &str, times: u32| {
            let mut lane = shaper.lane(&path(domain), START);
            (0..times).map(|_| u32::from(shaper.pass(&mut lane, 1, START).is_ok())).sum::<u32>()
        };
        let granted: u32 = std::thread::scope(|scope| {
            let domains = ["a.example", "b.example", "a.example", "b.example"];
            let threads = domains.map(|domain| scope.spawn(move || ask(domain, 20_000)));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 40_000);
        // Without the limit on everything, what the others have left shows.
        shaper.set_policy(Policy::new().with(layer));
        assert_eq!(ask("a.example", 30_001) + ask("b.example", 30_001), 20_000, "{own}");
    }
}

proptest! {
    /// The short way and the long way let the same through and give the same back.
    #[test]
    fn a_pass_is_a_permit_for_less(
        steps in prop::collection::vec((0_u64..400, 0_usize..2, 0_u64..3000, prop::bool::weighted(0.2)), 1..300),
    ) {
        let layer = Layer::defaults()
            .set(Kind::Messages, &[rate("20/s"), rate("90/10s burst 30")])
            .and_then(|layer| layer.set(Kind::Bytes, &[rate("20kB/s burst 8kB")]))
            .and_then(|layer| layer.set_by(Scope::GLOBAL, Kind::Messages, &[rate("15/s burst 3")]))
            .unwrap();
        let (short, long) = (shaper(layer.clone()), shaper(layer));
        let paths = ["a.example", "b.example"].map(path);
        let mut now = START;
        let mut lanes = paths.clone().map(|path| short.lane(&path, now));
        for (gap, which, bytes, regret) in steps {
            now = now + Duration::from_millis(gap);
            let passed = short.pass(&mut lanes[which], bytes, now);
            let permitted = long.admit(&paths[which], Ask::message(bytes), now);
            match (passed, permitted) {
                (Ok(pass), Admission::Granted(permit)) => {
                    if regret {
                        pass.give_back();
                        permit.give_back();
                    }
                }
                (Err(short), Admission::Later(long)) => {
                    prop_assert_eq!(short.until, long.until);
                    prop_assert_eq!(short.because.to_string(), long.because.to_string());
                }
                (passed, permitted) => prop_assert!(false, "{:?} {:?}", passed, permitted),
            }
        }
    }
}

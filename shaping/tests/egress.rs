//! Pools: weights, stickiness, failover, sources that go down and come back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Entropy, SeededEntropy, Timestamp};
use postwright_shaping::{
    Ask, Because, Bound, Dimension, Egress, EgressError, Kind, Layer, MemoryTokenStore, Mode, Overflow, Path,
    Policy, Pool, Scope, Shaper, Source, WarmUp, Way, Zone,
};

const START: Timestamp = Timestamp::from_secs(1_767_225_600);

fn egress(mode: Mode, members: &[(&str, u32)]) -> Egress {
    let sources = members.iter().map(|(name, _)| Source::of_ip(name.parse().unwrap())).collect();
    let members = members.iter().map(|(name, weight)| ((*name).into(), *weight)).collect();
    Egress::new(sources, vec![Pool { name: "batch".into(), mode, members }]).unwrap()
}

fn first(egress: &Egress, key: &str, draw: u64, now: Timestamp) -> String {
    egress.candidates(egress.pool("batch").unwrap(), key, draw, now).unwrap()[0].name.to_string()
}

fn path() -> Path {
    Path::to("example.org".parse().unwrap())
}

fn later(secs: u64) -> Timestamp {
    START + Duration::from_secs(secs)
}

#[test]
fn weights_are_kept_and_a_lost_sources_load_moves_by_weight() {
    let egress = egress(Mode::Weighted, &[("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.3", 5)]);
    let entropy = SeededEntropy::new(5);
    let share = |now| {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..16_000 {
            *counts.entry(first(&egress, "", entropy.next_u64(), now)).or_default() += 1;
        }
        counts.into_values().collect::<Vec<u32>>()
    };
    // Within four standard deviations.
    for (count, expected) in share(START).iter().zip([2000_u32, 4000, 10_000]) {
        assert!(count.abs_diff(expected) < 260, "{count} {expected}");
    }
    egress.take_down("192.0.2.3", later(60), "not plumbed on this host");
    for (count, expected) in share(START).iter().zip([5333_u32, 10_667]) {
        assert!(count.abs_diff(expected) < 260, "{count} {expected}");
    }
    assert_eq!(share(later(60)).len(), 3, "back when its time is over");
}

#[test]
fn keys_stick_and_only_those_of_a_lost_source_move() {
    let egress = egress(Mode::Sticky, &[("192.0.2.1", 1), ("192.0.2.2", 1), ("192.0.2.3", 1)]);
    let keys: Vec<String> = (0..900).map(|n| format!("campaign-{n}")).collect();
    let of = |now| keys.iter().map(|key| first(&egress, key, now_draw(now), now)).collect::<Vec<String>>();
    let before = of(START);
    assert_eq!(before, of(later(1)), "whatever is drawn");
    for source in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        let count = before.iter().filter(|name| *name == source).count();
        assert!((240..360).contains(&count), "{source}: {count}");
    }
    egress.take_down("192.0.2.2", later(60), "its proxy is down");
    for (old, new) in before.iter().zip(of(START)) {
        assert!(*old == new || old == "192.0.2.2", "{old} moved to {new}");
        assert_ne!(new, "192.0.2.2");
    }
    egress.bring_up("192.0.2.2");
    assert_eq!(before, of(START));
}

fn now_draw(now: Timestamp) -> u64 {
    now.millis().wrapping_mul(0x9e37_79b9)
}

#[test]
fn failover_takes_the_first_that_is_up() {
    let egress = egress(Mode::Failover, &[("192.0.2.1", 1), ("192.0.2.2", 1)]);
    assert_eq!(first(&egress, "a", 1, START), "192.0.2.1");
    egress.take_down("192.0.2.1", later(60), "not plumbed on this host");
    assert_eq!(first(&egress, "a", 1, START), "192.0.2.2");
}

#[test]
fn with_all_sources_down_everything_waits_for_the_first() {
    let egress = egress(Mode::Weighted, &[("192.0.2.1", 1), ("192.0.2.2", 1)]);
    let shaper = Shaper::new(Policy::new(), Arc::new(MemoryTokenStore::new()));
    egress.take_down("192.0.2.1", later(600), "not plumbed on this host");
    egress.take_down("192.0.2.2", later(60), "its proxy is down");
    let way = Way { egress: &egress, pool: "batch", key: "", draw: 7 };
    let (source, admission) = shaper.admit_from(way, &path(), Ask::CONNECTION, START);
    let refusal = admission.later().unwrap();
    assert!(source.is_none());
    assert_eq!(refusal.until, later(60));
    assert_eq!(refusal.because.to_string(), "no source can be used: its proxy is down");
    let (source, admission) = shaper.admit_from(way, &path(), Ask::CONNECTION, later(60));
    assert_eq!(&*source.unwrap().name, "192.0.2.2");
    assert!(admission.granted().is_some());
    // Blocked everywhere by the operator: the earliest end counts.
    egress.bring_up("192.0.2.1");
    shaper.suspend(&[(Dimension::Source, "192.0.2.1")], later(500), "listed", later(61));
    shaper.suspend(&[(Dimension::Source, "192.0.2.2")], later(300), "listed", later(61));
    let refusal = shaper.admit_from(way, &path(), Ask::CONNECTION, later(61)).1.later().unwrap();
    assert_eq!(refusal.until, later(300));
    assert!(matches!(refusal.because, Because::Suspended(_)));
}

#[test]
fn a_source_at_its_limit_passes_the_load_on() {
    let egress = egress(Mode::Failover, &[("192.0.2.1", 1), ("192.0.2.2", 1)]);
    let by_source = Scope::of(&[Dimension::Source]);
    let layer =
        Layer::defaults().set_by(by_source, Kind::Messages, &[Bound::Rate("2/h burst 2".parse().unwrap())]);
    let shaper = Shaper::new(Policy::new().with(layer.unwrap()), Arc::new(MemoryTokenStore::new()));
    let way = Way { egress: &egress, pool: "batch", key: "", draw: 0 };
    let names: Vec<String> = (0..4)
        .map(|_| {
            let (source, admission) = shaper.admit_from(way, &path(), Ask::message(1), START);
            assert!(admission.granted().is_some());
            source.unwrap().name.to_string()
        })
        .collect();
    assert_eq!(names, ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"]);
    assert!(shaper.admit_from(way, &path(), Ask::message(1), START).1.later().is_some());
}

#[test]
fn the_overflow_of_a_warm_up_goes_where_its_plan_says() {
    for (overflow, first_three) in [(Overflow::NextSource, 3), (Overflow::Wait, 2)] {
        let egress = egress(Mode::Failover, &[("192.0.2.1", 1), ("192.0.2.2", 1)]);
        let shaper = Shaper::new(Policy::new(), Arc::new(MemoryTokenStore::new()));
        let plan = WarmUp::of("192.0.2.1", "2".parse().unwrap(), Zone::UTC.day(START));
        shaper.set_warmups(vec![WarmUp { overflow, ..plan }], START);
        let way = Way { egress: &egress, pool: "batch", key: "", draw: 0 };
        let admitted = (0..3)
            .filter(|_| shaper.admit_from(way, &path(), Ask::message(1), START).1.granted().is_some())
            .count();
        assert_eq!(admitted, first_three);
    }
}

#[test]
fn a_layout_that_cannot_work_is_refused() {
    let source = || Source::of_ip("192.0.2.1".parse().unwrap());
    let pool = |members: &[&str]| Pool {
        name: "p".into(),
        mode: Mode::Weighted,
        members: members.iter().map(|name| ((*name).into(), 1)).collect(),
    };
    assert!(matches!(Egress::new(vec![source(), source()], vec![]), Err(EgressError::Twice { .. })));
    assert!(matches!(Egress::new(vec![source()], vec![pool(&[])]), Err(EgressError::Empty(_))));
    assert!(matches!(
        Egress::new(vec![source()], vec![pool(&["192.0.2.9"])]),
        Err(EgressError::Unknown { .. })
    ));
}

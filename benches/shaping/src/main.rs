//! Decisions a second beside `governor` and a mutex around a map; the answers are compared first.
//!
//! Prints `name<TAB>ours<TAB>peer<TAB>peer's name<TAB>unit` for each case; everything else begins with `#`.
//!
//! - `--quick`: fewer decisions.
//! - `--list`: what `--only NAME:ours` and `--only NAME:peer` take, and how many decisions each makes.
//! - `--only NAME`: one case; with `:ours` or `:peer` one half of it, on one thread, in `measured`, without comparing
//!   anything: for callgrind.
//!
//! Ours always decides about five limits (two by source and site, one by source, one by tenant, one for all); the
//! peers decide about one.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "this measures time")]

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use governor::clock::FakeRelativeClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use postwright_core::{Entropy, SeededEntropy, Timestamp};
use postwright_shaping::{
    Ask, Bound, Dimension, Kind, Lane, Layer, MemoryTokenStore, Path, Policy, Rate, Scope, Shaper, Tat, gcra,
};

const KEYS: usize = 100_000;
const LONGEST: usize = 500_000;
/// Decisions that callgrind sees.
const COUNTED: usize = 200_000;
const START: Timestamp = Timestamp::from_secs(1_767_225_600);

/// What the command line says.
struct Plan {
    /// The best of so many times more runs counts: the machine may have other things to do.
    effort: usize,
    only: Option<String>,
    side: Option<String>,
    list: bool,
}

impl Plan {
    fn read() -> Plan {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            Some(words.get(at + 1).unwrap_or_else(|| panic!("{name} takes a value")).clone())
        };
        let (only, side) = match value("--only") {
            Some(both) => match both.split_once(':') {
                Some((name, side)) => (Some(name.to_owned()), Some(side.to_owned())),
                None => (Some(both), None),
            },
            None => (None, None),
        };
        let list = words.iter().any(|word| word == "--list");
        let effort = if words.iter().any(|word| word == "--quick") { 1 } else { 8 };
        Plan { effort, only, side, list }
    }

    /// Decisions in a run, and runs. Short runs on one key, so that some of them are not interrupted; long ones
    /// where many keys are to be seen or two threads to meet.
    fn size(&self, name: &str) -> (usize, usize) {
        match name.starts_with("one-key") && name.ends_with("1t") {
            true => (20_000, 100 * self.effort),
            false => (LONGEST, 3 * self.effort),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

fn rate(text: &str) -> Bound {
    Bound::Rate(text.parse::<Rate>().unwrap())
}

/// Five limits on every path.
fn shaper() -> Shaper {
    let wide = rate("100000000/s burst 100000000000");
    let by = |layer: Layer, scope| layer.set_by(scope, Kind::Messages, &[wide]).unwrap();
    let layer =
        Layer::defaults().set(Kind::Messages, &[wide, rate("99999999/s burst 100000000000")]).unwrap();
    let layer = by(layer, Scope::of(&[Dimension::Source]));
    let layer = by(layer, Scope::of(&[Dimension::Tenant]));
    let layer = by(layer, Scope::GLOBAL);
    Shaper::new(Policy::new().with(layer), Arc::new(MemoryTokenStore::new()))
}

fn path(n: usize) -> Path {
    let domain = format!("d{n}.example").parse().unwrap();
    Path::to(domain)
        .from_source(["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"][n % 4])
        .for_tenant(["a", "b"][n % 2])
}

/// The order of keys is drawn beforehand: every candidate sees the same.
fn order(seed: u64, rounds: usize) -> Vec<u32> {
    let entropy = SeededEntropy::new(seed);
    (0..rounds).map(|_| u32::try_from(entropy.below(KEYS as u64)).unwrap()).collect()
}

type Keyed = RateLimiter<u32, DashMapStateStore<u32>, FakeRelativeClock, NoOpMiddleware<Nanos>>;
type Single = RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, NoOpMiddleware<Nanos>>;

fn quota(per_second: u32, burst: u32) -> Quota {
    Quota::per_second(NonZeroU32::new(per_second).unwrap()).allow_burst(NonZeroU32::new(burst).unwrap())
}

fn keyed(quota: Quota, clock: &FakeRelativeClock) -> Keyed {
    RateLimiter::new(quota, DashMapStateStore::default(), clock.clone())
}

/// The plain way: one lock around one map.
#[derive(Default)]
struct MutexMap(Mutex<HashMap<u32, Tat>>);

impl MutexMap {
    fn check(&self, key: u32, rate: &Rate, now: Timestamp) -> bool {
        let mut map = self.0.lock().unwrap();
        let tat = map.entry(key).or_insert(Tat::IDLE);
        gcra(*tat, rate, 1, now).map(|next| *tat = next).is_ok()
    }
}

/// The same arrivals, the same answers: 20 a second with a burst of 7.
fn compare_answers(arrivals: usize) {
    let clock = FakeRelativeClock::default();
    let theirs = keyed(quota(20, 7), &clock);
    let layer = Layer::defaults().set(Kind::Messages, &[rate("20/s burst 7")]).unwrap();
    let shaper = Shaper::new(Policy::new().with(layer), Arc::new(MemoryTokenStore::new()));
    let mutex = MutexMap::default();
    let plain: Rate = "20/s burst 7".parse().unwrap();
    let entropy = SeededEntropy::new(1);
    let (mut now, mut passed) = (START, 0);
    let mut lanes: Vec<Lane> = (0..5).map(|n| shaper.lane(&path(n), now)).collect();
    for step in 0..arrivals {
        let gap = Duration::from_millis(entropy.below(12));
        clock.advance(gap);
        now = now + gap;
        let key = u32::try_from(entropy.below(5)).unwrap();
        let lane = &mut lanes[key as usize];
        let ours = shaper.pass(lane, 1, now).is_ok();
        // Whoever is told to wait lines up; here nobody waits.
        shaper.withdraw(lane);
        assert_eq!(ours, theirs.check_key(&key).is_ok(), "step {step}");
        assert_eq!(ours, mutex.check(key, &plain, now), "step {step}");
        passed += u32::from(ours);
    }
    println!("# the same answers to {arrivals} arrivals from all three, {passed} of them let through");
}

/// Makes one decision for each key of the order; how many passed. The number is the thread's.
type Work<'a> = &'a (dyn Fn(usize, &[u32]) -> usize + Sync);

/// What callgrind counts: this call and what it calls, once; the thread that makes it has nothing to wait for.
#[inline(never)]
fn measured(work: Work<'_>, order: &[u32]) -> usize {
    black_box(black_box(work)(0, order))
}

/// Runs `work` on so many threads, each with its own order of keys; million decisions a second in the best run.
fn measure((rounds, runs): (usize, usize), orders: &[Vec<u32>], work: Work<'_>) -> f64 {
    let run = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..)
                .zip(orders)
                .map(|(thread, order)| scope.spawn(move || work(thread, &order[..rounds])))
                .collect();
            for thread in running {
                assert_eq!(black_box(thread.join().unwrap()), rounds, "nothing is refused here");
            }
        });
        start.elapsed()
    };
    let best = (0..runs).map(|_| run()).min().unwrap();
    (rounds * orders.len()) as f64 / best.as_secs_f64() / 1e6
}

fn main() {
    let plan = Plan::read();
    if plan.side.is_none() && !plan.list {
        compare_answers(25_000 * plan.effort);
    }
    let orders = [order(0, LONGEST), order(1, LONGEST)];
    let shaper = shaper();
    // What a case does not need is not built, so that it does not weigh in callgrind.
    let many = !plan.list && plan.only.as_deref().is_none_or(|only| only.starts_with("keys"));
    let paths: Vec<Path> = (0..if many { KEYS } else { 1 }).map(path).collect();
    let lanes: Vec<Lane> = paths.iter().map(|path| shaper.lane(path, START)).collect();

    let one_key = |_: usize, order: &[u32]| {
        let mut lane = lanes[0].clone();
        order.iter().filter(|_| shaper.pass(black_box(&mut lane), 1, black_box(START)).is_ok()).count()
    };
    let one_permit = |_: usize, order: &[u32]| {
        let mut lane = lanes[0].clone();
        let mut ask = || shaper.admit_on(black_box(&mut lane), Ask::message(1), black_box(START));
        order.iter().filter(|_| ask().granted().is_some()).count()
    };
    let lanes_of_thread = [lanes.clone(), lanes.clone()].map(Mutex::new);
    let by_lane = |thread: usize, order: &[u32]| {
        let mut lanes = lanes_of_thread[thread].lock().unwrap();
        order.iter().filter(|key| shaper.pass(&mut lanes[**key as usize], 1, START).is_ok()).count()
    };
    let by_path = |_: usize, order: &[u32]| {
        let passes =
            |key: &&u32| shaper.admit(&paths[**key as usize], Ask::message(1), START).granted().is_some();
        order.iter().filter(passes).count()
    };

    let wide = quota(100_000_000, 4_000_000_000);
    let clock = FakeRelativeClock::default();
    let (theirs, single): (Keyed, Single) =
        (keyed(wide, &clock), RateLimiter::direct_with_clock(wide, clock));
    let (mutex, plain): (MutexMap, Rate) =
        (MutexMap::default(), "100000000/s burst 100000000000".parse().unwrap());
    let their_key =
        |_: usize, order: &[u32]| order.iter().filter(|_| theirs.check_key(black_box(&7)).is_ok()).count();
    let their_single =
        |_: usize, order: &[u32]| order.iter().filter(|_| black_box(&single).check().is_ok()).count();
    let their_keys =
        |_: usize, order: &[u32]| order.iter().filter(|key| theirs.check_key(key).is_ok()).count();
    let plain_keys =
        |_: usize, order: &[u32]| order.iter().filter(|key| mutex.check(**key, &plain, START)).count();

    let cases: [(&str, Work<'_>, &str, Work<'_>); 6] = [
        ("one-key", &one_key, "governor, one limit, keyed", &their_key),
        ("one-key-direct", &one_key, "governor, one limit, without key", &their_single),
        ("one-key-permit", &one_permit, "governor, one limit, keyed", &their_key),
        ("keys-lane", &by_lane, "governor, one limit, keyed", &their_keys),
        ("keys-path", &by_path, "governor, one limit, keyed", &their_keys),
        ("keys-lane-mutex", &by_lane, "mutex around a map, one limit", &plain_keys),
    ];
    if plan.list {
        for (name, ..) in cases {
            ["ours", "peer"].iter().for_each(|side| println!("{name}-1t:{side}\t{COUNTED}"));
        }
        return;
    }
    let known = |only: &str| {
        cases
            .iter()
            .any(|(name, ..)| only.strip_prefix(name).is_some_and(|rest| matches!(rest, "-1t" | "-2t")))
    };
    assert!(plan.only.as_deref().is_none_or(known), "no such case; see --list");
    for threads in [1, 2] {
        for (name, ours, peer_name, peer) in cases {
            let name = format!("{name}-{threads}t");
            if !plan.wants(&name) {
                continue;
            }
            if let Some(side) = &plan.side {
                let work = match side.as_str() {
                    "ours" => ours,
                    "peer" => peer,
                    other => panic!("no side {other:?}; see --list"),
                };
                let passed = measured(work, &orders[0][..COUNTED]);
                println!("# {name}:{side}: {passed} of {COUNTED} let through");
                continue;
            }
            let [ours, peer] = [ours, peer].map(|work| measure(plan.size(&name), &orders[..threads], work));
            println!("{name}\t{ours:.2}\t{peer:.2}\t{peer_name}\tM decisions/s");
        }
    }
}

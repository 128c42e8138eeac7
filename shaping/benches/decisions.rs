//! Decisions a second beside `governor` and a mutex around a map, over 100,000 keys; the answers are compared first.
//!
//! `cargo bench -p postwright-shaping`. Under callgrind (`POSTWRIGHT_BENCH=instructions`) it makes nothing but
//! a million decisions of ours, so that instructions a decision can be read off.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "this measures time")]
#![allow(clippy::print_stdout, reason = "this is its output")]
#![allow(missing_docs, reason = "a program")]

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use governor::clock::FakeRelativeClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use postwright_core::{Entropy, SeededEntropy, Timestamp};
use postwright_shaping::{
    Ask, Bound, Dimension, Kind, Lane, Layer, MemoryTokenStore, Path, Policy, Rate, Scope, Settings, Shaper,
    Tat, gcra,
};

const KEYS: usize = 100_000;
const ROUNDS: usize = 500_000;
/// The best of so many runs counts: the machine has other things to do.
const RUNS: usize = 5;
const START: Timestamp = Timestamp::from_secs(1_767_225_600);

fn rate(text: &str) -> Bound {
    Bound::Rate(text.parse::<Rate>().unwrap())
}

/// Five limits on every path: two by source and site, one by source, one by tenant, one for all.
fn shaper() -> Shaper {
    let layer = Layer::defaults()
        .set(Kind::Messages, &[rate("100000000/s burst 100000000"), rate("99999999/s burst 99999999")])
        .and_then(|l| {
            l.set_by(Scope::of(&[Dimension::Source]), Kind::Messages, &[rate("100000000/s burst 100000000")])
        })
        .and_then(|l| {
            l.set_by(Scope::of(&[Dimension::Tenant]), Kind::Messages, &[rate("100000000/s burst 100000000")])
        })
        .and_then(|l| l.set_by(Scope::GLOBAL, Kind::Messages, &[rate("100000000/s burst 100000000")]))
        .unwrap();
    let store = Arc::new(MemoryTokenStore::new());
    Shaper::with_settings(Policy::new().with(layer), store, Settings::default())
}

fn path(n: usize) -> Path {
    let domain = format!("d{n}.example").parse().unwrap();
    Path::to(domain)
        .from_source(["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"][n % 4])
        .for_tenant(["a", "b"][n % 2])
}

/// The order of keys is drawn beforehand: every candidate sees the same.
fn order(seed: u64) -> Vec<u32> {
    let entropy = SeededEntropy::new(seed);
    (0..ROUNDS).map(|_| u32::try_from(entropy.below(KEYS as u64)).unwrap()).collect()
}

type Governor = RateLimiter<u32, DashMapStateStore<u32>, FakeRelativeClock, NoOpMiddleware<Nanos>>;

fn governor(per_second: u32, burst: u32, clock: &FakeRelativeClock) -> Governor {
    let quota =
        Quota::per_second(NonZeroU32::new(per_second).unwrap()).allow_burst(NonZeroU32::new(burst).unwrap());
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
fn compare_answers() {
    let clock = FakeRelativeClock::default();
    let theirs = governor(20, 7, &clock);
    let shaper = Shaper::new(
        Policy::new().with(Layer::defaults().set(Kind::Messages, &[rate("20/s burst 7")]).unwrap()),
        Arc::new(MemoryTokenStore::new()),
    );
    let mutex = MutexMap::default();
    let plain: Rate = "20/s burst 7".parse().unwrap();
    let entropy = SeededEntropy::new(1);
    let (mut now, mut passed) = (START, 0);
    for step in 0..200_000 {
        let gap = Duration::from_millis(entropy.below(12));
        clock.advance(gap);
        now = now + gap;
        let key = u32::try_from(entropy.below(5)).unwrap();
        let ours = shaper.admit(&path(key as usize), Ask::message(1), now).granted().is_some();
        assert_eq!(ours, theirs.check_key(&key).is_ok(), "step {step}");
        assert_eq!(ours, mutex.check(key, &plain, now), "step {step}");
        passed += u32::from(ours);
    }
    println!("the same answers to 200000 arrivals, {passed} of them let through");
}

/// Runs `work` on so many threads, each with its own order of keys; decisions a second in the best run.
fn measure(name: &str, threads: u64, orders: &[Vec<u32>], work: impl Fn(&[u32]) -> usize + Sync) {
    let orders = orders.get(..threads as usize).unwrap_or_default();
    let run = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let running: Vec<_> = orders.iter().map(|order| scope.spawn(|| black_box(work(order)))).collect();
            for thread in running {
                thread.join().unwrap();
            }
        });
        start.elapsed()
    };
    let best = (0..RUNS).map(|_| run()).min().unwrap();
    let per_second = (ROUNDS as u64 * threads) as f64 / best.as_secs_f64();
    println!("{name:32} {threads} threads {:7.2} M/s", per_second / 1e6);
}

fn main() {
    let shaper = shaper();
    let lanes: Vec<Lane> = (0..KEYS).map(|n| shaper.lane(&path(n), START)).collect();
    let by_lane = |order: &[u32]| {
        let mut lanes = lanes.clone();
        let mut passes = |key: &u32| {
            shaper.admit_on(&mut lanes[*key as usize], Ask::message(1), START).granted().is_some()
        };
        order.iter().filter(|key| passes(key)).count()
    };
    let one_key = |order: &[u32]| {
        let mut lane = lanes[0].clone();
        order
            .iter()
            .filter(|_| shaper.admit_on(&mut lane, Ask::message(1), START).granted().is_some())
            .count()
    };
    if std::env::var("POSTWRIGHT_BENCH").as_deref() == Ok("instructions") {
        println!("{} passed", one_key(&order(0)));
        return;
    }
    compare_answers();
    let paths: Vec<Path> = (0..KEYS).map(path).collect();
    let by_path = |order: &[u32]| {
        let passes =
            |key: &u32| shaper.admit(&paths[*key as usize], Ask::message(1), START).granted().is_some();
        order.iter().filter(|key| passes(key)).count()
    };
    let theirs = governor(100_000_000, 4_000_000_000, &FakeRelativeClock::default());
    let (mutex, plain): (MutexMap, Rate) =
        (MutexMap::default(), "100000000/s burst 100000000".parse().unwrap());
    let orders = [order(0), order(1)];
    for threads in [1, 2] {
        measure("one key: ours, five limits", threads, &orders, one_key);
        measure("one key: governor, one limit", threads, &orders, |order| {
            order.iter().filter(|_| black_box(theirs.check_key(&7)).is_ok()).count()
        });
        measure("100k keys: ours by lane, five", threads, &orders, by_lane);
        measure("100k keys: ours by path, five", threads, &orders, by_path);
        measure("100k keys: governor, one", threads, &orders, |order| {
            order.iter().filter(|key| black_box(theirs.check_key(key)).is_ok()).count()
        });
        measure("100k keys: mutex and map, one", threads, &orders, |order| {
            order.iter().filter(|key| black_box(mutex.check(**key, &plain, START))).count()
        });
    }
}

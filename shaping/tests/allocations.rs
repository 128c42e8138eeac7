//! A decision about five limits allocates nothing, whether by lane, by path or as a pass.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use postwright_core::Timestamp;
use postwright_shaping::{Ask, Bound, Kind, Layer, MemoryTokenStore, Path, Policy, Rate, Scope, Shaper};

#[test]
fn the_hot_path_allocates_nothing() {
    let rate = |text: &str| Bound::Rate(text.parse::<Rate>().unwrap());
    let layer = Layer::defaults()
        .set(Kind::Messages, &[rate("1000000/s burst 1000000"), rate("1000000/h burst 1000000")])
        .and_then(|l| l.set(Kind::Bytes, &[rate("1GB/s burst 1GB")]))
        .and_then(|l| l.set_by(Scope::GLOBAL, Kind::Messages, &[rate("1000000/s burst 1000000")]))
        .and_then(|l| l.set_by(Scope::GLOBAL, Kind::Bytes, &[rate("1GB/s burst 1GB")]))
        .unwrap();
    let shaper = Shaper::new(Policy::new().with(layer), Arc::new(MemoryTokenStore::new()));
    let path = Path::to("example.org".parse().unwrap()).from_source("192.0.2.1");
    let now = Timestamp::from_secs(1_800_000_000);
    let mut lane = shaper.lane(&path, now);
    assert_eq!(lane.limits().len(), 5);
    let mut granted = 0;
    let by_lane = allocation_counter::measure(|| {
        for _ in 0..1000 {
            granted += u32::from(shaper.admit_on(&mut lane, Ask::message(100), now).granted().is_some());
        }
    });
    let by_path = allocation_counter::measure(|| {
        for _ in 0..1000 {
            granted += u32::from(shaper.admit(&path, Ask::message(100), now).granted().is_some());
        }
    });
    let by_pass = allocation_counter::measure(|| {
        for _ in 0..1000 {
            granted += u32::from(shaper.pass(&mut lane, 100, now).is_ok());
        }
    });
    assert_eq!(granted, 3000);
    let counts = [by_lane, by_path, by_pass].map(|counted| counted.count_total);
    assert_eq!(counts, [0; 3]);
}

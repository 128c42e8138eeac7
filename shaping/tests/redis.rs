//! Several nodes on one redis-server, in virtual time (the script takes the callers' moments): sums, node loss,
//! server loss, leases. The server is a private one on a Unix socket in a temporary directory.
#![cfg(all(feature = "redis", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::Timestamp;
use postwright_shaping::{
    Address, Admission, Ask, Because, Bound, Kind, Layer, Path, Policy, RedisLink, RedisSettings,
    RedisTokenStore, Settings, Shaper, Zone,
};
use postwright_testkit::announce;
use postwright_testkit::redis::Server;

const START: u64 = 1_767_225_600_000;

/// A server of the test's own, if there is one.
fn serve() -> Option<Server> {
    let server = Server::start();
    if server.is_none() {
        announce("redis-server", "neither under target/peers nor in PATH");
    }
    server
}

fn node(socket: &FilePath, node: u32, nodes: u32, batch: u32, layer: &Layer) -> Shaper {
    let link = RedisLink::new(Address::Unix(socket.to_owned()), Duration::from_secs(5));
    let mut settings = RedisSettings::for_node(node, nodes);
    settings.batch = batch;
    settings.server_time = false;
    let mut shaper = Settings::default();
    shaper.lease = Duration::from_secs(60);
    shaper.adapt = None;
    Shaper::with_settings(
        Policy::new().with(layer.clone()),
        Arc::new(RedisTokenStore::new(link, settings)),
        shaper,
    )
}

fn path() -> Path {
    Path::to("example.org".parse().unwrap()).from_source("192.0.2.1")
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

fn messages(rate: &str) -> Layer {
    Layer::defaults().set(Kind::Messages, &[Bound::Rate(rate.parse().unwrap())]).unwrap()
}

/// All nodes send whenever they may; what went when, in milliseconds.
fn saturate(nodes: &[Shaper], from: u64, to: u64) -> Vec<u64> {
    let mut due: BinaryHeap<Reverse<(u64, usize)>> = (0..nodes.len()).map(|n| Reverse((from, n))).collect();
    let mut sent = Vec::new();
    while let Some(Reverse((time, n))) = due.pop() {
        if time >= to {
            break;
        }
        match nodes[n].admit(&path(), Ask::message(1), ms(time)) {
            Admission::Granted(_) => {
                sent.push(time);
                due.push(Reverse((time, n)));
            }
            Admission::Later(later) => due.push(Reverse((later.until.millis() - START, n))),
        }
    }
    sent
}

fn fullest(sent: &[u64], width: u64) -> usize {
    let until = |start: u64| sent.iter().take_while(move |time| **time < start + width).count();
    sent.iter().enumerate().map(|(index, start)| until(*start) - index).max().unwrap_or(0)
}

#[test]
fn two_to_five_nodes_together_keep_to_the_limit_and_use_it() {
    let Some(server) = serve() else { return };
    for (round, (count, batch)) in (0_u64..).zip([(2, 1), (3, 1), (5, 1), (2, 4), (5, 4)]) {
        // Each round starts long after the one before, so the key has expired or is idle.
        let from = round * 3_600_000;
        let nodes: Vec<Shaper> =
            (0..count).map(|n| node(&server.socket(), n, count, batch, &messages("50/s"))).collect();
        let sent = saturate(&nodes, from, from + 20_000);
        let over = if batch == 1 { 0 } else { (count * (batch - 1)) as usize };
        eprintln!(
            "{count} nodes, batch {batch}: {} of 1000, fullest second {}",
            sent.len(),
            fullest(&sent, 1000)
        );
        assert!(fullest(&sent, 1000) <= 50 + over, "{count} nodes, batch {batch}");
        assert!(fullest(&sent, 10_000) <= 500 + over);
        assert!(sent.len() >= 950, "{count} nodes, batch {batch}: {}", sent.len());
    }
}

#[test]
fn a_lost_node_takes_no_more_than_its_batch_with_it() {
    let Some(server) = serve() else { return };
    let mut nodes: Vec<Shaper> = (0..3).map(|n| node(&server.socket(), n, 3, 1, &messages("50/s"))).collect();
    let mut sent = saturate(&nodes, 0, 10_000);
    nodes.pop();
    sent.extend(saturate(&nodes, 10_000, 20_000));
    // It comes back, without memory.
    nodes.push(node(&server.socket(), 2, 3, 1, &messages("50/s")));
    sent.extend(saturate(&nodes, 20_000, 30_000));
    assert!(fullest(&sent, 1000) <= 50);
    assert!(sent.len() >= 1425, "{}", sent.len());
}

#[test]
fn without_the_server_each_node_keeps_to_its_share() {
    let Some(server) = serve() else { return };
    for rate in ["50/s", "50/s burst 20"] {
        let nodes: Vec<Shaper> = (0..2).map(|n| node(&server.socket(), n, 2, 1, &messages(rate))).collect();
        let base = if rate.contains("burst") { 3_600_000 } else { 0 };
        let mut sent = saturate(&nodes, base, base + 5000);
        // A second server on the same socket's place would be the same to the nodes; here the socket goes away.
        let hidden = server.folder().join("hidden");
        std::fs::rename(server.socket(), &hidden).unwrap();
        let fresh: Vec<Shaper> = (0..2).map(|n| node(&server.socket(), n, 2, 1, &messages(rate))).collect();
        let alone = saturate(&fresh, base + 600_000, base + 605_000);
        assert!(fullest(&alone, 1000) <= 50 + if base == 0 { 2 } else { 20 }, "{}", fullest(&alone, 1000));
        assert!((210..=252).contains(&alone.len()), "{rate}: {} in five seconds", alone.len());
        std::fs::rename(&hidden, server.socket()).unwrap();
        sent.extend(saturate(&nodes, base + 5000, base + 10_000));
        let burst = if base == 0 { 0 } else { 20 };
        assert!(fullest(&sent, 1000) <= 50 + burst, "{rate}");
        // The nodes of the outage find the server again, and it takes their unseen use into account.
        let back = saturate(&fresh, base + 606_001, base + 610_000);
        let all: Vec<u64> = alone.iter().chain(&back).copied().collect();
        assert!(fullest(&all, 1000) <= 50 + burst + 2, "{rate}: {}", fullest(&all, 1000));
        assert!(back.len() >= 180, "{rate}: {}", back.len());
    }
}

#[test]
fn a_server_that_dies_with_its_data_lets_nobody_exceed_a_rate() {
    let Some(mut server) = serve() else { return };
    let nodes: Vec<Shaper> =
        (0..3).map(|n| node(&server.socket(), n, 3, 1, &messages("60/s burst 30"))).collect();
    let mut sent = saturate(&nodes, 0, 4000);
    server.kill();
    sent.extend(saturate(&nodes, 4000, 8000));
    server.run();
    sent.extend(saturate(&nodes, 8000, 14_000));
    assert!(fullest(&sent, 1000) <= 90 + 3, "{}", fullest(&sent, 1000));
    let late = sent.iter().filter(|time| **time >= 10_000).count();
    assert!(late >= 228, "{late} in the last four seconds");
}

#[test]
fn leases_are_shared_and_end_with_their_time() {
    let Some(server) = serve() else { return };
    let layer = Layer::defaults().set(Kind::Concurrency, &[Bound::AtMost(3)]).unwrap();
    let a = node(&server.socket(), 0, 2, 1, &layer);
    let b = node(&server.socket(), 1, 2, 1, &layer);
    let open = |node: &Shaper, time| node.admit(&path(), Ask::CONNECTION, ms(time)).granted();
    let first = open(&a, 0).unwrap();
    let mut second = open(&b, 0).unwrap();
    let third = open(&b, 0).unwrap();
    assert!(open(&a, 0).is_none());
    drop(first);
    let fourth = open(&b, 300).unwrap();
    assert!(second.renew(ms(50_000)));
    // Node b dies with its permits: what is not renewed ends after a minute, not before.
    std::mem::forget(third);
    std::mem::forget(fourth);
    assert!(open(&a, 59_900).is_none());
    let fifth = open(&a, 60_001).expect("the third lease ended");
    assert!(open(&a, 60_002).is_none(), "the second was renewed, the fourth is younger");
    drop((second, fifth));
}

#[test]
fn all_limits_of_a_decision_are_one() {
    let Some(server) = serve() else { return };
    let zone: Zone = "+02:00".parse().unwrap();
    let layer = messages("1000/s burst 1000")
        .set(Kind::Bytes, &[Bound::Rate("1000/s burst 1000".parse().unwrap())])
        .and_then(|layer| layer.set_by(Default::default(), Kind::Messages, &[Bound::Daily { cap: 5, zone }]))
        .unwrap();
    let (a, b) = (node(&server.socket(), 0, 2, 1, &layer), node(&server.socket(), 1, 2, 1, &layer));
    for n in 0..5 {
        let node = if n % 2 == 0 { &a } else { &b };
        assert!(node.admit(&path(), Ask::message(200), ms(n)).granted().is_some(), "{n}");
    }
    for node in [&a, &b] {
        let later = node.admit(&path(), Ask::message(200), ms(10)).later().unwrap();
        assert_eq!(later.until.to_string(), "2026-01-01T22:00:00.000Z");
        assert!(matches!(later.because, Because::Limit(limit) if matches!(limit.bound, Bound::Daily { .. })));
    }
    // The refused decisions took no octets: after midnight the whole burst is there.
    let midnight = 22 * 3_600_000;
    assert!(a.admit(&path(), Ask::message(1000), ms(midnight)).granted().is_some());
    let later = b.admit(&path(), Ask::message(1000), ms(midnight)).later().unwrap();
    assert_eq!(later.until, ms(midnight + 1000));
}

#[test]
fn the_servers_own_clock_works_as_well() {
    let Some(server) = serve() else { return };
    let link = RedisLink::new(Address::Unix(server.socket()), Duration::from_secs(5));
    let store = RedisTokenStore::new(link, RedisSettings::for_node(0, 1));
    let policy = Policy::new().with(messages("2/d burst 2"));
    let mut settings = Settings::default();
    settings.adapt = None;
    let shaper = Shaper::with_settings(policy, Arc::new(store), settings);
    // Whatever we think the time is.
    assert!(shaper.admit(&path(), Ask::message(1), ms(0)).granted().is_some());
    assert!(shaper.admit(&path(), Ask::message(1), ms(999_999_999)).granted().is_some());
    let later = shaper.admit(&path(), Ask::message(1), ms(5)).later().unwrap();
    let wait = later.until.since(ms(5));
    assert!(wait > Duration::from_secs(40_000) && wait <= Duration::from_secs(43_201), "{wait:?}");
}

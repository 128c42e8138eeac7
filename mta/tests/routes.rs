//! The limits of routes, in virtual time: two routes lead to one smart host, and what one may do says nothing about the
//! other. What is asserted was seen by the smart host.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::bounce::classify::Classifier;
use postwright::core::{BoxFuture, Envelope, MemoryZone, Message, ReversePath, SeededEntropy, World};
use postwright::queue::MemorySpool;
use postwright::shaping::{Bound, Dimension, Kind, Layer, MemoryTokenStore, Policy, Scope, Shaper};
use postwright::smtp_client::{BoxIo, Client, Connector, Target, Trust};
use postwright::{Class, Mta, RouteRule, Routes, Shaped, Via};
use postwright_testkit::PausedClock;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

#[path = "support/remote.rs"]
mod remote;

/// One connection: when it was opened and closed, and when each message came, by its subject.
#[derive(Debug, Clone)]
struct Seen {
    opened: Instant,
    closed: Option<Instant>,
    mails: Vec<(Instant, String)>,
}

#[derive(Default, Clone)]
struct SmartHost(Arc<Mutex<Vec<Seen>>>);

impl Connector for SmartHost {
    fn connect<'a>(&'a self, target: &'a Target, _: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        assert_eq!(target.address.to_string(), "192.0.2.9:587", "there is nobody else");
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let number = {
            let mut all = self.0.lock().unwrap();
            all.push(Seen { opened: Instant::now(), closed: None, mails: Vec::new() });
            all.len() - 1
        };
        let seen = self.0.clone();
        tokio::spawn(async move {
            let took = |subject| seen.lock().unwrap()[number].mails.push((Instant::now(), subject));
            let _ = remote::serve(theirs, remote::Fault::None, Duration::from_millis(50), took).await;
            seen.lock().unwrap()[number].closed = Some(Instant::now());
        });
        Box::pin(async { Ok(Box::new(ours) as BoxIo) })
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// As `serve` makes it of a `[[route]]` with a name.
fn limits(name: &str) -> Layer {
    let (layer, site) = (Layer::of(Dimension::Site, name), Scope::of(&[Dimension::Site]));
    let layer = layer.set_by(site, Kind::Concurrency, &[Bound::AtMost(2)]).unwrap();
    let layer = layer.set_by(site, Kind::MessagesPerConnection, &[Bound::AtMost(5)]).unwrap();
    layer.set_by(site, Kind::Messages, &[Bound::Rate("30/min".parse().unwrap())]).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_route_hold_for_it_alone() {
    let there = SmartHost::default();
    let world = World {
        clock: PausedClock::start(),
        entropy: Arc::new(SeededEntropy::new(7)),
        resolver: Arc::new(MemoryZone::parse("relay.test. A 192.0.2.9\n").unwrap()),
    };
    let client = Client::new(&Trust::Roots(Vec::new()), world.clock.clone()).unwrap();
    let relay: Via = "relay.test:587".parse().unwrap();
    let routes = Routes::mx()
        .with(RouteRule::new(relay.clone()).for_stream("bulk").named("bulk"))
        .or_else(RouteRule::new(relay));
    routes.check().unwrap();
    let shaper = Shaper::new(Policy::new().with(limits("bulk")), Arc::new(MemoryTokenStore::new()));
    let pace = Shaped::new(Arc::new(shaper), Arc::new(Classifier::built_in()));
    let client = client.with_connector(Arc::new(there.clone()));
    let mta = Mta::builder("mta.test".parse().unwrap(), world, Arc::new(MemorySpool::default()), client)
        .routes(routes)
        .classes(|_, envelope| {
            let sender = envelope.reverse_path.mailbox().map_or("", |mailbox| mailbox.local());
            Class { tenant: "".into(), stream: sender.into() }
        })
        .pace(Arc::new(pace))
        .build();
    for number in 0..90 {
        // Recipients at address literals count like all others.
        let to =
            if number % 10 == 0 { "u@[203.0.113.1]".to_owned() } else { format!("u@d{}.test", number % 7) };
        for stream in ["bulk", "mail"] {
            let sender: ReversePath = format!("{stream}@a.test").parse().unwrap();
            let text = format!("Subject: {stream} {number}\r\n\r\nx\r\n").into_bytes();
            mta.submit(&Envelope::new(sender, [to.parse().unwrap()]), Message::from_bytes(text))
                .await
                .unwrap();
        }
    }
    let start = Instant::now();
    let mails = |stream: &str| -> Vec<Instant> {
        let all = there.0.lock().unwrap();
        let mails = all.iter().flat_map(|seen| &seen.mails);
        let mut times: Vec<Instant> =
            mails.filter(|(_, subject)| subject.starts_with(stream)).map(|(at, _)| *at).collect();
        times.sort();
        times
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let watch = async {
        while mails("bulk").len() + mails("mail").len() < 180 {
            assert!(start.elapsed() < 10 * MINUTE, "{} {}", mails("bulk").len(), mails("mail").len());
            sleep(Duration::from_secs(1)).await;
        }
        drop(stop);
    };
    tokio::join!(mta.run(async { drop(stopped.await) }), watch);

    let bulk = mails("bulk");
    for (first, later) in bulk.iter().zip(bulk.iter().skip(30)) {
        assert!(
            *later - *first >= MINUTE - Duration::from_millis(500),
            "31 messages within {:?}",
            *later - *first
        );
    }
    // 90 at 30 a minute, the first at once.
    let took = *bulk.last().unwrap() - start;
    assert!(took > 2 * MINUTE && took < 4 * MINUTE, "{took:?}");
    let others = *mails("mail").last().unwrap() - start;
    assert!(others < MINUTE / 4, "the other route waited for nothing: {others:?}");
    let all = there.0.lock().unwrap().clone();
    let of_bulk: Vec<&Seen> =
        all.iter().filter(|seen| seen.mails.iter().any(|(_, subject)| subject.starts_with("bulk"))).collect();
    for seen in &of_bulk {
        assert!(seen.mails.len() <= 5, "{seen:?}");
        assert!(seen.mails.iter().all(|(_, subject)| subject.starts_with("bulk")), "{seen:?}");
        let beside = of_bulk.iter().filter(|other| {
            other.opened <= seen.opened && other.closed.is_none_or(|closed| closed > seen.opened)
        });
        assert!(beside.count() <= 2, "three connections at {:?}", seen.opened - start);
    }
    assert!(of_bulk.len() >= 18, "{}", of_bulk.len());
}

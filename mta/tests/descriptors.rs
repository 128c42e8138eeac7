//! The leak oracle of the process itself: after remotes that misbehave over real sockets, there are as many open
//! descriptors as before. Alone in its program, since whatever else runs has descriptors of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postwright::core::{
    BoxFuture, Envelope, Mailbox, MemoryZone, Message, ReversePath, SeededEntropy, SystemClock, World,
};
use postwright::queue::MemorySpool;
use postwright::smtp_client::{BoxIo, Client, Connector, Target, TcpConnector, Trust};
use postwright::{Event, Mta};
use remote::Fault;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[path = "support/remote.rs"]
mod remote;

const MESSAGES: usize = 20;
/// How long a server may be silent. The message's lifetime ends the attempt, as it would in the field after days.
const LIFETIME: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(30);

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// All servers are this one.
struct Loopback(SocketAddr);

impl Connector for Loopback {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            TcpConnector.connect(&Target { host: target.host.clone(), address: self.0 }, source).await
        })
    }
}

/// Mail through a whole system to one such server, until every recipient has its end; says how many connections
/// there were. Nothing of it is left when it returns.
async fn run(fault: Fault) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = connections.clone();
    let server = tokio::spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (io, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            open.spawn(remote::serve(io, fault, Duration::ZERO, drop));
        }
    });
    let clock = Arc::new(SystemClock::new());
    let zone: String = (0..4)
        .map(|i| format!("d{i}.test. MX 10 mx.d{i}.test.\nmx.d{i}.test. A 192.0.2.{}\n", i + 1))
        .collect();
    let world = World {
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(7)),
        resolver: Arc::new(MemoryZone::parse(&zone).unwrap()),
    };
    let client = Client::new(&Trust::Roots(Vec::new()), clock).unwrap();
    let seen = ends.clone();
    let observer = move |event: &Event<'_>| {
        if let Event::Delivered { .. } | Event::Bounced { .. } | Event::Expired { .. } = event {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    };
    let spool = Arc::new(MemorySpool::default());
    let mta = Mta::builder(
        "mta.test".parse().unwrap(),
        world,
        spool,
        client.with_connector(Arc::new(Loopback(address))),
    )
    .settings(|settings| {
        settings.lifetime = LIFETIME;
        settings.retry.first = Duration::from_millis(300);
        settings.retry.longest = Duration::from_millis(300);
        settings.warn_after = None;
        settings.drain_timeout = Duration::from_secs(1);
    })
    .observer(Arc::new(observer))
    .build();
    for number in 0..MESSAGES {
        let to: Mailbox = format!("r{number}@d{}.test", number % 4).parse().unwrap();
        let mut envelope = Envelope::new("a@mta.test".parse::<Mailbox>().unwrap(), [to]);
        envelope.reverse_path = ReversePath::Null;
        mta.submit(&envelope, Message::from_bytes(&b"Subject: x\r\n\r\nx\r\n"[..])).await.unwrap();
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let watch = async {
        while ends.load(Ordering::SeqCst) < MESSAGES {
            sleep(Duration::from_millis(20)).await;
        }
        drop(stop);
    };
    let whole = async { tokio::join!(mta.run(async { drop(stopped.await) }), watch) };
    assert!(timeout(PATIENCE, whole).await.is_ok(), "{fault:?}: {ends:?} of {MESSAGES} have come to an end");
    drop(mta);
    server.abort();
    let _ = server.await;
    connections.load(Ordering::SeqCst)
}

#[tokio::test]
async fn descriptors_are_back_to_what_they_were_after_every_fault() {
    // What is opened once for good, such as the runtime's own, is opened by now.
    assert!(run(Fault::None).await > 0);
    let before = settled(0).await;
    for fault in [
        Fault::None,
        Fault::ClosesAtOnce,
        Fault::NeverGreets,
        Fault::RepliesWithAMegabyte,
        Fault::RepliesWithoutEnd,
        Fault::HangsInTheHandshake,
        Fault::HangsAfterData,
        Fault::ClosesAfterTheDot,
        Fault::HangsAfterTheDot,
        Fault::Says421ToMail,
        Fault::RefusesEveryRecipient,
    ] {
        assert!(run(fault).await > 0, "{fault:?}: nobody connected");
        assert_eq!(settled(before).await, before, "{fault:?}: descriptors are left");
    }
    // The oracle itself: one that is kept is seen.
    let kept = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(descriptors(), before + 1);
    drop(kept);
}

/// The count, once tasks that were ended have let go of theirs; at most five seconds are given for `expected`.
async fn settled(expected: usize) -> usize {
    for _ in 0..if expected == 0 { 10 } else { 250 } {
        if descriptors() == expected {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    descriptors()
}

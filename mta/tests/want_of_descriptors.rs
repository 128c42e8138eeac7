//! Want of file descriptors on the way out: mail waits, nothing bounces, and it leaves once there are some again
//! (FAULTS D3).
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postwright::core::{
    BoxFuture, Domain, Envelope, Mailbox, MemoryZone, Message, Recipient, Refusal, SeededEntropy,
    SystemClock, World,
};
use postwright::queue::MemorySpool;
use postwright::smtp_client::{BoxIo, Client, Connector, Target, TcpConnector, Trust};
use postwright::smtp_server::{Accepted, Handler, Server, ServerConfig, Session};
use postwright::{Event, Mta};
use postwright_testkit::descriptors;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

#[test]
fn delivering_survives_want_of_descriptors() {
    descriptors::run_with_few("in_a_process_with_few_descriptors");
}

struct Inbox;

impl Handler for Inbox {
    async fn rcpt(&mut self, _: &Session, _: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        Ok(())
    }

    async fn message(&mut self, _: &Session, _: &Envelope, _: Message) -> Result<Accepted, Refusal> {
        Ok(Accepted::default())
    }
}

/// All hosts are this one. Notes whether the system had no descriptor for a connection.
struct Loopback(SocketAddr, Arc<AtomicBool>);

impl Connector for Loopback {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let to = Target { host: target.host.clone(), address: self.0 };
            let result = TcpConnector.connect(&to, source).await;
            // EMFILE (errno(3)): 24 on every Unix that we know.
            if result.as_ref().is_err_and(|error| error.raw_os_error() == Some(24)) {
                self.1.store(true, Ordering::SeqCst);
            }
            result
        })
    }
}

/// Does nothing unless the other test runs it.
#[tokio::test]
async fn in_a_process_with_few_descriptors() {
    if !descriptors::are_few() {
        return;
    }
    let server = Server::new(
        ServerConfig::new("mx.x.test".parse::<Domain>().unwrap()),
        Arc::new(SystemClock::new()),
        |_: &_| async { Ok(Inbox) },
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { server.serve(listener, std::future::pending::<()>()).await });
    let clock = Arc::new(SystemClock::new());
    let zone = "x.test. MX 10 mx.x.test.\nmx.x.test. A 192.0.2.1\n";
    let world = World {
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(7)),
        resolver: Arc::new(MemoryZone::parse(zone).unwrap()),
    };
    let wanted = Arc::new(AtomicBool::new(false));
    let client = Client::new(&Trust::Roots(Vec::new()), clock).unwrap();
    let client = client.with_connector(Arc::new(Loopback(address, wanted.clone())));
    let (tell, mut told) = mpsc::unbounded_channel();
    let observer = move |event: &Event<'_>| {
        let what = match event {
            Event::Delivered { .. } => "delivered".to_owned(),
            Event::Deferred { status, .. } => format!("deferred {}", status.status),
            Event::Bounced { .. } | Event::Expired { .. } => "lost".to_owned(),
            _ => return,
        };
        let _ = tell.send(what);
    };
    let mta = Mta::builder("mta.test".parse().unwrap(), world, Arc::new(MemorySpool::default()), client)
        .settings(|settings| {
            settings.retry.first = Duration::from_millis(300);
            settings.retry.longest = Duration::from_millis(300);
        })
        .observer(Arc::new(observer))
        .build();
    // Everything that is left is taken.
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
        assert!(held.len() < 100, "the limit does not hold");
    }
    let envelope = Envelope::new("a@mta.test".parse::<Mailbox>().unwrap(), ["b@x.test".parse().unwrap()]);
    mta.submit(&envelope, Message::from_bytes(&b"Subject: x\r\n\r\nx\r\n"[..])).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let watch = async {
        let mut next =
            async || tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
        assert_eq!(next().await, "deferred 4.4.1");
        assert!(wanted.load(Ordering::SeqCst), "it was for another reason");
        held.clear();
        while let what = next().await
            && what != "delivered"
        {
            assert_eq!(what, "deferred 4.4.1");
        }
        drop(stop);
    };
    tokio::join!(mta.run(async { drop(stopped.await) }), watch);
    println!("{}", descriptors::DONE);
}

//! Where the time of a delivery goes, in paused time: what the script waits in a phase is what is told of it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use postwright_testkit::PausedClock;

use crate::peer::{ONE, Scripts, certificate, hosts, shown, transaction};
use postwright_core::{BoxFuture, Domain};
use postwright_smtp_client::policy::{Attempt, Decision, Source};
use postwright_smtp_client::{BoxIo, Client, Connector, Demand, Options, Target, Trust};
use postwright_smtp_proto::client::{Config, StartTls};
use tokio::time::sleep;

/// A network on which a connection takes a second.
struct Slow(Arc<Scripts>);

impl Connector for Slow {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            self.0.connect(target, source).await
        })
    }
}

fn seconds(spans: &[Duration]) -> Vec<u64> {
    // Whole seconds, and nothing beside them: time is virtual.
    assert!(spans.iter().all(|span| span.subsec_nanos() == 0), "{spans:?}");
    spans.iter().map(Duration::as_secs).collect()
}

#[tokio::test(start_paused = true)]
async fn each_phase_is_charged_what_it_took() {
    let (acceptor, root) = certificate(&["mx2.x.example"], false);
    let good = "WAIT 2\nS: 220 mx\nC: EHLO client.example\nWAIT 3\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nWAIT 4\n\
        S: 220 go\nTLS\nC: EHLO client.example\nS: 250 mx\nC: MAIL FROM:<a@client.example>\nWAIT 5\nS: 250 ok\n\
        C: RCPT TO:<b@x.example>\nWAIT 6\nS: 250 ok\nC: DATA\nWAIT 7\nS: 354 go\nBODY\nWAIT 8\nS: 250 ok\n";
    let again = ONE
        .replace("C: RCPT", "S: 250 ok\nC: RCPT")
        .replace("C: DATA\nS: 250 ok\nS: 250 ok", "S: 250 ok\nC: DATA\nWAIT 9");
    let good = format!("{good}{again}");
    // The first host is down, the second one refuses after a while.
    let scripts = Scripts::new(&[None, Some("WAIT 20\nS: 421 busy"), Some(&good)], Some(acceptor));
    let client = Client::new(&Trust::Roots(vec![root]), PausedClock::start()).unwrap();
    let client = client.with_connector(Arc::new(Slow(scripts.clone())));
    let mut config = Config::new("client.example".parse::<Domain>().unwrap());
    config.starttls = StartTls::Opportunistic;
    let decision = Decision {
        starttls: StartTls::Opportunistic,
        demand: Demand::Nothing,
        source: Source::Opportunistic,
        reason: "a test".into(),
    };
    let attempt =
        |target| Attempt { target, options: Options::new(config.clone()), decision: decision.clone() };
    let attempts: Vec<Attempt> = hosts(3).into_iter().map(attempt).collect();
    let sent = client.deliver_timed(&attempts, transaction(), None).await;
    assert_eq!(shown(&sent.report), ["Delivered 2.0.0 end-of-data"], "{:?}", scripts.log());
    let spent = sent.timings;
    let seen = seconds(&[
        spent.resolve,
        spent.connect,
        spent.greeting,
        spent.tls,
        spent.auth,
        spent.envelope,
        spent.data,
        spent.total,
    ]);
    assert_eq!(seen, [0, 3, 25, 4, 0, 18, 8, 58]);
    assert_eq!(
        spent.to_string(),
        "connect=3000ms greeting=25000ms tls=4000ms envelope=18000ms data=8000ms total=58000ms"
    );

    // The same connection, after it was idle: only what was said since.
    let mut connection = sent.connection.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert!(connection.is_alive().await);
    let report = connection.deliver(transaction()).await;
    assert!(report.is_success(), "{:?} {:?}", shown(&report), scripts.log());
    let spent = connection.take_timings();
    assert_eq!(
        seconds(&[spent.connect, spent.greeting, spent.tls, spent.envelope, spent.data]),
        [0, 0, 0, 9, 0]
    );
    assert_eq!(connection.take_timings(), Default::default(), "asked once");
}

//! The whole way of a message with real TLS: which hosts are tried, what DANE, MTA-STS and REQUIRETLS demand, and
//! that everything is given back in the end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::{
    BoxFuture, Domain, EnhancedStatus, Envelope, Mailbox, MemoryZone, Message, Outcome, Recipient, Refusal,
    SeededEntropy, SystemClock, Timestamp, World,
};
use postwright::queue::MemorySpool;
use postwright::smtp_client::sts::{Fetch, FetchError, Fetched, MemoryStore};
use postwright::smtp_client::{BoxIo, Client, Connector, Target, TcpConnector, Trust};
use postwright::smtp_server::{Accepted, Counters, Handler, Server, ServerConfig, Session};
use postwright::{Departure, Event, Exit, Mta, MtaSts, NotNow, Observer, Pace, Pass, Sent};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

#[cfg(all(feature = "https", feature = "hickory", feature = "webpki-roots"))]
#[path = "../examples/deliver.rs"]
#[allow(dead_code, reason = "its `main` reads a command line")]
mod example;

/// What became of a recipient: `delivered`, `deferred` or `bounced`, its status, and whether TLS was verified.
type Fate = (&'static str, String, Option<bool>);

struct Told(mpsc::UnboundedSender<Fate>);

impl Observer for Told {
    fn event(&self, event: &Event<'_>) {
        let (what, status) = match event {
            Event::Delivered { status, .. } => ("delivered", status),
            Event::Deferred { status, .. } => ("deferred", status),
            Event::Bounced { status, .. } => ("bounced", status),
            _ => return,
        };
        let tls = status.remote.as_ref().and_then(|remote| remote.tls.as_ref()).map(|tls| tls.verified);
        let _ = self.0.send((what, status.status.to_string(), tls));
    }
}

#[derive(Clone)]
struct Inbox(Arc<Mutex<usize>>);

impl Handler for Inbox {
    async fn rcpt(&mut self, _: &Session, _: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        Ok(())
    }

    async fn message(&mut self, _: &Session, _: &Envelope, _: Message) -> Result<Accepted, Refusal> {
        *self.0.lock().unwrap() += 1;
        Ok(Accepted::default())
    }
}

/// A receiving host with TLS and its certificate.
struct Receiver {
    address: SocketAddr,
    inbox: Inbox,
    counters: Arc<Counters>,
    certificate: Vec<u8>,
    _stop: oneshot::Sender<()>,
}

async fn receiver(name: &str) -> Receiver {
    receiver_with(name, false).await
}

/// The same, or one that greets everybody with a refusal.
async fn receiver_with(name: &str, refuses: bool) -> Receiver {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = ServerConfig::new(name.parse::<Domain>().unwrap()).with_starttls(Arc::new(tls));
    let inbox = Inbox(Arc::default());
    let handler = inbox.clone();
    let acceptor = move |_: &_| {
        let handler = handler.clone();
        let refusal = Refusal::known(554, EnhancedStatus::known(5, 7, 1), "We take no mail");
        async move { if refuses { Err(refusal) } else { Ok(handler) } }
    };
    let server = Server::new(config, Arc::new(SystemClock::new()), acceptor);
    let counters = server.counters();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
    Receiver { address, inbox, counters, certificate: made.cert.der().to_vec(), _stop: stop }
}

/// Addresses of the zone lead to loopback ports; all others refuse.
struct Network(BTreeMap<IpAddr, SocketAddr>);

impl Connector for Network {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let address = *self.0.get(&target.address.ip()).ok_or(io::ErrorKind::ConnectionRefused)?;
            TcpConnector.connect(&Target { host: target.host.clone(), address }, source).await
        })
    }
}

/// Serves one policy text for every domain.
struct OnePolicy(&'static str);

impl Fetch for OnePolicy {
    fn get<'a>(&'a self, _: &'a str, _: usize, _: Duration) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        let body = self.0.as_bytes().to_vec();
        Box::pin(async { Ok(Fetched { status: 200, content_type: "text/plain".into(), body }) })
    }
}

/// Sends one message to `joe@example.test` through a system on this zone, with `mx.example.test` at 192.0.2.1, and
/// says what became of it first. Everything is stopped and counted before it returns.
async fn send(zone: &str, there: &Receiver, sts: Option<&'static str>, require_tls: bool) -> Fate {
    send_at(zone, there, sts, require_tls, None, b"Subject: x\r\n\r\nx\r\n").await
}

/// The same at a pace, with a message.
async fn send_at(
    zone: &str,
    there: &Receiver,
    sts: Option<&'static str>,
    require_tls: bool,
    pace: Option<Arc<dyn Pace>>,
    text: &'static [u8],
) -> Fate {
    let world = World {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SeededEntropy::new(1)),
        resolver: Arc::new(MemoryZone::parse(zone).unwrap()),
    };
    let network = Network(BTreeMap::from([("192.0.2.1".parse().unwrap(), there.address)]));
    let client = Client::new(&Trust::Roots(Vec::new()), world.clock.clone()).unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut builder = Mta::builder(
        "mta.test".parse().unwrap(),
        world,
        Arc::new(MemorySpool::default()),
        client.with_connector(Arc::new(network)),
    )
    .observer(Arc::new(Told(tell)));
    if let Some(pace) = pace {
        builder = builder.pace(pace);
    }
    if let Some(policy) = sts {
        builder = builder
            .mta_sts(MtaSts { fetch: Arc::new(OnePolicy(policy)), store: Arc::new(MemoryStore::default()) });
    }
    let mta = builder.build();
    let mut envelope =
        Envelope::new("a@mta.test".parse::<Mailbox>().unwrap(), ["joe@example.test".parse().unwrap()]);
    envelope.options.require_tls = require_tls;
    mta.submit(&envelope, Message::from_bytes(text)).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = mta.run(async { drop(stopped.await) });
    let wait = async {
        let fate = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
        stop.send(()).unwrap();
        fate
    };
    let ((), fate) = tokio::join!(run, wait);
    // The leak oracle: the system is stopped, so every connection of it ends.
    while there.counters.open() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fate
}

const MX: &str = "example.test. MX 10 mx.example.test.\nmx.example.test. A 192.0.2.1\n";

fn tlsa(certificate: &[u8]) -> String {
    let hex: String = certificate.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{MX}$SECURE test.\n_25._tcp.mx.example.test. TLSA 3 0 0 {hex}\n")
}

#[tokio::test]
async fn without_a_policy_tls_is_tried_and_any_certificate_will_do() {
    let there = receiver("mx.example.test").await;
    let fate = send(MX, &there, None, false).await;
    assert_eq!(fate, ("delivered", "2.0.0".to_owned(), Some(false)));
    assert_eq!(*there.inbox.0.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_matching_tlsa_record_verifies_and_another_one_delays() {
    let there = receiver("mx.example.test").await;
    let (what, _, tls) = send(&tlsa(&there.certificate), &there, None, false).await;
    assert_eq!((what, tls), ("delivered", Some(true)));
    let other = receiver("mx.example.test").await;
    let (what, status, _) = send(&tlsa(&other.certificate), &there, None, false).await;
    assert_eq!((what, status.as_str()), ("deferred", "4.7.5"));
    assert_eq!(*there.inbox.0.lock().unwrap(), 1, "only the first message arrived");
}

#[tokio::test]
async fn bogus_tlsa_records_delay_and_never_downgrade() {
    let there = receiver("mx.example.test").await;
    let zone = format!("{MX}$SECURE test.\n_25._tcp.mx.example.test. TLSA BOGUS\n");
    let (what, status, _) = send(&zone, &there, None, false).await;
    assert_eq!((what, status.as_str()), ("deferred", "4.7.5"));
    assert_eq!(*there.inbox.0.lock().unwrap(), 0);
}

#[tokio::test]
async fn an_enforced_sts_policy_needs_a_listed_host_and_a_valid_certificate() {
    let there = receiver("mx.example.test").await;
    let zone = format!("{MX}_mta-sts.example.test. TXT \"v=STSv1; id=1;\"\n");
    for mx in [
        "version: STSv1\nmode: enforce\nmx: other.example.test\nmax_age: 86400\n",
        // Listed, but nobody vouches for its certificate.
        "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 86400\n",
    ] {
        let (what, status, _) = send(&zone, &there, Some(mx), false).await;
        assert_eq!((what, status.as_str()), ("deferred", "4.7.5"), "{mx}");
    }
    let testing = "version: STSv1\nmode: testing\nmx: other.example.test\nmax_age: 86400\n";
    assert_eq!(send(&zone, &there, Some(testing), false).await.0, "delivered");
    assert_eq!(*there.inbox.0.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_message_that_requires_tls_fails_where_nobody_vouches_for_the_host() {
    let there = receiver("mx.example.test").await;
    let (what, status, _) = send(MX, &there, None, true).await;
    assert_eq!((what, status.as_str()), ("bounced", "5.7.30"));
    assert_eq!(*there.inbox.0.lock().unwrap(), 0);
}

#[tokio::test]
async fn the_next_host_is_tried_when_the_first_is_down() {
    let there = receiver("mx2.example.test").await;
    let zone = "example.test. MX 10 mx1.example.test.\nexample.test. MX 20 mx2.example.test.\n\
                mx1.example.test. A 192.0.2.9\nmx2.example.test. A 192.0.2.1\n";
    assert_eq!(send(zone, &there, None, false).await.0, "delivered");
}

#[tokio::test]
async fn a_refusal_counts_for_good_only_if_no_host_was_left_out() {
    let there = receiver_with("mx2.example.test", true).await;
    let zone = "example.test. MX 10 mx1.example.test.\nexample.test. MX 20 mx2.example.test.\n\
                mx1.example.test. A 192.0.2.9\nmx2.example.test. A 192.0.2.1\n$SECURE test.\n";
    let alone = zone.replace("example.test. MX 10 mx1.example.test.\n", "");
    let (what, status, _) = send(&alone, &there, None, false).await;
    assert_eq!((what, status.as_str()), ("bounced", "5.7.1"));
    // Nobody knows what the first one would say: it must not be asked as long as its records are bogus.
    let bogus = format!("{zone}_25._tcp.mx1.example.test. TLSA BOGUS\n");
    let (what, status, _) = send(&bogus, &there, None, false).await;
    assert_eq!((what, status.as_str()), ("deferred", "4.7.5"));
}

#[tokio::test]
async fn five_answers_of_dns_have_five_fates() {
    let there = receiver("mx.example.test").await;
    for (zone, fate, status) in [
        ("other.test. A 192.0.2.1", "bounced", "5.1.2"),
        ("example.test. TXT x", "bounced", "5.1.2"),
        ("example.test. MX 0 .", "bounced", "5.1.10"),
        ("example.test. SERVFAIL", "deferred", "4.4.3"),
        ("example.test. TIMEOUT", "deferred", "4.4.3"),
        ("example.test. BOGUS", "deferred", "4.4.3"),
        ("example.test. MX 10 gone.example.test.", "bounced", "5.4.4"),
    ] {
        let (what, code, _) = send(zone, &there, None, false).await;
        assert_eq!((what, code.as_str()), (fate, status), "{zone}");
    }
}

/// Says "not now" twice, then yes; counts what it hears and the passes that came back.
#[derive(Default)]
struct Slow {
    asked: AtomicUsize,
    heard: AtomicUsize,
    passes: Arc<()>,
}

impl Pace for Slow {
    fn admit(&self, departure: Departure<'_>, now: Timestamp) -> Result<Pass, NotNow> {
        assert_eq!(departure.domain.as_str(), "example.test");
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Err(NotNow::new(now + Duration::from_millis(50), "told to")),
            _ => Ok(Pass::new(self.passes.clone())),
        }
    }

    fn admit_on(&self, _: Departure<'_>, _: Option<&Exit>, _: Timestamp) -> Result<(), NotNow> {
        panic!("there is one message only");
    }

    fn observe(&self, _: Departure<'_>, sent: Sent<'_>, _: Timestamp) {
        assert_eq!(Arc::strong_count(&self.passes), 2, "heard while the pass is held");
        assert!(sent.new_connection);
        assert_eq!(
            sent.statuses.iter().map(|status| status.outcome).collect::<Vec<_>>(),
            [Outcome::Delivered]
        );
        self.heard.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_pace_puts_off_without_costing_a_try() {
    let there = receiver("mx.example.test").await;
    let pace = Arc::new(Slow::default());
    // The first fate that is told is the delivery: being put off is no deferral.
    let fate = send_at(MX, &there, None, false, Some(pace.clone()), b"\r\n").await;
    assert_eq!(fate.0, "delivered");
    assert_eq!((pace.asked.load(Ordering::SeqCst), pace.heard.load(Ordering::SeqCst)), (3, 1));
    assert_eq!(Arc::strong_count(&pace.passes), 1, "the pass came back");
}

#[tokio::test]
async fn a_message_may_ask_to_be_delivered_whatever_is_wrong_with_tls() {
    let there = receiver("mx.example.test").await;
    let other = receiver("mx.example.test").await;
    // A TLSA record that does not match, and an MTA-STS policy that names somebody else.
    let zone = format!("{}_mta-sts.example.test. TXT \"v=STSv1; id=1;\"\n", tlsa(&other.certificate));
    let sts = Some("version: STSv1\nmode: enforce\nmx: other.example.test\nmax_age: 86400\n");
    let asks: &[u8] = b"Subject: x\r\nTLS-Required: No\r\n\r\nx\r\n";
    let fate = send_at(&zone, &there, sts, false, None, asks).await;
    // RFC 8689 5: TLS is still tried.
    assert_eq!((fate.0, fate.2), ("delivered", Some(false)));
    // REQUIRETLS wins over it (RFC 8689 4.1).
    assert_eq!(send_at(&zone, &there, sts, true, None, asks).await.0, "deferred");
    let body: &[u8] = b"Subject: x\r\n\r\nTLS-Required: No\r\n";
    assert_eq!(send_at(&zone, &there, sts, false, None, body).await.0, "deferred");
    assert_eq!(*there.inbox.0.lock().unwrap(), 1);
}

/// The example's own function, without its command line.
#[cfg(all(feature = "https", feature = "hickory", feature = "webpki-roots"))]
#[tokio::test]
async fn the_example_says_what_was_decided_and_why() {
    use postwright::smtp_client::Options;
    use postwright::smtp_client::sts::Finder;
    use postwright::smtp_proto::client::{Config, Transaction};
    let there = receiver("mx.example.test").await;
    let sts = format!("{MX}_mta-sts.example.test. TXT \"v=STSv1; id=1;\"\n");
    let enforce = |mx: &str| format!("version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n");
    let host = "mx.example.test 192.0.2.1:25";
    for (zone, policy, expected) in [
        (MX.to_owned(), None, vec![format!("{host}: opportunistic: "), "Delivered 2.0.0: ".to_owned()]),
        (
            tlsa(&there.certificate),
            None,
            vec![format!("{host}: dane: secure TLSA"), "Delivered 2.0.0: ".to_owned()],
        ),
        (
            format!("{MX}$SECURE test.\n_25._tcp.mx.example.test. TLSA BOGUS\n"),
            None,
            vec!["mx.example.test is left out: Delayed 4.7.5: look-up: the DNS answer is bogus".to_owned()],
        ),
        (
            sts.clone(),
            Some(enforce("other.example.test")),
            vec!["mx.example.test is left out: Delayed 4.7.5: TLS: the domain's MTA-STS policy".to_owned()],
        ),
        // Named, but nobody vouches for its certificate.
        (
            sts,
            Some(enforce("*.example.test")),
            vec![format!("{host}: mta-sts: "), "Delayed 4.7.5: ".to_owned()],
        ),
        ("other.test. A 192.0.2.1".to_owned(), None, vec!["Failed 5.1.2: ".to_owned()]),
    ] {
        let clock = Arc::new(SystemClock::new());
        let network = Network(BTreeMap::from([("192.0.2.1".parse().unwrap(), there.address)]));
        let client = Client::new(&Trust::Roots(Vec::new()), clock.clone()).unwrap();
        let client = client.with_connector(Arc::new(network));
        let resolver = Arc::new(MemoryZone::parse(&zone).unwrap());
        let world = World { clock, entropy: Arc::new(SeededEntropy::new(1)), resolver };
        let fetch = Arc::new(OnePolicy(policy.unwrap_or_default().leak()));
        let finder = Finder::new(fetch, Arc::new(MemoryStore::default()));
        let envelope =
            Envelope::new("a@mta.test".parse::<Mailbox>().unwrap(), ["joe@example.test".parse().unwrap()]);
        let mail = Transaction { envelope, message: Message::from_bytes(&b"Subject: x\r\n\r\nx\r\n"[..]) };
        let options = Options::new(Config::new("mta.test".parse::<Domain>().unwrap()));
        let lines = example::deliver(&world, &finder, &client, &options, mail).await;
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, start) in lines.iter().zip(&expected) {
            assert!(line.starts_with(start), "{line:?} does not begin with {start:?}");
        }
    }
    assert_eq!(*there.inbox.0.lock().unwrap(), 2);
}

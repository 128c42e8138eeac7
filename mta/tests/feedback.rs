//! What comes back, through the library: scopes, matching without a signature, rates and their levels, the store on disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::bounce::rates::{Key, Level};
use postwright::bounce::suppress::{Entry as Suppressed, MemorySuppressions, Reason, Scope, Suppressions};
use postwright::bounce::verp::Signer;
use postwright::core::{
    Clock, Domain, EnhancedStatus, Envelope, Mailbox, MemoryZone, Message, Recipient, Refusal, SeededEntropy,
    SystemClock, Timestamp, World,
};
use postwright::feedback::{
    Departed, Feedback, FeedbackEvent, FeedbackOptions, FeedbackStore, Ignored, Incoming, Journal,
    MemoryJournal, StoreError, Trail, on_feedback,
};
use postwright::queue::{MemorySpool, SpoolId};
use postwright::smtp_client::{Client, Trust};
use postwright::smtp_server::{Accepted, Handler, Server, ServerConfig, Session};
use postwright::{Mta, Routes};
use tokio::net::TcpListener;

const KEY: &[u8] = b"0123456789abcdef";

fn domain() -> Domain {
    "bounces.test".parse().unwrap()
}

fn feedback(list: Arc<dyn Suppressions>, journal: Arc<dyn Journal>) -> Feedback {
    let mut options = FeedbackOptions::default();
    options.domain = Some(domain());
    options.signer = Signer::new(&[KEY], domain());
    options.levels.least = 4;
    Feedback::new(options, list, journal)
}

/// Refuses whoever is called `gone`, for good and by name.
#[derive(Clone)]
struct Remote(Arc<Mutex<Vec<String>>>);

impl Handler for Remote {
    async fn rcpt(&mut self, _: &Session, to: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        if to.mailbox.local().starts_with("gone") {
            return Err(Refusal::known(550, EnhancedStatus::known(5, 1, 1), "no such user"));
        }
        Ok(())
    }

    async fn message(&mut self, _: &Session, envelope: &Envelope, _: Message) -> Result<Accepted, Refusal> {
        self.0.lock().unwrap().push(envelope.reverse_path.to_string());
        Ok(Accepted::default())
    }
}

type Told = Arc<Mutex<Vec<FeedbackEvent>>>;

/// A system over this feedback, and what it tells of it.
fn system(routes: Routes, feedback: &Arc<Feedback>, clock: &Arc<SystemClock>) -> (Mta, Told) {
    let told = Told::default();
    let heard = told.clone();
    let world = World {
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(7)),
        resolver: Arc::new(MemoryZone::parse("").unwrap()),
    };
    let client = Client::new(&Trust::Roots(Vec::new()), clock.clone()).unwrap();
    let mta = Mta::builder("mta.test".parse().unwrap(), world, Arc::new(MemorySpool::default()), client)
        .routes(routes)
        .feedback(feedback.clone())
        .observer(Arc::new(on_feedback(move |event| heard.lock().unwrap().push(event.clone()))))
        .build();
    (mta, told)
}

#[tokio::test]
async fn rates_rise_to_a_level_once_and_are_told() {
    let clock = Arc::new(SystemClock::new());
    let remote = Remote(Arc::default());
    let handler = remote.clone();
    let acceptor = move |_: &_| {
        let handler = handler.clone();
        async move { Ok(handler) }
    };
    let server =
        Server::new(ServerConfig::new("remote.test".parse::<Domain>().unwrap()), clock.clone(), acceptor);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });

    let list = Arc::new(MemorySuppressions::new());
    let feedback = Arc::new(feedback(list.clone(), Arc::new(MemoryJournal::default())));
    let routes = Routes::smart_host(postwright::core::Host::Literal(there.ip()), there.port());
    let (mta, told) = system(routes, &feedback, &clock);
    let running = tokio::spawn({
        let mta = mta.clone();
        async move { mta.run(std::future::pending()).await }
    });
    let author: Mailbox = "a@mta.test".parse().unwrap();
    for to in
        ["one@remote.test", "two@remote.test", "three@remote.test", "gone@remote.test", "gone2@remote.test"]
    {
        let envelope = Envelope::new(author.clone(), [to.parse().unwrap()]);
        mta.submit(&envelope, Message::from_bytes(&b"Subject: x\r\n\r\nx\r\n"[..])).await.unwrap();
    }
    let key = Key {
        tenant: "default".into(),
        stream: "".into(),
        source: "".into(),
        provider: "remote.test".into(),
    };
    for _ in 0..500 {
        if feedback.rate(&key, clock.now()).0.sent == 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.abort();
    let (sums, level) = feedback.rate(&key, clock.now());
    assert_eq!((sums.sent, sums.bounced, level), (5, 2, Level::Critical));
    let told = told.lock().unwrap().clone();
    let alerts = told.iter().filter(|event| matches!(event, FeedbackEvent::Alert { .. })).count();
    assert_eq!(alerts, 1, "told when the level is passed, not with every bounce: {told:?}");
    let suppressed: Vec<&Mailbox> = told
        .iter()
        .filter_map(|event| match event {
            FeedbackEvent::Suppressed { recipient, reason: Reason::HardBounce, .. } => Some(recipient),
            _ => None,
        })
        .collect();
    assert_eq!((suppressed.len(), list.len(), feedback.counts().suppressed), (2, 2, 2));
    let paths = remote.0.lock().unwrap().clone();
    let signed = paths.iter().filter(|path| path.contains("@bounces.test")).count();
    assert_eq!(signed, 3, "{paths:?}");
    assert!(paths.iter().all(|path| path == "<>" || path.contains("@bounces.test")), "{paths:?}");
}

#[test]
fn addresses_of_the_bounce_domain_are_ours_by_signature_or_by_name() {
    let feedback = feedback(Arc::new(MemorySuppressions::new()), Arc::new(MemoryJournal::default()));
    let now = Timestamp::from_secs(1_800_000_000);
    let id = SpoolId::new(now, &SeededEntropy::new(1));
    let signer = Signer::new(&[KEY], domain()).unwrap();
    let good = signer.address(&id.to_string(), now + Duration::from_secs(86_400)).unwrap();
    assert_eq!(feedback.resolve(&good, now).unwrap(), Incoming::About(id));
    assert_eq!(feedback.resolve(&"FBL@bounces.test".parse().unwrap(), now).unwrap(), Incoming::Open);
    let late = now + Duration::from_secs(3 * 86_400);
    assert_eq!(feedback.resolve(&good, late).unwrap_err().0, Ignored::Expired);
    let other = Signer::new(&[b"another key, 16+"], domain()).unwrap();
    let forged = other.address(&id.to_string(), late).unwrap();
    assert_eq!(feedback.resolve(&forged, now).unwrap_err().0, Ignored::Forged);
    assert_eq!(feedback.counts().forged, 2);
    assert!(feedback.takes(&good) && !feedback.takes(&"fbl@elsewhere.test".parse().unwrap()));
}

/// Says one message to a server, line by line.
async fn say(to: std::net::SocketAddr, recipient: &str, body: &str) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = BufReader::new(tokio::net::TcpStream::connect(to).await.unwrap());
    let rcpt = format!("RCPT TO:<{recipient}>");
    let body = format!("{body}.");
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    for (command, code) in [
        ("HELO remote.test", "250"),
        ("MAIL FROM:<>", "250"),
        (&rcpt, "250"),
        ("DATA", "354"),
        (&body, "250"),
    ] {
        stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with(code), "{command}: {line}");
    }
}

/// It comes to an address that names no message, and the original is known by the header that it quotes.
#[tokio::test]
async fn a_notification_is_matched_by_message_id_alone_and_told() {
    let clock = Arc::new(SystemClock::new());
    let (list, journal) = (Arc::new(MemorySuppressions::new()), Arc::new(MemoryJournal::default()));
    let feedback = Arc::new(feedback(list.clone(), journal.clone()));
    let id = SpoolId::new(clock.now(), &SeededEntropy::new(9));
    let departed = Departed {
        tenant: "shop".into(),
        stream: "bulk".into(),
        sender: "a@mta.test".into(),
        recipients: vec!["Dead@remote.test".into(), "alive@remote.test".into()],
        message_id: Some("<one@mta.test>".into()),
    };
    journal.note(id, &departed, clock.now());
    let (mta, told) = system(Routes::mx(), &feedback, &clock);
    let server = Server::new(ServerConfig::new("mta.test".parse::<Domain>().unwrap()), clock, mta.intake());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    let notification = |about: &str, recipient: &str| {
        format!(
            "From: <MAILER-DAEMON@remote.test>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; \
             report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r\nContent-Type: \
             message/delivery-status\r\n\r\nReporting-MTA: dns; remote.test\r\n\r\nFinal-Recipient: rfc822; \
             {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
             Message-ID: {about}\r\nSubject: x\r\n\r\n--b--\r\n"
        )
    };
    // Of no message of ours; about somebody who never had it; and a true one.
    say(here, "postmaster@bounces.test", &notification("<two@mta.test>", "dead@remote.test")).await;
    say(here, "postmaster@bounces.test", &notification("<one@mta.test>", "boss@remote.test")).await;
    say(here, "postmaster@bounces.test", &notification("<one@mta.test>", "dead@remote.test")).await;
    let told = told.lock().unwrap().clone();
    let unmatched = FeedbackEvent::Ignored(Ignored::Unmatched);
    assert_eq!(told[..2], [unmatched.clone(), unmatched]);
    let FeedbackEvent::Returned { about, tenant, stream, recipient, verdict, suppressed } = &told[2] else {
        panic!("{told:?}");
    };
    assert_eq!((*about, &**tenant, &**stream), (id, "shop", "bulk"));
    assert_eq!(recipient.to_string(), "Dead@remote.test", "in the message's own spelling");
    assert!(verdict.hard, "{verdict:?}");
    assert_eq!((*suppressed, told.len()), (Some(Reason::HardBounce), 3));
    let counts = feedback.counts();
    assert_eq!((counts.bounces, counts.unmatched, list.len()), (1, 2, 1));
    let (now, dead) = (Timestamp::from_secs(1_900_000_000), recipient.clone());
    assert!(list.check("shop", Some("bulk"), &dead, now).is_some());
    assert!(list.check("shop", Some("receipts"), &dead, now).is_none(), "another stream is not stopped");
}

fn entry(address: &str, tenant: &str, stream: Option<&str>, until: Option<u64>) -> Suppressed {
    Suppressed {
        address: address.into(),
        scope: Scope { tenant: tenant.into(), stream: stream.map(Into::into) },
        reason: Reason::HardBounce,
        since: Timestamp::from_secs(100),
        until: until.map(Timestamp::from_secs),
        note: "550 5.1.1, \"no\"".into(),
    }
}

/// The same contract for the list in memory and the list on disk.
fn the_list_keeps_its_contract(list: &dyn Suppressions) {
    let at = Timestamp::from_secs;
    let ann: Mailbox = "Ann@example.org".parse().unwrap();
    list.add(entry("ANN@example.org", "shop", Some("marketing"), Some(2000)));
    list.add(entry("bob@example.org", "shop", None, None));
    assert!(list.check("shop", Some("marketing"), &ann, at(1000)).is_some());
    for (tenant, stream, now) in [
        ("shop", Some("receipts"), 1000),
        ("shop", None, 1000),
        ("other", Some("marketing"), 1000),
        ("shop", Some("marketing"), 2000),
    ] {
        assert!(list.check(tenant, stream, &ann, at(now)).is_none(), "{tenant} {stream:?} {now}");
    }
    // Without a stream it counts for all of them.
    assert!(list.check("shop", Some("receipts"), &"bob@example.org".parse().unwrap(), at(1)).is_some());
    let page = list.list(None, 1);
    assert_eq!(&*page[0].address, "ann@example.org");
    let rest = list.list(Some((&page[0].address, &page[0].scope)), 10);
    assert_eq!((rest.len(), &*rest[0].address), (1, "bob@example.org"));
    assert!(
        list.remove(&page[0].scope, "ann@EXAMPLE.org") && !list.remove(&page[0].scope, "ann@example.org")
    );
    // Enough for the filter to be built anew more than once: never a false "no".
    for i in 0..3000 {
        list.add(entry(&format!("u{i}@example.org"), "shop", None, None));
    }
    for i in 0..3000 {
        let address = format!("U{i}@example.org").parse().unwrap();
        assert!(list.check("shop", None, &address, at(1)).is_some(), "u{i}");
    }
    assert_eq!(list.list(None, usize::MAX).len(), 3001);
    assert_eq!(list.sync(), Ok(()));
}

#[test]
fn the_list_in_memory_and_the_list_on_disk_are_alike() {
    the_list_keeps_its_contract(&MemorySuppressions::new());
    let folder = tempfile::tempdir().unwrap();
    let store = FeedbackStore::open(folder.path()).unwrap();
    the_list_keeps_its_contract(&store);
    assert!(matches!(FeedbackStore::open(folder.path()), Err(StoreError::Locked(_))), "one process");
    drop(store);
    let store = FeedbackStore::open(folder.path()).unwrap();
    assert_eq!(store.count().unwrap(), 3001, "it is there after a restart");
    let found =
        store.check("shop", None, &"bob@example.org".parse().unwrap(), Timestamp::from_secs(1)).unwrap();
    assert_eq!(found, entry("bob@example.org", "shop", None, None), "with every field");
    store.add(entry("short@example.org", "shop", None, Some(500)));
    assert_eq!((store.expire(Timestamp::from_secs(499)), store.expire(Timestamp::from_secs(500))), (0, 1));
}

fn the_journal_keeps_its_contract(journal: &dyn Journal) {
    let entropy = SeededEntropy::new(3);
    let (old, new) = (Timestamp::from_secs(1_800_000_000), Timestamp::from_secs(1_800_100_000));
    let departed = |id: &str| Departed {
        tenant: "shop".into(),
        stream: "".into(),
        sender: "a@b.example".into(),
        recipients: vec!["x@y.example".into(), "\"q r\"@y.example".into()],
        message_id: Some(id.into()),
    };
    let (first, second) = (SpoolId::new(old, &entropy), SpoolId::new(new, &entropy));
    journal.note(first, &departed("<1@b>"), old);
    journal.note(second, &departed("<2@b>"), new);
    assert_eq!(journal.find(first), Some(departed("<1@b>")));
    assert_eq!(journal.by_message_id("<2@b>"), Some((second, departed("<2@b>"))));
    assert_eq!(journal.by_message_id("<3@b>"), None);
    let hosts = vec!["mx1.y.example".parse().unwrap(), "mx2.y.example".parse().unwrap()];
    let trail = Trail { exit: Some("a".into()), site: "mx.y.example".into(), hosts };
    let plain = Trail { exit: None, site: "127.0.0.1:25".into(), hosts: Vec::new() };
    let (y, z): (Domain, Domain) = ("y.example".parse().unwrap(), "z.example".parse().unwrap());
    assert_eq!(journal.trail(second, &y), None);
    journal.took(first, &y, &plain);
    journal.took(second, &y, &plain);
    journal.took(second, &y, &trail);
    journal.took(second, &z, &plain);
    assert_eq!(journal.trail(first, &y), Some(plain.clone()));
    assert_eq!((journal.trail(second, &y), journal.trail(second, &z)), (Some(trail), Some(plain)));
    journal.forget(new);
    assert_eq!((journal.find(first), journal.by_message_id("<1@b>")), (None, None));
    assert!(journal.find(second).is_some());
    assert!(journal.trail(first, &y).is_none() && journal.trail(second, &y).is_some());
}

#[test]
fn the_journal_in_memory_and_the_journal_on_disk_are_alike() {
    the_journal_keeps_its_contract(&MemoryJournal::default());
    let folder = tempfile::tempdir().unwrap();
    the_journal_keeps_its_contract(&FeedbackStore::open(folder.path()).unwrap());
}

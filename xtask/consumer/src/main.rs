//! A stranger's program, built from the packages as they would be published, and run.
//!
//! An MTA with the spool on disk takes one message for two recipients over TCP, signs it and passes it on to a server of
//! ours: one recipient gets it, the other is refused, and the sender is told. Every crate of the family has a part
//! in it. It exits with an error unless all of that happened.
//!
//! Not here: a test of the crates; this shows that what is published is complete.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use postwright::{Mta, Relay, Routes, Shaped, SignOriginated};
use postwright_bounce::classify::{Category, Classifier};
use postwright_bounce::report::{Kind, MailReport, read};
use postwright_core::{
    Clock, Domain, EnhancedStatus, Envelope, Host, Mailbox, MemoryZone, Message, Name, Outcome, Recipient,
    Record, Refusal, SystemClock, SystemEntropy, World,
};
use postwright_dkim::{KeyKind, MemoryKeyStore, Provider, Signer, SigningKey, Verifier};
use postwright_queue::{EmbeddedOptions, EmbeddedSpool};
use postwright_shaping::{Bound, Kind as Limit, Layer, MemoryTokenStore, Policy, Shaper};
use postwright_smtp_client::{Client, Options, Target, Trust};
use postwright_smtp_proto::client::{Config, Transaction};
use postwright_smtp_server::{Accepted, Handler, Server, ServerConfig, Session};
use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Failure = Box<dyn Error>;

/// The server at the other end: knows everybody but `gone`.
struct Inbox(mpsc::UnboundedSender<Message>);

impl Handler for Inbox {
    async fn rcpt(&mut self, _: &Session, to: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        let known = to.mailbox.local() != "gone";
        if known { Ok(()) } else { Err(Refusal::known(550, EnhancedStatus::known(5, 1, 1), "no such user")) }
    }

    async fn message(&mut self, _: &Session, _: &Envelope, message: Message) -> Result<Accepted, Refusal> {
        let _ = self.0.send(message);
        Ok(Accepted::default())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("postwright-consumer-{}", std::process::id()));
    let outcome = tokio::time::timeout(Duration::from_secs(60), run(&folder)).await;
    let _ = std::fs::remove_dir_all(&folder);
    outcome.map_err(|_| "nothing came within a minute")?
}

async fn run(folder: &std::path::Path) -> Result<(), Failure> {
    let clock = Arc::new(SystemClock::new());
    let dns = Arc::new(MemoryZone::parse("_dmarc.example.org. TXT \"v=DMARC1; p=reject\"\n")?);
    let (arrived, mut inbox) = mpsc::unbounded_channel();
    let accept = move |_: &_| {
        let inbox = Inbox(arrived.clone());
        async { Ok(inbox) }
    };
    let there = Server::new(ServerConfig::new("there.example.net".parse::<Domain>()?), clock.clone(), accept);
    let there_listens = TcpListener::bind("127.0.0.1:0").await?;
    let port = there_listens.local_addr()?.port();

    let mta = mta(clock.clone(), dns.clone(), folder, port)?;
    let here =
        Server::new(ServerConfig::new("mx.example.org".parse::<Domain>()?), clock.clone(), mta.intake());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    let work = async {
        hand_in(address, clock.clone()).await?;
        let (one, other) =
            (inbox.recv().await.ok_or("no message")?, inbox.recv().await.ok_or("no notification")?);
        let (message, notice) = if reading(&one).kind == Kind::Dsn { (other, one) } else { (one, other) };
        check(&message, &notice, &dns, &*clock).await
    };
    tokio::select! {
        biased;
        outcome = work => outcome,
        _ = there.serve(there_listens, std::future::pending()) => Err("the other server ended".into()),
        _ = here.serve(listener, std::future::pending()) => Err("our server ended".into()),
        () = mta.run(std::future::pending()) => Err("the MTA ended".into()),
    }
}

fn mta(
    clock: Arc<SystemClock>,
    dns: Arc<MemoryZone>,
    folder: &std::path::Path,
    port: u16,
) -> Result<Mta, Failure> {
    let (key, _) = SigningKey::generate(Provider::default(), KeyKind::Ed25519)?;
    dns.insert("s1._domainkey.example.org".parse()?, Record::txt(key.record()));
    let mut keys = MemoryKeyStore::new();
    keys.insert(Signer::new(key, "example.org".parse()?, "s1".parse()?)?, None);

    let limits = Layer::defaults().set(Limit::Messages, &[Bound::Rate("100/s".parse()?)])?;
    let shaper = Shaper::new(Policy::new().with(limits), Arc::new(MemoryTokenStore::new()));
    let world = World { clock: clock.clone(), entropy: Arc::new(SystemEntropy), resolver: dns };
    let spool = Arc::new(EmbeddedSpool::open(EmbeddedOptions::new(folder, clock.clone()))?);
    let client = Client::new(&Trust::Roots(Vec::new()), clock.clone())?;
    Ok(Mta::builder("mx.example.org".parse()?, world, spool, client)
        .relay(Relay::nobody().trust(|ip| ip.is_loopback()))
        .routes(Routes::smart_host(Host::Literal("127.0.0.1".parse()?), port))
        .policy(Arc::new(SignOriginated::new(Arc::new(keys), clock)))
        .pace(Arc::new(Shaped::new(Arc::new(shaper), Arc::new(Classifier::built_in()))))
        .build())
}

async fn hand_in(address: std::net::SocketAddr, clock: Arc<SystemClock>) -> Result<(), Failure> {
    let client = Client::new(&Trust::Roots(Vec::new()), clock)?;
    let options = Options::new(Config::new("client.example.org".parse::<Domain>()?));
    let target = Target { host: "mx.example.org".parse()?, address };
    let recipients = ["bob@example.net".parse()?, "gone@example.net".parse()?];
    let envelope = Envelope::new("ann@example.org".parse::<Mailbox>()?, recipients);
    let message = Message::from_bytes(&b"From: Ann <ann@example.org>\r\nSubject: hello\r\n\r\nHi!\r\n"[..]);
    let report = client.deliver(&[target], &options, Transaction { envelope, message }).await;
    let taken =
        report.statuses.iter().all(|status| matches!(status.outcome, Outcome::Delivered | Outcome::Relayed));
    if taken { Ok(()) } else { Err(format!("our server did not take it: {:?}", report.statuses).into()) }
}

fn reading(message: &Message) -> MailReport {
    read(&message.to_vec(), &Classifier::built_in(), &postwright_bounce::Limits::default())
}

async fn check(
    message: &Message,
    notice: &Message,
    dns: &MemoryZone,
    clock: &dyn Clock,
) -> Result<(), Failure> {
    let mut verification = Verifier::default().begin();
    message.chunks().for_each(|chunk| verification.feed(chunk));
    let results = verification.finish(dns, clock.now()).await;
    if !results.iter().any(|result| result.is_pass()) {
        return Err(format!("the signature does not hold: {results:?}").into());
    }
    let passed = results
        .iter()
        .filter(|result| result.is_pass())
        .filter_map(|result| result.domain.as_ref().map(Name::from));
    let query = DmarcQuery::new(Authors::parse("ann@example.org")).dkim(passed);
    let verdict = dmarc::evaluate(&query, dns).await.verdict;
    if verdict != dmarc::Verdict::Pass {
        return Err(format!("DMARC says {verdict:?}").into());
    }
    let report = reading(notice);
    let about: Vec<_> =
        report.reports.iter().map(|one| (&*one.recipient, one.classification.category)).collect();
    if report.kind != Kind::Dsn || about != [("gone@example.net", Category::UserUnknown)] {
        return Err(format!("the notification says {:?} {about:?}", report.kind).into());
    }
    println!("taken, kept, signed, delivered; the refused recipient was reported to the sender");
    Ok(())
}

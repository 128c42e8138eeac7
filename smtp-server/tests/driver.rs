//! The driver over real loopback sockets: decisions, limits of memory and number, panics, TLS, and the end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{Budget, Domain, EnhancedStatus, Envelope, Message, Recipient, Refusal, SystemClock};
use postwright_smtp_server::{Accepted, Acceptor, Counters, Handler, Server, ServerConfig, Session, Stopped};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Mails = Arc<Mutex<Vec<(Envelope, Vec<u8>)>>>;

/// Takes everything, but for recipients whose local part is an order to misbehave.
struct Desk(Mails);

impl Handler for Desk {
    async fn rcpt(&mut self, _: &Session, recipient: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        match recipient.mailbox.local() {
            "panic" => panic!("told to"),
            "nobody" => Err(Refusal::known(550, EnhancedStatus::known(5, 1, 1), "No such user")),
            "hang" => std::future::pending().await,
            _ => Ok(()),
        }
    }

    async fn message(
        &mut self,
        session: &Session,
        envelope: &Envelope,
        message: Message,
    ) -> Result<Accepted, Refusal> {
        self.0.lock().unwrap().push((envelope.clone(), message.to_vec()));
        Ok(Accepted::with_text(session.protocol_keyword()))
    }
}

struct Running {
    address: SocketAddr,
    mails: Mails,
    counters: Arc<Counters>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Stopped>,
}

fn config() -> ServerConfig {
    ServerConfig::new("mx.test".parse::<Domain>().unwrap())
}

async fn start(config: ServerConfig) -> Running {
    let mails = Mails::default();
    let desk = mails.clone();
    let acceptor = move |_: &_| {
        let desk = Desk(desk.clone());
        async move { Ok(desk) }
    };
    start_with(config, acceptor, mails).await
}

async fn start_with(config: ServerConfig, acceptor: impl Acceptor, mails: Mails) -> Running {
    let server = Server::new(config, Arc::new(SystemClock::new()), acceptor);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counters = server.counters();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
    Running { address, mails, counters, stop, ended }
}

struct Client<Io>(BufReader<Io>);

impl Client<TcpStream> {
    async fn greeted(address: SocketAddr) -> Client<TcpStream> {
        let mut client = Client(BufReader::new(TcpStream::connect(address).await.unwrap()));
        assert_eq!(client.reply().await.0, 220);
        client
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Client<Io> {
    async fn reply(&mut self) -> (u16, String) {
        let mut text = String::new();
        loop {
            let start = text.len();
            let read = self.0.read_line(&mut text);
            let len = tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
            if len == 0 {
                return (0, text);
            }
            if text.as_bytes()[start + 3] == b' ' {
                return (text[start..start + 3].parse().unwrap(), text);
            }
        }
    }

    async fn say(&mut self, line: &str) -> (u16, String) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.reply().await
    }

    async fn send(&mut self, to: &str, body: &str) -> (u16, String) {
        assert_eq!(self.say("MAIL FROM:<a@client.test>").await.0, 250);
        assert_eq!(self.say(&format!("RCPT TO:<{to}@mx.test>")).await.0, 250);
        assert_eq!(self.say("DATA").await.0, 354);
        self.say(&format!("{body}\r\n.")).await
    }
}

#[tokio::test]
async fn a_message_arrives_and_a_refused_recipient_changes_nothing() {
    let server = start(config()).await;
    let mut client = Client::greeted(server.address).await;
    client.say("EHLO client.test").await;
    assert_eq!(client.say("MAIL FROM:<a@client.test>").await.0, 250);
    assert_eq!(client.say("RCPT TO:<nobody@mx.test>").await.0, 550);
    assert_eq!(client.say("RCPT TO:<joe@mx.test>").await.0, 250);
    assert_eq!(client.say("DATA").await.0, 354);
    let (code, text) = client.say("Subject: x\r\n\r\n..dot\r\n.").await;
    assert_eq!((code, text.contains("ESMTP")), (250, true), "{text}");
    assert_eq!(client.say("QUIT").await.0, 221);
    let mails = server.mails.lock().unwrap();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].1, b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(mails[0].0.recipients.len(), 1);
}

#[tokio::test]
async fn a_panic_ends_one_session_with_421() {
    let server = start(config()).await;
    let mut other = Client::greeted(server.address).await;
    let mut client = Client::greeted(server.address).await;
    client.say("EHLO client.test").await;
    client.say("MAIL FROM:<a@client.test>").await;
    assert_eq!(client.say("RCPT TO:<panic@mx.test>").await.0, 421);
    assert_eq!(client.reply().await.0, 0, "closed");
    assert_eq!(server.counters.panics(), 1);
    other.say("EHLO other.test").await;
    assert_eq!(other.send("joe", "x").await.0, 250);
}

#[tokio::test]
async fn a_decision_that_never_comes_is_a_451() {
    let mut config = config();
    config.decision_timeout = Duration::from_millis(50);
    let server = start(config).await;
    let mut client = Client::greeted(server.address).await;
    client.say("EHLO client.test").await;
    client.say("MAIL FROM:<a@client.test>").await;
    assert_eq!(client.say("RCPT TO:<hang@mx.test>").await.0, 451);
    assert_eq!(client.say("RCPT TO:<joe@mx.test>").await.0, 250);
}

#[tokio::test]
async fn a_body_beyond_the_budget_is_read_dropped_and_refused_with_452() {
    let mut config = config();
    config.budget = Budget::new(10_000);
    let budget = config.budget.clone();
    let server = start(config).await;
    let mut client = Client::greeted(server.address).await;
    client.say("EHLO client.test").await;
    let (code, text) = client.send("joe", &"0123456789\r\n".repeat(2000)).await;
    assert_eq!((code, text.contains("4.3.1")), (452, true), "{text}");
    assert_eq!(budget.used(), 0);
    assert_eq!(client.send("joe", "small").await.0, 250, "the session goes on");
    assert_eq!(server.mails.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn one_connection_too_many_hears_421_and_slots_come_back() {
    let mut config = config();
    config.connections_per_ip = 2;
    let server = start(config).await;
    let mut first = Client::greeted(server.address).await;
    let _second = Client::greeted(server.address).await;
    let mut third = Client(BufReader::new(TcpStream::connect(server.address).await.unwrap()));
    assert_eq!(third.reply().await.0, 421);
    assert_eq!(server.counters.turned_away(), 1);
    assert_eq!(first.say("QUIT").await.0, 221);
    assert_eq!(first.reply().await.0, 0);
    drop(first);
    while server.counters.open() > 1 {
        tokio::task::yield_now().await;
    }
    Client::greeted(server.address).await;
}

#[tokio::test]
async fn draining_says_421_to_the_idle_and_lets_a_message_end() {
    let server = start(config()).await;
    let mut idle = Client::greeted(server.address).await;
    idle.say("EHLO idle.test").await;
    let mut busy = Client::greeted(server.address).await;
    busy.say("EHLO busy.test").await;
    busy.say("MAIL FROM:<a@client.test>").await;
    busy.say("RCPT TO:<joe@mx.test>").await;
    assert_eq!(busy.say("DATA").await.0, 354);
    server.stop.send(()).unwrap();
    let (code, text) = idle.reply().await;
    assert_eq!((code, text.contains("4.3.2")), (421, true), "{text}");
    let (code, _) = busy.say("half\r\n.").await;
    assert_eq!(code, 250);
    assert_eq!(busy.reply().await.0, 421);
    assert_eq!(server.ended.await.unwrap(), Stopped { cut: 0 });
    assert_eq!(server.counters.open(), 0);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let mut config = config();
    config.drain_timeout = Duration::from_millis(100);
    let server = start(config).await;
    let mut stuck = Client::greeted(server.address).await;
    stuck.say("EHLO stuck.test").await;
    stuck.say("MAIL FROM:<a@client.test>").await;
    stuck.say("RCPT TO:<joe@mx.test>").await;
    assert_eq!(stuck.say("DATA").await.0, 354);
    server.stop.send(()).unwrap();
    assert_eq!(server.ended.await.unwrap(), Stopped { cut: 1 });
    assert_eq!(server.counters.open(), 0, "a connection that is cut gives its slot back");
    assert!(server.mails.lock().unwrap().is_empty());
}

#[tokio::test]
async fn starttls_secures_the_rest_of_the_session_and_forgets_what_came_before() {
    let (config, roots) = with_certificate();
    let server = start(config).await;
    let mut client = Client::greeted(server.address).await;
    assert!(client.say("EHLO client.test").await.1.contains("STARTTLS"));
    assert_eq!(client.say("STARTTLS").await.0, 220);
    let connector = tokio_rustls::TlsConnector::from(client_tls(roots));
    let stream = connector.connect("mx.test".try_into().unwrap(), client.0.into_inner()).await.unwrap();
    let mut client = Client(BufReader::new(stream));
    assert_eq!(client.say("MAIL FROM:<a@client.test>").await.0, 503, "EHLO is forgotten");
    let (_, offer) = client.say("EHLO client.test").await;
    assert!(!offer.contains("STARTTLS"), "{offer}");
    let (code, text) = client.send("joe", "secret").await;
    assert_eq!((code, text.contains("ESMTPS")), (250, true), "{text}");
}

#[tokio::test]
async fn clear_text_behind_starttls_is_never_acted_on() {
    // CVE-2011-0411.
    let (config, _) = with_certificate();
    let server = start(config).await;
    let mut client = Client::greeted(server.address).await;
    client.say("EHLO client.test").await;
    let (code, _) = client.say("STARTTLS\r\nMAIL FROM:<evil@client.test>\r\nRCPT TO:<joe@mx.test>").await;
    assert!(code == 554 || code == 501 || code == 0, "{code}");
    assert_eq!(client.reply().await.0, 0, "closed");
    assert!(server.mails.lock().unwrap().is_empty());
}

fn with_certificate() -> (ServerConfig, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (config().with_starttls(Arc::new(tls)), roots)
}

fn client_tls(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Arc::new(
        builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

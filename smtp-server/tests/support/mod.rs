//! A server with a scripted handler, and a client of few words.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{
    Domain, EnhancedStatus, Envelope, MailOptions, Message, Recipient, Refusal, ReversePath, SystemClock,
    Timestamp,
};
use postwright_smtp_proto::server::{Config, Peer};
use postwright_smtp_server::tls::{Certificates, Identity};
use postwright_smtp_server::{
    Accepted, Acceptor, Counters, Handler, Server, ServerConfig, Session, Socket, Stopped,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub type Mail = (Envelope, Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Accept,
    Discard,
    PanicOn(&'static str),
    SlowMessage,
    SlowAccept,
}

/// Acceptor and handler: keeps what it takes.
#[derive(Clone)]
pub struct Room {
    mode: Mode,
    pub mails: Arc<Mutex<Vec<Mail>>>,
    pub peers: Arc<Mutex<Vec<SocketAddr>>>,
    /// How often MAIL was taken.
    pub transactions: Arc<AtomicUsize>,
    /// What clients are offered, if not the usual.
    pub offer: Option<Arc<Config>>,
}

impl Room {
    pub fn new(mode: Mode) -> Room {
        Room { mode, mails: Arc::default(), peers: Arc::default(), transactions: Arc::default(), offer: None }
    }
}

impl Acceptor for Room {
    type Handler = Room;

    async fn accept(&self, peer: &Peer) -> Result<Room, Refusal> {
        self.peers.lock().unwrap().push(peer.address);
        if self.mode == Mode::SlowAccept {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(self.clone())
    }

    fn session_config(&self, _: SocketAddr) -> Option<Arc<Config>> {
        self.offer.clone()
    }
}

impl Handler for Room {
    async fn mail(&mut self, _: &Session, _: &ReversePath, _: &MailOptions) -> Result<(), Refusal> {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn rcpt(&mut self, _: &Session, to: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        if let Mode::PanicOn(local) = self.mode {
            assert_ne!(to.mailbox.local(), local, "as the test wants it");
        }
        if to.mailbox.local() == "hang" {
            std::future::pending::<()>().await;
        }
        let ours = to.mailbox.domain().is_some_and(|domain| domain.as_str() == "example.org");
        if ours { Ok(()) } else { Err(Refusal::known(550, EnhancedStatus::known(5, 7, 1), "No relay")) }
    }

    async fn message(
        &mut self,
        _: &Session,
        envelope: &Envelope,
        message: Message,
    ) -> Result<Accepted, Refusal> {
        if self.mode == Mode::SlowMessage {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.mode != Mode::Discard {
            self.mails.lock().unwrap().push((envelope.clone(), message.to_vec()));
        }
        Ok(Accepted::with_text("kept"))
    }
}

pub fn settings() -> ServerConfig {
    ServerConfig::new("mx.example.org".parse::<Domain>().unwrap())
}

pub fn peer() -> Peer {
    Peer::new(
        "192.0.2.1:1".parse().unwrap(),
        "192.0.2.2:25".parse().unwrap(),
        Timestamp::from_secs(1_800_000_000),
    )
}

pub struct Testbed {
    pub room: Room,
    pub counters: Arc<Counters>,
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<Stopped>,
}

pub async fn start(config: ServerConfig, mode: Mode) -> Testbed {
    start_room(config, Room::new(mode)).await
}

pub async fn start_room(config: ServerConfig, room: Room) -> Testbed {
    let listener = Socket::default().listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(config, Arc::new(SystemClock::new()), room.clone());
    let counters = server.counters();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
    Testbed { room, counters, address, stop, serving }
}

impl Testbed {
    pub async fn connect(&self) -> Client<TcpStream> {
        Client { io: TcpStream::connect(self.address).await.unwrap(), held: Vec::new() }
    }

    pub fn messages(&self) -> Vec<Mail> {
        self.room.mails.lock().unwrap().clone()
    }

    /// Tells the server to stop; await what comes back.
    pub fn stopping(self) -> (Room, tokio::task::JoinHandle<Stopped>) {
        self.stop.send(()).unwrap();
        (self.room, self.serving)
    }

    pub async fn stop(self) {
        let counters = self.counters.clone();
        self.stopping().1.await.unwrap();
        assert_eq!(counters.open(), 0);
    }
}

pub struct Client<IO> {
    pub io: IO,
    held: Vec<u8>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    pub async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// One reply: its code and its text.
    pub async fn reply(&mut self) -> (u16, String) {
        let mut text = String::new();
        loop {
            while let Some(end) = self.held.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.held.drain(..end + 2).collect();
                let line = String::from_utf8(line).unwrap();
                text.push_str(&line);
                if line.as_bytes()[3] == b' ' {
                    return (line[..3].parse().unwrap(), text);
                }
            }
            let mut space = [0; 4096];
            let reading = self.io.read(&mut space);
            let len = tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap().unwrap();
            assert!(len > 0, "the server closed after {text:?}");
            self.held.extend_from_slice(&space[..len]);
        }
    }

    pub async fn say(&mut self, line: &str) -> String {
        self.write(format!("{line}\r\n").as_bytes()).await;
        self.reply().await.1
    }

    /// STARTTLS up to its 220; the handshake is next.
    pub async fn starttls(&mut self) {
        assert_eq!(self.code("STARTTLS").await, 220);
    }

    pub async fn code(&mut self, line: &str) -> u16 {
        self.write(format!("{line}\r\n").as_bytes()).await;
        self.reply().await.0
    }

    pub async fn hello(&mut self) {
        assert_eq!(self.reply().await.0, 220);
        assert_eq!(self.code("EHLO client.example").await, 250);
    }

    pub async fn envelope(&mut self, to: &str) {
        assert_eq!(self.code("MAIL FROM:<a@client.example>").await, 250);
        assert_eq!(self.code(&format!("RCPT TO:<{to}>")).await, 250);
    }

    /// Everything until the end of the connection, however it ends.
    pub async fn whatever_comes(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.held);
        let reading = self.io.read_to_end(&mut all);
        // A reset, or a TLS stream without its close_notify, is an end too.
        let _ = tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap();
        all
    }

    pub fn over(io: IO) -> Client<IO> {
        Client { io, held: Vec::new() }
    }

    /// Everything until the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.held);
        tokio::time::timeout(Duration::from_secs(30), self.io.read_to_end(&mut all)).await.unwrap().unwrap();
        all
    }
}

/// Roots that a client trusts.
pub type Roots = Arc<rustls::ClientConfig>;

pub type Tls<IO> = tokio_rustls::client::TlsStream<IO>;

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    pub async fn into_tls(self, roots: &Roots, name: &str) -> Client<Tls<IO>> {
        let connector = tokio_rustls::TlsConnector::from(roots.clone());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Client { io: connector.connect(name, self.io).await.unwrap(), held: Vec::new() }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<Tls<IO>> {
    /// Ends TLS in good form, and goes on in clear text on the same connection.
    pub async fn end_tls_and_write(&mut self, clear: &[u8]) {
        self.io.get_mut().1.send_close_notify();
        self.io.flush().await.unwrap();
        self.write_beneath(clear).await;
    }

    /// Writes past TLS, straight to the connection.
    pub async fn write_beneath(&mut self, clear: &[u8]) {
        let below = self.io.get_mut().0;
        below.write_all(clear).await.unwrap();
        below.flush().await.unwrap();
    }

    /// Says that nothing more will come on the connection, without a word in TLS.
    pub async fn cut_beneath(&mut self) {
        self.io.get_mut().0.shutdown().await.unwrap();
    }
}

impl Client<Tls<TcpStream>> {
    pub async fn tls(address: SocketAddr, roots: &Roots, name: &str) -> Self {
        let io = TcpStream::connect(address).await.unwrap();
        let mut client = Client { io, held: Vec::new() }.into_tls(roots, name).await;
        assert_eq!(client.reply().await.0, 220);
        client
    }
}

pub fn identity(name: &str) -> (Identity, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let names = vec![name.parse().unwrap()];
    (Identity { names, chain: vec![certificate.clone()], key }, certificate)
}

pub fn trusting(certificates: &[CertificateDer<'static>]) -> Roots {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

pub fn certificates(name: &str) -> (Certificates, Roots) {
    let (identity, certificate) = identity(name);
    (Certificates::new(vec![identity]).unwrap(), trusting(&[certificate]))
}

/// Tries until it gives something; fails after 10 s.
pub async fn eventually<T, F: Future<Output = Option<T>>>(mut attempt: impl FnMut() -> F) -> T {
    for _ in 0..200 {
        if let Some(found) = attempt().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came");
}

//! A scripted server behind a [`Connector`] of pipes: no network, and time may be paused.
//!
//! Script lines: `S: text` says a line, `C: text` reads a line and compares it, `BODY` reads up to the final dot,
//! `TLS` does a handshake, `CLOSE` closes, `HANG` waits for ever, `WAIT n` waits n seconds.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{BoxFuture, Domain, Envelope, Mailbox, Message};
use postwright_smtp_client::connect::{BoxIo, Connector, Io};
use postwright_smtp_client::{Client, Options, Target, Trust};
use postwright_smtp_proto::client::{Config, Report, Transaction};
use postwright_testkit::PausedClock;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

pub(crate) const HELLO: &str = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 PIPELINING\n";
pub(crate) const ONE: &str = "C: MAIL FROM:<a@client.example>\nC: RCPT TO:<b@x.example>\nC: DATA\n\
    S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 2.0.0 ok\n";
pub(crate) const QUIT: &str = "C: QUIT\nS: 221 bye\n";

/// Hands out one pipe for each script, in order; `None` refuses the connection.
pub(crate) struct Scripts {
    scripts: Mutex<VecDeque<Option<String>>>,
    acceptor: Option<TlsAcceptor>,
    /// What the servers read as messages, and what went wrong in them.
    pub(crate) log: Arc<Mutex<Vec<String>>>,
}

impl Scripts {
    pub(crate) fn new(scripts: &[Option<&str>], acceptor: Option<TlsAcceptor>) -> Arc<Scripts> {
        let scripts = scripts.iter().map(|script| script.map(str::to_owned)).collect();
        Arc::new(Scripts { scripts: Mutex::new(scripts), acceptor, log: Arc::default() })
    }

    pub(crate) fn left(&self) -> usize {
        self.scripts.lock().unwrap().len()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Connector for Scripts {
    fn connect<'a>(&'a self, _: &'a Target, _: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let script = self.scripts.lock().unwrap().pop_front().expect("a script for each connection");
            let Some(script) = script else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            let (ours, theirs) = tokio::io::duplex(4096);
            let (acceptor, log) = (self.acceptor.clone(), self.log.clone());
            tokio::spawn(async move {
                if let Err(what) = serve(Box::new(theirs), &script, acceptor, &log).await {
                    log.lock().unwrap().push(format!("server: {what}"));
                }
            });
            Ok(Box::new(ours) as BoxIo)
        })
    }
}

async fn serve(
    mut io: Box<dyn Io>,
    script: &str,
    acceptor: Option<TlsAcceptor>,
    log: &Mutex<Vec<String>>,
) -> Result<(), String> {
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        if let Some(text) = line.strip_prefix("S: ") {
            io.write_all(format!("{text}\r\n").as_bytes()).await.map_err(|error| error.to_string())?;
            io.flush().await.map_err(|error| error.to_string())?;
        } else if let Some(text) = line.strip_prefix("C: ") {
            let heard = read_until(&mut io, b"\r\n").await?;
            if heard.trim_end() != text {
                return Err(format!("heard {heard:?}, not {text:?}"));
            }
        } else if let Some(seconds) = line.strip_prefix("WAIT ") {
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
        } else {
            match line {
                "BODY" => {
                    let body = read_until(&mut io, b"\r\n.\r\n").await?;
                    log.lock().unwrap().push(body);
                }
                "TLS" => {
                    let acceptor = acceptor.clone().expect("an acceptor");
                    io = Box::new(acceptor.accept(io).await.map_err(|error| format!("handshake: {error}"))?);
                }
                "CLOSE" => return Ok(()),
                "HANG" => std::future::pending().await,
                other => panic!("no script line: {other}"),
            }
        }
    }
    // Stay until the client goes, so that it is the one to close.
    let mut rest = [0; 64];
    while io.read(&mut rest).await.is_ok_and(|len| len > 0) {}
    Ok(())
}

async fn read_until(io: &mut Box<dyn Io>, end: &[u8]) -> Result<String, String> {
    let mut heard = Vec::new();
    while !heard.ends_with(end) {
        match io.read_u8().await {
            Ok(octet) => heard.push(octet),
            Err(_) => return Err(format!("the client left after {:?}", String::from_utf8_lossy(&heard))),
        }
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

pub(crate) fn client(scripts: &Arc<Scripts>, roots: Vec<CertificateDer<'static>>) -> Client {
    Client::new(&Trust::Roots(roots), PausedClock::start()).unwrap().with_connector(scripts.clone())
}

pub(crate) fn options() -> Options {
    Options::new(Config::new("client.example".parse::<Domain>().unwrap()))
}

/// As many targets as there may be connections.
pub(crate) fn hosts(count: u16) -> Vec<Target> {
    let target = |i: u16| Target {
        host: format!("mx{i}.x.example").parse().unwrap(),
        address: std::net::SocketAddr::from(([192, 0, 2, 1], 25 + i)),
    };
    (0..count).map(target).collect()
}

pub(crate) fn transaction() -> Transaction {
    let envelope =
        Envelope::new("a@client.example".parse::<Mailbox>().unwrap(), ["b@x.example".parse().unwrap()]);
    Transaction { envelope, message: Message::from_bytes(&b"Subject: x\r\n\r\n.dot\r\n"[..]) }
}

pub(crate) fn shown(report: &Report) -> Vec<String> {
    report
        .statuses
        .iter()
        .map(|status| format!("{:?} {} {}", status.outcome, status.status, status.phase))
        .collect()
}

/// A certificate for `names` under a root of its own: the acceptor and the root.
pub(crate) fn certificate(names: &[&str], expired: bool) -> (TlsAcceptor, CertificateDer<'static>) {
    let issued = issue(names, expired);
    (issued.acceptor, issued.root)
}

/// A server's certificate and what it hangs on.
pub(crate) struct Issued {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) leaf: CertificateDer<'static>,
}

pub(crate) fn issue(names: &[&str], expired: bool) -> Issued {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_cert = root.self_signed(&root_key).unwrap();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    // The tests' clock stands in January 2027.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after =
        if expired { rcgen::date_time_ymd(2026, 1, 1) } else { rcgen::date_time_ymd(2030, 1, 1) };
    let cert = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    Issued {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        root: root_cert.der().clone(),
        leaf: cert.der().clone(),
    }
}

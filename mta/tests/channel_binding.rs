//! SCRAM-SHA-256-PLUS from end to end: our client against our server, over sockets and real TLS 1.2 and 1.3.
//!
//! TLS 1.3 binds by `tls-exporter`, TLS 1.2 by `tls-server-end-point`. The man in the middle is one: he ends TLS on
//! both sides and passes the lines through, or takes -PLUS out of the offer.
//!
//! Standards: RFC 5802 6, RFC 7677, RFC 9266, RFC 5929 4.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use postwright::core::{
    Domain, Envelope, Host, Message, Outcome, Recipient, Refusal, SeededEntropy, SystemClock,
};
use postwright::smtp_client::{Account, Client, Demand, Options, Target, Trust};
use postwright::smtp_proto::client::{Config, Protection, StartTls, Transaction};
use postwright::smtp_proto::sasl::Secret;
use postwright::smtp_proto::sasl::client::Credentials;
use postwright::smtp_server::auth::{Accounts, Authenticator, Login};
use postwright::smtp_server::tls::{Certificates, Identity, Tickets, server_config};
use postwright::smtp_server::{Accepted, Answer, Handler, Server, ServerConfig, Session};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "mx.example.org";

/// One submission session; writes down what was tried and whether it worked.
struct Desk {
    login: Login,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Handler for Desk {
    async fn auth(
        &mut self,
        session: &Session,
        mechanism: &str,
        response: Option<&[u8]>,
        first: bool,
    ) -> Answer {
        if first {
            let header =
                response.map(|octets| String::from_utf8_lossy(octets).into_owned()).unwrap_or_default();
            let flag = header.split(',').next().unwrap_or_default().to_owned();
            let version = session.peer.tls.as_ref().map_or("clear", |tls| &tls.version);
            self.seen.lock().unwrap().push(format!("{version} {mechanism} {flag}"));
        }
        let answer = self.login.step(session, mechanism, response, first).await;
        match &answer {
            Answer::Accepted { .. } => self.seen.lock().unwrap().push("in".to_owned()),
            Answer::Refused { reply, .. } => self.seen.lock().unwrap().push(reply.reply().code().to_string()),
            _ => {}
        }
        answer
    }

    async fn rcpt(&mut self, _: &Session, _: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        Ok(())
    }

    async fn message(&mut self, _: &Session, _: &Envelope, _: Message) -> Result<Accepted, Refusal> {
        Ok(Accepted::with_text("taken"))
    }
}

struct Site {
    address: SocketAddr,
    root: CertificateDer<'static>,
    seen: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

fn identity() -> (Identity, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    (Identity { names: vec![NAME.parse().unwrap()], chain: vec![certificate.clone()], key }, certificate)
}

/// A server that offers SCRAM and PLAIN, with TLS of one version.
async fn site(version: &'static rustls::SupportedProtocolVersion) -> Site {
    let (identity, root) = identity();
    let certificates = Certificates::new(vec![identity]).unwrap();
    // The library's own configuration for both versions, and another one that has the old version only.
    let tls = if version.version == rustls::ProtocolVersion::TLSv1_3 {
        server_config(&certificates, None, Tickets::Off).unwrap()
    } else {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        Arc::new(builder.with_cert_resolver(Arc::new(certificates)))
    };
    let config =
        ServerConfig::new(NAME.parse::<Domain>().unwrap()).with_starttls(tls).with_session(|session| {
            session.auth = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"].map(Into::into).to_vec();
            session.require_auth = true;
        });
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(SeededEntropy::new(9)));
    let line = Accounts::line("joe", &Secret::new("secret"), &SeededEntropy::new(1));
    let accounts = Arc::new(Accounts::parse(&line).unwrap());
    let shared = Arc::new(Authenticator::new(accounts, clock.clone(), entropy, NAME, [4; 32]));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let server = Server::new(config, clock, move |_: &_| {
        let desk = Desk { login: shared.login(), seen: told.clone() };
        async move { Ok(desk) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        server.serve(listener, std::future::pending()).await;
    });
    Site { address, root, seen, serving }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Sends one message with an account; what became of it, and the server's notes.
async fn send(
    to: SocketAddr,
    site: &Site,
    trusted: CertificateDer<'static>,
) -> (Outcome, String, Vec<String>) {
    let client = Client::new(&Trust::Roots(vec![trusted]), Arc::new(SystemClock::new())).unwrap();
    let mut session = Config::new("client.example".parse::<Domain>().unwrap());
    session.starttls = StartTls::Required;
    let mut options = Options::new(session);
    options.demand = Demand::Valid { names: vec![NAME.into()] };
    options.account = Some(Account {
        credentials: Credentials::Password { user: "joe".into(), password: Secret::new("secret") },
        protection: Protection::VerifiedTls,
        mechanisms: Vec::new(),
        entropy: Arc::new(SeededEntropy::new(77)),
    });
    let target = Target { host: Host::Domain(NAME.parse().unwrap()), address: to };
    let envelope = Envelope::new(
        "joe@example.org".parse::<postwright::core::Mailbox>().unwrap(),
        ["b@example.net".parse().unwrap()],
    );
    let message = Message::from_bytes(&b"Subject: x\r\n\r\nx\r\n"[..]);
    let report = client.deliver(&[target], &options, Transaction { envelope, message }).await;
    let status = report.statuses.into_iter().next().unwrap();
    let seen = std::mem::take(&mut *site.seen.lock().unwrap());
    (status.outcome, status.diagnostic.to_string(), seen)
}

#[tokio::test]
async fn each_version_of_tls_has_its_binding() {
    for (version, name, binding) in [
        (&rustls::version::TLS13, "TLSv1.3", "p=tls-exporter"),
        (&rustls::version::TLS12, "TLSv1.2", "p=tls-server-end-point"),
    ] {
        let site = site(version).await;
        let (outcome, text, seen) = send(site.address, &site, site.root.clone()).await;
        assert_eq!(outcome, Outcome::Delivered, "{text}");
        assert_eq!(seen, [format!("{name} SCRAM-SHA-256-PLUS {binding}"), "in".to_owned()]);
    }
}

/// Ends TLS on both sides and passes lines on; `strip` takes -PLUS out of the offer.
async fn man_between(server: SocketAddr, strip: bool) -> (SocketAddr, CertificateDer<'static>) {
    let (identity, certificate) = identity();
    let certificates = Certificates::new(vec![identity]).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(server_config(&certificates, None, Tickets::Off).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (victim, _) = listener.accept().await.unwrap();
        let upstream = TcpStream::connect(server).await.unwrap();
        let mut upstream = BufReader::new(upstream);
        let mut victim = BufReader::new(victim);
        let mut line = String::new();
        // Both sides are led to STARTTLS by hand.
        upstream.read_line(&mut line).await.unwrap();
        victim.get_mut().write_all(line.as_bytes()).await.unwrap();
        victim.read_line(&mut line).await.unwrap();
        upstream.get_mut().write_all(b"EHLO between.example\r\n").await.unwrap();
        loop {
            line.clear();
            upstream.read_line(&mut line).await.unwrap();
            victim.get_mut().write_all(line.as_bytes()).await.unwrap();
            if line.as_bytes()[3] == b' ' {
                break;
            }
        }
        line.clear();
        victim.read_line(&mut line).await.unwrap();
        assert_eq!(line, "STARTTLS\r\n");
        upstream.get_mut().write_all(line.as_bytes()).await.unwrap();
        line.clear();
        upstream.read_line(&mut line).await.unwrap();
        victim.get_mut().write_all(line.as_bytes()).await.unwrap();
        let victim = acceptor.accept(victim.into_inner()).await.unwrap();
        let upstream = as_client().connect(ServerName::try_from(NAME).unwrap(), upstream.into_inner()).await;
        let (mut from_victim, mut to_victim) = tokio::io::split(victim);
        let (mut from_server, mut to_server) = tokio::io::split(upstream.unwrap());
        tokio::spawn(async move { tokio::io::copy(&mut from_victim, &mut to_server).await });
        let mut space = [0; 4096];
        while let Ok(len @ 1..) = from_server.read(&mut space).await {
            let mut text = String::from_utf8_lossy(&space[..len]).into_owned();
            if strip {
                text = text.replace("SCRAM-SHA-256-PLUS ", "");
            }
            if to_victim.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    (address, certificate)
}

/// The man himself believes any certificate.
fn as_client() -> tokio_rustls::TlsConnector {
    #[derive(Debug)]
    struct Anybody(Arc<rustls::crypto::CryptoProvider>);
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn a_man_between_who_passes_everything_on_gets_nobody_in() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let site = site(version).await;
        // The victim even believes his certificate: a bought or forged one.
        let (address, trusted) = man_between(site.address, false).await;
        let (outcome, text, seen) = send(address, &site, trusted).await;
        assert_ne!(outcome, Outcome::Delivered, "{text}");
        assert!(seen[0].contains("SCRAM-SHA-256-PLUS p="), "{seen:?}");
        assert_eq!(seen[1], "535", "{seen:?} {text}");
        assert!(!seen.contains(&"in".to_owned()));
    }
}

#[tokio::test]
async fn an_offer_without_plus_is_found_out_by_the_flag() {
    let site = site(&rustls::version::TLS13).await;
    let (address, trusted) = man_between(site.address, true).await;
    let (outcome, text, seen) = send(address, &site, trusted).await;
    assert_ne!(outcome, Outcome::Delivered, "{text}");
    // `y`: the client could bind and was told that the server cannot (RFC 5802 6).
    assert_eq!(seen, ["TLSv1.3 SCRAM-SHA-256 y", "535"], "{text}");
}

//! MTA-STS policies over real HTTPS, from a web server on loopback with a certification authority of its own, kept
//! on disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::{Domain, MemoryZone, SystemClock, Timestamp};
use postwright::smtp_client::Trust;
use postwright::smtp_client::sts::{Fetch, FetchError, Finder, Finding, Found, Kept, Policy, Store, Trouble};
use postwright::{FileStore, HttpsClient};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// RFC 8461 3.2, with a host of ours.
const POLICY: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.test\r\nmax_age: 604800\r\n";

/// A web server that gives one answer to everybody.
struct Web {
    port: u16,
    root: CertificateDer<'static>,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

async fn web(name: &str, expired: bool) -> Web {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_cert = root.self_signed(&root_key).unwrap().der().clone();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
    if expired {
        leaf.not_after = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_before = rcgen::date_time_ymd(2019, 1, 1);
    }
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = Web {
        port: listener.local_addr().unwrap().port(),
        root: root_cert,
        answer: Arc::new(Mutex::new(ok("text/plain", POLICY))),
        asked: Arc::default(),
        requests: Arc::default(),
    };
    let (answer, asked, requests) = (web.answer.clone(), web.asked.clone(), web.requests.clone());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            asked.fetch_add(1, Ordering::SeqCst);
            let (acceptor, answer, requests) = (acceptor.clone(), answer.clone(), requests.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(octet) => request.push(octet),
                        Err(_) => return,
                    }
                }
                requests.lock().unwrap().push(String::from_utf8(request).unwrap());
                let answer = answer.lock().unwrap().clone();
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    web
}

fn ok(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const ZONE: &str = "mta-sts.example.test. A 127.0.0.1\n_mta-sts.example.test. TXT \"v=STSv1; id=1\"\n";

impl Web {
    fn client(&self, trusted: bool) -> HttpsClient {
        let roots = if trusted { vec![self.root.clone()] } else { Vec::new() };
        let zone = Arc::new(MemoryZone::parse(ZONE).unwrap());
        HttpsClient::new(&Trust::Roots(roots), Arc::new(SystemClock::new()), zone)
            .unwrap()
            .with_port(self.port)
            .with_private_addresses(true)
    }

    fn answers(&self, answer: impl Into<String>) {
        *self.answer.lock().unwrap() = answer.into();
    }

    async fn find(&self, client: HttpsClient, store: Arc<dyn Store>, seconds: u64) -> Finding {
        let finder = Finder::new(Arc::new(client), store);
        let zone = MemoryZone::parse(ZONE).unwrap();
        finder.find(&domain(), &zone, Timestamp::from_secs(1_800_000_000 + seconds)).await
    }
}

fn domain() -> Domain {
    "example.test".parse().unwrap()
}

#[tokio::test]
async fn a_policy_is_fetched_and_outlives_a_restart_and_the_web_server() {
    let folder = tempfile::tempdir().unwrap();
    let web = web("mta-sts.example.test", false).await;
    let store = Arc::new(FileStore::open(folder.path()).unwrap());
    let finding = web.find(web.client(true), store, 0).await;
    let Found::Policy(policy) = finding.found else { panic!("{finding:?}") };
    assert!(policy.names(&"mx.example.test".parse().unwrap()));
    assert_eq!(finding.trouble, None);
    let request = web.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(request.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: mta-sts.example.test\r\n"), "{request}");
    // Another process, a newer id, and the web server only says 503.
    web.answers("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let store = FileStore::open(folder.path()).unwrap();
    let kept = store.load(&domain()).await.unwrap().unwrap();
    store.save(&domain(), &Kept { id: "0".into(), ..kept }).await.unwrap();
    let finding = web.find(web.client(true), Arc::new(store), 1).await;
    assert!(matches!(finding.found, Found::Policy(_)), "{finding:?}");
    assert!(matches!(finding.trouble, Some(Trouble::Fetch(_))), "{finding:?}");
}

#[tokio::test]
async fn odd_web_servers_give_no_policy() {
    let web = web("mta-sts.example.test", false).await;
    let folder = tempfile::tempdir().unwrap();
    let big = "x".repeat(65_537);
    for (answer, trouble) in [
        // RFC 8461 3.3: redirects are not followed.
        (
            "HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.example.test/x\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            "Fetch",
        ),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_owned(), "Fetch"),
        (ok("text/plain", &big), "Fetch"),
        (format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{big}"), "Fetch"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\nversion: STSv1"
                .to_owned(),
            "Fetch",
        ),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "Fetch"),
        (ok("text/html", POLICY), "Invalid"),
        (ok("text/plain", "<html>"), "Invalid"),
    ] {
        web.answers(answer.clone());
        let before = web.asked.load(Ordering::SeqCst);
        let store = Arc::new(FileStore::open(folder.path()).unwrap());
        let finding = web.find(web.client(true), store, 0).await;
        let head: String = answer.chars().take(60).collect();
        assert_eq!(finding.found, Found::None, "{head}");
        let seen = format!("{:?}", finding.trouble);
        assert!(seen.starts_with(&format!("Some({trouble}")), "{head}: {seen}");
        assert_eq!(web.asked.load(Ordering::SeqCst), before + 1, "{head}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was kept");
}

#[tokio::test]
async fn the_web_servers_certificate_must_be_good() {
    for (name, expired, trusted) in [
        ("mta-sts.example.test", true, true),
        ("www.example.test", false, true),
        ("example.test", false, true),
    ] {
        let web = web(name, expired).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(FileStore::open(folder.path()).unwrap());
        let finding = web.find(web.client(trusted), store, 0).await;
        assert_eq!(finding.found, Found::None, "{name}");
        assert!(matches!(finding.trouble, Some(Trouble::Certificate(_))), "{name}: {finding:?}");
        assert!(web.requests.lock().unwrap().is_empty(), "nothing is said to a stranger");
    }
    // Somebody else's authority.
    let (here, there) = (web("mta-sts.example.test", false).await, web("x.test", false).await);
    let stranger = Web { root: there.root.clone(), ..here };
    let error = stranger.client(true).get("https://mta-sts.example.test/", 10, Duration::from_secs(5)).await;
    assert!(matches!(error, Err(FetchError::Certificate(_))), "{error:?}");
}

#[tokio::test]
async fn time_size_and_reach_are_bounded() {
    let web = web("mta-sts.example.test", false).await;
    let url = "https://mta-sts.example.test/.well-known/mta-sts.txt";
    let long = Duration::from_secs(20);
    assert_eq!(web.client(true).get(url, POLICY.len(), long).await.unwrap().body, POLICY.as_bytes());
    assert!(web.client(true).get(url, POLICY.len() - 1, long).await.is_err());
    web.answers("");
    let error = web.client(true).get(url, 100, Duration::from_millis(300)).await.unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
    // A stranger's DNS must not lead us to our own machines.
    let asked = web.asked.load(Ordering::SeqCst);
    let guarded = web.client(true).with_private_addresses(false);
    let error = guarded.get(url, 100, long).await.unwrap_err();
    assert!(error.to_string().contains("no address that may be asked"), "{error}");
    assert_eq!(web.asked.load(Ordering::SeqCst), asked);
    for url in ["http://mta-sts.example.test/", "https://127.0.0.1/", "https://", "no url"] {
        assert!(web.client(true).get(url, 100, long).await.is_err(), "{url}");
    }
}

#[tokio::test]
async fn the_folder_keeps_policies_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".new-7"), "half a pol").unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    assert_eq!(store.domains().await.unwrap(), Vec::<Domain>::new(), "what a crash left is gone");
    let policy = Policy::parse(POLICY.as_bytes()).unwrap();
    let kept = Kept { policy, id: "20160831085700Z".into(), at: Timestamp::from_millis(1_800_000_000_123) };
    let long: Domain = format!("{0}.{0}.{0}.test", "x".repeat(63)).parse().unwrap();
    for domain in [&domain(), &long] {
        assert_eq!(store.load(domain).await.unwrap(), None);
        store.save(domain, &kept).await.unwrap();
        let again = FileStore::open(folder.path()).unwrap();
        assert_eq!(again.load(domain).await.unwrap(), Some(kept.clone()));
    }
    assert_eq!(store.domains().await.unwrap(), [domain(), long]);
    // A broken file is not the same as none.
    for text in ["", "id: 1\n", "id: 1\nat: x\n", "id: 1\nat: 1\nversion: STSv1\n"] {
        std::fs::write(folder.path().join("example.test"), text).unwrap();
        assert!(store.load(&domain()).await.is_err(), "{text:?}");
        let web = web("mta-sts.example.test", false).await;
        let store = Arc::new(FileStore::open(folder.path()).unwrap());
        assert!(matches!(web.find(web.client(true), store, 0).await.found, Found::Unknown(_)), "{text:?}");
    }
}

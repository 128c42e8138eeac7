//! TLS reports from counting to sending: over a restart, by mail and by HTTPS.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::{
    BoxFuture, Domain, Envelope, Mailbox, ManualClock, MemoryZone, Message, Recipient, Refusal,
    SeededEntropy, SystemClock, Timestamp, World,
};
use postwright::dkim::{
    KeyKind, Limits as DkimLimits, MemoryKeyStore, Provider, Signer, SigningKey, Verdict, Verifier,
    VerifyPolicy,
};
use postwright::queue::MemorySpool;
use postwright::smtp_client::tlsrpt::{Limits, PolicyType, Report, ResultType};
use postwright::smtp_client::{BoxIo, Client, Connector, Target, TcpConnector, Trust};
use postwright::smtp_server::{Accepted, Handler, Server, ServerConfig, Session};
use postwright::{HttpsClient, Mta, SignOriginated, TlsReporting, TlsReports};
use postwright_testkit::{peers, skip};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Hands on what it takes.
#[derive(Clone)]
struct Inbox(mpsc::UnboundedSender<(String, Vec<u8>)>);

impl Handler for Inbox {
    async fn rcpt(&mut self, _: &Session, _: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        Ok(())
    }

    async fn message(&mut self, _: &Session, to: &Envelope, message: Message) -> Result<Accepted, Refusal> {
        let _ = self.0.send((to.recipients[0].mailbox.to_string(), message.to_vec()));
        Ok(Accepted::default())
    }
}

/// All addresses lead to one server.
struct Network(SocketAddr);

impl Connector for Network {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            TcpConnector.connect(&Target { host: target.host.clone(), address: self.0 }, source).await
        })
    }
}

/// A server without TLS, and what it took.
async fn receiver() -> (SocketAddr, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let (tell, told) = mpsc::unbounded_channel();
    let inbox = Inbox(tell);
    let acceptor = move |_: &_| {
        let inbox = inbox.clone();
        async move { Ok(inbox) }
    };
    let config = ServerConfig::new("mx.x.test".parse::<Domain>().unwrap());
    let server = Server::new(config, Arc::new(SystemClock::new()), acceptor);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { server.serve(listener, std::future::pending::<()>()).await });
    (address, told)
}

/// 2026-11-20, 23:50 UTC.
const EVENING: Timestamp = Timestamp::from_secs(1_795_218_600);

struct Life {
    mta: Mta,
    clock: Arc<ManualClock>,
}

/// One life of a system that reports.
fn life(zone: &str, to: SocketAddr, file: &Path, at: Timestamp, https: Option<HttpsClient>) -> Life {
    signing(zone, to, file, at, https, MemoryKeyStore::new())
}

/// The same with keys for what it originates.
fn signing(
    zone: &str,
    to: SocketAddr,
    file: &Path,
    at: Timestamp,
    https: Option<HttpsClient>,
    keys: MemoryKeyStore,
) -> Life {
    let clock = Arc::new(ManualClock::new(at));
    let world = World {
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(1)),
        resolver: Arc::new(MemoryZone::parse(zone).unwrap()),
    };
    let settings = TlsReporting {
        organization: "Sender".into(),
        contact: "postmaster@mta.test".into(),
        from: "tls-reports@mta.test".parse().unwrap(),
        file: file.to_owned(),
        https,
    };
    let hostname: Domain = "mta.test".parse().unwrap();
    let reports = TlsReports::open(settings, hostname.clone(), world.clone()).unwrap();
    let client = Client::new(&Trust::Roots(Vec::new()), world.clock.clone()).unwrap();
    let client = client.with_connector(Arc::new(Network(to)));
    let mta = Mta::builder(hostname, world, Arc::new(MemorySpool::default()), client)
        .tls_reports(Arc::new(reports))
        .policy(Arc::new(SignOriginated::new(Arc::new(keys), clock.clone())))
        .build();
    Life { mta, clock }
}

/// Runs a system until `until` is done.
async fn run_until<T>(mta: &Mta, until: impl Future<Output = T>) -> T {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let work = async {
        let result = timeout(Duration::from_secs(20), until).await.unwrap();
        drop(stop);
        result
    };
    tokio::join!(mta.run(async { drop(stopped.await) }), work).1
}

const ZONE: &str = "x.test. MX 10 mx.x.test.\nmx.x.test. A 192.0.2.1\n\
    there.test. MX 10 mx.x.test.\n_smtp._tls.x.test. TXT \"v=TLSRPTv1; rua=mailto:tls@there.test\"\n";

async fn deliver_one(life: &Life, told: &mut mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let envelope = Envelope::new("a@mta.test".parse::<Mailbox>().unwrap(), ["b@x.test".parse().unwrap()]);
    let message = Message::from_bytes(&b"Subject: x\r\n\r\nx\r\n"[..]);
    life.mta.submit(&envelope, message).await.unwrap();
    let (to, _) = run_until(&life.mta, told.recv()).await.unwrap();
    assert_eq!(to, "b@x.test");
}

fn check(report: &Report) {
    assert_eq!(report.organization_name, "Sender");
    assert_eq!(report.date_range.start_datetime, "2026-11-20T00:00:00Z");
    assert_eq!(report.date_range.end_datetime, "2026-11-20T23:59:59Z");
    let [policy] = &report.policies[..] else { panic!("{report:?}") };
    assert_eq!(
        (&policy.policy.policy_type, policy.policy.policy_domain.as_str()),
        (&PolicyType::NoPolicyFound, "x.test")
    );
    // Two messages in two lives, on two connections to a server without TLS.
    assert_eq!(policy.summary.total_failure_session_count, 2);
    let [failure] = &policy.failure_details[..] else { panic!("{report:?}") };
    assert_eq!(failure.result_type, ResultType::StarttlsNotSupported);
    assert_eq!(failure.receiving_mx_hostname.as_deref(), Some("mx.x.test"));
    assert_eq!(failure.failed_session_count, 2);
}

#[tokio::test]
async fn sessions_are_counted_over_a_restart_and_reported_by_mail_the_next_day() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tls-reports.json");
    let (address, mut told) = receiver().await;
    for _ in 0..2 {
        deliver_one(&life(ZONE, address, &file, EVENING, None), &mut told).await;
    }
    // The same day nothing is sent; a restart after midnight and the spread sends it.
    let next = EVENING + Duration::from_secs(5 * 3600);
    let morning = life(ZONE, address, &file, next, None);
    let (to, mail) = run_until(&morning.mta, told.recv()).await.unwrap();
    assert_eq!(to, "tls@there.test");
    let text = String::from_utf8(mail).unwrap();
    for field in [
        "\r\nFrom: tls-reports@mta.test\r\n",
        "\r\nTo: tls@there.test\r\n",
        "\r\nTLS-Required: No\r\n",
        "\r\nTLS-Report-Domain: x.test\r\n",
        "\r\nTLS-Report-Submitter: mta.test\r\n",
        "filename=\"mta.test!x.test!1795132800!1795219199!1.json.gz\"",
    ] {
        assert!(text.contains(field), "{field} is not in {text}");
    }
    let data = text.split("json.gz\"\r\n\r\n").nth(1).unwrap().split("\r\n--").next().unwrap();
    let file_name = folder.path().join("report.b64");
    std::fs::write(&file_name, data.replace('\r', "")).unwrap();
    let decoded = std::process::Command::new("base64").arg("-d").arg(&file_name).output().unwrap();
    check(&Report::parse(&decoded.stdout, &Limits::default()).unwrap());
    // It is sent once: another life, a day later, has nothing to say, not even about the report's own journey.
    let later = life(ZONE, address, &file, next + Duration::from_secs(86_400), None);
    run_until(&later.mta, tokio::time::sleep(Duration::from_millis(300))).await;
    assert!(told.try_recv().is_err());
    drop(later.clock);
}

#[tokio::test]
async fn a_report_by_mail_is_signed_and_others_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tls-reports.json");
    let (address, mut told) = receiver().await;
    let (key, _) = SigningKey::generate(Provider::default(), KeyKind::Ed25519).unwrap();
    // RFC 8460 3: the record should name the service; other receivers want the one that all mail has.
    let record = format!("{}; s=tlsrpt:email", key.record());
    let keys = || {
        let signer = Signer::new(key.clone(), "mta.test".parse().unwrap(), "tls".parse().unwrap()).unwrap();
        let mut keys = MemoryKeyStore::new();
        keys.insert(signer, None);
        keys
    };
    deliver_one(&signing(ZONE, address, &file, EVENING, None, keys()), &mut told).await;
    let next = EVENING + Duration::from_secs(5 * 3600);
    let morning = signing(ZONE, address, &file, next, None, keys());
    let (to, mail) = run_until(&morning.mta, told.recv()).await.unwrap();
    assert_eq!(to, "tls@there.test");
    // The reporting domain's signature holds, by our verifier and by another one; nobody can append to it.
    let zone = MemoryZone::parse(&format!("tls._domainkey.mta.test. TXT \"{record}\"\n")).unwrap();
    let verifier = Verifier::new(Provider::default(), VerifyPolicy::default(), DkimLimits::default());
    let results = verifier.verify(&Message::from_bytes(mail.clone()), &zone, next).await;
    let [result] = &results[..] else { panic!("{results:?}") };
    assert_eq!(result.verdict, Verdict::Pass, "{result:?}");
    let text = String::from_utf8(mail.clone()).unwrap();
    let field = text.split("DKIM-Signature:").nth(1).unwrap().split("\r\nFrom:").next().unwrap();
    assert!(field.contains("d=mta.test;") && !field.contains(" l="), "{field}");
    let path = folder.path().join("report.eml");
    std::fs::write(&path, &mail).unwrap();
    // dkimpy reads one service and no list.
    dkimpy_verifies(&path, &record.replace("tlsrpt:email", "tlsrpt"));
    parsedmarc_reads(&path);
}

/// The signature in the eyes of Python's dkimpy.
fn dkimpy_verifies(mail: &Path, record: &str) {
    let Some(python) = peers::python(&["dkim", "nacl"]) else {
        skip!("dkimpy", "no Python with dkimpy and nacl")
    };
    // The report is of a day that may not have come yet where this runs.
    let script = "
import sys, time
time.time = lambda: 1900000000
import dkim
mail = open(sys.argv[1], 'rb').read()
look_up = lambda name, timeout=5: sys.argv[2].encode() if name.rstrip(b'.') == b'tls._domainkey.mta.test' else None
holds = lambda mail: dkim.DKIM(mail, tlsrpt=True).verify(dnsfunc=look_up)
print(holds(mail))
try:
    print(holds(mail + b'more\\r\\n'))
except dkim.ValidationError:
    print(False)";
    let output =
        std::process::Command::new(python).args(["-c", script]).arg(mail).arg(record).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["True", "False"],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The report in the eyes of Python's parsedmarc.
fn parsedmarc_reads(mail: &Path) {
    let Some(python) = peers::python(&["parsedmarc"]) else {
        skip!("parsedmarc", "no Python with parsedmarc")
    };
    let script = "
import sys, json, parsedmarc
found = parsedmarc.parse_report_file(sys.argv[1], offline=True, always_use_local_files=True)
report, policy = found['report'], found['report']['policies'][0]
failure = policy['failure_details'][0]
print(json.dumps([found['report_type'], report['organization_name'], report['contact_info'], policy['policy_domain'],
    policy['policy_type'], policy['successful_session_count'], policy['failed_session_count'],
    failure['result_type'], failure['failed_session_count'], failure['receiving_mx_hostname']]))";
    let output = std::process::Command::new(python).args(["-c", script]).arg(mail).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let expected = serde_json::json!([
        "smtp_tls",
        "Sender",
        "postmaster@mta.test",
        "x.test",
        "no-policy-found",
        0,
        1,
        "starttls-not-supported",
        1,
        "mx.x.test"
    ]);
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_report_goes_by_https_and_waits_while_the_server_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tls-reports.json");
    let (address, mut told) = receiver().await;
    let zone = "x.test. MX 10 mx.x.test.\nmx.x.test. A 192.0.2.1\nweb.x.test. A 127.0.0.1\n\
        _smtp._tls.x.test. TXT \"v=TLSRPTv1; rua=https://web.x.test/v1/tlsrpt\"\n";
    for _ in 0..2 {
        deliver_one(&life(zone, address, &file, EVENING, None), &mut told).await;
    }
    let web = web().await;
    let https = || {
        let zone = Arc::new(MemoryZone::parse(zone).unwrap());
        let trust = Trust::Roots(vec![web.certificate.clone()]);
        let client = HttpsClient::new(&trust, Arc::new(SystemClock::new()), zone).unwrap();
        Some(client.with_port(web.port).with_private_addresses(true))
    };
    let next = EVENING + Duration::from_secs(5 * 3600);
    // The server says 500: the report stays, and is not tried again at once.
    let morning = life(zone, address, &file, next, https());
    run_until(&morning.mta, web.has_taken(1)).await;
    for (after, taken) in [(10, 1), (3700, 2), (7400, 2)] {
        web.answer(if after > 10 { "204 No Content" } else { "500 Down" });
        let again = life(zone, address, &file, next + Duration::from_secs(after), https());
        run_until(&again.mta, tokio::time::sleep(Duration::from_millis(300))).await;
        assert_eq!(web.taken().len(), taken, "after {after} s");
    }
    let (head, body) = web.taken().pop().unwrap();
    assert!(head.starts_with("POST /v1/tlsrpt HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/tlsrpt+gzip"), "{head}");
    check(&Report::parse(&body, &Limits::default()).unwrap());
}

/// Head and body of a request.
type Request = (String, Vec<u8>);

struct Web {
    port: u16,
    certificate: rustls::pki_types::CertificateDer<'static>,
    taken: Arc<Mutex<Vec<Request>>>,
    status: Arc<Mutex<&'static str>>,
}

impl Web {
    fn taken(&self) -> Vec<Request> {
        self.taken.lock().unwrap().clone()
    }

    fn answer(&self, status: &'static str) {
        *self.status.lock().unwrap() = status;
    }

    async fn has_taken(&self, count: usize) {
        while self.taken().len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The answer must arrive, too.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn web() -> Web {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let made = rcgen::generate_simple_self_signed(["web.x.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken: Arc<Mutex<Vec<Request>>> = Arc::default();
    let status = Arc::new(Mutex::new("500 Down"));
    let web =
        Web { port, certificate: made.cert.der().clone(), taken: taken.clone(), status: status.clone() };
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            let mut body = vec![0; length.unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            taken.lock().unwrap().push((head, body));
            let status = *status.lock().unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    web
}

//! Real neighbours of the outbound side: Dovecot takes mail over LMTP from `postwright serve`, Postfix takes it over
//! TLS of every quality from the client.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postwright::core::{Domain, Envelope, Mailbox, Message, Outcome, SystemClock};
use postwright::smtp_client::{Client as Sender, Demand, Options, Target, Trust};
use postwright::smtp_proto::client::{Config, StartTls, Transaction};
use postwright_testkit::announce;
use rustls::pki_types::CertificateDer;
use support::dovecot::Dovecot;
use support::load::Client;
use support::mta::Mta;
use support::postfix::Postfix;
use support::receiver::Receiver;
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const BODY: &str = "Subject: over lmtp\r\n\r\n.\r\n..\r\n.dot\r\n\u{e9}t\u{e9}\r\n";

/// Mail for `ours.test` goes over LMTP to where `lmtp` says; mail elsewhere to `receiver`.
fn serve(dir: &Path, lmtp: &str, receiver: &Receiver) -> Mta {
    let spool = dir.join("spool");
    let file = dir.join("mta.toml");
    let text = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {spool:?}\nmin_free = \"1 MiB\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [relay]\nfrom = [\"127.0.0.0/8\"]\n[delivery]\nsmart_host = \"{}\"\nprivate_addresses = true\n\
         [[route]]\ndomain = \"ours.test\"\nlmtp = \"{lmtp}\"\n[authentication]\ncheck = false\n",
        receiver.address
    );
    std::fs::write(&file, text).unwrap();
    Mta::with_config(&file)
}

#[test]
fn dovecot_takes_mail_over_a_unix_socket_and_over_tcp() {
    let dovecot = match Dovecot::start() {
        Ok(dovecot) => dovecot,
        Err(why) => return announce("dovecot", &why),
    };
    let receiver = Receiver::start();
    let ways = [format!("unix:{}", dovecot.socket().display()), dovecot.address.to_string()];
    for (number, lmtp) in ways.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mta = serve(dir.path(), lmtp, &receiver);
        let mut client = Client::connect(mta.address).unwrap();
        client.command("MAIL FROM:<a@load.test> BODY=8BITMIME", 2).unwrap();
        // LMTP answers for each: one of these has no mailbox.
        for user in ["joe", "zoe", "ann"] {
            client.command(&format!("RCPT TO:<{user}@ours.test>"), 2).unwrap();
        }
        client.command("DATA", 3).unwrap();
        let stuffed = BODY.replace("\r\n.", "\r\n..");
        client.write(format!("{stuffed}.\r\n").as_bytes()).unwrap();
        client.expect(2).unwrap();
        for user in ["joe", "ann"] {
            wait_until(&format!("{user} has mail {number}: {}", dovecot.log()), PATIENCE, || {
                dovecot.mails(user).len() > number
            });
            for mail in dovecot.mails(user) {
                let text = String::from_utf8(mail).unwrap();
                assert!(text.ends_with(BODY), "{lmtp}: {text}");
                assert!(text.contains("for <") || text.contains("by mta.test"), "{text}");
            }
        }
        // The sender hears of the one that failed, and of no other.
        wait_until("the notification has arrived", PATIENCE, || receiver.count() > number);
        let notice = String::from_utf8_lossy(&receiver.mails()[number].body).into_owned();
        assert!(notice.contains("zoe@ours.test") && notice.contains("550 5.1.1"), "{notice}");
        assert!(!notice.contains("Final-Recipient: rfc822;joe"), "{notice}");
        assert!(mta.terminate(PATIENCE).success());
    }
}

/// A certificate and its key in files, and its root.
fn certificate(dir: &Path, name: &str, expired: bool) -> CertificateDer<'static> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_cert = root.self_signed(&root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let cert = params.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("other.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    root_cert.der().clone()
}

/// One message to a Postfix; the outcome, the status, and whether TLS was used and verified.
fn send(postfix: &Postfix, root: &CertificateDer<'static>, demand: Demand, starttls: StartTls) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let trust = Trust::Roots(vec![root.clone()]);
        let client = Sender::new(&trust, Arc::new(SystemClock::new())).unwrap();
        let mut config = Config::new("client.test".parse::<Domain>().unwrap());
        config.starttls = starttls;
        let mut options = Options::new(config);
        options.demand = demand;
        let target = Target { host: "mx.test".parse().unwrap(), address: postfix.address };
        let envelope =
            Envelope::new("a@load.test".parse::<Mailbox>().unwrap(), ["b@receiver.test".parse().unwrap()]);
        let message = Message::from_bytes(&b"Subject: tls\r\n\r\nhello\r\n"[..]);
        let report = client.deliver(&[target], &options, Transaction { envelope, message }).await;
        let status = &report.statuses[0];
        let tls = status.remote.as_ref().and_then(|remote| remote.tls.as_ref());
        match (status.outcome, tls) {
            (Outcome::Delivered | Outcome::Relayed, None) => "clear".to_owned(),
            (Outcome::Delivered | Outcome::Relayed, Some(tls)) if tls.verified => "verified".to_owned(),
            (Outcome::Delivered | Outcome::Relayed, Some(_)) => "encrypted".to_owned(),
            (outcome, _) => format!("{outcome:?} {}", status.status),
        }
    })
}

#[test]
fn postfix_with_tls_of_every_quality() {
    let receiver = Receiver::start();
    for (quality, name, expired, key, expected) in [
        // Columns: trying, TLS required, a valid certificate required.
        ("off", "mx.test", false, "key.pem", ["clear", "Delayed 4.7.4", "Delayed 4.7.4"]),
        ("good", "mx.test", false, "key.pem", ["verified", "verified", "verified"]),
        ("expired", "mx.test", true, "key.pem", ["encrypted", "encrypted", "Delayed 4.7.5"]),
        ("other name", "www.test", false, "key.pem", ["encrypted", "encrypted", "Delayed 4.7.5"]),
        // The key is not the certificate's: Postfix has no TLS then, whatever it offers.
        ("broken", "mx.test", false, "other.pem", ["clear", "Delayed 4.7.4", "Delayed 4.7.4"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let root = certificate(dir.path(), name, expired);
        let level = if quality == "off" { "none" } else { "may" };
        let files = dir.path().display();
        let more = format!(
            "smtpd_tls_security_level = {level}\nsmtpd_tls_cert_file = {files}/cert.pem\n\
             smtpd_tls_key_file = {files}/{key}\n"
        );
        let postfix = match Postfix::with(receiver.address, &more) {
            Ok(postfix) => postfix,
            Err(why) => return announce("postfix", &why),
        };
        let valid = Demand::Valid { names: Vec::new() };
        let seen = [
            send(&postfix, &root, Demand::Nothing, StartTls::Opportunistic),
            send(&postfix, &root, Demand::Nothing, StartTls::Required),
            send(&postfix, &root, valid, StartTls::Required),
        ];
        assert_eq!(seen, expected, "{quality}: {}", postfix.log());
    }
}

/// Everything goes to `smart_host`.
fn relay(dir: &Path, smart_host: std::net::SocketAddr) -> std::path::PathBuf {
    let (spool, file) = (dir.join("spool"), dir.join("mta.toml"));
    let text = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {spool:?}\nmin_free = \"1 MiB\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [relay]\nfrom = [\"127.0.0.0/8\"]\n[delivery]\nsmart_host = \"{smart_host}\"\n[authentication]\ncheck = false\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_log_names_the_next_server_its_queue_id_and_the_time_of_each_phase() {
    let receiver = Receiver::start();
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let second = Mta::with_config(&relay(far.path(), receiver.address));
    let log = near.path().join("log");
    let first = Mta::logging(&relay(near.path(), second.address), &log);
    let mut client = Client::connect(first.address).unwrap();
    client.send("a@load.test", &["joe@there.test"], b"Subject: x\r\n\r\nx\r\n").unwrap();
    wait_until("delivery", PATIENCE, || receiver.count() == 1);
    let delivered = || {
        let log = std::fs::read_to_string(&log).unwrap();
        log.lines().find(|line| line.contains("postwright::mail: delivered")).map(str::to_owned)
    };
    wait_until("the line of the log", PATIENCE, || delivered().is_some());
    let line = delivered().unwrap();
    let id = line.split_once("remote_id=\"").and_then(|(_, rest)| rest.split('"').next()).unwrap();
    // The second server wrote the same id into its Received field, the topmost, which is folded.
    let text = String::from_utf8_lossy(&receiver.mails()[0].body).into_owned();
    let topmost = text.split("\r\nReceived:").next().unwrap();
    assert!(topmost.contains(&format!("id {id}")), "{line}\n{text}");
    let by = format!("by=\"[127.0.0.1][{}]\"", second.address);
    for part in [by.as_str(), "timings=", "total="] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

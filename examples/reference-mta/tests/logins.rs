//! Logging in as others do it: GNU SASL, an implementation of its own, in every mechanism; and what the log then says.
//!
//! Standards: RFC 4954, RFC 5802, RFC 7677, RFC 9266 (GNU SASL binds by `tls-exporter` over TLS 1.3).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::Path;
use std::time::Duration;

use postwright_testkit::{peers, skip};
use support::mta::Mta;
use support::secure::{Authority, Talk, account, plain};

const HOST: &str = "localhost";
const USER: &str = "joe@local.test";
const PASSWORD: &str = "Open-Sesame-42";

fn prepare(folder: &Path) -> Authority {
    let authority = Authority::new();
    authority.issue(folder, HOST);
    authority.write_root(folder);
    std::fs::write(folder.join("accounts"), account(USER, PASSWORD, "scram")).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let (spool, accounts) = (at("spool"), at("accounts"));
    let tls = format!("certificate = {:?}, key = {:?}", at("localhost.pem"), at("localhost.key"));
    let config = format!(
        "hostname = {HOST:?}\n[spool]\npath = {spool:?}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"submission\"\ntls = {{ {tls} }}\n\
         [accounts]\nfile = {accounts:?}\nfailures_per_ip = 1000\nfailures_per_account = 1000\n\
         [delivery]\nsmart_host = \"127.0.0.1:1\"\n"
    );
    std::fs::write(folder.join("config"), config).unwrap();
    authority
}

#[test]
fn gnu_sasl_logs_in_with_every_mechanism_and_not_without_the_password() {
    if peers::find("gsasl").is_none() {
        skip!("gsasl", "the program is not there")
    }
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let mta = Mta::with_config(&folder.path().join("config"));
    for (mechanism, more) in [
        // Bound by tls-exporter.
        ("SCRAM-SHA-256-PLUS", None),
        ("SCRAM-SHA-256", Some("--no-cb")),
        ("PLAIN", None),
        ("LOGIN", None),
    ] {
        for (password, welcome) in [(PASSWORD, true), ("Open-Sesame-43", false)] {
            let mut command = peers::command("gsasl").unwrap();
            // It cannot tell our authority from others without a name; who is at the other end is not the question.
            command
                .args(["--smtp", "--verbose", "--x509-ca-file="])
                .arg(format!("--connect={HOST}:{}", mta.address.port()))
                .args(["-m", mechanism, "-a", USER, "-p", password])
                .args(more);
            let output = command.output().unwrap();
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(text.contains("\n235 2.7.0"), welcome, "{mechanism}: {text}");
            assert_eq!(text.contains("\n535 5.7.8"), !welcome, "{mechanism}: {text}");
        }
    }
}

#[test]
fn no_log_however_wordy_has_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let authority = prepare(folder.path());
    let log = folder.path().join("log");
    let mta = Mta::logging(&folder.path().join("config"), &log);
    let tls = authority.client();
    for (password, code) in [(PASSWORD, 235), ("Wrong-Sesame-99", 535)] {
        let mut talk = Talk::greeted("127.0.0.1", mta.address).starttls(&tls, HOST);
        assert_eq!(talk.code(&plain(USER, password)), code);
        // Malformed, and on the wrong line.
        let mut talk = Talk::greeted("127.0.0.1", mta.address).starttls(&tls, HOST);
        assert!(talk.code(&format!("AUTH PLAIN {password}!")) >= 500);
        assert!(talk.code(&format!("MAIL FROM:<a@x.test> AUTH={password}\u{7f}")) >= 500);
    }
    assert!(mta.terminate(Duration::from_secs(20)).success());
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.contains("login refused"), "the log is as wordy as it gets: {text}");
    for password in [PASSWORD, "Wrong-Sesame-99"] {
        let encoded = plain(USER, password);
        let encoded = encoded.trim_start_matches("AUTH PLAIN ").trim_end_matches('=');
        for secret in [password, encoded] {
            assert!(!text.contains(secret), "{secret} is in the log");
        }
    }
}

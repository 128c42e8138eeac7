//! `serve` checks what strangers send and signs what it originates; the signatures are judged by the command line
//! and, where it is at hand, by dkimpy.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use postwright_testkit::{peers, skip};
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

struct Setup {
    mta: Mta,
    receiver: Receiver,
    dir: tempfile::TempDir,
}

/// An MTA for local.test with a key of ours.test, on the given zone, that keeps DMARC policies.
fn setup() -> Setup {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let key = dir.path().join("s1.pem");
    let made = postwright(
        &["dkim", "keygen", "--domain", "ours.test", "--selector", "s1", "--algorithm", "ed25519", "--out"],
        Some(&key),
        b"",
    );
    let record = String::from_utf8(made).unwrap();
    let zone = format!(
        "{record}\nstrict.test. TXT \"v=spf1 ip4:192.0.2.1 -all\"\n_dmarc.strict.test. TXT \"v=DMARC1; p=reject\"\n\
         _dmarc.ours.test. TXT \"v=DMARC1; p=reject\"\n"
    );
    std::fs::write(dir.path().join("zone"), zone).unwrap();
    let config = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {spool:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\n[relay]\n\
         from = [\"127.0.0.1\"]\ndomains = [\"local.test\"]\n[delivery]\nsmart_host = \"{}\"\n[dns]\nzone = {zone:?}\n\
         [authentication]\ndmarc = \"reject\"\n[[dkim]]\ndomain = \"ours.test\"\nselector = \"s1\"\nkey = {key:?}\n",
        receiver.address,
        spool = dir.path().join("spool"),
        zone = dir.path().join("zone"),
    );
    std::fs::write(dir.path().join("config"), config).unwrap();
    let mta = Mta::with_config(&dir.path().join("config"));
    Setup { mta, receiver, dir }
}

fn postwright(args: &[&str], file: Option<&Path>, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
    command.args(args).args(file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}");
    output.stdout
}

#[test]
fn what_we_originate_is_signed_and_the_signature_verifies() {
    let setup = setup();
    let body = b"From: Joe <joe@ours.test>\r\nTo: b@far.test\r\nSubject: signed\r\n\r\nx\r\n";
    Client::connect(setup.mta.address).unwrap().send("joe@ours.test", &["b@far.test"], body).unwrap();
    wait_until("the message has arrived", PATIENCE, || setup.receiver.count() == 1);
    let arrived = setup.receiver.mails().remove(0).body;
    let zone = setup.dir.path().join("zone");
    let verdict = postwright(&["dkim", "verify", "--zone"], Some(&zone), &arrived);
    let verdict: serde_json::Value = serde_json::from_slice(&verdict).unwrap();
    let signature = &verdict["signatures"][0];
    assert_eq!(
        (&signature["result"], &signature["domain"]),
        (&"pass".into(), &"ours.test".into()),
        "{verdict}"
    );
    assert_eq!(verdict["signatures"].as_array().unwrap().len(), 1);

    let Some(python) = peers::python(&["dkim", "nacl"]) else {
        skip!("signed-mail-by-dkimpy", "no dkimpy with PyNaCl")
    };
    let script = "import sys, dkim\nzone = open(sys.argv[1]).read()\nimport re\n\
                  txt = ''.join(re.findall(r'\"([^\"]*)\"', zone.split('\\nstrict')[0])).encode()\n\
                  sys.exit(0 if dkim.verify(sys.stdin.buffer.read(), dnsfunc=lambda name, timeout=5: txt) else 1)";
    let mut child =
        Command::new(python).args(["-c", script]).arg(&zone).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&arrived).unwrap();
    assert!(child.wait().unwrap().success(), "dkimpy does not agree");
}

#[test]
fn a_stranger_who_forges_a_strict_domain_is_refused_and_others_are_stamped() {
    let setup = setup();
    let Some(mut stranger) = Client::from_source("127.0.0.2", setup.mta.address) else {
        skip!("dmarc-at-the-door", "only one loopback address")
    };
    stranger.expect(2).unwrap();
    stranger.command("EHLO stranger.test", 2).unwrap();
    let forged = b"From: ceo@strict.test\r\nSubject: pay\r\n\r\nx\r\n";
    let error = stranger.send("ceo@strict.test", &["b@local.test"], forged).unwrap_err().to_string();
    assert!(error.starts_with("550 5.7.1 Refused by the DMARC policy of strict.test"), "{error}");
    let plain =
        b"Authentication-Results: mta.test; dmarc=pass\r\nFrom: joe@unknown.test\r\nSubject: hi\r\n\r\nx\r\n";
    stranger.send("joe@unknown.test", &["b@local.test"], plain).unwrap();
    wait_until("the message has arrived", PATIENCE, || setup.receiver.count() == 1);
    let mail = setup.receiver.mails().remove(0);
    let text = String::from_utf8(mail.body).unwrap();
    assert_eq!(text.matches("Authentication-Results:").count(), 1, "{text}");
    assert!(text.contains("Authentication-Results: mta.test;\r\n\tspf=none"), "{text}");
    assert!(text.contains("dkim=none") && text.contains("dmarc=none") && text.contains("arc=none"), "{text}");
}

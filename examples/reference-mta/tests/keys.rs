//! The keys of `serve`: read again at SIGHUP, one set a tenant, chosen by a rotation; and ARC seals on what is forwarded.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postwright_testkit::skip;
use serde_json::Value;
use support::cli::{json, ok, run};
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// `serve` with a configuration that a test writes anew, and what it logs.
struct Setup {
    mta: Option<Mta>,
    receiver: Receiver,
    dir: tempfile::TempDir,
}

impl Setup {
    /// Keys a, b, c and t of ours.test, all published.
    fn new() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let mut zone = Vec::new();
        for selector in ["a", "b", "c", "t"] {
            let args =
                ["dkim", "keygen", "--algorithm", "ed25519", "--domain", "ours.test", "--selector", selector];
            zone.extend(ok(dir.path(), &[&args[..], &["--out", &format!("{selector}.pem")]].concat(), b""));
        }
        std::fs::write(dir.path().join("zone"), zone).unwrap();
        Setup { mta: None, receiver: Receiver::start(), dir }
    }

    fn start(&mut self, sections: &str) {
        self.write(sections);
        let mut command = Command::new("sh");
        command.current_dir(self.dir.path()).args(["-c", "exec \"$0\" serve --config config 2>log"]);
        command.arg(env!("CARGO_BIN_EXE_postwright"));
        self.mta = Some(Mta::spawn(command));
    }

    fn write(&self, sections: &str) {
        let text = format!(
            "hostname = \"mta.test\"\n[spool]\npath = \"spool\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n[relay]\n\
             from = [\"127.0.0.1\", \"127.0.0.2\"]\ndomains = [\"local.test\"]\n[delivery]\nsmart_host = \"{}\"\n\
             [dns]\nzone = \"zone\"\n{sections}",
            self.receiver.address,
        );
        std::fs::write(self.dir.path().join("config"), text).unwrap();
    }

    fn mta(&self) -> &Mta {
        self.mta.as_ref().unwrap()
    }

    fn hangup(&self) {
        let sent = Command::new("kill").args(["-HUP", &self.mta().pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Sends one message of ours.test and gives the selectors of its signatures, all of which verify.
    fn signed_by(&self, client: &mut Client) -> Vec<String> {
        let before = self.receiver.count();
        let body = b"From: Joe <joe@ours.test>\r\nTo: b@far.test\r\nSubject: signed\r\n\r\nx\r\n";
        client.send("joe@ours.test", &["b@far.test"], body).unwrap();
        wait_until("the message has arrived", PATIENCE, || self.receiver.count() > before);
        self.selectors(&self.receiver.mails().pop().unwrap().body)
    }

    fn selectors(&self, mail: &[u8]) -> Vec<String> {
        let verdict = json(self.dir.path(), &["dkim", "verify", "--zone", "zone"], mail);
        let signatures = verdict["signatures"].as_array().unwrap();
        assert!(signatures.iter().all(|signature| signature["result"] == "pass"), "{verdict}");
        signatures.iter().map(|signature| signature["selector"].as_str().unwrap().to_owned()).collect()
    }
}

fn section(selector: &str) -> String {
    format!("[[dkim]]\ndomain = \"ours.test\"\nselector = \"{selector}\"\nkey = \"{selector}.pem\"\n")
}

#[test]
fn a_hangup_brings_new_keys_and_bad_ones_leave_the_old_in_use() {
    let mut setup = Setup::new();
    setup.start(&section("a"));
    let mut client = Client::connect(setup.mta().address).unwrap();
    assert_eq!(setup.signed_by(&mut client), ["a"]);
    // A key that is not there, one that is none, and a section that cannot be read.
    std::fs::write(
        setup.dir.path().join("broken.pem"),
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    for (nth, wrong) in
        [section("missing"), section("broken"), "[[dkim]]\ndomian = \"x\"\n".to_owned()].iter().enumerate()
    {
        setup.write(&[section("b"), wrong.clone()].concat());
        setup.hangup();
        wait_until("the reload was refused", PATIENCE, || {
            setup.log().matches("the old ones stay in use").count() == nth + 1
        });
        assert_eq!(setup.signed_by(&mut client), ["a"], "{wrong}");
    }
    assert!(setup.log().contains("missing.pem") && setup.log().contains("domian"), "{}", setup.log());
    // The same connection goes on throughout, and two good keys take over together.
    setup.write(&[section("b"), section("c")].concat());
    setup.hangup();
    wait_until("the new keys sign", PATIENCE, || setup.signed_by(&mut client) == ["b", "c"]);
}

#[test]
fn nothing_is_lost_or_unsigned_while_keys_change() {
    let mut setup = Setup::new();
    setup.start(&section("a"));
    let mut client = Client::connect(setup.mta().address).unwrap();
    let body = b"From: Joe <joe@ours.test>\r\nSubject: signed\r\n\r\nx\r\n";
    for n in 0..40 {
        setup.write(&section(["a", "b"][n % 2]));
        setup.hangup();
        client.send("joe@ours.test", &["b@far.test"], body).unwrap();
    }
    wait_until("all have arrived", PATIENCE, || setup.receiver.count() == 40);
    for mail in setup.receiver.mails() {
        assert_eq!(setup.selectors(&mail.body).len(), 1);
    }
}

#[test]
fn a_tenant_signs_with_its_own_keys() {
    let mut setup = Setup::new();
    let tenant = section("t") + "tenant = \"acme\"\nfrom = [\"127.0.0.2\"]\n";
    setup.start(&[section("a"), section("b"), tenant].concat());
    let mut ours = Client::connect(setup.mta().address).unwrap();
    assert_eq!(setup.signed_by(&mut ours), ["a", "b"]);
    let Some(mut acme) = Client::from_source("127.0.0.2", setup.mta().address) else {
        skip!("keys-by-tenant", "only one loopback address")
    };
    acme.expect(2).unwrap();
    acme.command("EHLO acme.test", 2).unwrap();
    assert_eq!(setup.signed_by(&mut acme), ["t"]);
}

#[test]
fn what_strangers_send_goes_on_with_a_seal_that_holds() {
    let mut setup = Setup::new();
    setup.start("[arc]\ndomain = \"ours.test\"\nselector = \"c\"\nkey = \"c.pem\"\n");
    let Some(mut stranger) = Client::from_source("127.0.0.3", setup.mta().address) else {
        skip!("sealed-mail", "only one loopback address")
    };
    stranger.expect(2).unwrap();
    stranger.command("EHLO stranger.test", 2).unwrap();
    let mut body = b"From: joe@unknown.test\r\nSubject: hi\r\n\r\nx\r\n".to_vec();
    for hop in 1..=2 {
        stranger.send("joe@unknown.test", &["b@local.test"], &body).unwrap();
        wait_until("the message has arrived", PATIENCE, || setup.receiver.count() == hop);
        body = setup.receiver.mails().pop().unwrap().body;
        let chain = json(setup.dir.path(), &["arc", "verify", "--zone", "zone"], &body);
        assert_eq!((&chain["cv"], &chain["instances"]), (&"pass".into(), &hop.into()), "{chain}");
    }
    let text = String::from_utf8(body).unwrap();
    let results = text.split("ARC-Authentication-Results: i=2;").nth(1).unwrap();
    assert!(results.contains("spf=none") && results.contains("arc=pass"), "{text}");
}

const DAY: u64 = 86_400;

/// A rotation on a zone that the test writes.
struct Rotation<'d>(&'d Path);

impl Rotation<'_> {
    fn step(&self, verb: &[&str], day: u64) -> Value {
        let time = (1_000_000_000 + day * DAY).to_string();
        let args = [&["dkim", "rotation"], verb, &["--state", "state.json", "--time", &time]].concat();
        json(self.0, &args, b"")
    }

    fn publish(&self, selector: &str, day: u64) -> Value {
        let key = format!("new-{selector}.pem");
        let verb = [
            "publish",
            "--domain",
            "ours.test",
            "--selector",
            selector,
            "--algorithm",
            "ed25519",
            "--key",
            &key,
        ];
        self.step(&verb, day)
    }

    fn check(&self, day: u64) -> Value {
        self.step(&["check", "--zone", "dns"], day)
    }

    fn add_to_dns(&self, shown: &Value, nth: usize) {
        let record = shown["keys"][nth]["record"].as_str().unwrap();
        let mut zone =
            std::fs::OpenOptions::new().append(true).create(true).open(self.0.join("dns")).unwrap();
        writeln!(zone, "{record}").unwrap();
    }
}

fn states(shown: &Value) -> Vec<(&str, &str)> {
    let keys = shown["keys"].as_array().unwrap();
    keys.iter().map(|key| (key["state"].as_str().unwrap(), key["dns"].as_str().unwrap())).collect()
}

#[test]
fn a_rotation_leads_two_keys_through_their_life() {
    let dir = tempfile::tempdir().unwrap();
    let rotation = Rotation(dir.path());
    std::fs::write(dir.path().join("dns"), "").unwrap();
    let shown = rotation.publish("one", 0);
    assert_eq!(states(&shown), [("published", "publish")]);
    assert_eq!((&shown["signing"], &shown["due"]), (&Value::Null, &false.into()));
    // Not in DNS: it waits for ever.
    assert_eq!(states(&rotation.check(50)), [("published", "publish")]);
    rotation.add_to_dns(&shown, 0);
    assert_eq!(states(&rotation.check(51)), [("waiting", "keep")]);
    let shown = rotation.check(52);
    assert_eq!((states(&shown), &shown["signing"]), (vec![("active", "keep")], &"one".into()));
    assert_eq!(rotation.check(52 + 179)["due"], false);
    assert_eq!(rotation.check(52 + 180)["due"], true);
    // A selector never names two keys, and nothing is written over.
    let again =
        ["dkim", "rotation", "publish", "--state", "state.json", "--selector", "one", "--key", "x.pem"];
    assert_eq!(run(dir.path(), &again, b"").status.code(), Some(2));
    assert!(!dir.path().join("x.pem").exists());
    let shown = rotation.publish("two", 233);
    rotation.add_to_dns(&shown, 1);
    assert_eq!(states(&rotation.check(233)), [("active", "keep"), ("waiting", "keep")]);
    let shown = rotation.check(234);
    assert_eq!(
        (states(&shown), &shown["signing"]),
        (vec![("retiring", "keep"), ("active", "keep")], &"two".into())
    );
    let shown = rotation.check(248);
    assert_eq!(states(&shown), [("removed", "revoke"), ("active", "keep")]);
    assert_eq!(shown["keys"][0]["record"], "one._domainkey.ours.test. IN TXT \"v=DKIM1; p=\"");
    let shown = rotation.step(&["revoke", "--selector", "two"], 249);
    assert_eq!(
        (states(&shown)[1], &shown["signing"], &shown["due"]),
        (("removed", "revoke"), &Value::Null, &true.into())
    );
    assert_eq!(rotation.step(&["show"], 249), shown);
}

#[test]
fn serve_signs_with_the_key_that_the_rotation_says() {
    let mut setup = Setup::new();
    let dir = setup.dir.path().to_owned();
    let state = |one: &str, two: &str| {
        let text = format!(
            "{{\"domain\":\"ours.test\",\"keys\":[{{\"selector\":\"a\",\"file\":\"a.pem\",\"state\":\"{one}\",\"date\":9}},\
             {{\"selector\":\"b\",\"file\":\"b.pem\",\"state\":\"{two}\",\"date\":9}}]}}"
        );
        std::fs::write(dir.join("state.json"), text).unwrap();
    };
    state("active", "published");
    setup.start("[[dkim]]\ndomain = \"ours.test\"\nrotation = \"state.json\"\n");
    let mut client = Client::connect(setup.mta().address).unwrap();
    assert_eq!(setup.signed_by(&mut client), ["a"]);
    // Its wait is long over: it signs, whoever wrote the file.
    state("active", "waiting");
    setup.hangup();
    wait_until("the successor signs", PATIENCE, || setup.signed_by(&mut client) == ["b"]);
}

//! Shaping in the real binary where it has to know the mail hosts: providers, complaints that come back and what they set in
//! motion, undoing it, and envelopes that are too large for the receiver.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::cli::{lines, run};
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{complaint, pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const BODY: &[u8] = b"Message-ID: <first@load.test>\r\nSubject: x\r\n\r\nx\r\n";
/// `guest.test` is hosted by a provider whose mail hosts the built-in table knows; `plain.test` is nobody's.
const ZONE: &str = "guest.test. MX 10 aspmx.l.google.com.\naspmx.l.google.com. A 127.0.0.1\n\
                    club.test. MX 10 mx1.comcast.net.\nmx1.comcast.net. A 127.0.0.1\n\
                    plain.test. MX 10 mx.plain.test.\nmx.plain.test. A 127.0.0.1\n";

struct Place {
    dir: tempfile::TempDir,
    receiver: Receiver,
}

impl Place {
    /// A server that delivers by MX, all of which lead to one receiver.
    fn new(rules: &str) -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap(), receiver: Receiver::start() };
        let dir = place.dir.path();
        std::fs::write(dir.join("rules"), rules).unwrap();
        std::fs::write(dir.join("zone"), ZONE).unwrap();
        std::fs::write(dir.join("keys"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let config = format!(
            "hostname = \"mta.test\"\n[control]\nsocket = {:?}\n[spool]\npath = {:?}\nmin_free = \"1 MiB\"\n\
             [[listen]]\naddress = \"127.0.0.9:0\"\n[dns]\nzone = {:?}\n[delivery]\nport = {}\n\
             private_addresses = true\nshaping = {:?}\n[authentication]\ncheck = false\n[feedback]\nstore = {:?}\n\
             domain = \"bounces.test\"\nkeys = {:?}\n",
            dir.join("control"),
            dir.join("spool"),
            dir.join("zone"),
            place.receiver.address.port(),
            dir.join("rules"),
            dir.join("feedback"),
            dir.join("keys"),
        );
        std::fs::write(dir.join("mta.toml"), config).unwrap();
        place
    }

    fn start(&self) -> Mta {
        Mta::with_config(&self.dir.path().join("mta.toml"))
    }

    fn args<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        [words, &["--config", "mta.toml"]].concat()
    }

    fn lines(&self, words: &[&str]) -> Vec<Value> {
        lines(self.dir.path(), &self.args(words), b"")
    }

    /// To how many recipients of a domain mail came.
    fn arrived(&self, domain: &str) -> usize {
        let mails = self.receiver.mails();
        mails.iter().flat_map(|mail| &mail.to).filter(|to| to.ends_with(domain)).count()
    }
}

/// The complaint is about a message to a domain of its own; its mail hosts are the provider's, and so is the rule.
#[test]
fn a_complaint_sets_a_providers_rule_in_motion_and_an_operator_undoes_it() {
    let place = Place::new(
        "[egress.sources.a]\nip = \"127.0.0.2\"\n[egress.pools.all]\nsources = [\"a\"]\ndefault = true\n\
         [automation.angry]\nprovider = \"gmail\"\nsignal = \"complained\"\nthreshold = \"1/h\"\n\
         action = \"suspend source+provider\"\nfor = \"2h\"\n",
    );
    let mta = place.start();
    let mut client = Client::connect(mta.address).unwrap();
    // One message to both: what came back is about one of the two ways that it took.
    client.send("author@load.test", &["cross@guest.test", "ann@plain.test"], BODY).unwrap();
    wait_until("it arrives", PATIENCE, || place.arrived("guest.test") + place.arrived("plain.test") == 2);
    assert_eq!(place.lines(&["shaping", "events"]), Vec::<Value>::new());
    let path = place.receiver.mails()[0].from.clone();
    let report = complaint(&path, "first@load.test")
        .replace("Version: 1\r\n", "Version: 1\r\nOriginal-Rcpt-To: <cross@guest.test>\r\n");
    client.send("fbl@provider.test", &["fbl@bounces.test"], report.as_bytes()).unwrap();
    let events = place.lines(&["shaping", "events"]);
    assert_eq!(events.len(), 1, "{events:?}");
    let when = serde_json::json!({ "source": "a", "provider": "gmail" });
    assert_eq!((&events[0]["action"], &events[0]["when"]), (&"suspended".into(), &when));
    assert_eq!((&events[0]["cause"], &events[0]["undone"]), (&"rule angry: complained".into(), &Value::Null));

    client.send("author@load.test", &["bob@guest.test"], BODY).unwrap();
    client.send("author@load.test", &["bob@plain.test"], BODY).unwrap();
    wait_until("the others go on", PATIENCE, || place.arrived("plain.test") == 2);
    wait_until("its lane waits", PATIENCE, || {
        let lanes = place.lines(&["queue", "lanes"]);
        lanes.iter().any(|lane| lane["destination"] == "guest.test" && lane["blocked_until"].is_string())
    });
    assert_eq!(place.arrived("guest.test"), 1, "the provider gets nothing");

    let number = events[0]["event"].to_string();
    let undone = place.lines(&["shaping", "undo", &number]);
    assert!(undone[0]["undone"].is_string(), "{undone:?}");
    wait_until("what waited leaves at once", PATIENCE, || place.arrived("guest.test") == 2);
    let again = run(place.dir.path(), &place.args(&["shaping", "undo", &number]), b"");
    let complaint = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!((again.status.code(), complaint.lines().count()), (Some(2), 1), "{complaint}");
    assert!(mta.terminate(PATIENCE).success());
}

#[test]
fn a_large_envelope_is_sent_in_parts_of_the_size_that_the_receiver_takes() {
    let place = Place::new("[domain.\"plain.test\"]\nrecipients-per-message = 3\n");
    place.receiver.refuse("r4@plain.test");
    let mta = place.start();
    let mut client = Client::connect(mta.address).unwrap();
    let to: Vec<String> = (0..8).map(|i| format!("r{i}@plain.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    client.send("author@load.test", &to, BODY).unwrap();
    wait_until("all parts arrive", PATIENCE, || place.arrived("plain.test") == 7);
    let sizes: Vec<usize> = place.receiver.mails().iter().map(|mail| mail.to.len()).collect();
    assert_eq!(sizes, [3, 2, 2], "of three, three and two; one was refused");
    let mut seen: Vec<String> = place.receiver.mails().into_iter().flat_map(|mail| mail.to).collect();
    seen.dedup();
    let taken: Vec<&str> = to.iter().copied().filter(|to| *to != "r4@plain.test").collect();
    assert_eq!(seen, taken, "each once, in order");
    // The status of each is its own: the refused one fails, and the notification of it has nowhere to go.
    wait_until("the outcome is known", PATIENCE, || {
        place.lines(&["queue", "status"])[0]["since_start"]["notified"] == 1
    });
    assert_eq!(place.lines(&["queue", "status"])[0]["since_start"]["delivered"], 7);
    assert!(mta.terminate(PATIENCE).success());
}

/// When a later part has to wait, the earlier ones are settled, and nobody gets a message twice.
#[test]
fn parts_that_have_to_wait_are_sent_later_and_the_others_not_again() {
    let place = Place::new("[domain.\"plain.test\"]\nrecipients-per-message = 2\nmessages = \"2/min\"\n");
    let config = place.dir.path().join("mta.toml");
    let text = std::fs::read_to_string(&config).unwrap() + "[retry]\nfirst = \"1s\"\nlongest = \"2s\"\n";
    std::fs::write(&config, text).unwrap();
    let mta = place.start();
    let mut client = Client::connect(mta.address).unwrap();
    let to: Vec<String> = (0..4).map(|i| format!("r{i}@plain.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    client.send("author@load.test", &to, BODY).unwrap();
    wait_until("the first part arrives", PATIENCE, || place.arrived("plain.test") == 2);
    pause(Duration::from_secs(3));
    assert_eq!(place.arrived("plain.test"), 2, "a message every 30 seconds");
    let status = place.lines(&["queue", "status"]);
    assert_eq!(
        (&status[0]["since_start"]["delivered"], &status[0]["queue"]["messages"]),
        (&2.into(), &1.into())
    );
    wait_until("the second part arrives", Duration::from_secs(60), || place.arrived("plain.test") == 4);
    assert_eq!(place.receiver.count(), 2, "nothing was sent twice");
    assert!(mta.terminate(PATIENCE).success());
}

/// The built-in table, in delivery by MX: Comcast takes 100 recipients at a time.
#[test]
fn the_limits_of_a_known_provider_hold_for_the_domains_that_it_hosts() {
    let place = Place::new("");
    let mta = place.start();
    let mut client = Client::connect(mta.address).unwrap();
    let all = |domain: &str| -> Vec<String> { (0..120).map(|i| format!("r{i}@{domain}")).collect() };
    for domain in ["club.test", "plain.test"] {
        let to = all(domain);
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        client.send("author@load.test", &to, BODY).unwrap();
    }
    wait_until("all of it arrives", PATIENCE, || {
        place.arrived("club.test") == 120 && place.arrived("plain.test") == 120
    });
    let sizes = |domain: &str| -> Vec<usize> {
        let mails = place.receiver.mails();
        mails.iter().filter(|mail| mail.to[0].ends_with(domain)).map(|mail| mail.to.len()).collect()
    };
    assert_eq!((sizes("club.test"), sizes("plain.test")), (vec![100, 20], vec![120]));
    assert!(mta.terminate(PATIENCE).success());
}

//! `postwright queue` against a running `serve`: what an operator sees, and orders that outlive a restart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::load::Client;
use support::mta::Mta;
use support::postfix::free_address;
use support::receiver::Receiver;
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const BODY: &[u8] = b"Subject: x\r\n\r\nx\r\n";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(smart_host: std::net::SocketAddr) -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        let config = format!(
            "hostname = \"mta.test\"\n[spool]\npath = {:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\n[delivery]\n\
             smart_host = \"{smart_host}\"\n[authentication]\ncheck = false\n[retry]\nfirst = \"1h\"\n[control]\nsocket = {:?}\n",
            place.dir.path().join("spool"),
            place.socket(),
        );
        std::fs::write(place.config(), config).unwrap();
        place
    }

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("mta.toml")
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("control.sock")
    }

    fn queue(&self, words: &[&str]) -> Vec<Value> {
        let output = queue(&self.socket(), words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn only(&self, words: &[&str]) -> Value {
        let mut lines = self.queue(words);
        assert_eq!(lines.len(), 1, "{words:?}: {lines:?}");
        lines.remove(0)
    }

    /// Why the only message waits.
    fn why(&self) -> Value {
        let id = self.only(&["list"])["id"].as_str().unwrap().to_owned();
        self.only(&["show", &id])["waits"][0]["why"].clone()
    }
}

fn queue(socket: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postwright"))
        .args(["queue", "--control"])
        .arg(socket)
        .args(words)
        .output()
        .unwrap()
}

#[test]
fn an_operator_sees_holds_frees_and_removes() {
    // Nobody listens there: each attempt fails at once, and the next one is an hour away.
    let nowhere = free_address();
    let place = Place::new(nowhere);
    let mta = Mta::with_config(&place.config());
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its own account may give orders");

    let mut client = Client::connect(mta.address).unwrap();
    client.send("a@load.test", &["b@receiver.test", "c@receiver.test"], BODY).unwrap();
    wait_until("it was tried", PATIENCE, || place.why() == "retry");
    assert_eq!(place.only(&["status"])["queue"]["messages"], 1);
    assert_eq!(place.only(&["lanes"])["destination"], "receiver.test");
    let shown = place.only(&["list"]);
    assert_eq!(shown["reverse_path"], "<a@load.test>");
    assert_eq!(shown["recipients"][1]["recipient"], "c@receiver.test");
    assert_eq!(shown["recipients"][1]["attempts"], 1);
    assert_eq!(shown["recipients"][1]["history"][0]["outcome"], "delayed");

    let order =
        place.only(&["suspend", "--domain", "receiver.test", "--for", "2h", "--reason", "their night"]);
    assert_eq!(place.why(), "suspended");
    drop(client);
    mta.kill();

    // The order holds in the next process too, and the socket of the killed one is no obstacle.
    let mta = Mta::with_config(&place.config());
    wait_until("the queue is read", PATIENCE, || place.only(&["status"])["queue"]["messages"] == 1);
    assert_eq!(place.why(), "suspended");
    assert_eq!(place.only(&["orders"])["reason"], "their night");
    place.queue(&["resume", order["key"].as_str().unwrap()]);
    assert_eq!((place.why(), place.queue(&["orders"]).len()), ("retry".into(), 0));

    let attempts = || place.only(&["list"])["recipients"][0]["attempts"].as_u64().unwrap();
    assert_eq!(attempts(), 1);
    assert_eq!(place.only(&["flush", "--all"])["flushed"], 1);
    wait_until("it was tried again", PATIENCE, || attempts() == 2);

    let id = place.only(&["list"])["id"].as_str().unwrap().to_owned();
    place.queue(&["cancel", "--message", &id]);
    wait_until("it is gone", PATIENCE, || place.queue(&["list"]).is_empty());
    assert_eq!(place.only(&["status"])["since_start"]["cancelled"], 2);
    assert!(mta.terminate(PATIENCE).success());
    assert!(!place.socket().exists(), "the socket goes with the process");
}

#[test]
fn a_suspension_of_everything_holds_what_comes_later_too() {
    let receiver = Receiver::start();
    let place = Place::new(receiver.address);
    let mta = Mta::with_config(&place.config());
    let order = place.only(&["suspend", "--all", "--for", "1h"]);
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    wait_until("it waits", PATIENCE, || place.queue(&["list"]).len() == 1 && place.why() == "suspended");
    assert_eq!(receiver.count(), 0);
    place.queue(&["resume", order["key"].as_str().unwrap()]);
    wait_until("it is delivered", PATIENCE, || receiver.count() == 1);
}

/// The usual way leads nowhere. What is bound goes the other way, in the next process too, until the order is taken back;
/// what is not bound keeps to the usual way.
#[test]
fn a_domain_bound_to_another_route_goes_there_until_the_order_is_taken_back() {
    let (nowhere, receiver) = (free_address(), Receiver::start());
    let place = Place::new(nowhere);
    let mta = Mta::with_config(&place.config());
    let mut client = Client::connect(mta.address).unwrap();
    client.send("a@load.test", &["b@receiver.test", "c@elsewhere.test"], BODY).unwrap();
    let attempts = |recipient: usize| {
        let list = place.queue(&["list"]);
        list.first().map_or(0, |shown| shown["recipients"][recipient]["attempts"].as_u64().unwrap())
    };
    wait_until("both were tried", PATIENCE, || attempts(0) == 1 && attempts(1) == 1);

    let to = receiver.address.to_string();
    let order = place.only(&[
        "bind",
        "--domain",
        "receiver.test",
        "--to",
        &to,
        "--for",
        "2h",
        "--reason",
        "new relay",
    ]);
    let route = format!("[{}]:{}", receiver.address.ip(), receiver.address.port());
    assert_eq!((&order["order"], &order["route"]), (&"bind".into(), &route.clone().into()));
    drop(client);
    mta.kill();

    let mta = Mta::with_config(&place.config());
    wait_until("the queue is read", PATIENCE, || place.only(&["status"])["queue"]["messages"] == 1);
    assert_eq!(place.only(&["orders"])["route"], route.clone());
    place.queue(&["flush", "--all"]);
    wait_until("the bound one arrives", PATIENCE, || receiver.count() == 1);
    wait_until("the other one was tried", PATIENCE, || attempts(1) == 2);
    assert_eq!(receiver.mails()[0].to, ["b@receiver.test"]);
    // What comes later, too.
    Client::connect(mta.address).unwrap().send("a@load.test", &["d@receiver.test"], BODY).unwrap();
    wait_until("a later one arrives", PATIENCE, || receiver.count() == 2);

    place.queue(&["resume", order["key"].as_str().unwrap()]);
    Client::connect(mta.address).unwrap().send("a@load.test", &["e@receiver.test"], BODY).unwrap();
    wait_until("it goes the usual way", PATIENCE, || {
        place.queue(&["list"]).iter().any(|shown| {
            let recipient = &shown["recipients"][0];
            recipient["recipient"] == "e@receiver.test" && recipient["attempts"] == 1
        })
    });
    assert_eq!(receiver.count(), 2);
}

#[test]
fn bad_input_is_one_line_and_says_what_to_do() {
    let place = Place::new(free_address());
    let complain = |words: &[&str]| {
        let output = queue(&place.socket(), words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{words:?}: {text}");
        text
    };
    assert!(complain(&["status"]).contains("postwright serve"), "nobody is there");
    let _mta = Mta::with_config(&place.config());
    assert!(complain(&["show", "nonsense"]).contains("26 characters"));
    assert!(complain(&["show", "00000000000000000000000000"]).contains("00000000000000000000000000"));
    assert!(complain(&["cancel"]).contains("--all"));
    assert!(complain(&["suspend", "--all", "--for", "soon"]).contains("90s"));
    assert!(complain(&["suspend", "--domain", "-"]).contains('-'));
    assert!(complain(&["resume", "order/none"]).contains("orders"));
    assert!(complain(&["bind", "--all", "--to", "relay.test"]).contains("relay.example.org:587"));
    assert!(complain(&["bind", "--job", "x", "--to", "relay.test:25"]).contains("--domain"));
    // What is no request at all.
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    stream.write_all(b"{\"do\":\"format-the-disk\"}\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("{\"error\":"), "{text}");
}

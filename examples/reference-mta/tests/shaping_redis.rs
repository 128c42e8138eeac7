//! Several servers that keep to one limit, counted on a redis-server of their own (skipped where there is none).
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::Path;
use std::time::Duration;

use postwright_testkit::announce;
use postwright_testkit::redis::Server;
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A node whose mail all goes to the receiver.
fn node(folder: &Path, number: u32, redis: &str, rules: &str, receiver: &Receiver) -> Mta {
    let dir = folder.join(format!("node{number}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("rules"), rules).unwrap();
    let config = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {:?}\nmin_free = \"1 MiB\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [delivery]\nsmart_host = \"{}\"\nshaping = {:?}\nshaping_state = {:?}\nshaping_redis = \"{redis}\"\n\
         shaping_nodes = 2\nshaping_node = {number}\n[authentication]\ncheck = false\n",
        dir.join("spool"),
        receiver.address,
        dir.join("rules"),
        dir.join("state"),
    );
    std::fs::write(dir.join("mta.toml"), config).unwrap();
    Mta::with_config(&dir.join("mta.toml"))
}

fn send(mta: &Mta, count: usize) {
    let mut client = Client::connect(mta.address).unwrap();
    for _ in 0..count {
        client.send("joe@here.test", &["ann@there.test"], b"Subject: x\r\n\r\nx\r\n").unwrap();
    }
}

#[test]
fn two_servers_together_keep_to_one_limit_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let Some(redis) = Server::start() else {
        return announce("redis-server", "neither under target/peers nor in PATH");
    };
    let receiver = Receiver::start();
    let (rules, there) =
        ("[defaults]\nmessages = \"5/h burst 5\"\n", format!("unix:{}", redis.socket().display()));
    let start = |number| node(folder.path(), number, &there, rules, &receiver);
    let (first, second) = (start(0), start(1));
    send(&first, 4);
    send(&second, 4);
    wait_until("the limit is used", PATIENCE, || receiver.count() == 5);
    assert!(first.terminate(PATIENCE).success());
    // What was counted is not this process's to forget.
    let first = start(0);
    pause(Duration::from_secs(3));
    assert_eq!(receiver.count(), 5, "the two have one limit");
    assert!(first.terminate(PATIENCE).success());
    assert!(second.terminate(PATIENCE).success());
}

/// How much a share is, the library's tests say; here it is that mail does not stop.
#[test]
fn without_the_server_mail_goes_on() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let there = format!("unix:{}", folder.path().join("nobody").display());
    let mta = node(folder.path(), 0, &there, "[defaults]\nmessages = \"60/min\"\n", &receiver);
    send(&mta, 4);
    wait_until("it arrives", PATIENCE, || receiver.count() == 4);
    assert!(mta.terminate(PATIENCE).success());
}

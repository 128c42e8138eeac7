//! Many at a time: idle connections, messages that do not end, a long queue at the start. Memory is bounded by
//! what the configuration says, and others are served meanwhile (FAULTS D4, D8, R8).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use postwright_testkit::skip;
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::wait_until;

const IDLE: usize = 1500;
const OPEN_BODIES: usize = 100;
const QUEUED: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(60);

/// An MTA that takes thousands of connections and holds 16 MiB of bodies, no more.
fn start(dir: &Path, smart_host: &str, more: &str) -> Mta {
    let config = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {:?}\n{more}[[listen]]\naddress = \"127.0.0.1:0\"\n[delivery]\n\
         smart_host = \"{smart_host}\"\n[limits]\nconnections = 5000\nconnections_per_ip = 5000\nmemory = \"16 MiB\"\nmessage_size = \"16 MiB\"\n\
         [retry]\nfirst = \"1s\"\nlongest = \"1s\"\n",
        dir.join("spool"),
    );
    std::fs::write(dir.join("config"), config).unwrap();
    Mta::with_config(&dir.join("config"))
}

/// A client from the n-th network of loopback, since one network may have 400 connections.
fn client(mta: &Mta, n: usize) -> Option<Client> {
    let mut client = Client::from_source(&format!("127.0.{}.1", n / 300), mta.address)?;
    client.expect(2).ok()?;
    client.command("EHLO many.test", 2).ok()?;
    Some(client)
}

fn resident_kib(mta: &Mta) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mta.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn still_works(mta: &Mta, receiver: &Receiver) {
    let before = receiver.count();
    let body = b"Subject: alive\r\n\r\nx\r\n";
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], body).unwrap();
    wait_until("the message has arrived", PATIENCE, || receiver.count() > before);
}

#[test]
fn idle_connections_cost_little_each() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = start(dir.path(), &receiver.address.to_string(), "");
    still_works(&mta, &receiver);
    let before = resident_kib(&mta);
    let Some(first) = client(&mta, 0) else { skip!("idle-connections", "only one loopback address") };
    let mut idle = vec![first];
    for n in 1..IDLE {
        idle.push(client(&mta, n).unwrap());
    }
    // Half of them hold a line that does not end, as long as one may be.
    for client in idle.iter_mut().step_by(2) {
        client.write(&[b"NOOP ", &[b'x'; 1900][..]].concat()).unwrap();
    }
    still_works(&mta, &receiver);
    let grown = resident_kib(&mta).saturating_sub(before);
    assert!(grown < IDLE * 32, "{IDLE} idle connections cost {grown} KiB, more than 32 KiB each");
    idle.iter_mut().skip(1).step_by(2).for_each(|client| drop(client.command("NOOP", 2).unwrap()));
}

#[test]
fn bodies_that_do_not_end_stay_within_the_budget_and_give_it_back() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = start(dir.path(), &receiver.address.to_string(), "");
    still_works(&mta, &receiver);
    let before = resident_kib(&mta);
    let piece = "0123456789abcde\r\n".repeat(64 * 1024 / 17);
    let mut open: Vec<Client> = (0..OPEN_BODIES)
        .map(|_| {
            let mut client = Client::connect(mta.address).unwrap();
            client.command("MAIL FROM:<a@load.test>", 2).unwrap();
            client.command("RCPT TO:<b@receiver.test>", 2).unwrap();
            client.command("DATA", 3).unwrap();
            client
        })
        .collect();
    // 50 MiB in all against a budget of 16: those that come too late are read and dropped.
    for _ in 0..8 {
        open.iter_mut().for_each(|client| client.write(piece.as_bytes()).unwrap());
    }
    let grown = resident_kib(&mta).saturating_sub(before);
    let bound = (16 + 16) * 1024 + OPEN_BODIES * 64;
    assert!(grown < bound, "{OPEN_BODIES} open messages cost {grown} KiB; the bound is {bound}");
    // Some end and are told that there was no room; the rest goes away in the middle.
    let delivered = receiver.count();
    let mut told = 0;
    for client in open.iter_mut().take(OPEN_BODIES / 2) {
        client.write(b".\r\n").unwrap();
        let (code, text) = client.reply().unwrap();
        assert!(code == 250 || (code == 452 && text.contains("4.3.1")), "{text}");
        told += usize::from(code == 250);
    }
    drop(open);
    wait_until("what was acknowledged has arrived", PATIENCE, || receiver.count() >= delivered + told);
    // The budget has come back: a message that needs most of it is taken.
    let big = piece.repeat(12 * 16);
    wait_until("a message of 12 MiB is taken", PATIENCE, || {
        let mut client = Client::connect(mta.address).unwrap();
        client.send("a@load.test", &["b@receiver.test"], big.as_bytes()).is_ok()
    });
    wait_until("it has arrived", PATIENCE, || receiver.count() > delivered + told);
    assert_eq!(receiver.count(), delivered + told + 1, "nothing of what was cut off is delivered");
}

#[test]
fn thousands_of_queued_messages_survive_a_restart_and_hold_nobody_up() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    // Nobody listens there. Relaxed only to fill the queue in a second; a clean end writes everything.
    let mta = start(dir.path(), "127.0.0.1:1", "relaxed = true\n");
    let address = mta.address;
    let senders: Vec<_> = (0..10)
        .map(|sender| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address).unwrap();
                for n in 0..QUEUED / 10 {
                    let body = format!("X-Number: {}\r\n\r\nx\r\n", sender * (QUEUED / 10) + n);
                    client.send("a@load.test", &["b@receiver.test"], body.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert!(mta.terminate(PATIENCE).success());

    let mta = start(dir.path(), &receiver.address.to_string(), "");
    // It takes mail at once, whatever is still to be read.
    let body = b"X-Number: 1000000\r\n\r\nx\r\n";
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], body).unwrap();
    wait_until("all have arrived", PATIENCE, || receiver.count() > QUEUED);
    let numbers: BTreeSet<String> =
        receiver.mails().iter().map(|mail| mail.field("X-Number").unwrap()).collect();
    assert_eq!((numbers.len(), receiver.count()), (QUEUED + 1, QUEUED + 1), "each once");
    let resident = resident_kib(&mta);
    assert!(resident < 256 * 1024, "{resident} KiB for a queue of {QUEUED} small messages");
}

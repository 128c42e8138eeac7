//! Real neighbours: swaks, smtp-source, smtp-sink and Postfix around `postwright serve`; bodies are compared
//! octet for octet.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use postwright_testkit::{peers, skip};
use support::load::Client;
use support::mta::Mta;
use support::postfix::{Postfix, free_address};
use support::receiver::{Mail, Receiver};
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that relays have been known to damage. Each is a whole message with CRLF line ends, no dots stuffed.
fn hard_messages() -> Vec<(&'static str, Vec<u8>)> {
    let header = |name: &str| format!("From: a@load.test\r\nTo: b@receiver.test\r\nSubject: {name}\r\n");
    let with = |name: &'static str, body: &[u8]| (name, [header(name).as_bytes(), b"\r\n", body].concat());
    vec![
        with("dots", b".\r\n..\r\n.x\r\n...\r\n.\r\n"),
        with("a dot line last", b"text\r\n.\r\n"),
        with("998 octets", format!("{}\r\n.{}\r\n", "a".repeat(998), "b".repeat(997)).as_bytes()),
        with("8 bit", "caf\u{e9} \u{65e5}\u{672c}\r\n\u{ff}\r\n".as_bytes()),
        with("latin 1", b"caf\xe9 \xff\xfe\x80\r\n"),
        with("empty body", b""),
        with("blank lines last", b"x\r\n\r\n\r\n"),
        with("spaces at line ends", b"x  \r\n\t\r\n   \r\n"),
        with(
            "300 KiB",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n".repeat(4900).as_bytes(),
        ),
    ]
}

fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    let mut at_line_start = true;
    for byte in message {
        if at_line_start && *byte == b'.' {
            out.push(b'.');
        }
        out.push(*byte);
        at_line_start = *byte == b'\n';
    }
    out
}

/// What is left of a message when the trace fields that relays put on top are taken off.
fn without_trace(mail: &Mail) -> Vec<u8> {
    let start = mail.body.windows(13).position(|window| window == b"From: a@load.");
    mail.body[start.expect("the message's own first field")..].to_vec()
}

fn send_all(to: SocketAddr) {
    let mut client = Client::connect(to).unwrap();
    for (_, message) in hard_messages() {
        client.command("MAIL FROM:<a@load.test> BODY=8BITMIME", 2).unwrap();
        client.command("RCPT TO:<b@receiver.test>", 2).unwrap();
        client.command("DATA", 3).unwrap();
        client.write(&stuffed(&message)).unwrap();
        client.write(b".\r\n").unwrap();
        client.expect(2).unwrap();
    }
    client.command("QUIT", 2).unwrap();
}

fn all_arrived_unchanged(receiver: &Receiver) {
    let expected = hard_messages();
    wait_until("all hard messages have arrived", PATIENCE, || receiver.count() >= expected.len());
    let arrived: Vec<Vec<u8>> = receiver.mails().iter().map(without_trace).collect();
    assert_eq!(arrived.len(), expected.len());
    for (name, message) in expected {
        assert!(arrived.contains(&message), "{name:?} did not arrive as it was sent");
    }
}

#[test]
fn relayed_bodies_are_the_same_to_the_octet() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    send_all(mta.address);
    all_arrived_unchanged(&receiver);
}

#[test]
fn postfix_takes_what_we_relay_and_passes_it_on_unchanged() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let postfix = match Postfix::start(receiver.address) {
        Ok(postfix) => postfix,
        Err(why) => skip!("we-relay-to-postfix", "{why}"),
    };
    let mta = Mta::start(spool.path(), postfix.address, &[]);
    send_all(mta.address);
    all_arrived_unchanged(&receiver);
    assert!(
        postfix.log().contains("helo=<mta.test>") || postfix.log().contains("client="),
        "{}",
        postfix.log()
    );
}

#[test]
fn we_take_what_postfix_relays() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    let postfix = match Postfix::start(mta.address) {
        Ok(postfix) => postfix,
        Err(why) => skip!("postfix-relays-to-us", "{why}"),
    };
    send_all(postfix.address);
    all_arrived_unchanged(&receiver);
}

#[test]
fn a_hundred_recipients_in_one_transaction() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    let recipients: Vec<String> = (0..100).map(|i| format!("r{i}@receiver.test")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    Client::connect(mta.address)
        .unwrap()
        .send("a@load.test", &recipients, b"Subject: many\r\n\r\nx\r\n")
        .unwrap();
    let seen = || receiver.mails().iter().flat_map(|mail| mail.to.clone()).collect::<Vec<_>>();
    wait_until("all recipients are served", PATIENCE, || seen().len() >= 100);
    let mut seen = seen();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 100, "each recipient once");
}

#[test]
fn swaks_hands_in_a_message() {
    let Some(mut swaks) = peers::command("swaks") else { skip!("swaks", "no swaks") };
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    let server = mta.address.to_string();
    swaks.args(["--server", &server, "--from", "a@load.test", "--to", "b@receiver.test,c@receiver.test"]);
    swaks.args(["--header", "Subject: by swaks", "--body", "line\\n.dot\\n..two", "--pipeline"]);
    let output = swaks.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    wait_until("the message has arrived", PATIENCE, || {
        receiver.mails().iter().map(|mail| mail.to.len()).sum::<usize>() == 2
    });
    let mail = receiver.mails().remove(0);
    assert_eq!(mail.field("Subject").unwrap(), "by swaks");
    assert!(String::from_utf8(mail.body).unwrap().contains("\r\nline\r\n.dot\r\n..two\r\n"));
}

#[test]
fn smtp_source_through_us_into_smtp_sink() {
    let (Some(mut source), Some(mut sink)) = (peers::command("smtp-source"), peers::command("smtp-sink"))
    else {
        skip!("smtp-source", "no smtp-source and smtp-sink")
    };
    let (spool, target) = (tempfile::tempdir().unwrap(), free_address());
    let dump = tempfile::tempdir().unwrap();
    let pattern = dump.path().join("m.").display().to_string();
    if peers::is_root() {
        sink.args(["-u", "root"]);
    }
    let address = target.to_string();
    let mut sink = sink.args(["-d", &pattern, &address, "100"]).stderr(Stdio::null()).spawn().unwrap();
    let mta = Mta::start(spool.path(), target, &[]);
    let to = mta.address.to_string();
    let status = source
        .args(["-m", "200", "-s", "10", "-l", "10240", "-f", "a@load.test", "-t", "b@sink.test", &to])
        .status();
    assert!(status.unwrap().success());
    let messages = || {
        let files = std::fs::read_dir(dump.path()).unwrap().flatten();
        files
            .filter_map(|file| std::fs::read_to_string(file.path()).ok())
            .map(|text| text.matches("X-Rcpt-Args:").count())
            .sum::<usize>()
    };
    wait_until("smtp-sink has 200 messages", PATIENCE, || messages() >= 200);
    sink.kill().unwrap();
    sink.wait().unwrap();
    assert_eq!(messages(), 200);
}

//! What strangers send: each gets its reply of RFC 5321, nothing that was acknowledged is lost, and memory stays
//! bounded (FAULTS D9, D10, D11, C, G).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{pause, wait_until};

struct Setup {
    mta: Mta,
    receiver: Receiver,
    _spool: tempfile::TempDir,
}

fn setup(more: &[&str]) -> Setup {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, more);
    Setup { mta, receiver, _spool: spool }
}

impl Setup {
    fn client(&self) -> Client {
        Client::connect(self.mta.address).unwrap()
    }

    /// The MTA still takes and delivers mail, and delivered nothing else.
    fn still_works(&self) {
        self.client().send("a@load.test", &["b@receiver.test"], b"Subject: alive\r\n\r\nx\r\n").unwrap();
        wait_until("the message has arrived", Duration::from_secs(20), || self.receiver.count() > 0);
        assert_eq!(self.receiver.count(), 1, "only what was acknowledged is delivered");
    }
}

#[test]
fn an_oversize_line_is_refused_and_the_session_lives() {
    let setup = setup(&[]);
    let mut client = setup.client();
    client.write(&[b"NOOP ", &b"x".repeat(40_000)[..], b"\r\n"].concat()).unwrap();
    assert_eq!(client.reply().unwrap().0, 500);
    client.command("NOOP", 2).unwrap();
    setup.still_works();
}

#[test]
fn an_endless_line_takes_no_memory() {
    let setup = setup(&[]);
    let before = resident_kib(setup.mta.pid());
    let mut client = setup.client();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        if client.write(&piece).is_err() {
            break;
        }
    }
    pause(Duration::from_millis(200));
    let grown = resident_kib(setup.mta.pid()).saturating_sub(before);
    assert!(grown < 16 * 1024, "64 MiB of line made the process grow by {grown} KiB");
    setup.still_works();
}

#[test]
fn an_oversize_message_is_refused_early_and_late() {
    let setup = setup(&["--message-size", "100000"]);
    let mut client = setup.client();
    client.write(b"MAIL FROM:<a@load.test> SIZE=100001\r\n").unwrap();
    assert_eq!(client.reply().unwrap().0, 552);
    client.command("MAIL FROM:<a@load.test>", 2).unwrap();
    client.command("RCPT TO:<b@receiver.test>", 2).unwrap();
    client.command("DATA", 3).unwrap();
    client.write("0123456789\r\n".repeat(10_000).as_bytes()).unwrap();
    client.write(b".\r\n").unwrap();
    assert_eq!(client.reply().unwrap().0, 552);
    // I9: nothing of the transaction is left.
    client.write(b"DATA\r\n").unwrap();
    assert_eq!(client.reply().unwrap().0, 503);
    setup.still_works();
}

#[test]
fn unknown_verbs_and_bad_syntax_change_nothing() {
    let setup = setup(&[]);
    let mut client = setup.client();
    for (line, code) in [
        ("FROBNICATE now", 500),
        ("MAIL FROM:a b", 501),
        ("MAIL FROM:<a@load.test> FLAVOUR=mint", 555),
        ("RCPT TO:<b@receiver.test>", 503),
        ("DATA", 503),
        ("EHLO", 501),
    ] {
        client.write(format!("{line}\r\n").as_bytes()).unwrap();
        assert_eq!(client.reply().unwrap().0, code, "{line}");
    }
    client.send("a@load.test", &["b@receiver.test"], b"Subject: after\r\n\r\nx\r\n").unwrap();
    wait_until("the message has arrived", Duration::from_secs(20), || setup.receiver.count() == 1);
}

#[test]
fn binary_garbage_ends_in_a_refusal() {
    let setup = setup(&[]);
    let mut client = Client::raw(setup.mta.address).unwrap();
    client.expect(2).unwrap();
    let garbage: Vec<u8> = (0..50_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // The server may close before it has read everything.
    let _ = client.write(&garbage).and_then(|()| client.write(b"\r\n"));
    let (code, _) = client.reply().unwrap();
    assert!((500..=599).contains(&code) || code == 421, "{code}");
    setup.still_works();
}

#[test]
fn half_a_command_then_silence_holds_up_nobody() {
    let setup = setup(&[]);
    let mut silent: Vec<Client> = (0..20).map(|_| setup.client()).collect();
    for client in &mut silent {
        client.write(b"MAIL FROM:<a@lo").unwrap();
    }
    setup.still_works();
    // They end with the process, in time, told why.
    let Setup { mta, receiver: _receiver, _spool } = setup;
    assert!(mta.terminate(Duration::from_secs(15)).success());
    let (code, text) = silent[0].reply().unwrap();
    assert_eq!(code, 421, "{text}");
}

#[test]
fn one_recipient_too_many_is_refused_and_the_rest_served() {
    let setup = setup(&[]);
    let mut client = setup.client();
    client.command("MAIL FROM:<a@load.test>", 2).unwrap();
    for i in 0..1000 {
        client.command(&format!("RCPT TO:<r{i}@receiver.test>"), 2).unwrap();
    }
    client.write(b"RCPT TO:<r1000@receiver.test>\r\n").unwrap();
    let (code, text) = client.reply().unwrap();
    assert_eq!((code, text.contains("4.5.3")), (452, true), "{text}");
    client.command("DATA", 3).unwrap();
    client.write(b"Subject: many\r\n\r\nx\r\n.\r\n").unwrap();
    client.expect(2).unwrap();
    let served = || setup.receiver.mails().iter().map(|mail| mail.to.len()).sum::<usize>();
    wait_until("all thousand are served", Duration::from_secs(60), || served() >= 1000);
    assert_eq!(served(), 1000);
}

#[test]
fn smuggled_ends_of_data_make_no_second_message() {
    let setup = setup(&[]);
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\n\n.\r\n", "\r\n\0.\r\n"] {
        let mut client = setup.client();
        client.command("MAIL FROM:<a@load.test>", 2).unwrap();
        client.command("RCPT TO:<b@receiver.test>", 2).unwrap();
        client.command("DATA", 3).unwrap();
        let body = format!(
            "Subject: outer\r\n\r\nx{end}MAIL FROM:<evil@load.test>\r\nRCPT TO:<b@receiver.test>\r\nDATA\r\nSubject: inner\r\n\r\ny\r\n.\r\n"
        );
        let _ = client.write(body.as_bytes());
        let (code, text) = client.reply().unwrap();
        assert!((500..=599).contains(&code), "{end:?} gave {text}");
    }
    setup.still_works();
}

#[test]
fn a_stranger_cannot_relay() {
    let setup = setup(&["--relay-from", "127.0.0.1/32"]);
    // From 127.0.0.1 it may; the default of loopback is replaced, so 127.0.0.2 may not.
    setup.still_works();
    let Some(mut client) = Client::from_source("127.0.0.2", setup.mta.address) else { return };
    client.expect(2).unwrap();
    client.command("EHLO stranger.test", 2).unwrap();
    client.command("MAIL FROM:<a@load.test>", 2).unwrap();
    client.write(b"RCPT TO:<b@receiver.test>\r\n").unwrap();
    let (code, text) = client.reply().unwrap();
    assert_eq!((code, text.contains("5.7.1")), (550, true), "{text}");
}

#[test]
fn a_message_that_has_looped_is_refused() {
    let setup = setup(&[]);
    let body = "Received: from a by b; Sat, 21 Nov 2026 00:00:00 +0000\r\n".repeat(60)
        + "Subject: round\r\n\r\nx\r\n";
    let error = setup.client().send("a@load.test", &["b@receiver.test"], body.as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("554 5.4.6"), "{error}");
    setup.still_works();
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

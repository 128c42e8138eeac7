//! Clients that go away: by a reset, by closing their half, by talking on behind QUIT, in every state of a session.
//! Only whole messages arrive, and nothing stays open (FAULTS B2, B6, D8, D14).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{pause, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);
const ENVELOPE: &str = "MAIL FROM:<a@load.test>\r\n|RCPT TO:<b@receiver.test>\r\n|";

/// What a client says before it goes, one reply awaited behind each `|`.
fn states() -> Vec<String> {
    vec![
        String::new(),
        "EHL".to_owned(),
        "EHLO load.test\r\n|".to_owned(),
        "EHLO load.test\r\n|MAIL FROM:<a@load.test>\r\n|".to_owned(),
        format!("EHLO load.test\r\n|{ENVELOPE}"),
        format!("EHLO load.test\r\n|{ENVELOPE}DATA\r\n|"),
        format!("EHLO load.test\r\n|{ENVELOPE}DATA\r\n|Subject: half\r\n\r\nhalf"),
        format!("EHLO load.test\r\n|{ENVELOPE}DATA\r\n|Subject: nearly\r\n\r\nx\r\n."),
        format!("EHLO load.test\r\n|{ENVELOPE}DATA\r\n|Subject: nearly\r\n\r\nx\r\n.\r"),
        format!("EHLO load.test\r\n|{ENVELOPE}BDAT 1000\r\nhalf a chunk"),
        format!("EHLO load.test\r\n|{ENVELOPE}BDAT 5\r\n12345|BDAT 5 LAST\r\n1234"),
        "EHLO load.test\r\n|NOOP\r\n|QUIT\r\n".to_owned(),
    ]
}

fn play(mta: &Mta, state: &str) -> Client {
    let mut client = Client::raw(mta.address).unwrap();
    client.expect(2).unwrap();
    for part in state.split_inclusive('|') {
        client.write(part.trim_end_matches('|').as_bytes()).unwrap();
        if part.ends_with('|') {
            let (code, text) = client.reply().unwrap();
            assert!(code < 400, "{part}: {text}");
        }
    }
    client
}

fn descriptors(mta: &Mta) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", mta.pid())).unwrap().count()
}

#[test]
fn whoever_goes_away_in_the_middle_leaves_nothing_behind() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    let alive = |count: usize| {
        let body = b"Subject: whole\r\n\r\nx\r\n";
        let mut client = Client::connect(mta.address).unwrap();
        client.send("a@load.test", &["b@receiver.test"], body).unwrap();
        client.command("QUIT", 2).unwrap();
        wait_until("a whole message has arrived", PATIENCE, || receiver.count() >= count);
    };
    alive(1);
    // The one to the receiver, which may be kept for a while, is among them.
    let before = descriptors(&mta);
    for state in states() {
        for _ in 0..10 {
            play(&mta, &state).reset().unwrap();
        }
        for _ in 0..10 {
            drop(play(&mta, &state));
        }
        let mut client = play(&mta, &state);
        client.half_close().unwrap();
        let rest = client.rest();
        assert!(!rest.contains("queued as"), "{state:?}: {rest}");
    }
    wait_until("every connection is closed", PATIENCE, || descriptors(&mta) <= before);
    alive(2);
    pause(Duration::from_millis(100));
    assert_eq!(receiver.count(), 2, "only whole messages arrive");
}

#[test]
fn nothing_behind_quit_is_acted_on() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    for behind in ["QUIT\r\n", "MAIL FROM:<a@load.test>\r\nRCPT TO:<b@receiver.test>\r\nDATA\r\nx\r\n.\r\n"] {
        let mut client = Client::connect(mta.address).unwrap();
        client.write(format!("QUIT\r\n{behind}").as_bytes()).unwrap();
        let rest = client.rest();
        // RFC 2920 3.1: nothing may stand behind QUIT, so that its refusal is as good an answer as 221.
        assert_eq!(rest.lines().count(), 1, "{rest}");
        assert!(rest.starts_with("221 ") || rest.starts_with("554 "), "{rest}");
    }
    pause(Duration::from_millis(200));
    assert_eq!(receiver.count(), 0);
}

#[test]
fn a_refused_chunk_is_no_command() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let mta = Mta::start(spool.path(), receiver.address, &["--message-size", "1000"]);
    let hidden = "MAIL FROM:<evil@load.test>\r\nRCPT TO:<b@receiver.test>\r\nBDAT 1 LAST\r\nx";
    for (before, order) in [
        ("", format!("BDAT {}\r\n", hidden.len())),
        ("MAIL FROM:<a@load.test>\r\n", format!("BDAT {} LAST\r\n", hidden.len())),
        ("MAIL FROM:<a@load.test>\r\n", format!("BDAT {} FIRST\r\n", hidden.len())),
    ] {
        let mut client = Client::connect(mta.address).unwrap();
        if !before.is_empty() {
            client.write(before.as_bytes()).unwrap();
            client.expect(2).unwrap();
        }
        client.write(format!("{order}{hidden}").as_bytes()).unwrap();
        let (code, text) = client.reply().unwrap();
        assert!((500..=599).contains(&code), "{order}: {text}");
        client.command("NOOP", 2).unwrap();
        client.write(b"DATA\r\n").unwrap();
        assert!(client.reply().unwrap().0 >= 500, "{order}");
    }
    assert_eq!(receiver.count(), 0);
}

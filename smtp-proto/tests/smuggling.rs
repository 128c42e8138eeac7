//! End-of-data look-alikes: none of them may end a message, none may begin a second transaction.
//!
//! Each candidate is sent in mid-message, at the very start, and after the size limit was exceeded already; in clear
//! and in TLS; in one piece, octet by octet, and cut in two at every octet.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use postwright_smtp_proto::server::CloseReason;
use postwright_testkit::end_of_data::{ATTACK, CANDIDATES, Place, SIZE_LIMIT};
use support::{Driver, config, open_house};

fn stream(place: Place, candidate: &[u8]) -> Vec<u8> {
    [&place.before(), candidate, ATTACK].concat()
}

fn session(tls: bool) -> Driver {
    let mut settings = config();
    settings.starttls = true;
    settings.limits.message_size = SIZE_LIMIT;
    let mut driver = Driver::greeted(settings, open_house());
    if tls {
        driver.send(b"STARTTLS\r\n").tls().send(b"EHLO client.example\r\n");
    }
    driver.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
    driver.record.asked.clear();
    driver.record.output.clear();
    driver
}

/// Exactly one message or a refusal, and never a second transaction.
fn check(driver: &Driver, what: &dyn Fn() -> String) {
    let record = &driver.record;
    assert!(!record.asked.contains(&"mail"), "a second transaction: {}", what());
    assert!(record.messages.len() <= 1, "{}", what());
    let codes = record.codes();
    let answered = codes.first().copied();
    if record.messages.len() == 1 {
        assert_eq!(answered, Some(250), "{}", what());
    } else if let Some(code) = answered {
        assert!(code >= 500, "{code}: {}", what());
    }
    if record.closed == Some(CloseReason::BadLineEnding) {
        assert!(matches!(codes.last(), Some(521 | 500)), "{codes:?}: {}", what());
    }
}

fn run_all(candidate: &[u8]) {
    for place in Place::ALL {
        let stream = stream(place, candidate);
        for tls in [false, true] {
            let what = || format!("{candidate:?} {place:?} tls {tls}");
            let mut whole = session(tls);
            whole.send(&stream);
            check(&whole, &what);
            let mut drip = session(tls);
            for octet in &stream {
                drip.send(&[*octet]);
            }
            check(&drip, &what);
            assert_eq!(drip.record, whole.record, "the cuts decide: {}", what());
            for cut in 1..stream.len() {
                let mut driver = session(tls);
                driver.send(&stream[..cut]).send(&stream[cut..]);
                assert_eq!(driver.record, whole.record, "cut at {cut}: {}", what());
            }
        }
    }
}

#[test]
fn our_candidates() {
    for (candidate, ends) in CANDIDATES {
        run_all(candidate);
        let mut driver = session(false);
        driver.send(&stream(Place::Middle, candidate));
        assert_eq!(driver.record.messages.len(), usize::from(*ends), "{candidate:?}");
        assert_eq!(driver.record.closed, Some(CloseReason::BadLineEnding), "{candidate:?}");
    }
}

#[test]
fn the_public_vectors() {
    let Some(folder) = postwright_testkit::suites::dir("smtp/smuggling") else {
        postwright_testkit::skip!("smtp/smuggling", "the folder is not there")
    };
    let text = std::fs::read_to_string(folder.join("vectors.json")).unwrap();
    let mut found = 0;
    for part in text.split("\"bytes_hex\"").skip(1) {
        let hex = part.split('"').nth(1).unwrap();
        let octet = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let candidate: Vec<u8> = (0..hex.len()).step_by(2).map(octet).collect();
        run_all(&candidate);
        found += 1;
    }
    assert_eq!(found, 17);
    postwright_testkit::cases("smtp/smuggling", found, 0, "");
}

#[test]
fn an_empty_message_is_a_message() {
    for pieces in [&[&b".\r\n"[..]][..], &[b".", b"\r\n"], &[b".\r", b"\n"], &[b".", b"\r", b"\n"]] {
        let mut driver = session(false);
        for piece in pieces {
            driver.send(piece);
        }
        assert_eq!(driver.record.codes(), [250]);
        assert!(driver.record.messages[0].1.is_empty());
    }
}

#[test]
fn an_end_that_never_comes_is_no_message() {
    for end in [&b"text\r\n."[..], b"text\r\n.\r", b"text\r\n", b"text"] {
        let mut driver = session(false);
        driver.send(end).eof();
        assert_eq!(driver.record.closed, Some(CloseReason::Eof));
        assert!(driver.record.messages.is_empty() && driver.record.output.is_empty());
    }
}

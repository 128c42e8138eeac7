//! I9 over random orders of commands and refusals: a refused message leaves no transaction.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use postwright_smtp_proto::server::{Answer, Config, Protocol};
use proptest::prelude::*;
use support::{Driver, config, name, no};

const LINES: &[&str] = &[
    "EHLO x.example",
    "HELO x.example",
    "LHLO x.example",
    "MAIL FROM:<a@x.example>",
    "MAIL FROM:<> BODY=BINARYMIME",
    "MAIL FROM:<> SIZE=999999999",
    "MAIL FROM:<",
    "RCPT TO:<b@example.org>",
    "RCPT TO:<c@example.org>",
    "RCPT TO:<>",
    "DATA",
    "BDAT 4\r\n\r\n.\r",
    "BDAT 4 LAST\r\nQUIT",
    "BDAT 4 SOME\r\nQUIT",
    "BDAT 400\r\n",
    "RSET",
    "NOOP",
    "VRFY x",
    "BOGUS",
    "AUTH PLAIN",
    "STARTTLS",
];

/// What a client sends after 354, all of it ended properly.
const TEXTS: &[&str] = &["\r\n.", "Subject: x\r\n\r\nbody\r\n.", "..\r\n.", "."];

fn settings(lmtp: bool) -> Config {
    let mut settings = config();
    settings.limits.message_size = 300;
    settings.limits.errors = u32::MAX;
    settings.limits.junk_commands = u32::MAX;
    settings.protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
    settings
}

/// Sends a line and gives the codes of its replies.
fn send(driver: &mut Driver, line: &str) -> Vec<u16> {
    let before = driver.record.codes().len();
    let chunk = line.starts_with("BDAT");
    let mut octets = line.as_bytes().to_vec();
    if line == "BDAT 400\r\n" {
        octets.extend_from_slice(&[b'x'; 400]);
    } else if !chunk {
        octets.extend_from_slice(b"\r\n");
    }
    driver.send(&octets);
    driver.record.codes().split_off(before)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_refused_message_leaves_no_transaction(
        lines in proptest::collection::vec((0..LINES.len(), 0..TEXTS.len()), 1..40),
        verdicts in proptest::collection::vec(proptest::bool::weighted(0.75), 100),
        lmtp in proptest::bool::weighted(0.2),
    ) {
        let mut verdicts = verdicts.into_iter().cycle();
        let mut driver = Driver::new(settings(lmtp), Box::new(move |question| match name(question) {
            "connect" => Answer::accepted(),
            "command" => no(500),
            _ if verdicts.next().unwrap() => Answer::accepted(),
            _ => no(550),
        }));
        driver.send(if lmtp { b"LHLO first.example\r\n" } else { b"EHLO first.example\r\n" });
        for (line, text) in lines {
            let line = LINES[line];
            let before = driver.session.envelope().cloned();
            let accepted = driver.record.messages.len();
            let codes = send(&mut driver, line);
            let after = driver.session.envelope().cloned();
            let refused = codes.last().is_some_and(|code| *code >= 400);
            prop_assert_eq!(driver.record.closed, None, "{}", line);
            match line.get(..4).unwrap_or("") {
                "DATA" if codes == [354] => {
                    let recipients = before.unwrap().recipients.len();
                    let replies = send(&mut driver, TEXTS[text]);
                    prop_assert_eq!(replies.len(), if lmtp { recipients } else { 1 });
                    prop_assert!(driver.session.envelope().is_none(), "left by the end of a message");
                    let taken = driver.record.messages.len() - accepted;
                    prop_assert_eq!(taken == 1, replies.iter().all(|code| *code == 250));
                }
                "DATA" => {
                    // Refused for want of MAIL or RCPT: as it was. Refused otherwise: gone.
                    let empty = before.as_ref().is_none_or(|open| open.recipients.is_empty());
                    let binary = before.as_ref().is_some_and(|open| open.options.body == postwright_core::Body::BinaryMime);
                    prop_assert!(refused);
                    if empty && !binary { prop_assert_eq!(after, before) } else { prop_assert!(after.is_none()) }
                }
                "BDAT" if refused || line.contains("LAST") => {
                    prop_assert!(after.is_none(), "left by {}: {:?}", line, codes);
                }
                "RCPT" if refused => prop_assert_eq!(after, before),
                "RCPT" => prop_assert_eq!(after.unwrap().recipients.len(), before.unwrap().recipients.len() + 1),
                "MAIL" if refused => prop_assert_eq!(after, before),
                "EHLO" | "HELO" | "LHLO" if refused => prop_assert_eq!(after, before),
                "EHLO" | "HELO" | "LHLO" | "RSET" => prop_assert!(after.is_none()),
                "MAIL" | "BDAT" => prop_assert!(after.is_some()),
                _ => prop_assert_eq!(after, before),
            }
        }
    }

    #[test]
    fn the_cuts_do_not_matter(
        lines in proptest::collection::vec(0..LINES.len(), 1..12),
        cuts in proptest::collection::vec(1usize..30, 1..40),
    ) {
        let mut settings = settings(false);
        // Whether talk is early depends on the cuts, by its nature.
        settings.forbid_early_talk = false;
        let policy = || -> support::Policy { Box::new(|question| match name(question) {
            "command" => no(500),
            _ => Answer::accepted(),
        }) };
        let mut stream = Vec::new();
        for line in lines {
            let line = LINES[line];
            stream.extend_from_slice(line.as_bytes());
            match line {
                "BDAT 400\r\n" => stream.extend_from_slice(&[b'x'; 400]),
                _ if line.starts_with("BDAT") => {}
                _ => stream.extend_from_slice(b"\r\n"),
            }
        }
        stream.extend_from_slice(b"\r\n.\r\nQUIT\r\n");
        let mut whole = Driver::new(settings.clone(), policy());
        whole.send(&stream);
        let mut pieces = Driver::new(settings, policy());
        let mut rest = &stream[..];
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            pieces.send(now);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(pieces.record, whole.record);
    }

    #[test]
    fn any_octets_end_well(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8)) {
        let mut driver = Driver::new(config(), support::open_house());
        for piece in &pieces {
            driver.send(piece);
        }
        driver.eof();
        prop_assert!(driver.record.closed.is_some());
        prop_assert!(driver.record.messages.is_empty());
    }
}

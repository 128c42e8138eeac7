//! Hostile input: bounded work and bounded output. Each case ends at once when work is linear and would not end within the test
//! run if it were quadratic; sizes of what is kept are asserted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use postwright_bounce::Limits;
use postwright_bounce::classify::{Classifier, Refused, normalise, parse_rules};
use postwright_bounce::dsn;
use postwright_bounce::report::{Kind, read};

fn understood(mail: &[u8]) -> postwright_bounce::report::MailReport {
    thread_local!(static CLASSIFIER: Classifier = Classifier::built_in());
    CLASSIFIER.with(|classifier| read(mail, classifier, &Limits::default()))
}

#[test]
fn ten_thousand_levels_of_messages_and_multiparts() {
    let rfc822 = [b"Content-Type: message/rfc822\r\n\r\n".repeat(10_000), b"x".to_vec()].concat();
    assert_eq!(understood(&rfc822).kind, Kind::None);
    let mut nested = Vec::new();
    for level in 0..10_000 {
        nested.extend_from_slice(
            format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n").as_bytes(),
        );
    }
    assert_eq!(understood(&nested).kind, Kind::None);
    // The same boundary at every level: a part is searched for once a level, and levels are limited.
    let same = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(10_000);
    assert_eq!(understood(&same).kind, Kind::None);
}

#[test]
fn ten_thousand_parts_hold_what_stands_early() {
    let status = "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nFinal-Recipient: rfc822; x@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n";
    let head = "Content-Type: multipart/report; boundary=b\r\n\r\n";
    let part = "--b\r\n\r\nx\r\n";
    let mail = [head, status, &part.repeat(10_000)].concat();
    let report = understood(mail.as_bytes());
    assert_eq!((report.kind, report.reports.len()), (Kind::Dsn, 1));
    // Behind the limit it is not looked at: the mail is still read, and says nothing.
    let mail = [head, &part.repeat(10_000), status].concat();
    assert_ne!(understood(mail.as_bytes()).kind, Kind::Dsn);
}

#[test]
fn fifty_megabytes() {
    let mut mail = b"From: MAILER-DAEMON@a.example\r\nSubject: failure notice\r\n\r\n<x@example.org>: 550 user unknown\r\n".to_vec();
    mail.resize(50 << 20, b'a');
    let report = understood(&mail);
    assert_eq!(report.kind, Kind::Bounce);
    let kept: usize =
        report.reports.iter().map(|one| one.diagnostic.as_ref().map_or(0, |text| text.len())).sum();
    assert!(kept <= Limits::default().text, "{kept} octets kept");
    // Lines without end, header bombs, addresses without end.
    for unit in [
        "x@y.example ",
        "<x@y.example>:\n",
        "Received: x\r\n",
        "--b",
        "=?x?q?",
        "<<<<",
        "\r\n",
        "a@",
        "&lt;",
        "550 5.1.1 ",
    ] {
        let filler = unit.repeat((1 << 18) / unit.len());
        for head in
            ["", "From: MAILER-DAEMON@a.example\n\n", "Content-Type: text/html\nFrom: postmaster@a\n\n"]
        {
            let report = understood(format!("{head}{filler}").as_bytes());
            assert!(report.reports.len() <= Limits::default().reports);
        }
    }
}

#[test]
fn a_status_part_with_a_million_blocks_gives_a_bounded_list() {
    let text = "Final-Recipient: rfc822; x@example.org\nAction: failed\n\n".repeat(100_000);
    assert_eq!(dsn::parse(&text, &Limits::default()).recipients.len(), Limits::default().reports);
    let fields = "X: y\n".repeat(200_000);
    assert!(dsn::parse(&fields, &Limits::default()).recipients.is_empty());
}

#[test]
fn texts_that_make_back_tracking_explode_are_read_once() {
    let classifier = Classifier::with_rules(
        "[[rule]]\nname = \"evil\"\ncategory = \"spam\"\nregex = ['(a+)+$', '(x|xx)*y', '(.*)(.*)(.*)z']\n",
    )
    .unwrap();
    for text in [
        "a".repeat(1 << 20) + "!",
        "xx".repeat(1 << 19),
        "mailbox ".repeat(1 << 17),
        "user ".repeat(1 << 17) + "unknown",
        "host ".repeat(1 << 17),
    ] {
        let verdict =
            classifier.classify_refusal(Refused { code: Some(550), text: &text, ..Refused::default() });
        assert!(verdict.confidence <= 100);
        assert!(normalise(&text).len() <= text.len() * 9 + 9);
    }
    assert!(parse_rules(&"[".repeat(1 << 20)).is_err());
    assert!(parse_rules(&format!("[[rule]]\nany = [{}", "\"a\",\n".repeat(1000))).is_err());
}

#[test]
fn class_and_code_need_word_boundaries() {
    let classifier = Classifier::built_in();
    for (line, hard) in [
        ("550", false),
        ("550 rejected for 15.1.1 reasons", false),
        ("550 connect from 5.1.1.7 refused", false),
        ("554 5.7.1 version 2.5.1.1 of the policy", false),
        ("550 5.1.1", true),
        ("550 (#5.1.1)", true),
    ] {
        assert_eq!(classifier.classify_line(line).hard, hard, "{line}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_octets_panic(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
        let _ = understood_cheaply(&octets);
    }

    #[test]
    fn no_mail_like_text_panics(text in "(From: MAILER-DAEMON@a\n|Content-Type: multipart/report; boundary=b\n|--b\n|Content-Type: message/delivery-status\n|\n|<a@b.example>: |550 5\\.1\\.1 |Final-Recipient: rfc822;|é|\\\\x\\{|=\\?|@|>>> DATA\n|in reply to |\u{3000}| ){0,60}") {
        let _ = understood_cheaply(text.as_bytes());
    }

    #[test]
    fn no_line_panics_the_classifier(line in "\\PC{0,200}") {
        thread_local!(static CLASSIFIER: Classifier = Classifier::built_in());
        CLASSIFIER.with(|classifier| { let _ = classifier.classify_line(&line); });
        let _ = parse_rules(&line);
    }
}

fn understood_cheaply(mail: &[u8]) -> Kind {
    thread_local!(static CLASSIFIER: Classifier = Classifier::built_in());
    CLASSIFIER.with(|classifier| read(mail, classifier, &Limits::default()).kind)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn the_fuzz_bodies_hold(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), text in "[\\[\\]a-z=\"', \n@.\\-+]{0,120}") {
        use postwright_bounce::fuzzing;
        for data in [octets.as_slice(), text.as_bytes()] {
            fuzzing::mail(data);
            fuzzing::delivery_status(data);
            fuzzing::rules(data);
            fuzzing::addresses(data);
        }
    }
}

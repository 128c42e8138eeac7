//! The server session against the RFCs, command by command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use postwright_core::Instant;
use postwright_smtp_proto::server::{Answer, CloseReason, Protocol, Question, Step};
use support::{Driver, config, no, open_house};

const MAIL: &[u8] = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n";

#[test]
fn a_whole_session() {
    let mut driver = Driver::new(config(), open_house());
    driver.send(b"EHLO client.example\r\n").send(MAIL).send(b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n");
    let record = &driver.record;
    assert_eq!(record.codes(), [220, 250, 250, 250, 354, 250, 221]);
    assert_eq!(record.messages.len(), 1);
    assert_eq!(record.messages[0].1, b"Subject: x\r\n\r\n.dot\r\n");
    assert_eq!(record.messages[0].0.reverse_path.to_string(), "<a@client.example>");
    assert_eq!(record.closed, Some(CloseReason::Quit));
    assert_eq!(record.asked, ["connect", "hello", "mail", "rcpt", "data", "message"]);
}

#[test]
fn ehlo_offers_what_is_configured() {
    let mut settings = config();
    settings.starttls = true;
    settings.auth = vec!["SCRAM-SHA-256-PLUS".into(), "SCRAM-SHA-256".into(), "PLAIN".into()];
    settings.deliver_by = Some(60);
    settings.future_release = Some(3600);
    settings.mt_priority = true;
    settings.offer_require_tls = true;
    settings.private_lines = vec!["XMOOD".into()];
    let mut driver = Driver::new(settings, open_house());
    let clear = driver.say("EHLO client.example");
    for line in [
        "PIPELINING",
        "SIZE 36700160",
        "ENHANCEDSTATUSCODES",
        "STARTTLS",
        "AUTH SCRAM-SHA-256",
        "8BITMIME",
        "CHUNKING",
        "BINARYMIME",
        "DSN",
        "SMTPUTF8",
        "LIMITS MAILMAX=1000 RCPTMAX=1000",
        "DELIVERBY 60",
        "FUTURERELEASE 3600 2027-01-15T09:00:00.000Z",
        "MT-PRIORITY",
        "XMOOD",
    ] {
        assert!(
            clear.contains(&format!("250-{line}\r\n")) || clear.contains(&format!("250 {line}\r\n")),
            "{line}"
        );
    }
    assert!(!clear.contains("REQUIRETLS"));
    assert_eq!(driver.code("STARTTLS"), 220);
    driver.tls();
    let secure = driver.say("EHLO client.example");
    assert!(!secure.contains("STARTTLS") && secure.contains("REQUIRETLS"));
    assert!(secure.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN\r\n"));
}

#[test]
fn order_of_commands() {
    let mut driver = Driver::new(config(), open_house());
    for (line, code) in [
        ("MAIL FROM:<>", 503),
        ("EHLO x", 250),
        ("RCPT TO:<b@example.org>", 503),
        ("DATA", 503),
        ("MAIL FROM:<>", 250),
        ("MAIL FROM:<>", 503),
        ("DATA", 554),
        ("RCPT TO:<b@example.org>", 250),
        ("EHLO again", 250),
        ("RCPT TO:<b@example.org>", 503),
        ("MAIL FROM:<> SIZE=1 BODY=8BITMIME", 250),
        ("RSET", 250),
        ("DATA", 503),
        ("VRFY b", 252),
        ("EXPN b", 502),
        ("HELP", 214),
        ("NOOP", 250),
        ("XNOTHING", 500),
        ("LHLO x", 500),
        ("STARTTLS", 502),
        ("AUTH PLAIN", 502),
        ("QUIT", 221),
    ] {
        assert_eq!(driver.code(line), code, "{line}");
    }
}

#[test]
fn parameters_need_an_offer() {
    let mut driver = Driver::greeted(config(), open_house());
    for (line, code) in [
        ("MAIL FROM:<> REQUIRETLS", 555),
        ("MAIL FROM:<> BY=60;R", 555),
        ("MAIL FROM:<> HOLDFOR=60", 555),
        ("MAIL FROM:<> MT-PRIORITY=1", 555),
        ("MAIL FROM:<> AUTH=<>", 555),
        ("MAIL FROM:<> XMOOD=1", 555),
        ("MAIL FROM:<> SIZE=36700161", 552),
        ("MAIL FROM:<\u{e9}@client.example>", 553),
        ("MAIL FROM:<\u{e9}@client.example> SMTPUTF8", 250),
        ("RCPT TO:<\u{e8}@example.org>", 250),
        ("RCPT TO:<b@example.org> XMOOD", 555),
        ("RCPT TO:<b@example.org> NOTIFY=NEVER ORCPT=rfc822;b@example.org", 250),
        ("HELO x", 250),
        ("MAIL FROM:<> SIZE=1", 555),
        ("MAIL FROM:<>", 250),
        ("RCPT TO:<\u{e8}@example.org>", 553),
    ] {
        assert_eq!(driver.code(line), code, "{line}");
    }
}

#[test]
fn pipelined_refusals_keep_the_other_recipients() {
    let policy = Box::new(|question: &Question<'_>| match question {
        Question::Rcpt { recipient, .. } if recipient.mailbox.local() == "bad" => no(550),
        _ => Answer::accepted(),
    });
    let mut driver = Driver::greeted(config(), policy);
    driver.send(
        b"MAIL FROM:<>\r\nRCPT TO:<one@example.org>\r\nRCPT TO:<bad@example.org>\r\nRCPT TO:<two@example.org>\r\nDATA\r\n",
    );
    driver.send(b".\r\n");
    assert_eq!(driver.record.codes(), [250, 250, 550, 250, 354, 250]);
    let (envelope, body) = &driver.record.messages[0];
    assert_eq!(envelope.recipients.len(), 2);
    assert!(body.is_empty());
}

#[test]
fn one_recipient_too_many_is_deferred() {
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(b"MAIL FROM:<>\r\n");
    for i in 0..1000 {
        assert_eq!(driver.code(&format!("RCPT TO:<u{i}@example.org>")), 250);
    }
    assert!(driver.say("RCPT TO:<over@example.org>").starts_with("452 4.5.3 "));
    driver.send(b"DATA\r\n").send(b"x\r\n.\r\n");
    assert_eq!(driver.record.messages[0].0.recipients.len(), 1000);
}

#[test]
fn bare_postmaster() {
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(b"MAIL FROM:<>\r\nRCPT TO:<PostMaster>\r\nDATA\r\n").send(b".\r\n");
    let envelope = &driver.record.messages[0].0;
    assert_eq!(envelope.recipients[0].mailbox.to_string(), "postmaster@mx.example.org");

    let mut settings = config();
    settings.postmaster = Some("root@example.org".parse().unwrap());
    let mut driver = Driver::greeted(
        settings,
        Box::new(|question| match question {
            Question::Rcpt { .. } => no(550),
            _ => Answer::accepted(),
        }),
    );
    assert_eq!(driver.code("MAIL FROM:<>"), 250);
    assert_eq!(driver.code("RCPT TO:<postmaster>"), 250, "always accepted");
    assert_eq!(driver.code("RCPT TO:<>"), 501);
}

#[test]
fn oversize_is_read_to_its_end_and_refused_once() {
    let mut settings = config();
    settings.limits.message_size = 100;
    let mut driver = Driver::greeted(settings, open_house());
    driver.send(MAIL);
    for _ in 0..50 {
        driver.send(b"0123456789\r\n");
    }
    driver.send(b"MAIL FROM:<evil@x.example>\r\n.\r\n");
    assert_eq!(driver.record.codes(), [250, 250, 354, 552]);
    assert!(driver.record.messages.is_empty());
    assert_eq!(driver.code("RCPT TO:<b@example.org>"), 503);
    assert_eq!(driver.record.asked, ["mail", "rcpt", "data"]);
}

#[test]
fn early_talk_ends_the_session() {
    for (first, second) in [
        (&b""[..], &b"EHLO x\r\nNOOP\r\n"[..]),
        (b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\n", b"DATA\r\nSubject: x\r\n"),
    ] {
        let mut driver = Driver::greeted(config(), open_house());
        for line in first.split_inclusive(|b| *b == b'\n') {
            driver.send(line);
        }
        driver.send(second);
        assert_eq!(driver.record.codes().last(), Some(&554));
        assert_eq!(driver.record.closed, Some(CloseReason::EarlyTalk));
        assert!(CloseReason::EarlyTalk.lingers());
    }
    // Before the greeting.
    let session =
        postwright_smtp_proto::server::Session::new(config().into(), support::peer(), Instant::ZERO);
    let mut session = session;
    session.handle_input(b"EHLO x\r\n", Instant::ZERO);
    let Step::Ask(id) = session.poll() else { panic!() };
    session.answer(id, Answer::accepted());
    let Step::Write { bytes, .. } = session.poll() else { panic!() };
    assert!(bytes.starts_with(b"554 5.5.0 "));
}

#[test]
fn starttls_keeps_no_clear_text_and_forgets_what_came_before() {
    let mut settings = config();
    settings.starttls = true;
    settings.forbid_early_talk = false;
    // In one segment.
    let mut driver = Driver::greeted(settings.clone(), open_house());
    driver.send(b"STARTTLS\r\nRSET\r\n");
    assert_eq!(driver.record.codes(), [554]);
    assert_eq!(driver.record.closed, Some(CloseReason::EarlyTalk));
    // In a later segment, before the handshake.
    let mut driver = Driver::greeted(settings.clone(), open_house());
    driver.send(b"STARTTLS\r\n").send(b"RSET\r\n");
    assert_eq!(driver.record.codes(), [220]);
    assert_eq!(driver.record.closed, Some(CloseReason::EarlyTalk));
    // In order.
    let mut driver = Driver::greeted(settings, open_house());
    driver.send(b"STARTTLS\r\n").tls();
    for (line, code) in [
        ("MAIL FROM:<>", 503),
        ("EHLO x", 250),
        ("STARTTLS", 503),
        ("MAIL FROM:<>", 250),
        ("STARTTLS", 503),
        ("RCPT TO:<b@example.org>", 250),
    ] {
        assert_eq!(driver.code(line), code, "{line}");
    }
}

#[test]
fn bad_line_ends_in_commands_end_the_session() {
    for bad in
        ["NOOP\nNOOP\r\n", "NO\rOP\r\n", "NO\0OP\r\n", "MAIL FROM:<a@b.example>\nRCPT TO:<c@d.example>\r\n"]
    {
        let mut driver = Driver::greeted(config(), open_house());
        driver.send(bad.as_bytes());
        assert_eq!(driver.record.codes(), [500], "{bad:?}");
        assert_eq!(driver.record.closed, Some(CloseReason::BadLineEnding));
        assert!(driver.record.asked.is_empty());
    }
}

#[test]
fn other_protocols_are_dropped_at_once() {
    for bad in ["GET / HTTP/1.1", "POST / HTTP/1.1", "CONNECT x:25 HTTP/1.1", " NOOP", "\u{16}abc"] {
        let mut driver = Driver::new(config(), open_house());
        assert_eq!(driver.code(bad), 502, "{bad}");
        assert_eq!(driver.record.closed, Some(CloseReason::OtherProtocol));
    }
}

#[test]
fn long_lines_are_dropped_within_bounds() {
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(&[b'A'; 5000]).send(b"\r\nNOOP\r\n");
    assert_eq!(driver.record.codes(), [500, 250]);
    let mut driver = Driver::greeted(config(), open_house());
    for _ in 0..40 {
        driver.send(&[b'A'; 2000]);
    }
    assert_eq!(driver.record.codes(), [500]);
    assert_eq!(driver.record.closed, Some(CloseReason::Oversize));
}

#[test]
fn patience_with_errors_and_junk_is_bounded() {
    let mut driver = Driver::greeted(config(), open_house());
    let mut codes = Vec::new();
    while driver.record.closed.is_none() {
        codes.push(driver.code("BOGUS"));
        assert!(codes.len() < 100);
    }
    assert!(
        driver.record.output.ends_with("421 4.7.0 Too many errors or idle commands, closing connection\r\n")
    );
    let mut driver = Driver::greeted(config(), open_house());
    driver.send("NOOP\r\n".repeat(500).as_bytes());
    assert_eq!(driver.record.closed, Some(CloseReason::TooMany));
}

#[test]
fn lmtp_replies_for_each_recipient() {
    let mut settings = config();
    settings.protocol = Protocol::Lmtp;
    let policy = Box::new(|question: &Question<'_>| match question {
        Question::Message { .. } => {
            let reply = |answer| match answer {
                Answer::Refused { reply, .. } => reply.into_reply(),
                _ => unreachable!(),
            };
            Answer::PerRecipient(vec![reply(no(452)), reply(no(550))])
        }
        _ => Answer::accepted(),
    });
    let mut driver = Driver::new(settings, policy);
    assert_eq!(driver.code("EHLO x"), 500);
    assert_eq!(driver.code("LHLO x"), 250);
    assert_eq!(driver.code("MAIL FROM:<>"), 250);
    assert_eq!(driver.code("DATA"), 503);
    driver.send(b"RCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n");
    driver.record.output.clear();
    driver.send(b"x\r\n.\r\n");
    assert_eq!(driver.record.codes(), [452, 550]);
}

#[test]
fn slow_peers_are_cut_off() {
    // A command line is timed as a whole.
    let mut driver = Driver::greeted(config(), open_house());
    let Step::Read { deadline } = driver.session.poll() else { panic!() };
    assert_eq!(deadline, Instant::from_start(Duration::from_secs(300)));
    for second in 1..300 {
        driver.now = Instant::from_start(Duration::from_secs(second));
        driver.send(b"N");
    }
    let Step::Read { deadline: same } = driver.session.poll() else { panic!() };
    assert_eq!(same, deadline);
    driver.session.handle_timeout(deadline);
    driver.run();
    assert_eq!(driver.record.closed, Some(CloseReason::Timeout));
    assert!(driver.record.output.starts_with("421 4.4.2 "));
    // A message is timed by its rate: one octet every 10 s does not buy time for ever.
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(MAIL);
    let mut seconds = 0;
    while driver.record.closed.is_none() {
        seconds += 10;
        assert!(seconds < 400, "still there");
        driver.now = Instant::from_start(Duration::from_secs(seconds));
        driver.session.handle_timeout(driver.now);
        driver.send(b"x");
    }
    assert_eq!(driver.record.closed, Some(CloseReason::Timeout));
}

#[test]
fn draining_finishes_a_message_and_then_says_so() {
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(MAIL);
    driver.session.drain();
    driver.send(b"x\r\n.\r\n");
    assert_eq!(driver.record.codes(), [250, 250, 354, 250, 421]);
    assert_eq!(driver.record.closed, Some(CloseReason::Drained));
    let mut driver = Driver::greeted(config(), open_house());
    driver.send(MAIL);
    driver.session.cut_short();
    driver.send(b"x\r\n.\r\n");
    assert_eq!(driver.record.codes(), [250, 250, 354, 421]);
    assert!(driver.record.messages.is_empty());
    let mut driver = Driver::greeted(config(), open_house());
    driver.session.drain();
    driver.run();
    assert!(driver.record.output.starts_with("421 4.3.2 "));
}

#[test]
fn a_decision_outlives_its_peer_and_others_do_not() {
    let settings = std::sync::Arc::new(config());
    let open = |lines: &[&[u8]]| {
        let mut session =
            postwright_smtp_proto::server::Session::new(settings.clone(), support::peer(), Instant::ZERO);
        let mut rest = lines.iter();
        loop {
            match session.poll() {
                Step::Ask(id) => {
                    let (_, question) = session.question().unwrap();
                    let last = rest.len() == 0;
                    let stop = last && !matches!(question, Question::Data { .. });
                    if stop {
                        return (session, id);
                    }
                    session.answer(id, Answer::accepted());
                }
                Step::Write { bytes, .. } => {
                    let len = bytes.len();
                    session.handle_written(len, Instant::ZERO);
                }
                Step::Body(_) | Step::Reset => {}
                Step::Read { .. } => session.handle_input(rest.next().unwrap(), Instant::ZERO),
                Step::StartTls { .. } | Step::Close(_) => panic!(),
            }
        }
    };
    let (mut session, id) =
        open(&[b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<b@example.org>\r\n", b"DATA\r\n", b".\r\n"]);
    session.handle_eof();
    assert_eq!(session.poll(), Step::Ask(id), "the message is still to be decided");
    session.answer(id, Answer::accepted());
    assert!(matches!(session.poll(), Step::Write { .. }));

    let (mut session, id) = open(&[b"EHLO x\r\n", b"MAIL FROM:<>\r\n"]);
    session.handle_eof();
    assert_eq!(session.poll(), Step::Close(CloseReason::Eof));
    session.answer(id, Answer::accepted());
    assert_eq!(session.poll(), Step::Close(CloseReason::Eof));
    assert!(session.envelope().is_none());
}

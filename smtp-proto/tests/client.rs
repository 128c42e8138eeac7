//! The client machine against written dialogues: each is run with the server's octets whole, cut in two at every
//! place, and one by one, and must go the same way.
//! Expected lines follow the RFCs named beside each test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod dialogue;

use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Body, Domain, Envelope, Instant, Mailbox, Message, Outcome, Phase, Remote, Timestamp};
use postwright_smtp_proto::client::{
    Chunking, CloseReason, Config, EightBit, Protocol, Session, StartTls, Step, StrayLineEnds, Transaction,
};

use dialogue::{check, play};

const BODY: &[u8] = b"Subject: x\r\n\r\n.dot\r\n";

fn config() -> Config {
    Config::new("client.example".parse::<Domain>().unwrap())
}

fn transaction(recipients: &[&str], body: &[u8]) -> Transaction {
    let recipients = recipients.iter().map(|text| text.parse::<Mailbox>().unwrap());
    let envelope = Envelope::new("a@client.example".parse::<Mailbox>().unwrap(), recipients);
    Transaction { envelope, message: Message::from_bytes(body.to_vec()) }
}

#[test]
fn a_plain_server_is_spoken_to_step_by_step() {
    // RFC 5321 appendix D.1, with EHLO refused (4.1.4: HELO instead) and a leading dot (4.5.2).
    let end = check(
        &config(),
        &transaction(&["b@x.example"], BODY),
        "
        S: 220 foo.com Simple Mail Transfer Service Ready
        C: EHLO client.example
        S: 502 what?
        C: HELO client.example
        S: 250 foo.com greets client
        C: MAIL FROM:<a@client.example>
        S: 250 OK
        C: RCPT TO:<b@x.example>
        S: 250 OK
        C: DATA
        S: 354 Start mail input; end with <CRLF>.<CRLF>
        C: Subject: x
        C: 
        C: ..dot
        C: .
        S: 250 2.6.0 OK
        C: QUIT
        S: 221 bye",
    );
    assert_eq!(end.shown(), ["Delivered 2.6.0 end-of-data"]);
    assert_eq!(end.close, Some(CloseReason::Quit));
}

#[test]
fn an_envelope_is_pipelined_and_each_recipient_stands_alone() {
    // RFC 2920 4; one refused, one deferred, two taken.
    let all = transaction(&["b@x.example", "no@x.example", "later@x.example", "c@x.example"], BODY);
    let end = check(
        &config(),
        &all,
        "
        S: 220 mx
        C: EHLO client.example
        S: 250-mx
        S: 250-PIPELINING
        S: 250 SIZE 1000
        C: MAIL FROM:<a@client.example> SIZE=20
        C: RCPT TO:<b@x.example>
        C: RCPT TO:<no@x.example>
        C: RCPT TO:<later@x.example>
        C: RCPT TO:<c@x.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 5.1.1 unknown
        S: 451 4.7.1 greylisted
        S: 251 will forward
        S: 354 go
        C: Subject: x
        C: 
        C: ..dot
        C: .
        S: 250 2.0.0 queued",
    );
    assert_eq!(
        end.shown(),
        [
            "Delivered 2.0.0 end-of-data",
            "Failed 5.1.1 rcpt",
            "Delayed 4.7.1 rcpt",
            "Delivered 2.0.0 end-of-data"
        ]
    );
}

#[test]
fn a_pipeline_without_recipients_sends_no_message() {
    let all = transaction(&["b@x.example"], BODY);
    let open = "
        S: 220 mx
        C: EHLO client.example
        S: 250-mx
        S: 250 PIPELINING
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@x.example>
        C: DATA
        S: 250 ok
        S: 550 5.1.1 unknown\n";
    // RFC 2920 3.1: the client must be ready for 354 all the same, and sends only the end.
    for (rest, shown) in [
        ("S: 554 no valid recipients", "Failed 5.1.1 rcpt"),
        ("S: 354 go\nC: .\nS: 554 nobody", "Failed 5.1.1 rcpt"),
        ("S: 354 go\nC: .\nS: 250 ok", "Failed 5.1.1 rcpt"),
        ("S: 354 go\nC: .\n! EOF", "Failed 5.1.1 rcpt"),
    ] {
        assert_eq!(check(&config(), &all, &format!("{open}{rest}")).shown(), [shown], "{rest}");
    }
}

#[test]
fn a_refused_sender_decides_for_all() {
    let all = transaction(&["b@x.example", "c@x.example"], BODY);
    for (pipelining, rest) in [
        (
            "PIPELINING",
            "C: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\nC: DATA\nS: 550 5.7.1 no\nS: 503 no\nS: 503 no\nS: 503 no",
        ),
        ("X", "S: 550 5.7.1 no"),
        (
            "PIPELINING",
            "C: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\nC: DATA\nS: 550 5.7.1 no\nS: 250 odd\nS: 503 no\nS: 354 odd\nC: .\nS: 250 odd",
        ),
    ] {
        let dialogue = format!(
            "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 {pipelining}\nC: MAIL FROM:<a@client.example>\n{rest}"
        );
        assert_eq!(check(&config(), &all, &dialogue).shown(), ["Failed 5.7.1 mail", "Failed 5.7.1 mail"]);
    }
}

#[test]
fn a_lost_connection_is_unknown_only_behind_the_final_dot() {
    let one = transaction(&["b@x.example"], BODY);
    let open = "S: 220 mx\nC: EHLO client.example\nS: 250 mx\nC: MAIL FROM:<a@client.example>\n";
    let rcpt = "S: 250 ok\nC: RCPT TO:<b@x.example>\nS: 250 ok\nC: DATA\n";
    let dot = "S: 354 go\nC: Subject: x\nC: \nC: ..dot\nC: .\n";
    for (dialogue, shown) in [
        ("! EOF".to_owned(), "Delayed 4.4.2 greeting"),
        ("! TIMEOUT".to_owned(), "Delayed 4.4.2 greeting"),
        (format!("{open}! EOF"), "Delayed 4.4.2 mail"),
        (format!("{open}{rcpt}! TIMEOUT"), "Delayed 4.4.2 data"),
        (format!("{open}{rcpt}S: 451 4.3.0 no"), "Delayed 4.3.0 data"),
        (format!("{open}{rcpt}{dot}! EOF"), "Unknown 4.4.2 end-of-data"),
        (format!("{open}{rcpt}{dot}! TIMEOUT"), "Unknown 4.4.2 end-of-data"),
        (format!("{open}{rcpt}{dot}S: what is this"), "Unknown 4.5.0 end-of-data"),
        (format!("{open}{rcpt}{dot}S: 421 4.3.2 going down"), "Delayed 4.3.2 end-of-data"),
        (format!("{open}{rcpt}{dot}S: 554 5.6.0 no"), "Failed 5.6.0 end-of-data"),
    ] {
        assert_eq!(check(&config(), &one, &dialogue).shown(), [shown], "{dialogue}");
    }
}

#[test]
fn a_421_ends_the_session_wherever_it_comes() {
    let two = transaction(&["b@x.example", "c@x.example"], BODY);
    let open = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 PIPELINING\n";
    let envelope =
        "C: MAIL FROM:<a@client.example>\nC: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\nC: DATA\n";
    for (dialogue, shown) in [
        ("S: 421 4.3.2 busy".to_owned(), ["Delayed 4.3.2 greeting"; 2]),
        ("S: 220 mx\nC: EHLO client.example\nS: 421 4.3.2 busy".to_owned(), ["Delayed 4.3.2 hello"; 2]),
        (format!("{open}{envelope}S: 421 4.3.2 busy"), ["Delayed 4.3.2 mail"; 2]),
        (
            format!("{open}{envelope}S: 250 ok\nS: 550 5.1.1 no\nS: 421 4.3.2 busy"),
            ["Failed 5.1.1 rcpt", "Delayed 4.3.2 rcpt"],
        ),
        (
            format!("{open}{envelope}S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\nS: 421 4.3.2 busy"),
            ["Delayed 4.3.2 data", "Failed 5.1.1 rcpt"],
        ),
    ] {
        assert_eq!(check(&config(), &two, &dialogue).shown(), shown, "{dialogue}");
    }
}

#[test]
fn recipients_too_many_get_a_round_of_their_own() {
    // RFC 5321 4.5.3.1.10.
    let three = transaction(&["b@x.example", "c@x.example", "d@x.example"], BODY);
    let round = |rcpt: &str, answer: &str| {
        format!(
            "C: MAIL FROM:<a@client.example>\n{rcpt}C: DATA\n{answer}S: 354 go\nC: Subject: x\nC: \nC: ..dot\nC: .\n"
        )
    };
    let open = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 PIPELINING\n";
    let first = round(
        "C: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\nC: RCPT TO:<d@x.example>\n",
        "S: 250 ok\nS: 250 ok\nS: 452 4.5.3 too many\nS: 552 too many\n",
    );
    let second = round(
        "C: RCPT TO:<c@x.example>\nC: RCPT TO:<d@x.example>\n",
        "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\n",
    );
    let end = check(&config(), &three, &format!("{open}{first}S: 250 2.0.0 one\n{second}S: 250 2.0.0 two"));
    assert_eq!(
        end.shown(),
        ["Delivered 2.0.0 end-of-data", "Delivered 2.0.0 end-of-data", "Failed 5.1.1 rcpt"]
    );
    // A message that was not taken gets no second round: the others keep what they were told.
    let end = check(&config(), &three, &format!("{open}{first}S: 451 4.3.0 no"));
    assert_eq!(end.shown(), ["Delayed 4.3.0 end-of-data", "Delayed 4.5.3 rcpt", "Delayed 4.5.3 rcpt"]);
    // RFC 9422: the server says in advance how many it takes.
    let limits = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250-PIPELINING\nS: 250 LIMITS RCPTMAX=2\n";
    let first =
        round("C: RCPT TO:<b@x.example>\nC: RCPT TO:<c@x.example>\n", "S: 250 ok\nS: 250 ok\nS: 250 ok\n");
    let second = round("C: RCPT TO:<d@x.example>\n", "S: 250 ok\nS: 250 ok\n");
    let end = check(&config(), &three, &format!("{limits}{first}S: 250 2.0.0 one\n{second}S: 250 2.0.0 two"));
    assert_eq!(end.shown(), ["Delivered 2.0.0 end-of-data"; 3]);
}

#[test]
fn clear_text_behind_starttls_ends_the_session() {
    // CVE-2011-0411, client side: the injected reply must never be read inside TLS.
    let one = transaction(&["b@x.example"], BODY);
    let open = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n";
    let end = play(
        &config(),
        Some(&one),
        &format!("{open}S: 220 go\nS: 250 injected"),
        Box::new(std::iter::empty()),
    );
    assert!(matches!(end.close, Some(CloseReason::Protocol(Phase::StartTls, _))));
    assert_eq!(end.shown(), ["Delayed 4.5.0 starttls"]);
}

#[test]
fn starttls_is_used_as_the_policy_says() {
    let one = transaction(&["b@x.example"], BODY);
    let open = "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250-PIPELINING\nS: 250 STARTTLS\n";
    let rest = "C: MAIL FROM:<a@client.example>\nS: 550 5.7.1 no";
    // After the handshake EHLO is said again and the old offer is forgotten: no PIPELINING here.
    let tls = format!("{open}C: STARTTLS\nS: 220 go\n! TLS\nC: EHLO client.example\nS: 250 mx\n{rest}");
    let refused = format!("{open}C: STARTTLS\nS: 454 4.7.0 not now\n");
    let bare = "S: 220 mx\nC: EHLO client.example\nS: 250 mx\n";
    let with = |starttls| {
        let mut config = config();
        config.starttls = starttls;
        config
    };
    for policy in [StartTls::Opportunistic, StartTls::Required] {
        let end = check(&with(policy), &one, &tls);
        assert_eq!(end.shown(), ["Failed 5.7.1 mail"]);
        let remote = end.report.unwrap().statuses.remove(0).remote.unwrap();
        assert_eq!(remote.tls.unwrap().version, "TLSv1.3".into());
    }
    assert_eq!(check(&with(StartTls::Required), &one, &refused).shown(), ["Delayed 4.7.4 starttls"]);
    assert_eq!(check(&with(StartTls::Required), &one, bare).shown(), ["Delayed 4.7.4 starttls"]);
    assert_eq!(check(&with(StartTls::None), &one, &format!("{bare}{rest}")).shown(), ["Failed 5.7.1 mail"]);
    let fallback = format!(
        "{refused}C: MAIL FROM:<a@client.example>\nC: RCPT TO:<b@x.example>\nC: DATA\nS: 550 5.7.1 no\nS: 503 x\nS: 503 x"
    );
    assert_eq!(check(&with(StartTls::Opportunistic), &one, &fallback).shown(), ["Failed 5.7.1 mail"]);
}

#[test]
fn what_the_server_cannot_take_fails_before_it_is_sent() {
    let hello = |offer: &str| format!("S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 {offer}\n");
    let eight = transaction(&["b@x.example"], "Subject: x\r\n\r\né\r\n".as_bytes());
    assert_eq!(check(&config(), &eight, &hello("SIZE")).shown(), ["Failed 5.6.3 mail"]);
    let mut big = transaction(&["b@x.example"], BODY);
    assert_eq!(check(&config(), &big, &hello("SIZE 19")).shown(), ["Failed 5.3.4 mail"]);
    big.envelope.options.require_tls = true;
    assert_eq!(check(&config(), &big, &hello("REQUIRETLS")).shown(), ["Failed 5.7.30 mail"]);
    let mut binary = transaction(&["b@x.example"], b"\0\n");
    binary.envelope.options.body = Body::BinaryMime;
    assert_eq!(check(&config(), &binary, &hello("CHUNKING")).shown(), ["Failed 5.6.3 mail"]);
    let stray = transaction(&["b@x.example"], b"a\n.\r\nMAIL FROM:<x@y>\r\n");
    assert_eq!(check(&config(), &stray, &hello("SIZE")).shown(), ["Failed 5.6.0 mail"]);
    // RFC 6531 3.2: a recipient that needs SMTPUTF8 fails alone.
    let mixed = transaction(&["b@x.example", "é@x.example"], BODY);
    let rest = "C: MAIL FROM:<a@client.example> SIZE=20\nS: 250 ok\nC: RCPT TO:<b@x.example>\nS: 250 ok\nC: DATA\nS: 451 4.3.0 no";
    let end = check(&config(), &mixed, &format!("{}{rest}", hello("SIZE")));
    assert_eq!(end.shown(), ["Delayed 4.3.0 data", "Failed 5.6.7 mail"]);
}

#[test]
fn options_change_what_may_be_sent() {
    let hello = |offer: &str| format!("S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 {offer}\n");
    let rest = "S: 250 ok\nC: RCPT TO:<b@x.example>\nS: 250 ok\n";
    let mut config = config();
    config.eight_bit = EightBit::SendAnyway;
    config.stray_line_ends = StrayLineEnds::Repair;
    config.chunking = Chunking::WhenNeeded;
    let stray = transaction(&["b@x.example"], "é\n.\n".as_bytes());
    let end = check(
        &config,
        &stray,
        &format!(
            "{}C: MAIL FROM:<a@client.example>\n{rest}C: DATA\nS: 354 go\nC: é\nC: ..\nC: .\nS: 250 2.0.0 ok",
            hello("CHUNKING")
        ),
    );
    assert_eq!(end.shown(), ["Delivered 2.0.0 end-of-data"]);
    let end = check(
        &config,
        &stray,
        &format!(
            "{}C: MAIL FROM:<a@client.example> BODY=8BITMIME\n{rest}C: DATA\nS: 354 go\nC: é\nC: ..\nC: .\nS: 250 2.0.0 ok",
            hello("8BITMIME")
        ),
    );
    assert_eq!(end.shown(), ["Delivered 2.0.0 end-of-data"]);
}

#[test]
fn chunking_carries_any_message_as_it_is() {
    // RFC 3030 4.2; no dots are doubled and bare line feeds stay.
    let stray = transaction(&["b@x.example", "no@x.example"], b".a\n.\r\n");
    let end = check(
        &config(),
        &stray,
        "
        S: 220 mx
        C: EHLO client.example
        S: 250-mx
        S: 250-PIPELINING
        S: 250 CHUNKING
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@x.example>
        C: RCPT TO:<no@x.example>
        S: 250 ok
        S: 250 ok
        S: 550 5.1.1 no
        C: BDAT 6 LAST
        C: .a\\n
        C: .
        S: 250 2.0.0 ok",
    );
    assert_eq!(end.shown(), ["Delivered 2.0.0 end-of-data", "Failed 5.1.1 rcpt"]);
}

#[test]
fn lmtp_answers_for_each_recipient() {
    // RFC 2033 4.2 and appendix A.
    let mut config = config();
    config.protocol = Protocol::Lmtp;
    let three = transaction(&["pat@x.example", "green@x.example", "no@x.example"], BODY);
    let dialogue = "
        S: 220 foo.edu LMTP server ready
        C: LHLO client.example
        S: 250-foo.edu
        S: 250 PIPELINING
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<pat@x.example>
        C: RCPT TO:<green@x.example>
        C: RCPT TO:<no@x.example>
        S: 250 OK
        S: 250 OK
        S: 250 OK
        S: 550 5.1.1 no
        C: DATA
        S: 354 Start mail input; end with <CRLF>.<CRLF>
        C: Subject: x
        C: 
        C: ..dot
        C: .
        S: 250 2.1.5 OK\n";
    let end = check(&config, &three, &format!("{dialogue}S: 452 4.2.2 full"));
    assert_eq!(
        end.shown(),
        ["Delivered 2.1.5 end-of-data", "Delayed 4.2.2 end-of-data", "Failed 5.1.1 rcpt"]
    );
    let end = check(&config, &three, &format!("{dialogue}! EOF"));
    assert_eq!(
        end.shown(),
        ["Delivered 2.1.5 end-of-data", "Unknown 4.4.2 end-of-data", "Failed 5.1.1 rcpt"]
    );
}

#[test]
fn a_window_bounds_the_pipeline() {
    let names: Vec<String> = (0..5).map(|i| format!("r{i}@x.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut config = config();
    config.limits.pipeline = 3;
    let end = check(
        &config,
        &transaction(&names, BODY),
        "
        S: 220 mx
        C: EHLO client.example
        S: 250-mx
        S: 250 PIPELINING
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<r0@x.example>
        C: RCPT TO:<r1@x.example>
        S: 421 4.7.0 no",
    );
    assert_eq!(end.shown(), ["Delayed 4.7.0 mail"; 5]);
}

#[test]
fn a_session_is_used_again_and_reset_when_it_must_be() {
    let remote = Remote { host: "mx.example.org".parse().unwrap(), address: None, tls: None };
    let mut session =
        Session::new(Arc::new(config()), remote, Timestamp::from_secs(1_800_000_000), Instant::ZERO);
    let mut now = Instant::ZERO;
    let mut talk = |session: &mut Session, transaction: Option<Transaction>, script: &[(&str, &str)]| {
        if let Some(transaction) = transaction {
            now = now + Duration::from_secs(3600);
            session.send(transaction, now).unwrap();
        }
        let mut script = script.iter();
        let mut heard = String::new();
        loop {
            match session.poll() {
                Step::Write { bytes, .. } => {
                    heard.push_str(std::str::from_utf8(bytes).unwrap());
                    let len = bytes.len();
                    session.handle_written(len, now);
                }
                Step::Read { deadline } => {
                    assert!(deadline > now, "a wait that began before the transaction");
                    let (expected, reply) = script.next().unwrap();
                    assert_eq!(std::mem::take(&mut heard), *expected);
                    session.handle_input(reply.as_bytes(), now);
                }
                Step::Done(report) => return Some(report),
                Step::Ready => return None,
                step => panic!("{step:?}"),
            }
        }
    };
    assert_eq!(
        talk(&mut session, None, &[("", "220 mx\r\n"), ("EHLO client.example\r\n", "250 mx\r\n")]),
        None
    );
    let one = transaction(&["b@x.example"], b"");
    let refused = talk(
        &mut session,
        Some(one.clone()),
        &[
            ("MAIL FROM:<a@client.example>\r\n", "250 ok\r\n"),
            ("RCPT TO:<b@x.example>\r\n", "550 5.1.1 no\r\n"),
        ],
    );
    assert_eq!(refused.unwrap().statuses[0].at, Timestamp::from_secs(1_800_000_000 + 3600));
    let mut stuck = session_after_a_refusal();
    stuck.send(one.clone(), Instant::ZERO).unwrap();
    while let Step::Write { bytes, .. } = stuck.poll() {
        let len = bytes.len();
        stuck.handle_written(len, Instant::ZERO);
    }
    stuck.handle_input(b"502 no RSET\r\n", Instant::ZERO);
    let Step::Done(report) = stuck.poll() else { panic!("no report") };
    assert_eq!(report.statuses[0].outcome, Outcome::Delayed, "another connection may do better");
    let taken = talk(
        &mut session,
        Some(one),
        &[
            ("RSET\r\n", "250 ok\r\n"),
            ("MAIL FROM:<a@client.example>\r\n", "250 ok\r\n"),
            ("RCPT TO:<b@x.example>\r\n", "250 ok\r\n"),
            ("DATA\r\n", "354 go\r\n"),
            (".\r\n", "250 ok\r\n"),
        ],
    );
    assert!(taken.unwrap().is_success());
}

/// A session whose last transaction is still open at the server.
fn session_after_a_refusal() -> Session {
    let remote = Remote { host: "mx.example.org".parse().unwrap(), address: None, tls: None };
    let start = Timestamp::from_secs(1_800_000_000);
    let mut session = Session::new(Arc::new(config()), remote, start, Instant::ZERO);
    session.send(transaction(&["b@x.example"], BODY), Instant::ZERO).unwrap();
    for reply in ["220 mx\r\n", "250 mx\r\n", "250 ok\r\n", "550 5.1.1 no\r\n"] {
        while let Step::Write { bytes, .. } = session.poll() {
            let len = bytes.len();
            session.handle_written(len, Instant::ZERO);
        }
        session.handle_input(reply.as_bytes(), Instant::ZERO);
    }
    assert!(matches!(session.poll(), Step::Done(_)));
    session
}

#[test]
fn a_refusal_in_the_middle_of_a_message_ends_the_session() {
    let remote = Remote { host: "mx.example.org".parse().unwrap(), address: None, tls: None };
    let mut session =
        Session::new(Arc::new(config()), remote, Timestamp::from_secs(1_800_000_000), Instant::ZERO);
    let now = Instant::ZERO;
    session.send(transaction(&["b@x.example"], BODY), now).unwrap();
    for reply in ["220 mx\r\n", "250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
        while let Step::Write { bytes, .. } = session.poll() {
            let len = bytes.len();
            session.handle_written(len, now);
        }
        session.handle_input(reply.as_bytes(), now);
    }
    session.handle_written(3, now);
    session.handle_input(b"552 5.3.4 too big\r\n", now);
    let Step::Done(report) = session.poll() else { panic!("no report") };
    assert_eq!((report.statuses[0].outcome, report.statuses[0].phase), (Outcome::Failed, Phase::Body));
    assert!(matches!(session.poll(), Step::Close(CloseReason::Refused { phase: Phase::Body, .. })));
}

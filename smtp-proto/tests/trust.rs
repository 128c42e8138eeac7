//! AUTH, STARTTLS policy, XCLIENT and XFORWARD, private extensions.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::server::{Answer, CloseReason, Config, Peer, Question};
use support::{Driver, config, no, peer};

fn with_auth() -> Config {
    let mut settings = config();
    settings.auth = vec!["CRAM-MD5".into(), "PLAIN".into(), "LOGIN".into()];
    settings
}

fn secure() -> Peer {
    Peer { tls: Some(TlsInfo::default()), ..peer() }
}

/// Knows `\0joe\0secret` by PLAIN; two challenges by LOGIN; everything else is wrong.
fn clerk(question: &Question<'_>) -> Answer {
    match question {
        Question::Auth { response: None, .. } => Answer::Challenge(Vec::new()),
        Question::Auth { mechanism: "PLAIN", response: Some(b"\0joe\0secret"), .. } => Answer::accepted(),
        Question::Auth { mechanism: "LOGIN", response: Some(b"joe"), .. } => {
            Answer::Challenge(b"Password:".to_vec())
        }
        Question::Auth { mechanism: "LOGIN", response: Some(b"secret"), .. } => Answer::accepted(),
        Question::Auth { .. } => no(535),
        _ => Answer::accepted(),
    }
}

fn session(settings: Config, peer: Peer) -> Driver {
    let mut driver = Driver::with_peer(settings, peer, Box::new(clerk));
    driver.send(b"EHLO client.example\r\n");
    driver.record.output.clear();
    driver
}

#[test]
fn clear_text_mechanisms_need_tls() {
    let mut driver = session(with_auth(), peer());
    let offer = driver.say("EHLO x");
    assert!(offer.contains("AUTH CRAM-MD5\r\n"), "{offer}");
    for line in ["AUTH PLAIN AGpvZQBzZWNyZXQ=", "AUTH login"] {
        assert_eq!(driver.code(line), 538, "{line}");
    }
    assert_eq!(driver.code("AUTH XNOTHING"), 504);
    assert!(!driver.record.asked.contains(&"auth"));
    assert!(!driver.session.is_authenticated());
}

#[test]
fn exchanges() {
    let mut driver = session(with_auth(), secure());
    assert_eq!(driver.say("AUTH PLAIN"), "334 \r\n");
    assert_eq!(driver.code("AGpvZQBzZWNyZXQ="), 235);
    assert_eq!(driver.code("AUTH PLAIN AGpvZQBzZWNyZXQ="), 503, "once is enough");
    assert_eq!(driver.code("EHLO again"), 250);
    assert!(driver.session.is_authenticated(), "EHLO forgets nothing");

    let mut driver = session(with_auth(), secure());
    assert_eq!(driver.say("auth Login"), "334 \r\n");
    assert_eq!(driver.say("am9l"), "334 UGFzc3dvcmQ6\r\n");
    assert_eq!(driver.code("*"), 501);
    assert_eq!(driver.code("AUTH LOGIN am9l"), 334);
    assert_eq!(driver.code("c2VjcmV0"), 235);

    let mut driver = session(with_auth(), secure());
    assert_eq!(driver.code("MAIL FROM:<>"), 250);
    assert_eq!(driver.code("AUTH PLAIN AGpvZQBzZWNyZXQ="), 503, "not in a transaction");
}

#[test]
fn failures_are_counted() {
    let mut driver = session(with_auth(), secure());
    for (line, code) in [("AUTH PLAIN =", 535), ("AUTH PLAIN not!base64", 501)] {
        assert_eq!(driver.code(line), code, "{line}");
    }
    driver.say("AUTH PLAIN AGpvZQB3cm9uZw==");
    assert_eq!(driver.record.codes(), [535, 501, 535, 421]);
    assert_eq!(driver.record.closed, Some(CloseReason::TooMany));
}

#[test]
fn responses_are_bounded_and_do_not_run_ahead() {
    let mut driver = session(with_auth(), secure());
    assert_eq!(driver.code("AUTH PLAIN"), 334);
    assert_eq!(driver.code(&"A".repeat(12_280)), 535, "long, but allowed");
    assert_eq!(driver.code("AUTH PLAIN"), 334);
    assert_eq!(driver.code(&"A".repeat(12_288)), 500);
    assert_eq!(driver.code("NOOP"), 250);
    driver.send(b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\nMAIL FROM:<>\r\n");
    assert_eq!(driver.record.closed, Some(CloseReason::EarlyTalk));
    assert!(!driver.session.is_authenticated());
}

#[test]
fn submission_asks_for_tls_and_auth_first() {
    let mut settings = with_auth();
    settings.starttls = true;
    settings.require_tls = true;
    settings.require_auth = true;
    let mut driver = session(settings, peer());
    assert!(driver.say("MAIL FROM:<>").starts_with("530 5.7.0 Must issue a STARTTLS"));
    driver.send(b"STARTTLS\r\n").tls().send(b"EHLO x\r\n");
    assert!(driver.say("MAIL FROM:<>").starts_with("530 5.7.0 Authentication"));
    assert_eq!(driver.code("AUTH PLAIN AGpvZQBzZWNyZXQ="), 235);
    assert_eq!(driver.code("MAIL FROM:<> AUTH=joe@example.org"), 250);
    let auth = driver.session.envelope().unwrap().options.auth.clone();
    assert_eq!(auth.unwrap().to_string(), "<joe@example.org>");
}

#[test]
fn auth_parameter_of_strangers_means_nobody() {
    let mut driver = session(with_auth(), secure());
    assert_eq!(driver.code("MAIL FROM:<> AUTH=joe@example.org"), 250);
    let auth = driver.session.envelope().unwrap().options.auth.clone();
    assert!(auth.unwrap().is_null());
}

#[test]
fn xclient_makes_another_peer() {
    let mut settings = config();
    settings.xclient = true;
    let mut driver = session(settings, peer());
    let greeting =
        driver.say("XCLIENT NAME=spike.example ADDR=192.0.2.77 PORT=99 HELO=[UNAVAILABLE] LOGIN=j+40x");
    assert!(greeting.starts_with("220 mx.example.org"), "{greeting}");
    let told = driver.session.peer();
    assert_eq!(told.address, "192.0.2.77:99".parse().unwrap());
    assert_eq!(told.forwarded.name.as_deref(), Some("spike.example"));
    assert_eq!(told.forwarded.login.as_deref(), Some("j@x"));
    assert_eq!(told.forwarded.hello, None);
    assert_eq!(driver.code("MAIL FROM:<>"), 503, "the new client has not said EHLO");
    assert_eq!(driver.code("XCLIENT ADDR=IPV6:2001:db8::7"), 220);
    assert_eq!(driver.session.peer().address, "[2001:db8::7]:99".parse().unwrap());
    for bad in [
        "XCLIENT",
        "XCLIENT ADDR=example.org",
        "XCLIENT COLOUR=red",
        "XCLIENT NAME=a+0Ab",
        "XCLIENT PORT=70000",
    ] {
        assert_eq!(driver.code(bad), 501, "{bad}");
    }
    assert_eq!(
        driver.session.peer().address,
        "[2001:db8::7]:99".parse().unwrap(),
        "a bad command changes nothing"
    );
    assert_eq!(driver.record.asked.iter().filter(|asked| **asked == "connect").count(), 3);
}

#[test]
fn xforward_is_kept_and_strangers_have_neither() {
    let mut settings = config();
    settings.xforward = true;
    let mut driver = session(settings, peer());
    assert_eq!(driver.code("XFORWARD NAME=spike.example ADDR=192.0.2.77 IDENT=4fA2 SOURCE=REMOTE"), 250);
    let forwarded = &driver.session.peer().forwarded;
    assert_eq!(forwarded.address.unwrap().ip().to_string(), "192.0.2.77");
    assert_eq!(forwarded.ident.as_deref(), Some("4fA2"));
    assert_eq!(driver.session.peer().address, peer().address);

    let mut driver = Driver::greeted(
        config(),
        Box::new(|question| match question {
            Question::Command { verb, .. } => {
                assert!(matches!(*verb, "XCLIENT" | "XFORWARD"));
                no(550)
            }
            _ => Answer::accepted(),
        }),
    );
    assert_eq!(driver.code("XCLIENT ADDR=192.0.2.77"), 550);
    assert_eq!(driver.code("XFORWARD ADDR=192.0.2.77"), 550);
    assert_eq!(driver.session.peer().address, peer().address);
}

#[test]
fn private_verbs_and_parameters_reach_the_embedder() {
    let mut settings = config();
    settings.private_mail = vec!["XMOOD".into()];
    settings.private_rcpt = vec!["XFOLDER".into()];
    let policy = Box::new(|question: &Question<'_>| match question {
        Question::Mail { private, .. } if private[0].value.as_deref() == Some("bad") => no(550),
        Question::Rcpt { private: [], .. } => no(551),
        Question::Command { verb: "XMOOD", text } => Answer::accepted_with(text),
        Question::Command { .. } => no(500),
        _ => Answer::accepted(),
    });
    let mut driver = Driver::greeted(settings, policy);
    assert_eq!(driver.say("xmood Cheer Ful"), "250 2.0.0 Cheer Ful\r\n");
    assert_eq!(driver.code("MAIL FROM:<> XMOOD=bad"), 550);
    assert_eq!(driver.code("MAIL FROM:<> xmood=good"), 250);
    assert_eq!(driver.code("RCPT TO:<b@example.org>"), 551);
    assert_eq!(driver.code("RCPT TO:<b@example.org> XFOLDER=in"), 250);
}

#[test]
fn spans_become_moments() {
    let mut settings = config();
    settings.deliver_by = Some(60);
    settings.future_release = Some(3600);
    settings.mt_priority = true;
    let mut driver = session(settings, peer());
    for (line, code) in [
        ("MAIL FROM:<> BY=59;R", 501),
        ("MAIL FROM:<> HOLDFOR=3601", 501),
        ("MAIL FROM:<> HOLDUNTIL=2099-01-01T00:00:00Z", 501),
        ("MAIL FROM:<> BY=120;RT HOLDFOR=60 MT-PRIORITY=4", 250),
    ] {
        assert_eq!(driver.code(line), code, "{line}");
    }
    let options = &driver.session.envelope().unwrap().options;
    assert_eq!(options.deliver_by.unwrap().deadline.secs(), 1_800_000_120);
    assert_eq!(options.hold_until.unwrap().secs(), 1_800_000_060);
    assert_eq!(options.priority, Some(4));
}

#[test]
fn where_tls_is_a_must_nobody_logs_in_without_it() {
    let mut settings = with_auth();
    (settings.require_tls, settings.starttls) = (true, true);
    let mut driver = session(settings.clone(), peer());
    let offer = driver.say("EHLO x");
    assert!(!offer.contains("AUTH") && offer.contains("STARTTLS"), "{offer}");
    assert_eq!(driver.code("AUTH CRAM-MD5"), 530, "RFC 3207 4");
    assert_eq!(driver.code("STARTTLS"), 220);
    driver.tls();
    let offer = driver.say("EHLO x");
    assert!(offer.contains("AUTH CRAM-MD5 PLAIN LOGIN\r\n"), "{offer}");
    assert_eq!(driver.code("AUTH PLAIN AGpvZQBzZWNyZXQ="), 235);
}

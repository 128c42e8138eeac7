//! Composed notifications, read back line by line against RFC 3464, RFC 3461, RFC 6533 and RFC 8689.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;
use std::time::Duration;

use postwright_bounce::dsn::{Action, ComposeError, Composer, Dsn, DsnId, Fate, Original, delay_is_due};
use postwright_core::{
    Cause, DeliveryStatus, EnhancedStatus, MailOptions, Mailbox, Message, Notify, OriginalRecipient, Outcome,
    Phase, Recipient, Remote, Reply, ReplyCode, Ret, ReversePath, Timestamp,
};

const AT: Timestamp = Timestamp::from_secs(1_709_164_800);
const MAIL: &[u8] = b"Received: from [10.1.2.3]\r\nFrom: a@example.org\r\nMessage-ID: <one@example.org>\r\nSubject: x\r\n\r\nsecret body\r\n";

fn composer() -> Composer {
    Composer::new("mx.example.net".parse().unwrap(), "postmaster@example.net".parse().unwrap())
}

fn refused(code: u16, text: &str) -> DeliveryStatus {
    let reply = Reply::new(ReplyCode::new(code).unwrap(), text).with_status(EnhancedStatus::known(5, 1, 1));
    let address: SocketAddr = "10.9.8.7:25".parse().unwrap();
    let remote = Remote { host: "mx.example.com".parse().unwrap(), address: Some(address), tls: None };
    DeliveryStatus::from_reply(reply, Phase::Rcpt, Some(remote), AT)
}

fn recipient(text: &str) -> Recipient {
    Recipient::from(text.parse::<Mailbox>().unwrap())
}

fn compose(options: &MailOptions, mail: &[u8], fates: &[Fate<'_>]) -> Option<Dsn> {
    let original = Original { options, message: &Message::from_bytes(mail.to_vec()), arrived: AT };
    let sender = "sender@example.org".parse().unwrap();
    composer().compose(&sender, original, fates, &DsnId::new("0123456789abcdef").unwrap(), AT).unwrap()
}

fn text(dsn: &Dsn) -> String {
    String::from_utf8(dsn.message.to_vec()).unwrap()
}

fn fate<'a>(recipient: &'a Recipient, status: &'a DeliveryStatus) -> Fate<'a> {
    Fate { recipient, action: Action::of(status), status, retry_until: None }
}

#[test]
fn several_recipients_make_one_report() {
    let mut bob = recipient("bob@example.com");
    bob.original = Some(OriginalRecipient { kind: "rfc822".into(), address: "Bob+x@example.com".into() });
    let (ann, eve) = (recipient("ann@example.com"), recipient("eve@example.com"));
    let failed = refused(550, "No such user\n.\nFinal-Recipient: rfc822; forged@example.com");
    let delayed =
        DeliveryStatus::local(EnhancedStatus::known(4, 4, 1), Cause::Unreachable, Phase::Connect, AT);
    let mut delivered = refused(250, "ok");
    delivered.outcome = Outcome::Delivered;
    let options = MailOptions::default();
    let mut late = fate(&ann, &delayed);
    late.retry_until = Some(AT + Duration::from_secs(86_400));
    // Eve did not ask for success: left out (RFC 3461 4.1).
    let dsn = compose(&options, MAIL, &[fate(&bob, &failed), late, fate(&eve, &delivered)]).unwrap();
    assert_eq!(dsn.envelope.reverse_path, ReversePath::Null);
    assert_eq!(dsn.envelope.recipients[0].mailbox.to_string(), "sender@example.org");
    assert_eq!(dsn.envelope.recipients[0].notify, Some(Notify::Never));
    let text = text(&dsn);
    for line in [
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "In-Reply-To: <one@example.org>",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Content-Type: message/delivery-status",
        "Content-Type: text/rfc822-headers",
        "Reporting-MTA: dns; mx.example.net",
        "Arrival-Date: Thu, 29 Feb 2024 00:00:00 +0000",
        "Original-Recipient: rfc822; Bob+x@example.com",
        "Final-Recipient: rfc822; bob@example.com",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.example.com",
        "Final-Recipient: rfc822; ann@example.com",
        "Action: delayed",
        "Status: 4.4.1",
        "Will-Retry-Until: Fri, 1 Mar 2024 00:00:00 +0000",
        "Subject: x",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}\n{text}");
    }
    assert!(!text.contains("eve@example.com"));
    assert!(!text.contains("secret body"), "the default returns headers only");
    assert!(!text.contains("10.9.8.7"), "addresses of hosts are nobody's business");
    // The remote's text never begins a line.
    assert_eq!(text.matches("\r\nFinal-Recipient:").count(), 2);
    assert!(text.split_inclusive('\n').all(|line| line.ends_with("\r\n") && line.len() <= 1000));
    assert_eq!(text.matches("--=_pw_0123456789abcdef").count(), 4);
    assert!(text.ends_with("--=_pw_0123456789abcdef--\r\n"));
}

#[test]
fn notify_decides_whether_there_is_a_report_at_all() {
    let status = refused(550, "no");
    let mut never = recipient("a@example.com");
    never.notify = Some(Notify::Never);
    assert!(compose(&MailOptions::default(), MAIL, &[fate(&never, &status)]).is_none());
    never.notify = Some(Notify::When { success: false, failure: false, delay: true });
    assert!(compose(&MailOptions::default(), MAIL, &[fate(&never, &status)]).is_none());
    never.notify = Some(Notify::When { success: true, failure: false, delay: false });
    for action in [Action::Delivered, Action::Relayed, Action::Expanded] {
        let told = Fate { action, ..fate(&never, &status) };
        let dsn = compose(&MailOptions::default(), MAIL, &[told]).unwrap();
        assert!(text(&dsn).contains(&format!("\r\nAction: {action}\r\n")));
    }
    assert!(compose(&MailOptions::default(), MAIL, &[]).is_none());
}

#[test]
fn ret_full_returns_the_message_within_its_limits() {
    let (to, status) = (recipient("a@example.com"), refused(550, "no"));
    let mut options = MailOptions::default();
    options.ret = Some(Ret::Full);
    options.envelope_id = Some("QQ314159\r\nX: y".into());
    let full = text(&compose(&options, MAIL, &[fate(&to, &status)]).unwrap());
    assert!(full.contains("Content-Type: message/rfc822\r\n") && full.contains("secret body"));
    assert!(full.contains("\r\nOriginal-Envelope-Id: QQ314159 X: y\r\n"));
    // Too large, or not made of lines: the header section. A header section that is too large is cut between fields.
    let large = [MAIL, &b"x\r\n".repeat(30_000)].concat();
    let bare = [MAIL, b"bare \r here\r\n"].concat();
    for mail in [large, bare] {
        let text = text(&compose(&options, &mail, &[fate(&to, &status)]).unwrap());
        assert!(text.contains("text/rfc822-headers") && !text.contains("secret body"));
    }
    let bomb = [b"X: y\r\n".repeat(100_000), b"Subject: last\r\n\r\n".to_vec()].concat();
    let report = compose(&options, &bomb, &[fate(&to, &status)]).unwrap();
    assert!(report.message.len() < 68 * 1024 && !text(&report).contains("Subject: last"));
    // No failure, no message (RFC 3461 4.3).
    let delayed = Fate { action: Action::Delayed, ..fate(&to, &status) };
    assert!(!text(&compose(&options, MAIL, &[delayed]).unwrap()).contains("secret body"));
    // RFC 8689 5: RET=FULL is disregarded, and the notification asks for TLS in turn.
    options.require_tls = true;
    let redacted = compose(&options, MAIL, &[fate(&to, &status)]).unwrap();
    assert!(!text(&redacted).contains("secret body") && redacted.envelope.options.require_tls);
}

#[test]
fn utf8_takes_the_types_of_rfc_6533_and_ascii_stays_ascii() {
    let status = refused(550, "Postfach gibt es nicht: Jürgen");
    let plain =
        text(&compose(&MailOptions::default(), MAIL, &[fate(&recipient("a@example.com"), &status)]).unwrap());
    assert!(plain.is_ascii() && plain.contains("J\\x{FC}rgen"));
    let mut options = MailOptions::default();
    options.smtp_utf8 = true;
    options.ret = Some(Ret::Full);
    let jurgen = recipient("jürgen@example.com");
    let mail = "Subject: für\r\n\r\nhallo\r\n";
    let dsn = compose(&options, mail.as_bytes(), &[fate(&jurgen, &status)]).unwrap();
    assert!(dsn.envelope.options.smtp_utf8);
    let text = text(&dsn);
    for line in [
        "Content-Type: message/global-delivery-status",
        "Content-Type: message/global",
        "Final-Recipient: utf-8; jürgen@example.com",
        "Content-Transfer-Encoding: 8bit",
        "Subject: für",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}\n{text}");
    }
}

#[test]
fn a_foreseen_boundary_does_not_split_the_report() {
    let (to, status) = (recipient("a@example.com"), refused(550, "no"));
    let mut options = MailOptions::default();
    options.ret = Some(Ret::Full);
    let mail = b"Subject: x\r\n\r\n--=_pw_0123456789abcdef--\r\n--=_pw_0123456789abcdefxx\r\n";
    let text = text(&compose(&options, mail, &[fate(&to, &status)]).unwrap());
    assert!(text.contains("boundary=\"=_pw_0123456789abcdefxxx\""), "{text}");
    assert_eq!(text.matches("\r\n--=_pw_0123456789abcdefxxx").count(), 4);
}

#[test]
fn limits_and_ids() {
    let (to, status) = (recipient("a@example.com"), refused(550, "no"));
    let fates = vec![fate(&to, &status); 1001];
    let original = Original {
        options: &MailOptions::default(),
        message: &Message::from_bytes(MAIL.to_vec()),
        arrived: AT,
    };
    let (sender, id) = ("s@example.org".parse().unwrap(), DsnId::new("abcdefgh").unwrap());
    assert_eq!(
        composer().compose(&sender, original, &fates, &id, AT).unwrap_err(),
        ComposeError::TooManyRecipients(1000)
    );
    assert!(composer().compose(&sender, original, &fates[..1000], &id, AT).unwrap().is_some());
    for bad in ["", "short", "has space in it", "has\"quote1", &"x".repeat(41)] {
        assert_eq!(DsnId::new(bad), None);
    }
    let day = Duration::from_secs(86_400);
    assert!(delay_is_due(AT, day, false, AT + day) && !delay_is_due(AT, day, true, AT + day * 2));
    assert!(!delay_is_due(AT, day, false, AT + day - Duration::from_millis(1)));
}

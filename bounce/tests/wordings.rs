//! What a mail says beside the remote's reply: the reporter's own words, and in which phase it was refused. Each case is
//! written for the test; none is a file of a suite.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use postwright_bounce::Limits;
use postwright_bounce::classify::{Category, Classifier};
use postwright_bounce::report::{Kind, MailReport, read};

fn understood(mail: &str) -> MailReport {
    read(mail.as_bytes(), &Classifier::built_in(), &Limits::default())
}

fn notification(prose: &str, fields: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example.net\nSubject: Undelivered\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\n{prose}\n--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n\nFinal-Recipient: rfc822; ann@example.org\nAction: failed\n{fields}\n--b--\n"
    )
}

/// RFC 3464 2.3.4 lets a reporter explain its status in a comment: with a code that agrees it outweighs the quoted text.
#[test]
fn the_comment_behind_a_status_names_the_mailboxs_state() {
    for (comment, category) in [
        (" (mailbox disabled, not accepting messages)", Category::MailboxDisabled),
        ("", Category::UserUnknown),
        (" (bad destination mailbox address)", Category::UserUnknown),
    ] {
        let fields = format!("Status: 5.2.1{comment}\nDiagnostic-Code: smtp; 550 5.2.1 User unknown");
        let report = understood(&notification("It failed.", &fields));
        let verdict = &report.reports[0].classification;
        assert_eq!(
            (verdict.category, verdict.hard),
            (category, category == Category::UserUnknown),
            "{comment}"
        );
    }
}

/// A reporter that quotes no host speaks for itself, also above the list of recipients.
#[test]
fn the_reporters_words_stand_above_the_recipient() {
    let prose = "The user's account is disabled.\n\n<ann@example.org>: 550 user unknown";
    let report = understood(&notification(prose, "Status: 5.0.0"));
    assert_eq!(report.reports[0].classification.category, Category::MailboxDisabled);
    let quoted = "Status: 5.0.0\nDiagnostic-Code: smtp; 550 user unknown";
    assert!(understood(&notification(prose, quoted)).reports[0].classification.hard, "the host is quoted");
}

/// Who takes a recipient and then does not know it has filtered the message.
#[test]
fn the_phase_is_read_from_what_programs_write() {
    for (said, hard) in [
        ("Remote server replied: 550 User unknown [RCPT_TO]", true),
        ("192.0.2.1 does not like recipient.\nRemote host said: 550 User unknown", true),
        ("192.0.2.1 failed after I sent the message.\nRemote host said: 550 User unknown", false),
        ("The other server said: 550 User unknown (state 14).", true),
        ("The other server said: 550 User unknown (state 18).", false),
        ("host mx.example.org said: 550 User unknown (in reply to end of DATA command)", false),
        ("host mx.example.org said: 550 User unknown (in reply to RCPT TO command)", true),
    ] {
        let mail = format!(
            "From: MAILER-DAEMON@mx.example.net\nSubject: failure notice\n\nSorry.\n\n<ann@example.org>:\n{said}\n"
        );
        let report = understood(&mail);
        assert_eq!((report.reports.len(), report.reports[0].classification.hard), (1, hard), "{said}");
    }
}

#[test]
fn a_multipart_that_lost_its_boundary_is_read_as_text() {
    let mail = "From: post_master@sms.example.net\nSubject: Re: hello\nContent-Type: multipart/mixed\n\nError message below:\n550 no such user here\n\n  RCPT TO: ann@example.org\n";
    let report = understood(mail);
    assert_eq!((report.kind, &*report.reports[0].recipient), (Kind::Bounce, "ann@example.org"));
}

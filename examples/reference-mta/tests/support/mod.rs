//! What the process tests share: the MTA as a child process, a load that speaks raw SMTP, and a receiver that
//! remembers. The load and the receiver are written on plain sockets, so that nothing of ours judges itself.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on panics; not every test uses every part"
)]

pub mod cli;
pub mod dovecot;
pub mod load;
pub mod mta;
pub mod postfix;
pub mod proxy;
pub mod receiver;
pub mod secure;
pub mod streams;

use std::time::Duration;

/// Waits until `ready` says yes; panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) {
    let step = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    while !ready() {
        assert!(waited < limit, "gave up after {limit:?} waiting until {what}");
        pause(step);
        waited += step;
    }
}

/// Real processes take real time.
#[expect(clippy::disallowed_methods, reason = "a test thread that waits for another process")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// A complaint in the form of RFC 5965, which quotes the return path and a message of this id.
pub fn complaint(return_path: &str, message_id: &str) -> String {
    format!(
        "From: fbl@provider.test\r\nSubject: complaint\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=\"b\"\r\n\r\n--b\r\n\r\nAbuse.\r\n--b\r\n\
         Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: P/1\r\nVersion: 1\r\n\
         Original-Mail-From: <{return_path}>\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n\
         Message-ID: <{message_id}>\r\nSubject: x\r\n\r\nx\r\n--b--\r\n"
    )
}

//! What goes into a session and what comes out: [`Transaction`], [`Report`], [`CloseReason`].
//!
//! Invariant: a report has one status for each recipient of its transaction, in the envelope's order.
//!
//! Standards: RFC 3463 (the codes of our own findings); RFC 3461 5.3.1 (relayed).
//!
//! Not here: how a status is reached (job), what it means for the next attempt (queue, bounce).

use std::fmt;

use postwright_core::{
    Cause, DeliveryStatus, EnhancedStatus, Envelope, Message, Phase, Remote, Reply, Timestamp,
};

/// One message and whom it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Sender, recipients and options.
    pub envelope: Envelope,
    /// The message, header and body.
    pub message: Message,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// One status for each recipient, in the envelope's order.
    pub statuses: Vec<DeliveryStatus>,
}

impl Report {
    /// The report of a transaction that met one fate as a whole, such as a host that cannot be reached.
    pub fn same(status: &DeliveryStatus, recipients: usize) -> Report {
        Report { statuses: vec![status.clone(); recipients] }
    }

    /// Whether every recipient was delivered or relayed.
    pub fn is_success(&self) -> bool {
        use postwright_core::Outcome;
        self.statuses.iter().all(|status| matches!(status.outcome, Outcome::Delivered | Outcome::Relayed))
    }
}

/// Most octets of a queue id: far above those of all known servers, and little in a log.
const QUEUE_ID_OCTETS: usize = 128;

/// The name that the server gave the message in its queue, where its reply to the end of the message tells it the
/// way Postfix (`queued as ID`), Exim (`OK id=ID`), KumoMTA (`OK ids=ID`), Sendmail (`ID Message accepted for
/// delivery`), Gmail (`OK TIME ID - gsmtp`), Haraka (`Message Queued (ID)`) or Exchange (`<ID> ... Queued mail for
/// delivery`) do: for tracing mail together with the other side's operator.
///
/// `None` when unsure: a word without a digit is rather a word, and what could break a line of a log is no id.
pub fn queue_id(reply: &Reply) -> Option<Box<str>> {
    if !reply.code().is_positive() {
        return None;
    }
    let text = reply.text();
    let word_after = |mark: &str| text.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next());
    let word_before = |mark: &str| text.split_once(mark).and_then(|(head, _)| head.split_whitespace().next());
    // Google's reply begins with the time; the id is the word before its name.
    let google = || text.strip_suffix(" - gsmtp").and_then(|head| head.split_whitespace().nth(2));
    let id = word_after("queued as ")
        .or_else(|| word_after("OK id="))
        .or_else(|| word_after("OK ids="))
        .or_else(|| word_before(" Message accepted for delivery"))
        .or_else(|| word_before(" Queued mail for delivery"))
        .or_else(|| word_after("Message Queued ("))
        .or_else(google)?;
    let id = id.trim_matches(|c: char| "<>().,;".contains(c));
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._+=@/:!#$%&*?^|~".contains(&octet);
    let is_id = (1..=QUEUE_ID_OCTETS).contains(&id.len())
        && id.bytes().all(is_plain)
        && id.bytes().any(|octet| octet.is_ascii_digit() || octet == b'@');
    is_id.then(|| id.into())
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// We said QUIT.
    Quit,
    /// The server refused to go on: a greeting or EHLO that is not positive, or 421 at any time.
    Refused {
        /// When.
        phase: Phase,
        /// With which words.
        reply: Reply,
    },
    /// The server did not answer in time.
    Timeout(Phase),
    /// The connection ended.
    ConnectionLost(Phase),
    /// The server broke the protocol; what it did.
    Protocol(Phase, Box<str>),
    /// TLS was required and the server does not offer it, or refused STARTTLS.
    TlsUnavailable(Box<str>),
    /// The TLS handshake failed; why.
    TlsFailed(Box<str>),
    /// AUTH was asked for and did not succeed: no common mechanism, or refused.
    Auth(Box<str>),
}

impl CloseReason {
    /// The phase in which the session ended.
    pub fn phase(&self) -> Phase {
        match self {
            CloseReason::Quit => Phase::Closing,
            CloseReason::Refused { phase, .. }
            | CloseReason::Timeout(phase)
            | CloseReason::ConnectionLost(phase)
            | CloseReason::Protocol(phase, _) => *phase,
            CloseReason::TlsUnavailable(_) | CloseReason::TlsFailed(_) => Phase::StartTls,
            CloseReason::Auth(_) => Phase::Auth,
        }
    }

    /// What the end of the session means for a recipient that was not decided before.
    ///
    /// A reply of the server decides as it stands: 421 delays, a greeting of 554 fails (a caller with further hosts
    /// tries those first). Everything else delays: 4.4.2 for a lost or silent connection, 4.5.0 for a broken
    /// protocol, 4.7.4 and 4.7.5 for TLS, 4.7.8 for AUTH (wrong credentials are ours to mend, not the sender's).
    pub fn status(&self, remote: Option<Remote>, at: Timestamp) -> DeliveryStatus {
        let phase = self.phase();
        let (subject, detail, cause) = match self {
            CloseReason::Refused { reply, .. } => {
                return DeliveryStatus::from_reply(reply.clone(), phase, remote, at);
            }
            CloseReason::Quit => (4, 2, Cause::ConnectionLost(phase)),
            CloseReason::Timeout(_) => (4, 2, Cause::Timeout(phase)),
            CloseReason::ConnectionLost(_) => (4, 2, Cause::ConnectionLost(phase)),
            CloseReason::Protocol(_, what) => (5, 0, Cause::Protocol(phase, what.clone())),
            CloseReason::TlsUnavailable(why) => (7, 4, Cause::Tls(why.clone())),
            CloseReason::TlsFailed(why) => (7, 5, Cause::Tls(why.clone())),
            CloseReason::Auth(why) => (7, 8, Cause::Policy(why.clone())),
        };
        let code = EnhancedStatus::new(4, subject, detail).unwrap_or(EnhancedStatus::known(4, 0, 0));
        DeliveryStatus { remote, ..DeliveryStatus::local(code, cause, phase, at) }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Quit => f.write_str("we quit"),
            CloseReason::Refused { phase, reply } => write!(f, "refused in phase {phase}: {reply}"),
            CloseReason::Timeout(phase) => write!(f, "time-out in phase {phase}"),
            CloseReason::ConnectionLost(phase) => write!(f, "connection lost in phase {phase}"),
            CloseReason::Protocol(phase, what) => write!(f, "protocol error in phase {phase}: {what}"),
            CloseReason::TlsUnavailable(why) => write!(f, "no TLS: {why}"),
            CloseReason::TlsFailed(why) => write!(f, "TLS failed: {why}"),
            CloseReason::Auth(why) => write!(f, "AUTH: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postwright_core::ReplyCode;

    #[test]
    fn queue_ids_are_found_where_servers_put_them() {
        for (code, text, expected) in [
            (250, "Ok: queued as 4XyZ1230qKz9sQ", Some("4XyZ1230qKz9sQ")),
            (250, "OK id=1rXyZa-0001Bc-2D", Some("1rXyZa-0001Bc-2D")),
            (250, "51L0hXw1012345 Message accepted for delivery", Some("51L0hXw1012345")),
            (250, "<a@b.example> [InternalId=1, Hostname=h] Queued mail for delivery", Some("a@b.example")),
            (
                250,
                "<a@b.example> [InternalId=1, Hostname=h] 99 bytes in 0.1, 1 KB/sec Queued mail for delivery",
                Some("a@b.example"),
            ),
            (250, "OK  1358965472 l12si7291841wiv.62 - gsmtp", Some("l12si7291841wiv.62")),
            (
                250,
                "OK 1700000000 41be03b00d2f7-5c1fd3e1-si1234 - gsmtp",
                Some("41be03b00d2f7-5c1fd3e1-si1234"),
            ),
            (250, "from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 5B2C1A", Some("5B2C1A")),
            (250, "Message Queued (6F1B2C4E-0001)", Some("6F1B2C4E-0001")),
            (250, "OK ids=3f2a1c", Some("3f2a1c")),
            (250, "queued as spam", None),
            (250, "Ok: queued as \"1\"", None),
            (250, "OK 1700000000 - gsmtp", None),
            (250, "Your Message accepted for delivery", None),
            (250, "ok 1700000000 qp 12345", None),
            (250, "Ok", None),
            (250, "queued as ", None),
            (451, "queued as 12345", None),
            (250, &format!("queued as {}", "1".repeat(QUEUE_ID_OCTETS)), Some(&*"1".repeat(QUEUE_ID_OCTETS))),
            (250, &format!("queued as {}", "1".repeat(QUEUE_ID_OCTETS + 1)), None),
        ] {
            let reply = Reply::new(ReplyCode::new(code).unwrap(), text);
            assert_eq!(queue_id(&reply).as_deref(), expected, "{text}");
        }
    }
}

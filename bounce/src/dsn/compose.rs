//! Composing a delivery status notification.
//!
//! Invariant: a notification goes to a mailbox, never to the null reverse-path (the argument's type says so), and
//! itself comes from the null reverse-path, so that it can never be answered by another one (RFC 5321 4.5.5). Same
//! arguments, same octets. Every line ends in CRLF and is at most 998 octets long.
//!
//! Standards: RFC 3461 4.3, 6; RFC 3464; RFC 3834 5; RFC 6522; RFC 6533; RFC 8689 5.
//!
//! Not here: whether a recipient has failed (queue), reading notifications (`parse`).

use std::time::Duration;

use postwright_core::{
    Body, Cause, DeliveryStatus, Diagnostic, Domain, Entropy, Envelope, MailOptions, Mailbox, Message,
    Notify, Recipient, Ret, ReversePath, Timestamp,
};

use super::Action;
use super::fields::{clean, field, quoted};
use super::returned::{Returned, cut_headers, message_id, whole};
use crate::Limits;

/// Who composes: the settings that all notifications of a server share.
#[derive(Debug, Clone)]
pub struct Composer {
    /// The server's name: `Reporting-MTA` and the right side of message ids.
    pub host: Domain,
    /// The address in `From`, such as `postmaster@example.org`.
    pub from: Mailbox,
    /// What a failure returns when the sender does not say (RET). The header section is enough to know the message by,
    /// and gives the least to a forged sender.
    pub returns: Ret,
    /// The limits `returned`, `recipients` and `diagnostic`.
    pub limits: Limits,
}

/// The message that is reported on.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// Its MAIL parameters.
    pub options: &'a MailOptions,
    /// Its octets.
    pub message: &'a Message,
    /// When it was accepted here.
    pub arrived: Timestamp,
}

/// What became of one recipient.
#[derive(Debug, Clone, Copy)]
pub struct Fate<'a> {
    /// The recipient as it was accepted.
    pub recipient: &'a Recipient,
    /// What is reported; [`Action::of`] gives the usual one. An expired recipient is `Failed` although its last status is of
    /// class 4.
    pub action: Action,
    /// The last status.
    pub status: &'a DeliveryStatus,
    /// For `Delayed`: until when tries go on.
    pub retry_until: Option<Timestamp>,
}

/// What makes a notification unlike any other: part of its `Message-ID` and of its boundary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DsnId(Box<str>);

impl DsnId {
    /// Takes 8 to 40 letters and digits; `None` for anything else. Give the spool id of the notification: composing twice
    /// then gives the same octets.
    pub fn new(text: &str) -> Option<DsnId> {
        let fits = (8..=40).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_alphanumeric());
        fits.then(|| DsnId(text.into()))
    }

    /// Sixteen random hexadecimal digits.
    pub fn random(entropy: &dyn Entropy) -> DsnId {
        DsnId(format!("{:016x}", entropy.next_u64()).into())
    }
}

/// A notification, ready for the queue.
#[derive(Debug, Clone)]
pub struct Dsn {
    /// From `<>` to the sender of the original, with NOTIFY=NEVER.
    pub envelope: Envelope,
    /// Its octets.
    pub message: Message,
}

/// Why there is no notification; the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// More recipients than [`Limits::recipients`]: report them in several notifications.
    #[error("a notification reports at most {0} recipients: split the list")]
    TooManyRecipients(usize),
}

/// Whether a recipient that is still waiting is to be reported as delayed now: once, `after` its arrival.
pub fn delay_is_due(arrived: Timestamp, after: Duration, told: bool, now: Timestamp) -> bool {
    !told && now.since(arrived) >= after
}

impl Composer {
    /// Settings with the defaults: headers returned, default limits.
    pub fn new(host: Domain, from: Mailbox) -> Composer {
        Composer { host, from, returns: Ret::Headers, limits: Limits::default() }
    }

    /// Tells `sender`, the reverse-path of the original, what became of its recipients.
    ///
    /// Recipients whose NOTIFY does not ask for their action are left out (RFC 3461 4.1); `Ok(None)` if none is left.
    ///
    /// # Errors
    /// [`ComposeError::TooManyRecipients`].
    pub fn compose(
        &self,
        sender: &Mailbox,
        original: Original<'_>,
        fates: &[Fate<'_>],
        id: &DsnId,
        now: Timestamp,
    ) -> Result<Option<Dsn>, ComposeError> {
        let told: Vec<&Fate<'_>> =
            fates.iter().filter(|fate| fate.action.is_wanted(fate.recipient.notify)).collect();
        if told.is_empty() {
            return Ok(None);
        }
        if told.len() > self.limits.recipients {
            return Err(ComposeError::TooManyRecipients(self.limits.recipients));
        }
        let utf8 = original.options.smtp_utf8
            || !sender.is_ascii()
            || told.iter().any(|fate| !fate.recipient.mailbox.is_ascii());
        let returned = self.returned(&original, &told);
        let eight_bit = utf8 || !returned.octets.is_ascii();
        let boundary = boundary(id, &returned.octets);

        let mut out = Vec::with_capacity(2048 + returned.octets.len());
        self.write_head(&mut out, sender, original.message, &told, id, now, eight_bit, (&boundary, utf8));
        write_text(&mut out, &boundary, &self.host, &told, utf8, &self.limits);
        self.write_status(&mut out, &boundary, &original, &told, utf8);
        write_returned(&mut out, &boundary, &returned, utf8);
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());

        let mut envelope = Envelope::new(ReversePath::Null, []);
        envelope.recipients.push(Recipient {
            mailbox: sender.clone(),
            notify: Some(Notify::Never),
            original: None,
        });
        envelope.options.smtp_utf8 = utf8;
        // RFC 8689 5: a notification about such a message is protected like the message.
        envelope.options.require_tls = original.options.require_tls;
        envelope.options.body = if eight_bit { Body::EightBitMime } else { Body::SevenBit };
        Ok(Some(Dsn { envelope, message: Message::from_bytes(out) }))
    }

    /// The part of the original that goes back.
    fn returned(&self, original: &Original<'_>, told: &[&Fate<'_>]) -> Returned {
        let failed = told.iter().any(|fate| fate.action == Action::Failed);
        let asked = original.options.ret.unwrap_or(self.returns);
        // RFC 3461 4.3: RET only counts for failures. RFC 8689 5: a message that requires TLS never goes back in full.
        let full = asked == Ret::Full && failed && !original.options.require_tls;
        let full = if full { whole(original.message, self.limits.returned) } else { None };
        full.unwrap_or_else(|| cut_headers(original.message, self.limits.returned))
    }

    #[expect(clippy::too_many_arguments, reason = "the header section draws on everything once")]
    fn write_head(
        &self,
        out: &mut Vec<u8>,
        sender: &Mailbox,
        original: &Message,
        told: &[&Fate<'_>],
        id: &DsnId,
        now: Timestamp,
        eight_bit: bool,
        (boundary, utf8): (&str, bool),
    ) {
        field(out, "Date", &now.to_rfc5322());
        field(out, "From", &format!("Mail Delivery System <{}>", self.from));
        field(out, "To", &format!("<{sender}>"));
        field(out, "Message-ID", &format!("<{}.dsn@{}>", id.0, self.host));
        if let Some(about) = message_id(original) {
            field(out, "In-Reply-To", &clean(&about, utf8, 900));
            field(out, "References", &clean(&about, utf8, 900));
        }
        field(out, "Subject", subject(told));
        field(out, "Auto-Submitted", "auto-replied");
        field(out, "MIME-Version", "1.0");
        // RFC 6533 4: the report type stays `delivery-status` for the internationalised form, too.
        field(
            out,
            "Content-Type",
            &format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""),
        );
        if eight_bit {
            field(out, "Content-Transfer-Encoding", "8bit");
        }
        out.extend_from_slice(b"\r\nThis is a delivery status notification in MIME format.\r\n");
    }

    /// The second part: what machines read.
    fn write_status(
        &self,
        out: &mut Vec<u8>,
        boundary: &str,
        original: &Original<'_>,
        told: &[&Fate<'_>],
        utf8: bool,
    ) {
        let kind = if utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
        open_part(out, boundary, kind, "Delivery report", utf8);
        field(out, "Reporting-MTA", &format!("dns; {}", self.host));
        if let Some(id) = &original.options.envelope_id {
            field(out, "Original-Envelope-Id", &clean(id, utf8, 100));
        }
        field(out, "Arrival-Date", &original.arrived.to_rfc5322());
        for fate in told {
            out.extend_from_slice(b"\r\n");
            let recipient = fate.recipient;
            if let Some(orcpt) = &recipient.original {
                field(
                    out,
                    "Original-Recipient",
                    &clean(&format!("{}; {}", orcpt.kind, orcpt.address), utf8, 600),
                );
            }
            let kind = if recipient.mailbox.is_ascii() { "rfc822" } else { "utf-8" };
            field(out, "Final-Recipient", &format!("{kind}; {}", recipient.mailbox));
            field(out, "Action", &fate.action.to_string());
            field(out, "Status", &fate.status.status.to_string());
            if let Some(remote) = &fate.status.remote {
                field(out, "Remote-MTA", &format!("dns; {}", remote.host));
            }
            field(out, "Diagnostic-Code", &diagnostic(fate.status, utf8, &self.limits));
            field(out, "Last-Attempt-Date", &fate.status.at.to_rfc5322());
            if let (Action::Delayed, Some(until)) = (fate.action, fate.retry_until) {
                field(out, "Will-Retry-Until", &until.to_rfc5322());
            }
        }
    }
}

/// A boundary that no line of the returned octets begins with.
///
/// The id is chosen after the message came, but a deterministic one may be foreseen. So a foreseen boundary is made
/// longer than the longest look-alike: one pass, and the limit on returned octets bounds its length.
fn boundary(id: &DsnId, octets: &[u8]) -> String {
    let text = format!("=_pw_{}", id.0);
    let prefix = format!("--{text}");
    let run = octets
        .split(|octet| *octet == b'\n')
        .filter_map(|line| line.strip_prefix(prefix.as_bytes()))
        .map(|rest| rest.iter().take_while(|octet| **octet == b'x').count() + 1)
        .max()
        .unwrap_or(0);
    // RFC 2046 5.1.1 allows 70 characters. A run of 20 and more would need its author to know the id: other letters then.
    if run <= 20 { text + &"x".repeat(run) } else { format!("{text}.{}", octets.len()) }
}

fn subject(told: &[&Fate<'_>]) -> &'static str {
    if told.iter().any(|fate| fate.action == Action::Failed) {
        "Mail could not be delivered"
    } else if told.iter().any(|fate| fate.action == Action::Delayed) {
        "Mail is delayed; no action is needed"
    } else {
        "Mail was delivered"
    }
}

fn open_part(out: &mut Vec<u8>, boundary: &str, kind: &str, description: &str, eight_bit: bool) {
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
    field(out, "Content-Type", kind);
    field(out, "Content-Description", description);
    if eight_bit {
        field(out, "Content-Transfer-Encoding", "8bit");
    }
    out.extend_from_slice(b"\r\n");
}

/// The first part: what people read.
fn write_text(
    out: &mut Vec<u8>,
    boundary: &str,
    host: &Domain,
    told: &[&Fate<'_>],
    utf8: bool,
    limits: &Limits,
) {
    let kind = if utf8 { "text/plain; charset=utf-8" } else { "text/plain; charset=us-ascii" };
    open_part(out, boundary, kind, "Notification", utf8);
    out.extend_from_slice(format!("This is the mail server at {host}.\r\n").as_bytes());
    for (action, heading) in [
        (
            Action::Failed,
            "Your message could not be delivered to the following recipients. No more tries are made.",
        ),
        (
            Action::Delayed,
            "Your message has not yet been delivered to the following recipients. Tries go on.",
        ),
        (Action::Delivered, "Your message was delivered to the following recipients."),
        (
            Action::Relayed,
            "Your message was passed on to a server that sends no notifications of its own, for:",
        ),
        (Action::Expanded, "Your message was passed on to the members of the following addresses."),
    ] {
        let mut heading = Some(heading);
        for fate in told.iter().filter(|fate| fate.action == action) {
            if let Some(heading) = heading.take() {
                out.extend_from_slice(format!("\r\n{heading}\r\n").as_bytes());
            }
            out.extend_from_slice(format!("\r\n  <{}>\r\n", fate.recipient.mailbox).as_bytes());
            if let Some(remote) = &fate.status.remote {
                quoted(out, &format!("{} said, in phase {}:", remote.host, fate.status.phase));
            }
            // Line by line, so that no line of a remote's text begins at the margin and passes for ours.
            match &fate.status.diagnostic {
                Diagnostic::Smtp(reply) => {
                    let status = reply.status().map(|status| format!("{status} ")).unwrap_or_default();
                    for line in reply.lines().take(20) {
                        quoted(
                            out,
                            &clean(&format!("{} {status}{line}", reply.code()), utf8, limits.diagnostic),
                        );
                    }
                }
                Diagnostic::Local(cause) => quoted(out, &clean(&public(cause), utf8, limits.diagnostic)),
            }
            if let (Action::Delayed, Some(until)) = (action, fate.retry_until) {
                quoted(out, &format!("Tries go on until {}.", until.to_rfc5322()));
            }
        }
    }
}

fn diagnostic(status: &DeliveryStatus, utf8: bool, limits: &Limits) -> String {
    match &status.diagnostic {
        Diagnostic::Smtp(reply) => format!("smtp; {}", clean(&reply.to_string(), utf8, limits.diagnostic)),
        Diagnostic::Local(cause) => {
            format!("x-postwright; {}", clean(&public(cause), utf8, limits.diagnostic))
        }
    }
}

/// A cause as a stranger may read it: a fault in this system is nobody else's business.
fn public(cause: &Cause) -> String {
    match cause {
        Cause::Internal(_) => "internal error".into(),
        other => other.to_string(),
    }
}

/// The third part: the original, or its header section.
fn write_returned(out: &mut Vec<u8>, boundary: &str, returned: &Returned, utf8: bool) {
    let (kind, description) = match (returned.is_full, utf8) {
        (true, false) => ("message/rfc822", "Undelivered message"),
        (true, true) => ("message/global", "Undelivered message"),
        (false, false) => ("text/rfc822-headers", "Header of the message"),
        (false, true) => ("message/global-headers", "Header of the message"),
    };
    open_part(out, boundary, kind, description, utf8 || !returned.octets.is_ascii());
    out.extend_from_slice(&returned.octets);
}

//! Commands as the client writes them.
//!
//! Invariant: a command is one line of printable text and CRLF: every value comes from a type that cannot hold
//! line ends, or is encoded here (xtext, base64).
//!
//! Standards: RFC 5321 4.1.1; RFC 1870 (SIZE), 6152 and 3030 (BODY), 6531 3.4 (SMTPUTF8), 8689 (REQUIRETLS),
//! 3461 4 and 6533 3 (RET, ENVID, NOTIFY, ORCPT), 4954 5 (AUTH=), 2852 4 (BY), 6710 4 (MT-PRIORITY).
//!
//! Not here: reading commands (the server's side), when a command is due (job).

use std::fmt::Write;

use postwright_core::{Body, Envelope, Notify, Recipient, Ret, ReversePath, Timestamp};

use crate::ehlo::Capabilities;

/// Longest BY-time that RFC 2852 4 can write: nine digits.
const BY_MAX: u64 = 999_999_999;

/// What of the envelope's options goes into MAIL, after the client has looked at message and server.
#[derive(Debug, Clone, Copy)]
pub(super) struct MailParameters<'e> {
    pub(super) envelope: &'e Envelope,
    pub(super) offer: &'e Capabilities,
    /// Octets of the message.
    pub(super) size: usize,
    pub(super) body: Body,
    pub(super) smtp_utf8: bool,
    pub(super) authenticated: bool,
    pub(super) at: Timestamp,
}

/// `MAIL FROM:<...>` with the parameters that the server understands.
pub(super) fn mail(parameters: MailParameters<'_>) -> String {
    let MailParameters { envelope, offer, size, body, smtp_utf8, authenticated, at } = parameters;
    let options = &envelope.options;
    let mut line = format!("MAIL FROM:<{}>", path(&envelope.reverse_path));
    let mut add = |word: &str, value: &str| {
        line.push(' ');
        line.push_str(word);
        line.push_str(value);
    };
    if offer.size.is_some() {
        add("SIZE=", &size.to_string());
    }
    match body {
        Body::SevenBit => {}
        Body::EightBitMime => add("BODY=8BITMIME", ""),
        Body::BinaryMime => add("BODY=BINARYMIME", ""),
    }
    if smtp_utf8 {
        add("SMTPUTF8", "");
    }
    if options.require_tls {
        add("REQUIRETLS", "");
    }
    if offer.dsn {
        match options.ret {
            Some(Ret::Full) => add("RET=FULL", ""),
            Some(Ret::Headers) => add("RET=HDRS", ""),
            None => {}
        }
        if let Some(id) = &options.envelope_id {
            add("ENVID=", &xtext(id));
        }
    }
    if let Some(auth) = options.auth.as_ref().filter(|_| authenticated) {
        let value = if auth.is_null() { "<>".to_owned() } else { xtext(&path(auth)) };
        add("AUTH=", &value);
    }
    if let Some(by) = options.deliver_by.filter(|_| offer.deliver_by.is_some()) {
        let left = if by.deadline > at {
            by.deadline.since(at).as_secs().min(BY_MAX).to_string()
        } else {
            format!("-{}", at.since(by.deadline).as_secs().min(BY_MAX))
        };
        let mode = if by.notify { 'N' } else { 'R' };
        add("BY=", &format!("{left};{mode}{}", if by.trace { "T" } else { "" }));
    }
    if let Some(priority) = options.priority.filter(|_| offer.mt_priority) {
        add("MT-PRIORITY=", &priority.to_string());
    }
    line.push_str("\r\n");
    line
}

/// `RCPT TO:<...>` with NOTIFY and ORCPT if the server offers DSN.
pub(super) fn rcpt(recipient: &Recipient, offer: &Capabilities, smtp_utf8: bool) -> String {
    let mut line = format!("RCPT TO:<{}>", recipient.mailbox);
    if offer.dsn {
        if let Some(notify) = recipient.notify {
            line.push_str(" NOTIFY=");
            line.push_str(&notify_words(notify));
        }
        if let Some(original) = &recipient.original {
            let address = if original.kind.eq_ignore_ascii_case("utf-8") {
                utf8_xtext(&original.address, smtp_utf8)
            } else {
                xtext(&original.address)
            };
            line.push_str(" ORCPT=");
            line.push_str(&atom(&original.kind));
            line.push(';');
            line.push_str(&address);
        }
    }
    line.push_str("\r\n");
    line
}

fn path(path: &ReversePath) -> String {
    path.mailbox().map(ToString::to_string).unwrap_or_default()
}

fn notify_words(notify: Notify) -> String {
    match notify {
        Notify::Never => "NEVER".to_owned(),
        Notify::When { success, failure, delay } => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let words: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
            // All three off cannot be said; RFC 3461 4.1's word for it is NEVER.
            if words.is_empty() { "NEVER".to_owned() } else { words.join(",") }
        }
    }
}

/// An address type as an atom; other characters, which no parser of ours lets in, are left out.
fn atom(kind: &str) -> String {
    kind.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect()
}

/// RFC 3461 4: printable ASCII but `+` and `=`, the rest as `+` and two upper-case hexadecimal digits.
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'!'..=b'~' if octet != b'+' && octet != b'=' => out.push(char::from(octet)),
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(out, "+{octet:02X}");
            }
        }
    }
    out
}

/// RFC 6533 3: `utf-8-addr-xtext` (all ASCII) or, within an SMTPUTF8 transaction, `utf-8-addr-unitext`.
fn utf8_xtext(text: &str, smtp_utf8: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '!'..='~' if !"+=\\".contains(c) => out.push(c),
            _ if !c.is_ascii() && smtp_utf8 => out.push(c),
            _ => {
                let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use postwright_core::{Mailbox, OriginalRecipient};

    fn everything() -> Capabilities {
        Capabilities {
            size: Some(0),
            dsn: true,
            deliver_by: Some(0),
            mt_priority: true,
            ..Capabilities::default()
        }
    }

    fn mailbox(text: &str) -> Mailbox {
        text.parse().unwrap()
    }

    #[test]
    fn mail_carries_what_the_server_offers_and_nothing_else() {
        let mut envelope = Envelope::new(mailbox("\"a b\"@example.org"), []);
        envelope.options.ret = Some(Ret::Headers);
        envelope.options.envelope_id = Some("QQ+314=x".into());
        envelope.options.auth = Some(mailbox("e+mc2@example.com").into());
        envelope.options.priority = Some(-3);
        let at = Timestamp::from_secs(1000);
        envelope.options.deliver_by = Some(postwright_core::envelope::DeliverBy {
            deadline: Timestamp::from_secs(1120),
            notify: false,
            trace: true,
        });
        let offer = everything();
        let base = MailParameters {
            envelope: &envelope,
            offer: &offer,
            size: 12,
            body: Body::EightBitMime,
            smtp_utf8: false,
            authenticated: true,
            at,
        };
        // The AUTH= example is RFC 4954 5's address with its encoding; the rest follows the RFCs' grammars.
        assert_eq!(
            mail(base),
            "MAIL FROM:<\"a b\"@example.org> SIZE=12 BODY=8BITMIME RET=HDRS ENVID=QQ+2B314+3Dx \
             AUTH=e+2Bmc2@example.com BY=120;RT MT-PRIORITY=-3\r\n"
        );
        let nothing = Capabilities::default();
        let plain = MailParameters { offer: &nothing, body: Body::SevenBit, authenticated: false, ..base };
        assert_eq!(mail(plain), "MAIL FROM:<\"a b\"@example.org>\r\n");
        let null = Envelope::new(ReversePath::Null, []);
        assert_eq!(mail(MailParameters { envelope: &null, ..plain }), "MAIL FROM:<>\r\n");
    }

    #[test]
    fn rcpt_carries_notify_and_the_original_recipient() {
        let mut recipient = Recipient::from(mailbox("bob@example.org"));
        recipient.notify = Some(Notify::When { success: true, failure: true, delay: false });
        recipient.original =
            Some(OriginalRecipient { kind: "rfc822".into(), address: "Bob+x y@example.org".into() });
        assert_eq!(
            rcpt(&recipient, &everything(), false),
            "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bx+20y@example.org\r\n"
        );
        recipient.notify = Some(Notify::Never);
        recipient.original = Some(OriginalRecipient { kind: "utf-8".into(), address: "é\\@x".into() });
        assert_eq!(
            rcpt(&recipient, &everything(), false),
            "RCPT TO:<bob@example.org> NOTIFY=NEVER ORCPT=utf-8;\\x{E9}\\x{5C}@x\r\n"
        );
        assert!(rcpt(&recipient, &everything(), true).ends_with("utf-8;é\\x{5C}@x\r\n"));
        assert_eq!(rcpt(&recipient, &Capabilities::default(), false), "RCPT TO:<bob@example.org>\r\n");
    }
}

//! Complaints: abuse and failure reports.
//!
//! Invariant: a report without its machine-readable part is only taken for one when its sender's dialect is known.
//!
//! Standards: RFC 5965, RFC 6591, RFC 6650; dialects of Outlook.com (JMRP: a forwarded message with `X-HmXmrOriginalRecipient`).
//!
//! Not here: DMARC failure reports as such (spf-dmarc), what to do about a complaint (`suppress`).

use crate::Limits;
use crate::dsn::clean_address;
use crate::mail::{Fields, Mail};

/// What a complaint says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feedback {
    /// `abuse`, `fraud`, `virus`, `not-spam`, `auth-failure`, `opt-out`, `other` or another word, in lower case.
    pub feedback_type: Box<str>,
    /// Who complained: `Original-Rcpt-To`, or the recipient of the enclosed message.
    pub recipients: Vec<Box<str>>,
    /// The software that reports.
    pub user_agent: Option<Box<str>>,
    /// The reverse-path of the message, without brackets; empty for the null one.
    pub original_mail_from: Option<Box<str>>,
    /// Where the message came from.
    pub source_ip: Option<std::net::IpAddr>,
    /// When it arrived, as the reporter writes it.
    pub arrival_date: Option<Box<str>>,
    /// The domains that are held responsible.
    pub reported_domains: Vec<Box<str>>,
    /// How many incidents this stands for; at least 1.
    pub incidents: u64,
    /// For `auth-failure`: what failed (RFC 6591 3.2.1).
    pub auth_failure: Option<Box<str>>,
}

/// Finds a complaint in a mail; `returned` is the header section of the enclosed message.
pub(crate) fn find(mail: &Mail<'_>, returned: &Fields, limits: &Limits) -> Option<Feedback> {
    if let Some(part) = mail.part(&["message/feedback-report"]) {
        let text = part.text(limits);
        return Some(parse(&text, returned, limits));
    }
    // Outlook.com's junk mail reports: no feedback part, the recipient in a field of the enclosed message.
    let recipient = returned.get("x-hmxmroriginalrecipient").map(clean_address)?;
    Some(Feedback {
        feedback_type: "abuse".into(),
        recipients: vec![recipient.into()],
        incidents: 1,
        ..Feedback::default()
    })
}

/// Reads a `message/feedback-report` body.
fn parse(text: &str, returned: &Fields, limits: &Limits) -> Feedback {
    let (fields, _) = Fields::read(text.trim_start().as_bytes(), limits);
    let word = |name: &str| fields.get(name).map(str::trim).filter(|value| !value.is_empty());
    let mut recipients: Vec<Box<str>> = Vec::new();
    let named = fields
        .all("original-rcpt-to")
        .chain(fields.all("removal-recipient"))
        .chain(fields.all("redacted-address"));
    for value in named.take(limits.reports) {
        let address: Box<str> = clean_address(value.trim_start_matches("rfc822;")).into();
        if !address.is_empty() && !recipients.contains(&address) {
            recipients.push(address);
        }
    }
    if recipients.is_empty() {
        let to = ["x-hmxmroriginalrecipient", "x-original-to", "delivered-to", "to"]
            .into_iter()
            .find_map(|name| returned.get(name));
        recipients.extend(to.map(clean_address).filter(|address| !address.is_empty()).map(Into::into));
    }
    Feedback {
        feedback_type: word("feedback-type").unwrap_or("other").to_ascii_lowercase().into(),
        recipients,
        user_agent: word("user-agent").map(Into::into),
        original_mail_from: word("original-mail-from").map(|value| clean_address(value).into()),
        source_ip: word("source-ip").and_then(|value| value.trim_matches(['[', ']']).parse().ok()),
        arrival_date: word("arrival-date").or(word("received-date")).map(Into::into),
        reported_domains: fields.all("reported-domain").take(100).map(Into::into).collect(),
        incidents: word("incidents").and_then(|value| value.parse().ok()).unwrap_or(1).max(1),
        auth_failure: word("auth-failure").map(|value| value.to_ascii_lowercase().into()),
    }
}

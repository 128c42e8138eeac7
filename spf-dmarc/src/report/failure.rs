//! The failure report: reading it.
//!
//! Invariant: what comes out is text that a stranger wrote; addresses and times are typed where they parse.
//!
//! Standards: RFC 9991, RFC 6591 (auth-failure), RFC 5965 (the form it is in).
//!
//! Not here: other feedback types (abuse, ...), which are the bounce crate's.

use std::net::IpAddr;

use super::mime::Part;
use crate::header::{Field, fields};

/// A failure report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailureReport {
    /// `Auth-Failure`: `dmarc`, `dkim`, `spf`, `signature`, ...
    pub auth_failure: Option<String>,
    /// Who made the report.
    pub user_agent: Option<String>,
    /// The domain it is about.
    pub reported_domain: Option<String>,
    /// The client.
    pub source_ip: Option<IpAddr>,
    /// The reverse-path.
    pub original_mail_from: Option<String>,
    /// The recipients.
    pub original_rcpt_to: Vec<String>,
    /// When the mail came.
    pub arrival_date: Option<String>,
    /// `delivered`, `spam`, `policy`, `reject`, ...
    pub delivery_result: Option<String>,
    /// `Authentication-Results` of the mail.
    pub authentication_results: Option<String>,
    /// Which identities were aligned.
    pub identity_alignment: Option<String>,
    /// `d=` of the signature.
    pub dkim_domain: Option<String>,
    /// `s=` of the signature.
    pub dkim_selector: Option<String>,
    /// The SPF record.
    pub spf_dns: Option<String>,
    /// How many mails the report stands for.
    pub incidents: Option<u64>,
    /// All fields in their order, by their names in lower case.
    pub fields: Vec<(String, String)>,
    /// The mail's header, as far as it was sent along.
    pub original_header: Option<String>,
}

/// Most fields that are kept.
const FIELDS_MAX: usize = 200;
/// Most octets of the original's header that are kept.
const HEADER_MAX: usize = 64 * 1024;

impl FailureReport {
    /// Finds the report in the parts of a mail: a `message/feedback-report` of type `auth-failure`.
    pub(super) fn from_parts(parts: &[Part]) -> Option<FailureReport> {
        let Some(report) = parts.iter().find(|part| part.content_type == "message/feedback-report") else {
            return parts.iter().find_map(in_words);
        };
        let all: Vec<Field<'_>> = fields(&report.body).take(FIELDS_MAX).collect();
        let text = |name: &str| {
            let value = all.iter().find(|field| field.is(name)).map(|field| field.text().trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        if !text("Feedback-Type").is_some_and(|kind| kind.eq_ignore_ascii_case("auth-failure")) {
            return None;
        }
        let each =
            |name: &str| all.iter().filter(|f| f.is(name)).map(|f| f.text().trim().to_owned()).collect();
        Some(FailureReport {
            auth_failure: text("Auth-Failure"),
            user_agent: text("User-Agent"),
            reported_domain: text("Reported-Domain"),
            source_ip: text("Source-IP").and_then(|ip| ip.parse().ok()),
            original_mail_from: text("Original-Mail-From"),
            original_rcpt_to: each("Original-Rcpt-To"),
            arrival_date: text("Arrival-Date"),
            delivery_result: text("Delivery-Result"),
            authentication_results: text("Authentication-Results"),
            identity_alignment: text("Identity-Alignment"),
            dkim_domain: text("DKIM-Domain"),
            dkim_selector: text("DKIM-Selector"),
            spf_dns: text("SPF-DNS"),
            incidents: text("Incidents").and_then(|count| count.parse().ok()),
            fields: all
                .iter()
                .map(|f| (String::from_utf8_lossy(f.name).to_ascii_lowercase(), f.text().trim().to_owned()))
                .collect(),
            original_header: original(parts),
        })
    }
}

/// Exim's failure reports say in plain text what the fields of a feedback report should.
fn in_words(part: &Part) -> Option<FailureReport> {
    if part.content_type != "text/plain" {
        return None;
    }
    let text = String::from_utf8_lossy(&part.body);
    let value = |name: &str| {
        let mut lines = text.lines().take(FIELDS_MAX);
        let value = lines.find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    let domain = value("Sender Domain")?;
    let ip = value("Sender IP Address")?;
    Some(FailureReport {
        auth_failure: Some("dmarc".to_owned()),
        reported_domain: Some(domain),
        source_ip: ip.parse().ok(),
        arrival_date: value("Received date"),
        authentication_results: value("DMARC Results"),
        ..FailureReport::default()
    })
}

fn original(parts: &[Part]) -> Option<String> {
    let kinds = ["message/rfc822", "text/rfc822-headers", "message/rfc822-headers"];
    let part = parts.iter().find(|part| kinds.contains(&part.content_type.as_str()))?;
    let end = fields(&part.body).last().map_or(0, |field| field.range.end).min(HEADER_MAX);
    Some(String::from_utf8_lossy(part.body.get(..end)?).into_owned())
}

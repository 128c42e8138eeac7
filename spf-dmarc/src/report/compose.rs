//! Writing an aggregate report: the XML, its compression, and the mail around it.
//!
//! Invariant: what is written is well-formed whatever strangers put into domains and identifiers, and reads back to
//! the same report.
//!
//! Standards: RFC 9990 sections 3.1 (form), 3.5 (the file's name, the mail), appendix A (the order of elements).

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use postwright_core::{HeaderField, Mailbox, Message, Name, Timestamp};
use quick_xml::escape::escape;

use super::ReportLimits;
use super::aggregate::{AggregateReport, Row};

/// Who sends reports.
#[derive(Debug, Clone)]
pub struct Submitter {
    /// The domain that reports; the first part of the file's name.
    pub domain: Name,
    /// The sender of the mail.
    pub from: Mailbox,
}

/// Why a report cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComposeError {
    /// Larger than the limit: send it in several, of fewer rows each.
    #[error("the compressed report has {size} octets, more than {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// An element with text; nothing if there is none.
fn element(out: &mut String, indent: usize, name: &str, text: Option<&str>) {
    let Some(text) = text else { return };
    // What XML 1.0 cannot hold is left out.
    let clean: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    let _ = writeln!(out, "{:indent$}<{name}>{}</{name}>", "", escape(clean.as_str()));
}

/// The report as XML of RFC 9990.
pub fn xml(report: &AggregateReport) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">\n",
    );
    let seconds = |at: Timestamp| at.secs().to_string();
    element(&mut out, 2, "version", Some("1.0"));
    out.push_str("  <report_metadata>\n");
    element(&mut out, 4, "org_name", Some(&report.org_name));
    element(&mut out, 4, "email", Some(&report.email));
    element(&mut out, 4, "extra_contact_info", report.extra_contact_info.as_deref());
    element(&mut out, 4, "report_id", Some(&report.report_id));
    out.push_str("    <date_range>\n");
    element(&mut out, 6, "begin", Some(&seconds(report.begin)));
    element(&mut out, 6, "end", Some(&seconds(report.end)));
    out.push_str("    </date_range>\n");
    report.errors.iter().for_each(|error| element(&mut out, 4, "error", Some(error)));
    element(&mut out, 4, "generator", report.generator.as_deref());
    out.push_str("  </report_metadata>\n  <policy_published>\n");
    let policy = &report.policy;
    element(&mut out, 4, "domain", Some(&policy.domain));
    for (name, text) in [
        ("p", &policy.p),
        ("sp", &policy.sp),
        ("np", &policy.np),
        ("adkim", &policy.adkim),
        ("aspf", &policy.aspf),
        ("discovery_method", &policy.discovery_method),
        ("fo", &policy.fo),
        ("testing", &policy.testing),
    ] {
        element(&mut out, 4, name, text.as_deref());
    }
    out.push_str("  </policy_published>\n");
    report.rows.iter().for_each(|row| record(&mut out, row));
    out.push_str("</feedback>\n");
    out
}

fn record(out: &mut String, row: &Row) {
    let verdict = |pass: bool| Some(if pass { "pass" } else { "fail" });
    out.push_str("  <record>\n    <row>\n");
    element(out, 6, "source_ip", Some(&row.source_ip.to_string()));
    element(out, 6, "count", Some(&row.count.to_string()));
    out.push_str("      <policy_evaluated>\n");
    element(out, 8, "disposition", Some(row.disposition.as_str()));
    element(out, 8, "dkim", verdict(row.dkim_aligned));
    element(out, 8, "spf", verdict(row.spf_aligned));
    for reason in &row.reasons {
        out.push_str("        <reason>\n");
        element(out, 10, "type", Some(&reason.kind));
        element(out, 10, "comment", reason.comment.as_deref());
        out.push_str("        </reason>\n");
    }
    out.push_str("      </policy_evaluated>\n    </row>\n    <identifiers>\n");
    element(out, 6, "header_from", Some(&row.header_from));
    element(out, 6, "envelope_from", row.envelope_from.as_deref());
    element(out, 6, "envelope_to", row.envelope_to.as_deref());
    out.push_str("    </identifiers>\n    <auth_results>\n");
    for dkim in &row.dkim {
        out.push_str("      <dkim>\n");
        element(out, 8, "domain", Some(&dkim.domain));
        element(out, 8, "selector", dkim.selector.as_deref());
        element(out, 8, "result", Some(&dkim.result));
        element(out, 8, "human_result", dkim.human_result.as_deref());
        out.push_str("      </dkim>\n");
    }
    for spf in &row.spf {
        out.push_str("      <spf>\n");
        element(out, 8, "domain", Some(&spf.domain));
        element(out, 8, "scope", spf.scope.as_deref());
        element(out, 8, "result", Some(&spf.result));
        element(out, 8, "human_result", spf.human_result.as_deref());
        out.push_str("      </spf>\n");
    }
    out.push_str("    </auth_results>\n  </record>\n");
}

/// The XML, compressed, as long as it stays within the limit.
pub fn gzip(xml: &str, limits: &ReportLimits) -> Result<Vec<u8>, ComposeError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(xml.as_bytes());
    let packed = encoder.finish().unwrap_or_default();
    let (size, limit) = (packed.len(), limits.composed);
    if size > limit { Err(ComposeError::TooLarge { size, limit }) } else { Ok(packed) }
}

/// `receiver!policy-domain!begin!end!id.xml.gz` (RFC 9990 3.5.1).
pub fn file_name(report: &AggregateReport, submitter: &Submitter) -> String {
    let id: String = report.report_id.chars().filter(|c| c.is_ascii_alphanumeric()).take(64).collect();
    let (begin, end) = (report.begin.secs(), report.end.secs());
    format!("{}!{}!{begin}!{end}!{id}.xml.gz", submitter.domain, policy_domain(report))
}

fn policy_domain(report: &AggregateReport) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "-._".contains(*c);
    report.policy.domain.chars().filter(fits).collect()
}

/// The mail to the domain owner (RFC 9990 3.5.2). `unique` makes its boundary and its Message-ID.
pub fn mail(
    report: &AggregateReport,
    submitter: &Submitter,
    to: &[Mailbox],
    unique: u64,
    limits: &ReportLimits,
    now: Timestamp,
) -> Result<Message, ComposeError> {
    let packed = gzip(&xml(report), limits)?;
    let name = file_name(report, submitter);
    let domain = policy_domain(report);
    let id: String = report.report_id.chars().filter(char::is_ascii_graphic).take(128).collect();
    let boundary = format!("report-{unique:016x}");
    let to: Vec<String> = to.iter().map(Mailbox::to_string).collect();
    let mut body = format!(
        "--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         This is a DMARC aggregate report for {domain}\r\nfrom {} to {}.\r\n\r\n\
         --{boundary}\r\nContent-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment;\r\n filename=\"{name}\"\r\n\r\n",
        report.begin.to_rfc5322(),
        report.end.to_rfc5322(),
    );
    let encoded = STANDARD.encode(packed);
    for line in encoded.as_bytes().chunks(76) {
        body.push_str(&String::from_utf8_lossy(line));
        body.push_str("\r\n");
    }
    let _ = write!(body, "--{boundary}--\r\n");
    let fields = [
        ("Content-Type", format!("multipart/mixed; boundary=\"{boundary}\"")),
        ("MIME-Version", "1.0".to_owned()),
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("Message-ID", format!("<{unique:016x}.{}@{}>", now.millis(), submitter.domain)),
        (
            "Subject",
            format!("Report Domain: {domain}\r\n Submitter: {}\r\n Report-ID: <{id}>", submitter.domain),
        ),
        ("Date", now.to_rfc5322()),
        ("To", to.join(",\r\n ")),
        ("From", submitter.from.to_string()),
    ];
    let message = Message::from_bytes(format!("\r\n{body}").into_bytes());
    // Every value is built of types and filters that hold no line breaks but these folds.
    Ok(fields.iter().fold(message, |message, (name, value)| match HeaderField::new(name, value) {
        Ok(field) => message.prepend(field),
        Err(_) => message,
    }))
}

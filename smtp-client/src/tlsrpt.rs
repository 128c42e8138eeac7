//! SMTP TLS reports: counting sessions, composing a day's report, reading those of others.
//!
//! Invariant: what is counted is bounded; sessions beyond [`Limits`] are counted in the totals and not in detail. A
//! report can be written and read back without loss of what RFC 8460 defines.
//!
//! Standards: RFC 8460 (3 the TXT record, 4 the report, 4.3 result types, 5.1 file name, 5.3 mail).
//!
//! Parts: what a session counts as ([`Seen`], seen.rs), the counting ([`Tally`], tally.rs), the days ([`Book`],
//! book.rs).
//!
//! Not here: signing and sending the mail (mta), fetching and DKIM checks of received mails.

mod book;
mod seen;
mod tally;

use std::io::{Read, Write};
use std::net::IpAddr;

use postwright_core::{Domain, Message, Record, Timestamp};
use postwright_smtp_proto::client::CloseReason;
use serde::{Deserialize, Serialize};

use crate::connection::ConnectError;
use crate::policy::{Decision, Obstacle, Source};
use crate::tls::TlsFault;

pub use book::{Book, Unsent};
pub use seen::Seen;
pub use tally::{Tally, TallyError};

/// How much is counted and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most policy domains a day: 100,000.
    pub domains: usize,
    /// Most different failures of one policy a day: 1,000.
    pub failures: usize,
    /// Most different policies of one domain a day: 100.
    pub policies: usize,
    /// Longest report that is read, in octets after decompression: 10 MiB.
    pub report: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { domains: 100_000, failures: 1000, policies: 100, report: 10 << 20 }
    }
}

/// Why a session failed (RFC 8460 4.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResultType {
    /// The server does not offer STARTTLS, or refuses it.
    StarttlsNotSupported,
    /// The certificate is for another host.
    CertificateHostMismatch,
    /// The certificate is out of date.
    CertificateExpired,
    /// Nobody who is trusted vouches for the certificate.
    CertificateNotTrusted,
    /// Another failure of the handshake.
    ValidationFailure,
    /// The TLSA records cannot be used.
    TlsaInvalid,
    /// DNSSEC validation failed.
    DnssecInvalid,
    /// DANE is required here and there are no records.
    DaneRequired,
    /// The MTA-STS policy cannot be fetched.
    StsPolicyFetchError,
    /// The MTA-STS policy cannot be read.
    StsPolicyInvalid,
    /// The certificate of the MTA-STS web server is bad.
    StsWebpkiInvalid,
    /// Any other word.
    #[serde(untagged)]
    Other(Box<str>),
}

impl ResultType {
    /// What a failed connection counts as; `None` if it failed for a reason that is not about TLS.
    pub fn of(error: &ConnectError) -> Option<ResultType> {
        match error.close_reason()? {
            CloseReason::TlsUnavailable(_) => Some(ResultType::StarttlsNotSupported),
            _ => error.tls.map(ResultType::of_fault),
        }
    }

    /// What a bad certificate or handshake counts as.
    pub fn of_fault(fault: TlsFault) -> ResultType {
        match fault {
            TlsFault::Expired => ResultType::CertificateExpired,
            TlsFault::WrongName => ResultType::CertificateHostMismatch,
            TlsFault::NotTrusted => ResultType::CertificateNotTrusted,
            TlsFault::Dane | TlsFault::Certificate | TlsFault::Handshake => ResultType::ValidationFailure,
        }
    }

    /// What a host that must not be used counts as, if it is about TLS.
    pub fn of_obstacle(obstacle: &Obstacle) -> Option<ResultType> {
        match obstacle {
            // RFC 8460 4.3.2.1: no valid records were returned, whatever the reason.
            Obstacle::Dane(_) => Some(ResultType::DnssecInvalid),
            Obstacle::NotInPolicy => Some(ResultType::ValidationFailure),
            _ => None,
        }
    }
}

/// Which kind of policy was applied (RFC 8460 4.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyType {
    /// DANE.
    Tlsa,
    /// MTA-STS.
    Sts,
    /// None was found.
    NoPolicyFound,
}

impl PolicyType {
    /// The kind of policy behind a decision.
    pub fn of(decision: &Decision) -> PolicyType {
        match decision.source {
            Source::Dane | Source::DaneUnusable => PolicyType::Tlsa,
            Source::Sts | Source::StsTesting => PolicyType::Sts,
            _ => PolicyType::NoPolicyFound,
        }
    }
}

/// A report (RFC 8460 4.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Who reports.
    pub organization_name: String,
    /// About which time.
    pub date_range: DateRange,
    /// Whom to ask.
    #[serde(default)]
    pub contact_info: String,
    /// The report's own name.
    pub report_id: String,
    /// What was seen.
    pub policies: Vec<PolicyReport>,
}

/// From when to when, in the form of RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DateRange {
    /// The first moment.
    pub start_datetime: String,
    /// The last moment.
    pub end_datetime: String,
}

/// What was seen under one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyReport {
    /// The policy.
    pub policy: PolicyInfo,
    /// The counts.
    pub summary: Summary,
    /// The failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failure_details: Vec<Failure>,
}

/// A policy as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyInfo {
    /// Its kind.
    pub policy_type: PolicyType,
    /// Its text: the lines of an MTA-STS policy, or the TLSA records.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
    pub policy_string: Vec<String>,
    /// Whose it is.
    pub policy_domain: String,
    /// The hosts that an MTA-STS policy names.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
    pub mx_host: Vec<String>,
}

/// Sessions counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Those that went well.
    pub total_successful_session_count: u64,
    /// Those that failed.
    pub total_failure_session_count: u64,
}

/// One kind of failure and how often it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failure {
    /// Why.
    pub result_type: ResultType,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_mta_ip: Option<IpAddr>,
    /// Which host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_mx_hostname: Option<String>,
    /// What the host called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_mx_helo: Option<String>,
    /// At which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_ip: Option<IpAddr>,
    /// How often.
    pub failed_session_count: u64,
    /// More about it, or where there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_information: Option<String>,
    /// The failure in the sender's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason_code: Option<String>,
}

/// Reporters write a single string where RFC 8460 has a list, and the reverse.
mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }

    pub(super) fn serialize<S: Serializer>(list: &[String], to: S) -> Result<S::Ok, S::Error> {
        list.serialize(to)
    }
}

/// Why octets are no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Longer than [`Limits::report`] once decompressed.
    #[error("the report is longer than {0} octets")]
    TooLong(u64),
    /// Broken compression.
    #[error("the report cannot be decompressed: {0}")]
    Gzip(std::io::Error),
    /// No such JSON.
    #[error("the report is not that of RFC 8460: {0}")]
    Json(Box<str>),
}

impl Report {
    /// Reads a report, gzip or plain JSON.
    ///
    /// # Errors
    /// It is no report, or too long; the reporter's fault.
    pub fn parse(octets: &[u8], limits: &Limits) -> Result<Report, ReportError> {
        let mut plain = Vec::new();
        let json = if octets.starts_with(&[0x1f, 0x8b]) {
            let mut unpacked = flate2::read::GzDecoder::new(octets).take(limits.report.saturating_add(1));
            unpacked.read_to_end(&mut plain).map_err(ReportError::Gzip)?;
            &plain
        } else {
            octets
        };
        if u64::try_from(json.len()).unwrap_or(u64::MAX) > limits.report {
            return Err(ReportError::TooLong(limits.report));
        }
        serde_json::from_slice(json).map_err(|error| ReportError::Json(error.to_string().into()))
    }

    /// The report as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Nothing in the type can fail to be written: all keys are strings, all numbers are whole.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The report as gzip of JSON: what is sent as `application/tlsrpt+gzip`.
    pub fn to_gzip(&self) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        // Writing to memory cannot fail.
        let _ = encoder.write_all(&self.to_json());
        encoder.finish().unwrap_or_default()
    }

    /// The mail that carries the report to `to` (RFC 8460 5.3). It must be signed with DKIM before it is sent, and
    /// asks to be delivered whatever is wrong with TLS (RFC 8460 3).
    pub fn to_mail(&self, about: &Domain, submitter: &Domain, from: &str, to: &str, day: Day) -> Message {
        use base64::Engine;
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
        let (id, from, to) = (clean(&self.report_id), clean(from), clean(to));
        let (start, end) = (day.start.secs(), day.end.secs());
        let name = format!("{submitter}!{about}!{start}!{end}!1.json.gz");
        let data = base64::engine::general_purpose::STANDARD.encode(self.to_gzip());
        let lines: Vec<&str> =
            data.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let (date, body) = (day.end.to_rfc5322(), lines.join("\r\n"));
        // The boundary cannot be part of base64, and the other part is ours.
        let mail = format!(
            "From: {from}\r\nTo: {to}\r\nDate: {date}\r\nMessage-ID: <{start}.{about}.tlsrpt@{submitter}>\r\n\
             Subject: Report Domain: {about}\r\n Submitter: {submitter}\r\n Report-ID: <{id}>\r\n\
             TLS-Required: No\r\nTLS-Report-Domain: {about}\r\nTLS-Report-Submitter: {submitter}\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"=_tlsrpt\"\r\n\r\n\
             --=_tlsrpt\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
             This is an aggregate TLS report from {submitter}.\r\n\
             --=_tlsrpt\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{name}\"\r\n\r\n{body}\r\n--=_tlsrpt--\r\n"
        );
        Message::from_bytes(mail.into_bytes())
    }
}

/// Where reports go: the `rua` of the TXT record at `_smtp._tls` (RFC 8460 3); none unless exactly one record is there.
pub fn destinations(records: &[Record]) -> Vec<Box<str>> {
    let texts =
        records.iter().filter_map(Record::text).filter_map(|text| String::from_utf8(text.into_owned()).ok());
    let ours = |text: &String| text.split(';').next().is_some_and(|first| first.trim_end() == "v=TLSRPTv1");
    let mut texts = texts.filter(ours);
    let (Some(text), None) = (texts.next(), texts.next()) else { return Vec::new() };
    let rua = text.split(';').skip(1).find_map(|field| field.trim().strip_prefix("rua="));
    let is_known = |uri: &&str| uri.starts_with("mailto:") || uri.starts_with("https://");
    rua.unwrap_or_default().split(',').map(str::trim).filter(is_known).map(Into::into).collect()
}

/// The time that a report is about: the first and the last moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// The first moment.
    pub start: Timestamp,
    /// The last moment.
    pub end: Timestamp,
}

/// RFC 3339 without parts of a second, as in RFC 8460's examples.
fn date(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

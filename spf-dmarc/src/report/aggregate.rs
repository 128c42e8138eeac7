//! The aggregate report: its types, and reading it.
//!
//! Invariant: a report that comes out has an id, a period and a policy domain, and every row an
//! address and a count; a row without them is left out and counted in [`AggregateReport::skipped`].
//!
//! Standards: RFC 9990 section 3 and appendix A; RFC 7489 appendix C and the drafts before it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use postwright_core::Timestamp;

use super::xml::{self, Found};
use super::{ReportError, ReportLimits};

/// What a receiver did with mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Disposition {
    /// Nothing was asked for, or done.
    #[default]
    None,
    /// DMARC passed (RFC 9990 only).
    Pass,
    /// Treated as suspicious.
    Quarantine,
    /// Refused.
    Reject,
}

impl Disposition {
    /// As in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::None => "none",
            Disposition::Pass => "pass",
            Disposition::Quarantine => "quarantine",
            Disposition::Reject => "reject",
        }
    }

    fn read(text: &str) -> Disposition {
        let all = [Disposition::Pass, Disposition::Quarantine, Disposition::Reject];
        all.into_iter().find(|d| text.eq_ignore_ascii_case(d.as_str())).unwrap_or_default()
    }
}

impl std::fmt::Display for Disposition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The policy that the reporter found, tags as published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PublishedPolicy {
    /// Where the record was found.
    pub domain: String,
    /// `p`.
    pub p: Option<String>,
    /// `sp`.
    pub sp: Option<String>,
    /// `np`.
    pub np: Option<String>,
    /// `adkim`.
    pub adkim: Option<String>,
    /// `aspf`.
    pub aspf: Option<String>,
    /// `fo`.
    pub fo: Option<String>,
    /// `pct` (RFC 7489).
    pub pct: Option<String>,
    /// `t` (RFC 9990).
    pub testing: Option<String>,
    /// `psl` or `treewalk` (RFC 9990).
    pub discovery_method: Option<String>,
}

/// Why a receiver did not follow the policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PolicyReason {
    /// `local_policy`, `mailing_list`, `policy_test_mode`, ...
    pub kind: String,
    /// In words.
    pub comment: Option<String>,
}

/// A DKIM signature that the mail had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DkimAuth {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: Option<String>,
    /// `pass`, `fail`, ...
    pub result: String,
    /// In words.
    pub human_result: Option<String>,
}

/// The SPF check of the mail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpfAuth {
    /// The domain that was checked.
    pub domain: String,
    /// `mfrom` or `helo`.
    pub scope: Option<String>,
    /// `pass`, `fail`, ...
    pub result: String,
    /// In words.
    pub human_result: Option<String>,
}

/// Mail of one source with one outcome.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// The client.
    pub source_ip: IpAddr,
    /// How many messages.
    pub count: u64,
    /// What was done.
    pub disposition: Disposition,
    /// Whether an aligned DKIM signature passed.
    pub dkim_aligned: bool,
    /// Whether SPF passed, aligned.
    pub spf_aligned: bool,
    /// Why the policy was not followed.
    pub reasons: Vec<PolicyReason>,
    /// The author domain.
    pub header_from: String,
    /// The domain of the reverse-path.
    pub envelope_from: Option<String>,
    /// The domain of the recipients.
    pub envelope_to: Option<String>,
    /// The DKIM signatures.
    pub dkim: Vec<DkimAuth>,
    /// The SPF checks.
    pub spf: Vec<SpfAuth>,
}

/// An aggregate report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateReport {
    /// The XML namespace; `urn:ietf:params:xml:ns:dmarc-2.0` in RFC 9990.
    pub namespace: Option<String>,
    /// The version of the form.
    pub version: Option<String>,
    /// Who reports.
    pub org_name: String,
    /// Where to ask.
    pub email: String,
    /// More of it.
    pub extra_contact_info: Option<String>,
    /// The report's id.
    pub report_id: String,
    /// The period's first second.
    pub begin: Timestamp,
    /// The period's last second.
    pub end: Timestamp,
    /// What the reporter could not do.
    pub errors: Vec<String>,
    /// The reporter's program.
    pub generator: Option<String>,
    /// The policy.
    pub policy: PublishedPolicy,
    /// The rows.
    pub rows: Vec<Row>,
    /// Rows that could not be read.
    pub skipped: usize,
}

/// All mail of one source in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceSummary {
    /// Messages.
    pub messages: u64,
    /// Of them with an aligned pass.
    pub passed: u64,
    /// Of them with aligned DKIM.
    pub dkim_aligned: u64,
    /// Of them with aligned SPF.
    pub spf_aligned: u64,
    /// Quarantined.
    pub quarantined: u64,
    /// Refused.
    pub rejected: u64,
}

impl AggregateReport {
    /// Reads a report's XML; octets that are not UTF-8 are replaced.
    pub fn parse(xml: &[u8], limits: &ReportLimits) -> Result<AggregateReport, ReportError> {
        let document = decode(xml);
        let mut reading = Reading::default();
        xml::walk(&document, limits.text, |found| match found {
            Found::Start(path) => reading.start(path, limits.rows),
            Found::End(path, text) => reading.end(path, text),
            Found::Namespace(uri) => {
                reading.namespace.get_or_insert(uri);
            }
        });
        reading.finish(limits)
    }

    /// The mail of each source, by address.
    pub fn by_source(&self) -> BTreeMap<IpAddr, SourceSummary> {
        let mut sources: BTreeMap<IpAddr, SourceSummary> = BTreeMap::new();
        for row in &self.rows {
            let source = sources.entry(row.source_ip).or_default();
            let add = |to: &mut u64, when: bool| {
                if when {
                    *to = to.saturating_add(row.count);
                }
            };
            add(&mut source.messages, true);
            add(&mut source.passed, row.dkim_aligned || row.spf_aligned);
            add(&mut source.dkim_aligned, row.dkim_aligned);
            add(&mut source.spf_aligned, row.spf_aligned);
            add(&mut source.quarantined, row.disposition == Disposition::Quarantine);
            add(&mut source.rejected, row.disposition == Disposition::Reject);
        }
        sources
    }
}

/// UTF-8 with replacements, or UTF-16 by its mark.
fn decode(xml: &[u8]) -> String {
    let wide = |read: fn([u8; 2]) -> u16| {
        let units = xml.chunks_exact(2).skip(1).map(|pair| read([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match xml {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8_lossy(xml.strip_prefix(b"\xef\xbb\xbf").unwrap_or(xml)).into_owned(),
    }
}

/// A row while it is read.
#[derive(Default)]
struct OpenRow {
    source_ip: Option<IpAddr>,
    count: Option<u64>,
    disposition: Disposition,
    dkim_aligned: bool,
    spf_aligned: bool,
    reasons: Vec<PolicyReason>,
    header_from: String,
    envelope_from: Option<String>,
    envelope_to: Option<String>,
    dkim: Vec<DkimAuth>,
    spf: Vec<SpfAuth>,
}

#[derive(Default)]
struct Reading {
    feedback: bool,
    namespace: Option<String>,
    version: Option<String>,
    org_name: Option<String>,
    email: Option<String>,
    extra_contact_info: Option<String>,
    report_id: Option<String>,
    begin: Option<Timestamp>,
    end: Option<Timestamp>,
    errors: Vec<String>,
    generator: Option<String>,
    policy: PublishedPolicy,
    row: OpenRow,
    rows: Vec<Row>,
    skipped: usize,
    too_many: bool,
}

/// Most texts of one kind in a list inside of a row.
const LIST_MAX: usize = 100;

impl Reading {
    fn start(&mut self, path: &[String], rows_max: usize) {
        let mut path = path.iter().map(String::as_str).rev();
        match (path.next(), path.next()) {
            // One reporter wraps it in a schema element.
            (Some("feedback"), _) => self.feedback = true,
            (Some("record"), Some("feedback")) => {
                self.too_many |= self.rows.len() >= rows_max;
                self.row = OpenRow::default();
            }
            (Some("reason"), _) if self.row.reasons.len() < LIST_MAX => {
                self.row.reasons.push(PolicyReason::default())
            }
            (Some("dkim"), Some("auth_results")) if self.row.dkim.len() < LIST_MAX => {
                self.row.dkim.push(DkimAuth::default());
            }
            (Some("spf"), Some("auth_results")) if self.row.spf.len() < LIST_MAX => {
                self.row.spf.push(SpfAuth::default());
            }
            _ => {}
        }
    }

    fn end(&mut self, path: &[String], text: &str) {
        let mut path = path.iter().map(String::as_str).rev();
        let (leaf, parent, above) =
            (path.next().unwrap_or(""), path.next().unwrap_or(""), path.next().unwrap_or(""));
        let some = || (!text.is_empty()).then(|| text.to_owned());
        match (parent, leaf) {
            ("feedback", "version") => self.version = some(),
            ("feedback", "record") => self.close_row(),
            ("report_metadata", _) => self.metadata(leaf, text),
            ("date_range", "begin") => self.begin = seconds(text),
            ("date_range", "end") => self.end = seconds(text),
            ("policy_published", _) => self.policy(leaf, text),
            ("row", "source_ip") => self.row.source_ip = text.parse().ok(),
            ("row", "count") => self.row.count = text.parse().ok(),
            ("policy_evaluated", "disposition") => self.row.disposition = Disposition::read(text),
            ("policy_evaluated", "dkim") => self.row.dkim_aligned = text.eq_ignore_ascii_case("pass"),
            ("policy_evaluated", "spf") => self.row.spf_aligned = text.eq_ignore_ascii_case("pass"),
            // The drafts called it "identities".
            ("identifiers" | "identities", "header_from") => self.row.header_from = text.to_owned(),
            ("identifiers" | "identities", "envelope_from") => self.row.envelope_from = some(),
            ("identifiers" | "identities", "envelope_to") => self.row.envelope_to = some(),
            ("reason", _) => self.reason(leaf, some()),
            ("dkim", _) if above == "auth_results" => self.dkim_auth(leaf, some()),
            ("spf", _) if above == "auth_results" => self.spf_auth(leaf, some()),
            _ => {}
        }
    }

    fn metadata(&mut self, leaf: &str, text: &str) {
        let value = (!text.is_empty()).then(|| text.to_owned());
        match leaf {
            "org_name" => self.org_name = value,
            "email" => self.email = value,
            "extra_contact_info" => self.extra_contact_info = value,
            "report_id" => self.report_id = value,
            "generator" => self.generator = value,
            "error" if self.errors.len() < LIST_MAX => self.errors.extend(value),
            _ => {}
        }
    }

    fn policy(&mut self, leaf: &str, text: &str) {
        let value = (!text.is_empty()).then(|| text.to_owned());
        match leaf {
            "domain" => self.policy.domain = text.to_ascii_lowercase(),
            "p" => self.policy.p = value,
            "sp" => self.policy.sp = value,
            "np" => self.policy.np = value,
            "adkim" => self.policy.adkim = value,
            "aspf" => self.policy.aspf = value,
            "fo" => self.policy.fo = value,
            "pct" => self.policy.pct = value,
            "testing" => self.policy.testing = value,
            "discovery_method" => self.policy.discovery_method = value,
            _ => {}
        }
    }

    fn reason(&mut self, leaf: &str, value: Option<String>) {
        let Some(reason) = self.row.reasons.last_mut() else { return };
        match leaf {
            "type" => reason.kind = value.unwrap_or_default(),
            "comment" => reason.comment = value,
            _ => {}
        }
    }

    fn dkim_auth(&mut self, leaf: &str, value: Option<String>) {
        let Some(dkim) = self.row.dkim.last_mut() else { return };
        match leaf {
            "domain" => dkim.domain = value.unwrap_or_default(),
            "selector" => dkim.selector = value,
            "result" => dkim.result = value.unwrap_or_default().to_ascii_lowercase(),
            "human_result" => dkim.human_result = value,
            _ => {}
        }
    }

    fn spf_auth(&mut self, leaf: &str, value: Option<String>) {
        let Some(spf) = self.row.spf.last_mut() else { return };
        match leaf {
            "domain" => spf.domain = value.unwrap_or_default(),
            "scope" => spf.scope = value,
            "result" => spf.result = value.unwrap_or_default().to_ascii_lowercase(),
            "human_result" => spf.human_result = value,
            _ => {}
        }
    }

    fn close_row(&mut self) {
        let row = std::mem::take(&mut self.row);
        if self.too_many {
            return;
        }
        match (row.source_ip, row.count) {
            (Some(source_ip), Some(count)) => self.rows.push(Row {
                source_ip,
                count,
                disposition: row.disposition,
                dkim_aligned: row.dkim_aligned,
                spf_aligned: row.spf_aligned,
                reasons: row
                    .reasons
                    .into_iter()
                    .filter(|r| !r.kind.is_empty() || r.comment.is_some())
                    .collect(),
                header_from: row.header_from,
                envelope_from: row.envelope_from,
                envelope_to: row.envelope_to,
                dkim: row.dkim,
                spf: row.spf,
            }),
            _ => self.skipped = self.skipped.saturating_add(1),
        }
    }

    fn finish(self, limits: &ReportLimits) -> Result<AggregateReport, ReportError> {
        let need = ReportError::NotAggregate;
        if !self.feedback {
            return Err(need("there is no <feedback>"));
        }
        if self.too_many {
            return Err(ReportError::TooManyRows(limits.rows));
        }
        if self.policy.domain.is_empty() {
            return Err(need("there is no <policy_published><domain>"));
        }
        let email = self.email.unwrap_or_default();
        Ok(AggregateReport {
            namespace: self.namespace,
            version: self.version,
            // Some reporters leave their name out; their address has it.
            org_name: self.org_name.or_else(|| at_domain(&email)).unwrap_or_default(),
            email,
            extra_contact_info: self.extra_contact_info,
            report_id: self.report_id.ok_or(need("there is no <report_id>"))?,
            begin: self.begin.ok_or(need("there is no <begin> of the period"))?,
            end: self.end.ok_or(need("there is no <end> of the period"))?,
            errors: self.errors,
            generator: self.generator,
            policy: self.policy,
            rows: self.rows,
            skipped: self.skipped,
        })
    }
}

fn at_domain(email: &str) -> Option<String> {
    email.rsplit_once('@').map(|(_, domain)| domain.to_owned())
}

/// Seconds since 1970; some reporters write fractions.
fn seconds(text: &str) -> Option<Timestamp> {
    text.split('.').next()?.parse().ok().map(Timestamp::from_secs)
}

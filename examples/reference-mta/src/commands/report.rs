//! `postwright report parse FILE`: a report that somebody sent, as JSON with its `kind`.
//!
//! A reader looks at the input and answers `None` if it is not of its kind; the first one that knows it wins.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use postwright_spf_dmarc::report::{
    AggregateReport, FailureReport, Part, Report as DmarcReport, ReportLimits, Row, attachments, parse,
    unpack,
};
use serde_json::{Map, Value, json};

use super::{Failure, bounce, output, tlsrpt};

/// `postwright report ...`.
#[derive(Args)]
pub(crate) struct Report {
    #[command(subcommand)]
    command: ReportCommand,
}

#[derive(Subcommand)]
enum ReportCommand {
    /// Reads a report: DMARC aggregate (XML, gzip, zip, mail), DMARC failure (mail), TLSRPT (JSON, gzip, mail), bounces,
    /// complaints and automatic replies (mail).
    Parse(Parse),
}

#[derive(Args)]
struct Parse {
    /// The file; `-` is stdin.
    file: PathBuf,
}

/// A file, and the parts of it if it is a mail.
pub(crate) struct Input {
    /// The octets of the file.
    pub(crate) octets: Vec<u8>,
    /// The leaves of the mail; one, if it is no mail.
    pub(crate) parts: Vec<Part>,
    /// Limits on what is unpacked.
    pub(crate) limits: ReportLimits,
}

/// Reads one kind of report; `None` if the input is of another.
type Reader = fn(&Input) -> Option<Result<Value, Failure>>;

/// The kinds, asked in this order. A bounce is only looked for in what is no report to a domain's owner, and any other mail is
/// `none`, unless it carries what should have been an aggregate report.
const READERS: &[Reader] = &[
    tlsrpt::read,
    dmarc_failure,
    dmarc_aggregate,
    bounce::read,
    packed_but_broken,
    bounce::read_any_mail,
    broken,
];

impl Report {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let ReportCommand::Parse(Parse { file }) = self.command;
        let shown = file.display().to_string();
        let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{shown}: {error}"));
        let limits = ReportLimits::default();
        let mut octets = Vec::new();
        let most = u64::try_from(limits.unpacked).unwrap_or(u64::MAX);
        let read = if file.as_os_str() == "-" {
            std::io::stdin().lock().take(most).read_to_end(&mut octets)
        } else {
            std::fs::File::open(&file).and_then(|file| file.take(most).read_to_end(&mut octets))
        };
        read.map_err(|error| fail(&error))?;
        let input = Input { parts: attachments(&octets, &limits), octets, limits };
        let report = READERS.iter().find_map(|reader| reader(&input));
        let report = report.ok_or_else(|| fail(&"not a report of a known kind"))?;
        output::json(&report.map_err(|error| fail(&error))?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn dmarc_failure(input: &Input) -> Option<Result<Value, Failure>> {
    match parse(&input.octets, &input.limits) {
        Ok(DmarcReport::Failure(report)) => Some(Ok(show_failure(&report))),
        _ => None,
    }
}

fn dmarc_aggregate(input: &Input) -> Option<Result<Value, Failure>> {
    match parse(&input.octets, &input.limits) {
        Ok(DmarcReport::Aggregate(report)) => Some(Ok(show_aggregate(&report))),
        _ => None,
    }
}

/// A mail with an attachment that aggregate reports come in, which could not be read as one.
fn packed_but_broken(input: &Input) -> Option<Result<Value, Failure>> {
    let packed = |part: &Part| ["xml", "zip"].iter().any(|kind| part.content_type.contains(kind));
    if input.parts.iter().any(packed) { broken(input) } else { None }
}

fn broken(input: &Input) -> Option<Result<Value, Failure>> {
    parse(&input.octets, &input.limits).err().map(|error| Err(Failure::new(error)))
}

/// The first part that holds JSON, unpacked.
pub(crate) fn json_part(input: &Input) -> Option<Vec<u8>> {
    let packed = |part: &&Part| part.content_type.contains("json") || part.content_type.contains("tlsrpt");
    let candidates = input.parts.iter().filter(packed).map(|part| part.body.as_slice());
    let unpacked =
        candidates.chain([input.octets.as_slice()]).filter_map(|body| unpack(body, &input.limits).ok());
    unpacked.into_iter().find(|text| text.trim_ascii_start().starts_with(b"{"))
}

fn show_failure(report: &FailureReport) -> Value {
    let fields: Map<String, Value> =
        report.fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "kind": "dmarc-failure",
        "auth_failure": report.auth_failure,
        "user_agent": report.user_agent,
        "reported_domain": report.reported_domain,
        "source_ip": report.source_ip.map(|ip| ip.to_string()),
        "original_mail_from": report.original_mail_from,
        "original_rcpt_to": report.original_rcpt_to,
        "arrival_date": report.arrival_date,
        "delivery_result": report.delivery_result,
        "authentication_results": report.authentication_results,
        "identity_alignment": report.identity_alignment,
        "dkim_domain": report.dkim_domain,
        "dkim_selector": report.dkim_selector,
        "spf_dns": report.spf_dns,
        "incidents": report.incidents,
        "fields": fields,
        "original_header": report.original_header,
    })
}

fn show_aggregate(report: &AggregateReport) -> Value {
    let policy = &report.policy;
    let sources: Map<String, Value> = report
        .by_source()
        .into_iter()
        .map(|(ip, source)| {
            let summary = json!({
                "messages": source.messages,
                "passed": source.passed,
                "dkim_aligned": source.dkim_aligned,
                "spf_aligned": source.spf_aligned,
                "quarantined": source.quarantined,
                "rejected": source.rejected,
            });
            (ip.to_string(), summary)
        })
        .collect();
    json!({
        "kind": "dmarc-aggregate",
        "namespace": report.namespace,
        "version": report.version,
        "org_name": report.org_name,
        "email": report.email,
        "extra_contact_info": report.extra_contact_info,
        "report_id": report.report_id,
        "begin": report.begin.secs(),
        "end": report.end.secs(),
        "errors": report.errors,
        "generator": report.generator,
        "policy": {
            "domain": policy.domain,
            "p": policy.p,
            "sp": policy.sp,
            "np": policy.np,
            "adkim": policy.adkim,
            "aspf": policy.aspf,
            "fo": policy.fo,
            "pct": policy.pct,
            "testing": policy.testing,
            "discovery_method": policy.discovery_method,
        },
        "rows": report.rows.iter().map(show_row).collect::<Vec<_>>(),
        "skipped_rows": report.skipped,
        "sources": sources,
    })
}

fn show_row(row: &Row) -> Value {
    let pass = |aligned: bool| if aligned { "pass" } else { "fail" };
    json!({
        "source_ip": row.source_ip.to_string(),
        "count": row.count,
        "disposition": row.disposition.as_str(),
        "dkim": pass(row.dkim_aligned),
        "spf": pass(row.spf_aligned),
        "reasons": row.reasons.iter()
            .map(|reason| json!({"type": reason.kind, "comment": reason.comment}))
            .collect::<Vec<_>>(),
        "header_from": row.header_from,
        "envelope_from": row.envelope_from,
        "envelope_to": row.envelope_to,
        "auth_results": {
            "dkim": row.dkim.iter().map(|dkim| json!({
                "domain": dkim.domain,
                "selector": dkim.selector,
                "result": dkim.result,
                "human_result": dkim.human_result,
            })).collect::<Vec<_>>(),
            "spf": row.spf.iter().map(|spf| json!({
                "domain": spf.domain,
                "scope": spf.scope,
                "result": spf.result,
                "human_result": spf.human_result,
            })).collect::<Vec<_>>(),
        },
    })
}

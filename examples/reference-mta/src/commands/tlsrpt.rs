//! Reading SMTP TLS reports for `postwright report parse` (RFC 8460 section 4.4).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Failure;
use super::report::{Input, json_part};

/// The report as it is on the wire, with the names of the RFC.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TlsReport {
    organization_name: Option<String>,
    date_range: DateRange,
    contact_info: Option<String>,
    report_id: String,
    policies: Vec<PolicyResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyResult {
    policy: Policy,
    summary: Summary,
    #[serde(default)]
    failure_details: Vec<FailureDetail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Policy {
    policy_type: String,
    #[serde(default)]
    policy_string: Value,
    #[serde(default)]
    policy_domain: Option<String>,
    /// A list in the RFC; some reporters write one string.
    #[serde(default)]
    mx_host: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all(deserialize = "kebab-case"))]
struct FailureDetail {
    result_type: String,
    sending_mta_ip: Option<String>,
    receiving_ip: Option<String>,
    receiving_mx_hostname: Option<String>,
    receiving_mx_helo: Option<String>,
    failed_session_count: u64,
    additional_information: Option<String>,
    failure_reason_code: Option<String>,
}

/// Reads a report of this kind; `None` if the input has no JSON.
pub(crate) fn read(input: &Input) -> Option<Result<Value, Failure>> {
    let text = json_part(input)?;
    let report = serde_json::from_slice::<TlsReport>(&text);
    Some(report.map(|report| show(&report)).map_err(|error| Failure::new(format!("TLSRPT: {error}"))))
}

fn show(report: &TlsReport) -> Value {
    let policies: Vec<Value> = report
        .policies
        .iter()
        .map(|result| {
            json!({
                "policy_type": result.policy.policy_type,
                "policy_string": result.policy.policy_string,
                "policy_domain": result.policy.policy_domain,
                "mx_host": result.policy.mx_host,
                "successful_sessions": result.summary.total_successful_session_count,
                "failed_sessions": result.summary.total_failure_session_count,
                "failures": result.failure_details,
            })
        })
        .collect();
    json!({
        "kind": "tlsrpt",
        "organization_name": report.organization_name,
        "contact_info": report.contact_info,
        "report_id": report.report_id,
        "begin": report.date_range.start_datetime,
        "end": report.date_range.end_datetime,
        "policies": policies,
    })
}

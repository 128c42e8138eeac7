//! One batch becomes one mail (or more, if it is large) in our own queue.
//!
//! Standards: RFC 9990 3.5 (which URIs, in what size), 3.5.1 (Report-ID), 4 (consent).

use postwright_core::{Envelope, Mailbox, Message, Name, Timestamp};
use postwright_spf_dmarc::dmarc::{self, Mode};
use postwright_spf_dmarc::report::{
    AggregateReport, Batch, ComposeError, Destination, Row, Submitter, destinations, mail,
};

use super::Reports;
use crate::Mta;

/// Sends a batch to all who may have it; how many mails that took. An error says why it has to wait.
pub(super) async fn send(reports: &Reports, mta: &Mta, batch: &Batch) -> Result<usize, String> {
    let resolver = &*reports.world.resolver;
    let domain: Name = match batch.policy.domain.parse() {
        Ok(domain) => domain,
        Err(_) => return Ok(0),
    };
    // The record is read again: its owner may have moved the mailbox since, or want no reports any more.
    let record = dmarc::record(&domain, resolver).await.map_err(|error| error.to_string())?;
    let Some(record) = record.filter(|record| !record.rua.is_empty()) else { return Ok(0) };
    let mut allowed = Vec::new();
    for destination in destinations(&domain, &record.rua, resolver, Mode::Rfc9989).await {
        match destination.allowed {
            Ok(true) => allowed.push(destination),
            Ok(false) => tracing::info!(%domain, to = %destination.mailbox, "does not want reports"),
            Err(error) => return Err(format!("{}: {error}", destination.mailbox)),
        }
    }
    if allowed.is_empty() {
        return Ok(0);
    }
    let mut sent = 0;
    // Halves of halves, until every part fits; in the order of the rows, so that a second run makes the same parts.
    let mut parts = vec![batch.rows.as_slice()];
    while let Some(rows) = parts.pop() {
        let report = report(reports, batch, rows, sent);
        match compose(reports, &report, &allowed) {
            Ok(None) => return Ok(sent),
            Ok(Some((message, to))) => {
                let envelope = Envelope::new(reports.settings.reverse_path.clone(), to);
                mta.submit(&envelope, message).await.map_err(|refusal| refusal.to_string())?;
                sent += 1;
            }
            Err(ComposeError::TooLarge { .. }) if rows.len() > 1 => {
                let (first, second) = rows.split_at(rows.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) => {
                tracing::warn!(%domain, %error, "a row is too large for a report");
            }
        }
    }
    Ok(sent)
}

/// The mail and its recipients; `None` if it is too large for all of them.
fn compose(
    reports: &Reports,
    report: &AggregateReport,
    allowed: &[Destination],
) -> Result<Option<(Message, Vec<Mailbox>)>, ComposeError> {
    let settings = &reports.settings;
    let submitter = Submitter { domain: Name::from(&settings.submitter), from: settings.from.clone() };
    let now = reports.world.clock.now();
    let write = |to: &[Mailbox]| mail(report, &submitter, to, fingerprint(report), &settings.limits, now);
    let all: Vec<Mailbox> = allowed.iter().map(|destination| destination.mailbox.clone()).collect();
    let message = write(&all)?;
    let size: u64 = message.chunks().map(|chunk| u64::try_from(chunk.len()).unwrap_or(u64::MAX)).sum();
    let fits = |destination: &&Destination| destination.max_size.is_none_or(|most| size <= most);
    let fitting: Vec<Mailbox> = allowed.iter().filter(fits).map(|d| d.mailbox.clone()).collect();
    if fitting.is_empty() {
        tracing::info!(domain = report.policy.domain, size, "the report is larger than all its readers take");
        return Ok(None);
    }
    let message = if fitting.len() == all.len() { message } else { write(&fitting)? };
    Ok(Some((message, fitting)))
}

fn report(reports: &Reports, batch: &Batch, rows: &[Row], part: usize) -> AggregateReport {
    let settings = &reports.settings;
    let mut report = AggregateReport {
        namespace: None,
        version: None,
        org_name: settings.organization.clone(),
        email: settings.from.to_string(),
        extra_contact_info: settings.contact.clone(),
        report_id: String::new(),
        begin: batch.day.begin(),
        end: batch.day.end(),
        errors: Vec::new(),
        generator: Some(format!("Postwright {}", env!("CARGO_PKG_VERSION"))),
        policy: batch.policy.clone(),
        rows: rows.to_vec(),
        skipped: 0,
    };
    let date = date(batch.day.begin());
    report.report_id = format!("{date}.{:016x}.{part}@{}", fingerprint(&report), settings.submitter);
    report
}

/// `20261121`.
fn date(at: Timestamp) -> String {
    at.to_string().chars().take_while(|c| *c != 'T').filter(char::is_ascii_digit).collect()
}

/// Tells reports of one day apart, and is the same when a report is made again: FNV-1a over the policy, the day and the
/// id, which holds the part.
fn fingerprint(report: &AggregateReport) -> u64 {
    let text = format!("{:?} {} {}", report.policy, report.begin.secs(), report.report_id);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

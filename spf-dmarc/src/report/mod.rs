//! Reports: reading those that receivers send to us, and writing those that we owe to others.
//!
//! Invariant: a report is a stranger's file. Unpacking stops at [`ReportLimits`], whatever a bomb claims of its size;
//! reading is forgiving (real reports break every rule), but what comes out is typed.
//!
//! Standards: RFC 9990 (aggregate), RFC 7489 appendix C (its older form, read only), RFC 9991 and RFC 6591 (failure).
//!
//! Not here: TLSRPT (smtp-client), where rows are kept for a day (the [`RowStore`] of the embedder), sending.

mod aggregate;
mod archive;
mod collect;
mod compose;
mod destination;
mod failure;
mod mime;
mod xml;

pub use aggregate::{
    AggregateReport, Disposition, DkimAuth, PolicyReason, PublishedPolicy, Row, SourceSummary, SpfAuth,
};
pub use archive::{UnpackError, unpack};
pub use collect::{Batch, Day, MemoryRows, RowStore, Sighting};
pub use compose::{ComposeError, Submitter, file_name, gzip, mail, xml};
pub use destination::{Destination, destinations};
pub use failure::FailureReport;
pub use mime::{Part, attachments};

/// The limits on reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportLimits {
    /// Octets of a report after decompression: 64 MiB.
    pub unpacked: usize,
    /// Entries of a zip archive that are looked at: 16.
    pub zip_entries: usize,
    /// Rows of a report: 500,000.
    pub rows: usize,
    /// Octets of one text inside of a report; longer ones are cut: 4096.
    pub text: usize,
    /// MIME parts of a mail that are looked at: 64, nested 8 deep.
    pub parts: usize,
    /// Octets of a composed report, compressed: 10 MiB, what mailboxes commonly take.
    pub composed: usize,
}

impl Default for ReportLimits {
    fn default() -> Self {
        ReportLimits {
            unpacked: 64 << 20,
            zip_entries: 16,
            rows: 500_000,
            text: 4096,
            parts: 64,
            composed: 10 << 20,
        }
    }
}

/// A report of any kind that this crate reads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// An aggregate report.
    Aggregate(AggregateReport),
    /// A failure report.
    Failure(FailureReport),
}

/// Why a file is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It has no `<feedback>`, or one without its necessary parts.
    #[error("not an aggregate report: {0}")]
    NotAggregate(&'static str),
    /// A mail without a report in it.
    #[error("the mail holds no report")]
    NoReport,
    /// More rows than the limit.
    #[error("the report has more than {0} rows")]
    TooManyRows(usize),
}

/// Reads a report from a file: XML, gzip, zip, or a mail that holds one.
pub fn parse(octets: &[u8], limits: &ReportLimits) -> Result<Report, ReportError> {
    if mime::is_mail(octets) {
        return parse_mail(octets, limits);
    }
    let xml = unpack(octets, limits)?;
    AggregateReport::parse(&xml, limits).map(Report::Aggregate)
}

fn parse_mail(octets: &[u8], limits: &ReportLimits) -> Result<Report, ReportError> {
    let parts = attachments(octets, limits);
    if let Some(failure) = FailureReport::from_parts(&parts) {
        return Ok(Report::Failure(failure));
    }
    let mut first = None;
    for part in parts.iter().filter(|part| part.may_hold_xml()) {
        let report = unpack(&part.body, limits).map_err(ReportError::from);
        match report.and_then(|xml| AggregateReport::parse(&xml, limits)) {
            Ok(report) => return Ok(Report::Aggregate(report)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or(ReportError::NoReport))
}

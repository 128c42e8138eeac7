//! SPF, DMARC, Authentication-Results and their reports: verdicts as values.
pub mod auth_results;
pub mod bimi;
pub mod dmarc;
pub mod header;
pub mod iprev;
mod limits;
#[cfg(feature = "reports")]
pub mod report;
pub mod spf;
#[cfg(feature = "srs")]
pub mod srs;

pub use limits::Limits;

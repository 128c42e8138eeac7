//! SPF, DMARC, Authentication-Results and their reports: verdicts as values.
mod limits;
pub mod spf;

pub use limits::Limits;

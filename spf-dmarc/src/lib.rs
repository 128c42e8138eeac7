//! SPF, DMARC, Authentication-Results and their reports: verdicts as values.
pub mod dmarc;
mod limits;
pub mod spf;

pub use limits::Limits;

//! Bounces: what became of a message, told and understood.

pub mod arf;
pub mod classify;
pub mod dsn;
mod legacy;
mod limits;
mod loops;
mod mail;
pub mod report;

pub use limits::Limits;
pub use loops::{is_looping, received_count};

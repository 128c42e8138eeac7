//! Bounces: what became of a message, told and understood.

pub mod arf;
pub mod classify;
mod detect;
pub mod dsn;
mod legacy;
mod limits;
mod loops;
mod mail;
pub mod report;
mod sns;

pub use limits::Limits;
pub use loops::{is_looping, received_count};

//! Bounces: what became of a message, told and understood.

pub mod dsn;
mod limits;
mod loops;

pub use limits::Limits;
pub use loops::{is_looping, received_count};

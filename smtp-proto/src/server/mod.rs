//! The server's side of SMTP and LMTP as a state machine without input and output.

mod config;
mod question;
mod step;

pub use config::{Config, Forwarded, Peer, Protocol};
pub use question::{Answer, AskId, Hello, Question};
pub use step::{CloseReason, Step};

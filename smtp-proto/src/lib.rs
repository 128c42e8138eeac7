//! SMTP as two state machines without input and output: a server's side and a client's side.

// The server's side and the grammar.
pub mod command;
pub mod data;
pub mod limits;
pub mod line;
pub mod proxy;
pub mod server;
mod tls;

// The client's side, replies and SASL.
pub mod client;
pub mod ehlo;
pub mod reply;
#[cfg(feature = "sasl")]
pub mod sasl;

pub use limits::Limits;
pub use tls::TlsInfo;

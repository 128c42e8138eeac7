//! An SMTP and LMTP server for tokio.
//!
//! The protocol is the sans-IO session of [`postwright_smtp_proto`]; this crate gives it sockets, TLS, time and
//! many connections, and asks your [`Handler`] at every decision. You write two methods, because there is no safe
//! default for them: who may be written to ([`Handler::rcpt`]), and taking the message ([`Handler::message`]).
//!
//! ```no_run
//! use std::sync::Arc;
//! use postwright_core::{Envelope, Mailbox, Message, Recipient, Refusal, SystemClock};
//! use postwright_smtp_server::{Accepted, Handler, Server, ServerConfig, Session};
//!
//! struct Print;
//!
//! impl Handler for Print {
//!     async fn rcpt(&mut self, _: &Session, recipient: &Recipient, _: &Envelope) -> Result<(), Refusal> {
//!         println!("for {}", recipient.mailbox);
//!         Ok(())
//!     }
//!
//!     async fn message(&mut self, _: &Session, envelope: &Envelope, message: Message) -> Result<Accepted, Refusal> {
//!         println!("{} octets from {}", message.len(), envelope.reverse_path);
//!         Ok(Accepted::with_text("printed"))
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = ServerConfig::new("mx.example.org".parse::<postwright_core::Domain>()?);
//!     let server = Server::new(config, Arc::new(SystemClock::new()), |_: &_| async { Ok(Print) });
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:2525").await?;
//!     server.serve(listener, std::future::pending()).await;
//!     Ok(())
//! }
//! ```
//!
//! What holds: a positive reply to a message goes out only after [`Handler::message`] said `Ok`; a panic in a
//! handler ends its own session with 421 and no other; every wait has a deadline; [`Server::serve`] comes back
//! only when every connection's task has ended.
//!
//! # Limits
//!
//! | limit | default | where |
//! |---|---|---|
//! | connections in all, from one address, from one network | 1,000, 100, 400 | [`ServerConfig`] |
//! | new connections of one address in a minute | 6,000 | [`ServerConfig::rate_per_ip`] |
//! | TLS handshakes at a time, and for one address | 200, 50 | [`ServerConfig::handshakes`], [`ServerConfig::handshakes_per_ip`] |
//! | silence before a TLS handshake | 15 s | [`ServerConfig::client_hello_timeout`] |
//! | octets of bodies in memory | 512 MiB | [`ServerConfig::budget`] |
//! | a handler's decision (not on a whole message) | 5 min | [`ServerConfig::decision_timeout`] |
//! | lingering after a refusal | 1 MiB or 2 s | [`connection::LINGER_OCTETS`], [`connection::LINGER_TIME`] |
//! | lines, sizes, time-outs of one session | | [`postwright_smtp_proto::Limits`] |
//!
//! # Standards
//!
//! | what | standard | test |
//! |---|---|---|
//! | sessions, decisions, panics, budget, stop | RFC 5321 3.8 | `tests/driver.rs` |
//! | STARTTLS, TLS from the start, certificates by name and their exchange ([`tls`]) | RFC 3207, RFC 8314, RFC 6066 | `tests/driver.rs`, `tests/edges.rs` |
//! | caps, lingering close, gone peers, PROXY, XCLIENT | | `tests/edges.rs` |
//! | AUTH: mechanisms, users, lock-out (module `auth`, feature `auth`) | RFC 4954, RFC 7677 | `tests/auth.rs` |
//! | `Date` and `Message-ID` on submission ([`submission`]) | RFC 6409 8 | `submission` |
//!
//! `examples/private_extension.rs` adds a verb and a parameter of its own.
//!
//! Not here: what to do with a message (see the crate `postwright`), DNS, sending mail.

mod accept;
mod admission;
mod ask;
#[cfg(feature = "auth")]
pub mod auth;
pub mod connection;
mod handler;
mod handshakes;
mod server;
mod stream;
pub mod submission;
pub mod tls;

pub use connection::{Ended, serve_connection};
pub use handler::{Accepted, Acceptor, BodyPiece, Handler, Session};
pub use postwright_smtp_proto::server::{Answer, CloseReason, Hello, Peer};
pub use server::{Counters, Server, ServerConfig, Socket, Stopped};

/// The program in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

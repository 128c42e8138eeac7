//! SMTP as two state machines without input and output: a server's side ([`server::Session`]) and a client's side
//! ([`client`]).
//!
//! Octets and time go in by `handle_*`, the next thing to do comes out by `poll`: no sockets, no runtime, no clock, no
//! log. The same machine therefore runs under tokio (`postwright-smtp-server`), on blocking sockets
//! (`examples/blocking_server.rs`) and in a test that cuts a dialogue at every octet.
//!
//! ```
//! use postwright_core::{Domain, Instant, Timestamp};
//! use postwright_smtp_proto::server::{Answer, Config, Peer, Question, Session, Step};
//!
//! let config = Config::new("mx.example.org".parse::<Domain>()?);
//! let peer = Peer::new("192.0.2.1:4000".parse()?, "192.0.2.2:25".parse()?, Timestamp::from_secs(0));
//! let mut session = Session::new(config.into(), peer, Instant::ZERO);
//! let mut script = [
//!     "EHLO client.example\r\n",
//!     "MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
//!     "Subject: x\r\n\r\n..a line with a dot\r\n.\r\nQUIT\r\n",
//! ]
//! .iter();
//! let (mut body, mut taken) = (Vec::new(), Vec::new());
//! loop {
//!     match session.poll() {
//!         Step::Read { .. } => match script.next() {
//!             Some(text) => session.handle_input(text.as_bytes(), Instant::ZERO),
//!             None => session.handle_eof(),
//!         },
//!         Step::Write { bytes, .. } => { let len = bytes.len(); session.handle_written(len, Instant::ZERO); }
//!         Step::Body(piece) => body.extend_from_slice(piece),
//!         Step::Reset => body.clear(),
//!         Step::Ask(id) => {
//!             if let Some((_, Question::Message { .. })) = session.question() {
//!                 taken.push(std::mem::take(&mut body)); // make it durable here: the answer is a promise
//!             }
//!             session.answer(id, Answer::accepted());
//!         }
//!         Step::StartTls { .. } | Step::Close(_) => break,
//!     }
//! }
//! assert_eq!(taken, [b"Subject: x\r\n\r\n.a line with a dot\r\n"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it holds to
//!
//! - Only CRLF ends a line and only CRLF `.` CRLF ends DATA. A bare CR, a bare LF or a NUL gets 5xx and the end of the
//!   session, so no octets of a message can pass for commands here or behind us.
//! - A refused message leaves no transaction, whatever refused it ([`server`]).
//! - What was said in clear is forgotten by STARTTLS, and nothing that follows it in clear is acted on.
//! - Nothing is held beyond [`Limits`]; a message is handed on in pieces and never collected here.
//!
//! # Limits
//!
//! Those of a server's session; a client's are in [`client::Limits`].
//!
//! | what | default | field |
//! |---|---|---|
//! | command line; AUTH line | 2,048; 12,288 octets | [`Limits::command_line`], [`Limits::auth_line`] |
//! | overlong line dropped | 64 KiB | [`Limits::line_discard`] |
//! | recipients | 1,000, then 452 4.5.3 | [`Limits::recipients`] |
//! | message; refused chunk dropped | 35 MiB; 64 MiB | [`Limits::message_size`], [`Limits::chunk_discard`] |
//! | messages; errors; idle commands; failed AUTH | 1,000; 20; 100; 3 | [`Limits::transactions`] and next |
//! | wait for a command, for data, for a write | 5, 3, 5 min | [`Limits::command_timeout`] and next |
//! | slowest message; longest session | 500 octets/s; 2 h | [`Limits::min_data_rate`], [`Limits::session_timeout`] |
//!
//! # Standards
//!
//! The server's side, with its tests.
//!
//! | standard | what | test |
//! |---|---|---|
//! | RFC 5321 | order, replies, addresses, source routes, `<Postmaster>`, sizes | `tests/server.rs`, `tests/rfcs.rs`, `command` |
//! | RFC 5321 4.5.2, 2.3.8 | dots and line ends | `tests/smuggling.rs`, `data` against a naive twin |
//! | RFC 2920 | pipelining; 554 for early talk | `tests/server.rs` |
//! | RFC 1870, 6152, 6531, 8689, 9422 | SIZE, 8BITMIME, SMTPUTF8, REQUIRETLS, LIMITS | `tests/server.rs`, `tests/rfcs.rs` |
//! | RFC 3030 | CHUNKING, BINARYMIME | `tests/bdat.rs`, `tests/invariant.rs`, `tests/memory.rs` |
//! | RFC 3207 | STARTTLS | `tests/server.rs`, `tests/rfcs.rs`, `tests/suites.rs` |
//! | RFC 4954 | AUTH | `tests/trust.rs`, `tests/rfcs.rs`, `tests/sasl.rs` |
//! | RFC 3461, 6533 | DSN parameters | `command` |
//! | RFC 2852, 4865, 6710 | DELIVERBY, FUTURERELEASE, MT-PRIORITY | `tests/trust.rs` |
//! | RFC 2033 | LMTP | `tests/server.rs`, `tests/invariant.rs` |
//! | Postfix XCLIENT, XFORWARD; PROXY v1, v2 | trusted proxies | `tests/trust.rs`, `proxy` |
//! | private verbs and parameters | handed on with their text | `tests/trust.rs` |
//!
//! The client's side has its table in [`client`], SASL in the module `sasl` (feature of that name).
//!
//! Not here: sockets, TLS handshakes, policy, storage.

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

/// The program in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

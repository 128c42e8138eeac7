//! Sending mail: from a domain to its mail hosts, over TLS, with one status for each recipient.
//!
//! This is the driver of [`postwright_smtp_proto`]'s client machine for tokio and rustls, with what a mail transfer
//! agent needs around it:
//!
//! * [`route`]: which hosts take mail for a domain: a pure function of DNS answers and randomness.
//! * [`Client`]: connects, does STARTTLS, and delivers to the first host that takes part.
//! * [`Connection`]: one session, used for as many messages as you like.
//! * [`Pool`]: keeps connections; one that died while idle is never a failed message.
//! * [`policy`]: DANE, MTA-STS, REQUIRETLS and the operator's wish in one decision, with its reason.
//! * [`dane`], [`sts`]: the policies that a domain publishes.
//! * [`tls`]: what is demanded of a certificate, and what was found out about it.
//! * [`Connector`]: the seam to the network; [`proxy`] goes through a PROXY v2 proxy.
//! * `oauth`: bearer tokens for smart hosts, fetched in time (feature `sasl`).
//! * [`site`]: domains that share their mail hosts are one destination.
//!
//! It is not a queue (nothing is tried twice), not a composer (the message is octets), and it reads no
//! configuration.
//!
//! ```no_run
//! use std::sync::Arc;
//! use postwright_core::{Domain, Envelope, Mailbox, Message, SystemClock};
//! use postwright_smtp_client::{Client, Options, Target, Trust};
//! use postwright_smtp_proto::client::{Config, Transaction};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(&Trust::Roots(Vec::new()), Arc::new(SystemClock::new()))?;
//! let options = Options::new(Config::new("client.example".parse::<Domain>()?));
//! let server = Target { host: "mx.example.org".parse()?, address: "192.0.2.1:25".parse()? };
//! let envelope = Envelope::new("me@client.example".parse::<Mailbox>()?, ["you@example.org".parse()?]);
//! let message = Message::from_bytes(&b"Subject: hello\r\n\r\nHello!\r\n"[..]);
//! let report = client.deliver(&[server], &options, Transaction { envelope, message }).await;
//! for status in &report.statuses {
//!     println!("{:?} {} {}", status.outcome, status.status, status.diagnostic);
//! }
//! # Ok(()) }
//! ```
//!
//! # Limits
//!
//! | what | where | default | from |
//! |---|---|---|---|
//! | time for each phase | [`Timeouts`](postwright_smtp_proto::client::Timeouts) | 2 to 10 min | RFC 5321 4.5.3.2 |
//! | opening a connection | [`Options::connect_timeout`] | 30 s | RFC 1123 5.3.1.1 |
//! | reply lines and their length | [`ReplyLimits`](postwright_smtp_proto::reply::ReplyLimits) | 128 of 2,048 | RFC 5321 4.5.3.1.5 |
//! | commands without a reply | [`Limits`](postwright_smtp_proto::client::Limits) | 64 | RFC 2920 3.1 |
//! | hosts and addresses of a domain | [`route::Rules`] | 5 of 4 each | RFC 5321 5.1 |
//! | one address alone in the race | 250 ms | 250 ms | RFC 8305 5 |
//! | a failed MTA-STS fetch is not repeated | [`sts::PAUSE`] | 5 min | RFC 8461 3.3 |
//! | idle connections | [`PoolLimits`] | 20 a key, 15 s | RFC 5321 4.5.3.2.7 |
//!
//! # Standards
//!
//! | standard | test |
//! |---|---|
//! | RFC 5321 5.1, RFC 7505 (routing) | `tests/all/route.rs` |
//! | RFC 5321 3, RFC 3207, RFC 8314 (sessions over the network) | `tests/all/delivery.rs` |
//! | RFC 8305 5 (addresses race) | `tests/all/race.rs` |
//! | RFC 7628, RFC 4954 6 (tokens, feature `sasl`) | `tests/all/oauth.rs` |
//! | RFC 5321 3.3 (reuse) | `tests/all/pool.rs` |
//! | RFC 6698, 7671, 7672 (DANE) | `tests/all/dane.rs`, with OpenSSL's vectors |
//! | RFC 8461 (MTA-STS) | `tests/all/sts.rs` |
//! | RFC 8460 (reports, feature `tls-reports`) | `tests/all/tlsrpt.rs` |
//! | RFC 7672, 8461, 8689 (one decision) | `tests/all/policy.rs`, `tests/all/table.rs` |

mod client;
pub mod connect;
mod connection;
pub mod dane;
#[cfg(feature = "sasl")]
pub mod oauth;
pub mod policy;
pub mod pool;
pub mod proxy;
mod race;
pub mod route;
pub mod site;
pub mod sts;
pub mod tls;
#[cfg(feature = "tls-reports")]
pub mod tlsrpt;

pub use client::{Client, Delivered, Watch, is_lost, is_misfit, targets};
#[cfg(unix)]
pub use connect::UnixConnector;
pub use connect::{BoxIo, Connector, Target, TcpConnector};
#[cfg(feature = "sasl")]
pub use connection::Account;
pub use connection::{ConnectError, ConnectFailure, Connection, Options};
pub use pool::{Pool, PoolLimits};
pub use route::{MailHost, Route};
pub use tls::{Demand, TlsClient, TlsFault, Trust};

/// The program in README.md, compiled.
#[cfg(all(doctest, feature = "webpki-roots"))]
#[doc = include_str!("../README.md")]
pub struct Readme;

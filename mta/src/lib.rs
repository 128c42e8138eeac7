//! A mail transfer agent as a library: accept, queue durably, deliver, tell the sender.
//!
//! This crate is where the others meet. [`Mta`] is built from a [`World`](core::World) (clock, randomness, DNS), a
//! [`Spool`](queue::Spool) and a [`Client`](smtp_client::Client); servers ask its [`Intake`], and [`Mta::run`]
//! delivers. `pipeline.rs` is the whole way of a message on one page.
//!
//! ```no_run
//! use std::sync::Arc;
//! use postwright::core::dns::{HickoryConfig, HickoryResolver};
//! use postwright::core::{Domain, SystemClock, SystemEntropy, World};
//! use postwright::queue::{EmbeddedOptions, EmbeddedSpool};
//! use postwright::smtp_client::{Client, Trust};
//! use postwright::smtp_server::{Server, ServerConfig};
//! use postwright::{Mta, Relay};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hostname: Domain = "mx.example.org".parse()?;
//! let clock = Arc::new(SystemClock::new());
//! let resolver = Arc::new(HickoryResolver::new(&HickoryConfig::default())?);
//! let world = World { clock: clock.clone(), entropy: Arc::new(SystemEntropy), resolver };
//! let spool = Arc::new(EmbeddedSpool::open(EmbeddedOptions::new("/var/spool/mta", clock.clone()))?);
//! let client = Client::new(&Trust::Web, clock.clone())?;
//!
//! let mta = Mta::builder(hostname.clone(), world, spool, client)
//!     .relay(Relay::nobody().trust(|ip| ip.is_loopback()))
//!     .build();
//! let server = Server::new(ServerConfig::new(hostname), clock, mta.intake());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:2525").await?;
//! let stop = || async { drop(tokio::signal::ctrl_c().await) };
//! tokio::join!(server.serve(listener, stop()), mta.run(stop()));
//! # Ok(()) }
//! ```
//!
//! What it promises: a 250 means that every accepted recipient and the body would survive a power cut (with the
//! spool's default durability); each accepted recipient ends once, and the sender hears of failures by a
//! notification that is as durable as the message was; [`Event`] tells of all of it.
//!
//! Not here: sockets and TLS for the server (smtp-server), a configuration file (the reference MTA).
//!
//! # Limits
//!
//! | what | default | where |
//! |---|---|---|
//! | messages in the queue, then 452 4.3.1 | 1,000,000 | [`Settings::queued`] |
//! | attempts at a time; to one site | 200; 10 | [`Settings::connections`], [`Settings::connections_per_site`] |
//! | octets of bodies on their way out | 256 MiB | [`Settings::bodies`] |
//! | how long a message is tried; told of a delay after | 5 days; 4 h | [`Settings::lifetime`], [`Settings::warn_after`], RFC 5321 4.5.4.1 |
//! | `Received` fields, then 554 5.4.6 | 50 | [`Settings::hops`], RFC 5321 6.3 |
//! | notifications to one sender in an hour | 100 | [`Settings::notifications_per_hour`] |
//! | running attempts when told to stop | 5 s | [`Settings::drain_timeout`] |
//! | each conversation, each engine | | the crate's own front page |
//!
//! # Standards
//!
//! | standard | test |
//! |---|---|
//! | RFC 5321 6.1, 4.5.4 (taken mail is delivered or its sender told) | `tests/delivery.rs` |
//! | RFC 3461, 3464 (notifications, in the commit that ends the message) | `tests/delivery.rs`, `tests/feedback.rs` |
//! | RFC 8461 (MTA-STS over HTTPS) | `tests/https.rs` |
//! | RFC 8460 (TLS reports) | `tests/tls_reports.rs` |
//! | RFC 9990 (DMARC reports) | `tests/reports.rs` |
//! | RFC 9266, RFC 5929 (channel binding, both ends) | `tests/channel_binding.rs` |
//! | remotes that keep to nothing | `tests/remotes/main.rs`, `tests/descriptors.rs` |

mod account;
#[cfg(feature = "authentication")]
pub mod authentication;
mod bodies;
mod builder;
mod class;
mod delivery;
mod dispatch;
mod event;
mod exit;
pub mod feedback;
mod guard;
#[cfg(feature = "https")]
mod https;
mod intake;
mod leases;
mod metrics;
mod operator;
mod pace;
mod paced_resolver;
mod pipeline;
mod policy;
mod received;
mod relay;
#[cfg(feature = "reports")]
pub mod reports;
mod routes;
#[cfg(feature = "authentication")]
mod sealing;
mod section;
mod settings;
#[cfg(feature = "shaping")]
mod shaped;
#[cfg(feature = "authentication")]
mod signing;
mod storm;
mod sts_store;
mod system;
#[cfg(feature = "tls-reports")]
mod tls_reports;
mod upkeep;

pub use account::{Credential, RelayAccount};
pub use builder::{Builder, Mta};
pub use class::Class;
pub use delivery::{MtaSts, TlsWatch};
pub use event::{Event, Observer};
#[cfg(feature = "https")]
pub use https::HttpsClient;
pub use intake::{Intake, Reception};
pub use metrics::{Counts, Metrics};
pub use operator::Operator;
pub use pace::{Departure, Exit, NotNow, Pace, Pass, Returned, Sent};
pub use paced_resolver::{DnsPace, PacedResolver};
pub use policy::{MessagePolicy, Visit};
pub use relay::Relay;
pub use routes::{DomainPattern, Parcel, RouteFault, RouteRule, Routes, SenderPattern, Via, ViaError};
#[cfg(feature = "authentication")]
pub use sealing::SealForwarded;
pub use settings::{Retry, Settings};
#[cfg(feature = "shaping")]
pub use shaped::Shaped;
#[cfg(feature = "authentication")]
pub use signing::SignOriginated;
pub use sts_store::FileStore;
#[cfg(feature = "tls-reports")]
pub use tls_reports::{TlsReporting, TlsReports, TlsReportsError};

#[cfg(feature = "dkim")]
#[doc(no_inline)]
pub use postwright_dkim as dkim;
#[cfg(feature = "shaping")]
#[doc(no_inline)]
pub use postwright_shaping as shaping;
#[cfg(feature = "spf-dmarc")]
#[doc(no_inline)]
pub use postwright_spf_dmarc as spf_dmarc;
/// The engines and drivers that this crate is built from.
#[doc(no_inline)]
pub use {
    postwright_bounce as bounce, postwright_core as core, postwright_queue as queue,
    postwright_smtp_client as smtp_client, postwright_smtp_proto as smtp_proto,
    postwright_smtp_server as smtp_server,
};

/// The program in README.md, compiled.
#[cfg(all(doctest, feature = "embedded", feature = "hickory", feature = "webpki-roots"))]
#[doc = include_str!("../README.md")]
pub struct Readme;

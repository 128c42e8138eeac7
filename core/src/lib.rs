//! The vocabulary of Postwright: the nouns of mail and the seams to the outside world.
//!
//! Every other crate of the family speaks in these types, so that a verdict of one is an argument of the next
//! without a conversion. A type earns its place here by being needed by three crates, or by being a seam.
//!
//! | noun | module | what it rules out |
//! |---|---|---|
//! | [`Domain`], [`Host`], [`Mailbox`], [`ReversePath`] | [`address`] | an address that is not one; `<>` as an empty string |
//! | [`ReplyCode`], [`EnhancedStatus`], [`Reply`], [`Refusal`] | [`reply`] | CR or LF inside a reply; a "refusal" that says 250 |
//! | [`Envelope`], [`Recipient`], [`MailOptions`] | [`envelope`] | DSN parameters as loose strings |
//! | [`Message`], [`HeaderField`], [`Budget`] | [`message`] | copies of the body; a field that breaks the header |
//! | [`DeliveryStatus`] | [`status`] | two vocabularies for one fate |
//! | [`Instant`], [`Timestamp`] | [`time`] | mixing monotonic time with stored time |
//!
//! The seams are [`Clock`], [`Entropy`] and [`Resolver`]; they travel together in a [`World`]. Each has a real
//! implementation and one in memory that is part of the product: test your own code with it.
//!
//! ```
//! use postwright_core::{Mailbox, ReversePath};
//!
//! let mailbox: Mailbox = "\"odd @ local\"@Example.ORG".parse()?;
//! assert_eq!(mailbox.local(), "\"odd @ local\""); // kept exactly
//! assert_eq!(mailbox.host().to_string(), "example.org"); // domains are lower-case
//! assert_ne!(ReversePath::Null, ReversePath::Mailbox(mailbox));
//! # Ok::<(), postwright_core::AddressError>(())
//! ```
//!
//! What is not here: no parsing beyond a type's own `FromStr`, no input or output, no global state.

pub mod address;
pub mod dns;
pub mod entropy;
pub mod envelope;
pub mod message;
pub mod reply;
pub mod status;
pub mod time;
mod world;

pub use address::{AddressError, Domain, Host, Mailbox, ReversePath};
pub use dns::{Answer, DnsError, Found, MemoryZone, Name, Record, RecordKind, Resolver};
#[cfg(feature = "hickory")]
pub use dns::{HickoryConfig, HickoryError, HickoryResolver};
#[cfg(feature = "system")]
pub use entropy::SystemEntropy;
pub use entropy::{Entropy, SeededEntropy};
pub use envelope::{Body, Envelope, MailOptions, Notify, OriginalRecipient, Recipient, Ret};
pub use message::{Budget, BudgetSpent, HeaderField, Message, MessageBuilder};
pub use reply::{EnhancedStatus, Refusal, Reply, ReplyCode};
pub use status::{Cause, DeliveryStatus, Diagnostic, Outcome, Phase, Remote, TlsSummary};
pub use time::{Clock, Instant, ManualClock, SystemClock, Timestamp};
pub use world::World;

/// A boxed future that can move between threads: what the methods of a plugged-in seam return.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The program in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

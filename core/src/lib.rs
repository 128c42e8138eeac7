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
//!
//! # Limits
//!
//! | what | number | where |
//! |---|---|---|
//! | local part; domain; label; mailbox | 64; 255; 63; 254 octets | [`address`], RFC 5321 4.5.3.1, RFC 1035 2.3.4 |
//! | text of a reply's line | 506 octets | [`reply::REPLY_TEXT_MAX`], RFC 5321 4.5.3.1.5 |
//! | line of a field | 998 octets | [`message::LINE_MAX`], RFC 5322 2.1.1 |
//! | chunk of a message; all bodies in memory | 64 KiB; what you say | [`message::CHUNK_MAX`], [`Budget`] |
//! | look-up: time, tries, at once, records, cached | 30 s, 2, 128, 256, 8,192 | `HickoryConfig`, feature `hickory` |
//! | how fast a clock is followed that was set | 1 s a minute | [`time`] |
//!
//! # Standards
//!
//! | standard | test |
//! |---|---|
//! | RFC 5321 4.1.2, 4.5.3.1 (addresses) | `keeps_the_local_part_to_the_letter`, `refuses_what_is_not_an_address`, `octet_limits_are_exact` |
//! | RFC 5321 4.2, RFC 2034 (replies) | `text_cannot_break_out`, `status_takes_the_class_of_the_code` |
//! | RFC 3463 2 (enhanced status codes) | `enhanced_status_is_parsed_strictly` |
//! | RFC 5322 2.2, 3.3; RFC 3339 5.8 (fields, dates) | `fields_cannot_break_the_header`, `dates_are_printed_as_the_rfcs_print_them` |
//! | RFC 1035, 2308, 4592, 3596 (zones in memory) | `tests/zone.rs` |
//! | RFC 4035, 7766 (DNS over the network) | `tests/hickory.rs` |

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

//! The mail queue: a durable spool behind one trait, and a pure scheduler.
//!
//! - A [`Spool`] keeps accepted mail. `Ok` from [`Spool::commit`] means that it survives a power cut.
//!   [`MemorySpool`] is the one for tests and simulation; the embedded one is for production.
//! - A [`Scheduler`] says which message is attempted next, and what is to be committed afterwards.
//! - An [`Entry`] is what the queue knows about a message: envelope, progress of every recipient, lifetime.
//!
//! ```
//! use std::time::Duration;
//! use postwright_core::{Envelope, Mailbox, Message, SeededEntropy, Timestamp};
//! use postwright_queue::contract::block_on;
//! use postwright_queue::{Change, Entry, MemorySpool, Spool, SpoolId};
//!
//! let spool = MemorySpool::default();
//! let now = Timestamp::from_secs(1_800_000_000);
//! let id = SpoolId::new(now, &SeededEntropy::new(7)); // SystemEntropy in a real server
//! let from: Mailbox = "ann@example.org".parse()?;
//! let envelope = Envelope::new(from, ["bob@example.net".parse()?]);
//! let body = Message::from_bytes(&b"Subject: hello\r\n\r\nHi!\r\n"[..]);
//! let entry = Entry::new(id, envelope, body.len() as u64, Duration::from_secs(5 * 86_400), now);
//!
//! let claims = block_on(spool.commit(vec![Change::Put { entry, body }]))?; // durable: now say 250
//! spool.crash();
//! assert_eq!(block_on(spool.load(id))?.entry.envelope.recipients.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is not here: SMTP, routing, rate limits, composing notifications. The crate knows no runtime and no clock.
//!
//! # Limits
//!
//! | number | value | why |
//! |---|---|---|
//! | [`spool::PIECE_MAX`] | 256 KiB | a body is stored and read in pieces of this size |
//! | [`codec::ENTRY_MAX`] | 32 MiB | a record that claims more is damaged |
//! | [`entry::HISTORY_MAX`] | 16 | past attempts kept for each recipient |
//! | [`spool::CONTROL_KEY_MAX`] | 512 | octets of a control's key |
//! | [`spool::CONTROL_VALUE_MAX`] | 64 KiB | octets of a control's value |
//! | [`SchedulerConfig::max_messages`] | 5,000,000 | [`Scheduler::reserve`] refuses one more |
//! | [`SchedulerConfig::max_in_flight`] | 2,000 | deliveries handed out; 100 for each site |
//! | `EmbeddedOptions::min_free` | 512 MiB | octets that stay free on the disk |
//! | `EmbeddedOptions::max_waiting` | 4096 | commits that wait; one more is refused as busy |
//!
//! # Standards
//!
//! | standard | what | test |
//! |---|---|---|
//! | RFC 5321 6.1 | a 250 is a promise | `tests/crash.rs`, [`contract`] |
//! | RFC 5321 4.5.4.1 | retries and giving up | `retries_follow_the_schedule_until_the_lifetime_ends` |
//! | RFC 5321 3.8 | 421 means later | `a_421_and_greylisting_cost_no_step` |
//! | RFC 3461 5.2 | who hears of what | `each_recipient_has_a_fate_of_its_own`, `the_sender_is_warned_once` |
//! | RFC 4865 | future release | `a_message_held_by_its_sender_waits_over_a_restart` |
//! | RFC 6647 | greylisting | `a_421_and_greylisting_cost_no_step` |
//! | RFC 6710 | priorities | `a_higher_priority_goes_first_and_a_lower_one_is_not_starved` |

pub mod archive;
mod body;
pub mod check;
pub mod codec;
pub mod contract;
#[cfg(feature = "embedded")]
mod embedded;
pub mod entry;
mod error;
mod id;
mod memory;
mod oneshot;
#[cfg(feature = "postgres")]
mod postgres;
pub mod scheduler;
pub mod spool;
mod sync;

#[cfg(feature = "embedded")]
pub use embedded::{EmbeddedOptions, EmbeddedSpool, JournalDamage};
pub use entry::{Entry, Fate, PastAttempt, Progress};
pub use error::{Damage, DamageReason, Fault, SpoolError};
pub use id::{SpoolId, SpoolIdError};
pub use memory::{InjectedFault, MemorySpool};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresSpool};
pub use scheduler::{Scheduler, SchedulerConfig};
pub use spool::{
    Change, Claim, Claimed, Condition, Durability, Health, Item, Loaded, Page, Scan, Spool, SyncLevel, Want,
};

/// The program in README.md, compiled.
#[cfg(all(doctest, feature = "embedded"))]
#[doc = include_str!("../README.md")]
pub struct Readme;

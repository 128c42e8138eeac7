//! What became of a message: told ([`dsn::Composer`]), read ([`report::read`]), understood ([`classify::Classifier`]) and
//! acted on ([`suppress`], [`rates`]).
//!
//! ```
//! use postwright_bounce::classify::{Category, Classifier, Permanence};
//!
//! let classifier = Classifier::built_in();
//! let verdict = classifier.classify_line("550 5.1.1 <ann@example.org>: Recipient address rejected: User unknown");
//! assert_eq!((verdict.category, verdict.permanence, verdict.hard), (Category::UserUnknown, Permanence::Permanent, true));
//! // A refusal for good that says nothing against the address.
//! let verdict = classifier.classify_line("552 5.3.4 Message size exceeds fixed limit");
//! assert_eq!((verdict.permanence, verdict.hard), (Permanence::Permanent, false));
//! ```
//!
//! # Standards
//!
//! | what | where | standards | test |
//! |---|---|---|---|
//! | composing notifications | [`dsn`] | RFC 3461, 3464, 3834, 6522, 6533, 8689 | `tests/compose.rs` |
//! | reading notifications, bounces in prose, automatic replies | [`report`] | RFC 3464, 3834, 6533 | `tests/suites.rs`, `tests/hostile.rs` |
//! | complaints | [`arf`] | RFC 5965, 6591 | `tests/suites.rs` |
//! | refusals | [`classify`] | RFC 3463, 5248 | `tests/corpus.rs`, `tests/registry.rs` |
//! | bounce addresses | [`verp`] | RFC 5321 | in the module |
//! | one-click unsubscription | [`unsubscribe`] | RFC 8058 | in the module |
//! | suppression, rates | [`suppress`], [`rates`] | - | in the modules |
//! | loop guard | [`received_count`] | RFC 5321 6.3 | in the module |
//!
//! # Limits
//!
//! | what | default | where |
//! |---|---|---|
//! | of an original that a notification returns; recipients in it; a diagnostic | 64 KiB; 1,000; 4 KiB | [`Limits::returned`] and next, RFC 3461 4.3 |
//! | of a mail that is read; depth and number of its parts | 4 MiB; 16; 200 | [`Limits::mail`], [`Limits::depth`], [`Limits::parts`], RFC 2046 5.1 |
//! | header fields; octets of one | 500; 8 KiB | [`Limits::fields`], [`Limits::field`] |
//! | recipients of one report; text searched; one refusal | 1,000; 256 KiB; 2 KiB | [`Limits::reports`], [`Limits::text`], [`Limits::refusal`] |
//! | `Received` fields before it is a loop | 50 | [`Limits::received`], RFC 5321 6.3 |
//! | rules; their file | | [`classify::RULES_MAX`], [`classify::FILE_MAX`] |
//!
//! `tests/hostile.rs` holds them. What is not here: storage on disk and the pipeline (mta), the queue,
//! any network or clock.

pub mod arf;
pub mod classify;
mod detect;
pub mod dsn;
#[doc(hidden)]
pub mod fuzzing;
mod legacy;
mod limits;
mod loops;
mod mail;
pub mod rates;
pub mod report;
mod sns;
pub mod suppress;
pub mod unsubscribe;
pub mod verp;

pub use limits::Limits;
pub use loops::{is_looping, received_count};

/// The program in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

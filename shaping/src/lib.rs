//! Shaping: send exactly as fast as each receiver allows, and say why not faster.
//!
//! Whoever sends to servers that are not theirs needs limits: messages and octets and connections a period, and
//! connections at a time, by source address, by receiver, by tenant, several at once. This crate decides, purely
//! and deterministically: time is an argument, counts live behind a small trait, and every "not now" names the
//! limit that binds and the moment to come back.
//!
//! ```
//! use std::sync::Arc;
//! use postwright_core::Timestamp;
//! use postwright_shaping::{Admission, Ask, Bound, Kind, Layer, MemoryTokenStore, Path, Policy, Shaper, Signal};
//!
//! let limits = Layer::defaults()
//!     .set(Kind::Messages, &[Bound::Rate("2/min".parse()?), Bound::Rate("50/h burst 10".parse()?)])?
//!     .set(Kind::Concurrency, &[Bound::AtMost(5)])?;
//! let shaper = Shaper::new(Policy::new().with(limits), Arc::new(MemoryTokenStore::new()));
//!
//! let path = Path::to("example.org".parse()?).from_source("192.0.2.1");
//! let now = Timestamp::from_secs(1_800_000_000);
//! assert!(shaper.admit(&path, Ask::message(1_000), now).granted().is_some());
//! shaper.observe(&path, Signal::Delivered, "250 2.0.0 Ok", now); // what came of it, and the words that rules may match
//! match shaper.admit(&path, Ask::message(1_000), now) {
//!     Admission::Later(later) => {
//!         assert_eq!(later.because.to_string(), "limit reached: messages 2/min by source+site (defaults)");
//!         assert_eq!(later.until.since(now).as_secs(), 29); // and 998 ms
//!     }
//!     Admission::Granted(_) => unreachable!(),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What there is
//!
//! | to | use | feature |
//! |---|---|---|
//! | decide | [`Shaper::admit`], [`Shaper::admit_on`] a [`Lane`], [`Shaper::admit_from`] a pool | |
//! | say what happened | [`Shaper::observe`] with a [`Signal`]; `examples/http_client.rs` does it for HTTP | |
//! | set limits | [`Policy`] and [`Layer`], or a file | `rules` for the file |
//! | know the usual receivers | [`Provider`], [`Policy::built_in`] | |
//! | choose a way out | [`Egress`], [`Pool`], [`Source`] | |
//! | start slowly | [`WarmUp`], [`Schedule`] | |
//! | ask why | [`Later::because`], [`Shaper::explain`], [`Shaper::events`] and [`Shaper::undo`] | |
//! | keep counts | [`MemoryTokenStore`] with [`Checkpoint`]s; a server for many nodes | `redis` for the server |
//!
//! # Standards, and what holds
//!
//! | property | test |
//! |---|---|
//! | N per P without burst: at most N in every half-open window of length P; 99 % usable | `tests/exactness.rs` |
//! | with burst B: at most B + floor(w N / P) in every window of length w | `tests/exactness.rs` |
//! | the same over a crash that left nothing behind | `tests/exactness.rs` |
//! | a decision takes from all limits or from none | `tests/admission.rs` |
//! | a refund never lets a limit be exceeded | `tests/admission.rs` |
//! | permits come back by drop, release, panic or expiry | `tests/admission.rs` |
//! | lanes that wait for one limit are served in turn; large items are not starved | `tests/admission.rs` |
//! | a decision allocates nothing | `tests/allocations.rs` |
//! | few refusals where a receiver allows less than we would send; soon at the new pace after a change | `tests/receiver.rs` |
//! | one bad host of many does not collapse the connections; a dead destination gets few probes | `tests/receiver.rs` |
//! | a warm-up's cap holds over any restart; spikes pause it | `tests/warmup.rs` |
//! | a source that goes down moves only its own load | `tests/egress.rs` |
//! | several nodes together keep to the limit, with and without their server | `tests/redis.rs` |
//!
//! # Standards
//!
//! | standard | test |
//! |---|---|
//! | ITU-T I.371 annex A (the generic cell rate algorithm), beside a naive twin | `tests/exactness.rs` |
//! | RFC 5321 4.5.3.2.6 (the default length of a connection's lease) | `tests/admission.rs` |
//!
//! The formula is the generic cell rate algorithm (ITU-T I.371, annex A). RFC 5321 section 4.5.3.2.6 gives the
//! default length of a connection's lease.
//!
//! # Limits
//!
//! | name | value | meaning |
//! |---|---|---|
//! | [`LIMITS_PER_PATH`] | 16 | limits on one path; a policy with more admits nothing there and says so |
//! | [`PERIOD`] | 100 ms to 366 days | the period of a rate |
//! | [`SUSPENSIONS_MAX`] | 4096 | suspensions in force at a time |
//! | events kept | 1024 | the latest automatic changes |
//!
//! # What is not here
//!
//! No queue and no retry times (postwright-queue), no look-up of mail hosts, no reading of replies (the bounce
//! crate classifies; signals come in as values), no timers: the caller waits until [`Later::until`].

mod adapt;
mod calendar;
mod cell;
mod egress;
mod explain;
mod fast;
mod lane;
mod latch;
mod limit;
mod memory;
mod path;
mod permit;
mod policy;
mod providers;
mod rate;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "rules")]
mod rules;
mod shaper;
mod snapshot;
mod store;
mod warmup;

pub use adapt::{
    Action, AdaptSettings, AutomationRule, Change, Event, SUSPENSIONS_MAX, Signal, Suspension, Threshold,
};
pub use calendar::{Day, DayError, Zone, ZoneError};
pub use cell::Cell;
pub use egress::{Down, Egress, EgressError, Mode, Pool, Source};
pub use explain::{Explained, Explanation};
pub use lane::Lane;
pub use limit::{Bound, Dimension, Kind, Limit, Limits, Scope, ScopeError};
pub use memory::MemoryTokenStore;
pub use path::{Key, Path, Site};
pub use permit::{Admission, Because, Later, Pass, Permit};
pub use policy::{Applied, BoundError, Layer, Policy};
pub use providers::{PROVIDERS, Provider};
pub use rate::{PERIOD, Rate, RateError, RetryAt, Tat, gcra};
#[cfg(feature = "redis")]
pub use redis::{Address, RedisLink, RedisSettings, RedisTokenStore, ScriptLink};
#[cfg(feature = "rules")]
pub use rules::{Rules, RulesError};
pub use shaper::{Settings, Shaper, Way};
pub use snapshot::Checkpoint;
pub use store::{Ask, LIMITS_PER_PATH, Receipt, Refused, TokenStore};
pub use warmup::{Alarms, GrowthWarning, Overflow, PRESETS, Progress, Schedule, ScheduleError, WarmUp};

/// The program in README.md, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

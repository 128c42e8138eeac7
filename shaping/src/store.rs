//! The seam to where counts live: [`TokenStore`], with its [`Receipt`] and [`Refused`].
//!
//! Invariant of every store: `take` takes everything that was asked for, or nothing.
//!
//! Not here: the stores (`memory.rs`, `redis`), waiting in line (`shaper.rs`).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::Timestamp;

use crate::cell::Cell;
use crate::limit::{Bound, Kind, Limits};
use crate::path::Key;

/// Most limits on one path. A policy that sets more is refused when it is resolved.
pub const LIMITS_PER_PATH: usize = 16;

/// What somebody wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Ask {
    /// How many messages.
    pub messages: u32,
    /// Their octets.
    pub bytes: u64,
    /// Whether a connection is opened for it: takes from the connection rate and leases concurrency.
    pub connection: bool,
}

impl Ask {
    /// Open a connection.
    pub const CONNECTION: Ask = Ask { messages: 0, bytes: 0, connection: true };

    /// Send a message of so many octets on a connection that is already open.
    pub const fn message(bytes: u64) -> Ask {
        Ask { messages: 1, bytes, connection: false }
    }

    /// Open a connection and send a first message of so many octets on it.
    pub const fn first_message(bytes: u64) -> Ask {
        Ask { messages: 1, bytes, connection: true }
    }

    /// What this costs in a limit of a kind.
    #[inline]
    pub const fn cost(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Messages => self.messages as u64,
            Kind::Bytes => self.bytes,
            Kind::Connections | Kind::Concurrency => self.connection as u64,
            Kind::MessagesPerConnection | Kind::RecipientsPerMessage => 0,
        }
    }
}

/// What was taken, so that it can be given back.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    /// What was asked for.
    pub ask: Ask,
    /// The name of the leases, if any were taken.
    pub lease: u64,
    /// When the leases end unless they are prolonged.
    pub lease_until: Timestamp,
    /// A mark of the store's own for each limit, in the limits' order.
    pub marks: [u64; LIMITS_PER_PATH],
}

/// Not now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Which of the limits binds; the one with the latest `until` if several do. `None` if the store itself is
    /// the reason.
    pub limit: Option<usize>,
    /// When to ask again.
    pub until: Timestamp,
}

/// Where counts live.
///
/// The methods do not wait for other callers. A store behind a network blocks for one round trip at most, and
/// states its time-out.
pub trait TokenStore: Send + Sync {
    /// The cell of a key, made if need be (for a limit with this bound). Paths that share the cell most often have
    /// the same `home` too; a store may use it to keep together what is asked for together.
    fn cell(&self, key: &Key, home: u64, bound: &Bound) -> Arc<Cell>;

    /// Whether the counts are the cells themselves and nothing else: then the shaper may count there without asking.
    fn counts_in_cells(&self) -> bool {
        false
    }

    /// Takes what `ask` costs from all limits, or nothing. Leases (of concurrency) last for `ttl`.
    fn take(&self, limits: &Limits, ask: Ask, ttl: Duration, now: Timestamp) -> Result<Receipt, Refused>;

    /// Prolongs the leases of a receipt to `ttl` from now; `false` if one of them was lost, in which case the
    /// connection must be closed.
    fn lease(&self, limits: &Limits, receipt: &mut Receipt, ttl: Duration, now: Timestamp) -> bool;

    /// Ends the leases of a receipt, and with `refund` also gives back its tokens where that is exact.
    fn release(&self, limits: &Limits, receipt: &Receipt, refund: bool);

    /// Forgets what would not change a decision.
    fn sweep(&self, now: Timestamp);
}

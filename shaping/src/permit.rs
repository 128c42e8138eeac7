//! What an admission gives: [`Permit`] or [`Pass`], or [`Later`] with its reason.
//!
//! Invariant: every permit gives its leases back exactly once, on every path, by `Drop` if by nothing else.
//!
//! Why dropping does not refund tokens: whoever drops a permit may have sent the message. Forgetting to give
//! back costs a place; forgetting to confirm would exceed a limit.
//!
//! Not here: deciding (`shaper.rs`).

use std::fmt;
use std::sync::Arc;

use postwright_core::Timestamp;

use crate::adapt::Suspension;
use crate::lane::{Lane, LaneState};
use crate::limit::Limit;
use crate::store::{Ask, Receipt};

/// The answer to "may I?".
#[derive(Debug)]
#[must_use]
pub enum Admission {
    /// Go on.
    Granted(Permit),
    /// Not now.
    Later(Later),
}

impl Admission {
    /// The permit, if granted.
    pub fn granted(self) -> Option<Permit> {
        match self {
            Admission::Granted(permit) => Some(permit),
            Admission::Later(_) => None,
        }
    }

    /// The refusal, if refused.
    pub fn later(self) -> Option<Later> {
        match self {
            Admission::Granted(_) => None,
            Admission::Later(later) => Some(later),
        }
    }
}

/// Ask again at `until`.
#[derive(Debug, Clone)]
pub struct Later {
    /// When. Whoever comes back then keeps its place in the queue for the limit.
    pub until: Timestamp,
    /// What stands in the way.
    pub because: Because,
}

/// What stands in the way.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Because {
    /// The limit that binds.
    Limit(Arc<Limit>),
    /// Others were first in the queue for this limit.
    Queue(Arc<Limit>),
    /// The receiver takes no more connections, as far as its refusals tell.
    ReceiverConnections(u32),
    /// The receiver throttled us: a pause, or a pace learnt from it.
    ReceiverPace,
    /// The receiver is down or blocks us: only probes are sent.
    BackOff,
    /// Stopped by a rule or an operator.
    Suspended(Box<Suspension>),
    /// No source of the pool can be used; why not the first that may be usable again.
    NoSource(Box<str>),
    /// The store cannot be asked, and this node's share is used up.
    Store,
    /// More than [`LIMITS_PER_PATH`](crate::LIMITS_PER_PATH) limits apply to the path: an error in the policy.
    TooManyLimits(usize),
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Limit(limit) => write!(f, "limit reached: {limit}"),
            Because::Queue(limit) => write!(f, "others wait in line for: {limit}"),
            Because::ReceiverConnections(most) => {
                write!(f, "the receiver takes no more than {most} connections")
            }
            Because::ReceiverPace => f.write_str("the receiver throttles: keeping to the pace it takes"),
            Because::BackOff => f.write_str("back-off: the receiver is down or blocks us, probing only"),
            Because::Suspended(suspension) => write!(f, "suspended: {}", suspension.cause),
            Because::NoSource(why) => write!(f, "no source can be used: {why}"),
            Because::Store => f.write_str("the store of counts cannot be reached"),
            Because::TooManyLimits(count) => {
                write!(f, "{count} limits apply to the path, more than {}", crate::LIMITS_PER_PATH)
            }
        }
    }
}

/// The right to send one message on a connection that is open; borrowed from the lane, so that it costs nothing.
#[must_use]
#[derive(Debug)]
pub struct Pass<'a> {
    lane: &'a Lane,
    taken: Taken,
}

#[derive(Debug)]
enum Taken {
    /// The lane knows what, but for the octets.
    Fast(u64),
    Slow(Receipt),
}

impl<'a> Pass<'a> {
    #[inline]
    pub(crate) fn fast(lane: &'a Lane, bytes: u64) -> Pass<'a> {
        Pass { lane, taken: Taken::Fast(bytes) }
    }

    pub(crate) fn slow(lane: &'a Lane, receipt: Receipt) -> Pass<'a> {
        Pass { lane, taken: Taken::Slow(receipt) }
    }

    /// The message was not sent: gives its tokens back, as far as that is exact.
    pub fn give_back(self) {
        let receipt = match (self.taken, &self.lane.fast) {
            (Taken::Slow(receipt), _) => receipt,
            (Taken::Fast(bytes), Some(fast)) => fast.receipt(bytes),
            (Taken::Fast(_), None) => return,
        };
        let state = &self.lane.state;
        state.store.release(&state.limits, &receipt, true);
    }
}

/// The right to do what was asked for.
///
/// A permit for a connection is held as long as the connection is open. Drop it, or call one of the methods that
/// take it, when the connection has ended.
#[must_use]
pub struct Permit {
    lane: Arc<LaneState>,
    receipt: Receipt,
    done: bool,
}

impl Permit {
    pub(crate) fn new(lane: Arc<LaneState>, receipt: Receipt) -> Permit {
        Permit { lane, receipt, done: false }
    }

    /// What was asked for.
    pub fn ask(&self) -> Ask {
        self.receipt.ask
    }

    /// Most messages on a connection, if limited.
    pub fn messages_per_connection(&self) -> Option<u32> {
        self.lane.messages_per_connection
    }

    /// Most recipients in a transaction, if limited.
    pub fn recipients_per_message(&self) -> Option<u32> {
        self.lane.recipients_per_message
    }

    /// Until when the connection may be open unless the permit is renewed. Nothing to renew without a connection.
    pub fn lease_until(&self) -> Timestamp {
        self.receipt.lease_until
    }

    /// Renews the lease; `false` means that it was lost and the connection must be closed at once.
    pub fn renew(&mut self, now: Timestamp) -> bool {
        self.lane.store.lease(&self.lane.limits, &mut self.receipt, self.lane.ttl, now)
    }

    /// Nothing was sent and no connection was made: gives the tokens back too, as far as that is exact.
    pub fn give_back(mut self) {
        self.end(true);
    }

    /// The connection has ended (the same as dropping the permit).
    pub fn release(mut self) {
        self.end(false);
    }

    fn end(&mut self, refund: bool) {
        if !self.done && (refund || self.receipt.ask.connection) {
            self.lane.store.release(&self.lane.limits, &self.receipt, refund);
        }
        if !self.done
            && self.receipt.ask.connection
            && let Some(state) = &self.lane.adaptive
        {
            state.closed();
        }
        self.done = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("ask", &self.receipt.ask).finish_non_exhaustive()
    }
}

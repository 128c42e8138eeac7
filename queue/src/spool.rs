//! The seam [`Spool`]: where accepted mail is kept, and the vocabulary of its five verbs.
//!
//! Invariant: a commit is atomic, and `Ok` means that it survives a power cut (unless [`Durability`] says
//! otherwise in so many words). An error means "not acknowledged": the change may or may not be found later, and
//! the caller refuses with a 4xx.
//!
//! Standards: RFC 5321 4.2.5 and 6.1 (what a 250 promises).
//!
//! Not here: when a message is due (scheduler), what is on the disk (the spools themselves).

use std::time::Duration;

use bytes::Bytes;
use postwright_core::{BoxFuture, Message, Timestamp};

use crate::error::{Damage, SpoolError};
use crate::{Entry, SpoolId};

/// Where accepted mail is kept.
///
/// The methods may be called from many tasks at once; concurrent commits share syncs. A future that is dropped
/// before it is ready leaves the outcome open, exactly as an error does.
///
/// Two kinds of spool share this trait. An *exclusive* one belongs to one process ([`MemorySpool`](crate::MemorySpool),
/// the embedded spool): a claim is a formality there. A *shared* one is worked by several nodes: a claim is a
/// lease, and its epoch fences off a node that lost it. One loop serves both:
///
/// 1. `claim` until nothing more comes, again after [`Spool::changed`] and every now and then; hand what comes to
///    the scheduler. (On an exclusive spool only a store that recovered from an error has something late.)
/// 2. `commit` a `Put` to accept; the claims that it returns belong to the caller.
/// 3. `load` to deliver; settle with one `commit` of `Update` or `Remove`, with the `Put` of a notification in it.
/// 4. `renew` before the lease ends; forget what it says is lost.
///
/// To write one: [`check`](crate::check) and [`codec`](crate::codec) are what the spools of this crate use, and
/// [`contract::check`](crate::contract::check) tests it. `examples/own_spool.rs` is a whole one.
pub trait Spool: Send + Sync {
    /// Makes all changes or none, and returns one claim for each `Put`, in order.
    ///
    /// # Errors
    /// [`SpoolError::Invalid`] for what [`check::changes`](crate::check::changes) refuses. [`SpoolError::NotFound`]
    /// for a claim on a message that is gone, [`SpoolError::Fenced`] for one that is no longer ours, by a lease that
    /// ended or by [`Change::Release`]. Everything else is about the store.
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<Claim>, SpoolError>>;

    /// Hands out messages that nobody works on, at most `want.limit`; an empty list means none at present.
    ///
    /// An exclusive spool hands out everything that was stored when it was opened, each once, oldest first.
    /// A shared one hands out what is due before `now + want.horizon` and is not leased, soonest first.
    /// Damaged records are quarantined and counted, not returned.
    fn claim(&self, want: Want, now: Timestamp) -> BoxFuture<'_, Result<Vec<Claimed>, SpoolError>>;

    /// Extends leases. Returns the claims that are lost: another node may work on those messages now, or they are
    /// gone. On an exclusive spool there is nothing to extend, and claims on messages that are gone are lost all the
    /// same.
    fn renew<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claim>, SpoolError>>;

    /// The entry and the whole body.
    ///
    /// # Errors
    /// [`SpoolError::NotFound`], and [`SpoolError::Damaged`] for a record that cannot be read.
    fn load(&self, id: SpoolId) -> BoxFuture<'_, Result<Loaded, SpoolError>>;

    /// One piece of the body, for those who would not have it in memory as a whole; `None` behind the last one.
    ///
    /// Pieces have at most [`PIECE_MAX`] octets; all but the last have exactly that many. An empty body has none.
    ///
    /// # Errors
    /// As [`Spool::load`].
    fn piece(&self, id: SpoolId, index: u32) -> BoxFuture<'_, Result<Option<Bytes>, SpoolError>>;

    /// Walks through everything that is stored, a page at a time, for tools and for controls at the start.
    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Page, SpoolError>>;

    /// How the spool is doing; cheap. Commits and syncs are counted.
    fn health(&self) -> Health;

    /// For how long a claim of a shared spool holds, counted from when it was asked for: renew at a third of it.
    /// `None` on an exclusive spool, whose claims hold as long as the process.
    fn lease(&self) -> Option<Duration> {
        None
    }

    /// Resolves when there may be something new to claim. An exclusive spool has no news to give.
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// Largest piece of a body in octets; bodies are stored in pieces of this size.
pub const PIECE_MAX: usize = 256 * 1024;
/// Longest key of a control in octets.
pub const CONTROL_KEY_MAX: usize = 512;
/// Largest value of a control in octets.
pub const CONTROL_VALUE_MAX: usize = 64 * 1024;

/// One change of a commit.
#[derive(Debug, Clone)]
pub enum Change {
    /// Stores a new message. An id that is there already is left as it is: a message that is put twice is
    /// stored once.
    Put {
        /// What is known about it; its `size` is set by the spool.
        entry: Entry,
        /// The message. One copy is stored, however many recipients there are.
        body: Message,
    },
    /// Replaces an entry. The body stays.
    Update {
        /// Proof that the message is ours.
        claim: Claim,
        /// The new entry; its id is that of the claim.
        entry: Entry,
    },
    /// Removes a message.
    Remove {
        /// Proof that the message is ours.
        claim: Claim,
    },
    /// Gives a message back, so that it can be claimed again: by any node of a shared spool.
    Release {
        /// Proof that the message is ours.
        claim: Claim,
    },
    /// Stores a value under a key, or removes it: holds, suspensions, cancels and other words of an operator.
    Control {
        /// The key, at most [`CONTROL_KEY_MAX`] octets.
        key: Box<str>,
        /// The value, at most [`CONTROL_VALUE_MAX`] octets; `None` removes it.
        value: Option<Bytes>,
    },
}

/// Proof that a message is ours to work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The message.
    pub id: SpoolId,
    /// Grows with every change of hands on a shared spool, and with every crash of a [`MemorySpool`](crate::MemorySpool).
    pub epoch: u64,
}

/// A message that is now ours to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The proof.
    pub claim: Claim,
    /// What is known about it.
    pub entry: Entry,
}

/// How much [`Spool::claim`] may hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// At most so many.
    pub limit: usize,
    /// On a shared spool: only what is due within this time.
    pub horizon: Duration,
}

/// An entry with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What is known about it.
    pub entry: Entry,
    /// The message.
    pub body: Message,
}

/// Which part of the spool to walk through, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// All messages by id, damaged ones and quarantined ones included.
    Messages {
        /// Begin behind this one; `None` for the start.
        after: Option<SpoolId>,
        /// At most so many items a page.
        limit: usize,
    },
    /// All controls, by key, in one page.
    Controls,
}

/// A page of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What was found.
    pub items: Vec<Item>,
    /// Where the next page begins (the `after` of the next [`Scan::Messages`]); `None` at the end.
    pub next: Option<SpoolId>,
}

/// One find of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Entry(Box<Entry>),
    /// A record that cannot be read.
    Damaged(Damage),
    /// A control.
    Control {
        /// Its key.
        key: Box<str>,
        /// Its value.
        value: Bytes,
    },
}

/// What has to have happened before a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SyncLevel {
    /// It is on stable storage: a power cut loses nothing.
    #[default]
    Power,
    /// The operating system has it: a crash of this process loses nothing, a power cut may lose the last seconds.
    Relaxed,
}

/// How durable commits are: two switches, both on the safe side by default.
///
/// A commit with a `Put` in it goes by `accept`, any other by `update`. Relaxing `update` risks a second delivery
/// after a power cut, never a loss; relaxing `accept` risks losing mail that was acknowledged, and metrics, logs
/// and benchmarks say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Durability {
    /// For commits that accept a message.
    pub accept: SyncLevel,
    /// For commits that only update or remove.
    pub update: SyncLevel,
}

impl Durability {
    /// What a commit of these changes has to wait for.
    pub fn for_changes(self, changes: &[Change]) -> SyncLevel {
        if changes.iter().any(|change| matches!(change, Change::Put { .. })) {
            self.accept
        } else {
            self.update
        }
    }
}

/// Whether a spool takes mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// It does.
    Healthy,
    /// It refuses new messages, since too little space is free; settling goes on.
    Full,
    /// It recovers from an error and refuses everything for the moment.
    Recovering,
    /// It was closed.
    Closed,
}

impl Condition {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Healthy => "healthy",
            Condition::Full => "full",
            Condition::Recovering => "recovering",
            Condition::Closed => "closed",
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a spool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes mail.
    pub condition: Condition,
    /// Octets free on its disk, where it knows.
    pub free: Option<u64>,
    /// Time that the last sync took, where it was measured.
    pub sync_latency: Option<Duration>,
    /// Commits that were acknowledged since the start.
    pub commits: u64,
    /// Syncs to stable storage since the start; fewer than commits, since concurrent ones share them.
    pub syncs: u64,
    /// Times it was reopened after an error since the start.
    pub reopened: u64,
    /// Damaged records that were quarantined since the start.
    pub quarantined: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_accepts_goes_by_the_accept_switch() {
        let durability = Durability { accept: SyncLevel::Power, update: SyncLevel::Relaxed };
        let control = Change::Control { key: "k".into(), value: None };
        assert_eq!(durability.for_changes(std::slice::from_ref(&control)), SyncLevel::Relaxed);
        let envelope = postwright_core::Envelope::new(postwright_core::ReversePath::Null, []);
        let entry = Entry::new(SpoolId::MIN, envelope, 0, Duration::ZERO, Timestamp::default());
        let put = Change::Put { entry, body: Message::from_bytes(Bytes::new()) };
        assert_eq!(durability.for_changes(&[control, put]), SyncLevel::Power);
    }
}

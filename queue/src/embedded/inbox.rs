//! The way to the thread that writes: whoever commits puts in, the writer takes out everything that waits as one batch.
//!
//! Invariant: what was put in is taken out once, by one batch, in the order of each thread that put it in; what could not
//! be put in is given back as an error and never waits. It is closed once nobody can put in and nothing waits.
//!
//! Tests: embedded/schedules.rs compiles this file over `shuttle`; therefore `super::sync`.
//!
//! Not here: what is done with a batch (writer), how an answer comes back (oneshot).

use std::time::Duration;

use super::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};

/// Items of a batch at most.
pub(super) const BATCH_ITEMS: usize = 1024;
/// Octets that a batch gathers at most, so that nobody waits behind a very long write.
pub(super) const BATCH_OCTETS: usize = 16 * 1024 * 1024;

/// What counts against the size of a batch.
pub(super) trait Weigh {
    fn octets(&self) -> usize;
}

/// Why something was not put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// As much as may wait is waiting.
    Busy,
    /// Nobody takes out any more.
    Closed,
}

/// What came.
pub(super) enum Next<T> {
    Batch(Vec<T>),
    /// Nothing, for as long as was asked.
    Nothing,
    /// Nothing, and nothing will.
    Closed,
}

pub(super) struct Outbox<T>(SyncSender<T>);

pub(super) struct Inbox<T>(Receiver<T>);

/// `waiting` items wait at most.
pub(super) fn channel<T: Weigh>(waiting: usize) -> (Outbox<T>, Inbox<T>) {
    let (outbox, inbox) = sync_channel(waiting.max(1));
    (Outbox(outbox), Inbox(inbox))
}

impl<T> Outbox<T> {
    pub(super) fn put(&self, item: T) -> Result<(), Unsent> {
        self.0.try_send(item).map_err(|error| match error {
            TrySendError::Full(_) => Unsent::Busy,
            TrySendError::Disconnected(_) => Unsent::Closed,
        })
    }
}

impl<T: Weigh> Inbox<T> {
    /// Waits for one item, then takes everything that waits, up to the size of a batch.
    pub(super) fn next(&self, timeout: Duration) -> Next<T> {
        let mut item = match self.0.recv_timeout(timeout) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => return Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => return Next::Closed,
        };
        let (mut batch, mut octets) = (Vec::new(), 0usize);
        while let Some(one) = item {
            octets = octets.saturating_add(one.octets());
            batch.push(one);
            if batch.len() >= BATCH_ITEMS || octets >= BATCH_OCTETS {
                break;
            }
            item = self.0.try_recv().ok();
        }
        Next::Batch(batch)
    }
}

//! The contract of [`Spool`] as a test that runs on any spool.
//!
//! Whoever writes a spool implements [`Subject`] and calls [`check`] from a test. It panics with a sentence when
//! the spool breaks a promise. It is the same body that the spools of this crate are tested with.
//!
//! ```
//! use postwright_core::BoxFuture;
//! use postwright_queue::{MemorySpool, Spool, contract};
//!
//! struct Memory(MemorySpool);
//! impl contract::Subject for Memory {
//!     fn spool(&self) -> &dyn Spool {
//!         &self.0
//!     }
//!     fn crash(&mut self) -> BoxFuture<'_, ()> {
//!         self.0.crash();
//!         Box::pin(std::future::ready(()))
//!     }
//! }
//! contract::block_on(contract::check(&mut Memory(MemorySpool::default())));
//! ```
//!
//! Invariant: nothing in here knows which spool it runs on, beyond what [`Subject`] says.
//!
//! Not here: what only one spool can do wrong (leases between nodes, a full disk): those tests stand beside it.

mod clauses;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use postwright_core::{BoxFuture, Entropy, Envelope, Message, SeededEntropy, Timestamp};

use crate::{Entry, Spool, SpoolId};

/// A spool under test.
pub trait Subject: Send {
    /// The spool as it is open now.
    fn spool(&self) -> &dyn Spool;

    /// Ends the process that has it open, as hard as the test can, and opens it again.
    fn crash(&mut self) -> BoxFuture<'_, ()>;
}

/// Runs every clause of the contract.
///
/// # Panics
/// If the spool breaks one.
pub async fn check(subject: &mut dyn Subject) {
    clauses::bodies_come_back(subject).await;
    clauses::a_put_is_stored_once(subject).await;
    clauses::commits_are_atomic(subject).await;
    clauses::updates_replace_and_removals_remove(subject).await;
    clauses::nonsense_is_refused(subject).await;
    clauses::what_was_acknowledged_survives(subject).await;
    clauses::settling_is_one_commit(subject).await;
    clauses::controls_are_kept(subject).await;
    clauses::a_scan_sees_everything_once(subject).await;
    clauses::released_messages_can_be_claimed_again(subject).await;
    clauses::concurrent_commits_are_all_kept(subject).await;
}

/// A message to test with: the same for the same number, and of another size for another number.
pub fn sample(number: u64) -> (Entry, Message) {
    let entropy = SeededEntropy::new(number ^ 0x5eed);
    let now = Timestamp::from_secs(1_800_000_000 + number);
    let mut text = format!("Subject: sample {number}\r\n\r\n").into_bytes();
    let size = usize::try_from(entropy.below(3000)).unwrap_or(0);
    let mut noise = vec![0; size];
    entropy.fill(&mut noise);
    text.extend(noise);
    sized(number, now, Message::from_bytes(text))
}

fn sized(number: u64, now: Timestamp, body: Message) -> (Entry, Message) {
    let id = SpoolId::new(now, &SeededEntropy::new(number));
    let address = |local: &str, domain: &str| format!("{local}{number}@{domain}").parse();
    let (Ok(from), Ok(to), Ok(other)) =
        (address("from", "sender.example"), address("to", "one.example"), address("to", "two.example"))
    else {
        unreachable!("the addresses of a sample are addresses");
    };
    let from: postwright_core::Mailbox = from;
    let envelope = Envelope::new(from, [to, other]);
    let entry = Entry::new(id, envelope, body.len() as u64, Duration::from_secs(5 * 86_400), now);
    (entry, body)
}

/// Runs a future to its end on this thread, without a runtime: for spools that need none.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Runs futures side by side and collects what they bring, in order.
pub async fn all<T>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    struct All<'a, T> {
        futures: Vec<(Option<BoxFuture<'a, T>>, Option<T>)>,
    }
    impl<T> Unpin for All<'_, T> {}
    impl<T> Future for All<'_, T> {
        type Output = Vec<T>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<T>> {
            let mut pending = false;
            for (slot, output) in &mut self.futures {
                let Some(future) = slot else { continue };
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => (*slot, *output) = (None, Some(value)),
                    Poll::Pending => pending = true,
                }
            }
            if pending {
                return Poll::Pending;
            }
            Poll::Ready(self.futures.drain(..).filter_map(|(_, output)| output).collect())
        }
    }
    All { futures: futures.into_iter().map(|future| (Some(future), None)).collect() }.await
}

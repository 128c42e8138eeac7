//! Catching panics of what an embedder plugs in, so that an attempt is always given back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// A panic was caught; the panic hook has told of it.
pub(crate) struct Panicked;

/// Runs a future to its end or to its panic.
pub(crate) async fn guarded<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

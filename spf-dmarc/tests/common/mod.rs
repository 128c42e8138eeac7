//! What the tests share: running a future that is ready.

use std::task::{Context, Poll, Waker};

/// Runs a future over answers in memory: it never has to wait.
pub(crate) fn now<F: Future>(work: F) -> F::Output {
    match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("answers in memory are ready at once"),
    }
}

//! Asking the handler while watching the peer.
//!
//! Invariant: while a decision is open at most [`READ_AHEAD`] octets are read, so a peer cannot fill memory; a
//! handler that panics costs its own connection only; a decision about a whole message runs to its end.
//!
//! Not here: what is asked (`connection.rs`).

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};

/// Octets that are read while a decision is open.
const READ_AHEAD: usize = 4096;

/// How a decision ended.
pub(crate) enum Decision<T> {
    Made(T),
    Panicked,
    TimedOut,
    /// The peer is gone, and the decision does not matter any more.
    Withdrawn,
}

/// What the peer did meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Meanwhile {
    pub(crate) read: Vec<u8>,
    pub(crate) eof: bool,
}

/// How patient a decision is.
pub(crate) struct Patience {
    /// Whether it is dropped when the peer goes away.
    pub(crate) withdraw_at_eof: bool,
    /// How long it may take; `None` for one about a whole message.
    pub(crate) limit: Option<Duration>,
}

/// Runs `decision` and watches `io` for the end of the connection.
pub(crate) async fn decide<T>(
    decision: impl Future<Output = T>,
    io: &mut (impl AsyncRead + Unpin),
    meanwhile: &mut Meanwhile,
    patience: Patience,
) -> Decision<T> {
    let mut decision = pin!(decision);
    let mut limit = pin!(patience.limit.map(tokio::time::sleep));
    poll_fn(|cx| {
        match catch_unwind(AssertUnwindSafe(|| decision.as_mut().poll(cx))) {
            Ok(Poll::Ready(made)) => return Poll::Ready(Decision::Made(made)),
            Ok(Poll::Pending) => {}
            Err(_) => return Poll::Ready(Decision::Panicked),
        }
        watch(io, meanwhile, cx);
        if meanwhile.eof && meanwhile.read.is_empty() && patience.withdraw_at_eof {
            return Poll::Ready(Decision::Withdrawn);
        }
        match limit.as_mut().as_pin_mut().map(|limit| limit.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Decision::TimedOut),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Reads what is there, within the bound.
fn watch(io: &mut (impl AsyncRead + Unpin), meanwhile: &mut Meanwhile, cx: &mut Context<'_>) {
    let mut space = [0; READ_AHEAD];
    while !meanwhile.eof && meanwhile.read.len() < READ_AHEAD {
        let room = READ_AHEAD - meanwhile.read.len();
        let mut buffer = ReadBuf::new(space.get_mut(..room).unwrap_or_default());
        match Pin::new(&mut *io).poll_read(cx, &mut buffer) {
            Poll::Pending => return,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                meanwhile.read.extend_from_slice(buffer.filled())
            }
            Poll::Ready(_) => meanwhile.eof = true,
        }
    }
}

//! The embedder's word on a whole message, before it is made ours: [`MessagePolicy`].
//!
//! Invariant: policies run in the order they were added, each on what the one before made of the message; the
//! first refusal ends the transaction in the session, so that nobody has to be told later (RFC 5321 6.1).
//!
//! Not here: decisions on recipients ([`Relay`](crate::Relay)).

use std::net::SocketAddr;

use postwright_core::{BoxFuture, Envelope, Message, Refusal};

/// Who hands a message in.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Visit<'a> {
    /// From where.
    pub peer: SocketAddr,
    /// What it called itself.
    pub hello: Option<&'a str>,
    /// Whether it is one of those who may send anywhere: what it sends, we originate.
    pub trusted: bool,
}

/// Looks at a whole message and may stamp it, sign it, change it, or refuse it.
pub trait MessagePolicy: Send + Sync {
    /// The message to store, or what the peer is told instead.
    fn apply<'a>(
        &'a self,
        visit: Visit<'a>,
        envelope: &'a Envelope,
        message: Message,
    ) -> BoxFuture<'a, Result<Message, Refusal>>;
}

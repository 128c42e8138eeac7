//! ARC seals on what is forwarded: [`SealForwarded`].
//!
//! Invariant: a message that cannot be sealed goes on as it is; a seal is help for the next hop, never a reason to refuse.
//!
//! Standards: RFC 8617 5.1 (sealing), 4.1.1 (our own Authentication-Results are what is sealed).
//!
//! Not here: the sealing itself (dkim), the results (authentication.rs, which must come before this policy).

use std::sync::{Arc, PoisonError, RwLock};

use postwright_core::{BoxFuture, Clock, Domain, Envelope, Message, Refusal, Resolver};
use postwright_dkim::arc::{ArcVerifier, Sealer, authentication_results};

use crate::policy::{MessagePolicy, Visit};

/// Adds an ARC set to messages from strangers, which we pass on.
pub struct SealForwarded {
    authserv_id: Domain,
    sealer: RwLock<Option<Arc<Sealer>>>,
    verifier: ArcVerifier,
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
}

impl SealForwarded {
    /// Seals what the `Authentication-Results` fields with this name say; without a sealer, nothing.
    pub fn new(
        authserv_id: Domain,
        sealer: Option<Sealer>,
        resolver: Arc<dyn Resolver>,
        clock: Arc<dyn Clock>,
    ) -> SealForwarded {
        let sealer = RwLock::new(sealer.map(Arc::new));
        SealForwarded { authserv_id, sealer, verifier: ArcVerifier::default(), resolver, clock }
    }

    /// Seals with this key from now on.
    pub fn replace(&self, sealer: Option<Sealer>) {
        *self.sealer.write().unwrap_or_else(PoisonError::into_inner) = sealer.map(Arc::new);
    }

    async fn seal(&self, visit: Visit<'_>, message: Message) -> Message {
        let sealer = self.sealer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sealer) = sealer.filter(|_| !visit.trusted) else { return message };
        let now = self.clock.now();
        let chain = self.verifier.verify(&message, &*self.resolver, now).await;
        let results = authentication_results(&message, self.authserv_id.as_str());
        match sealer.seal(&message, &chain, &results, now) {
            Ok(set) => set.into_iter().flatten().fold(message, |message, field| message.prepend(field)),
            Err(error) => {
                tracing::warn!(%error, peer = %visit.peer, "not sealed");
                message
            }
        }
    }
}

impl MessagePolicy for SealForwarded {
    fn apply<'a>(
        &'a self,
        visit: Visit<'a>,
        _: &'a Envelope,
        message: Message,
    ) -> BoxFuture<'a, Result<Message, Refusal>> {
        Box::pin(async move { Ok(self.seal(visit, message).await) })
    }
}

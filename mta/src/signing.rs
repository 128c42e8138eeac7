//! DKIM signatures on what we originate: [`SignOriginated`].
//!
//! Standards: RFC 6376 5; RFC 6376 3.5 (`d=` of the author domain, so that DMARC finds it aligned).
//!
//! Not here: the signing itself and the keys (dkim).

use std::sync::Arc;

use postwright_core::{BoxFuture, Clock, Domain, EnhancedStatus, Envelope, Message, Refusal};
use postwright_dkim::KeyStore;

use crate::authentication::authors;
use crate::policy::{MessagePolicy, Visit};

/// Signs messages of trusted peers with every key that the store has for the author domain.
pub struct SignOriginated {
    keys: Arc<dyn KeyStore>,
    clock: Arc<dyn Clock>,
    tenants: Option<Box<TenantOf>>,
}

/// Whose message it is, by who hands it in.
type TenantOf = dyn Fn(&Visit<'_>) -> Option<String> + Send + Sync;

impl SignOriginated {
    /// Signs with the keys of a store, which is asked for each message: keys may change at any time.
    pub fn new(keys: Arc<dyn KeyStore>, clock: Arc<dyn Clock>) -> SignOriginated {
        SignOriginated { keys, clock, tenants: None }
    }

    /// Tells tenants apart: a tenant's own keys for a domain take the place of the domain's.
    pub fn with_tenants(
        mut self,
        tenant_of: impl Fn(&Visit<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> SignOriginated {
        self.tenants = Some(Box::new(tenant_of));
        self
    }

    fn sign(&self, visit: Visit<'_>, message: Message) -> Result<Message, Refusal> {
        if !visit.trusted {
            return Ok(message);
        }
        let Some(domain) = author_domain(&message) else { return Ok(message) };
        let tenant = self.tenants.as_ref().and_then(|tenant_of| tenant_of(&visit));
        let signers = self.keys.signers(&domain, tenant.as_deref());
        if signers.is_empty() {
            return Ok(message);
        }
        let fields = postwright_dkim::sign_all(&signers, &message, self.clock.now());
        let fields = fields.map_err(|error| {
            tracing::error!(%error, %domain, "cannot sign; the message is refused for now");
            Refusal::known(451, EnhancedStatus::known(4, 7, 0), "Cannot sign the message at present")
        })?;
        Ok(fields.into_iter().rev().fold(message, |message, field| message.prepend(field)))
    }
}

/// The domain of the one author, if there is one.
fn author_domain(message: &Message) -> Option<Domain> {
    match &authors(message).domains[..] {
        [only] => only.to_domain(),
        _ => None,
    }
}

impl MessagePolicy for SignOriginated {
    fn apply<'a>(
        &'a self,
        visit: Visit<'a>,
        _: &'a Envelope,
        message: Message,
    ) -> BoxFuture<'a, Result<Message, Refusal>> {
        Box::pin(std::future::ready(self.sign(visit, message)))
    }
}

//! A certificate that is made on the spot, for the demo.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::commands::Failure;

/// A certificate for `name` that nobody vouches for.
pub(crate) fn self_signed(name: &str) -> Result<Arc<ServerConfig>, Failure> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).map_err(Failure::new)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(Failure::new)?;
    configure(vec![made.cert.der().clone()], key).map_err(Failure::new)
}

/// TLS 1.2 and 1.3 with ring, chosen here and not process-wide; no session tickets, which some large senders
/// trip over on port 25.
fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

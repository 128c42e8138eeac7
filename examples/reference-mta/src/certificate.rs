//! Certificates: from files for `serve`, made on the spot for the demo.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::commands::Failure;

/// Reads a certificate chain and its key, both PEM.
pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, Failure> {
    let wrong = |path: &Path, what: String| Failure::new(format!("{}: {what}", path.display()));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
        .map_err(|error| wrong(certificate, error.to_string()))?
        .collect();
    let chain = chain.map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "no certificate in it; want PEM with BEGIN CERTIFICATE".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    configure(chain, private).map_err(|error| wrong(certificate, error.to_string()))
}

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

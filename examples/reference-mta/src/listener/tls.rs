//! Certificates of a listener: read from files, chosen by name, exchanged while it runs.
//!
//! Invariant: a set of files is used whole or not at all; what stands in the message names the file.
//!
//! Not here: the handshake (smtp-server).

use std::path::Path;
use std::sync::Arc;

use postwright::core::Domain;
use postwright::smtp_server::ServerConfig;
use postwright::smtp_server::tls::{Certificates, Identity, Tickets, server_config};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::wrong;
use crate::commands::Failure;
use crate::config::{Clients, Listener, Role, Tls, TlsMode};

/// The certificates of one listener, and where they came from.
pub(crate) struct Chains {
    files: Tls,
    current: Certificates,
}

impl Chains {
    pub(super) fn load(files: &Tls) -> Result<Chains, Failure> {
        let current = Certificates::new(read(files)?).map_err(|error| wrong(&files.certificate, &error))?;
        Ok(Chains { files: files.clone(), current })
    }

    pub(super) fn reload(&self) -> Result<(), Failure> {
        let read = read(&self.files)?;
        self.current.replace(read).map_err(|error| wrong(&self.files.certificate, &error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.files.certificate
    }

    /// Puts TLS into a server's configuration.
    pub(super) fn serve(&self, tls: &Tls, role: Role, server: ServerConfig) -> Result<ServerConfig, Failure> {
        // Off on port 25: some large senders fail to resume and then defer the mail.
        let tickets = match tls.tickets.unwrap_or(role == Role::Submission) {
            true => Tickets::On,
            false => Tickets::Off,
        };
        let clients = tls.client_ca.as_deref().map(|path| clients(path, tls.clients)).transpose()?;
        let config = server_config(&self.current, clients, tickets);
        let config = config.map_err(|error| wrong(&tls.certificate, &error))?;
        let required = tls.required.unwrap_or(role == Role::Submission);
        let mut server = match tls.mode {
            TlsMode::Starttls => server.with_starttls(config),
            TlsMode::Implicit => {
                let mut server = server;
                (server.tls, server.implicit_tls) = (Some(config), true);
                server
            }
        };
        server = server.with_session(|session| {
            session.require_tls = required;
            session.offer_require_tls = true;
        });
        Ok(server)
    }
}

/// Whether a listener talks only to those whom its authority has certified.
pub(super) fn certified(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.clients != Clients::Off)
}

fn read(files: &Tls) -> Result<Vec<Identity>, Failure> {
    let mut all = vec![identity(&files.certificate, &files.key, &[])?];
    for more in &files.more {
        all.push(identity(&more.certificate, &more.key, &more.names)?);
    }
    Ok(all)
}

fn identity(certificate: &Path, key: &Path, names: &[Domain]) -> Result<Identity, Failure> {
    let chain = chain(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    Ok(Identity { names: names.to_vec(), chain, key })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err(wrong(path, &"no certificate in it; want PEM with BEGIN CERTIFICATE"))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(wrong(path, &error)),
    }
}

fn clients(path: &Path, clients: Clients) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    let mut roots = RootCertStore::empty();
    for root in chain(path)? {
        roots.add(root).map_err(|error| wrong(path, &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if clients == Clients::Ask {
        builder = builder.allow_unauthenticated();
    }
    let verifier: Arc<dyn ClientCertVerifier> = builder.build().map_err(|error| wrong(path, &error))?;
    Ok(verifier)
}

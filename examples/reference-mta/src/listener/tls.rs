//! Certificates of a listener: read from files, chosen by name, exchanged while it runs.
//!
//! Invariant: a set of files is used whole or not at all; what stands in the message names the file.
//!
//! Not here: the handshake (smtp-server).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postwright::core::{Domain, Timestamp};
use postwright::smtp_server::ServerConfig;
use postwright::smtp_server::tls::{Certificates, Identity, Tickets, server_config};
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use super::wrong;
use crate::commands::Failure;
use crate::config::{Clients, Listener, Role, Tls, TlsMode};

/// The keys of the configuration, for complaints.
const CERTIFICATE: &str = "listen.tls.certificate";
const KEY: &str = "listen.tls.key";
const CLIENT_CA: &str = "listen.tls.client_ca";
/// Certificates are renewed some weeks before their end; one that is not by now was forgotten.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// The certificates of one listener, and where they came from.
pub(crate) struct Chains {
    files: Tls,
    current: Certificates,
}

impl Chains {
    pub(super) fn load(files: &Tls) -> Result<Chains, Failure> {
        let current = Certificates::new(read(files)?)
            .map_err(|error| wrong(CERTIFICATE, &files.certificate, &error))?;
        Ok(Chains { files: files.clone(), current })
    }

    pub(super) fn reload(&self) -> Result<(), Failure> {
        let read = read(&self.files)?;
        self.current.replace(read).map_err(|error| wrong(CERTIFICATE, &self.files.certificate, &error))
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
        let config = config.map_err(|error| wrong(CERTIFICATE, &tls.certificate, &error))?;
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
    let (file, chain) = (key, chain(CERTIFICATE, certificate)?);
    let text = std::fs::read(file).map_err(|error| Failure::file(KEY, file, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            wrong(KEY, file, &"no private key in it; want PEM with BEGIN PRIVATE KEY")
        }
        error => wrong(KEY, file, &error),
    })?;
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
        Err(rustls::Error::InconsistentKeys(_)) => {
            let shown = certificate.display();
            Err(wrong(KEY, file, &format!("it is not the key of the certificate in {shown}")))
        }
        // The library says what else may be wrong, and of which entry.
        _ => Ok(Identity { names: names.to_vec(), chain, key }),
    }
}

fn chain(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let text = std::fs::read(path).map_err(|error| Failure::file(key, path, &error))?;
    match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if chain.is_empty() => {
            Err(wrong(key, path, &"no certificate in it; want PEM with BEGIN CERTIFICATE"))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(wrong(key, path, &error)),
    }
}

/// Whether a listener's files can be read and used, as at a start.
pub(crate) fn check(tls: &Tls) -> Result<(), Failure> {
    Chains::load(tls)?;
    tls.client_ca.as_deref().map_or(Ok(()), |path| clients(path, tls.clients).map(drop))
}

/// What clients that verify will stumble over, while the others come in: the times and the names of certificates.
pub(crate) fn warnings(tls: &Tls, hostname: &Domain, now: Timestamp) -> Vec<String> {
    let own = (&tls.certificate, std::slice::from_ref(hostname));
    let more = tls.more.iter().map(|more| (&more.certificate, &more.names[..]));
    let of = |(path, names): (&std::path::PathBuf, &[Domain])| certificate_warnings(path, names, now);
    std::iter::once(own).chain(more).flat_map(of).collect()
}

fn certificate_warnings(path: &Path, names: &[Domain], now: Timestamp) -> Vec<String> {
    let shown = format!("{CERTIFICATE} {}", path.display());
    let Some(certificate) = chain(CERTIFICATE, path).ok().and_then(|chain| chain.into_iter().next()) else {
        return Vec::new();
    };
    let certificate = match webpki::EndEntityCert::try_from(&certificate) {
        Ok(certificate) => certificate,
        Err(error) => return vec![format!("{shown}: clients will not understand it: {error}")],
    };
    // Without roots nobody is vouched for; the times are looked at first.
    let at = |time: Timestamp| {
        let time = UnixTime::since_unix_epoch(Duration::from_millis(time.millis()));
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        certificate
            .verify_for_usage(algorithms, &[], &[], time, webpki::KeyUsage::server_auth(), None, None)
            .err()
    };
    let mut found = Vec::new();
    match at(now) {
        Some(webpki::Error::CertExpired { not_after, .. }) => {
            let since = Timestamp::from_secs(not_after.as_secs());
            found.push(format!("{shown}: it expired at {since}; renew it, then SIGHUP"));
        }
        Some(webpki::Error::CertNotValidYet { .. }) => {
            found.push(format!("{shown}: its time has not begun yet"))
        }
        _ => {
            if let Some(webpki::Error::CertExpired { not_after, .. }) = at(now + SOON) {
                let until = Timestamp::from_secs(not_after.as_secs());
                found.push(format!("{shown}: it expires at {until}; renew it, then SIGHUP"));
            }
        }
    }
    for name in names {
        let is_for = |name| certificate.verify_is_valid_for_subject_name(&name).is_ok();
        if !ServerName::try_from(name.as_str()).is_ok_and(is_for) {
            found.push(format!("{shown}: it is not for {name}, so clients that verify will not send"));
        }
    }
    found
}

fn clients(path: &Path, clients: Clients) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    let mut roots = RootCertStore::empty();
    for root in chain(CLIENT_CA, path)? {
        roots.add(root).map_err(|error| wrong(CLIENT_CA, path, &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if clients == Clients::Ask {
        builder = builder.allow_unauthenticated();
    }
    let verifier: Arc<dyn ClientCertVerifier> =
        builder.build().map_err(|error| wrong(CLIENT_CA, path, &error))?;
    Ok(verifier)
}

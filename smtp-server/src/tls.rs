//! TLS for a server: certificates that can be swapped while it runs, chosen by name.
//!
//! Invariant: a handshake uses either the old certificates or the new ones, whole; connections that stand are not
//! touched. The crypto provider is ring, named explicitly; the process default is neither read nor set.
//!
//! Standards: RFC 8446, RFC 5246 (TLS 1.3 and 1.2 only), RFC 6066 3 (SNI), RFC 9266 (tls-exporter), RFC 5929 4
//! (tls-server-end-point).
//!
//! Not here: reading files and watching them (the embedder calls [`Certificates::replace`]).

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use postwright_core::Domain;
use postwright_smtp_proto::TlsInfo;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is not one certificate.
    #[error("no certificate is given; TLS needs at least one chain with its key")]
    Empty,
    /// A chain and its key do not fit, or the key is of a kind that cannot sign.
    #[error("the certificate of entry {entry} cannot be used: {source}")]
    Chain {
        /// Which entry, counted from 0.
        entry: usize,
        /// Why.
        source: rustls::Error,
    },
    /// The settings contradict each other.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// One chain with its key and the names it is for.
#[derive(Debug)]
pub struct Identity {
    /// Names asked for by SNI that get this chain, exactly.
    pub names: Vec<Domain>,
    /// The chain, the server's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// Certificates by name; the first is for clients that ask for no name or for an unknown one. Clones share them.
#[derive(Clone)]
pub struct Certificates {
    current: Arc<RwLock<Arc<Table>>>,
}

struct Table(Vec<(Vec<Domain>, Arc<CertifiedKey>)>);

impl Certificates {
    /// Checks each chain against its key.
    pub fn new(identities: Vec<Identity>) -> Result<Certificates, TlsError> {
        Ok(Certificates { current: Arc::new(RwLock::new(Arc::new(table(identities)?))) })
    }

    /// Uses other certificates from the next handshake on. If they are no good, the old ones stay.
    pub fn replace(&self, identities: Vec<Identity>) -> Result<(), TlsError> {
        let table = Arc::new(table(identities)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    fn for_name(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let table = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted = name.and_then(|name| name.parse::<Domain>().ok());
        let by_name = wanted.and_then(|wanted| table.0.iter().find(|(names, _)| names.contains(&wanted)));
        by_name.or_else(|| table.0.first()).map(|(_, key)| key.clone())
    }
}

fn table(identities: Vec<Identity>) -> Result<Table, TlsError> {
    if identities.is_empty() {
        return Err(TlsError::Empty);
    }
    let provider = provider();
    let mut all = Vec::with_capacity(identities.len());
    for (entry, identity) in identities.into_iter().enumerate() {
        let key = CertifiedKey::from_der(identity.chain, identity.key, &provider)
            .map_err(|source| TlsError::Chain { entry, source })?;
        all.push((identity.names, Arc::new(key)));
    }
    Ok(Table(all))
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.for_name(hello.server_name())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

/// Session tickets: fewer full handshakes, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tickets {
    /// None. The default for port 25: some large senders fail to resume and then defer the mail.
    #[default]
    Off,
    /// With keys of this server's own that rotate.
    On,
}

/// A rustls configuration for a mail server: TLS 1.3 and 1.2, ring, the given certificates.
///
/// Client certificates are asked for if `clients` is given; whether one is needed is the verifier's to say.
pub fn server_config(
    certificates: &Certificates,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    tickets: Tickets,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates.clone()));
    match tickets {
        Tickets::Off => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Tickets::On => config.ticketer = rustls::crypto::ring::Ticketer::new()?,
    }
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificate that a handshake showed.
#[derive(Debug, Default)]
pub(crate) struct Shown(OnceLock<Arc<CertifiedKey>>);

/// The same configuration for one handshake, which notes the certificate that it shows: rustls does not tell
/// afterwards, and asking for it again could find another after [`Certificates::replace`].
pub(crate) fn noting_what_is_shown(config: &ServerConfig) -> (Arc<ServerConfig>, Arc<Shown>) {
    let shown = Arc::new(Shown::default());
    let mut config = config.clone();
    config.cert_resolver = Arc::new(Noting { inner: config.cert_resolver.clone(), shown: shown.clone() });
    (Arc::new(config), shown)
}

#[derive(Debug)]
struct Noting {
    inner: Arc<dyn ResolvesServerCert>,
    shown: Arc<Shown>,
}

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = self.inner.resolve(hello)?;
        // One handshake resolves once; a second time would show the same.
        let _ = self.shown.0.set(key.clone());
        Some(key)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.inner.only_raw_public_keys()
    }
}

impl Shown {
    /// The `tls-server-end-point` binding (RFC 5929 4.1).
    #[cfg(feature = "auth")]
    fn end_point(&self) -> Option<Box<[u8]>> {
        postwright_smtp_proto::sasl::server_end_point(self.0.get()?.end_entity_cert().ok()?)
    }

    #[cfg(not(feature = "auth"))]
    fn end_point(&self) -> Option<Box<[u8]>> {
        None
    }
}

/// What a session is told about its TLS.
pub(crate) fn describe(connection: &ServerConnection, shown: &Shown) -> TlsInfo {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    // RFC 9266 4.2: in TLS 1.2 the exporter is unique only with the extended master secret, which is not shown here.
    let unique = version == "TLSv1.3";
    let exporter = connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok();
    TlsInfo {
        version: version.into(),
        cipher: cipher.unwrap_or("unknown").into(),
        server_name: connection.server_name().map(Into::into),
        // rustls has run the verifier before it shows a certificate.
        verified: certificate.is_some(),
        peer_certificate: certificate.map(|certificate| certificate.as_ref().into()),
        exporter: exporter.filter(|_| unique),
        server_end_point: shown.end_point(),
    }
}

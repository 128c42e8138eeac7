//! TLS for the client: whom to trust, what is demanded of a certificate, and what was found out about it.
//!
//! Invariant: the cryptography provider is ring, named here and never a process-wide default. What is recorded as
//! verified was verified: with [`Demand::Nothing`] the certificate is checked all the same, and the result is
//! recorded instead of enforced. Sessions are not resumed, so that every connection shows its certificate.
//!
//! Standards: RFC 3207 4.1, RFC 7435 (opportunistic security), RFC 9525 (names), RFC 8461 4.1.
//!
//! Not here: which demand applies to a destination (policy).

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::dane::{self, Mismatch, Tlsa};
use postwright_core::{Clock, Host};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Whose certificates are believed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// The certification authorities of Mozilla's programme, compiled in.
    #[cfg(feature = "webpki-roots")]
    Web,
    /// The same, and these: a private authority beside the public ones.
    #[cfg(feature = "webpki-roots")]
    WebAnd(Vec<CertificateDer<'static>>),
    /// These authorities only; none at all is possible, and then nothing is ever verified.
    Roots(Vec<CertificateDer<'static>>),
}

/// Why no TLS client can be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A root certificate cannot be read; the caller's configuration is at fault.
    #[error("root certificate {index} (counted from 0) cannot be read: {why}")]
    Root {
        /// Which of the given roots.
        index: usize,
        /// What is wrong with it.
        why: rustls::Error,
    },
}

/// What a server's certificate must be for a session to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Demand {
    /// Anything: encryption against those who only listen (RFC 7435).
    #[default]
    Nothing,
    /// Issued under a trusted root, for one of these names, and not expired. Without names: for the host's own.
    Valid {
        /// Acceptable names instead of the host's own.
        names: Vec<Box<str>>,
    },
    /// Matched by one of these TLSA records (RFC 7672).
    Dane {
        /// The records; usable ones only.
        records: Vec<Tlsa>,
        /// Acceptable names with DANE-TA. The first is the TLSA base domain, and the name for SNI.
        names: Vec<Box<str>>,
    },
}

/// What was wrong with a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsFault {
    /// The certificate is out of date.
    Expired,
    /// The certificate is for another host.
    WrongName,
    /// No trusted root vouches for the certificate.
    NotTrusted,
    /// No TLSA record matches.
    Dane,
    /// The certificate is faulty in another way.
    Certificate,
    /// The handshake did not come about.
    Handshake,
}

impl TlsFault {
    pub(crate) fn of(error: &rustls::Error) -> TlsFault {
        use rustls::CertificateError as Bad;
        match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. } => TlsFault::Expired,
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => TlsFault::WrongName,
                Bad::UnknownIssuer => TlsFault::NotTrusted,
                Bad::ApplicationVerificationFailure => TlsFault::Dane,
                _ => TlsFault::Certificate,
            },
            _ => TlsFault::Handshake,
        }
    }
}

/// Builds TLS sessions. Cheap to clone.
#[derive(Clone)]
pub struct TlsClient {
    provider: Arc<CryptoProvider>,
    time: Arc<dyn TimeProvider>,
    /// `None` if there are no roots, so that nothing can be verified.
    roots: Option<Arc<WebPkiServerVerifier>>,
}

impl TlsClient {
    /// A client that believes `trust` and reads the time from `clock`.
    ///
    /// # Errors
    /// A given root cannot be read.
    pub fn new(trust: &Trust, clock: Arc<dyn Clock>) -> Result<TlsClient, TlsSetupError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut store = RootCertStore::empty();
        #[cfg(feature = "webpki-roots")]
        if matches!(trust, Trust::Web | Trust::WebAnd(_)) {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let own = match trust {
            #[cfg(feature = "webpki-roots")]
            Trust::Web => &[][..],
            #[cfg(feature = "webpki-roots")]
            Trust::WebAnd(roots) => roots,
            Trust::Roots(roots) => roots,
        };
        for (index, root) in own.iter().enumerate() {
            store.add(root.clone()).map_err(|why| TlsSetupError::Root { index, why })?;
        }
        // The builder fails only for an empty store, which here means that nothing can be verified.
        let roots =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().ok();
        Ok(TlsClient { provider, time: Arc::new(ClockTime(clock)), roots })
    }

    /// A configuration for other protocols than SMTP that verifies strictly against the same roots; `None` if there
    /// are none.
    pub fn strict(&self) -> Option<Arc<ClientConfig>> {
        let roots = self.roots.clone()?;
        let mut config = ClientConfig::builder_with_details(self.provider.clone(), self.time.clone())
            .with_safe_default_protocol_versions()
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Some(Arc::new(config))
    }

    /// A configuration for one connection, and where the verdict on the certificate will be found.
    pub(crate) fn session(
        &self,
        demand: &Demand,
    ) -> Result<(Arc<ClientConfig>, Arc<Verdict>), rustls::Error> {
        let verdict = Arc::new(Verdict::default());
        let verifier = Verifier {
            provider: self.provider.clone(),
            roots: self.roots.clone(),
            demand: demand.clone(),
            verdict: verdict.clone(),
        };
        let mut config = ClientConfig::builder_with_details(self.provider.clone(), self.time.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok((Arc::new(config), verdict))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("can_verify", &self.roots.is_some()).finish()
    }
}

/// The name that a certificate is checked against and that is sent as SNI.
pub(crate) fn server_name(host: &Host, demand: &Demand) -> Option<ServerName<'static>> {
    // RFC 7672 8.1: with DANE the SNI is the TLSA base domain.
    if let Demand::Dane { names, .. } = demand {
        return names.first().and_then(|name| ServerName::try_from(name.to_string()).ok());
    }
    match host {
        Host::Domain(domain) => ServerName::try_from(domain.as_str().to_owned()).ok(),
        Host::Literal(ip) => Some(ServerName::IpAddress((*ip).into())),
    }
}

/// What came of checking the certificate: written once, during the handshake.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    result: OnceLock<Result<(), rustls::Error>>,
}

impl Verdict {
    /// Whether the certificate was verified.
    pub(crate) fn is_verified(&self) -> bool {
        matches!(self.result.get(), Some(Ok(())))
    }

    /// What is wrong with it, enforced or not.
    pub(crate) fn fault(&self) -> Option<TlsFault> {
        self.result.get()?.as_ref().err().map(TlsFault::of)
    }
}

/// rustls's time, taken from our clock.
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0.now().millis())))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

/// Checks a certificate, records the result, and enforces it if that is demanded.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Option<Arc<WebPkiServerVerifier>>,
    demand: Demand,
    verdict: Arc<Verdict>,
}

impl Verifier {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if let Demand::Dane { records, names } = &self.demand {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let chain: Vec<CertificateDer<'_>> = std::iter::once(certificate)
                .chain(others)
                .map(|der| CertificateDer::from(der.as_ref()))
                .collect();
            let names: Vec<ServerName<'_>> =
                names.iter().filter_map(|name| ServerName::try_from(&**name).ok()).collect();
            return dane::verify(records, &chain, &names, algorithms, now).map(drop).map_err(|mismatch| {
                match mismatch {
                    Mismatch::Name => rustls::CertificateError::NotValidForName.into(),
                    Mismatch::Expired => rustls::CertificateError::Expired.into(),
                    Mismatch::NoMatch | Mismatch::Chain => {
                        rustls::CertificateError::ApplicationVerificationFailure.into()
                    }
                }
            });
        }
        let roots = self.roots.as_ref().ok_or(rustls::CertificateError::UnknownIssuer)?;
        let check =
            |name: &ServerName<'_>| roots.verify_server_cert(certificate, others, name, &[], now).map(drop);
        match &self.demand {
            Demand::Valid { names } if !names.is_empty() => {
                let mut result = Err(rustls::CertificateError::NotValidForName.into());
                for name in names {
                    let name = ServerName::try_from(&**name)
                        .map_err(|_| rustls::Error::General(format!("{name:?} is no host name")))?;
                    result = check(&name);
                    if result.is_ok() {
                        break;
                    }
                }
                result
            }
            _ => check(host),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = self.check(end_entity, intermediates, server_name, now);
        let enforced = if self.demand == Demand::Nothing { Ok(()) } else { result.clone() };
        // A second handshake on the same configuration does not happen: each connection has its own.
        let _ = self.verdict.result.set(result);
        enforced.map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

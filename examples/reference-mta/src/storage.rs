//! Which spool `serve` works on: a folder of its own, or a database that several nodes share.
//!
//! Invariant: a spool that does not keep the promise of a 250 is only used when the file says so, and then the log says it
//! too. Nothing goes to a database over a network without TLS and a certificate that was verified, unless the connection
//! string says `sslmode=disable` (I6).
//!
//! Not here: the spools (postwright-queue).

use std::sync::Arc;

use postwright::core::Clock;
use postwright::queue::{Condition, Durability, EmbeddedOptions, EmbeddedSpool, Health, Spool, SyncLevel};

use crate::commands::Failure;
use crate::config::Config;

/// Opens the spool that the configuration names.
pub(crate) async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Spool>, Failure> {
    let mut durability = Durability::default();
    if config.spool.relaxed {
        durability = Durability { accept: SyncLevel::Relaxed, update: SyncLevel::Relaxed };
        tracing::warn!("spool.relaxed is set: a power cut may lose mail that was acknowledged");
    }
    if let Some(address) = &config.spool.postgres {
        return shared(config, address, durability).await;
    }
    let mut options = EmbeddedOptions::new(&config.spool.path, clock);
    options.min_free = config.spool.min_free;
    options.durability = durability;
    let spool = EmbeddedSpool::open(options).map_err(Failure::new)?;
    for damage in spool.damaged_journals() {
        tracing::error!("the spool: {damage}; mail that was accepted may be lost");
    }
    if let Health { condition: Condition::Full, free: Some(free), .. } = spool.health() {
        let (path, min) = (config.spool.path.display(), config.spool.min_free);
        tracing::warn!(
            "spool.path {path}: {free} octets are free there and spool.min_free is {min}; new mail gets 452 until more is free"
        );
    }
    Ok(Arc::new(spool))
}

#[cfg(feature = "postgres")]
async fn shared(config: &Config, address: &str, durability: Durability) -> Result<Arc<dyn Spool>, Failure> {
    use postwright::queue::{PostgresOptions, PostgresSpool};
    use tokio_postgres::config::SslMode;

    let wrong = |what: &dyn std::fmt::Display| Failure::new(format!("spool.postgres: {what}"));
    let mut address: tokio_postgres::Config = address.parse().map_err(|error| wrong(&error))?;
    keep_secret(&mut address);
    let node = config.spool.node.as_deref().unwrap_or(config.hostname.as_str());
    let mut options = PostgresOptions::new(node);
    options.lease = config.spool.lease;
    // A word that takes longer than half a lease comes too late.
    options.deadline = options.deadline.min(config.spool.lease / 2);
    options.durability = durability;
    let spool = match address.get_ssl_mode() {
        // A TLS connector wants a host's name, which a socket does not have.
        SslMode::Disable => PostgresSpool::connect(address, tokio_postgres::NoTls, options).await,
        _ => PostgresSpool::connect(address, tls(config)?, options).await,
    };
    Ok(Arc::new(spool.map_err(|error| wrong(&error))?))
}

/// A socket or loopback needs no TLS; over a network it is required, and only the operator's word takes that back.
#[cfg(feature = "postgres")]
fn keep_secret(address: &mut tokio_postgres::Config) {
    use tokio_postgres::config::{Host, SslMode};

    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    // With `hostaddr` the name is only a name.
    let all_here = address.get_hosts().iter().all(is_here)
        && address.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    if address.get_ssl_mode() == SslMode::Prefer {
        address.ssl_mode(if all_here { SslMode::Disable } else { SslMode::Require });
    }
}

/// TLS 1.2 and 1.3 with ring, chosen here and not process-wide; the certificate must be for the host's name.
#[cfg(feature = "postgres")]
fn tls(config: &Config) -> Result<tokio_postgres_rustls::MakeRustlsConnect, Failure> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let mut roots = rustls::RootCertStore::empty();
    if let Some(path) = &config.spool.postgres_roots {
        let wrong = |what: &dyn std::fmt::Display| {
            Failure::new(format!("spool.postgres_roots {}: {what}", path.display()))
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"holds no certificate"));
        }
    } else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.map_err(Failure::new)?.with_root_certificates(roots).with_no_client_auth();
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(client))
}

#[cfg(not(feature = "postgres"))]
#[expect(clippy::unused_async, reason = "its twin with the feature waits for the database")]
async fn shared(_: &Config, _: &str, _: Durability) -> Result<Arc<dyn Spool>, Failure> {
    Err(Failure::new("spool.postgres: this program was built without the feature `postgres`"))
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn mail_crosses_no_network_in_clear_text_unawares() {
        use tokio_postgres::config::SslMode;
        let mode = |address: &str| {
            let mut address = address.parse().unwrap();
            keep_secret(&mut address);
            address.get_ssl_mode()
        };
        for address in [
            "host=/run/postgresql user=a",
            "host=localhost user=a",
            "host=127.0.0.1,::1 user=a",
            "postgresql://a@10.1.2.3/mail?sslmode=disable",
        ] {
            assert_eq!(mode(address), SslMode::Disable, "{address}");
        }
        for address in [
            "host=db.example.org user=a",
            "host=10.1.2.3 user=a",
            "host=/run/postgresql,db.example.org user=a",
            "host=localhost hostaddr=10.1.2.3 user=a",
            "host=localhost sslmode=require user=a",
        ] {
            assert_eq!(mode(address), SslMode::Require, "{address}");
        }
    }
}

//! Which spool `serve` works on: a folder of its own, or a database that several nodes share.
//!
//! Invariant: a spool that does not keep the promise of a 250 is only used when the file says so, and then the log says it
//! too. Nothing goes to a database over a network in clear text unless the connection string says `sslmode=disable` (I6).
//!
//! Not here: the spools (postwright-queue).

use std::sync::Arc;

use postwright::core::Clock;
use postwright::queue::{Durability, EmbeddedOptions, EmbeddedSpool, Spool, SyncLevel};

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
    Ok(Arc::new(spool))
}

#[cfg(feature = "postgres")]
async fn shared(config: &Config, address: &str, durability: Durability) -> Result<Arc<dyn Spool>, Failure> {
    use postwright::queue::{PostgresOptions, PostgresSpool};

    let wrong = |what: &dyn std::fmt::Display| Failure::new(format!("spool.postgres: {what}"));
    let address: tokio_postgres::Config = address.parse().map_err(|error| wrong(&error))?;
    check_secrecy(&address).map_err(|what| wrong(&what))?;
    let node = config.spool.node.as_deref().unwrap_or(config.hostname.as_str());
    let mut options = PostgresOptions::new(node);
    options.lease = config.spool.lease;
    // A word that takes longer than half a lease comes too late.
    options.deadline = options.deadline.min(config.spool.lease / 2);
    options.durability = durability;
    let spool = PostgresSpool::connect(address, tokio_postgres::NoTls, options).await;
    Ok(Arc::new(spool.map_err(|error| wrong(&error))?))
}

/// This program does not speak TLS to a database: a socket or loopback needs none, and anything else has to be the
/// operator's word.
#[cfg(feature = "postgres")]
fn check_secrecy(address: &tokio_postgres::Config) -> Result<(), String> {
    use tokio_postgres::config::{Host, SslMode};

    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    match address.get_ssl_mode() {
        SslMode::Disable => Ok(()),
        // With `hostaddr` the name is only a name.
        SslMode::Prefer
            if address.get_hosts().iter().all(is_here)
                && address.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback) =>
        {
            Ok(())
        }
        _ => Err("mail would cross a network in clear text, since this program does not speak TLS to a database; use a \
                  socket, or a TLS tunnel that ends on loopback, or write sslmode=disable if the network is trusted"
            .to_owned()),
    }
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
        let is_fine = |address: &str| check_secrecy(&address.parse().unwrap()).is_ok();
        for address in [
            "host=/run/postgresql user=a",
            "host=localhost user=a",
            "host=127.0.0.1,::1 user=a",
            "postgresql://a@10.1.2.3/mail?sslmode=disable",
        ] {
            assert!(is_fine(address), "{address}");
        }
        for address in [
            "host=db.example.org user=a",
            "host=10.1.2.3 user=a",
            "host=/run/postgresql,db.example.org user=a",
            "host=localhost hostaddr=10.1.2.3 user=a",
            "host=localhost sslmode=require user=a",
        ] {
            assert!(!is_fine(address), "{address}");
        }
    }
}

//! Which spool `serve` works on: a folder of its own, or a database that several nodes share.
//!
//! Invariant: a spool that does not keep the promise of a 250 is only used when the file says so, and then the log says it
//! too.
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
    let node = config.spool.node.as_deref().unwrap_or(config.hostname.as_str());
    let mut options = PostgresOptions::new(node);
    options.lease = config.spool.lease;
    // A word that takes longer than half a lease comes too late.
    options.deadline = options.deadline.min(config.spool.lease / 2);
    options.durability = durability;
    let spool = PostgresSpool::connect(address, tokio_postgres::NoTls, options).await;
    Ok(Arc::new(spool.map_err(|error| wrong(&error))?))
}

#[cfg(not(feature = "postgres"))]
#[expect(clippy::unused_async, reason = "its twin with the feature waits for the database")]
async fn shared(_: &Config, _: &str, _: Durability) -> Result<Arc<dyn Spool>, Failure> {
    Err(Failure::new("spool.postgres: this program was built without the feature `postgres`"))
}

//! The counts of `postwright serve` on a Redis or Valkey server: one set of limits for several nodes.
//!
//! Invariant: who waits for the server does not hold up others' work: the runtime is told of every call that may block. A
//! call takes no longer than [`PATIENCE`] a step; a server that does not answer is left alone for a second, and each node
//! keeps to its share meanwhile.
//!
//! Not here: how limits are counted there and how much may go beyond them (the library).

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use postwright::core::Timestamp;
use postwright::shaping::{Limits, TokenStore};
use postwright_shaping::{
    Address, Ask, Bound, Cell, Key, Receipt, RedisLink, RedisSettings, RedisTokenStore, Refused,
};
use tokio::task::block_in_place;

use crate::commands::Failure;
use crate::config::{Delivery, RedisServer};

/// How long one step of a call may take: connecting, sending, waiting.
const PATIENCE: Duration = Duration::from_millis(500);

/// The store that the configuration names, if it names one.
pub(crate) fn open(delivery: &Delivery) -> Result<Option<Arc<dyn TokenStore>>, Failure> {
    let Some(server) = &delivery.shaping_redis else { return Ok(None) };
    let wrong =
        |what: &dyn std::fmt::Display| Failure::new(format!("delivery.shaping_redis {server:?}: {what}"));
    let link = match server {
        RedisServer::Unix(path) => RedisLink::new(Address::Unix(path.clone()), PATIENCE),
        RedisServer::Tcp { host, port, password } => {
            let mut found = (host.as_str(), *port).to_socket_addrs().map_err(|error| wrong(&error))?;
            let address = found.next().ok_or_else(|| wrong(&"the host has no address"))?;
            let link = RedisLink::new(Address::Tcp(address), PATIENCE);
            match password {
                Some(password) => link.with_password(password),
                None => link,
            }
        }
    };
    let settings = RedisSettings::for_node(delivery.shaping_node, delivery.shaping_nodes);
    tracing::info!(?server, node = settings.node, nodes = settings.nodes, "limits are counted there");
    Ok(Some(Arc::new(Waiting(RedisTokenStore::new(link, settings)))))
}

/// Tells the runtime before it waits.
struct Waiting(RedisTokenStore);

impl TokenStore for Waiting {
    fn cell(&self, key: &Key, home: u64, bound: &Bound) -> Arc<Cell> {
        self.0.cell(key, home, bound)
    }

    fn take(&self, limits: &Limits, ask: Ask, ttl: Duration, now: Timestamp) -> Result<Receipt, Refused> {
        block_in_place(|| self.0.take(limits, ask, ttl, now))
    }

    fn lease(&self, limits: &Limits, receipt: &mut Receipt, ttl: Duration, now: Timestamp) -> bool {
        block_in_place(|| self.0.lease(limits, receipt, ttl, now))
    }

    fn release(&self, limits: &Limits, receipt: &Receipt, refund: bool) {
        block_in_place(|| self.0.release(limits, receipt, refund));
    }

    fn sweep(&self, now: Timestamp) {
        block_in_place(|| self.0.sweep(now));
    }
}

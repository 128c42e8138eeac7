//! Connections kept open for the next message.
//!
//! Invariant: a connection that died in the pool is never a failed message: it is looked at before it is used, and
//! if it dies on the first command, the message goes out on another one. A connection is used by one message at a
//! time. The pool never holds more connections than its limits say.
//!
//! Standards: RFC 5321 3.3 (several transactions in a session), 4.5.3.2.7 (idle servers wait 5 minutes).
//!
//! Not here: how many connections a site may have (shaping).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::{Clock, Instant};
use postwright_smtp_proto::client::{Report, Transaction};

use crate::client::{Client, is_lost, is_misfit};
use crate::connect::Target;
use crate::connection::{Connection, Options};

/// How long and how many connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolLimits {
    /// How long a connection may be idle: 15 s. Servers wait at least 5 minutes (RFC 5321 4.5.3.2.7), but an idle
    /// connection is a slot that someone else could use.
    pub idle: Duration,
    /// Most transactions on one connection: 100.
    pub transactions: u32,
    /// Most idle connections for one key: 20.
    pub per_key: usize,
    /// Most idle connections in all: 1,000.
    pub total: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits { idle: Duration::from_secs(15), transactions: 100, per_key: 20, total: 1000 }
    }
}

/// Idle connections by key. The key says what makes connections alike: source, destination, TLS policy, account.
pub struct Pool<K> {
    limits: PoolLimits,
    clock: Arc<dyn Clock>,
    idle: Mutex<BTreeMap<K, Vec<Idle>>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl<K: Ord + Clone> Pool<K> {
    /// An empty pool.
    pub fn new(limits: PoolLimits, clock: Arc<dyn Clock>) -> Pool<K> {
        Pool { limits, clock, idle: Mutex::new(BTreeMap::new()) }
    }

    /// Sends one message: on an idle connection of `key` if one is alive, else to the first of `targets` that
    /// takes part. Afterwards the connection is kept.
    pub async fn deliver(
        &self,
        key: &K,
        client: &Client,
        targets: &[Target],
        options: &Options,
        transaction: Transaction,
    ) -> Report {
        if let Some(mut connection) = self.take(key).await {
            let report = connection.deliver(transaction.clone()).await;
            let decided = !is_lost(&report) && !is_misfit(&report);
            self.put(key, connection);
            if decided {
                return report;
            }
        }
        let (report, connection) = client.deliver_keeping(targets, options, transaction).await;
        if let Some(connection) = connection {
            self.put(key, connection);
        }
        report
    }

    /// Takes the connection of `key` that was used last, if one is alive.
    pub async fn take(&self, key: &K) -> Option<Connection> {
        loop {
            let mut idle = self.pop(key)?;
            let fresh = self.clock.mono().since(idle.since) < self.limits.idle;
            if fresh && idle.connection.is_alive().await {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection for the next message, unless it is closed, worn out, or one too many.
    ///
    /// A connection that is not kept is closed without QUIT.
    pub fn put(&self, key: &K, connection: Connection) {
        if !connection.is_open() || connection.transactions() >= self.limits.transactions {
            return;
        }
        let since = self.clock.mono();
        let mut idle = self.lock();
        let total: usize = idle.values().map(Vec::len).sum();
        let of_key = idle.get(key).map_or(0, Vec::len);
        if total < self.limits.total && of_key < self.limits.per_key {
            idle.entry(key.clone()).or_default().push(Idle { connection, since });
        }
    }

    /// Takes out the connections that have been idle for too long, or all with `everything`: call it now and then,
    /// and at the end, and say [`quit`](Connection::quit) on each.
    pub fn retire(&self, everything: bool) -> Vec<Connection> {
        let now = self.clock.mono();
        let mut retired = Vec::new();
        let mut idle = self.lock();
        for connections in idle.values_mut() {
            let old = |idle: &mut Idle| everything || now.since(idle.since) >= self.limits.idle;
            retired.extend(connections.extract_if(.., old).map(|idle| idle.connection));
        }
        idle.retain(|_, connections| !connections.is_empty());
        retired
    }

    /// Takes out the connection that has been idle for longest among those whose key fits: to make room for another.
    pub fn take_oldest(&self, fits: impl Fn(&K) -> bool) -> Option<Connection> {
        let mut idle = self.lock();
        let fitting = idle.iter().filter(|(key, _)| fits(key));
        // Those of one key were pushed in the order in which they became idle.
        let oldest = fitting.filter_map(|(key, of_key)| Some((of_key.first()?.since, key)));
        let key = oldest.min_by_key(|(since, _)| *since)?.1.clone();
        let of_key = idle.get_mut(&key)?;
        let taken = (!of_key.is_empty()).then(|| of_key.remove(0));
        if of_key.is_empty() {
            idle.remove(&key);
        }
        taken.map(|idle| idle.connection)
    }

    /// How many idle connections there are.
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pop(&self, key: &K) -> Option<Idle> {
        let mut idle = self.lock();
        let connections = idle.get_mut(key)?;
        let last = connections.pop();
        if connections.is_empty() {
            idle.remove(key);
        }
        last
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Vec<Idle>>> {
        // Nothing that runs under the lock can leave the map half-changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> std::fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("limits", &self.limits).finish_non_exhaustive()
    }
}

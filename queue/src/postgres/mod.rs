//! [`PostgresSpool`]: one queue for several nodes, on PostgreSQL.
//!
//! A claim is a lease: a row names its owner, until when, and an epoch that grows with every change of hands. Every
//! change names the epoch, so that a node that lost a lease can change nothing any more, however late its words arrive.
//! Leases are measured by the database's clock alone. A node that starts again under its name frees what it held
//! before; of two processes with one name the second is refused.
//!
//! Invariant: a change is made only by whoever holds the epoch; all changes of a commit happen or none.
//!
//! Needs PostgreSQL 12 or later and a tokio runtime.
//!
//! Not here: the cluster. Fail-over, replication and backup are PostgreSQL's; `synchronous_commit` of the server
//! decides whether a commit also survives the loss of the primary.

mod pool;
mod schema;
mod work;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use postwright_core::{BoxFuture, Timestamp};
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Socket};

use crate::error::SpoolError;
use crate::spool::{
    Change, Claim, Claimed, Condition, Durability, Health, Loaded, Page, Scan, Spool, SyncLevel, Want,
};
use crate::{SpoolId, check};
use pool::Pool;

/// How a [`PostgresSpool`] is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The name of this node; no two live nodes have the same one.
    pub node: Box<str>,
    /// How long a claim holds without being renewed. Default 60 s; renew at a third of it.
    pub lease: Duration,
    /// Connections for work. Default 8.
    pub connections: usize,
    /// How long one verb may take, waiting for a connection included. Default 10 s.
    pub deadline: Duration,
    /// What commits wait for. [`SyncLevel::Relaxed`] sets `synchronous_commit` to off.
    pub durability: Durability,
}

impl PostgresOptions {
    /// The defaults, for a node.
    pub fn new(node: &str) -> PostgresOptions {
        PostgresOptions {
            node: node.into(),
            lease: Duration::from_secs(60),
            connections: 8,
            deadline: Duration::from_secs(10),
            durability: Durability::default(),
        }
    }
}

/// A spool that several nodes share.
///
/// Pass `tokio_postgres::NoTls` for a socket on the same machine, or any TLS connector for `tokio-postgres` otherwise.
pub struct PostgresSpool {
    pool: Arc<Pool>,
    options: PostgresOptions,
    news: Arc<Notify>,
    presence: tokio::task::JoinHandle<()>,
    commits: AtomicU64,
    syncs: AtomicU64,
    quarantined: AtomicU64,
    reopened: Arc<AtomicU64>,
    failing: AtomicBool,
}

/// An error of the database as ours.
fn unavailable(error: &tokio_postgres::Error) -> SpoolError {
    let full = [SqlState::DISK_FULL, SqlState::OUT_OF_MEMORY, SqlState::INSUFFICIENT_RESOURCES];
    if error.code().is_some_and(|code| full.contains(code)) {
        return SpoolError::Full { free: 0, min: 0 };
    }
    let text = match error.as_db_error() {
        Some(inner) => inner.to_string(),
        None => error.to_string(),
    };
    SpoolError::Unavailable(text.into())
}

impl PostgresSpool {
    /// Connects, brings the tables up to date, and frees what an earlier process of this node held.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] if a live process has the same node name, [`SpoolError::Format`] if the tables are of
    /// a later version, [`SpoolError::Unavailable`] if the database cannot be reached.
    pub async fn connect<T>(
        config: Config,
        tls: T,
        options: PostgresOptions,
    ) -> Result<PostgresSpool, SpoolError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + std::marker::Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let pool = Arc::new(Pool::new(config, tls, options.connections));
        let mut lent = pool.lend().await?;
        schema::migrate(&mut lent.client).await?;
        lent.give_back();
        let (news, lost) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let client = be_present(&pool, &options, lost.clone()).await?;
        let freed = client
            .execute("UPDATE postwright_message SET owner = NULL WHERE owner = $1", &[&&*options.node])
            .await;
        freed.map_err(|error| unavailable(&error))?;
        let reopened = Arc::new(AtomicU64::new(0));
        let presence = tokio::spawn(stay_present(
            client,
            pool.clone(),
            options.clone(),
            (lost, news.clone()),
            reopened.clone(),
        ));
        Ok(PostgresSpool {
            pool,
            options,
            news,
            presence,
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            reopened,
            failing: AtomicBool::new(false),
        })
    }

    /// Runs a verb within the deadline and remembers how it went.
    async fn timed<T>(&self, work: impl Future<Output = Result<T, SpoolError>>) -> Result<T, SpoolError> {
        let result =
            tokio::time::timeout(self.options.deadline, work).await.unwrap_or(Err(SpoolError::Deadline));
        let failed = matches!(result, Err(SpoolError::Unavailable(_) | SpoolError::Deadline));
        self.failing.store(failed, Ordering::Release);
        result
    }

    /// Puts a damaged record aside, so that no node trips over it again.
    async fn put_aside(&self, error: &SpoolError) {
        let SpoolError::Damaged(damage) = error else { return };
        let Ok(lent) = self.pool.lend().await else { return };
        let sql = "UPDATE postwright_message SET quarantine = $2, owner = NULL WHERE id = $1 AND quarantine IS NULL";
        let reason = damage.reason.to_string();
        if let Ok(rows) = lent.client.execute(sql, &[&&damage.id.as_bytes()[..], &reason]).await {
            self.quarantined.fetch_add(rows, Ordering::AcqRel);
            lent.give_back();
        }
    }
}

/// How often a name that is taken is asked for again: the session of a process that just died ends soon.
const PRESENCE_TRIES: u32 = 20;
const PRESENCE_WAIT: Duration = Duration::from_millis(100);

/// Takes this node's name for as long as the connection lives, and listens for news.
async fn be_present(pool: &Pool, options: &PostgresOptions, news: Arc<Notify>) -> Result<Client, SpoolError> {
    let client = pool.open(news).await?;
    for _ in 0..PRESENCE_TRIES {
        let row = client
            .query_one(
                "SELECT pg_try_advisory_lock(hashtextextended('postwright:' || $1, 0))",
                &[&&*options.node],
            )
            .await
            .map_err(|error| unavailable(&error))?;
        if row.get::<_, bool>(0) {
            client.batch_execute("LISTEN postwright_spool").await.map_err(|error| unavailable(&error))?;
            return Ok(client);
        }
        tokio::time::sleep(PRESENCE_WAIT).await;
    }
    Err(SpoolError::Locked(format!("node {}", options.node).into()))
}

/// Passes news on, and comes back when the connection is lost.
async fn stay_present(
    mut client: Client,
    pool: Arc<Pool>,
    options: PostgresOptions,
    (heard, news): (Arc<Notify>, Arc<Notify>),
    reopened: Arc<AtomicU64>,
) {
    loop {
        // The time-out is for the gap between a look and a wait in which a word may be missed.
        let _ = tokio::time::timeout(Duration::from_secs(1), heard.notified()).await;
        news.notify_waiters();
        while client.is_closed() {
            match be_present(&pool, &options, heard.clone()).await {
                Ok(back) => {
                    client = back;
                    reopened.fetch_add(1, Ordering::AcqRel);
                }
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

impl Drop for PostgresSpool {
    fn drop(&mut self) {
        self.presence.abort();
    }
}

impl Spool for PostgresSpool {
    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<Claim>, SpoolError>> {
        Box::pin(async move {
            check::changes(&changes)?;
            let relaxed = self.options.durability.for_changes(&changes) == SyncLevel::Relaxed;
            let claims = self
                .timed(async {
                    let mut lent = self.pool.lend().await?;
                    let result = work::commit(&mut lent.client, &self.options, changes, relaxed).await;
                    if !matches!(result, Err(SpoolError::Unavailable(_))) {
                        lent.give_back();
                    }
                    result
                })
                .await?;
            self.commits.fetch_add(1, Ordering::AcqRel);
            self.syncs.fetch_add(u64::from(!relaxed), Ordering::AcqRel);
            Ok(claims)
        })
    }

    fn claim(&self, want: Want, now: Timestamp) -> BoxFuture<'_, Result<Vec<Claimed>, SpoolError>> {
        Box::pin(async move {
            let (claimed, damaged) = self
                .timed(async {
                    let lent = self.pool.lend().await?;
                    let result = work::claim(&lent.client, &self.options, want, now).await?;
                    lent.give_back();
                    Ok(result)
                })
                .await?;
            for damage in damaged {
                self.put_aside(&SpoolError::Damaged(damage)).await;
            }
            Ok(claimed)
        })
    }

    fn renew<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<Vec<Claim>, SpoolError>> {
        Box::pin(self.timed(async move {
            let lent = self.pool.lend().await?;
            let lost = work::renew(&lent.client, &self.options, claims).await?;
            lent.give_back();
            Ok(lost)
        }))
    }

    fn load(&self, id: SpoolId) -> BoxFuture<'_, Result<Loaded, SpoolError>> {
        Box::pin(async move {
            let loaded = self
                .timed(async {
                    let lent = self.pool.lend().await?;
                    let loaded = work::load(&lent.client, id).await;
                    lent.give_back();
                    loaded
                })
                .await;
            if let Err(error) = &loaded {
                self.put_aside(error).await;
            }
            loaded
        })
    }

    fn piece(&self, id: SpoolId, index: u32) -> BoxFuture<'_, Result<Option<Bytes>, SpoolError>> {
        Box::pin(self.timed(async move {
            let lent = self.pool.lend().await?;
            let piece = work::piece(&lent.client, id, index).await;
            lent.give_back();
            piece
        }))
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Page, SpoolError>> {
        Box::pin(self.timed(async move {
            let lent = self.pool.lend().await?;
            let page = work::scan(&lent.client, scan).await?;
            lent.give_back();
            Ok(page)
        }))
    }

    fn health(&self) -> Health {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let failing = self.failing.load(Ordering::Acquire);
        Health {
            condition: if failing { Condition::Recovering } else { Condition::Healthy },
            free: None,
            sync_latency: None,
            commits: read(&self.commits),
            syncs: read(&self.syncs),
            reopened: read(&self.reopened),
            quarantined: read(&self.quarantined),
        }
    }

    fn lease(&self) -> Option<Duration> {
        Some(self.options.lease)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.news.notified())
    }
}

impl std::fmt::Debug for PostgresSpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgresSpool(node {})", self.options.node)
    }
}

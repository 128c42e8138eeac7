//! Connections to the database: a few for work, and one that says who we are and listens for news.
//!
//! Invariant: a connection that failed is dropped, never used again; at most `limit` are open for work.
//!
//! Not here: what they are used for.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use postwright_core::BoxFuture;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Socket};

use super::unavailable;
use crate::error::SpoolError;

/// Opens a connection whose notifications wake someone.
type Connect =
    dyn Fn(Arc<Notify>) -> BoxFuture<'static, Result<Client, SpoolError>> + Send + std::marker::Sync;

pub(super) struct Pool {
    connect: Box<Connect>,
    permits: Semaphore,
    idle: Mutex<Vec<Client>>,
    silent: Arc<Notify>,
}

/// A connection in use. [`Lent::give_back`] keeps it; dropped, it is closed.
pub(super) struct Lent<'a> {
    pub(super) client: Client,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Lent<'_> {
    pub(super) fn give_back(self) {
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.client);
    }
}

impl Pool {
    pub(super) fn new<T>(config: Config, tls: T, limit: usize) -> Pool
    where
        T: MakeTlsConnect<Socket> + Clone + Send + std::marker::Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let connect = move |news: Arc<Notify>| -> BoxFuture<'static, Result<Client, SpoolError>> {
            let (config, tls) = (config.clone(), tls.clone());
            Box::pin(async move {
                let (client, mut connection) =
                    config.connect(tls).await.map_err(|error| unavailable(&error))?;
                // The task ends when the client is dropped or the connection is lost.
                tokio::spawn(async move {
                    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                        match message {
                            Ok(AsyncMessage::Notification(_)) => news.notify_waiters(),
                            Ok(_) => {}
                            Err(_) => break,
                        }
                    }
                    // Whoever listens finds out that the connection is gone.
                    news.notify_waiters();
                });
                Ok(client)
            })
        };
        Pool {
            connect: Box::new(connect),
            permits: Semaphore::new(limit.max(1)),
            idle: Mutex::default(),
            silent: Arc::default(),
        }
    }

    /// A connection for work.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, SpoolError> {
        let permit = self.permits.acquire().await.map_err(|_| SpoolError::Closed)?;
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut client = idle();
        while client.as_ref().is_some_and(Client::is_closed) {
            client = idle();
        }
        let client = match client {
            Some(client) => client,
            None => (self.connect)(self.silent.clone()).await?,
        };
        Ok(Lent { client, pool: self, _permit: permit })
    }

    /// A connection beside the pool, with notifications.
    pub(super) async fn open(&self, news: Arc<Notify>) -> Result<Client, SpoolError> {
        (self.connect)(news).await
    }
}

//! Many connections: [`Server`], its configuration, its counters, and its graceful end.
//!
//! Invariant: [`Server::serve`] owns every task that it starts; when it returns, all have ended, and every
//! connection slot is back.
//!
//! Standards: RFC 5321 3.8 (421 when shutting down), 7.8 (resistance to attacks).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{Budget, Clock, Host};
use postwright_smtp_proto::server::{Config, Peer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::accept::{Accept, Backoff};
use crate::connection::{self, Context};
use crate::handler::Acceptor;

/// What a server offers and how much it takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The protocol's side: name, extensions, limits of a session.
    pub session: Arc<Config>,
    /// Certificates and TLS settings, for STARTTLS or implicit TLS. Build it with an explicit provider.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// TLS from the first octet (RFC 8314). Needs `tls`.
    pub implicit_tls: bool,
    /// Connections in all: 1,000. One more hears 421 4.7.0.
    pub connections: usize,
    /// Connections from one address, IPv6 by /64: 100.
    pub connections_per_ip: usize,
    /// Memory for bodies on their way in, all connections together: 512 MiB. When it is spent: 452 4.3.1.
    pub budget: Budget,
    /// How long a handler may take for a decision, but for that on a whole message: 5 minutes, less than a
    /// client waits (RFC 5321 4.5.3.2). Then 451 4.3.0.
    pub decision_timeout: Duration,
    /// How long [`Server::serve`] waits for sessions in the middle of a message when it is told to stop: 5 s.
    pub drain_timeout: Duration,
}

impl ServerConfig {
    /// The defaults, in clear text.
    pub fn new(hostname: impl Into<Host>) -> ServerConfig {
        ServerConfig {
            session: Arc::new(Config::new(hostname)),
            tls: None,
            implicit_tls: false,
            connections: 1000,
            connections_per_ip: 100,
            budget: Budget::new(512 << 20),
            decision_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
        }
    }

    /// Changes what the protocol offers and its limits.
    #[must_use]
    pub fn with_session(mut self, change: impl FnOnce(&mut Config)) -> ServerConfig {
        change(Arc::make_mut(&mut self.session));
        self
    }

    /// Offers STARTTLS with these certificates.
    #[must_use]
    pub fn with_starttls(mut self, tls: Arc<rustls::ServerConfig>) -> ServerConfig {
        self.tls = Some(tls);
        self.with_session(|session| session.starttls = true)
    }
}

/// Counts since the server was made.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    turned_away: AtomicU64,
    accept_errors: AtomicU64,
    panics: AtomicU64,
    open: AtomicUsize,
}

impl Counters {
    /// Connections taken.
    pub fn connections(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections that heard 421 because there were too many.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Times that the listener failed, for want of descriptors most likely.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// Panics of handlers.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

/// How [`Server::serve`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that had not ended by themselves when the drain time was over.
    pub cut: usize,
}

/// Tells connections that the server is about to stop.
#[derive(Clone)]
pub(crate) struct Drain(watch::Receiver<bool>, bool);

impl Drain {
    pub(crate) fn never() -> Drain {
        let (_, receiver) = watch::channel(false);
        Drain(receiver, false)
    }

    /// Resolves once, when the drain begins.
    pub(crate) async fn begun(&mut self) {
        if self.1 || self.0.wait_for(|draining| *draining).await.is_err() {
            // Told already, or the server is gone: the connection's owner ends it.
            std::future::pending::<()>().await;
        }
        self.1 = true;
    }
}

/// A server: one configuration, one acceptor, any number of listeners.
pub struct Server<A> {
    config: Arc<ServerConfig>,
    clock: Arc<dyn Clock>,
    acceptor: Arc<A>,
    counters: Arc<Counters>,
    slots: Arc<Slots>,
}

impl<A: Acceptor> Server<A> {
    /// A server that is not listening yet.
    pub fn new(config: ServerConfig, clock: Arc<dyn Clock>, acceptor: A) -> Server<A> {
        let slots =
            Slots { all: config.connections, per_ip: config.connections_per_ip, taken: Mutex::default() };
        Server {
            config: Arc::new(config),
            clock,
            acceptor: Arc::new(acceptor),
            counters: Arc::default(),
            slots: Arc::new(slots),
        }
    }

    /// The counters, which stay readable after the server is gone.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Serves a listener until `stop` resolves; then takes no more, lets sessions end (421 4.3.2 between
    /// messages, at most [`ServerConfig::drain_timeout`] for the others), and returns when all have ended.
    ///
    /// Dropping the future ends every connection at once.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> Stopped {
        let (draining, drain) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut backoff = Backoff::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                accepted = backoff.accept(&listener) => match accepted {
                    Accept::Connection(stream, address) => {
                        self.start(&mut tasks, stream, address, Drain(drain.clone(), false));
                    }
                    Accept::Failed(error) => {
                        self.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(%error, "cannot accept a connection; waiting before the next try");
                    }
                },
            }
        }
        drop(listener);
        // No receiver is fine: there is no connection to tell.
        let _ = draining.send(true);
        let grace = tokio::time::sleep(self.config.drain_timeout);
        let mut grace = std::pin::pin!(grace);
        while !tasks.is_empty() {
            tokio::select! {
                biased;
                _ = tasks.join_next() => {}
                () = &mut grace => break,
            }
        }
        let cut = tasks.len();
        tasks.shutdown().await;
        Stopped { cut }
    }

    fn start(&self, tasks: &mut JoinSet<()>, stream: TcpStream, address: std::net::SocketAddr, drain: Drain) {
        let slot = match Slots::take(&self.slots, address.ip(), &self.counters) {
            Ok(slot) => slot,
            Err(text) => {
                self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                // A socket that was just accepted has room for one line; if not, the peer sees the close only.
                let _ = stream.try_write(&connection::turned_away(text));
                return;
            }
        };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        // Replies are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().unwrap_or(address);
        let peer = Peer::new(address, local, self.clock.now());
        let context = Context {
            config: self.config.clone(),
            clock: self.clock.clone(),
            counters: self.counters.clone(),
            drain,
        };
        let acceptor = self.acceptor.clone();
        tasks.spawn(async move {
            let _slot = slot;
            let ended = connection::run(stream, peer, &*acceptor, context).await;
            tracing::debug!(peer = %address, ?ended, "connection ended");
        });
    }
}

/// The connections that may be open, in all and from one address.
struct Slots {
    all: usize,
    per_ip: usize,
    taken: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A connection's place; given back when dropped.
struct Slot {
    slots: Arc<Slots>,
    counters: Arc<Counters>,
    network: IpAddr,
}

impl Slots {
    fn take(slots: &Arc<Slots>, ip: IpAddr, counters: &Arc<Counters>) -> Result<Slot, &'static str> {
        let network = network_of(ip);
        let mut taken = slots.lock();
        if counters.open() >= slots.all {
            return Err("Too many connections, try again later");
        }
        let from_there = taken.entry(network).or_default();
        if *from_there >= slots.per_ip {
            return Err("Too many connections from your address, try again later");
        }
        *from_there += 1;
        counters.open.fetch_add(1, Ordering::Relaxed);
        Ok(Slot { slots: slots.clone(), counters: counters.clone(), network })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Each change is one addition, so a poisoned lock guards a whole table.
        self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if let Some(count) = taken.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.network);
            }
        }
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 host can roam in.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    }
}

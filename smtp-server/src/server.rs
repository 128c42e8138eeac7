//! Many connections: [`Server`], its configuration, its counters, and its graceful end.
//!
//! Invariant: [`Server::serve`] owns every task that it starts; when it returns, all have ended, and every
//! connection slot is back.
//!
//! Standards: RFC 5321 3.8 (421 when shutting down), 7.8 (resistance to attacks).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use postwright_core::{Budget, Clock, Host};
use postwright_smtp_proto::server::{Config, Peer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::accept::{Accept, Backoff};
use crate::admission::{Admission, Place};
use crate::connection::{self, Context};
use crate::handler::Acceptor;
use crate::handshakes::Handshakes;

/// How long sessions that are cut short may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Connections that the system may hold ready for us.
const BACKLOG: i32 = 1024;

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
    /// Every connection begins with a PROXY header, version 1 or 2, whose addresses then count. Only behind a proxy
    /// of your own: whoever can connect can state any address. Caps and rates go by the proxy's own address.
    pub proxy_protocol: bool,
    /// Connections in all: 1,000. One more hears 421 4.7.0.
    pub connections: usize,
    /// Connections from one address, IPv6 by /64: 100.
    pub connections_per_ip: usize,
    /// Connections from one network, IPv4 by /24 and IPv6 by /48: 400.
    pub connections_per_network: usize,
    /// New connections of one address in a minute: 6,000.
    pub rate_per_ip: u32,
    /// TLS handshakes at a time: 200. A peer that has said nothing yet runs none. The others wait within their
    /// deadline.
    pub handshakes: usize,
    /// TLS handshakes of one address at a time, IPv6 by /64: 50.
    pub handshakes_per_ip: usize,
    /// When handshakes are many, the oldest makes room for another once it had this long: 3 s.
    pub handshake_grace: Duration,
    /// How long a peer may be silent before the first message of its handshake is whole: 15 s. The whole handshake
    /// is bounded by [`Limits::handshake_timeout`](postwright_smtp_proto::Limits::handshake_timeout).
    pub client_hello_timeout: Duration,
    /// When more than this share of `connections` is in use, in percent, new sessions get shorter time-outs and
    /// less patience ([`Limits::stressed`](postwright_smtp_proto::Limits::stressed)): 80.
    pub stress_percent: usize,
    /// Memory for bodies on their way in, all connections together: 512 MiB. When it is spent: 452 4.3.1.
    pub budget: Budget,
    /// How long a handler may take for a decision, but for that on a whole message: 5 minutes, less than a
    /// client waits (RFC 5321 4.5.3.2). Then 451 4.3.0.
    pub decision_timeout: Duration,
    /// How long [`Server::serve`] waits for sessions in the middle of a message when it is told to stop: 5 s. Then
    /// their messages are refused with 421 4.3.2, within 2 s more.
    pub drain_timeout: Duration,
}

impl ServerConfig {
    /// The defaults, in clear text.
    pub fn new(hostname: impl Into<Host>) -> ServerConfig {
        ServerConfig {
            session: Arc::new(Config::new(hostname)),
            tls: None,
            implicit_tls: false,
            proxy_protocol: false,
            connections: 1000,
            connections_per_ip: 100,
            connections_per_network: 400,
            rate_per_ip: 6000,
            handshakes: 200,
            handshakes_per_ip: 50,
            handshake_grace: Duration::from_secs(3),
            client_hello_timeout: Duration::from_secs(15),
            stress_percent: 80,
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

    fn open_place(self: &Arc<Self>, place: Place) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open { counters: self.clone(), _place: place }
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

/// Whether the server runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Run {
    On,
    /// Between messages sessions end; what is on its way may finish.
    Draining,
    /// What is on its way is refused.
    CutShort,
}

/// Tells a connection that the server is about to stop.
#[derive(Clone)]
pub(crate) struct Drain(watch::Receiver<Run>, Run);

impl Drain {
    pub(crate) fn never() -> Drain {
        let (_, receiver) = watch::channel(Run::On);
        Drain(receiver, Run::On)
    }

    /// Resolves when there is something that this connection was not told yet.
    pub(crate) async fn news(&mut self) -> Run {
        let told = self.1;
        let now = self.0.wait_for(|run| *run > told).await.map(|run| *run);
        match now {
            Ok(run) => {
                self.1 = run;
                run
            }
            // The server is gone: the connection's owner ends it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// A server: one configuration, one acceptor, any number of listeners.
pub struct Server<A> {
    config: Arc<ServerConfig>,
    clock: Arc<dyn Clock>,
    acceptor: Arc<A>,
    counters: Arc<Counters>,
    admission: Arc<Admission>,
    handshakes: Arc<Handshakes>,
    stressed: Arc<Config>,
}

impl<A: Acceptor> Server<A> {
    /// A server that is not listening yet.
    pub fn new(config: ServerConfig, clock: Arc<dyn Clock>, acceptor: A) -> Server<A> {
        let mut stressed = (*config.session).clone();
        stressed.limits = stressed.limits.stressed();
        Server {
            admission: Arc::new(Admission::new(&config)),
            handshakes: Arc::new(handshakes(&config)),
            stressed: Arc::new(stressed),
            config: Arc::new(config),
            clock,
            acceptor: Arc::new(acceptor),
            counters: Arc::default(),
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
        let (draining, drain) = watch::channel(Run::On);
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
                        self.start(&mut tasks, stream, address, Drain(drain.clone(), Run::On));
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
        let _ = draining.send(Run::Draining);
        wait_for_all(&mut tasks, self.config.drain_timeout).await;
        let cut = tasks.len();
        let _ = draining.send(Run::CutShort);
        wait_for_all(&mut tasks, LAST_WORDS).await;
        tasks.shutdown().await;
        Stopped { cut }
    }

    fn start(&self, tasks: &mut JoinSet<()>, stream: TcpStream, address: SocketAddr, drain: Drain) {
        let now = self.clock.mono();
        let place = match self.admission.enter(address.ip(), now) {
            Ok(place) => place,
            Err(text) => {
                self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                // A socket that was just accepted has room for one line; if not, the peer sees the close only.
                let _ = stream.try_write(&connection::turned_away(text));
                return;
            }
        };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let place = self.counters.open_place(place);
        // Replies are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let local = stream.local_addr().unwrap_or(address);
        let peer = Peer::new(address, local, self.clock.now());
        let full = self.config.connections.saturating_mul(self.config.stress_percent) / 100;
        let stressed = self.admission.active() > full;
        let usual = if stressed { &self.stressed } else { &self.config.session };
        let context = Context {
            session: connection::offer(&*self.acceptor, address, stressed).unwrap_or_else(|| usual.clone()),
            stressed,
            handshakes: self.handshakes.clone(),
            config: self.config.clone(),
            clock: self.clock.clone(),
            counters: self.counters.clone(),
            drain,
        };
        let acceptor = self.acceptor.clone();
        tasks.spawn(async move {
            let ended = connection::run(stream, peer, &*acceptor, context).await;
            drop(place);
            tracing::debug!(peer = %address, ?ended, "connection ended");
        });
    }
}

/// The slots for TLS handshakes that a configuration asks for.
pub(crate) fn handshakes(config: &ServerConfig) -> Handshakes {
    Handshakes::new(config.handshakes, config.handshakes_per_ip, config.handshake_grace)
}

/// Waits until all tasks have ended, but no longer than `patience`.
async fn wait_for_all(tasks: &mut JoinSet<()>, patience: Duration) {
    let all = async { while tasks.join_next().await.is_some() {} };
    // Who has not ended by then is dealt with by the caller.
    let _ = tokio::time::timeout(patience, all).await;
}

/// A place with its mark in [`Counters::open`].
struct Open {
    counters: Arc<Counters>,
    _place: Place,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a listening socket is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Several processes or threads can listen on one port (`SO_REUSEPORT`, where there is such a thing): off.
    pub share_port: bool,
    /// An IPv6 socket takes IPv4 too: on. Without it two sockets can have one port, one of each family.
    pub dual_stack: bool,
}

impl Default for Socket {
    fn default() -> Self {
        Socket { share_port: false, dual_stack: true }
    }
}

impl Socket {
    /// Opens a listening socket. Must be called within a tokio runtime.
    pub fn listen(self, address: SocketAddr) -> io::Result<TcpListener> {
        use socket2::{Domain, Protocol, Type};
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!self.dual_stack)?;
        }
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(self.share_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }
}

//! Connecting by a way out: [`ByExit`], which knows whether the way itself is at fault.
//!
//! Invariant: a fault is told only if nothing was asked of the receiver: the address is not one of this host's, or the
//! proxy could not be reached. What the receiver does is never the exit's fault.
//!
//! Standards: the PROXY protocol, version 2 (by smtp-client).
//!
//! Not here: which way is taken (pace.rs).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use postwright_core::{BoxFuture, Host};
use postwright_smtp_client::policy::Attempt;
use postwright_smtp_client::proxy::ProxyConnector;
use postwright_smtp_client::{BoxIo, Connector, Target};
use tokio::net::TcpSocket;

use crate::pace::Exit;

/// Opens connections by one way out.
pub(crate) struct ByExit {
    inner: Arc<dyn Connector>,
    exit: Arc<Exit>,
    fault: Mutex<Option<String>>,
}

impl ByExit {
    pub(crate) fn new(inner: Arc<dyn Connector>, exit: Arc<Exit>) -> ByExit {
        ByExit { inner, exit, fault: Mutex::default() }
    }

    /// Why the way out cannot be used, if that is what happened last.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, fault: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

impl Connector for ByExit {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            if let Some(proxy) = self.exit.proxy {
                // Until it is done: if the caller's patience ends, the proxy is why.
                self.note(Some(format!("the proxy {proxy} does not answer")));
                let through = ProxyConnector::new(self.inner.clone(), proxy);
                let connected = through.connect(target, source).await;
                match &connected {
                    Ok(_) => self.note(None),
                    Err(error) => self.note(Some(format!("the proxy {proxy}: {error}"))),
                }
                return connected;
            }
            if let Some(ip) = source
                && let Err(error) = is_ours(ip)
            {
                self.note(Some(format!("{ip} is not an address of this host: {error}")));
                return Err(error);
            }
            self.note(None);
            self.inner.connect(target, source).await
        })
    }
}

/// Whether a socket can be bound to the address.
fn is_ours(ip: IpAddr) -> io::Result<()> {
    let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(ip, 0))
}

/// The attempts as they look by a way out: from its address, with its name, to servers of its address's family.
pub(crate) fn attempts_by(exit: &Exit, attempts: &[Attempt]) -> Vec<Attempt> {
    let fits = |attempt: &&Attempt| {
        exit.ip.is_none_or(|ip| ip.is_ipv4() == attempt.target.address.ip().to_canonical().is_ipv4())
    };
    let mut fitting: Vec<Attempt> = attempts.iter().filter(fits).cloned().collect();
    for attempt in &mut fitting {
        attempt.options.source = exit.ip;
        if let Some(name) = &exit.ehlo {
            let mut session = (*attempt.options.session).clone();
            session.hello = Host::Domain(name.clone());
            attempt.options.session = Arc::new(session);
        }
    }
    fitting
}

//! The seam to the network: [`Connector`], and [`TcpConnector`], the real one.
//!
//! Invariant: a connector only opens connections; it neither reads nor writes.
//!
//! Not here: which address is tried when (deliver), TLS (tls).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use postwright_core::{BoxFuture, Host};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// A byte stream of any kind.
pub type BoxIo = Box<dyn Io>;

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host's name as certificates and reports know it.
    pub host: Host,
    /// Its address and port.
    pub address: SocketAddr,
}

/// Opens connections: what an embedder plugs in to send mail through a proxy, or through a simulated network.
pub trait Connector: Send + Sync {
    /// Opens a connection to `target`, from `source` if it is given. The caller bounds the time.
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>>;
}

/// Connects over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let socket = match target.address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            if let Some(ip) = source {
                socket.bind(SocketAddr::new(ip, 0))?;
            }
            let stream = socket.connect(target.address).await?;
            // Commands are short and waited for; the driver joins small writes itself.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    }
}

/// Connects to a UNIX socket, whatever the target's address: for LMTP to a mail store on this machine.
#[cfg(unix)]
#[derive(Debug, Clone)]
pub struct UnixConnector(std::path::PathBuf);

#[cfg(unix)]
impl UnixConnector {
    /// Leads to the socket at `path`.
    pub fn new(path: impl Into<std::path::PathBuf>) -> UnixConnector {
        UnixConnector(path.into())
    }

    /// What its connections are known as in reports and on the wire: the machine itself, at no port.
    pub fn target() -> Target {
        let host = Host::Literal(std::net::Ipv4Addr::LOCALHOST.into());
        Target { host, address: SocketAddr::from(([127, 0, 0, 1], 0)) }
    }
}

#[cfg(unix)]
impl Connector for UnixConnector {
    fn connect<'a>(&'a self, _: &'a Target, _: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move { Ok(Box::new(tokio::net::UnixStream::connect(&self.0).await?) as BoxIo) })
    }
}

impl fmt::Debug for dyn Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Io")
    }
}

impl fmt::Debug for dyn Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

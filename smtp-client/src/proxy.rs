//! PROXY protocol version 2, towards a proxy that gives us its source addresses.
//!
//! Invariant: the header is written whole before anything else, on every connection of the connector.
//!
//! Standards: the PROXY protocol, version 2 (HAProxy's document `proxy-protocol.txt`, section 2.2).
//!
//! Not here: reading such headers (smtp-server).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use postwright_core::BoxFuture;
use tokio::io::AsyncWriteExt;

use crate::connect::{BoxIo, Connector, Target};

/// The first octets of every header (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// TCP over IPv4 and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Connects through a proxy that opens the connection to the real server from the address it is told, as KumoMTA's
/// and HAProxy's do.
#[derive(Debug)]
pub struct ProxyConnector {
    inner: Arc<dyn Connector>,
    proxy: SocketAddr,
}

impl ProxyConnector {
    /// Reaches the proxy at `proxy` by way of `inner`.
    pub fn new(inner: Arc<dyn Connector>, proxy: SocketAddr) -> ProxyConnector {
        ProxyConnector { inner, proxy }
    }
}

impl Connector for ProxyConnector {
    /// `source` is the address that the proxy is to use, not one of ours; without it there is nothing to ask of the
    /// proxy, and the connection fails.
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let source = source.ok_or_else(|| fault("a proxy needs a source address"))?;
            let header = header(SocketAddr::new(source, 0), target.address)
                .ok_or_else(|| fault("the source address and the server's are of two families"))?;
            let proxy = Target { host: target.host.clone(), address: self.proxy };
            let mut io = self.inner.connect(&proxy, None).await?;
            io.write_all(&header).await?;
            Ok(io)
        })
    }
}

fn fault(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The header that says that a connection comes from `source` and goes to `target`; `None` if they are of two
/// families.
pub fn header(source: SocketAddr, target: SocketAddr) -> Option<Vec<u8>> {
    let mut header = SIGNATURE.to_vec();
    header.push(PROXY);
    match (source.ip(), target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[TCP4, 0, 12]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.extend_from_slice(&[TCP6, 0, 36]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        _ => return None,
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&target.port().to_be_bytes());
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    #[test]
    fn headers_are_laid_out_as_the_document_says() {
        // Section 2.2: 12 octets of signature, version and command, family, length, addresses, ports.
        let v4 = header("192.0.2.1:4096".parse().unwrap(), "198.51.100.2:25".parse().unwrap()).unwrap();
        let expected = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A\x21\x11\x00\x0C\
            \xC0\x00\x02\x01\xC6\x33\x64\x02\x10\x00\x00\x19";
        assert_eq!(v4, expected);
        let v6 = header("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:25".parse().unwrap()).unwrap();
        assert_eq!((v6.len(), &v6[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(header("192.0.2.1:1".parse().unwrap(), "[::1]:25".parse().unwrap()), None);
    }

    #[tokio::test]
    async fn the_header_goes_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let connector = ProxyConnector::new(Arc::new(crate::TcpConnector), proxy);
        let target =
            Target { host: "mx.example".parse().unwrap(), address: "198.51.100.2:25".parse().unwrap() };
        let source = "192.0.2.1".parse().unwrap();
        let mut io = connector.connect(&target, Some(source)).await.unwrap();
        io.write_all(b"EHLO").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut heard = [0; 32];
        server.read_exact(&mut heard).await.unwrap();
        let expected = header(SocketAddr::new(source, 0), target.address).unwrap();
        assert_eq!(heard, [&expected[..], b"EHLO"].concat()[..]);
        assert!(connector.connect(&target, None).await.is_err());
    }
}

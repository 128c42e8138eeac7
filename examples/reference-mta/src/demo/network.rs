//! The demo's network: the addresses of its zone lead to loopback ports, and nothing else leads anywhere.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use postwright::core::BoxFuture;
use postwright::smtp_client::{BoxIo, Connector, Target, TcpConnector};

pub(super) struct DemoNetwork {
    ports: BTreeMap<IpAddr, SocketAddr>,
}

impl DemoNetwork {
    pub(super) fn new(ports: BTreeMap<IpAddr, SocketAddr>) -> DemoNetwork {
        DemoNetwork { ports }
    }
}

impl Connector for DemoNetwork {
    fn connect<'a>(&'a self, target: &'a Target, source: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let there = self.ports.get(&target.address.ip()).ok_or(io::ErrorKind::NetworkUnreachable)?;
            let local = Target { host: target.host.clone(), address: *there };
            TcpConnector.connect(&local, source).await
        })
    }
}

//! The accept loop's patience: after a failure (no descriptors left, most likely) it waits, longer each time,
//! instead of spinning.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(crate) enum Accept {
    Connection(TcpStream, SocketAddr),
    Failed(io::Error),
}

#[derive(Default)]
pub(crate) struct Backoff {
    wait: Duration,
}

impl Backoff {
    /// The next connection, or a failure after which the next call waits first. Cancel safe.
    pub(crate) async fn accept(&mut self, listener: &TcpListener) -> Accept {
        if !self.wait.is_zero() {
            tokio::time::sleep(self.wait).await;
        }
        match listener.accept().await {
            Ok((stream, address)) => {
                self.wait = Duration::ZERO;
                Accept::Connection(stream, address)
            }
            // The peer gave up between its SYN and our accept: the next one may be fine.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Accept::Failed(error),
            Err(error) => {
                self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
                Accept::Failed(error)
            }
        }
    }
}

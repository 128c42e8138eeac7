//! The receiver behind the MTA: takes everything, keeps a count.
//!
//! Invariant: a message is counted when its end was seen, before its 250 is sent. It costs far less than any MTA.
//!
//! Not here: checking what it is sent (`postwright sink` does, with the real server).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::commands::Failure;

const END: &[u8] = b"\r\n.\r\n";

/// Listens until it is dropped.
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    count: Arc<watch::Sender<usize>>,
    /// Owns every connection.
    _listener: JoinSet<()>,
}

impl Sink {
    pub(super) async fn start() -> Result<Sink, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Failure::new)?;
        let address = listener.local_addr().map_err(Failure::new)?;
        let count = Arc::new(watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        let shared = count.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let count = shared.clone();
                connections.spawn(async move { drop(receive(stream, &count).await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Sink { address, count, _listener: tasks })
    }

    pub(super) fn counted(&self) -> usize {
        *self.count.borrow()
    }

    /// Comes back when so many messages have arrived since the start.
    pub(super) async fn until(&self, messages: usize) {
        // The sender lives in `self`, so that the wait ends with the count and in no other way.
        let _ = self.count.subscribe().wait_for(|count| *count >= messages).await;
    }
}

async fn receive(mut stream: TcpStream, count: &watch::Sender<usize>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink.example\r\n").await?;
    let (mut input, mut replies, mut in_data) = (Vec::with_capacity(64 * 1024), Vec::new(), false);
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut at = 0;
        while let Some(rest) = input.get(at..) {
            if in_data {
                let Some(end) = rest.windows(END.len()).position(|window| window == END) else {
                    // What may be the start of the end stays.
                    at = at.max(input.len().saturating_sub(END.len() - 1));
                    break;
                };
                (in_data, at) = (false, at + end + END.len());
                count.send_modify(|count| *count += 1);
                replies.extend_from_slice(b"250 2.0.0 Ok\r\n");
            } else {
                let Some(end) = rest.iter().position(|octet| *octet == b'\n') else { break };
                let (line, quit) = (rest.get(..=end).unwrap_or_default(), rest.starts_with(b"QUIT"));
                in_data = line.starts_with(b"DATA");
                replies.extend_from_slice(match line {
                    _ if in_data => b"354 Go on\r\n",
                    _ if quit => b"221 2.0.0 Bye\r\n",
                    _ if line.starts_with(b"EHLO") => {
                        b"250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
                    }
                    _ => b"250 2.0.0 Ok\r\n".as_slice(),
                });
                at += end + 1;
                if in_data {
                    // A message may be empty: its end then starts with the command's own line end.
                    at -= 2;
                }
            }
        }
        input.drain(..at);
        stream.write_all(&replies).await?;
        replies.clear();
    }
}

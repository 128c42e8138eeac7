//! The load: connections that stay open and send one message after another, command by command as `smtp-source`
//! does it.
//!
//! Invariant: every message counted was answered with 250; after a 421 the message goes over a new connection. It costs far less than any MTA, so that it is not what
//! is measured; the report shows what it reaches against the sink alone.
//!
//! Not here: pipelining, TLS, anything that a real client would have to understand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::commands::Failure;

/// Longest reply that the load reads, in octets.
const REPLY: usize = 8192;

#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) messages: usize,
    pub(super) connections: usize,
    /// Octets of the body.
    pub(super) size: usize,
}

impl Load {
    /// Comes back when the last message was answered.
    pub(super) async fn run(self, to: SocketAddr) -> Result<(), Failure> {
        let (body, next) = (Arc::new(body(self.size)), Arc::new(AtomicUsize::new(0)));
        let mut senders = JoinSet::new();
        for _ in 0..self.connections {
            let (body, next) = (body.clone(), next.clone());
            senders.spawn(async move { send(to, &body, &next, self.messages).await });
        }
        while let Some(ended) = senders.join_next().await {
            ended
                .map_err(Failure::new)?
                .map_err(|error| Failure::new(format!("the load on {to}: {error}")))?;
        }
        Ok(())
    }
}

/// A header and lines of 72 octets up to the size, and the end of the data.
fn body(size: usize) -> Vec<u8> {
    let mut text =
        b"From: <load@bench.example>\r\nTo: <sink@bench.example>\r\nSubject: load\r\n\r\n".to_vec();
    while text.len() + 72 < size {
        text.extend_from_slice(&[b'x'; 70]);
        text.extend_from_slice(b"\r\n");
    }
    text.resize(size.saturating_sub(2).max(text.len()), b'x');
    text.extend_from_slice(b"\r\n.\r\n");
    text
}

async fn send(to: SocketAddr, body: &[u8], next: &AtomicUsize, messages: usize) -> io::Result<()> {
    let mut wire = Wire::open(to).await?;
    while next.fetch_add(1, Ordering::Relaxed) < messages {
        let mut fresh = false;
        while !wire.message(body).await? {
            if fresh {
                return Err(io::Error::other("421 to the first message of a connection"));
            }
            (wire, fresh) = (Wire::open(to).await?, true);
        }
    }
    wire.say(b"QUIT\r\n", b'2').await.map(drop)
}

struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn open(to: SocketAddr) -> io::Result<Wire> {
        let mut wire = Wire { stream: TcpStream::connect(to).await?, buffer: vec![0; REPLY] };
        wire.stream.set_nodelay(true)?;
        let ready = wire.reply(b'2').await? && wire.say(b"EHLO load.example\r\n", b'2').await?;
        if ready { Ok(wire) } else { Err(io::Error::other("421 instead of a greeting")) }
    }

    /// Whether it was taken; if not, the connection is of no more use.
    async fn message(&mut self, body: &[u8]) -> io::Result<bool> {
        Ok(self.say(b"MAIL FROM:<load@bench.example>\r\n", b'2').await?
            && self.say(b"RCPT TO:<sink@bench.example>\r\n", b'2').await?
            && self.say(b"DATA\r\n", b'3').await?
            && self.say(body, b'2').await?)
    }

    async fn say(&mut self, octets: &[u8], class: u8) -> io::Result<bool> {
        self.stream.write_all(octets).await?;
        self.reply(class).await
    }

    /// Reads one whole reply: true if it is of this class, false if it is 421.
    async fn reply(&mut self, class: u8) -> io::Result<bool> {
        let mut filled = 0;
        loop {
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = if room.is_empty() { 0 } else { self.stream.read(room).await? };
            filled += read;
            let text = self.buffer.get(..filled).unwrap_or_default();
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if is_whole(text) {
                let (expected, closing) = (text.first() == Some(&class), text.starts_with(b"421"));
                if expected || closing {
                    return Ok(expected);
                }
                let text = String::from_utf8_lossy(text);
                return Err(io::Error::other(format!("unexpected reply {:?}", text.trim_end())));
            }
        }
    }
}

/// Whether the last line is there and is the reply's last (RFC 5321 4.2.1).
fn is_whole(text: &[u8]) -> bool {
    let Some(lines) = text.strip_suffix(b"\r\n") else { return false };
    let last = lines.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
    last.get(3) != Some(&b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_with_its_last_line() {
        assert!(is_whole(b"250 ok\r\n") && is_whole(b"250-a\r\n250 b\r\n") && is_whole(b"250\r\n"));
        assert!(!is_whole(b"250-a\r\n") && !is_whole(b"250 ok") && !is_whole(b""));
    }

    #[test]
    fn a_body_has_its_size() {
        for size in [1024, 10 * 1024] {
            assert_eq!(body(size).len() - b".\r\n".len(), size);
        }
    }
}

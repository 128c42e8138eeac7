//! The network: pipes to scripted servers, and what these saw.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::{BoxFuture, Clock, Instant, Timestamp};
use postwright::smtp_client::{BoxIo, Connector, Target};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::time::sleep;

use crate::HOUR;

/// How the bad server behaves, for the first hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    NeverGreets,
    OneOctetAMinute,
    HangsAfterData,
    ClosesAfterTheDot,
    Says421InThePipeline,
    RefusesOneOfFifty,
    RepliesWithAMegabyte,
    RepliesWithoutEnd,
    ClosesAtOnce,
}

/// What the servers saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// How often each message's body came whole, by its id and the site.
    pub(crate) bodies: Mutex<BTreeMap<String, usize>>,
    pub(crate) open: AtomicUsize,
    pub(crate) bad_open: AtomicUsize,
    pub(crate) bad_most: AtomicUsize,
}

pub(crate) struct Network {
    pub(crate) fault: Fault,
    pub(crate) start: tokio::time::Instant,
    pub(crate) seen: Arc<Seen>,
}

/// Gives its place back when the server's task ends, however it ends.
struct Place(Arc<Seen>, bool);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        if self.1 {
            self.0.bad_open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Connector for Network {
    fn connect<'a>(&'a self, target: &'a Target, _: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        let is_bad = target.host.to_string() == "mx.bad.test";
        let fault = if is_bad && self.start.elapsed() < HOUR { self.fault } else { Fault::None };
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        self.seen.open.fetch_add(1, Ordering::SeqCst);
        if is_bad {
            let now = self.seen.bad_open.fetch_add(1, Ordering::SeqCst) + 1;
            self.seen.bad_most.fetch_max(now, Ordering::SeqCst);
        }
        let place = Place(self.seen.clone(), is_bad);
        tokio::spawn(async move {
            // An error is the client's going away.
            let _ = serve(theirs, fault, &place.0).await;
        });
        Box::pin(async move {
            sleep(Duration::from_millis(20)).await;
            Ok(Box::new(ours) as BoxIo)
        })
    }
}

async fn serve(io: DuplexStream, fault: Fault, seen: &Seen) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(io);
    let mut read = BufReader::new(read);
    match fault {
        Fault::NeverGreets => return gone(&mut read).await,
        Fault::ClosesAtOnce => return Ok(()),
        Fault::OneOctetAMinute => {
            for octet in b"220 I am a very slow server, and I shall not come to an end\r\n".iter().cycle() {
                write.write_all(&[*octet]).await?;
                tokio::select! {
                    result = gone(&mut read) => return result,
                    () = sleep(Duration::from_secs(60)) => {}
                }
            }
        }
        Fault::RepliesWithAMegabyte => {
            write.write_all(b"220 ").await?;
            write.write_all(&vec![b'x'; 1 << 20]).await?;
            return gone(&mut read).await;
        }
        Fault::RepliesWithoutEnd => loop {
            write.write_all(b"220-and another line\r\n").await?;
        },
        _ => {}
    }
    write.write_all(b"220 ready\r\n").await?;
    let (mut line, mut recipients) = (String::new(), 0);
    loop {
        line.clear();
        if read.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => "250-here\r\n250 PIPELINING\r\n",
            "MAIL" => {
                recipients = 0;
                "250 ok\r\n"
            }
            "RCPT" => {
                recipients += 1;
                match fault {
                    Fault::Says421InThePipeline => {
                        write.write_all(b"421 4.3.2 later\r\n").await?;
                        return Ok(());
                    }
                    Fault::RefusesOneOfFifty if recipients == 17 => "550 5.1.1 nobody\r\n",
                    _ => "250 ok\r\n",
                }
            }
            "DATA" => {
                if fault == Fault::HangsAfterData {
                    return gone(&mut read).await;
                }
                write.write_all(b"354 go\r\n").await?;
                let id = body(&mut read).await?;
                *seen.bodies.lock().unwrap().entry(id).or_default() += 1;
                if fault == Fault::ClosesAfterTheDot {
                    return Ok(());
                }
                "250 2.0.0 Ok: queued as 7C1D\r\n"
            }
            "QUIT" => {
                write.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 ok\r\n",
        };
        write.write_all(reply.as_bytes()).await?;
    }
}

/// Reads until the client goes.
async fn gone(read: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    let mut rest = [0; 1024];
    while read.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Reads a body to its dot; returns its subject.
async fn body(read: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<String> {
    let (mut line, mut id) = (String::new(), String::new());
    loop {
        line.clear();
        if read.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(subject) = line.strip_prefix("Subject: ") {
            id = subject.trim().to_owned();
        }
        if line == ".\r\n" {
            return Ok(id);
        }
    }
}

pub(crate) struct TokioClock(pub(crate) tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }

    fn mono(&self) -> Instant {
        Instant::from_start(self.0.elapsed())
    }
}

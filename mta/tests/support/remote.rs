//! A server that misbehaves in one way, over whatever stream.
//!
//! It takes every message but for its fault, and says which by its subject. An error is the client's going away.
#![allow(dead_code, reason = "each test plays some of the faults")]

use std::io;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::time::sleep;

/// What a server does to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    ClosesAtOnce,
    NeverGreets,
    OneOctetAMinute,
    RepliesWithAMegabyte,
    RepliesWithoutEnd,
    HangsInTheHandshake,
    Says421ToMail,
    Says421InThePipeline,
    RefusesOneOfFifty,
    RefusesEveryRecipient,
    HangsAfterData,
    ClosesAfterTheDot,
    HangsAfterTheDot,
}

/// One session; `took` hears of each message whose dot was seen, and each command is thought about for a while.
pub(crate) async fn serve(
    io: impl AsyncRead + AsyncWrite,
    fault: Fault,
    thought: Duration,
    took: impl Fn(String),
) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(io);
    let mut read = BufReader::new(read);
    match fault {
        Fault::ClosesAtOnce => return Ok(()),
        Fault::NeverGreets => return gone(&mut read).await,
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
        sleep(thought).await;
        let reply = match (line.get(..4).unwrap_or_default(), fault) {
            ("EHLO", Fault::HangsInTheHandshake) => "250-here\r\n250 STARTTLS\r\n",
            ("EHLO", _) => "250-here\r\n250 PIPELINING\r\n",
            ("STAR", _) => {
                write.write_all(b"220 go\r\n").await?;
                return gone(&mut read).await;
            }
            ("MAIL", Fault::Says421ToMail) => return write.write_all(b"421 4.3.2 later\r\n").await,
            ("MAIL", _) => {
                recipients = 0;
                "250 ok\r\n"
            }
            ("RCPT", Fault::Says421InThePipeline) => return write.write_all(b"421 4.3.2 later\r\n").await,
            ("RCPT", Fault::RefusesEveryRecipient) => "550 5.1.1 nobody\r\n",
            ("RCPT", _) => {
                recipients += 1;
                let refused = fault == Fault::RefusesOneOfFifty && recipients == 17;
                if refused { "550 5.1.1 nobody\r\n" } else { "250 ok\r\n" }
            }
            ("DATA", Fault::RefusesEveryRecipient) => "554 5.5.1 nobody\r\n",
            ("DATA", Fault::HangsAfterData) => return gone(&mut read).await,
            ("DATA", _) => {
                write.write_all(b"354 go\r\n").await?;
                took(body(&mut read).await?);
                match fault {
                    Fault::ClosesAfterTheDot => return Ok(()),
                    Fault::HangsAfterTheDot => return gone(&mut read).await,
                    _ => "250 2.0.0 Ok: queued as 7C1D\r\n",
                }
            }
            ("QUIT", _) => return write.write_all(b"221 bye\r\n").await,
            _ => "250 ok\r\n",
        };
        write.write_all(reply.as_bytes()).await?;
    }
}

/// Reads until the client goes.
async fn gone(read: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut rest = [0; 1024];
    while read.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Reads a body to its dot; returns its subject.
async fn body(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
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

//! Servers whose TLS ends, or does not come about: what they say in clear text afterwards counts for nothing.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use postwright_testkit::PausedClock;

use crate::peer::{Scripts, certificate, client, hosts, options, shown, transaction};
use postwright_core::{BoxFuture, Domain};
use postwright_smtp_client::{BoxIo, Client, Connector, Demand, Options, Target, Trust};
use postwright_smtp_proto::client::{Config, StartTls};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Answers as many lines in TLS, and then in clear text whatever would make the message a success.
struct Breaks {
    acceptor: TlsAcceptor,
    answers: usize,
    /// Whether TLS is closed in form first.
    closes: bool,
}

impl Connector for Breaks {
    fn connect<'a>(&'a self, _: &'a Target, _: Option<IpAddr>) -> BoxFuture<'a, io::Result<BoxIo>> {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (acceptor, answers, closes) = (self.acceptor.clone(), self.answers, self.closes);
        tokio::spawn(async move { serve(theirs, acceptor, answers, closes).await });
        Box::pin(async move { Ok(Box::new(ours) as BoxIo) })
    }
}

async fn serve(io: DuplexStream, acceptor: TlsAcceptor, answers: usize, closes: bool) -> io::Result<()> {
    let mut io = io;
    io.write_all(b"220 mx\r\n").await?;
    line(&mut io).await?;
    io.write_all(b"250-mx\r\n250 STARTTLS\r\n").await?;
    line(&mut io).await?;
    io.write_all(b"220 go\r\n").await?;
    let mut tls: BufReader<TlsStream<DuplexStream>> = BufReader::new(acceptor.accept(io).await?);
    let replies = ["250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"];
    for reply in replies.iter().take(answers) {
        tls.read_line(&mut String::new()).await?;
        tls.write_all(reply.as_bytes()).await?;
        tls.flush().await?;
    }
    let mut heard = String::new();
    tls.read_line(&mut heard).await?;
    while answers == replies.len() && !heard.ends_with("\r\n.\r\n") {
        tls.read_line(&mut heard).await?;
    }
    let mut tls = tls.into_inner();
    if closes {
        // Only close_notify: the pipe beneath stays open for the clear text.
        let (_, session) = tls.get_mut();
        session.send_close_notify();
        tls.flush().await?;
    }
    let (io, _) = tls.get_mut();
    let rest: String = replies.iter().skip(answers).copied().chain(["250 2.0.0 forged\r\n"]).collect();
    io.write_all(rest.as_bytes()).await?;
    let mut gone = [0; 1024];
    while io.read(&mut gone).await? > 0 {}
    Ok(())
}

/// One line, octet by octet: what follows is TLS's.
async fn line(io: &mut DuplexStream) -> io::Result<()> {
    while io.read_u8().await? != b'\n' {}
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn clear_text_behind_the_end_of_tls_is_never_believed() {
    let places = ["Delayed 4.4.2 hello", "Delayed 4.4.2 mail", "Delayed 4.4.2 rcpt", "Delayed 4.4.2 data"];
    for (answers, expected) in places.into_iter().chain(["Unknown 4.4.2 end-of-data"]).enumerate() {
        for closes in [true, false] {
            let (acceptor, root) = certificate(&["mx0.x.example"], false);
            let client = Client::new(&Trust::Roots(vec![root]), PausedClock::start()).unwrap();
            let client = client.with_connector(Arc::new(Breaks { acceptor, answers, closes }));
            let mut config = Config::new("client.example".parse::<Domain>().unwrap());
            config.starttls = StartTls::Opportunistic;
            let mut options = Options::new(config);
            options.demand = Demand::Nothing;
            let report = client.deliver(&hosts(1), &options, transaction()).await;
            assert_eq!(shown(&report), [expected], "after {answers} answers, closes={closes}");
            let tls = report.statuses[0].remote.as_ref().unwrap().tls.as_ref();
            assert!(tls.is_some(), "it was TLS that ended");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_hangs_is_given_up() {
    let script =
        "S: 220 mx\nC: EHLO client.example\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nHANG";
    let scripts = Scripts::new(&[Some(script)], None);
    let mut options = options();
    let mut config = Config::clone(&options.session);
    config.starttls = StartTls::Required;
    options.session = Arc::new(config);
    let start = tokio::time::Instant::now();
    let report = client(&scripts, Vec::new()).deliver(&hosts(1), &options, transaction()).await;
    assert_eq!(shown(&report), ["Delayed 4.7.5 starttls"]);
    // The time that EHLO has; RFC 5321 4.5.3.2 names none for a handshake.
    assert_eq!(start.elapsed(), options.session.timeouts.hello);
}

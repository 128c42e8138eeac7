//! The stream under a connection: clear, then TLS, then gone.
//!
//! Invariant: whoever writes also takes what the peer says, so that neither waits for the other. A stream that was lost in
//! a handshake is gone, and reads and writes as not connected.
//!
//! Standards: RFC 9266 (tls-exporter), RFC 5929 4 (tls-server-end-point).
//!
//! Not here: when to upgrade (smtp-proto says so), whose certificate is good (tls.rs).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use postwright_smtp_proto::TlsInfo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connect::{BoxIo, Target};
use crate::tls::{Demand, TlsClient, TlsFault, Verdict, server_name};

/// What happened first while there was something to write.
pub(super) enum Progress {
    /// Octets written; 0 means that the connection is broken.
    Wrote(usize),
    /// Octets read; 0 means that it ended.
    Read(usize),
}

/// Writes, and reads if that is all that can be done.
pub(super) async fn exchange(io: &mut Transport, out: &[u8], input: &mut [u8]) -> Progress {
    poll_fn(|cx| {
        if let Poll::Ready(result) = Pin::new(&mut *io).poll_write(cx, out) {
            return Poll::Ready(Progress::Wrote(result.unwrap_or(0)));
        }
        let mut buffer = ReadBuf::new(input);
        match Pin::new(&mut *io).poll_read(cx, &mut buffer) {
            Poll::Ready(result) => Poll::Ready(Progress::Read(result.map_or(0, |()| buffer.filled().len()))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The stream, before and after STARTTLS.
pub(super) enum Transport {
    Plain(BoxIo),
    Tls(Box<TlsStream<BoxIo>>),
    /// Closed, or lost in a handshake that failed.
    Gone,
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Transport::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Transport::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Transport::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Transport::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(io) => Pin::new(io).poll_flush(cx),
            Transport::Tls(io) => Pin::new(io).poll_flush(cx),
            Transport::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Gone => Poll::Ready(Ok(())),
        }
    }
}

pub(super) async fn upgrade(
    io: BoxIo,
    tls: &TlsClient,
    target: &Target,
    demand: &Demand,
) -> Result<(TlsStream<BoxIo>, TlsInfo, Option<TlsFault>), (TlsFault, String)> {
    let unusable = || (TlsFault::Handshake, "the host's name cannot be used with TLS".to_owned());
    let name = server_name(&target.host, demand).ok_or_else(unusable)?;
    let (config, verdict) = tls.session(demand).map_err(|error| (TlsFault::of(&error), error.to_string()))?;
    let stream = TlsConnector::from(config).connect(name, io).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        (inner.map_or(TlsFault::Handshake, TlsFault::of), error.to_string())
    })?;
    let info = describe(&stream, &verdict);
    Ok((stream, info, verdict.fault()))
}

fn describe(stream: &TlsStream<BoxIo>, verdict: &Verdict) -> TlsInfo {
    let (_, connection) = stream.get_ref();
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    };
    let cipher = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
    // RFC 9266 4.2: in TLS 1.2 the exporter is unique only with the extended master secret, which is not shown here.
    let unique = version == "TLSv1.3";
    let exporter = connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).ok();
    let peer = connection.peer_certificates().and_then(|chain| chain.first());
    TlsInfo {
        version: version.into(),
        cipher: cipher.unwrap_or_default().into(),
        verified: verdict.is_verified(),
        peer_certificate: peer.map(|certificate| certificate.as_ref().into()),
        exporter: exporter.filter(|_| unique),
        server_end_point: peer.and_then(|certificate| end_point(certificate)),
        ..TlsInfo::default()
    }
}

/// The `tls-server-end-point` binding (RFC 5929 4.1).
#[cfg(feature = "sasl")]
fn end_point(certificate: &[u8]) -> Option<Box<[u8]>> {
    postwright_smtp_proto::sasl::server_end_point(certificate)
}

#[cfg(not(feature = "sasl"))]
fn end_point(_: &[u8]) -> Option<Box<[u8]>> {
    None
}

//! A connection that may turn into TLS: [`Stream`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use postwright_smtp_proto::TlsInfo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::describe;

/// Clear text, TLS, or nothing while a handshake runs or after one failed.
pub(crate) enum Stream<Io> {
    Clear(Io),
    Tls(Box<TlsStream<Io>>),
    Gone,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Stream<Io> {
    /// Runs the handshake. On an error the connection is gone.
    pub(crate) async fn start_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<TlsInfo> {
        let Stream::Clear(io) = std::mem::replace(self, Stream::Gone) else {
            return Err(io::Error::other("TLS is on already"));
        };
        let stream = TlsAcceptor::from(config).accept(io).await?;
        let info = describe(stream.get_ref().1);
        *self = Stream::Tls(Box::new(stream));
        Ok(info)
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<Io> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Clear(io) => Pin::new(io).poll_write(cx, octets),
            Stream::Tls(io) => Pin::new(io).poll_write(cx, octets),
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(io) => Pin::new(io).poll_flush(cx),
            Stream::Tls(io) => Pin::new(io).poll_flush(cx),
            Stream::Gone => Poll::Ready(Err(gone())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(io) => Pin::new(io).poll_shutdown(cx),
            Stream::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Stream::Gone => Poll::Ready(Ok(())),
        }
    }
}

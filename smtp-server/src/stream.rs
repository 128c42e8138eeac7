//! A connection that may turn into TLS: [`Stream`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use postwright_smtp_proto::TlsInfo;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::tls::{describe, noting_what_is_shown};

/// Clear text, TLS, or nothing while a handshake runs or after one failed.
pub(crate) enum Stream<Io> {
    Clear(Io),
    Tls(Box<TlsStream<Io>>),
    Gone,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Stream<Io> {
    /// Reads the first message of a handshake. On an error the connection is gone.
    pub(crate) async fn client_hello(&mut self) -> io::Result<StartHandshake<Io>> {
        let Stream::Clear(io) = std::mem::replace(self, Stream::Gone) else {
            return Err(io::Error::other("TLS is on already"));
        };
        LazyConfigAcceptor::new(Acceptor::default(), io).await
    }

    /// Runs the rest of the handshake. On an error the connection is gone.
    pub(crate) async fn finish_tls(
        &mut self,
        hello: StartHandshake<Io>,
        config: Arc<ServerConfig>,
    ) -> io::Result<TlsInfo> {
        let (config, shown) = noting_what_is_shown(&config);
        let stream = hello.into_stream(config).await?;
        let info = describe(stream.get_ref().1, &shown);
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

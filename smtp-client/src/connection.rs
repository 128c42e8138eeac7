//! One connection: the loop that does what the client machine says, over tokio and rustls.
//!
//! Invariant: one loop over `poll()`; every wait has the deadline that the machine gave. While it writes it also
//! reads, so that a peer that talks early can never make both sides wait for each other. Everything read is handed
//! to the machine before it is asked what to do next.
//!
//! Standards: RFC 5321 4.5.3.2 (time-outs), RFC 3207, RFC 8314 3.3 (implicit TLS).
//!
//! Not here: what is said and what it means (smtp-proto), the stream (connection/transport.rs), other hosts (client.rs),
//! reuse (pool.rs).

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use postwright_core::{Clock, Instant, Remote};
use postwright_smtp_proto::client::{CloseReason, Report, Session, Step, Timings, Transaction};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use crate::connect::{BoxIo, Connector, Target};
use crate::race::dial;
use crate::tls::{TlsClient, TlsFault};

mod failure;
mod options;
mod transport;

pub use failure::{ConnectError, ConnectFailure};
#[cfg(feature = "sasl")]
pub use options::Account;
pub use options::Options;
use transport::{Progress, Transport, exchange, upgrade};

/// Octets that are joined into one write.
const WRITE_BUFFER: usize = 16 * 1024;
/// Octets read at a time.
const READ_BUFFER: usize = 8 * 1024;
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An SMTP session over a byte stream, ready for transactions.
///
/// Dropping it closes the connection without a QUIT.
pub struct Connection {
    io: Transport,
    session: Session,
    target: Target,
    options: Options,
    tls: TlsClient,
    clock: Arc<dyn Clock>,
    out: Vec<u8>,
    /// When `out` must have been written.
    write_by: Instant,
    input: Box<[u8]>,
    transactions: u32,
    tls_fault: Option<TlsFault>,
    /// What opening took, until it is asked for.
    dialled: Duration,
    attached: Option<Box<dyn Any + Send + Sync>>,
}

/// What ended a stretch of the loop.
enum Event {
    Ready,
    Done(Report),
    Closed,
}

impl Connection {
    /// Connects to `target` and talks until the server is ready for mail: greeting, EHLO, STARTTLS.
    ///
    /// # Errors
    /// There is no session; the error says what that means for the recipients.
    pub(crate) async fn open(
        connector: &dyn Connector,
        tls: &TlsClient,
        clock: &Arc<dyn Clock>,
        target: &Target,
        options: &Options,
    ) -> Result<Connection, Box<ConnectError>> {
        let start = clock.mono();
        let dialled = dial(connector, target, options).await;
        let connect = clock.mono().since(start);
        let mut opened = match dialled {
            Ok(io) => Connection::over(io, tls, clock, target, options).await,
            Err(failure) => {
                let remote = Remote { host: target.host.clone(), address: Some(target.address), tls: None };
                Err(Box::new(ConnectError::new(remote, failure, clock.now())))
            }
        };
        match &mut opened {
            Ok(connection) => connection.dialled = connect,
            Err(error) => error.timings.connect = connect,
        }
        opened
    }

    /// The same on a stream that is open already.
    ///
    /// # Errors
    /// As [`Client::connect`](crate::Client::connect).
    pub async fn over(
        io: BoxIo,
        tls: &TlsClient,
        clock: &Arc<dyn Clock>,
        target: &Target,
        options: &Options,
    ) -> Result<Connection, Box<ConnectError>> {
        let now = clock.mono();
        let remote = Remote { host: target.host.clone(), address: Some(target.address), tls: None };
        let mut connection = Connection {
            io: Transport::Plain(io),
            session: Session::new(options.session.clone(), remote, clock.now(), now),
            target: target.clone(),
            options: options.clone(),
            tls: tls.clone(),
            clock: clock.clone(),
            out: Vec::with_capacity(WRITE_BUFFER),
            write_by: now,
            input: vec![0; READ_BUFFER].into(),
            transactions: 0,
            tls_fault: None,
            dialled: Duration::ZERO,
            attached: None,
        };
        #[cfg(feature = "sasl")]
        if let Some(account) = &options.account {
            connection.session.set_login(account.login());
        }
        if options.implicit_tls {
            connection.handshake().await;
        }
        match connection.drive().await {
            Event::Ready => {
                tracing::debug!(host = %target.host, address = %target.address, "session ready");
                Ok(connection)
            }
            Event::Done(_) | Event::Closed => {
                let reason = connection.session.closed().cloned().unwrap_or(CloseReason::Quit);
                tracing::debug!(host = %target.host, address = %target.address, %reason, "no session");
                let remote = connection.session.remote().clone();
                let mut error = ConnectError::new(remote, ConnectFailure::Session(reason), clock.now());
                error.timings = connection.session.take_timings();
                // A fault that nobody minded is not why the session ended.
                let enforced = matches!(error.close_reason(), Some(CloseReason::TlsFailed(_)));
                error.tls = connection.tls_fault.filter(|_| enforced);
                Err(Box::new(error))
            }
        }
    }

    /// Sends one message. The connection can be used again if it [is open](Connection::is_open) afterwards.
    pub async fn deliver(&mut self, transaction: Transaction) -> Report {
        let recipients = transaction.envelope.recipients.len();
        self.transactions = self.transactions.saturating_add(1);
        // A connection that was dropped in the middle of a delivery cannot be reached again, so it is never busy.
        let sent = self.session.send(transaction, self.clock.mono()).is_ok();
        match self.drive().await {
            Event::Done(report) if sent => report,
            _ => {
                let reason = self.session.closed().cloned().unwrap_or(CloseReason::Quit);
                Report::same(
                    &reason.status(Some(self.session.remote().clone()), self.clock.now()),
                    recipients,
                )
            }
        }
    }

    /// Where the time went since the connection was begun, or since this was asked last; idle time is not in it.
    pub fn take_timings(&mut self) -> Timings {
        let mut timings = self.session.take_timings();
        timings.connect = std::mem::take(&mut self.dialled);
        timings
    }

    /// Whether another transaction may be sent, as far as is known without asking the server.
    pub fn is_open(&self) -> bool {
        self.session.closed().is_none()
    }

    /// Looks, without waiting, whether the server has closed the connection or said 421 meanwhile.
    pub async fn is_alive(&mut self) -> bool {
        let waiting = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut self.input);
            Poll::Ready(match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(result) => Some(result.map(|()| buffer.filled().len()).unwrap_or(0)),
                Poll::Pending => None,
            })
        });
        let now = self.clock.mono();
        match waiting.await {
            None => {}
            Some(0) => self.session.handle_eof(now),
            Some(len) => self.take_input(len),
        }
        self.is_open()
    }

    /// How many transactions were sent on this connection.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// The session: what the server offers, and TLS.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What is wrong with the server's certificate; of an open connection, something that nobody minded.
    pub fn tls_fault(&self) -> Option<TlsFault> {
        self.tls_fault
    }

    /// Gives the connection something to carry for as long as it is open, such as the right to have it open; it takes
    /// the place of what was carried before, and is dropped with the connection.
    pub fn attach(&mut self, thing: impl Any + Send + Sync) {
        self.attached = Some(Box::new(thing));
    }

    /// What the connection carries, if it is of this type.
    pub fn attached<T: Any>(&self) -> Option<&T> {
        self.attached.as_ref()?.downcast_ref()
    }

    /// Where the connection leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Says QUIT, waits a moment for the answer and closes.
    pub async fn quit(mut self) {
        self.session.quit(self.clock.mono());
        self.drive().await;
    }

    async fn drive(&mut self) -> Event {
        loop {
            let now = self.clock.mono();
            match self.session.poll() {
                Step::Write { bytes, deadline } => {
                    let room = WRITE_BUFFER.saturating_sub(self.out.len());
                    let piece = bytes.get(..room).unwrap_or(bytes);
                    let len = piece.len();
                    self.out.extend_from_slice(piece);
                    self.write_by = deadline;
                    self.session.handle_written(len, now);
                    if self.out.len() >= WRITE_BUFFER {
                        self.write_out().await;
                    }
                }
                Step::Read { .. } if !self.out.is_empty() => self.write_out().await,
                Step::Read { deadline } => self.read(deadline).await,
                Step::StartTls => self.handshake().await,
                Step::Ready => return Event::Ready,
                Step::Done(report) => return Event::Done(report),
                Step::Close(_) => {
                    let _ = timeout(CLOSE_TIMEOUT, self.io.shutdown()).await;
                    self.io = Transport::Gone;
                    return Event::Closed;
                }
            }
        }
    }

    /// Writes what was collected, and takes what the peer says meanwhile.
    async fn write_out(&mut self) {
        let mut at = 0;
        while let Some(rest) = self.out.get(at..).filter(|rest| !rest.is_empty()) {
            let wait = self.write_by.since(self.clock.mono());
            let progress = timeout(wait, exchange(&mut self.io, rest, &mut self.input)).await;
            let now = self.clock.mono();
            match progress {
                Err(_) => self.session.handle_write_failed(true, now),
                Ok(Progress::Wrote(len)) if len > 0 => at += len,
                Ok(Progress::Read(len)) if len > 0 => self.take_input(len),
                Ok(_) => self.session.handle_write_failed(false, now),
            }
            if self.session.closed().is_some() {
                break;
            }
        }
        self.out.clear();
        if self.session.closed().is_none() {
            let wait = self.write_by.since(self.clock.mono());
            match timeout(wait, self.io.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => self.session.handle_eof(self.clock.mono()),
                Err(_) => self.session.handle_write_failed(true, self.clock.mono()),
            }
        }
    }

    async fn read(&mut self, deadline: Instant) {
        let wait = deadline.since(self.clock.mono());
        let result = timeout(wait, tokio::io::AsyncReadExt::read(&mut self.io, &mut self.input)).await;
        match result {
            Ok(Ok(len)) if len > 0 => self.take_input(len),
            Ok(_) => self.session.handle_eof(self.clock.mono()),
            // tokio's timer and our clock may differ by a little; the wait is over all the same.
            Err(_) => self.session.handle_timeout(self.clock.mono().max(deadline)),
        }
    }

    fn take_input(&mut self, len: usize) {
        let octets = self.input.get(..len).unwrap_or_default();
        self.session.handle_input(octets, self.clock.mono());
    }

    async fn handshake(&mut self) {
        let limit = self.options.session.timeouts.hello;
        let plain = match std::mem::replace(&mut self.io, Transport::Gone) {
            Transport::Plain(io) => io,
            other => {
                self.io = other;
                return;
            }
        };
        let upgraded = timeout(limit, upgrade(plain, &self.tls, &self.target, &self.options.demand)).await;
        let now = self.clock.mono();
        let late = || (TlsFault::Handshake, "the handshake took too long".to_owned());
        match upgraded.unwrap_or_else(|_| Err(late())) {
            Ok((stream, info, fault)) => {
                self.io = Transport::Tls(Box::new(stream));
                self.tls_fault = fault;
                self.session.handle_tls(info, now);
            }
            Err((fault, why)) => {
                self.tls_fault = Some(fault);
                self.session.handle_tls_failed(&why, now);
            }
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("target", &self.target).field("open", &self.is_open()).finish()
    }
}

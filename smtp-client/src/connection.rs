//! One connection: the loop that does what the client machine says, over tokio and rustls.
//!
//! Invariant: one loop over `poll()`; every wait has the deadline that the machine gave. While it writes it also
//! reads, so that a peer that talks early can never make both sides wait for each other. Everything read is handed
//! to the machine before it is asked what to do next.
//!
//! Standards: RFC 5321 4.5.3.2 (time-outs), RFC 3207, RFC 8314 3.3 (implicit TLS), RFC 9266 (tls-exporter),
//! RFC 5929 4 (tls-server-end-point).
//!
//! Not here: what is said and what it means (smtp-proto), other hosts (deliver), reuse (pool).

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use postwright_core::{Cause, Clock, DeliveryStatus, EnhancedStatus, Instant, Phase, Remote, Timestamp};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::client::{
    CloseReason, Config, Report, Session, StartTls, Step, Timings, Transaction,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connect::{BoxIo, Connector, Target};
use crate::race::dial;
use crate::tls::{Demand, TlsClient, TlsFault, Verdict, server_name};

/// Octets that are joined into one write.
const WRITE_BUFFER: usize = 16 * 1024;
/// Octets read at a time.
const READ_BUFFER: usize = 8 * 1024;
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a connection is opened and what is said on it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What the client machine is told: name, STARTTLS, BDAT, time-outs.
    pub session: Arc<Config>,
    /// TLS from the first octet (port 465, RFC 8314), instead of STARTTLS.
    pub implicit_tls: bool,
    /// What the server's certificate must be.
    pub demand: Demand,
    /// How long the connection may take to open: 30 s. RFC 1123 5.3.1.1 leaves it to us; the kernel's own two
    /// minutes are too long for a host with several addresses.
    pub connect_timeout: Duration,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    /// With which account to authenticate, if at all.
    #[cfg(feature = "sasl")]
    pub account: Option<Account>,
    /// Where a bearer token comes from, in place of the account's password or token.
    #[cfg(feature = "sasl")]
    pub tokens: Option<Arc<crate::oauth::Tokens>>,
}

impl Options {
    /// The same without TLS, if nothing asks for it: for a second try after a handshake failed.
    pub(crate) fn in_clear(&self) -> Option<Options> {
        let Options { demand, session, implicit_tls, .. } = self;
        let optional = session.starttls == StartTls::Opportunistic && *demand == Demand::Nothing;
        (optional && !implicit_tls).then(|| {
            let mut session = Config::clone(&self.session);
            session.starttls = StartTls::None;
            Options { session: Arc::new(session), ..self.clone() }
        })
    }
}

/// An account at a smart host.
#[cfg(feature = "sasl")]
#[derive(Clone)]
pub struct Account {
    /// Who we are there.
    pub credentials: postwright_smtp_proto::sasl::client::Credentials,
    /// How well the connection must be protected first; verified TLS unless you say otherwise.
    pub protection: postwright_smtp_proto::client::Protection,
    /// Where nonces come from.
    pub entropy: Arc<dyn postwright_core::Entropy>,
}

#[cfg(feature = "sasl")]
impl Account {
    fn login(&self) -> postwright_smtp_proto::client::Login {
        let mut random = [0; 18];
        self.entropy.fill(&mut random);
        postwright_smtp_proto::client::Login::new(self.credentials.clone(), self.protection, random)
    }
}

#[cfg(feature = "sasl")]
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults, with what the client machine is told.
    pub fn new(session: Config) -> Options {
        Options {
            session: Arc::new(session),
            implicit_tls: false,
            demand: Demand::default(),
            connect_timeout: Duration::from_secs(30),
            source: None,
            #[cfg(feature = "sasl")]
            account: None,
            #[cfg(feature = "sasl")]
            tokens: None,
        }
    }
}

/// Why no session came about.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The connection could not be opened: refused, unreachable, no local address.
    Io(io::Error),
    /// The connection did not open within [`Options::connect_timeout`].
    Timeout,
    /// The connection was open, and the session ended before it was ready.
    Session(CloseReason),
}

/// No session with this server, at this time: the reason, and what it means for a recipient.
#[derive(Debug, thiserror::Error)]
#[error("no session with {}: {}", .remote.host, .status.diagnostic)]
pub struct ConnectError {
    /// The server.
    pub remote: Remote,
    /// Why.
    pub failure: ConnectFailure,
    /// What was wrong with the handshake, if it failed.
    pub tls: Option<TlsFault>,
    /// What it means for a recipient that goes to this server alone.
    pub status: Box<DeliveryStatus>,
    /// Where the time went.
    pub timings: Timings,
}

impl ConnectError {
    pub(crate) fn new(remote: Remote, failure: ConnectFailure, at: Timestamp) -> ConnectError {
        let status = match &failure {
            ConnectFailure::Session(reason) => reason.status(Some(remote.clone()), at),
            ConnectFailure::Io(_) | ConnectFailure::Timeout => {
                let cause = match failure {
                    ConnectFailure::Timeout => Cause::Timeout(Phase::Connect),
                    _ => Cause::Unreachable,
                };
                let code = EnhancedStatus::known(4, 4, 1);
                let status = DeliveryStatus::local(code, cause, Phase::Connect, at);
                DeliveryStatus { remote: Some(remote.clone()), ..status }
            }
        };
        ConnectError { remote, failure, tls: None, status: Box::new(status), timings: Timings::default() }
    }

    /// Why the session ended, if the connection was open.
    pub fn close_reason(&self) -> Option<&CloseReason> {
        match &self.failure {
            ConnectFailure::Session(reason) => Some(reason),
            _ => None,
        }
    }
}

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

async fn upgrade(
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

/// What happened first while there was something to write.
enum Progress {
    /// Octets written; 0 means that the connection is broken.
    Wrote(usize),
    /// Octets read; 0 means that it ended.
    Read(usize),
}

/// Writes, and reads if that is all that can be done.
async fn exchange(io: &mut Transport, out: &[u8], input: &mut [u8]) -> Progress {
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
enum Transport {
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

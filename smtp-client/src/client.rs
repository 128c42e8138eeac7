//! The client: one message to the hosts of a route, in order, until each recipient has a fate.
//!
//! Invariant: another host is tried only while nothing was decided: after the first reply to MAIL the session's
//! report stands, and a message that may have been taken is never sent a second time by us.
//!
//! Standards: RFC 5321 5.1 (try the next address), RFC 3207 4 (a failed handshake).
//!
//! Not here: where the hosts come from (route), reuse of connections (pool), when to try again (queue).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use postwright_core::{Cause, Clock, DeliveryStatus, Diagnostic, EnhancedStatus, Outcome, Phase, Remote};
use postwright_smtp_proto::client::{CloseReason, Report, Timings, Transaction};

use crate::connect::{BoxIo, Connector, Target, TcpConnector};
use crate::connection::{ConnectError, Connection, Options};
use crate::policy::Attempt;
use crate::race::race;
use crate::route::MailHost;
use crate::tls::{TlsClient, TlsSetupError, Trust};

/// Is told of each connection that is tried for a message: for reports and logs.
pub trait Watch: Send + Sync {
    /// A session with the attempt's server is ready, or why not. A second connection without TLS, after a handshake
    /// that nobody demanded failed, is not told of.
    fn tried(&self, attempt: &Attempt, outcome: Result<&Connection, &ConnectError>);
}

/// A server to try.
#[derive(Clone, Copy)]
struct Try<'a> {
    target: &'a Target,
    options: &'a Options,
    /// Who is told what came of it.
    watched: Option<(&'a Attempt, &'a dyn Watch)>,
}

impl<'a> Try<'a> {
    /// Whether a token has to be had first, so that nothing can be opened ahead.
    fn needs_token(&self) -> bool {
        #[cfg(feature = "sasl")]
        return self.options.tokens.is_some();
        #[cfg(not(feature = "sasl"))]
        false
    }

    fn of(attempt: &'a Attempt, watch: Option<&'a dyn Watch>) -> Try<'a> {
        let Attempt { target, options, .. } = attempt;
        Try { target, options, watched: watch.map(|watch| (attempt, watch)) }
    }

    fn tell(&self, outcome: Result<&Connection, &ConnectError>) {
        if let Some((attempt, watch)) = self.watched {
            watch.tried(attempt, outcome);
        }
    }
}

/// What a message came to, by [`Client::deliver_timed`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivered {
    /// One status for each recipient.
    pub report: Report,
    /// The connection, if it can be used again.
    pub connection: Option<Connection>,
    /// Where the time went, over all servers that were tried; without looking anything up.
    pub timings: Timings,
}

/// Opens connections and sends messages. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    connector: Arc<dyn Connector>,
    tls: TlsClient,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// A client over TCP that believes `trust`.
    ///
    /// # Errors
    /// A given root certificate cannot be read.
    pub fn new(trust: &Trust, clock: Arc<dyn Clock>) -> Result<Client, TlsSetupError> {
        let tls = TlsClient::new(trust, clock.clone())?;
        Ok(Client { connector: Arc::new(TcpConnector), tls, clock })
    }

    /// The same with another way to open connections.
    #[must_use]
    pub fn with_connector(self, connector: Arc<dyn Connector>) -> Client {
        Client { connector, ..self }
    }

    /// The way it opens connections.
    pub fn connector(&self) -> &Arc<dyn Connector> {
        &self.connector
    }

    /// Opens a session with one server.
    ///
    /// # Errors
    /// There is no session; [`ConnectError::status`] says what that means for the recipients.
    pub async fn connect(&self, target: &Target, options: &Options) -> Result<Connection, Box<ConnectError>> {
        #[cfg(feature = "sasl")]
        if let Some(tokens) = &options.tokens {
            return crate::oauth::connect(self, tokens, target, options).await;
        }
        self.open(target, options).await
    }

    pub(crate) async fn open(
        &self,
        target: &Target,
        options: &Options,
    ) -> Result<Connection, Box<ConnectError>> {
        Connection::open(&*self.connector, &self.tls, &self.clock, target, options).await
    }

    #[cfg(feature = "sasl")]
    pub(crate) fn now(&self) -> postwright_core::Timestamp {
        self.clock.now()
    }

    /// Sends one message to the first of `targets` that takes part, and says QUIT.
    ///
    /// A server that cannot be reached, greets with a refusal, fails in TLS, or ends the session or delays everything
    /// before the message was sent is passed over for the next one. If none takes part, the report has what the
    /// first server said that delays; only if all refuse for good does the message fail.
    pub async fn deliver(&self, targets: &[Target], options: &Options, transaction: Transaction) -> Report {
        let (report, connection) = self.deliver_keeping(targets, options, transaction).await;
        if let Some(connection) = connection {
            connection.quit().await;
        }
        report
    }

    /// As [`Client::deliver`], and hands back the connection if it can be used again.
    pub(crate) async fn deliver_keeping(
        &self,
        targets: &[Target],
        options: &Options,
        transaction: Transaction,
    ) -> (Report, Option<Connection>) {
        let tries = targets.iter().map(|target| Try { target, options, watched: None });
        let sent = self.try_each(tries, transaction).await;
        (sent.report, sent.connection)
    }

    /// As [`Client::deliver`], with options of its own for each server, such as
    /// [`policy::attempts`](crate::policy::attempts) makes them; hands back the connection if it can be used again.
    pub async fn deliver_each(
        &self,
        attempts: &[Attempt],
        transaction: Transaction,
    ) -> (Report, Option<Connection>) {
        let sent = self.deliver_timed(attempts, transaction, None).await;
        (sent.report, sent.connection)
    }

    /// As [`Client::deliver_each`], and says where the time went; `watch` hears of every connection that is tried.
    pub async fn deliver_timed(
        &self,
        attempts: &[Attempt],
        transaction: Transaction,
        watch: Option<&dyn Watch>,
    ) -> Delivered {
        let one = |attempt| Try::of(attempt, watch);
        let start = self.clock.mono();
        let mut sent = self.try_each(attempts.iter().map(one), transaction).await;
        sent.timings.total = self.clock.mono().since(start);
        sent
    }

    async fn try_each<'a>(
        &self,
        tries: impl Iterator<Item = Try<'a>>,
        transaction: Transaction,
    ) -> Delivered {
        let recipients = transaction.envelope.recipients.len();
        let mut best: Option<Report> = None;
        let mut timings = Timings::default();
        let mut waiting: VecDeque<Try<'a>> = tries.collect();
        while !waiting.is_empty() {
            // Boxed: it is large, it is once a connection, and whoever delivers would carry it along.
            for result in Box::pin(self.connect_next(&mut waiting, &mut timings)).await {
                let report = match result {
                    Err(error) if error.is_login_refused() => {
                        // The next server knows the account no better, and some lock it after a few such tries.
                        let report = Report::same(&error.status, recipients);
                        return Delivered { report, connection: None, timings };
                    }
                    Err(error) => Report::same(&error.status, recipients),
                    Ok(mut connection) => {
                        let report = connection.deliver(transaction.clone()).await;
                        timings += connection.take_timings();
                        if !is_open_question(&report) && !is_misfit(&report) {
                            let connection = connection.is_open().then_some(connection);
                            return Delivered { report, connection, timings };
                        }
                        if connection.is_open() {
                            connection.quit().await;
                        }
                        report
                    }
                };
                best = match best {
                    Some(best) if !has_failed(&best) || has_failed(&report) => Some(best),
                    _ => Some(report),
                };
            }
        }
        let report = best.unwrap_or_else(|| self.nowhere(recipients));
        Delivered { report, connection: None, timings }
    }

    /// Takes the next server off the list, or those of a host's addresses that a race decided about: the failures,
    /// and at most one connection behind them.
    async fn connect_next(
        &self,
        waiting: &mut VecDeque<Try<'_>>,
        timings: &mut Timings,
    ) -> Vec<Result<Connection, Box<ConnectError>>> {
        let host = waiting.front().map(|first| first.target.host.clone());
        let same = waiting.iter().take_while(|one| Some(&one.target.host) == host.as_ref()).count();
        if same < 2 || waiting.front().is_some_and(Try::needs_token) {
            return match waiting.pop_front() {
                Some(one) => vec![self.connect_or_fall_back(one, None, timings).await],
                None => Vec::new(),
            };
        }
        let mut runners: Vec<Option<Try<'_>>> = waiting.drain(..same).map(Some).collect();
        let start = self.clock.mono();
        let race = race(&self.connector, runners.iter().flatten().map(|one| (one.target, one.options))).await;
        timings.add(Phase::Connect, self.clock.mono().since(start));
        let mut results = Vec::new();
        for (index, failure) in race.failed {
            let Some(one) = runners.get_mut(index).and_then(Option::take) else { continue };
            let remote =
                Remote { host: one.target.host.clone(), address: Some(one.target.address), tls: None };
            let error = Box::new(ConnectError::new(remote, failure, self.clock.now()));
            one.tell(Err(&*error));
            results.push(Err(error));
        }
        if let Some((index, io)) = race.opened
            && let Some(one) = runners.get_mut(index).and_then(Option::take)
        {
            results.push(self.connect_or_fall_back(one, Some(io), timings).await);
            // Those that lost may yet be wanted, if this session comes to nothing.
            runners.into_iter().rev().flatten().for_each(|one| waiting.push_front(one));
        }
        results
    }

    /// Connects, unless a connection is open already; if a handshake that nobody demanded fails, connects once more
    /// without TLS. Nothing about it is remembered, so that the next delivery tries TLS again (RFC 7435 4).
    async fn connect_or_fall_back(
        &self,
        one: Try<'_>,
        open: Option<BoxIo>,
        timings: &mut Timings,
    ) -> Result<Connection, Box<ConnectError>> {
        let Try { target, options, .. } = one;
        let result = match open {
            Some(io) => Connection::over(io, &self.tls, &self.clock, target, options).await,
            None => self.connect(target, options).await,
        };
        one.tell(result.as_ref().map_err(|error| &**error));
        let tls_failed =
            |error: &ConnectError| matches!(error.close_reason(), Some(CloseReason::TlsFailed(_)));
        let result = match (result, options.in_clear()) {
            (Err(error), Some(clear)) if tls_failed(&error) => {
                tracing::debug!(host = %target.host, "no TLS; trying without");
                *timings += error.timings;
                self.connect(target, &clear).await
            }
            (result, _) => result,
        };
        if let Err(error) = &result {
            *timings += error.timings;
        }
        result
    }

    fn nowhere(&self, recipients: usize) -> Report {
        let status = EnhancedStatus::known(4, 4, 1);
        let status = DeliveryStatus::local(status, Cause::Unreachable, Phase::Connect, self.clock.now());
        Report::same(&status, recipients)
    }
}

/// Whether nothing was decided, so that another server may be asked: everyone is delayed, by the end of the session
/// or by the reply to MAIL, and the message was not sent.
fn is_open_question(report: &Report) -> bool {
    report.statuses.iter().all(|status| {
        status.outcome == Outcome::Delayed
            && status.phase < Phase::Body
            && (status.phase <= Phase::Mail || is_end_of_session(status))
    })
}

/// Whether the session ended before anything was decided: on a connection that was idle, a matter of its age and no
/// reason to fail. The message goes out on another one.
pub fn is_lost(report: &Report) -> bool {
    report.statuses.iter().all(|status| {
        status.outcome == Outcome::Delayed && status.phase < Phase::Body && is_end_of_session(status)
    })
}

/// Whether this server lacks an extension that the message needs, so that nothing was sent. Another one may have it; RFC
/// 8689 4.2.1 wants every host to be asked before a message with REQUIRETLS fails.
pub fn is_misfit(report: &Report) -> bool {
    let lacks = |status: &DeliveryStatus| {
        let missing = matches!(status.diagnostic, Diagnostic::Local(Cause::MissingExtension(_)));
        status.outcome == Outcome::Failed && missing
    };
    !report.statuses.is_empty() && report.statuses.iter().all(lacks)
}

fn is_end_of_session(status: &DeliveryStatus) -> bool {
    match &status.diagnostic {
        Diagnostic::Smtp(reply) => reply.code().get() == 421,
        Diagnostic::Local(cause) => matches!(cause, Cause::ConnectionLost(_) | Cause::Timeout(_)),
    }
}

fn has_failed(report: &Report) -> bool {
    report.statuses.iter().any(|status| status.outcome == Outcome::Failed)
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// The addresses of a route's hosts, in order, with the port.
pub fn targets(hosts: &[MailHost], port: u16) -> Vec<Target> {
    let mut targets = Vec::new();
    for host in hosts {
        for ip in &host.addresses {
            targets.push(Target { host: host.name.clone(), address: SocketAddr::new(*ip, port) });
        }
    }
    targets
}

//! The session from greeting to QUIT: replies in, commands out, deadlines.
//!
//! Invariant: `expected` holds one entry for each command without a reply, in the order they were written.
//!
//! Standards: RFC 5321 3.1, 3.2, 3.8, 4.1.4, 4.3.2, 4.5.3.2; RFC 3207 4 and 6.
//!
//! Not here: a transaction's own steps (job).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Instant, Phase, Remote, Reply, Timestamp, TlsSummary};

use super::config::{Config, Protocol, StartTls};
use super::job::Job;
use super::report::{CloseReason, Report, Transaction};
use super::timings::Timings;
use crate::TlsInfo;
use crate::ehlo::Capabilities;
use crate::reply::ReplyParser;

/// What the driver has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'s> {
    /// Read from the peer; call [`Session::handle_timeout`] if nothing came by `deadline`.
    Read {
        /// When the wait ends.
        deadline: Instant,
    },
    /// Write, then call [`Session::handle_written`]. Input that comes meanwhile may be handed in at once.
    Write {
        /// What to write; writing a part of it is fine.
        bytes: &'s [u8],
        /// When the peer must have taken something.
        deadline: Instant,
    },
    /// Do a TLS handshake as a client, then call [`Session::handle_tls`] or [`Session::handle_tls_failed`]. What
    /// was read before and not handed in must not be used as TLS input: hand it in, and the session will close.
    StartTls,
    /// Nothing to do until [`Session::send`] or [`Session::quit`].
    Ready,
    /// A transaction has ended.
    Done(Report),
    /// The session has ended: close the connection.
    Close(CloseReason),
}

/// A transaction is in progress already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session is in the middle of a transaction; wait for its report")]
pub struct Busy;

/// What a reply will answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    #[cfg(feature = "sasl")]
    Auth,
    Reset,
    Mail,
    /// The recipient's place in the envelope.
    Rcpt(usize),
    Data,
    /// The message as a whole.
    Message,
    /// The message for one recipient (LMTP).
    MessageFor(usize),
    Quit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Up to the reply to the last EHLO.
    Opening,
    /// STARTTLS was accepted; not one octet may come before the handshake.
    Handshake,
    /// Between transactions, or in one.
    Open,
    Quitting,
    Closed(CloseReason),
}

/// The client side of one connection.
///
/// The driver loops over [`poll`](Session::poll) and does what it says; everything that happens is told by the
/// `handle_*` methods, with the time it happened at.
///
/// ```
/// use std::sync::Arc;
/// use postwright_core::{Domain, Envelope, Instant, Mailbox, Message, Remote, Timestamp};
/// use postwright_smtp_proto::client::{Config, Session, Step, Transaction};
///
/// let name: Domain = "client.example".parse()?;
/// let remote = Remote { host: "mx.example.org".parse()?, address: None, tls: None };
/// let now = Instant::ZERO;
/// let mut session = Session::new(Arc::new(Config::new(name)), remote, Timestamp::from_secs(1_800_000_000), now);
/// let bob: Mailbox = "bob@example.org".parse()?;
/// session.send(Transaction {
///     envelope: Envelope::new("alice@client.example".parse::<Mailbox>()?, [bob]),
///     message: Message::from_bytes(&b"Subject: hi\r\n\r\n.\r\n"[..]),
/// }, now)?;
/// let mut written = Vec::new();
/// let mut server = [&b"220 mx\r\n"[..], b"250 mx\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 mine\r\n"].into_iter();
/// let report = loop {
///     match session.poll() {
///         Step::Read { .. } => session.handle_input(server.next().unwrap(), now),
///         Step::Write { bytes, .. } => {
///             written.extend_from_slice(bytes);
///             let len = bytes.len();
///             session.handle_written(len, now);
///         }
///         Step::Done(report) => break report,
///         step => unreachable!("{step:?}"),
///     }
/// };
/// assert!(report.is_success());
/// assert!(written.ends_with(b"Subject: hi\r\n\r\n..\r\n.\r\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session {
    pub(super) config: Arc<Config>,
    pub(super) remote: Remote,
    started: (Timestamp, Instant),
    /// The time of the latest event.
    pub(super) now: Instant,
    /// When the peer last did what it should: a whole reply, or octets taken.
    pub(super) progress: Instant,
    parser: ReplyParser,
    pub(super) offer: Capabilities,
    pub(super) tls: Option<TlsInfo>,
    pub(super) state: State,
    pub(super) out: Vec<u8>,
    out_at: usize,
    pub(super) expected: VecDeque<Expect>,
    pub(super) job: Option<Job>,
    pub(super) report: Option<Report>,
    /// MAIL was accepted and its transaction neither completed nor reset.
    pub(super) needs_reset: bool,
    pub(super) authenticated: bool,
    timings: Timings,
    #[cfg(feature = "sasl")]
    pub(super) login: Option<super::auth::Login>,
}

impl Session {
    /// A session on a new connection: the server speaks first. `started` is the wall time at `now`.
    pub fn new(config: Arc<Config>, remote: Remote, started: Timestamp, now: Instant) -> Session {
        let parser = ReplyParser::new(config.limits.reply);
        Session {
            config,
            remote,
            started: (started, now),
            now,
            progress: now,
            parser,
            offer: Capabilities::default(),
            tls: None,
            state: State::Opening,
            out: Vec::new(),
            out_at: 0,
            expected: VecDeque::from([Expect::Greeting]),
            job: None,
            report: None,
            needs_reset: false,
            authenticated: false,
            timings: Timings::default(),
            #[cfg(feature = "sasl")]
            login: None,
        }
    }

    /// What the server offers: nothing before its reply to EHLO, and nothing after HELO.
    pub fn capabilities(&self) -> &Capabilities {
        &self.offer
    }

    /// TLS, if it is in use.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// The server, as reports name it.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Wall time at the latest event.
    pub fn timestamp(&self) -> Timestamp {
        self.started.0 + self.now.since(self.started.1)
    }

    /// Where the time went since the start, or since this was asked last. Looking up and connecting are not in it.
    pub fn take_timings(&mut self) -> Timings {
        std::mem::take(&mut self.timings)
    }

    /// Why the session ended, if it has.
    pub fn closed(&self) -> Option<&CloseReason> {
        match &self.state {
            State::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Starts a transaction; before [`Step::Ready`] it waits until the session is open.
    ///
    /// On a session that has ended the report comes at once.
    ///
    /// # Errors
    /// The report of the last transaction has not been taken yet: the caller's fault.
    pub fn send(&mut self, transaction: Transaction, now: Instant) -> Result<(), Busy> {
        self.advance(now);
        if self.job.is_some() || self.report.is_some() {
            return Err(Busy);
        }
        self.job = Some(Job::new(transaction));
        match &self.state {
            State::Closed(reason) => {
                let reason = reason.clone();
                self.report_all(&reason);
            }
            State::Open => self.begin_job(),
            _ => {}
        }
        Ok(())
    }

    /// Says QUIT, between transactions; in the middle of one it does nothing.
    pub fn quit(&mut self, now: Instant) {
        self.advance(now);
        if self.state == State::Open && self.job.is_none() {
            self.state = State::Quitting;
            self.write("QUIT\r\n", Expect::Quit);
        } else if self.state == State::Opening && self.job.is_none() {
            self.close(CloseReason::Quit);
        }
    }

    /// Takes octets that the peer sent.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        self.advance(now);
        let mut rest = bytes;
        while !rest.is_empty() && self.closed().is_none() {
            if self.state == State::Handshake {
                // CVE-2011-0411: whoever can inject clear text here would have it taken for the server's
                // words inside TLS.
                let what = "octets between the reply to STARTTLS and the handshake (CVE-2011-0411)";
                self.close(CloseReason::Protocol(Phase::StartTls, what.into()));
                return;
            }
            match self.parser.feed(rest) {
                Ok((used, reply)) => {
                    rest = rest.get(used..).unwrap_or_default();
                    if let Some(reply) = reply {
                        self.progress = now;
                        self.handle_reply(reply);
                    }
                }
                Err(error) => {
                    self.close(CloseReason::Protocol(self.phase(), error.to_string().into()));
                }
            }
        }
    }

    /// The driver wrote `len` octets of the last [`Step::Write`], or took them into a buffer of its own.
    pub fn handle_written(&mut self, len: usize, now: Instant) {
        self.advance(now);
        self.progress = now;
        let queued = self.out.len() - self.out_at;
        if queued > 0 {
            self.out_at += len.min(queued);
            if self.out_at == self.out.len() {
                self.out.clear();
                self.out_at = 0;
            }
        } else {
            self.body_written(len);
        }
    }

    /// The handshake that [`Step::StartTls`] asked for succeeded; or, before the greeting, the connection has TLS
    /// from its start (RFC 8314 3.3). At any other time it changes nothing.
    pub fn handle_tls(&mut self, tls: TlsInfo, now: Instant) {
        let implicit = self.expected.front() == Some(&Expect::Greeting) && self.tls.is_none();
        if implicit || self.state == State::Handshake {
            self.timings.add(Phase::StartTls, now.since(self.now));
            self.now = now;
            self.progress = now;
            self.set_tls(tls);
        }
        if self.state != State::Handshake {
            return;
        }
        self.state = State::Opening;
        // RFC 3207 4.2: everything learned in clear is forgotten.
        self.offer = Capabilities::default();
        self.say_hello();
    }

    /// The handshake that [`Step::StartTls`] asked for failed.
    pub fn handle_tls_failed(&mut self, why: &str, now: Instant) {
        self.advance(now);
        self.close(CloseReason::TlsFailed(why.into()));
    }

    /// Octets that were reported as written could not be passed on: the connection broke, or the peer took nothing
    /// for as long as the [`Step::Write`] allowed (`timed_out`).
    ///
    /// Since the end of a message is the last thing written, the peer cannot hold the whole message then.
    pub fn handle_write_failed(&mut self, timed_out: bool, now: Instant) {
        self.advance(now);
        let in_message = self.job.as_mut().is_some_and(super::job::Job::take_back_end);
        let phase = if in_message { Phase::Body } else { self.phase() };
        self.close(match timed_out {
            true => CloseReason::Timeout(phase),
            false => CloseReason::ConnectionLost(phase),
        });
    }

    /// The peer closed the connection, or it broke.
    pub fn handle_eof(&mut self, now: Instant) {
        self.advance(now);
        match self.state {
            State::Quitting => self.close(CloseReason::Quit),
            _ => self.close(CloseReason::ConnectionLost(self.phase())),
        }
    }

    /// A deadline may have passed; too early a call does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.state {
            State::Quitting => self.close(CloseReason::Quit),
            _ => self.close(CloseReason::Timeout(self.phase())),
        }
    }

    /// Time goes on: what has passed belongs to the phase in which it passed.
    fn advance(&mut self, now: Instant) {
        self.timings.add(self.phase(), now.since(self.now));
        self.now = now;
    }

    /// What to do next. Call it again after each thing done.
    pub fn poll(&mut self) -> Step<'_> {
        if let Some(report) = self.report.take() {
            return Step::Done(report);
        }
        match &self.state {
            State::Closed(reason) => return Step::Close(reason.clone()),
            State::Handshake => return Step::StartTls,
            _ => {}
        }
        let Some(deadline) = self.deadline() else { return Step::Ready };
        let queued = self.out.get(self.out_at..).unwrap_or_default();
        if !queued.is_empty() {
            return Step::Write { bytes: queued, deadline };
        }
        match self.job.as_ref().map(Job::piece).filter(|piece| !piece.is_empty()) {
            Some(bytes) => Step::Write { bytes, deadline },
            None => Step::Read { deadline },
        }
    }

    /// When the present wait ends; `None` if there is nothing to wait for.
    fn deadline(&self) -> Option<Instant> {
        let timeouts = &self.config.timeouts;
        if self.out_at < self.out.len() {
            return Some(self.progress + timeouts.block);
        }
        if let Some(latest) = self.job.as_ref().and_then(|job| job.body_deadline(timeouts)) {
            return Some(latest.min(self.progress + timeouts.block));
        }
        let span: Duration = match self.expected.front()? {
            Expect::Greeting => timeouts.greeting,
            Expect::Ehlo | Expect::Helo | Expect::StartTls => timeouts.hello,
            #[cfg(feature = "sasl")]
            Expect::Auth => timeouts.hello,
            Expect::Mail | Expect::Reset => timeouts.mail,
            Expect::Rcpt(_) => timeouts.rcpt,
            Expect::Data => timeouts.data,
            Expect::Message | Expect::MessageFor(_) => timeouts.end_of_data,
            Expect::Quit => timeouts.quit,
        };
        Some(self.progress + span)
    }

    /// The phase that an event now belongs to.
    pub(super) fn phase(&self) -> Phase {
        if self.state == State::Handshake {
            return Phase::StartTls;
        }
        if self.job.as_ref().is_some_and(|job| !job.piece().is_empty()) {
            return Phase::Body;
        }
        match self.expected.front() {
            Some(Expect::Greeting) => Phase::Greeting,
            Some(Expect::Ehlo | Expect::Helo) => Phase::Hello,
            Some(Expect::StartTls) => Phase::StartTls,
            #[cfg(feature = "sasl")]
            Some(Expect::Auth) => Phase::Auth,
            Some(Expect::Mail | Expect::Reset) => Phase::Mail,
            Some(Expect::Rcpt(_)) => Phase::Rcpt,
            Some(Expect::Data) => Phase::Data,
            Some(Expect::Message | Expect::MessageFor(_)) => Phase::EndOfData,
            Some(Expect::Quit) | None => Phase::Closing,
        }
    }

    /// Queues a command and the reply it will get.
    pub(super) fn write(&mut self, line: &str, expect: Expect) {
        if self.expected.is_empty() && self.out.is_empty() {
            self.progress = self.now;
        }
        self.out.extend_from_slice(line.as_bytes());
        self.expected.push_back(expect);
    }

    /// Whether every queued command was written.
    pub(super) fn is_flushed(&self) -> bool {
        self.out_at == self.out.len()
    }

    /// Ends the session; a transaction in progress gets its report.
    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.closed().is_some() {
            return;
        }
        self.report_all(&reason);
        self.state = State::Closed(reason);
        self.expected.clear();
        self.out.clear();
        self.out_at = 0;
    }

    fn set_tls(&mut self, tls: TlsInfo) {
        let TlsInfo { version, cipher, verified, .. } = &tls;
        self.remote.tls =
            Some(TlsSummary { version: version.clone(), cipher: cipher.clone(), verified: *verified });
        self.tls = Some(tls);
    }

    fn say_hello(&mut self) {
        let verb = match self.config.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        self.write(&format!("{verb} {}\r\n", self.config.hello), Expect::Ehlo);
    }

    fn handle_reply(&mut self, reply: Reply) {
        let phase = self.phase();
        let Some(expect) = self.expected.pop_front() else {
            self.close(match reply.code().get() {
                421 => CloseReason::Refused { phase, reply },
                _ => CloseReason::Protocol(phase, format!("a reply without a command: {reply}").into()),
            });
            return;
        };
        if reply.code().get() == 421 && expect != Expect::Quit {
            self.close(CloseReason::Refused { phase, reply });
            return;
        }
        match expect {
            Expect::Greeting if reply.code().is_positive() => self.say_hello(),
            Expect::Ehlo if reply.code().is_positive() => {
                self.offer = Capabilities::from_reply(&reply);
                self.hello_done();
            }
            Expect::Ehlo if reply.code().is_permanent() && self.config.protocol == Protocol::Smtp => {
                // RFC 5321 4.1.4 and 3.2: a server that does not know EHLO may know HELO.
                self.write(&format!("HELO {}\r\n", self.config.hello), Expect::Helo);
            }
            Expect::Helo if reply.code().is_positive() => self.hello_done(),
            Expect::StartTls => self.starttls_answered(&reply),
            #[cfg(feature = "sasl")]
            Expect::Auth => self.auth_answered(&reply),
            Expect::Quit => self.close(CloseReason::Quit),
            Expect::Greeting | Expect::Ehlo | Expect::Helo => self.refused(phase, reply),
            Expect::Reset
            | Expect::Mail
            | Expect::Rcpt(_)
            | Expect::Data
            | Expect::Message
            | Expect::MessageFor(_) => self.job_reply(expect, phase, reply),
        }
    }

    /// Ends the session over a reply that refuses it; one that neither refuses nor accepts breaks the protocol.
    pub(super) fn refused(&mut self, phase: Phase, reply: Reply) {
        self.close(if reply.code().is_transient() || reply.code().is_permanent() {
            CloseReason::Refused { phase, reply }
        } else {
            CloseReason::Protocol(phase, format!("an answer that fits no such command: {reply}").into())
        });
    }

    fn hello_done(&mut self) {
        match (self.config.starttls, &self.tls) {
            (StartTls::None, _) | (_, Some(_)) => self.open(),
            (_, None) if self.offer.starttls => self.write("STARTTLS\r\n", Expect::StartTls),
            (StartTls::Opportunistic, None) => self.open(),
            (StartTls::Required, None) => {
                self.close(CloseReason::TlsUnavailable("the server does not offer STARTTLS".into()));
            }
        }
    }

    fn starttls_answered(&mut self, reply: &Reply) {
        if reply.code().is_positive() {
            self.state = State::Handshake;
        } else if self.config.starttls == StartTls::Required {
            self.close(CloseReason::TlsUnavailable(format!("STARTTLS was refused: {reply}").into()));
        } else {
            self.open();
        }
    }

    /// The server is ready for AUTH, if there is a login, and then for mail.
    fn open(&mut self) {
        #[cfg(feature = "sasl")]
        if self.login.is_some() && !self.authenticated {
            self.begin_auth();
            return;
        }
        self.ready();
    }

    pub(super) fn ready(&mut self) {
        self.state = State::Open;
        if self.job.is_some() {
            self.begin_job();
        }
    }
}

//! The machine itself: [`Session`], its inputs, its one output and its phases.
//!
//! Invariant: `poll` always ends; what it returns is the only thing that the session waits for.
//!
//! Standards: RFC 5321 3 and 4; RFC 2920; RFC 3207 4.2 (what was known before the handshake is forgotten).
//!
//! Not here: what each command and answer does (the files beside this one).

use std::sync::Arc;

use postwright_core::{
    EnhancedStatus, Envelope, Instant, MailOptions, Recipient, Refusal, Reply, ReversePath,
};

use super::auth::TOO_LONG_EXCHANGE;
use super::config::{Config, Peer};
use super::input::Input;
use super::output::Output;
use super::question::{Answer, AskId, Hello, Question};
use super::step::{CloseReason, Step};
use super::timers::{Timers, Wait};
use crate::command::Parameter;
use crate::data::DotDecoder;
use crate::line::{Line, next_line};
use crate::{Limits, TlsInfo};

/// Replies are collected up to this many octets before they are written (RFC 2920 3.2).
const OUTPUT_MAX: usize = 4096;

/// One connection, seen from the server.
///
/// ```
/// use std::sync::Arc;
/// use postwright_core::{Domain, Instant, Timestamp};
/// use postwright_smtp_proto::server::{Answer, Config, Peer, Session, Step};
///
/// let config = Arc::new(Config::new("mx.example.org".parse::<Domain>()?));
/// let peer = Peer::new("192.0.2.1:4000".parse()?, "192.0.2.2:25".parse()?, Timestamp::from_secs(0));
/// let mut session = Session::new(config, peer, Instant::ZERO);
/// let Step::Ask(id) = session.poll() else { panic!() };
/// session.answer(id, Answer::accepted());
/// let Step::Write { bytes, .. } = session.poll() else { panic!() };
/// assert_eq!(bytes, b"220 mx.example.org ESMTP\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session {
    pub(super) config: Arc<Config>,
    pub(super) peer: Peer,
    pub(super) phase: Phase,
    pub(super) input: Input,
    /// Memory for the line that is being carried out.
    scratch: Vec<u8>,
    /// Octets of input that the last step lent out.
    lent: usize,
    pub(super) output: Output,
    pub(super) ask: Option<Ask>,
    asked: u64,
    pub(super) hello: Option<Hello>,
    pub(super) authenticated: bool,
    pub(super) transaction: Option<Transaction>,
    /// A transaction ended without a decision about its message; the driver does not know yet.
    reset_due: bool,
    pub(super) counts: Counts,
    closing: Option<CloseReason>,
    draining: bool,
    eof: bool,
    pub(super) timers: Timers,
}

/// Where the session stands between questions.
#[derive(Debug)]
pub(super) enum Phase {
    /// A command line is next.
    Command,
    /// The rest of an overlong line is read and dropped.
    SkipLine { dropped: usize, status: EnhancedStatus },
    /// A line of an AUTH exchange is next.
    Auth { mechanism: Box<str> },
    /// The text of a message is next.
    Data(DotDecoder),
    /// Octets of a BDAT chunk are next.
    Chunk { left: u64, last: bool },
    /// Octets of a refused chunk are read and dropped; then the reply is due.
    SkipChunk { left: u64, reply: Reply },
    /// The TLS handshake is next.
    Handshake,
}

/// What was agreed on since MAIL.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) envelope: Arc<Envelope>,
    /// Octets of the message so far.
    pub(super) size: u64,
    /// Octets of the line that is being received, for the limit on text lines.
    pub(super) line: usize,
    /// At least one BDAT chunk was agreed to.
    pub(super) by_chunks: bool,
    /// The message is being read only to find its end; then this is the reply.
    pub(super) refused: Option<Refusal>,
}

/// What is counted over a session.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) transactions: u32,
    pub(super) errors: u32,
    pub(super) junk: u32,
    pub(super) auth_failures: u32,
}

/// An open question.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) id: AskId,
    pub(super) topic: Topic,
}

/// What is asked, with what the question shows.
#[derive(Debug)]
pub(super) enum Topic {
    Connect,
    Hello(Hello),
    Auth { mechanism: Box<str>, response: Option<Vec<u8>>, first: bool },
    Mail(Box<(ReversePath, MailOptions, Vec<Parameter>)>),
    Rcpt(Box<(Recipient, Vec<Parameter>)>),
    Data,
    FirstChunk { size: u64, last: bool },
    Message,
    Verify(Box<str>),
    Command { verb: Box<str>, text: Box<str> },
}

/// What a phase came to.
pub(super) enum Next {
    /// Something changed: look again.
    Again,
    /// Nothing can be done before more input comes.
    Input,
    /// Hand out these octets from the front of the input, the first number skipped, the second in all.
    Lend(usize, usize),
    /// Run the handshake.
    Handshake,
}

impl Session {
    /// A session with a peer that has just connected (and is through the TLS handshake, if `peer.tls` says so).
    pub fn new(config: Arc<Config>, peer: Peer, now: Instant) -> Session {
        let mut session = Session {
            config,
            peer,
            phase: Phase::Command,
            input: Input::default(),
            scratch: Vec::new(),
            lent: 0,
            output: Output::default(),
            ask: None,
            asked: 0,
            hello: None,
            authenticated: false,
            transaction: None,
            reset_due: false,
            counts: Counts::default(),
            closing: None,
            draining: false,
            eof: false,
            timers: Timers::new(now),
        };
        session.ask(Topic::Connect);
        session
    }

    /// Octets came from the peer.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        self.timers.now = self.timers.now.max(now);
        self.settle_loan();
        if self.closing.is_some() || bytes.is_empty() {
            return;
        }
        if matches!(self.phase, Phase::Handshake) {
            // Clear text behind STARTTLS (CVE-2011-0411): it must never be taken for something that TLS protects.
            self.input.clear();
            self.close(CloseReason::EarlyTalk);
            return;
        }
        self.timers.body_grows(bytes.len());
        self.input.push(bytes);
    }

    /// `len` octets of the last `Write` were written.
    pub fn handle_written(&mut self, len: usize, now: Instant) {
        self.timers.now = self.timers.now.max(now);
        self.output.written(len);
        self.timers.progress();
    }

    /// The TLS handshake succeeded. What was known before is forgotten (RFC 3207 4.2).
    pub fn handle_tls(&mut self, tls: TlsInfo, now: Instant) {
        self.timers.now = self.timers.now.max(now);
        if !matches!(self.phase, Phase::Handshake) || self.closing.is_some() {
            return;
        }
        self.input.clear();
        self.peer.tls = Some(tls);
        self.hello = None;
        self.authenticated = false;
        self.phase = Phase::Command;
        self.timers.progress();
    }

    /// The peer will send nothing more, or the connection broke. Commands that came whole are still carried out; an
    /// open question is withdrawn, unless it is about a whole message.
    pub fn handle_eof(&mut self) {
        self.settle_loan();
        self.eof = true;
        let message = self.ask.as_ref().is_some_and(|ask| matches!(ask.topic, Topic::Message));
        if message {
            return;
        }
        if self.timers.wait == Wait::Write || matches!(self.phase, Phase::Handshake) {
            self.output.clear();
            self.close(CloseReason::Eof);
        } else if self.ask.is_some() && self.input.is_empty() {
            self.close(CloseReason::Eof);
        }
    }

    /// The deadline of the last step has passed. Ignored if it has not.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.timers.now = self.timers.now.max(now);
        let deciding = self.ask.as_ref().is_some_and(|ask| matches!(ask.topic, Topic::Message));
        if deciding || self.timers.now < self.timers.deadline(&self.config.limits) {
            return;
        }
        match self.timers.wait {
            Wait::Write | Wait::Handshake => self.output.clear(),
            _ if self.closing.is_some() => self.output.clear(),
            _ => self.output.say(421, Some(EnhancedStatus::known(4, 4, 2)), "Timed out, closing connection"),
        }
        self.timers.give_up();
        self.close(CloseReason::Timeout);
    }

    /// Ends the session at the next chance: at once between commands, after the decision if a message is on its
    /// way. The peer hears 421 4.3.2.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends the session now with 421 4.3.2, whatever it does: a message on its way is not accepted. Only a decision
    /// about a whole message is still waited for.
    pub fn cut_short(&mut self) {
        self.draining = true;
        let deciding = self.ask.as_ref().is_some_and(|ask| matches!(ask.topic, Topic::Message));
        if !deciding && self.closing.is_none() {
            self.say_draining();
        }
    }

    /// What to do next.
    pub fn poll(&mut self) -> Step<'_> {
        self.settle_loan();
        loop {
            if std::mem::take(&mut self.reset_due) {
                return Step::Reset;
            }
            if let Some(reason) = self.closing {
                return if self.output.is_empty() { Step::Close(reason) } else { self.write() };
            }
            if self.output.pending().len() >= OUTPUT_MAX {
                return self.write();
            }
            if let Some(ask) = &self.ask {
                let id = ask.id;
                self.timers.wait = Wait::Nothing;
                return Step::Ask(id);
            }
            match self.advance() {
                Next::Again => {}
                Next::Lend(skipped, all) => {
                    self.lent = all;
                    return Step::Body(self.input.as_slice().get(skipped..all).unwrap_or_default());
                }
                Next::Input | Next::Handshake if !self.output.is_empty() => return self.write(),
                Next::Input if self.eof => self.close(CloseReason::Eof),
                Next::Input => return self.read(),
                Next::Handshake => {
                    self.timers.wait = Wait::Handshake;
                    return Step::StartTls { deadline: self.timers.deadline(&self.config.limits) };
                }
            }
        }
    }

    /// The open question.
    pub fn question(&self) -> Option<(AskId, Question<'_>)> {
        let ask = self.ask.as_ref()?;
        let transaction = self.transaction.as_ref();
        let question = match &ask.topic {
            Topic::Connect => Question::Connect { peer: &self.peer },
            Topic::Hello(hello) => Question::Hello { hello },
            Topic::Auth { mechanism, response, first } => {
                Question::Auth { mechanism, response: response.as_deref(), first: *first }
            }
            Topic::Mail(mail) => Question::Mail { reverse_path: &mail.0, options: &mail.1, private: &mail.2 },
            Topic::Rcpt(rcpt) => {
                Question::Rcpt { recipient: &rcpt.0, envelope: &transaction?.envelope, private: &rcpt.1 }
            }
            Topic::Data | Topic::FirstChunk { .. } => Question::Data { envelope: &transaction?.envelope },
            Topic::Message => {
                let transaction = transaction?;
                Question::Message { envelope: &transaction.envelope, size: transaction.size }
            }
            Topic::Verify(text) => Question::Verify { text },
            Topic::Command { verb, text } => Question::Command { verb, text },
        };
        Some((ask.id, question))
    }

    /// Answers a question. An answer to a question that is not open any more is ignored; one of a kind that the
    /// question does not take refuses with 451 4.3.0.
    pub fn answer(&mut self, id: AskId, answer: Answer) {
        if let Some(ask) = self.ask.take_if(|ask| ask.id == id) {
            self.take_answer(ask.topic, answer);
        }
    }

    /// The peer, with what TLS and a trusted proxy said about it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the peer calls itself, once EHLO or HELO was accepted.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Whether AUTH succeeded since the connection or TLS began.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// The envelope of the open transaction: cheap to clone and to keep.
    pub fn envelope(&self) -> Option<&Arc<Envelope>> {
        self.transaction.as_ref().map(|transaction| &transaction.envelope)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    fn settle_loan(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        if lent > 0 {
            self.input.take(lent);
        }
    }

    fn write(&mut self) -> Step<'_> {
        self.timers.wait = Wait::Write;
        Step::Write { bytes: self.output.pending(), deadline: self.timers.deadline(&self.config.limits) }
    }

    fn read(&mut self) -> Step<'_> {
        self.timers.wait = match self.phase {
            Phase::Data(_) | Phase::Chunk { .. } | Phase::SkipChunk { .. } => Wait::Body,
            _ => Wait::Command,
        };
        Step::Read { deadline: self.timers.deadline(&self.config.limits) }
    }

    fn advance(&mut self) -> Next {
        match &mut self.phase {
            Phase::Command => self.advance_command(),
            Phase::SkipLine { .. } => self.advance_skip_line(),
            Phase::Auth { .. } => self.advance_auth(),
            Phase::Data(decoder) => {
                let piece = decoder.next(self.input.as_slice());
                let piece = super::body::Found::from(piece);
                self.advance_data(piece)
            }
            Phase::Chunk { left, last } => {
                let (left, last) = (*left, *last);
                self.advance_chunk(left, last)
            }
            Phase::SkipChunk { .. } => self.advance_skip_chunk(),
            Phase::Handshake => Next::Handshake,
        }
    }

    fn advance_command(&mut self) -> Next {
        if self.draining {
            self.say_draining();
            return Next::Again;
        }
        if self.counts.errors >= self.limits().errors || self.counts.junk > self.limits().junk_commands {
            return self.too_many("Too many errors or idle commands, closing connection");
        }
        let is_auth = self.input.as_slice().get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH "));
        let (limit, too_long) = if is_auth {
            (self.limits().auth_line, TOO_LONG_EXCHANGE)
        } else {
            (self.limits().command_line, EnhancedStatus::known(5, 5, 2))
        };
        match self.take_line(limit, too_long) {
            Ok(Some(line)) => {
                self.timers.progress();
                self.dispatch(&line);
                self.recycle(line);
                Next::Again
            }
            Ok(None) => Next::Input,
            Err(next) => next,
        }
    }

    /// Takes a line off the input. `Err` if there is none and something else has been done about it; `too_long` is what
    /// the peer is told where that was its length.
    pub(super) fn take_line(
        &mut self,
        limit: usize,
        too_long: EnhancedStatus,
    ) -> Result<Option<Vec<u8>>, Next> {
        match next_line(self.input.as_slice(), limit) {
            Line::Complete { text, consumed } => {
                let mut line = std::mem::take(&mut self.scratch);
                line.extend_from_slice(text);
                self.input.take(consumed);
                Ok(Some(line))
            }
            Line::Partial => Ok(None),
            Line::Bad => {
                let text = "Bare CR, LF or NUL in a command";
                self.output.say(500, Some(EnhancedStatus::known(5, 5, 2)), text);
                self.close(CloseReason::BadLineEnding);
                Err(Next::Again)
            }
            Line::TooLong => {
                self.phase = Phase::SkipLine { dropped: 0, status: too_long };
                Err(Next::Again)
            }
        }
    }

    /// Gives the memory of a line back for the next one.
    pub(super) fn recycle(&mut self, mut line: Vec<u8>) {
        line.clear();
        if line.capacity() <= self.limits().command_line {
            self.scratch = line;
        }
    }

    fn advance_skip_line(&mut self) -> Next {
        let Phase::SkipLine { dropped, status } = &mut self.phase else { return Next::Again };
        let input = self.input.as_slice();
        let end = memchr::memchr(b'\n', input);
        let len = end.map_or(input.len(), |at| at + 1);
        *dropped = dropped.saturating_add(len);
        let too_much = *dropped > self.config.limits.line_discard;
        self.input.take(len);
        if end.is_none() && !too_much {
            return Next::Input;
        }
        self.output.say(500, Some(*status), "Line too long");
        self.counts.errors = self.counts.errors.saturating_add(1);
        self.phase = Phase::Command;
        if too_much {
            self.close(CloseReason::Oversize);
        }
        Next::Again
    }

    pub(super) fn too_many(&mut self, text: &str) -> Next {
        self.output.say(421, Some(EnhancedStatus::known(4, 7, 0)), text);
        self.close(CloseReason::TooMany);
        Next::Again
    }

    fn say_draining(&mut self) {
        self.output.say(421, Some(EnhancedStatus::known(4, 3, 2)), "Shutting down, try again");
        self.close(CloseReason::Drained);
    }

    /// Opens a question.
    pub(super) fn ask(&mut self, topic: Topic) {
        self.asked = self.asked.wrapping_add(1);
        self.ask = Some(Ask { id: AskId(self.asked), topic });
    }

    /// Ends the transaction without a decision about its message.
    pub(super) fn reset(&mut self) {
        self.timers.body_ends();
        if self.transaction.take().is_some() {
            self.reset_due = true;
        }
    }

    /// Tells the driver to forget the body, though the transaction goes on for its end to be found.
    pub(super) fn forget_body(&mut self) {
        self.reset_due = true;
    }

    /// Ends the session once the output is written.
    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.closing.is_none() {
            self.closing = Some(reason);
            self.ask = None;
            self.reset();
        }
    }
}

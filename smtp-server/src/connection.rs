//! One connection: the loop over [`Session::poll`](machine::Session::poll) and the handler's decisions.
//!
//! Invariant: every await has a deadline, but for the decision on a whole message, which runs to its end. A panic
//! of the handler becomes 421 on this connection and nothing else.
//!
//! Standards: RFC 5321 3.8 (closing), 4.5.3.2; RFC 3207.
//!
//! Not here: what the protocol says (smtp-proto), how connections come in ([`Server`](crate::Server)).

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{
    Budget, Clock, EnhancedStatus, Envelope, Instant, Message, MessageBuilder, Refusal, Reply,
};
use postwright_smtp_proto::TlsInfo;
use postwright_smtp_proto::command::Parameter;
use postwright_smtp_proto::proxy::{self, Header, Progress};
use postwright_smtp_proto::server::{self as machine, Answer, AskId, CloseReason, Peer, Question, Step};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::ask::{Decision, Meanwhile, Patience, decide};
use crate::handler::{Accepted, Acceptor, BodyPiece, Handler, Session};
use crate::handshakes::Handshakes;
use crate::server::{Counters, Drain, Run, ServerConfig, handshakes};
use crate::stream::Stream;

/// Octets read at a time.
const READ_SIZE: usize = 16 * 1024;
/// Octets that a lingering close reads and drops at most.
pub const LINGER_OCTETS: usize = 1024 * 1024;
/// How long a lingering close takes at most.
pub const LINGER_TIME: Duration = Duration::from_secs(2);

/// How long a proxy may take for its header.
const PROXY_TIME: Duration = Duration::from_secs(5);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: CloseReason,
    /// Messages that the handler took.
    pub accepted: u64,
}

/// What a connection needs of its server.
pub(crate) struct Context {
    pub(crate) config: Arc<ServerConfig>,
    /// What the protocol offers on this connection.
    pub(crate) session: Arc<machine::Config>,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) drain: Drain,
    /// Whether connections were many when this one came.
    pub(crate) stressed: bool,
}

/// What an acceptor has for one client in particular, in better or in worse times.
pub(crate) fn offer<A: Acceptor>(
    acceptor: &A,
    client: SocketAddr,
    stressed: bool,
) -> Option<Arc<machine::Config>> {
    let mut own = acceptor.session_config(client)?;
    if stressed {
        let config = Arc::make_mut(&mut own);
        config.limits = config.limits.stressed();
    }
    Some(own)
}

/// Serves one connection over any pair of byte streams: a socket, a UNIX socket, a pipe in memory.
pub async fn serve_connection<Io, A>(
    io: Io,
    peer: Peer,
    acceptor: &A,
    config: Arc<ServerConfig>,
    clock: Arc<dyn Clock>,
) -> Ended
where
    Io: AsyncRead + AsyncWrite + Unpin + Send,
    A: Acceptor,
{
    let session = acceptor.session_config(peer.address).unwrap_or_else(|| config.session.clone());
    let handshakes = Arc::new(handshakes(&config));
    let context = Context {
        config,
        session,
        handshakes,
        clock,
        counters: Arc::default(),
        drain: Drain::never(),
        stressed: false,
    };
    run(io, peer, acceptor, context).await
}

pub(crate) async fn run<Io, A>(io: Io, mut peer: Peer, acceptor: &A, mut context: Context) -> Ended
where
    Io: AsyncRead + AsyncWrite + Unpin + Send,
    A: Acceptor,
{
    let mut stream = Stream::Clear(io);
    if context.config.proxy_protocol {
        if !acceptor.trusts_proxy(peer.address) {
            return Ended { reason: CloseReason::OtherProtocol, accepted: 0 };
        }
        match timeout(PROXY_TIME, read_proxy_header(&mut stream)).await {
            Ok(Some(Header::Proxied { source, destination })) => {
                peer.address = source;
                peer.local = destination;
                context.session = offer(acceptor, source, context.stressed).unwrap_or(context.session);
            }
            Ok(Some(Header::Local)) => {}
            _ => return Ended { reason: CloseReason::OtherProtocol, accepted: 0 },
        }
    }
    if context.config.implicit_tls {
        let handshake = context.session.limits.handshake_timeout;
        match timeout(handshake, start_tls(&mut stream, peer.address.ip(), &context)).await {
            Ok(Some(info)) => peer.tls = Some(info),
            _ => return Ended { reason: CloseReason::Eof, accepted: 0 },
        }
    }
    let now = context.clock.mono();
    let connection = Connection {
        machine: machine::Session::new(context.session.clone(), peer.clone(), now),
        session: Session::new(peer, &context.session),
        handler: None,
        acceptor,
        body: Collected::new(&context.config.budget),
        buffer: vec![0; READ_SIZE],
        accepted: 0,
        context,
        stream,
    };
    connection.run().await
}

/// Reads a PROXY header and not one octet more. `None`: there is none.
async fn read_proxy_header<Io>(stream: &mut Stream<Io>) -> Option<Header>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut octets = Vec::new();
    loop {
        match proxy::parse(&octets).ok()? {
            Progress::Done(header, _) => return Some(header),
            Progress::More(more) => {
                let read = octets.len();
                octets.resize(read + more, 0);
                stream.read_exact(octets.get_mut(read..)?).await.ok()?;
            }
        }
    }
}

/// Runs a handshake. `None`: it failed, came to nothing, or had to make room; the connection is gone.
async fn start_tls<Io>(stream: &mut Stream<Io>, peer: IpAddr, context: &Context) -> Option<TlsInfo>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let config = context.config.tls.clone()?;
    // What a silent peer holds is its connection, and that not for long; a slot is for those who have begun.
    let hello = timeout(context.config.client_hello_timeout, stream.client_hello()).await.ok()?.ok()?;
    let slot = context.handshakes.enter(peer, &*context.clock).await;
    slot.run(stream.finish_tls(hello, config)).await?.ok()
}

struct Connection<'a, Io, A: Acceptor> {
    machine: machine::Session,
    stream: Stream<Io>,
    session: Session,
    handler: Option<A::Handler>,
    acceptor: &'a A,
    body: Collected,
    buffer: Vec<u8>,
    accepted: u64,
    context: Context,
}

/// What the next step asks for, freed of the machine's borrow.
enum Todo {
    Nothing,
    Read(Instant),
    Ask(AskId),
    StartTls(Instant),
    Reset,
    Close(CloseReason),
}

impl<Io, A> Connection<'_, Io, A>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send,
    A: Acceptor,
{
    async fn run(mut self) -> Ended {
        loop {
            match self.step().await {
                Todo::Nothing => {}
                Todo::Read(deadline) => self.read(deadline).await,
                Todo::Ask(id) => self.decide(id).await,
                Todo::StartTls(deadline) => self.secure(deadline).await,
                Todo::Reset => {
                    self.body.clear();
                    if let Some(handler) = &mut self.handler {
                        let _ = guarded(handler.reset()).await;
                    }
                }
                Todo::Close(reason) => return self.close(reason).await,
            }
        }
    }

    /// Polls the machine; writes and body pieces are dealt with while they are borrowed.
    async fn step(&mut self) -> Todo {
        let clock = &self.context.clock;
        match self.machine.poll() {
            Step::Read { deadline } => Todo::Read(deadline),
            Step::Ask(id) => Todo::Ask(id),
            Step::StartTls { deadline } => Todo::StartTls(deadline),
            Step::Reset => Todo::Reset,
            Step::Close(reason) => Todo::Close(reason),
            Step::Body(piece) => {
                let fate = match &mut self.handler {
                    Some(handler) => guarded(handler.body(piece)).await,
                    None => Ok(BodyPiece::Collect),
                };
                match fate {
                    Ok(BodyPiece::Collect) => self.body.push(piece),
                    Ok(BodyPiece::Taken) => {}
                    Err(Panicked) => self.body.state = State::Panicked,
                }
                Todo::Nothing
            }
            Step::Write { bytes, deadline } => {
                let patience = deadline.since(clock.mono());
                let written = timeout(patience, self.stream.write(bytes)).await;
                let now = clock.mono();
                match written {
                    Ok(Ok(len)) if len > 0 => self.machine.handle_written(len, now),
                    Ok(_) => self.machine.handle_eof(),
                    Err(_) => self.machine.handle_timeout(now),
                }
                Todo::Nothing
            }
        }
    }

    async fn read(&mut self, deadline: Instant) {
        let clock = self.context.clock.clone();
        let patience = deadline.since(clock.mono());
        // What TLS holds back goes out before we wait for an answer to it.
        let read = async {
            self.stream.flush().await?;
            self.stream.read(&mut self.buffer).await
        };
        tokio::select! {
            biased;
            run = self.context.drain.news() => match run {
                Run::On => {}
                Run::Draining => self.machine.drain(),
                Run::CutShort => self.machine.cut_short(),
            },
            read = timeout(patience, read) => match read {
                Ok(Ok(len)) if len > 0 => {
                    let input = self.buffer.get(..len).unwrap_or_default();
                    self.machine.handle_input(input, clock.mono());
                }
                Ok(_) => self.machine.handle_eof(),
                Err(_) => self.machine.handle_timeout(clock.mono()),
            },
        }
    }

    async fn secure(&mut self, deadline: Instant) {
        let clock = self.context.clock.clone();
        let patience = deadline.since(clock.mono());
        let flushed = self.stream.flush();
        if !matches!(timeout(patience, flushed).await, Ok(Ok(()))) {
            return self.machine.handle_eof();
        }
        let ip = self.session.peer.address.ip();
        match timeout(patience, start_tls(&mut self.stream, ip, &self.context)).await {
            Ok(Some(info)) => {
                let mut peer = (*self.session.peer).clone();
                peer.tls = Some(info.clone());
                // RFC 3207 4.2: what was said before is forgotten.
                self.session = self.session.anew(peer);
                self.machine.handle_tls(info, clock.mono());
            }
            Ok(None) => self.machine.handle_eof(),
            Err(_) => self.machine.handle_timeout(clock.mono()),
        }
    }

    /// Asks the handler, with a deadline unless the question is about a whole message.
    async fn decide(&mut self, id: AskId) {
        let Some(question) = self.machine.question().map(|(_, question)| question) else { return };
        let whole_message = matches!(question, Question::Message { .. });
        let limit = if whole_message { None } else { Some(self.context.config.decision_timeout) };
        let patience = Patience { withdraw_at_eof: !whole_message, limit };
        let mut meanwhile = Meanwhile::default();
        let asking = ask(&mut self.handler, &mut self.session, &mut self.body, self.acceptor, question);
        let decision = decide(asking, &mut self.stream, &mut meanwhile, patience).await;
        // Input first: what came before the answer was sent before it, which matters for the greeting.
        self.machine.handle_input(&meanwhile.read, self.context.clock.mono());
        let answer = match decision {
            Decision::Made(answer) => answer,
            Decision::TimedOut => undecided().into(),
            Decision::Withdrawn => return self.machine.handle_eof(),
            Decision::Panicked => {
                self.context.counters.panicked();
                tracing::error!(peer = %self.session.peer.address, "a handler panicked; its session ends");
                Answer::Refused { reply: broken(), close: true }
            }
        };
        match &answer {
            Answer::Refused { reply, .. } => {
                if let Some(handler) = &mut self.handler {
                    let told = AssertUnwindSafe(|| handler.refused(&self.session, reply.reply()));
                    let _ = catch_unwind(told);
                }
            }
            _ if whole_message => self.accepted += 1,
            _ => {}
        }
        self.body.clear_if(whole_message);
        self.machine.answer(id, answer);
        if meanwhile.eof {
            self.machine.handle_eof();
        }
    }

    async fn close(mut self, reason: CloseReason) -> Ended {
        let ended = Ended { reason, accepted: self.accepted };
        self.handler = None;
        if reason == CloseReason::Eof {
            return ended;
        }
        // Whatever the peer does, the close takes no longer than this.
        let _ = timeout(LINGER_TIME, async {
            let _ = self.stream.flush().await;
            let _ = self.stream.shutdown().await;
            let mut dropped = 0;
            while reason.lingers() && dropped < LINGER_OCTETS {
                match self.stream.read(&mut self.buffer).await {
                    Ok(len) if len > 0 => dropped += len,
                    _ => break,
                }
            }
        })
        .await;
        ended
    }
}

/// Puts one question to the embedder.
async fn ask<A: Acceptor>(
    handler: &mut Option<A::Handler>,
    session: &mut Session,
    body: &mut Collected,
    acceptor: &A,
    question: Question<'_>,
) -> Answer {
    if let Question::Connect { peer } = question {
        return match acceptor.accept(peer).await {
            Ok(new) => {
                *handler = Some(new);
                // After XCLIENT this is another peer, of whom nothing is known yet.
                *session = session.anew(peer.clone());
                Answer::accepted()
            }
            Err(reply) => Answer::Refused { reply, close: true },
        };
    }
    let Some(handler) = handler else { return broken().into() };
    // A spent budget is told before the message comes, so that nothing is sent in vain.
    let spent = body.budget.used() >= body.budget.limit();
    if spent && matches!(question, Question::Mail { .. } | Question::Data { .. }) {
        return no_memory().into();
    }
    let yes_or_no =
        |decision: Result<(), Refusal>| decision.map_or_else(Answer::from, |()| Answer::accepted());
    match question {
        Question::Hello { hello } => {
            let decision = handler.hello(session, hello).await;
            if decision.is_ok() {
                session.hello = Some(hello.clone());
            }
            yes_or_no(decision)
        }
        Question::Auth { mechanism, response, first } => {
            let answer = handler.auth(session, mechanism, response, first).await;
            session.authenticated |= matches!(answer, Answer::Accepted { .. });
            answer
        }
        Question::Mail { reverse_path, options, private } => {
            if let Err(refusal) = private_first(handler, session, "MAIL", private).await {
                return refusal.into();
            }
            yes_or_no(handler.mail(session, reverse_path, options).await)
        }
        Question::Rcpt { recipient, envelope, private } => {
            if let Err(refusal) = private_first(handler, session, "RCPT", private).await {
                return refusal.into();
            }
            yes_or_no(handler.rcpt(session, recipient, envelope).await)
        }
        Question::Data { envelope } => yes_or_no(handler.data(session, envelope).await),
        Question::Message { envelope, .. } => whole(handler, session, envelope, body).await,
        Question::Verify { text } => handler.verify(session, text).await,
        Question::Command { verb, text } => handler.command(session, verb, text).await,
        // A question of a later protocol crate: there is no handler method for it yet.
        _ => unknown_command(),
    }
}

/// Asks for the word on a whole message.
async fn whole<H: Handler>(
    handler: &mut H,
    session: &Session,
    envelope: &Envelope,
    body: &mut Collected,
) -> Answer {
    match body.take() {
        Ok(message) => match handler.message(session, envelope, message).await {
            Ok(Accepted { per_recipient, .. }) if !per_recipient.is_empty() => {
                Answer::PerRecipient(per_recipient)
            }
            Ok(Accepted { text, .. }) => Answer::Accepted { text },
            Err(reply) => reply.into(),
        },
        Err(reply) => {
            handler.reset().await;
            reply.into()
        }
    }
}

async fn private_first<H: Handler>(
    handler: &mut H,
    session: &Session,
    verb: &'static str,
    parameters: &[Parameter],
) -> Result<(), Refusal> {
    if parameters.is_empty() { Ok(()) } else { handler.private(session, verb, parameters).await }
}

/// The body so far, within the budget.
struct Collected {
    budget: Budget,
    state: State,
}

enum State {
    Open(MessageBuilder),
    /// The budget was spent half-way: what came is dropped, what comes is not kept.
    Spent,
    /// The handler panicked over a piece.
    Panicked,
}

impl Collected {
    fn new(budget: &Budget) -> Collected {
        Collected { budget: budget.clone(), state: State::Open(MessageBuilder::new(budget)) }
    }

    fn push(&mut self, piece: &[u8]) {
        if let State::Open(builder) = &mut self.state
            && builder.push(piece).is_err()
        {
            self.state = State::Spent;
        }
    }

    fn take(&mut self) -> Result<Message, Refusal> {
        match std::mem::replace(&mut self.state, State::Open(MessageBuilder::new(&self.budget))) {
            State::Open(builder) => Ok(builder.finish()),
            State::Spent => Err(no_memory()),
            State::Panicked => Err(broken()),
        }
    }

    fn clear(&mut self) {
        self.state = State::Open(MessageBuilder::new(&self.budget));
    }

    fn clear_if(&mut self, over: bool) {
        if over {
            self.clear();
        }
    }
}

struct Panicked;

/// Runs a future of the embedder; a panic in it is caught.
async fn guarded<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => std::task::Poll::Ready(Err(Panicked)),
    })
    .await
}

fn no_memory() -> Refusal {
    Refusal::known(
        452,
        EnhancedStatus::known(4, 3, 1),
        "Too little memory for this message now, try again later",
    )
}

fn broken() -> Refusal {
    Refusal::known(421, EnhancedStatus::known(4, 3, 0), "Internal error, closing the connection")
}

fn undecided() -> Refusal {
    Refusal::known(451, EnhancedStatus::known(4, 3, 0), "No decision in time, try again later")
}

pub(crate) fn no_auth() -> Answer {
    Refusal::known(504, EnhancedStatus::known(5, 5, 4), "No such authentication mechanism").into()
}

pub(crate) fn unknown_command() -> Answer {
    Refusal::known(500, EnhancedStatus::known(5, 5, 1), "Command not recognised").into()
}

/// What a peer hears that is turned away before a session.
pub(crate) fn turned_away(text: &str) -> Vec<u8> {
    let mut line = Vec::new();
    Reply::known(421, EnhancedStatus::known(4, 7, 0), text).write_to(&mut line);
    line
}

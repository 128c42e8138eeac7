//! The embedder's side: [`Acceptor`] makes a [`Handler`] for each connection, which decides.
//!
//! Invariant: there is no default for who may be written to and none for taking a message, so that no relay is
//! open and no message lost by omission.

use std::net::SocketAddr;
use std::sync::Arc;

use postwright_core::{Envelope, MailOptions, Message, Recipient, Refusal, Reply, ReversePath};
use postwright_smtp_proto::command::Parameter;
use postwright_smtp_proto::server::{Answer, Config, Hello, Peer};

/// Makes the handler of a connection, or refuses the connection.
///
/// Any `Fn(&Peer) -> Future<Output = Result<Handler, Refusal>>` is one.
pub trait Acceptor: Send + Sync + 'static {
    /// Decides one connection.
    type Handler: Handler;

    /// Greets a peer: with a handler, or with a refusal in place of the 220.
    fn accept(&self, peer: &Peer) -> impl Future<Output = Result<Self::Handler, Refusal>> + Send;

    /// What the protocol offers to this client in particular, such as XCLIENT to a proxy of your own. Default:
    /// `None`, the server's configuration. Under stress its limits shrink like those of the server.
    fn session_config(&self, client: SocketAddr) -> Option<Arc<Config>> {
        let _ = client;
        None
    }

    /// Whether this host may state another's address by a PROXY header
    /// ([`ServerConfig::proxy_protocol`](crate::ServerConfig::proxy_protocol)); any other is hung up on. Default:
    /// anybody, since nobody but your proxy should be able to connect.
    fn trusts_proxy(&self, proxy: SocketAddr) -> bool {
        let _ = proxy;
        true
    }
}

impl<H, F, D> Acceptor for F
where
    H: Handler,
    F: Fn(&Peer) -> D + Send + Sync + 'static,
    D: Future<Output = Result<H, Refusal>> + Send,
{
    type Handler = H;

    fn accept(&self, peer: &Peer) -> impl Future<Output = Result<H, Refusal>> + Send {
        self(peer)
    }
}

/// What is known about the session when a decision is due.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Session {
    /// The other end, with its TLS.
    pub peer: Arc<Peer>,
    /// What it called itself; `None` before EHLO.
    pub hello: Option<Hello>,
    /// Whether AUTH succeeded.
    pub authenticated: bool,
    /// Whether EHLO offers a mechanism that binds to TLS: a client that could bind and did not was lied to then.
    pub(crate) binding_offered: bool,
}

impl Session {
    /// A session that has just begun, with every mechanism on offer: for tests of handlers.
    pub fn of_peer(peer: Peer) -> Session {
        Session { peer: Arc::new(peer), hello: None, authenticated: false, binding_offered: true }
    }

    pub(crate) fn new(peer: Peer, config: &Config) -> Session {
        let binding_offered = config.auth.iter().any(|name| name.to_ascii_uppercase().ends_with("-PLUS"));
        Session { binding_offered, ..Session::of_peer(peer) }
    }

    /// The same session from its beginning, as after STARTTLS and XCLIENT: what was said before is forgotten.
    pub(crate) fn anew(&self, peer: Peer) -> Session {
        Session { binding_offered: self.binding_offered, ..Session::of_peer(peer) }
    }

    /// The keyword for `with` in a `Received:` field: `ESMTPSA` and its siblings (RFC 3848).
    pub fn protocol_keyword(&self) -> &'static str {
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        match (extended, self.peer.tls.is_some(), self.authenticated) {
            (false, ..) => "SMTP",
            (true, false, false) => "ESMTP",
            (true, true, false) => "ESMTPS",
            (true, false, true) => "ESMTPA",
            (true, true, true) => "ESMTPSA",
        }
    }
}

/// A message is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Accepted {
    /// What the 250 says behind its code, such as the message's id.
    pub text: Option<Box<str>>,
    /// For LMTP: one reply for each recipient, in order (RFC 2033 4.2). Empty: the same for all.
    pub per_recipient: Vec<Reply>,
}

impl Accepted {
    /// Taken, with a text for the 250.
    pub fn with_text(text: &str) -> Accepted {
        Accepted { text: Some(text.into()), per_recipient: Vec::new() }
    }
}

/// What became of a piece of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyPiece {
    /// Collect it: [`Handler::message`] gets the whole.
    Collect,
    /// The handler has dealt with it.
    Taken,
}

/// Decides one connection. Methods are called one at a time, in the order of the session.
pub trait Handler: Send {
    /// EHLO, HELO or LHLO. Default: welcome.
    fn hello(
        &mut self,
        session: &Session,
        hello: &Hello,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (session, hello);
        std::future::ready(Ok(()))
    }

    /// A message of an AUTH exchange: `response` is the client's, base64 removed; `None` asks for the first
    /// challenge. Default: refuse, which never happens unless mechanisms are configured.
    fn auth(
        &mut self,
        session: &Session,
        mechanism: &str,
        response: Option<&[u8]>,
        first: bool,
    ) -> impl Future<Output = Answer> + Send {
        let _ = (session, mechanism, response, first);
        std::future::ready(crate::connection::no_auth())
    }

    /// MAIL FROM. Default: fine.
    fn mail(
        &mut self,
        session: &Session,
        reverse_path: &ReversePath,
        options: &MailOptions,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (session, reverse_path, options);
        std::future::ready(Ok(()))
    }

    /// Parameters of a private extension, as `MAIL` or `RCPT` gave them; asked before [`Handler::mail`] or
    /// [`Handler::rcpt`]. Only those that the configuration names come. Default: fine.
    fn private(
        &mut self,
        session: &Session,
        verb: &'static str,
        parameters: &[Parameter],
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (session, verb, parameters);
        std::future::ready(Ok(()))
    }

    /// RCPT TO: may this peer write to this mailbox? `envelope` holds the recipients accepted before.
    fn rcpt(
        &mut self,
        session: &Session,
        recipient: &Recipient,
        envelope: &Envelope,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// May the message come? Asked before 354, or before the first chunk of BDAT. Default: yes.
    fn data(
        &mut self,
        session: &Session,
        envelope: &Envelope,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (session, envelope);
        std::future::ready(Ok(()))
    }

    /// The next piece of the message, dots removed. Default: have it collected within the byte budget.
    fn body(&mut self, piece: &[u8]) -> impl Future<Output = BodyPiece> + Send {
        let _ = piece;
        std::future::ready(BodyPiece::Collect)
    }

    /// The whole message has come. `Ok` means: it is yours, and would survive what you promise it survives.
    ///
    /// This runs to its end even if the peer is gone.
    fn message(
        &mut self,
        session: &Session,
        envelope: &Envelope,
        message: Message,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send;

    /// The transaction ended without [`Handler::message`]: forget what [`Handler::body`] was given.
    fn reset(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// VRFY. Default: 252, which tells nothing (RFC 5321 7.3).
    fn verify(&mut self, session: &Session, text: &str) -> impl Future<Output = Answer> + Send {
        let _ = (session, text);
        std::future::ready(Answer::accepted())
    }

    /// A verb that nobody knows, for private extensions. Default: 500 5.5.1.
    fn command(&mut self, session: &Session, verb: &str, text: &str) -> impl Future<Output = Answer> + Send {
        let _ = (session, verb, text);
        std::future::ready(crate::connection::unknown_command())
    }

    /// A reply with 4xx or 5xx was decided by the handler or by the server's own limits. For logs.
    fn refused(&mut self, session: &Session, reply: &Reply) {
        let _ = (session, reply);
    }
}

//! The server's questions, answered: who may write to whom, and taking the message.
//!
//! Not here: the protocol (smtp-server), what becomes of a message that is taken (pipeline.rs).

use std::sync::Arc;

use postwright_core::{Envelope, Message, Recipient, Refusal, Reply};
use postwright_smtp_server::{Accepted, Acceptor, Handler, Peer, Session};

use crate::pipeline::{self, Arrival};
use crate::system::System;
use crate::{Event, Relay};

/// Makes a handler for each connection: give it to [`Server::new`](postwright_smtp_server::Server::new).
#[derive(Clone)]
pub struct Intake {
    pub(crate) system: Arc<System>,
    pub(crate) relay: Relay,
}

impl Acceptor for Intake {
    type Handler = Reception;

    async fn accept(&self, _: &Peer) -> Result<Reception, Refusal> {
        Ok(Reception(self.clone()))
    }
}

/// Decides one connection.
pub struct Reception(Intake);

impl Handler for Reception {
    async fn rcpt(&mut self, session: &Session, recipient: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        self.0.relay.check(session.peer.address.ip(), &recipient.mailbox)
    }

    async fn message(
        &mut self,
        session: &Session,
        envelope: &Envelope,
        message: Message,
    ) -> Result<Accepted, Refusal> {
        let arrival = Arrival {
            peer: session.peer.address,
            hello: session.hello.as_ref().map(|hello| &*hello.name),
            with: session.protocol_keyword(),
            trusted: self.0.relay.trusts(session.peer.address.ip()),
        };
        let id = pipeline::take_in(&self.0.system, arrival, envelope, message).await?;
        Ok(Accepted::with_text(&format!("Ok: queued as {id}")))
    }

    fn refused(&mut self, session: &Session, reply: &Reply) {
        self.0.system.observers.tell(Event::Refused { peer: session.peer.address, reply });
    }
}

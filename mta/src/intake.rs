//! The server's questions, answered: who may write to whom, and taking the message.
//!
//! Not here: the protocol (smtp-server), what becomes of a message that is taken (pipeline.rs).

use std::sync::Arc;

use postwright_core::{
    EnhancedStatus, Envelope, MailOptions, Message, Recipient, Refusal, Reply, ReversePath,
};
use postwright_queue::{Condition, SpoolError};
use postwright_smtp_server::{Accepted, Acceptor, Handler, Peer, Session};

use crate::feedback::{FeedbackEvent, Hearers};
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

impl Reception {
    /// Reads what is for the bounce domain; the envelope without it, if there was any.
    async fn returned(&self, envelope: &Envelope, message: &Message) -> Result<Option<Envelope>, Refusal> {
        let system = &self.0.system;
        let Some(feedback) = &system.feedback else { return Ok(None) };
        let (ours, rest) = feedback.split(envelope);
        if ours.is_empty() {
            return Ok(None);
        }
        let (feedback, owner, message) = (feedback.clone(), system.clone(), message.clone());
        // Reading takes milliseconds and the list waits for the disk: not among those who serve connections.
        let read = tokio::task::spawn_blocking(move || {
            let (now, pace) = (owner.world.clock.now(), owner.pace.as_deref());
            feedback.receive(&ours, &message, Hearers { now, observers: &owner.observers, pace })
        });
        let failed = || Refusal::known(451, EnhancedStatus::known(4, 3, 0), "Try again later");
        read.await.unwrap_or_else(|_| Err(failed()))?;
        Ok(Some(rest))
    }
}

impl Handler for Reception {
    /// Says that the disk is full before the message is sent in vain (RFC 5321 4.2.3).
    async fn mail(&mut self, _: &Session, _: &ReversePath, _: &MailOptions) -> Result<(), Refusal> {
        let health = self.0.system.spool.health();
        match health.condition {
            Condition::Full => Err(SpoolError::Full { free: health.free.unwrap_or(0), min: 0 }.refusal()),
            // What fails for another reason may be over when the message is here, and only trying shows it.
            _ => Ok(()),
        }
    }

    async fn rcpt(&mut self, session: &Session, recipient: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        if let Some(feedback) = self.0.system.feedback.as_ref().filter(|it| it.takes(&recipient.mailbox)) {
            let now = self.0.system.world.clock.now();
            return feedback.resolve(&recipient.mailbox, now).map(drop).map_err(|(why, refusal)| {
                self.0.system.observers.tell(Event::Feedback(&FeedbackEvent::Ignored(why)));
                refusal
            });
        }
        self.0.relay.check_session(session, &recipient.mailbox)
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
            trusted: self.0.relay.trusts_session(session),
        };
        let rest = self.returned(envelope, &message).await?;
        let envelope = rest.as_ref().unwrap_or(envelope);
        if envelope.recipients.is_empty() {
            return Ok(Accepted::with_text("Ok: read"));
        }
        let id = pipeline::take_in(&self.0.system, arrival, envelope, message).await?;
        Ok(Accepted::with_text(&format!("Ok: queued as {id}")))
    }

    fn refused(&mut self, session: &Session, reply: &Reply) {
        self.0.system.observers.tell(Event::Refused { peer: session.peer.address, reply });
    }
}

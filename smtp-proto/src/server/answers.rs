//! From an answer to a reply and the next phase.
//!
//! Invariant: one answer leads to one reply (in LMTP, one for each recipient). An answer of a kind that does not
//! belong to the question is a fault of the embedder: the client hears 451 4.3.0 and nothing is accepted.
//!
//! Standards: RFC 5321 4.3.2 (which codes), RFC 2033 4.2, RFC 2034.
//!
//! Not here: when a question is asked.

use std::sync::Arc;

use postwright_core::{EnhancedStatus, Envelope, Recipient, Refusal, Reply, ReplyCode};

use super::config::Protocol;
use super::dispatch::OK;
use super::question::{Answer, Hello};
use super::session::{Session, Topic, Transaction};
use super::step::CloseReason;

impl Session {
    pub(super) fn take_answer(&mut self, topic: Topic, answer: Answer) {
        let answer = fit(&topic, self.config.protocol, answer);
        if let Answer::Refused { reply, close } = answer {
            self.on_refused(topic, reply, close);
        } else {
            self.on_agreed(topic, answer);
        }
    }

    fn on_agreed(&mut self, topic: Topic, answer: Answer) {
        let text = match &answer {
            Answer::Accepted { text } => text.as_deref(),
            _ => None,
        };
        match topic {
            Topic::Connect => self.greet(text),
            Topic::Hello(hello) => self.welcome(hello, text),
            Topic::Auth { mechanism, .. } => self.on_auth_answer(mechanism, answer),
            Topic::Mail(mail) => {
                let (reverse_path, options, _) = *mail;
                let envelope = Arc::new(Envelope { reverse_path, recipients: Vec::new(), options });
                self.transaction =
                    Some(Transaction { envelope, size: 0, line: 0, by_chunks: false, refused: None });
                self.say(250, EnhancedStatus::known(2, 1, 0), text.unwrap_or("Sender ok"));
            }
            Topic::Rcpt(rcpt) => self.add_recipient(rcpt.0, text),
            Topic::Data => self.begin_data(),
            Topic::FirstChunk { size, last } => self.begin_chunks(size, last),
            Topic::Message => self.on_message_answer(answer),
            Topic::Verify(_) | Topic::Command { .. } => match (&answer, &topic) {
                (Answer::Reply(reply), _) => self.output.reply(reply),
                (_, Topic::Verify(_)) => {
                    let usual = "Cannot verify, but will take a message and try to deliver it";
                    self.say(252, EnhancedStatus::known(2, 1, 5), text.unwrap_or(usual));
                }
                _ => self.say(250, OK, text.unwrap_or("Ok")),
            },
        }
    }

    fn on_refused(&mut self, topic: Topic, refusal: Refusal, close: bool) {
        if let Topic::Auth { .. } = topic {
            return self.auth_failed(&refusal, close);
        }
        let code = refusal.reply().code().get();
        let at_door = matches!(topic, Topic::Connect);
        let last_word = close || at_door || matches!(code, 421 | 521);
        match topic {
            Topic::FirstChunk { .. } if last_word => self.refuse_with(refusal),
            Topic::FirstChunk { size, .. } => self.skip_chunk(size, refusal.into_reply()),
            Topic::Message => {
                self.reply_for_message(refusal.reply());
                self.transaction = None;
            }
            Topic::Data => {
                self.refuse_with(refusal);
                self.reset();
            }
            _ => self.refuse_with(refusal),
        }
        // At the door there is nothing left to wait for but QUIT (RFC 5321 3.1), which no one needs.
        if last_word {
            self.close(CloseReason::Refused);
        }
    }

    fn on_message_answer(&mut self, answer: Answer) {
        self.counts.errors = 0;
        self.counts.junk = 0;
        match answer {
            Answer::PerRecipient(replies) => self.reply_per_recipient(&replies),
            Answer::Accepted { text } => {
                let text = text.as_deref().unwrap_or("Message accepted");
                let code = ReplyCode::new(250).map(|code| Reply::new(code, text).with_status(OK));
                if let Some(reply) = code {
                    self.reply_for_message(&reply);
                }
            }
            _ => {}
        }
        self.transaction = None;
    }

    fn reply_per_recipient(&mut self, replies: &[Reply]) {
        let recipients = self.transaction.as_ref().map_or(0, |open| open.envelope.recipients.len());
        let missing = misfit();
        for i in 0..recipients {
            self.output.reply(replies.get(i).unwrap_or_else(|| missing.reply()));
        }
    }

    fn greet(&mut self, text: Option<&str>) {
        if self.early_talk() {
            return;
        }
        let protocol = match self.config.protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        let blank = if text.is_some() { " " } else { "" };
        let line = format!("{} {protocol}{blank}{}", self.config.hostname, text.unwrap_or(""));
        if let Some(code) = ReplyCode::new(220) {
            self.output.reply(&Reply::new(code, &line));
        }
        self.timers.progress();
    }

    fn welcome(&mut self, hello: Hello, text: Option<&str>) {
        // RFC 5321 4.1.4: EHLO in mid-transaction is RSET too. AUTH is not forgotten.
        self.reset();
        let lines = if hello.extended {
            self.hello_lines(text.unwrap_or("at your service"))
        } else {
            format!("{} {}", self.config.hostname, text.unwrap_or("at your service"))
        };
        if let Some(code) = ReplyCode::new(250) {
            self.output.reply(&Reply::new(code, &lines));
        }
        self.hello = Some(hello);
    }

    pub(super) fn add_recipient(&mut self, recipient: Recipient, text: Option<&str>) {
        if let Some(transaction) = &mut self.transaction {
            Arc::make_mut(&mut transaction.envelope).recipients.push(recipient);
            self.say(250, EnhancedStatus::known(2, 1, 5), text.unwrap_or("Recipient ok"));
        }
    }

    /// A reply whose text may come from the embedder, so it is cleaned unless it plainly needs none.
    pub(super) fn say(&mut self, code: u16, status: EnhancedStatus, text: &str) {
        let plain = text.len() <= 400 && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if plain {
            self.output.say(code, Some(status), text);
        } else if let Some(code) = ReplyCode::new(code) {
            self.output.reply(&Reply::new(code, text).with_status(status));
        }
    }
}

/// The answer if it belongs to the question, otherwise a refusal.
fn fit(topic: &Topic, protocol: Protocol, answer: Answer) -> Answer {
    let fits = match &answer {
        Answer::Accepted { .. } | Answer::Refused { .. } => true,
        Answer::PerRecipient(_) => matches!(topic, Topic::Message) && protocol == Protocol::Lmtp,
        Answer::Challenge(_) => matches!(topic, Topic::Auth { .. }),
        Answer::Reply(_) => matches!(topic, Topic::Verify(_) | Topic::Command { .. }),
    };
    if fits { answer } else { Answer::refused(misfit()) }
}

fn misfit() -> Refusal {
    Refusal::known(451, EnhancedStatus::known(4, 3, 0), "Internal error, try again")
}

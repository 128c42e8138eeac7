//! A private extension without a fork: `XMOOD`, offered by EHLO, as a command and as a parameter of MAIL.
//!
//! `cargo run -p postwright-smtp-server --example private_extension`, then talk to 127.0.0.1:2525.

#![allow(clippy::print_stdout, reason = "it shows what comes in")]

use std::sync::Arc;

use postwright_core::{Domain, EnhancedStatus, Envelope, Message, Recipient, Refusal, Reply, SystemClock};
use postwright_smtp_proto::command::Parameter;
use postwright_smtp_server::{Accepted, Answer, Handler, Server, ServerConfig, Session, Socket};

/// Only mail in a good mood is taken.
struct Desk {
    mood: String,
}

impl Handler for Desk {
    async fn private(&mut self, _: &Session, verb: &'static str, given: &[Parameter]) -> Result<(), Refusal> {
        for Parameter { keyword, value } in given {
            println!("{verb}: {keyword} is {value:?}");
            self.mood = value.as_deref().unwrap_or("plain").to_owned();
        }
        if self.mood != "bad" {
            return Ok(());
        }
        Err(Refusal::known(550, EnhancedStatus::known(5, 7, 1), "Come back when you feel better"))
    }

    async fn command(&mut self, _: &Session, verb: &str, text: &str) -> Answer {
        if verb != "XMOOD" {
            return Refusal::known(500, EnhancedStatus::known(5, 5, 1), "Command not recognised").into();
        }
        let before = std::mem::replace(&mut self.mood, text.to_owned());
        Answer::Reply(Reply::known(250, EnhancedStatus::known(2, 0, 0), &format!("It was {before}")))
    }

    async fn rcpt(&mut self, _: &Session, _: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        Ok(())
    }

    async fn message(&mut self, _: &Session, _: &Envelope, message: Message) -> Result<Accepted, Refusal> {
        println!("{} octets, {}", message.len(), self.mood);
        Ok(Accepted::with_text("in a good mood"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = ServerConfig::new("mx.example.org".parse::<Domain>()?).with_session(|offer| {
        offer.private_lines.push("XMOOD".into());
        offer.private_mail.push("XMOOD".into());
    });
    let desk = |_: &_| async { Ok(Desk { mood: "plain".to_owned() }) };
    let server = Server::new(config, Arc::new(SystemClock::new()), desk);
    server.serve(Socket::default().listen("127.0.0.1:2525".parse()?)?, std::future::pending()).await;
    Ok(())
}

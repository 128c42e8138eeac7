//! Delivers one message to the mail hosts of its recipient, and prints what was decided and what came of it.
//!
//! `cargo run -p postwright-smtp-client --example deliver -- HELO FROM TO < message`

#![allow(clippy::print_stdout, reason = "this is a program")]

use std::io::Read;
use std::sync::Arc;

use postwright_core::dns::{HickoryConfig, HickoryResolver};
use postwright_core::{Clock, Domain, Envelope, Host, Mailbox, Message, SystemClock, SystemEntropy};
use postwright_smtp_client::policy::{Wishes, attempts};
use postwright_smtp_client::route::{Route, Rules, plan};
use postwright_smtp_client::{Client, Options, Trust, sts};
use postwright_smtp_proto::client::{Config, Transaction};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [hello, from, to] = &words[..] else { return Err("usage: deliver HELO FROM TO < message".into()) };
    let (hello, to): (Host, Mailbox) = (hello.parse()?, to.parse()?);
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;

    let clock = Arc::new(SystemClock::new());
    let resolver = HickoryResolver::new(&HickoryConfig { validate: true, ..HickoryConfig::default() })?;
    let hosts = match plan(to.host(), &resolver, &SystemEntropy, &Rules::default()).await {
        Route::Hosts(hosts) => hosts,
        nowhere => {
            println!("{:?}", nowhere.failure(clock.now()));
            return Ok(());
        }
    };
    let literal = "literal.invalid".parse::<Domain>()?;
    let domain = to.domain().unwrap_or(&literal);
    let (base, wishes) = (Options::new(Config::new(hello)), Wishes::default());
    let (attempts, left_out) =
        attempts(domain, &hosts, 25, wishes, &base, &sts::Found::None, &resolver).await;
    for (host, obstacle) in left_out {
        println!("{host}: not used: {obstacle:?}");
    }
    for attempt in &attempts {
        println!("{}: {} ({})", attempt.target.host, attempt.decision.source, attempt.decision.reason);
    }
    let envelope = Envelope::new(from.parse::<Mailbox>()?, [to.clone()]);
    let transaction = Transaction { envelope, message: Message::from_bytes(text) };
    let (report, connection) = Client::new(&Trust::Web, clock)?.deliver_each(&attempts, transaction).await;
    for status in &report.statuses {
        println!("{:?} {}: {}", status.outcome, status.status, status.diagnostic);
    }
    if let Some(connection) = connection {
        connection.quit().await;
    }
    Ok(())
}

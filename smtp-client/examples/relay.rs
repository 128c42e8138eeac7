//! Sends one message through a smart host with a user name and a password, over verified TLS only.
//!
//! `PASSWORD=... cargo run -p postwright-smtp-client --example relay -- HOST PORT USER FROM TO < message`; with
//! `ROOT=FILE.pem` a private authority is believed instead of the public ones.

#![allow(clippy::print_stdout, reason = "this is a program")]

use std::io::Read;
use std::sync::Arc;

use postwright_core::dns::{HickoryConfig, HickoryResolver};
use postwright_core::{Domain, Envelope, Mailbox, Message, SystemClock, SystemEntropy};
use postwright_smtp_client::route::{Route, Rules, plan_host};
use postwright_smtp_client::{Account, Client, Demand, Options, Trust, targets};
use postwright_smtp_proto::client::{Config, Protection, StartTls, Transaction};
use postwright_smtp_proto::sasl::{Secret, client::Credentials};
use rustls_pki_types::{CertificateDer, pem::PemObject};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, user, from, to] = &words[..] else {
        return Err("usage: relay HOST PORT USER FROM TO < message".into());
    };
    let (from, port): (Mailbox, u16) = (from.parse()?, port.parse()?);
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;

    let mut config = Config::new(from.domain().cloned().unwrap_or("localhost".parse::<Domain>()?));
    config.starttls = StartTls::Required;
    let mut options = Options::new(config);
    options.implicit_tls = port == 465;
    options.demand = Demand::Valid { names: Vec::new() };
    options.account = Some(Account {
        credentials: Credentials::Password {
            user: user.as_str().into(),
            password: Secret::new(std::env::var("PASSWORD")?),
        },
        protection: Protection::VerifiedTls,
        mechanisms: Vec::new(),
        entropy: Arc::new(SystemEntropy),
    });

    let resolver = HickoryResolver::new(&HickoryConfig::default())?;
    let Route::Hosts(hosts) = plan_host(&host.parse()?, &resolver, &SystemEntropy, &Rules::default()).await
    else {
        return Err(format!("{host} has no address").into());
    };
    let root = std::env::var("ROOT").ok().map(CertificateDer::from_pem_file).transpose()?;
    let trust = root.map_or(Trust::Web, |root| Trust::Roots(vec![root]));
    let client = Client::new(&trust, Arc::new(SystemClock::new()))?;
    let transaction =
        Transaction { envelope: Envelope::new(from, [to.parse()?]), message: Message::from_bytes(text) };
    for status in client.deliver(&targets(&hosts, port), &options, transaction).await.statuses {
        println!("{:?} {}: {}", status.outcome, status.status, status.diagnostic);
    }
    Ok(())
}

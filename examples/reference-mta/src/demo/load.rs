//! The demo's load: clients that keep their connections open and send one message after another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postwright::core::{Clock, Domain, Envelope, Mailbox, Message};
use postwright::smtp_client::{Client, Options, Target, Trust};
use postwright::smtp_proto::client::{Config as ClientConfig, StartTls, Transaction};
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::scenario;
use crate::commands::Failure;

pub(super) struct Load {
    pub(super) address: SocketAddr,
    pub(super) messages: usize,
    pub(super) connections: usize,
    pub(super) clock: Arc<dyn Clock>,
}

impl Load {
    /// Sends everything; comes back when the last 250 was read.
    pub(super) async fn run(self, ledger: Arc<Ledger>) -> Result<(), Failure> {
        let hello: Domain = "load.example".parse().map_err(Failure::new)?;
        let mut config = ClientConfig::new(hello);
        // The MTA's certificate is made on the spot: encrypted it must be, vouched for it cannot be.
        config.starttls = StartTls::Required;
        let options = Options::new(config);
        let client = Client::new(&Trust::Web, self.clock.clone()).map_err(Failure::new)?;
        let (next, load) = (Arc::new(AtomicUsize::new(0)), Arc::new(self));
        let mut senders = JoinSet::new();
        for _ in 0..load.connections {
            let (client, options) = (client.clone(), options.clone());
            let (next, load, ledger) = (next.clone(), load.clone(), ledger.clone());
            senders.spawn(async move { load.send(&client, &options, &next, &ledger).await });
        }
        while let Some(ended) = senders.join_next().await {
            ended.map_err(Failure::new)??;
        }
        Ok(())
    }

    async fn send(
        &self,
        client: &Client,
        options: &Options,
        next: &AtomicUsize,
        ledger: &Ledger,
    ) -> Result<(), Failure> {
        let target =
            Target { host: postwright::core::Host::Literal(self.address.ip()), address: self.address };
        let mut connection = client.connect(&target, options).await.map_err(Failure::new)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.messages {
                connection.quit().await;
                return Ok(());
            }
            let sender: Mailbox = scenario::SENDER.parse().map_err(Failure::new)?;
            let recipient: Mailbox = scenario::recipient(number).parse().map_err(Failure::new)?;
            let message = Message::from_bytes(scenario::message(number));
            ledger.sent(number, self.clock.mono());
            let transaction = Transaction { envelope: Envelope::new(sender, [recipient]), message };
            let report = connection.deliver(transaction).await;
            if !report.is_success() {
                return Err(Failure::new(format!("the MTA did not take message {number}: {report:?}")));
            }
            ledger.accepted(number, self.clock.mono());
        }
    }
}

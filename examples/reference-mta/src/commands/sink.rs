//! `postwright sink`: a receiver that takes everything and keeps nothing, and can be told to misbehave.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use postwright::core::{
    Clock, EnhancedStatus, Entropy, Envelope, Message, Recipient, Refusal, SystemClock, SystemEntropy,
};
use postwright::smtp_server::{Accepted, BodyPiece, Handler, Server, ServerConfig, Session};
use tokio::net::TcpListener;

use super::{Failure, output};
use crate::signals;

/// `postwright sink --listen ADDR`.
#[derive(Args)]
pub(crate) struct Sink {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Wait before the reply to each message, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Say 451 to so many percent of the recipients.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    defer: u8,
    /// Say 550 to so many percent of the recipients.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    refuse: u8,
    /// Say 421 and close instead of taking so many percent of the messages.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    drop: u8,
}

#[derive(Default)]
struct Counts {
    messages: AtomicU64,
    octets: AtomicU64,
    deferred: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

impl Sink {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        super::runtime()?.block_on(self.serve())
    }

    async fn serve(self) -> Result<ExitCode, Failure> {
        let cannot = |error: std::io::Error| Failure::listening(self.listen, &error);
        let listener = TcpListener::bind(self.listen).await.map_err(cannot)?;
        let local = listener.local_addr().map_err(cannot)?;
        output::text(&format!("listening on {local}\n"))?;
        let (counts, rules) = (Arc::new(Counts::default()), Arc::new(self));
        let shared = counts.clone();
        let acceptor = move |_: &_| {
            let drain = Drain { counts: shared.clone(), rules: rules.clone() };
            async move { Ok(drain) }
        };
        let name: postwright::core::Domain = "sink.example".parse().map_err(Failure::new)?;
        let mut config =
            ServerConfig::new(name).with_session(|session| session.limits.transactions = u32::MAX);
        config.connections_per_ip = config.connections;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Server::new(config, clock, acceptor).serve(listener, signals::stop()).await;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        output::json(&serde_json::json!({
            "messages": read(&counts.messages),
            "octets": read(&counts.octets),
            "deferred": read(&counts.deferred),
            "refused": read(&counts.refused),
            "dropped": read(&counts.dropped),
        }))?;
        Ok(ExitCode::SUCCESS)
    }
}

struct Drain {
    counts: Arc<Counts>,
    rules: Arc<Sink>,
}

impl Drain {
    fn happens(percent: u8) -> bool {
        percent > 0 && SystemEntropy.below(100) < u64::from(percent)
    }
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl Handler for Drain {
    async fn rcpt(&mut self, _: &Session, _: &Recipient, _: &Envelope) -> Result<(), Refusal> {
        if Drain::happens(self.rules.defer) {
            count(&self.counts.deferred, 1);
            return Err(Refusal::known(451, EnhancedStatus::known(4, 2, 0), "Told to defer"));
        }
        if Drain::happens(self.rules.refuse) {
            count(&self.counts.refused, 1);
            return Err(Refusal::known(550, EnhancedStatus::known(5, 1, 1), "Told to refuse"));
        }
        Ok(())
    }

    async fn body(&mut self, piece: &[u8]) -> BodyPiece {
        count(&self.counts.octets, piece.len());
        BodyPiece::Taken
    }

    async fn message(&mut self, _: &Session, _: &Envelope, _: Message) -> Result<Accepted, Refusal> {
        if self.rules.delay > 0 {
            tokio::time::sleep(Duration::from_millis(self.rules.delay)).await;
        }
        if Drain::happens(self.rules.drop) {
            count(&self.counts.dropped, 1);
            return Err(Refusal::known(421, EnhancedStatus::known(4, 3, 2), "Told to drop"));
        }
        count(&self.counts.messages, 1);
        Ok(Accepted::default())
    }
}

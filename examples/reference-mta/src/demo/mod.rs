//! `postwright demo`: the main job from end to end on loopback, with the books kept from outside.
//!
//! A load of real SMTP clients sends over TCP with STARTTLS into an MTA on the embedded spool; the MTA finds the
//! receiving domains in a zone in memory and delivers to real servers, one of which greylists, one refuses and
//! one is down for a while. Nothing outside this process is touched but a temporary folder.

mod ledger;
mod load;
mod network;
mod receivers;
mod report;
mod scenario;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use postwright::core::{Clock, Domain, Instant, MemoryZone, SystemClock, SystemEntropy, World};
use postwright::queue::{EmbeddedOptions, EmbeddedSpool};
use postwright::smtp_client::{Client, Trust};
use postwright::smtp_server::{Server, ServerConfig};
use postwright::{Counts, Metrics, Mta, Relay, Routes};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::certificate;
use crate::commands::{Failure, output, runtime};
use ledger::Ledger;
use network::DemoNetwork;
use receivers::Receivers;
use report::Report;

/// How long the demo waits for the last message at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// `postwright demo [--json]`.
#[derive(Args)]
pub(crate) struct Demo {
    /// Print one line of JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How many messages.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    messages: u32,
    /// Over how many connections at a time.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    connections: u8,
}

impl Demo {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let report = runtime()?.block_on(self.play())?;
        if self.json {
            output::json(&report.json())?;
        } else {
            output::text(&report.table())?;
        }
        Ok(if report.balance.unaccounted == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn play(&self) -> Result<Report, Failure> {
        let messages = usize::try_from(self.messages).map_err(Failure::new)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let ledger = Arc::new(Ledger::new(messages));
        let receivers = Receivers::start(clock.clone(), ledger.clone())?;
        let spool =
            tempfile::tempdir().map_err(|error| Failure::new(format!("no temporary folder: {error}")))?;
        let metrics = Arc::new(Metrics::default());
        let mta = assemble(spool.path(), &receivers, clock.clone(), metrics.clone())?;

        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Failure::new)?;
        let address = listener.local_addr().map_err(Failure::new)?;
        let hostname: Domain = "mta.example".parse().map_err(Failure::new)?;
        let config = ServerConfig::new(hostname).with_starttls(certificate::self_signed("mta.example")?);
        let server = Server::new(config, clock.clone(), mta.intake());
        let (stop, stopped) = watch::channel(false);
        let waiting =
            |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stop| *stop).await) };

        let begin = clock.mono();
        let work = async {
            let load =
                load::Load { address, messages, connections: self.connections.into(), clock: clock.clone() };
            let mut loading = tokio::spawn(load.run(ledger.clone()));
            let bar = self.bar();
            let mut accepting = None;
            while clock.mono().since(begin) < PATIENCE {
                let (accepted, done) = ledger.progress();
                bar.set_position(u64::try_from(done).unwrap_or(0));
                bar.set_message(format!("{accepted} accepted"));
                if accepting.is_none() && loading.is_finished() {
                    accepting = Some(clock.mono().since(begin));
                    (&mut loading).await.map_err(Failure::new)??;
                }
                if accepting.is_some() && done == accepted {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bar.finish_and_clear();
            // Everything that runs beside this waits for it.
            let _ = stop.send(true);
            Ok::<_, Failure>(accepting.unwrap_or(PATIENCE))
        };
        let (accepting, _, ()) =
            tokio::join!(work, server.serve(listener, waiting(stopped.clone())), mta.run(waiting(stopped)));
        Ok(self.report(&ledger, metrics.counts(), accepting?, clock.mono(), begin))
    }

    fn report(
        &self,
        ledger: &Ledger,
        counts: Counts,
        accepting: Duration,
        end: Instant,
        begin: Instant,
    ) -> Report {
        Report {
            balance: ledger.balance(),
            deferred: counts.delivered_late,
            bounced: counts.bounced,
            durability: "sync",
            accepting,
            whole: end.since(begin),
        }
    }

    fn bar(&self) -> ProgressBar {
        // On stderr, and only if that is a terminal.
        let target = if self.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(u64::from(self.messages)), target);
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} accounted for, {msg}, {elapsed}");
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

/// An MTA on an embedded spool that reaches the receivers through the demo's zone and network.
fn assemble(
    spool: &std::path::Path,
    receivers: &Receivers,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Result<Mta, Failure> {
    let zone = MemoryZone::parse(&scenario::zone_text()).map_err(Failure::new)?;
    let world = World { clock: clock.clone(), entropy: Arc::new(SystemEntropy), resolver: Arc::new(zone) };
    let mut options = EmbeddedOptions::new(spool, clock.clone());
    options.min_free = 64 << 20;
    let spool = EmbeddedSpool::open(options).map_err(Failure::new)?;
    let network = DemoNetwork::new(receivers.ports.clone());
    let client = Client::new(&Trust::Web, clock).map_err(Failure::new)?.with_connector(Arc::new(network));
    let hostname: Domain = "mta.example".parse().map_err(Failure::new)?;
    Ok(Mta::builder(hostname, world, Arc::new(spool), client)
        .relay(Relay::nobody().trust(|ip| ip.is_loopback()))
        .routes(Routes::mx())
        .settings(|settings| {
            settings.retry.first = Duration::from_secs(1);
            settings.retry.longest = Duration::from_secs(2);
            // One sender writes everything here, and a tenth of it comes back.
            settings.notifications_per_hour = 0;
        })
        .observer(metrics)
        .build())
}

//! `postwright bench relay`: what a durable message costs, ours and Postfix in one run.
//!
//! Two jobs: `receive` ends when the last message was acknowledged, and nothing is delivered; `relay` ends when
//! the last message arrived at the sink behind the MTA. The figure that counts is messages per second of
//! processor time of the MTA (all its processes), since the load and the sink share the machine with it. All systems
//! sync before they answer.
//!
//! Not here: timing parts of the system (benches/).

mod bare;
mod cpu;
mod load;
mod postfix_services;
mod sink;
mod systems;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use postwright::core::{Clock, SystemClock};

use crate::commands::{Failure, output, runtime};
use load::Load;
use sink::Sink;
use systems::{Kind, Running};

/// How long one round may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// `postwright bench relay`.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Messages per second and per CPU-second: durable receiving, and receiving and passing on.
    Relay(Relay),
}

#[derive(Args)]
struct Relay {
    /// Another system to measure in the same run; it must be installed, and Postfix needs root.
    #[arg(long, value_enum)]
    beside: Option<Kind>,
    /// Messages in each round.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    messages: u32,
    /// Octets of a message; may be given several times.
    #[arg(long, value_name = "OCTETS", default_values_t = [1024, 10_240], value_parser = clap::value_parser!(u32).range(256..=10_485_760))]
    size: Vec<u32>,
    /// Connections that are kept open; may be given several times.
    #[arg(long, default_values_t = [20], value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: Vec<u16>,
    /// Rounds of each case, by turns; the one in the middle is shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,
    /// Where the spools are: a real disk, or syncing means nothing.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    dir: PathBuf,
    /// Print lines of JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Receive,
    Relay,
}

/// One case of one system.
#[derive(Debug, Clone, Copy)]
struct Figures {
    wall: Duration,
    cpu: Option<Duration>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let What::Relay(relay) = self.what;
        runtime()?.block_on(relay.measure())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Relay {
    async fn measure(&self) -> Result<(), Failure> {
        let kinds: Vec<Kind> = std::iter::once(Kind::Postwright).chain(self.beside).collect();
        if !self.json {
            output::text(HEAD)?;
        }
        for (size, connections) in
            self.size.iter().flat_map(|size| self.connections.iter().map(move |n| (size, n)))
        {
            let messages = usize::try_from(self.messages).map_err(Failure::new)?;
            let size = usize::try_from(*size).map_err(Failure::new)?;
            let load = Load { messages, connections: usize::from(*connections), size };
            let bare = self.bare(load).await?;
            self.print("bare", "load into sink", load, bare)?;
            if self.beside == Some(Kind::Postfix) {
                let wall = bare::postfix(load, PATIENCE).await?;
                self.print("smtp-source", "load into sink", load, Figures { wall, cpu: None })?;
            }
            for job in [Job::Receive, Job::Relay] {
                let mut rounds: Vec<Vec<Figures>> = kinds.iter().map(|_| Vec::new()).collect();
                for _ in 0..self.rounds {
                    for (kind, figures) in kinds.iter().zip(&mut rounds) {
                        figures.push(self.round(*kind, job, load).await?);
                    }
                }
                for (kind, figures) in kinds.iter().zip(rounds) {
                    if let Some(middle) = middle(figures) {
                        self.print(kind.name(), job.name(), load, middle)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What the load and the sink reach without an MTA between them.
    async fn bare(&self, load: Load) -> Result<Figures, Failure> {
        let (sink, clock) = (Sink::start().await?, SystemClock::new());
        let start = clock.mono();
        load.run(sink.address).await?;
        Ok(Figures { wall: clock.mono().since(start), cpu: None })
    }

    async fn round(&self, kind: Kind, job: Job, load: Load) -> Result<Figures, Failure> {
        let (sink, clock) = (Sink::start().await?, SystemClock::new());
        let to = (job == Job::Relay).then_some(sink.address);
        let system = Running::start(kind, &self.dir, to, load.connections).await?;
        let (before, start) = (cpu::used(system.pid), clock.mono());
        let work = async {
            load.run(system.address).await?;
            if job == Job::Relay {
                sink.until(load.messages).await;
            }
            Ok::<_, Failure>(())
        };
        tokio::time::timeout(PATIENCE, work).await.map_err(|_| {
            let (name, got) = (kind.name(), sink.counted());
            Failure::new(format!(
                "{name} had passed on {got} of {} messages after {PATIENCE:?}",
                load.messages
            ))
        })??;
        let (wall, after) = (clock.mono().since(start), cpu::used(system.pid));
        Ok(Figures { wall, cpu: after.zip(before).map(|(after, before)| after.saturating_sub(before)) })
    }

    fn print(&self, system: &str, job: &str, load: Load, figures: Figures) -> Result<(), Failure> {
        let rate = |time: Duration| f64::from(self.messages) / time.as_secs_f64().max(1e-3);
        let (wall, cpu) = (rate(figures.wall), figures.cpu.map(rate));
        let Load { connections, size, messages } = load;
        if self.json {
            return output::json(&serde_json::json!({
                "system": system, "job": job, "octets": size, "connections": connections, "messages": messages,
                "durability": "sync", "per_second": wall.round(), "per_cpu_second": cpu.map(f64::round),
            }));
        }
        let cpu = cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.0}"));
        output::text(&format!("| {system} | {job} | {size} | {connections} | {wall:.0} | {cpu} |\n"))
    }
}

impl Job {
    fn name(self) -> &'static str {
        match self {
            Job::Receive => "receive",
            Job::Relay => "relay",
        }
    }
}

const HEAD: &str = "\
Durability: every system syncs before it acknowledges.

| system | job | octets | connections | messages/s | messages/CPU-s |
|---|---|---|---|---|---|
";

/// The round whose processor time is in the middle.
fn middle(mut rounds: Vec<Figures>) -> Option<Figures> {
    rounds.sort_by_key(|figures| figures.cpu.unwrap_or(figures.wall));
    rounds.get(rounds.len() / 2).copied()
}

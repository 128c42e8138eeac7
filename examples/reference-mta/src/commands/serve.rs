//! `postwright serve`: the MTA as a daemon, from a configuration file or from a few options.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use postwright::authentication::{Authenticate, Enforcement};
use postwright::core::dns::{HickoryConfig, HickoryResolver};
use postwright::core::{
    Answer, BoxFuture, Budget, Clock, DnsError, Domain, Host, Name, RecordKind, Resolver, SystemClock,
    SystemEntropy, World,
};
use postwright::queue::Spool;
use postwright::reports::Reports;
use postwright::smtp_client::{Client, Trust};
use postwright::{DnsPace, MessagePolicy, Metrics, Mta, PacedResolver};
use tokio::sync::watch;

use super::{Failure, output};
use crate::config::{Config, Dmarc, Listener, Network, Role, SmartHost};
use crate::control::{Control, Desk};
use crate::keys::Keys;
use crate::listener::Listeners;
use crate::pacing::Keeper;
use crate::relay_accounts::RelayAccounts;
use crate::{log, outbound, preflight, signals};

/// `postwright serve --config FILE`, or a quick relay without a file.
#[derive(Args)]
pub(crate) struct Serve {
    /// The configuration file; see `postwright config print-default`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "smart_host", "spool", "hostname", "relay_from"])]
    config: Option<PathBuf>,
    /// Where to listen, without a file; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where all mail goes, without a file.
    #[arg(long, value_name = "HOST:PORT")]
    smart_host: Option<SmartHost>,
    /// The folder that holds accepted mail, without a file.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Our name in greetings, EHLO and Received fields.
    #[arg(long, value_name = "NAME")]
    hostname: Option<Domain>,
    /// Networks whose mail goes anywhere; may be given several times. Without it: loopback only.
    #[arg(long, value_name = "CIDR")]
    relay_from: Vec<Network>,
    /// Largest message in octets.
    #[arg(long, value_name = "OCTETS")]
    message_size: Option<u64>,
    /// Take mail and keep it, but deliver nothing until started without this.
    #[arg(long)]
    accept_only: bool,
}

impl Serve {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let _log = log::start().map_err(Failure::new)?;
        let accept_only = self.accept_only;
        let file = self.config.clone();
        let config = self.config()?;
        super::runtime()?.block_on(serve(config, file, accept_only))
    }

    fn config(self) -> Result<Config, Failure> {
        if let Some(path) = self.config {
            return Config::load(&path);
        }
        let (Some(address), Some(smart_host), Some(spool)) = (self.listen, self.smart_host, self.spool)
        else {
            return Err(Failure::new(
                "give --config FILE, or --listen ADDR --smart-host HOST:PORT --spool DIR",
            ));
        };
        let listen = vec![Listener::new(address, Role::Relay)];
        let mut config = Config { listen, ..Config::default() };
        config.delivery.smart_host = Some(smart_host);
        config.spool.path = spool;
        config.hostname = self.hostname.unwrap_or(config.hostname);
        if !self.relay_from.is_empty() {
            config.relay.from = self.relay_from;
        }
        if let Some(size) = self.message_size {
            let written = format!("{size} B").into();
            config.written_limits.insert("message_size".to_owned(), written);
        }
        config.check().map_err(Failure::new)?;
        Ok(config)
    }
}

/// `file`: what is read again at SIGHUP.
async fn serve(config: Config, file: Option<PathBuf>, accept_only: bool) -> Result<ExitCode, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Arc::new(Metrics::default());
    let spool = crate::storage::open(&config, clock.clone()).await?;
    let resolver = resolver(&config, &clock)?;
    let dns = resolver.clone();
    let world = World { clock: clock.clone(), entropy: Arc::new(SystemEntropy), resolver };
    let keys = Keys::load(&config, &world)?;
    let accounts = RelayAccounts::load(&config, &world)?;
    let hangups = signals::Hangups::listen();
    let mut listeners = Listeners::new(&config, &world)?;
    let (mta, reports, keeper) = assemble(&config, world, metrics.clone(), spool, &keys, &accounts)?;
    let budget = Budget::new(config.limits.memory.size());
    let mut servers = Vec::new();
    for listener in &config.listen {
        let (server, socket) = listeners.open(listener, &mta, &budget)?;
        let local = socket.local_addr().map_err(Failure::new)?;
        servers.push((server, socket, local));
    }
    let control = config.control.socket.as_deref().map(Control::open).transpose()?;
    preflight::warnings(&config, clock.now()).iter().for_each(|warning| tracing::warn!("{warning}"));
    for (_, _, local) in &servers {
        output::text(&format!("listening on {local}\n"))?;
    }
    let (tell, told) = watch::channel(false);
    let stopping = || {
        let mut told = told.clone();
        async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = told.wait_for(|stop| *stop).await;
        }
    };
    let listening = async {
        let sessions = servers.into_iter().map(|(server, socket, _)| {
            let stop = stopping();
            async move { server.serve(socket, stop).await }
        });
        let mut tasks = tokio::task::JoinSet::new();
        sessions.for_each(|session| drop(tasks.spawn(session)));
        while tasks.join_next().await.is_some() {}
    };
    let stop = async {
        signals::stop().await;
        tracing::info!("draining");
        // The receivers are the futures beside this one; without them there is nothing to stop.
        let _ = tell.send(true);
    };
    let delivering = async {
        if accept_only {
            tracing::warn!("--accept-only is set: nothing is delivered");
        } else {
            mta.run(stopping()).await;
        }
    };
    let delivering = crate::pacing::kept(keeper.as_ref(), delivering);
    let again = || {
        keys.reload(file.as_deref());
        accounts.reload(file.as_deref(), &mta.operator());
        listeners.reload();
    };
    let reloading = async {
        tokio::select! {
            () = hangups.each(again) => {}
            () = listeners.tidy() => {}
            () = stopping() => {}
        }
    };
    let reporting = async {
        if let Some(reports) = reports.filter(|_| !accept_only) {
            reports.run(&mta, stopping()).await;
        }
    };
    let asking = async {
        tokio::select! {
            () = preflight::ask_dns(&config, &*dns) => {}
            () = stopping() => {}
        }
    };
    let work = async { tokio::join!(stop, listening, delivering, reporting, reloading, asking) };
    let shaper = keeper.as_ref().map(|keeper| keeper.shaper());
    let desk = Desk { operator: mta.operator(), metrics: metrics.clone(), clock, shaper };
    tokio::select! {
        _ = work => {}
        () = Control::run(control.as_ref(), desk) => {}
    }
    listeners.save();
    tracing::info!(counts = ?metrics.counts(), "stopped");
    Ok(ExitCode::SUCCESS)
}

/// The system, who reports for it, and who keeps the state of its pace.
type Assembled = (Mta, Option<Arc<Reports>>, Option<Arc<Keeper>>);

/// The system that the configuration describes.
fn assemble(
    config: &Config,
    world: World,
    metrics: Arc<Metrics>,
    spool: Arc<dyn Spool>,
    keys: &Keys,
    accounts: &RelayAccounts,
) -> Result<Assembled, Failure> {
    let client = Client::new(&Trust::Web, world.clock.clone()).map_err(Failure::new)?;
    let reports = crate::reporting::open(config, &world)?;
    let policies = policies(config, &world, reports.as_ref(), keys);
    let mut builder = Mta::builder(config.hostname.clone(), world.clone(), spool, client)
        .settings(|settings| {
            settings.retry.first = config.retry.first;
            settings.retry.longest = config.retry.longest;
            settings.lifetime = config.retry.lifetime;
            settings.connections = config.delivery.connections;
            settings.connections_per_site = config.delivery.connections_per_site;
            settings.assume_delivered = config.delivery.assume_delivered;
            settings.bodies = usize::try_from(config.delivery.bodies).unwrap_or(usize::MAX);
            settings.queued = config.limits.queued.size();
            settings.drain_timeout = config.limits.drain.time();
            settings.notifications_per_hour = config.feedback.notifications_per_hour;
        })
        .observer(metrics)
        .observer(Arc::new(log::Events));
    builder = outbound::with_routes(builder, config, &world, accounts)?;
    for policy in policies {
        builder = builder.policy(policy);
    }
    if let Some(feedback) = super::feedback::assemble(&config.feedback)? {
        builder = builder.feedback(feedback);
    }
    let mut keeper = None;
    if let Some((pace, kept)) = crate::pacing::open(config, &world)? {
        builder = builder.pace(pace);
        keeper = Some(kept);
    }
    let mta = outbound::with_policies_of_others(builder, config, &world)?.build();
    Ok((mta, reports, keeper))
}

/// Who answers DNS questions. A smart host at an address needs nobody: a machine without DNS may still relay.
fn resolver(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Resolver>, Failure> {
    if let Some(path) = &config.dns.zone {
        return super::dns::zone(path);
    }
    let at_an_address = matches!(&config.delivery.smart_host, Some(SmartHost { host: Host::Literal(_), .. }));
    let mut settings = HickoryConfig::default();
    settings.servers.clone_from(&config.dns.servers);
    settings.validate = config.dns.validate;
    settings.trust_anchors.clone_from(&config.dns.trust_anchors);
    settings.in_flight_max = config.dns.at_a_time;
    let mut pace = DnsPace::default();
    (pace.at_a_time, pace.per_second, pace.burst) =
        (config.dns.at_a_time, config.dns.per_second, config.dns.per_second);
    match HickoryResolver::new(&settings) {
        Ok(resolver) => Ok(Arc::new(PacedResolver::new(Arc::new(resolver), clock.clone(), pace))),
        Err(error) if at_an_address => {
            tracing::warn!(%error, "there is no DNS; the smart host's address is enough");
            Ok(Arc::new(NoDns))
        }
        Err(error) => Err(Failure::new(error)),
    }
}

/// Checks what strangers send and seals it, then signs what we originate.
fn policies(
    config: &Config,
    world: &World,
    reports: Option<&Arc<Reports>>,
    keys: &Keys,
) -> Vec<Arc<dyn MessagePolicy>> {
    let mut policies: Vec<Arc<dyn MessagePolicy>> = Vec::new();
    if config.authentication.check {
        let enforcement = match config.authentication.dmarc {
            Dmarc::Observe => Enforcement::Observe,
            Dmarc::Mark => Enforcement::Mark,
            Dmarc::Reject => Enforcement::Reject,
        };
        let (name, resolver, clock) = (config.hostname.clone(), world.resolver.clone(), world.clock.clone());
        let mut policy = Authenticate::new(name, resolver, clock, enforcement);
        if let Some(reports) = reports {
            policy = policy.with_reports(reports.clone());
        }
        policies.push(Arc::new(policy));
    }
    policies.extend(keys.policies());
    policies
}

/// Knows nothing, and says so: no answer is no reason to bounce.
struct NoDns;

impl Resolver for NoDns {
    fn lookup<'a>(&'a self, _: &'a Name, _: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(std::future::ready(Err(DnsError::ServFail)))
    }
}

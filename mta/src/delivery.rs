//! Handing one message to the hosts of one destination: route, TLS policy, connection, transfer.
//!
//! Invariants: comes back with one status for each recipient that it was given, in their order, within the sum of
//! the client's time-outs; at a pace, those that were not tried are left out at the end. A connection is used again only under the decision that it was opened under, only
//! for the domain that decision was made for, unless nobody asks for more than trying, and only for the account that
//! it was opened for.
//!
//! Standards: RFC 5321 5.1; RFC 7672 2.2; RFC 8461 5; RFC 8689 4.2 and 5; RFC 2033.
//!
//! Not here: when and how often (the scheduler), what a status leads to (pipeline.rs), the decision itself
//! (smtp-client's `policy`).

use std::net::SocketAddr;
use std::sync::Arc;

use postwright_core::{
    Cause, DeliveryStatus, Diagnostic, Domain, Envelope, Host, Message, Outcome, Phase, World,
};
use postwright_smtp_client::policy::{self, Attempt, Level, Obstacle, Source, Wishes};
use postwright_smtp_client::route::{self, MailHost, Route, Rules};
use postwright_smtp_client::site::SiteName;
use postwright_smtp_client::sts::{self, Finding, Found, Trouble};
use postwright_smtp_client::{
    Client, ConnectError, Connection, Options, Pool, PoolLimits, UnixConnector, Watch,
};
use postwright_smtp_proto::client::{Config as ClientConfig, Protocol, Timings, Transaction};
use tokio::task::JoinSet;

use crate::account::{Login, LoginId};
use crate::event::Observers;
use crate::pace::NotNow;
use crate::routes::{RouteRule, Routes, Via};
use crate::section::says_tls_required_no;

mod transfer;

pub(crate) use transfer::{Pacing, SoFar};

/// What makes two connections alike: where they lead, how they are protected, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    address: SocketAddr,
    /// Departures that go the same way may share it.
    way: Arc<str>,
    /// A host that the operator named, with what is asked of TLS on the way to it.
    via: Via,
    /// The route, if it is a site of its own: its limits are not those of others who go there.
    route: Option<Arc<str>>,
    source: Source,
    /// For which domain the protection was decided, if it was more than trying.
    decided_for: Option<Host>,
    login: Option<LoginId>,
}

/// Where MTA-STS policies come from and are kept.
#[derive(Clone)]
pub struct MtaSts {
    /// Gets policies over HTTPS.
    pub fetch: Arc<dyn sts::Fetch>,
    /// Keeps them.
    pub store: Arc<dyn sts::Store>,
}

/// Is told of TLS on the way to other domains: for reports (RFC 8460). Called from many tasks, so quick.
pub trait TlsWatch: Send + Sync {
    /// A connection for mail to `domain` was tried.
    fn session(
        &self,
        domain: &Domain,
        attempt: &Attempt,
        sts: &Found,
        outcome: Result<&Connection, &ConnectError>,
    );

    /// A mail host of `domain` must not be used.
    fn obstacle(&self, domain: &Domain, host: &Host, obstacle: &Obstacle, sts: &Found);

    /// The MTA-STS policy that `domain` announces cannot be had.
    fn trouble(&self, domain: &Domain, trouble: &Trouble);
}

/// Everything that delivery needs, shared by all attempts.
pub(crate) struct Delivery {
    client: Client,
    /// Connects to hosts that the operator named, where they are trusted by other roots.
    relays: Option<Client>,
    pool: Pool<Key>,
    routes: Routes,
    world: World,
    options: Options,
    sts: Option<sts::Finder>,
    watch: Option<Arc<dyn TlsWatch>>,
    observers: Observers,
}

/// What one attempt came to.
pub(crate) struct Delivered {
    /// One for each recipient, in their order.
    pub(crate) statuses: Vec<DeliveryStatus>,
    /// Where its time went.
    pub(crate) timings: Timings,
}

/// The servers that may be tried and how.
struct Plan {
    attempts: Vec<Attempt>,
    found: Found,
    /// With which account, if with any.
    login: Option<Login>,
    /// What it means for a recipient that a host must not be used now, if one must not.
    left_out: Option<Box<DeliveryStatus>>,
}

impl Plan {
    /// RFC 5321 5.1: mail fails by what a host says of everything (in its greeting, say) only if all hosts say so. One that
    /// must not be used now may say otherwise later.
    fn conclude(&self, statuses: Vec<DeliveryStatus>) -> Vec<DeliveryStatus> {
        let is_of_the_host = |status: &DeliveryStatus| {
            let lacks = matches!(status.diagnostic, Diagnostic::Local(Cause::MissingExtension(_)));
            status.outcome == Outcome::Failed && (status.phase < Phase::Mail || lacks)
        };
        match &self.left_out {
            Some(obstacle) if obstacle.outcome == Outcome::Delayed && statuses.iter().all(is_of_the_host) => {
                vec![DeliveryStatus::clone(obstacle); statuses.len()]
            }
            _ => statuses,
        }
    }
}

impl Delivery {
    pub(crate) fn new(
        client: Client,
        routes: Routes,
        world: World,
        config: ClientConfig,
        sts: Option<MtaSts>,
        idle: usize,
    ) -> Delivery {
        let mut limits = PoolLimits::default();
        limits.total = limits.total.min(idle);
        let pool = Pool::new(limits, world.clock.clone());
        let sts = sts.map(|MtaSts { fetch, store }| sts::Finder::new(fetch, store));
        let options = Options::new(config);
        let (relays, watch, observers) = (None, None, Observers::default());
        Delivery { client, relays, pool, routes, world, options, sts, watch, observers }
    }

    /// The same with another client for hosts that the operator named.
    pub(crate) fn with_relays(self, relays: Option<Client>) -> Delivery {
        Delivery { relays, ..self }
    }

    /// The same with those who are told of refused logins.
    pub(crate) fn with_observers(self, observers: Observers) -> Delivery {
        Delivery { observers, ..self }
    }

    /// The same with someone who is told of TLS.
    pub(crate) fn with_watch(self, watch: Option<Arc<dyn TlsWatch>>) -> Delivery {
        Delivery { watch, ..self }
    }

    /// Which mail takes which route, unless an operator bound it to another one.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The site of a destination: domains that share their mail hosts share it. `None` if DNS does not say, or the
    /// domain has no host.
    pub(crate) async fn site(&self, destination: &Host, rule: &RouteRule) -> Option<String> {
        if let Some(site) = rule.site() {
            return Some(site);
        }
        let World { resolver, entropy, .. } = &self.world;
        // All hosts, since a route that was cut has other hosts each time.
        let mut rules = self.routes.rules.clone();
        rules.hosts = rules.records;
        match route::plan(destination, &**resolver, &**entropy, &rules).await {
            Route::Hosts(hosts) => Some(SiteName::of(&hosts, &self.routes.providers).to_string()),
            _ => None,
        }
    }

    /// Delivers to recipients that all live at `destination`. Fewer statuses than recipients: the last ones were not tried.
    pub(crate) async fn deliver(
        &self,
        destination: &Host,
        rule: &RouteRule,
        mut envelope: Envelope,
        message: Message,
        gate: Option<&Pacing<'_>>,
    ) -> Result<Delivered, NotNow> {
        let clock = &self.world.clock;
        let start = clock.mono();
        let recipients = envelope.recipients.len();
        let login = rule.account().map(|account| account.login(clock.now())).transpose()?;
        if matches!(rule.via(), Via::LmtpSocket(_)) {
            // RFC 8689 4.2 is about the way between hosts; this is the last step, inside one.
            envelope.options.require_tls = false;
        }
        let require_tls = envelope.options.require_tls;
        // What a message asks for must not weaken what protects our credentials (I6).
        let tls_optional = !require_tls && login.is_none() && says_tls_required_no(&message);
        let wishes = Wishes { require_tls, tls_optional, ..Wishes::default() };
        let plan = self.plan(destination, rule, login, wishes).await;
        let mut timings = Timings::default();
        timings.resolve = clock.mono().since(start);
        let statuses = match plan {
            Err(status) => vec![*status; recipients],
            Ok(plan) => {
                let transaction = Transaction { envelope, message };
                plan.conclude(self.transfer(destination, rule, &plan, transaction, gate, &mut timings).await?)
            }
        };
        timings.total = clock.mono().since(start);
        Ok(Delivered { statuses, timings })
    }

    /// The servers that may be tried and how, or what it means that there are none.
    async fn plan(
        &self,
        destination: &Host,
        rule: &RouteRule,
        login: Option<Login>,
        wishes: Wishes,
    ) -> Result<Plan, Box<DeliveryStatus>> {
        let World { resolver, entropy, clock } = &self.world;
        let rules = &self.routes.rules;
        // A host that the operator named may well be private, or this machine.
        let mut open = Rules::default();
        open.family = rules.family;
        let (route, port) = match rule.via() {
            Via::Mx => (route::plan(destination, &**resolver, &**entropy, rules).await, self.routes.mx_port),
            Via::SmartHost { host, port, .. } | Via::Lmtp { host, port, .. } => {
                (route::plan_host(host, &**resolver, &**entropy, &open).await, *port)
            }
            Via::LmtpSocket(_) => {
                let here = UnixConnector::target();
                let route = route::plan_host(&here.host, &**resolver, &**entropy, &open).await;
                (route, here.address.port())
            }
        };
        if let Some(status) = route.failure(clock.now()) {
            return Err(Box::new(status));
        }
        let Route::Hosts(hosts) = route else {
            return Ok(Plan { attempts: Vec::new(), found: Found::None, login, left_out: None });
        };
        let level = rule.level(self.routes.tls);
        let mut plan = self.decide(destination, rule.via(), &hosts, port, Wishes { level, ..wishes }).await?;
        for attempt in &mut plan.attempts {
            attempt.options.implicit_tls = rule.via().is_implicit_tls() && level != Level::Never;
            if let Some(login) = &login {
                login.arm(&attempt.target, &mut attempt.options);
            }
        }
        Ok(Plan { login, ..plan })
    }

    /// The TLS policy of each host.
    async fn decide(
        &self,
        destination: &Host,
        via: &Via,
        hosts: &[MailHost],
        port: u16,
        wishes: Wishes,
    ) -> Result<Plan, Box<DeliveryStatus>> {
        let resolver = &*self.world.resolver;
        let named = match via {
            Via::Mx => destination.domain(),
            Via::SmartHost { host, .. } | Via::Lmtp { host, .. } => host.domain(),
            Via::LmtpSocket(_) => None,
        };
        // Nothing is published for an address: only what is configured counts.
        let nowhere: Domain = "invalid".parse().expect("a literal domain");
        let domain = named.unwrap_or(&nowhere);
        let Finding { found, trouble } = match (&self.sts, via, named) {
            (Some(finder), Via::Mx, Some(domain)) => {
                finder.find(domain, resolver, self.world.clock.now()).await
            }
            _ => Finding::NONE,
        };
        let mut options = self.options.clone();
        if matches!(via, Via::Lmtp { .. } | Via::LmtpSocket(_)) {
            let mut session = ClientConfig::clone(&options.session);
            session.protocol = Protocol::Lmtp;
            options.session = Arc::new(session);
        }
        let (attempts, obstacles) =
            policy::attempts(domain, hosts, port, wishes, &options, &found, resolver).await;
        if let (Some(watch), Via::Mx) = (&self.watch, via) {
            trouble.iter().for_each(|trouble| watch.trouble(domain, trouble));
            obstacles.iter().for_each(|(host, obstacle)| watch.obstacle(domain, host, obstacle, &found));
        }
        let now = self.world.clock.now();
        let mut obstacles: Vec<DeliveryStatus> =
            obstacles.iter().map(|(_, obstacle)| obstacle.status(now)).collect();
        // What delays comes first: one host that may be used later is enough to wait for.
        obstacles.sort_by_key(|status| status.outcome != Outcome::Delayed);
        match obstacles.into_iter().next().map(Box::new) {
            Some(obstacle) if attempts.is_empty() => Err(obstacle),
            left_out => Ok(Plan { attempts, found, login: None, left_out }),
        }
    }

    /// Fetches MTA-STS policies again that are a day old.
    pub(crate) async fn refresh_policies(&self) {
        if let Some(finder) = &self.sts
            && let Err(why) = finder.refresh(self.world.clock.now()).await
        {
            tracing::warn!(%why, "MTA-STS policies were not refreshed");
        }
    }

    /// Closes idle connections: those that have waited too long, or all of them.
    pub(crate) async fn tidy(&self, everything: bool) {
        let mut leaving = JoinSet::new();
        for connection in self.pool.retire(everything) {
            leaving.spawn(connection.quit());
        }
        leaving.join_all().await;
    }
}

/// Tells of the connections of one delivery.
struct Told<'a> {
    watch: &'a dyn TlsWatch,
    domain: &'a Domain,
    found: &'a Found,
}

impl Watch for Told<'_> {
    fn tried(&self, attempt: &Attempt, outcome: Result<&Connection, &ConnectError>) {
        self.watch.session(self.domain, attempt, self.found, outcome);
    }
}

fn key(destination: &Host, rule: &RouteRule, plan: &Plan, attempt: &Attempt, way: &Arc<str>) -> Key {
    let (source, via) = (attempt.decision.source, rule.via());
    // Of a host that the operator named, who is written to says nothing.
    let is_decided_for = *via == Via::Mx && source != Source::Opportunistic;
    Key {
        address: attempt.target.address,
        way: way.clone(),
        via: via.clone(),
        route: rule.own_site(),
        source,
        decided_for: is_decided_for.then(|| destination.clone()),
        login: plan.login.as_ref().map(|login| login.id.clone()),
    }
}

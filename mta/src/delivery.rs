//! Handing one message to the hosts of one destination: route, TLS policy, connection, transfer.
//!
//! Invariants: comes back with one status for each recipient that it was given, in their order, within the sum of
//! the client's time-outs. A connection is used again only under the decision that it was opened under, and only
//! for the domain that decision was made for, unless nobody asks for more than trying.
//!
//! Standards: RFC 5321 5.1; RFC 7672 2.2; RFC 8461 5; RFC 8689 4.2.
//!
//! Not here: when and how often (the scheduler), what a status leads to (pipeline.rs), the decision itself
//! (smtp-client's `policy`).

use std::net::SocketAddr;
use std::sync::Arc;

use postwright_core::{DeliveryStatus, Domain, Envelope, Host, Message, World};
use postwright_smtp_client::policy::{self, Attempt, Source, Wishes};
use postwright_smtp_client::route::{self, MailHost, Route, Rules};
use postwright_smtp_client::sts;
use postwright_smtp_client::{Client, Options, Pool, PoolLimits, is_lost};
use postwright_smtp_proto::client::{Config as ClientConfig, Report, Transaction};

use tokio::task::JoinSet;

use crate::routes::{Routes, Via};

/// What makes two connections alike: where they lead and how they are protected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    address: SocketAddr,
    source: Source,
    /// For whom the protection was decided, if it was more than trying.
    decided_for: Option<Host>,
}

/// Where MTA-STS policies come from and are kept.
#[derive(Clone)]
pub struct MtaSts {
    /// Gets policies over HTTPS.
    pub fetch: Arc<dyn sts::Fetch>,
    /// Keeps them.
    pub store: Arc<dyn sts::Store>,
}

/// Everything that delivery needs, shared by all attempts.
pub(crate) struct Delivery {
    client: Client,
    pool: Pool<Key>,
    routes: Routes,
    world: World,
    options: Options,
    sts: Option<sts::Finder>,
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
        Delivery { client, pool, routes, world, options: Options::new(config), sts }
    }

    /// How mail for a host travels.
    pub(crate) fn via(&self, destination: &Host) -> &Via {
        self.routes.via(destination)
    }

    /// Delivers to recipients that all live at `destination`.
    pub(crate) async fn deliver(
        &self,
        destination: &Host,
        envelope: Envelope,
        message: Message,
    ) -> Vec<DeliveryStatus> {
        let recipients = envelope.recipients.len();
        match self.attempts(destination, envelope.options.require_tls).await {
            Err(status) => vec![*status; recipients],
            Ok(attempts) => {
                self.transfer(destination, &attempts, Transaction { envelope, message }).await.statuses
            }
        }
    }

    /// On an idle connection to the first server that has one, or else on a new one.
    async fn transfer(&self, destination: &Host, attempts: &[Attempt], transaction: Transaction) -> Report {
        for attempt in attempts {
            let key = key(destination, attempt);
            while let Some(mut connection) = self.pool.take(&key).await {
                let report = connection.deliver(transaction.clone()).await;
                self.pool.put(&key, connection);
                if !is_lost(&report) {
                    return report;
                }
            }
        }
        let (report, connection) = self.client.deliver_each(attempts, transaction).await;
        if let Some(connection) = connection {
            let target = connection.target();
            if let Some(attempt) = attempts.iter().find(|attempt| attempt.target == *target) {
                self.pool.put(&key(destination, attempt), connection);
            }
        }
        report
    }

    /// The servers that may be tried and how, or what it means that there are none.
    async fn attempts(
        &self,
        destination: &Host,
        require_tls: bool,
    ) -> Result<Vec<Attempt>, Box<DeliveryStatus>> {
        let World { resolver, entropy, clock } = &self.world;
        let rules = &self.routes.rules;
        let (route, port, level) = match self.via(destination) {
            Via::Mx => {
                let route = route::plan(destination, &**resolver, &**entropy, rules).await;
                (route, self.routes.mx_port, self.routes.tls)
            }
            Via::SmartHost { host, port, tls } => {
                // A smart host is named by the operator: it may well be private, or this machine.
                let mut open = Rules::default();
                open.family = rules.family;
                (route::plan_host(host, &**resolver, &**entropy, &open).await, *port, *tls)
            }
        };
        if let Some(status) = route.failure(clock.now()) {
            return Err(Box::new(status));
        }
        let Route::Hosts(hosts) = route else { return Ok(Vec::new()) };
        let wishes = Wishes { level, require_tls, ..Wishes::default() };
        self.decide(destination, &hosts, port, wishes).await
    }

    /// The TLS policy of each host.
    async fn decide(
        &self,
        destination: &Host,
        hosts: &[MailHost],
        port: u16,
        wishes: Wishes,
    ) -> Result<Vec<Attempt>, Box<DeliveryStatus>> {
        let resolver = &*self.world.resolver;
        let via = self.via(destination);
        let named = match via {
            Via::Mx => destination.domain(),
            Via::SmartHost { host, .. } => host.domain(),
        };
        // Nothing is published for an address: only what is configured counts.
        let nowhere: Domain = "invalid".parse().expect("a literal domain");
        let domain = named.unwrap_or(&nowhere);
        let found = match (&self.sts, via, named) {
            (Some(finder), Via::Mx, Some(domain)) => {
                finder.find(domain, resolver, self.world.clock.now()).await.found
            }
            _ => sts::Found::None,
        };
        let (attempts, obstacles) =
            policy::attempts(domain, hosts, port, wishes, &self.options, &found, resolver).await;
        match obstacles.into_iter().next() {
            Some((_, obstacle)) if attempts.is_empty() => {
                Err(Box::new(obstacle.status(self.world.clock.now())))
            }
            _ => Ok(attempts),
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

fn key(destination: &Host, attempt: &Attempt) -> Key {
    let source = attempt.decision.source;
    let decided_for = (source != Source::Opportunistic).then(|| destination.clone());
    Key { address: attempt.target.address, source, decided_for }
}

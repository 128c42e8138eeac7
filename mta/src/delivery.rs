//! Handing one message to the hosts of one destination: route, connect, transfer.
//!
//! Invariant: comes back with one status for each recipient that it was given, in their order, within the sum of
//! the client's time-outs.
//!
//! Not here: when and how often (the scheduler), what a status leads to (pipeline.rs).

use postwright_core::{DeliveryStatus, Envelope, Host, Message, World};
use postwright_smtp_client::route::{self, Route};
use postwright_smtp_client::{Client, Options, Pool, PoolLimits, Target, targets};
use postwright_smtp_proto::client::{Config as ClientConfig, StartTls, Transaction};

use crate::routes::{Routes, Via};

/// What makes two connections alike: where they lead and how they are protected.
type Key = (Via, Option<Host>);

/// Everything that delivery needs, shared by all attempts.
pub(crate) struct Delivery {
    client: Client,
    pool: Pool<Key>,
    routes: Routes,
    world: World,
    /// Options by STARTTLS policy.
    opportunistic: Options,
    required: Options,
    clear: Options,
}

impl Delivery {
    pub(crate) fn new(client: Client, routes: Routes, world: World, config: &ClientConfig) -> Delivery {
        let with = |starttls| {
            let mut config = config.clone();
            config.starttls = starttls;
            Options::new(config)
        };
        Delivery {
            client,
            pool: Pool::new(PoolLimits::default(), world.clock.clone()),
            routes,
            world,
            opportunistic: with(StartTls::Opportunistic),
            required: with(StartTls::Required),
            clear: with(StartTls::None),
        }
    }

    /// Delivers to recipients that all live at `destination`.
    pub(crate) async fn deliver(
        &self,
        destination: &Host,
        envelope: Envelope,
        message: Message,
    ) -> Vec<DeliveryStatus> {
        let recipients = envelope.recipients.len();
        let via = self.routes.via(destination);
        let key = match via {
            Via::Mx => (Via::Mx, Some(destination.clone())),
            smart_host => (smart_host.clone(), None),
        };
        let transaction = Transaction { envelope, message };
        let options = self.options(via);
        // The look-ups are only needed if no connection is open; the pool asks for targets before it knows.
        let targets = match self.targets(via, destination).await {
            Ok(targets) => targets,
            Err(status) => return vec![*status; recipients],
        };
        self.pool.deliver(&key, &self.client, &targets, options, transaction).await.statuses
    }

    /// How mail for a host travels.
    pub(crate) fn via(&self, destination: &Host) -> &Via {
        self.routes.via(destination)
    }

    async fn targets(&self, via: &Via, destination: &Host) -> Result<Vec<Target>, Box<DeliveryStatus>> {
        let World { resolver, entropy, clock } = &self.world;
        let rules = &self.routes.rules;
        let (route, port) = match via {
            Via::Mx => (route::plan(destination, &**resolver, &**entropy, rules).await, self.routes.mx_port),
            Via::SmartHost { host, port, .. } => {
                // A smart host is named by the operator: it may well be private, or this machine.
                let mut open = route::Rules::default();
                open.family = rules.family;
                (route::plan_host(host, &**resolver, &**entropy, &open).await, *port)
            }
        };
        match (route.failure(clock.now()), route) {
            (Some(status), _) => Err(Box::new(status)),
            (None, Route::Hosts(hosts)) => Ok(targets(&hosts, port)),
            (None, _) => Ok(Vec::new()),
        }
    }

    fn options(&self, via: &Via) -> &Options {
        match via {
            Via::Mx => &self.opportunistic,
            Via::SmartHost { starttls, .. } => match starttls {
                StartTls::None => &self.clear,
                StartTls::Opportunistic => &self.opportunistic,
                StartTls::Required => &self.required,
            },
        }
    }

    /// Closes idle connections: those that have waited too long, or all of them.
    pub(crate) async fn tidy(&self, everything: bool) {
        for connection in self.pool.retire(everything) {
            connection.quit().await;
        }
    }
}

//! Putting a system together: [`Builder`] and [`Mta`].

use std::sync::{Arc, Mutex};

use postwright_bounce::dsn::Composer;
use postwright_core::{Domain, Envelope, Mailbox, Message, Refusal, World};
use postwright_queue::scheduler::{Policies, RouteOf, Scheduler, SchedulerConfig};
use postwright_queue::{Spool, SpoolId};
use postwright_smtp_client::Client;
use postwright_smtp_proto::client::Config as ClientConfig;
use tokio::sync::Notify;

use crate::bodies::Bodies;
use crate::class::Classes;
use crate::delivery::{Delivery, MtaSts};
use crate::event::Observers;
use crate::feedback::Feedback;
use crate::intake::Intake;
use crate::leases::Leases;
use crate::pipeline::{self, Arrival};
use crate::storm::Storm;
use crate::system::System;
#[cfg(feature = "tls-reports")]
use crate::tls_reports::TlsReports;
use crate::{
    Class, MessagePolicy, Observer, Pace, Relay, Routes, Settings, TlsWatch, Visit, dispatch, upkeep,
};

/// Collects the parts of an [`Mta`].
#[must_use = "call build()"]
pub struct Builder {
    hostname: Domain,
    world: World,
    spool: Arc<dyn Spool>,
    client: Client,
    client_config: ClientConfig,
    relay: Relay,
    routes: Routes,
    observers: Observers,
    policies: Vec<Arc<dyn MessagePolicy>>,
    classes: Classes,
    sts: Option<MtaSts>,
    watch: Option<Arc<dyn TlsWatch>>,
    #[cfg(feature = "tls-reports")]
    reports: Option<Arc<TlsReports>>,
    relays: Option<Client>,
    pace: Option<Arc<dyn Pace>>,
    feedback: Option<Arc<Feedback>>,
    settings: Settings,
}

impl Builder {
    /// Who may send to whom. Without it, nobody may do anything.
    pub fn relay(mut self, relay: Relay) -> Builder {
        self.relay = relay;
        self
    }

    /// Where mail goes. Without it, to each domain's MX.
    pub fn routes(mut self, routes: Routes) -> Builder {
        self.routes = routes;
        self
    }

    /// Connects to hosts that a route names by this client, such as one that believes a private authority. Without it by
    /// the one that connects to MX hosts.
    pub fn relay_client(mut self, client: Client) -> Builder {
        self.relays = Some(client);
        self
    }

    /// Changes limits and times.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Builder {
        change(&mut self.settings);
        self
    }

    /// Changes what is said to other servers: extensions, time-outs.
    pub fn client_config(mut self, change: impl FnOnce(&mut ClientConfig)) -> Builder {
        change(&mut self.client_config);
        self
    }

    /// Adds someone who is told of every event.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Builder {
        self.observers.add(observer);
        self
    }

    /// Asks before each attempt whether the receiver may be sent to now. Without it the limits of
    /// [`Settings`] are all there is.
    pub fn pace(mut self, pace: Arc<dyn Pace>) -> Builder {
        self.pace = Some(pace);
        self
    }

    /// Keeps a suppression list, gives messages return paths of their own, and reads what comes back to them. Without it
    /// nothing is suppressed.
    pub fn feedback(mut self, feedback: Arc<Feedback>) -> Builder {
        self.feedback = Some(feedback);
        self
    }

    /// Keeps to the MTA-STS policies of other domains (RFC 8461), which needs a way to fetch them over HTTPS.
    /// Without it only DANE and what is configured counts.
    pub fn mta_sts(mut self, sts: MtaSts) -> Builder {
        self.sts = Some(sts);
        self
    }

    /// Tells someone of TLS on the way to other domains. There is one listener: its reports (RFC 8460) are one.
    pub fn tls_watch(mut self, watch: Arc<dyn TlsWatch>) -> Builder {
        self.watch = Some(watch);
        self
    }

    /// Reports to other domains how TLS with them went (RFC 8460). Without it nothing is counted.
    #[cfg(feature = "tls-reports")]
    pub fn tls_reports(mut self, reports: Arc<TlsReports>) -> Builder {
        self.watch = Some(reports.clone());
        self.reports = Some(reports);
        self
    }

    /// Adds a word on whole messages: it is asked after those that were added before.
    pub fn policy(mut self, policy: Arc<dyn MessagePolicy>) -> Builder {
        self.policies.push(policy);
        self
    }

    /// Tells tenants and streams apart, for routes, limits and the suppression list. Without it all mail is one tenant's,
    /// and of one kind.
    pub fn classes(
        mut self,
        class_of: impl Fn(&Visit<'_>, &Envelope) -> Class + Send + Sync + 'static,
    ) -> Builder {
        self.classes = Classes::new(class_of);
        self
    }

    /// The system; nothing runs yet.
    pub fn build(self) -> Mta {
        let Builder {
            hostname,
            world,
            spool,
            client,
            client_config,
            relay,
            routes,
            observers,
            policies,
            classes,
            sts,
            watch,
            #[cfg(feature = "tls-reports")]
            reports,
            relays,
            pace,
            feedback,
            settings,
        } = self;
        let mut config = SchedulerConfig::default();
        config.policies = Policies { rules: Vec::new(), default: settings.retry_policy() };
        config.max_messages = settings.queued.max(1);
        config.max_in_flight_per_site = settings.connections_per_site;
        config.max_in_flight = settings.connections.max(1);
        let paths = routes.clone();
        config.route_of = RouteOf::new(move |entry, host| paths.name_for(entry, host));
        let scheduler = Scheduler::new(config, world.entropy.clone());
        let postmaster =
            Mailbox::quote("postmaster", hostname.clone()).expect("a short local part at a domain");
        let composer = Composer::new(hostname.clone(), postmaster);
        let delivery = Delivery::new(client, routes, world.clone(), client_config, sts, settings.connections)
            .with_relays(relays)
            .with_observers(observers.clone())
            .with_watch(watch);
        let system = System {
            leases: Leases::new(spool.lease(), world.clock.mono()),
            storm: Storm::new(settings.notifications_per_hour),
            bodies: Bodies::new(settings.bodies),
            scheduler: Mutex::new(scheduler),
            wake: Notify::new(),
            hostname,
            world,
            spool,
            delivery,
            composer,
            observers,
            policies,
            classes,
            pace,
            feedback,
            settings,
        };
        Mta {
            system: Arc::new(system),
            relay,
            #[cfg(feature = "tls-reports")]
            reports,
        }
    }
}

/// A mail transfer agent without sockets of its own: give [`Mta::intake`] to servers and let [`Mta::run`] deliver.
///
/// See the crate's front page for a whole one.
#[derive(Clone)]
pub struct Mta {
    system: Arc<System>,
    relay: Relay,
    #[cfg(feature = "tls-reports")]
    reports: Option<Arc<TlsReports>>,
}

impl Mta {
    /// Starts with the four parts that have no default.
    pub fn builder(hostname: Domain, world: World, spool: Arc<dyn Spool>, client: Client) -> Builder {
        Builder {
            client_config: ClientConfig::new(hostname.clone()),
            hostname,
            world,
            spool,
            client,
            relay: Relay::nobody(),
            routes: Routes::mx(),
            observers: Observers::default(),
            policies: Vec::new(),
            classes: Classes::default(),
            sts: None,
            watch: None,
            #[cfg(feature = "tls-reports")]
            reports: None,
            relays: None,
            pace: None,
            feedback: None,
            settings: Settings::default(),
        }
    }

    /// What servers ask: who may write to whom, and taking messages.
    pub fn intake(&self) -> Intake {
        self.intake_with(self.relay.clone())
    }

    /// The same under a relay policy of its own, for a listener that is stricter than the others.
    pub fn intake_with(&self, relay: Relay) -> Intake {
        Intake { system: self.system.clone(), relay }
    }

    /// Takes a message that came by another way than SMTP. When this returns an id, the message would survive a
    /// power cut.
    ///
    /// # Errors
    /// What an SMTP client would have been told: 452 if there is no room, 451 if the spool failed, 554 for a loop.
    pub async fn submit(&self, envelope: &Envelope, message: Message) -> Result<SpoolId, Refusal> {
        let arrival = Arrival {
            peer: ([127, 0, 0, 1], 0).into(),
            hello: Some("localhost"),
            with: "local",
            trusted: true,
        };
        pipeline::take_in(&self.system, arrival, envelope, message).await
    }

    /// Reads the queue and delivers until `stop` resolves; then finishes what is running, for at most
    /// [`Settings::drain_timeout`]. Run it once.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = dispatch::run(self.system.clone(), stop) => {}
            () = upkeep::run(self) => {}
        }
        upkeep::close(self).await;
    }

    pub(crate) fn system(&self) -> &Arc<System> {
        &self.system
    }

    #[cfg(feature = "tls-reports")]
    pub(crate) fn reports(&self) -> Option<&TlsReports> {
        self.reports.as_deref()
    }

    /// Octets of messages on their way out that are in memory; at most [`Settings::bodies`].
    pub fn octets_in_flight(&self) -> usize {
        self.system.bodies.in_use()
    }
}

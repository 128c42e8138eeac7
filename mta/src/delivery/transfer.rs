//! The transfer of one message, in as many transactions as its recipients need: on a connection that is open and idle, or on a new one, at a pace.
//!
//! Invariant: with a pace, every open connection carries its pass from the moment it is opened to the moment it is
//! closed, idle or not, and nothing is sent on it without a word of the pace. What a pass is refused for because of
//! connections is first tried to be had by closing an idle one.
//!
//! Not here: where to (delivery.rs), which limits (pace.rs).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::{
    DeliveryStatus, Diagnostic, Domain, EnhancedStatus, Envelope, Host, Outcome, Recipient, World,
};
use postwright_smtp_client::policy::Attempt;
use postwright_smtp_client::{Connection, UnixConnector, Watch, is_lost, is_misfit};
use postwright_smtp_proto::client::{Report, Timings, Transaction};

use super::{Delivery, Key, Plan, Told, key};
use crate::Event;
use crate::exit::{ByExit, attempts_by};
use crate::feedback::Trail;
use crate::pace::{Departure, Exit, NotNow, Pace, Pass, Sent};
use crate::routes::{RouteRule, Via};

/// Ways out that are tried for one attempt.
const EXITS: usize = 8;
/// How long an attempt waits that found none.
const NO_EXIT_PAUSE: Duration = Duration::from_secs(60);

/// The pace of one message.
pub(crate) struct Pacing<'a> {
    pub(crate) pace: &'a dyn Pace,
    pub(crate) domain: &'a Domain,
    pub(crate) site: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) octets: u64,
    /// What is known already of an attempt that may be cut off.
    pub(crate) so_far: Mutex<SoFar>,
}

/// What an attempt has brought until now.
#[derive(Default)]
pub(crate) struct SoFar {
    /// Of the recipients of the transactions that are over, in order.
    pub(crate) statuses: Vec<DeliveryStatus>,
    /// The way of the last transaction that a server took.
    pub(crate) trail: Option<Trail>,
}

impl Pacing<'_> {
    pub(crate) fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One message on its way to the servers of a plan.
struct Trip<'a> {
    destination: &'a Host,
    rule: &'a RouteRule,
    plan: &'a Plan,
    transaction: Transaction,
    /// What its connections may be shared with.
    way: Arc<str>,
}

/// What became of it.
enum Departed {
    Sent(Report),
    /// The way out cannot be used, and nothing was asked of the receiver.
    Fault(String),
}

/// A gate, now that the hosts are known.
struct Passing<'a> {
    pace: &'a dyn Pace,
    departure: Departure<'a>,
    world: &'a World,
    gate: &'a Pacing<'a>,
}

impl Passing<'_> {
    fn observe(&self, exit: Option<&Exit>, new_connection: bool, report: &Report) {
        let sent = Sent { exit, new_connection, statuses: &report.statuses };
        self.pace.observe(self.departure, sent, self.world.clock.now());
        if report
            .statuses
            .iter()
            .any(|status| matches!(status.outcome, Outcome::Delivered | Outcome::Relayed))
        {
            self.gate.so_far().trail = Some(Trail {
                exit: exit.map(|exit| (*exit.name).into()),
                site: self.departure.site.into(),
                hosts: self.departure.hosts.to_vec(),
            });
        }
    }

    /// An envelope in as many parts as the pace wants: each is a transaction of its own.
    fn parts(&self, transaction: Transaction) -> Vec<Transaction> {
        let Transaction { mut envelope, message } = transaction;
        let most = self.pace.recipients(self.departure, self.world.clock.now());
        let most = most.map_or(usize::MAX, |most| usize::try_from(most.max(1)).unwrap_or(usize::MAX));
        let recipients = std::mem::take(&mut envelope.recipients);
        let part = |recipients: &[Recipient]| Transaction {
            envelope: Envelope { recipients: recipients.to_vec(), ..envelope.clone() },
            message: message.clone(),
        };
        recipients.chunks(most).map(part).collect()
    }
}

impl Delivery {
    /// On an idle connection to the first server that has one, or else on a new one.
    pub(super) async fn transfer(
        &self,
        destination: &Host,
        rule: &RouteRule,
        plan: &Plan,
        transaction: Transaction,
        gate: Option<&Pacing<'_>>,
        timings: &mut Timings,
    ) -> Result<Vec<DeliveryStatus>, NotNow> {
        let mut hosts: Vec<Domain> =
            plan.attempts.iter().filter_map(|attempt| attempt.target.host.domain().cloned()).collect();
        hosts.dedup();
        let passing = gate.map(|gate| {
            let Pacing { pace, domain, site, tenant, stream, octets, .. } = *gate;
            let departure = Departure { domain, hosts: &hosts, site, tenant, stream, octets };
            Passing { pace, departure, world: &self.world, gate }
        });
        let Some(passing) = &passing else {
            let trip = Trip { destination, rule, plan, transaction, way: Arc::default() };
            return Ok(self.one(&trip, None, timings).await?.statuses);
        };
        let way = passing.pace.way(passing.departure);
        for transaction in passing.parts(transaction) {
            let trip = Trip { destination, rule, plan, transaction, way: way.clone() };
            match self.one(&trip, Some(passing), timings).await {
                Ok(report) => passing.gate.so_far().statuses.extend(report.statuses),
                // What is over is over; the recipients without a status have not been tried.
                Err(_) if !passing.gate.so_far().statuses.is_empty() => break,
                Err(not_now) => return Err(not_now),
            }
        }
        Ok(std::mem::take(&mut passing.gate.so_far().statuses))
    }

    /// One transaction.
    async fn one(
        &self,
        trip: &Trip<'_>,
        passing: Option<&Passing<'_>>,
        timings: &mut Timings,
    ) -> Result<Report, NotNow> {
        for attempt in &trip.plan.attempts {
            if let Some(report) = self.on_an_idle_one(trip, attempt, passing, timings).await {
                return Ok(report);
            }
        }
        match passing {
            Some(passing) => self.paced(trip, passing, timings).await,
            None => match self.depart(trip, None, timings).await {
                Departed::Sent(report) => Ok(report),
                Departed::Fault(why) => Err(NotNow::new(self.world.clock.now() + NO_EXIT_PAUSE, why)),
            },
        }
    }

    /// On an idle connection to this server, if there is one that may be used and turns out to be alive.
    async fn on_an_idle_one(
        &self,
        trip: &Trip<'_>,
        attempt: &Attempt,
        passing: Option<&Passing<'_>>,
        timings: &mut Timings,
    ) -> Option<Report> {
        let key = key(trip.destination, trip.rule, trip.plan, attempt, &trip.way);
        while let Some(mut connection) = self.pool.take(&key).await {
            if let Some(passing) = passing {
                let (departure, exit) = (passing.departure, exit_of(&connection));
                if passing.pace.admit_on(departure, exit, self.world.clock.now()).is_err() {
                    // By another way out it may be let through, on a connection of its own.
                    self.pool.put(&key, connection);
                    return None;
                }
            }
            let report = connection.deliver(trip.transaction.clone()).await;
            *timings += connection.take_timings();
            if is_misfit(&report) {
                // Nothing was sent. The list of servers is gone through again on new connections, to its end.
                self.keep(trip, connection).await;
                return None;
            }
            if let Some(passing) = passing {
                passing.observe(exit_of(&connection), false, &report);
            }
            self.keep(trip, connection).await;
            if !is_lost(&report) {
                return Some(report);
            }
        }
        None
    }

    /// By the way out that the pace chooses, and by the next one if it turns out to be none.
    async fn paced(
        &self,
        trip: &Trip<'_>,
        passing: &Passing<'_>,
        timings: &mut Timings,
    ) -> Result<Report, NotNow> {
        for _ in 1..EXITS {
            let pass = self.admit(trip.plan, passing).await?;
            let exit = pass.exit.clone();
            match (self.depart(trip, Some((passing, pass)), timings).await, exit) {
                // Nothing was asked of the receiver: there is nothing to observe.
                (Departed::Fault(why), Some(exit)) => {
                    passing.pace.exit_failed(&exit, &why, self.world.clock.now());
                }
                (Departed::Fault(_), None) => {}
                (Departed::Sent(report), _) => return Ok(report),
            }
        }
        let until = self.world.clock.now() + NO_EXIT_PAUSE;
        Err(NotNow::new(until, "no way out can be used"))
    }

    /// A pass for a new connection. If connections stand in the way, idle ones make room: one to the same servers,
    /// then the one that was idle for longest.
    async fn admit(&self, plan: &Plan, passing: &Passing<'_>) -> Result<Pass, NotNow> {
        let ask = || passing.pace.admit(passing.departure, self.world.clock.now());
        let refused = match ask() {
            Err(refused) if refused.connections => refused,
            answer => return answer,
        };
        for same_servers in [true, false] {
            let to_these = |key: &Key| plan.attempts.iter().any(|to| to.target.address == key.address);
            if let Some(idle) = self.pool.take_oldest(|key| !same_servers || to_these(key)) {
                idle.quit().await;
                if let Ok(pass) = ask() {
                    return Ok(pass);
                }
            }
        }
        Err(refused)
    }

    /// On a new connection, which carries the pass from here on.
    async fn depart(
        &self,
        trip: &Trip<'_>,
        paced: Option<(&Passing<'_>, Pass)>,
        timings: &mut Timings,
    ) -> Departed {
        let Trip { destination, rule, plan, transaction, .. } = trip;
        let exit = paced.as_ref().and_then(|(_, pass)| pass.exit.clone());
        let relays = self.relays.as_ref().unwrap_or(&self.client);
        let mut client = match rule.via() {
            Via::Mx => self.client.clone(),
            Via::LmtpSocket(path) => {
                relays.clone().with_connector(Arc::new(UnixConnector::new(path.clone())))
            }
            Via::SmartHost { .. } | Via::Lmtp { .. } => relays.clone(),
        };
        let mut by_exit = None;
        let mut attempts = plan.attempts.clone();
        if let Some(exit) = &exit {
            let connector = Arc::new(ByExit::new(client.connector().clone(), exit.clone()));
            client = client.with_connector(connector.clone());
            by_exit = Some(connector);
            attempts = attempts_by(exit, &attempts);
        }
        let told = match (&self.watch, destination) {
            (Some(watch), Host::Domain(domain)) if *rule.via() == Via::Mx => {
                Some(Told { watch: &**watch, domain, found: &plan.found })
            }
            _ => None,
        };
        let watch = told.as_ref().map(|told| told as &dyn Watch);
        let sent = client.deliver_timed(&attempts, transaction.clone(), watch).await;
        let (mut report, connection) = (sent.report, sent.connection);
        *timings += sent.timings;
        self.learn(trip, &mut report);
        if let (None, Some(fault)) = (&connection, by_exit.and_then(|by_exit| by_exit.fault())) {
            return Departed::Fault(fault);
        }
        if let Some((passing, _)) = &paced {
            passing.observe(exit.as_deref(), true, &report);
        }
        if let Some(mut connection) = connection {
            if let Some((_, pass)) = paced {
                connection.attach(pass);
            }
            self.keep(trip, connection).await;
        }
        Departed::Sent(report)
    }

    /// What a new connection says about our configuration: that the account was refused, or that there is none. That is
    /// no fault of the mail's, which waits; the operator is told.
    fn learn(&self, trip: &Trip<'_>, report: &mut Report) {
        if *trip.rule.via() != Via::Mx {
            report.statuses.iter_mut().filter(|status| wants_login(status)).for_each(|status| {
                status.outcome = Outcome::Delayed;
                status.status = EnhancedStatus::known(4, 7, 0);
            });
        }
        let Some((account, login)) = trip.rule.account().zip(trip.plan.login.as_ref()) else { return };
        let now = self.world.clock.now();
        if let (Some(until), Some(status)) = (account.learn(&login.id, report, now), report.statuses.first())
        {
            let (account, user) = (login.id.name(), login.id.user());
            self.observers.tell(Event::LoginRefused { account, user, status, until });
        }
    }

    /// Keeps a connection for the next message, unless it had as many as its pass allows.
    async fn keep(&self, trip: &Trip<'_>, connection: Connection) {
        let most = connection.attached::<Pass>().and_then(|pass| pass.messages);
        if most.is_some_and(|most| connection.transactions() >= most) {
            return connection.quit().await;
        }
        let target = connection.target();
        if let Some(attempt) = trip.plan.attempts.iter().find(|attempt| attempt.target == *target) {
            let key = key(trip.destination, trip.rule, trip.plan, attempt, &trip.way);
            self.pool.put(&key, connection);
        }
    }
}

/// Whether a server wants a login or TLS before it takes mail from anybody (RFC 4954 6, RFC 3207 4).
fn wants_login(status: &DeliveryStatus) -> bool {
    let code = match &status.diagnostic {
        Diagnostic::Smtp(reply) => reply.code().get(),
        Diagnostic::Local(_) => return false,
    };
    status.outcome == Outcome::Failed && matches!(code, 530 | 534 | 535 | 538)
}

fn exit_of(connection: &Connection) -> Option<&Exit> {
    connection.attached::<Pass>()?.exit.as_deref()
}

//! The loop that asks the scheduler what to do and has it done.
//!
//! Invariant: it owns every task that it starts; at most [`Settings::connections`](crate::Settings) run at a time,
//! and when it returns none is left. A message whose attempt is cut off stays in the spool.
//!
//! Not here: what is done with a message (pipeline.rs).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::Timestamp;
use postwright_queue::scheduler::{Attempt, Effect, Next, RouteQuery, Site, Taken};
use postwright_queue::{Change, Item, Scan, SpoolError, Want};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::leases;
use crate::pipeline::{self, Brought};
use crate::system::System;
use crate::{Event, NotNow, RouteRule, ViaError};

/// How often idle connections are looked at.
const TIDY: Duration = Duration::from_secs(5);
/// No timer is shorter: it would only spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// How long a domain that DNS says nothing of is taken for a site of its own.
const UNROUTED: Duration = Duration::from_secs(60);
/// What an exclusive spool is asked for, a page at a time.
const EVERYTHING: Want = Want { limit: 1000, horizon: Duration::MAX };

/// Reads the queue and works on it until `stop` resolves; then finishes what runs, within the drain time.
pub(crate) async fn run(system: Arc<System>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        biased;
        () = &mut stop => return,
        () = restore_orders(&system) => {}
    }
    let mut tasks = JoinSet::new();
    let mut chores = JoinSet::new();
    // Beside it: a long queue is read while what was read is delivered already.
    let mut keepers = JoinSet::new();
    let keeper = system.clone();
    keepers.spawn(async move {
        load(&keeper).await;
        leases::keep(&keeper).await;
    });
    let mut tidy = interval(TIDY);
    loop {
        let until = start_due(&system, &mut tasks);
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note(ended),
            () = system.wake.notified() => {}
            () = wait(&system, until) => {}
            // Never inline: a server that does not answer QUIT must not hold up the others.
            _ = tidy.tick(), if chores.is_empty() => {
                let system = system.clone();
                chores.spawn(async move { look_around(&system).await });
            }
            Some(_) = chores.join_next(), if !chores.is_empty() => {}
        }
    }
    let drained = async {
        while let Some(ended) = tasks.join_next().await {
            note(ended);
        }
        system.delivery.tidy(true).await;
    };
    // What is left after this is cut off; its messages are tried again after the next start.
    let _ = timeout(system.settings.drain_timeout, drained).await;
    tasks.shutdown().await;
    chores.shutdown().await;
    keepers.shutdown().await;
}

/// What has to be done now and then.
async fn look_around(system: &System) {
    if !system.leases.are_shared()
        && let Err(error) = claim(system, EVERYTHING).await
    {
        system.spool_failed("looking for revived messages", &error);
    }
    system.delivery.tidy(false).await;
    if let Some(feedback) = system.feedback.clone() {
        let now = system.world.clock.now();
        // It reads and writes a disk.
        note(tokio::task::spawn_blocking(move || feedback.tidy(now)).await);
    }
}

/// Starts all that is due while there is room; says when to look again, if a time is known.
fn start_due(system: &Arc<System>, tasks: &mut JoinSet<()>) -> Option<Timestamp> {
    if !system.leases.are_good(system.world.clock.mono()) {
        // Whoever renews them wakes us.
        return None;
    }
    while tasks.len() < system.settings.connections.max(1) {
        let now = system.world.clock.now();
        let next = system.scheduler().poll(now);
        match next {
            Next::Route(query) => {
                let system = system.clone();
                tasks.spawn(async move { route(&system, &query).await });
            }
            Next::Attempt(attempt) => {
                let system = system.clone();
                tasks.spawn(async move {
                    let attempted = pipeline::attempt(&system, &attempt).await;
                    pipeline::settle(&system, attempt, attempted).await;
                });
            }
            Next::Settle(settlement) => {
                let system = system.clone();
                let again = vec![Effect::Settle(*settlement)];
                tasks.spawn(async move { pipeline::carry_out(&system, again, Brought::default()).await });
            }
            Next::Wait { until } => return until,
        }
    }
    None
}

/// Finds out to which site a lane's mail goes. Where DNS does not say, the domain is a site of its own for a short
/// time; the attempt finds out what that means for its messages. A way that an operator bound it to is the pool of
/// its site: [`rule_of`] reads it there.
async fn route(system: &System, query: &RouteQuery) {
    let (host, bound) = (&query.lane.host, query.bound_to.as_deref());
    let site = match rule(system, bound, &query.lane.route) {
        Ok(rule) => system.delivery.site(host, &rule).await,
        // The attempt says so. Nothing goes the usual way that must not go there.
        Err(_) => None,
    };
    let (name, known_for) = match site {
        Some(name) => (name, system.settings.route_cache),
        None => (host.to_string(), system.settings.route_cache.min(UNROUTED)),
    };
    let now = system.world.clock.now();
    let site = Site { pool: bound.unwrap_or_default().into(), name: name.into() };
    system.scheduler().routed(query.id, site, now + known_for);
}

/// The route that mail is bound to by an operator, or else the one that its lane was made for.
fn rule(system: &System, bound: Option<&str>, route: &str) -> Result<Arc<RouteRule>, ViaError> {
    let routes = system.delivery.routes();
    match bound.filter(|bound| !bound.is_empty()) {
        None => Ok(routes.of_lane(route).clone()),
        Some(bound) => match routes.named(bound) {
            Some(rule) => Ok(rule.clone()),
            None => bound.parse().map(|via| Arc::new(RouteRule::new(via))),
        },
    }
}

/// The route of an attempt.
///
/// # Errors
/// It is bound to something that is none: it waits until that order is taken back or ends, and up to a minute more.
pub(crate) fn rule_of(system: &System, attempt: &Attempt) -> Result<Arc<RouteRule>, NotNow> {
    let bound = attempt.site.as_ref().map(|site| &*site.pool);
    rule(system, bound, &attempt.lane.route).map_err(|error| {
        let until = system.world.clock.now() + UNROUTED;
        NotNow::new(
            until,
            format!("bound to {:?}, which is no route's name and {error}", bound.unwrap_or_default()),
        )
    })
}

/// All messages of an exclusive spool go to the scheduler, a page at a time. A shared one is never read as a whole.
async fn load(system: &System) {
    let mut messages = 0;
    while !system.leases.are_shared() {
        match claim(system, EVERYTHING).await {
            Ok(0) => break,
            Ok(claimed) => messages += claimed,
            Err(error) => {
                system.spool_failed("reading the queue", &error);
                sleep(system.settings.spool_pause).await;
            }
        }
        system.wake.notify_one();
    }
    let damaged = usize::try_from(system.spool.health().quarantined).unwrap_or(usize::MAX);
    system.observers.tell(Event::Loaded { messages, damaged });
}

async fn restore_orders(system: &System) {
    while let Err(error) = read_orders(system).await {
        system.spool_failed("reading the operator's orders", &error);
        sleep(system.settings.spool_pause).await;
    }
}

/// Puts the orders that are stored in force; those that are already stay as they are.
pub(crate) async fn read_orders(system: &System) -> Result<(), SpoolError> {
    let page = system.spool.scan(Scan::Controls).await?;
    let now = system.world.clock.now();
    let mut effects = Vec::new();
    for item in page.items {
        if let Item::Control { key, value } = item {
            match system.scheduler().restore_order(&key, &value, now) {
                Ok(wanted) => effects.extend(wanted),
                Err(error) => {
                    let what = format!("the order {key:?} cannot be read and has no effect: {error}");
                    system.observers.tell(Event::Damaged { what: &what });
                }
            }
        }
    }
    pipeline::carry_out(system, effects, Brought::default()).await;
    Ok(())
}

/// Takes over messages that nobody works on: of an exclusive spool all of them at the start, later what a recovery
/// revived; of a shared one what is due soon. What turns out to be done is removed.
pub(crate) async fn claim(system: &System, want: Want) -> Result<usize, SpoolError> {
    let now = system.world.clock.now();
    let claimed = system.spool.claim(want, now).await?;
    let mut done = Vec::new();
    {
        let mut scheduler = system.scheduler();
        for one in &claimed {
            // An exclusive spool hands each message out once: nothing of it is to be left alone.
            let is_done = match system.leases.are_shared() {
                true => scheduler.take(one, now) == Taken::Done,
                false => !scheduler.contains(one.claim.id) && !scheduler.restore(one, now),
            };
            if is_done {
                done.push(Change::Remove { claim: one.claim });
            }
        }
    }
    if !done.is_empty() {
        system.spool.commit(done).await?;
    }
    system.wake.notify_one();
    Ok(claimed.len())
}

/// Until a moment of the world's clock; for ever if there is none.
async fn wait(system: &System, until: Option<Timestamp>) {
    match until {
        Some(until) => sleep(until.since(system.world.clock.now()).max(SHORTEST_WAIT)).await,
        None => std::future::pending().await,
    }
}

/// A task that panicked has lost its attempt; its message is tried again after the next start.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a delivery task panicked; its message stays in the spool");
    }
}

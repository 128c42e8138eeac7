//! The loop that asks the scheduler what to do and has it done.
//!
//! Invariant: it owns every task that it starts; at most [`Settings::connections`](crate::Settings) run at a time,
//! and when it returns none is left. A message whose attempt is cut off stays in the spool.
//!
//! Not here: what is done with a message (pipeline.rs).

use std::sync::Arc;
use std::time::Duration;

use postwright_core::Timestamp;
use postwright_queue::scheduler::{Effect, Next, RouteQuery, Site};
use postwright_queue::{Change, Item, Scan, SpoolError, Want};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::Event;
use crate::pipeline;
use crate::routes::Via;
use crate::system::System;

/// How often idle connections are looked at.
const TIDY: Duration = Duration::from_secs(5);
/// No timer is shorter: it would only spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// Messages that are claimed at a time.
const CLAIM: usize = 1000;

/// Reads the queue and works on it until `stop` resolves; then finishes what runs, within the drain time.
pub(crate) async fn run(system: Arc<System>, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        biased;
        () = &mut stop => return,
        () = load(&system) => {}
    }
    let mut tasks = JoinSet::new();
    let mut chores = JoinSet::new();
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
}

/// What has to be done now and then.
async fn look_around(system: &System) {
    if let Err(error) = claim(system).await {
        system.spool_failed("looking for revived messages", &error);
    }
    system.delivery.tidy(false).await;
}

/// Starts all that is due while there is room; says when to look again, if a time is known.
fn start_due(system: &Arc<System>, tasks: &mut JoinSet<()>) -> Option<Timestamp> {
    while tasks.len() < system.settings.connections.max(1) {
        let now = system.world.clock.now();
        let next = system.scheduler().poll(now);
        match next {
            Next::Route(query) => route(system, &query),
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
                tasks.spawn(async move { pipeline::carry_out(&system, again, None).await });
            }
            Next::Wait { until } => return until,
        }
    }
    None
}

/// A smart host is one site for all its domains; otherwise each domain is its own.
fn route(system: &System, query: &RouteQuery) {
    let name = match system.delivery.via(&query.lane.host) {
        Via::Mx => query.lane.host.to_string(),
        Via::SmartHost { host, port, .. } => format!("{host}:{port}"),
    };
    let now = system.world.clock.now();
    let site = Site { pool: "".into(), name: name.into() };
    system.scheduler().routed(query.id, site, now + system.settings.route_cache);
}

/// Everything that is in the spool goes to the scheduler: first the operator's orders, then the messages.
async fn load(system: &System) {
    restore_orders(system).await;
    let mut messages = 0;
    loop {
        match claim(system).await {
            Ok(0) => break,
            Ok(claimed) => messages += claimed,
            Err(error) => {
                system.spool_failed("reading the queue", &error);
                sleep(system.settings.spool_pause).await;
            }
        }
    }
    let damaged = usize::try_from(system.spool.health().quarantined).unwrap_or(usize::MAX);
    system.observers.tell(Event::Loaded { messages, damaged });
}

async fn restore_orders(system: &System) {
    let page = loop {
        match system.spool.scan(Scan::Controls).await {
            Ok(page) => break page,
            Err(error) => {
                system.spool_failed("reading the operator's orders", &error);
                sleep(system.settings.spool_pause).await;
            }
        }
    };
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
    pipeline::carry_out(system, effects, None).await;
}

/// Takes over messages that nobody works on: all of them at the start, later what a recovery of the spool revived.
/// What turns out to be done is removed.
async fn claim(system: &System) -> Result<usize, SpoolError> {
    let now = system.world.clock.now();
    let claimed = system.spool.claim(now, Want { limit: CLAIM, horizon: Duration::MAX }).await?;
    let mut done = Vec::new();
    {
        let mut scheduler = system.scheduler();
        for one in &claimed {
            if !scheduler.contains(one.claim.id) && !scheduler.restore(one, now) {
                done.push(Change::Remove { claim: one.claim });
            }
        }
    }
    if !done.is_empty() {
        system.spool.commit(done).await?;
    }
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

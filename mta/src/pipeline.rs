//! One message, door to door: [`take_in`], [`attempt`], [`settle`].
//!
//! ```text
//! server --> take_in: loop guard, stamp, policies, reserve, commit (durable), admit; then 250
//!                          |
//!                      scheduler: due, routed, its turn
//!                          |
//!            attempt: load, deliver, one status a recipient
//!                          |
//!             settle: the outcome and its notification in one commit, then tell
//! ```
//!
//! Invariants: I1, nothing is acknowledged before `commit` came back; I2, a recipient's end and the notification
//! about it are one commit, so that a crash leaves both or neither; a failed commit is tried again by the
//! scheduler, and the notification has the same id each time.
//!
//! Standards: RFC 5321 4.2.5, 4.4, 6.1, 6.3; RFC 3461.
//!
//! Not here: when an attempt is due (queue), who is tried (pipeline/deliver.rs) and how (delivery.rs), what a
//! notification is (pipeline/notices.rs), the loop that calls this (dispatch.rs).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Cause, DeliveryStatus, EnhancedStatus, Envelope, Message, Phase, Refusal, Timestamp};
use postwright_queue::scheduler::{Attempt, AttemptResult, Effect, Report, Scope, Settlement, Slot, Task};
use postwright_queue::{Change, Entry, Loaded, SpoolError, SpoolId};
use postwright_smtp_proto::client::Timings;

use crate::bodies::Held;
use crate::guard::{Panicked, guarded};
use crate::received::Trace;
use crate::system::System;
use crate::{Event, NotNow, Visit};

mod deliver;
mod notices;
mod tell;

/// Who hands a message in, and how.
pub(crate) struct Arrival<'a> {
    pub(crate) peer: SocketAddr,
    pub(crate) hello: Option<&'a str>,
    /// The keyword for `with` (RFC 3848).
    pub(crate) with: &'a str,
    /// Whether we originate what it sends.
    pub(crate) trusted: bool,
}

/// Makes a message ours, or says why not. When this returns an id, the message would survive a power cut.
pub(crate) async fn take_in(
    system: &Arc<System>,
    arrival: Arrival<'_>,
    envelope: &Envelope,
    message: Message,
) -> Result<SpoolId, Refusal> {
    refuse_hopeless(system, envelope, &message)?;
    // What it says of itself from now on.
    let now = system.world.clock.now();
    let id = SpoolId::new(now, &*system.world.entropy);
    let mut body = message.prepend(trace(system, &arrival, envelope, id, now).field());
    // What the embedder wants of it: verdicts, signatures, a refusal.
    let visit = Visit { peer: arrival.peer, hello: arrival.hello, trusted: arrival.trusted };
    for policy in &system.policies {
        body = policy.apply(visit, envelope, body).await?;
    }
    // Room in the queue, as long as it can still be refused.
    let slot = system.scheduler().reserve().map_err(|_| queue_full())?;
    let lifetime = system.settings.retry_policy().lifetime;
    let mut entry = Entry::new(id, envelope.clone(), octets(&body), lifetime, now);
    system.classes.mark(&visit, &mut entry);
    if let (Some(feedback), true) = (&system.feedback, arrival.trusted) {
        feedback.mark(&mut entry);
    }
    // From here on it goes to its end even if whoever waits for the answer gives up: a message that became durable
    // and that nobody works on would be lost until the next start.
    let (owner, peer) = (system.clone(), arrival.peer);
    let stored = tokio::spawn(async move { store(&owner, peer, slot, entry, body).await });
    stored.await.unwrap_or_else(|_| Err(SpoolError::Closed.refusal()))?;
    Ok(id)
}

/// What could only come back: nobody to go to, or round in circles (RFC 5321 6.3).
fn refuse_hopeless(system: &System, envelope: &Envelope, message: &Message) -> Result<(), Refusal> {
    if envelope.recipients.is_empty() {
        return Err(Refusal::known(554, EnhancedStatus::known(5, 5, 1), "No valid recipients"));
    }
    if postwright_bounce::is_looping(message, system.settings.hops) {
        let text = "Too many hops: this message is in a loop";
        return Err(Refusal::known(554, EnhancedStatus::known(5, 4, 6), text));
    }
    Ok(())
}

/// Commits a message and hands it to the scheduler.
async fn store(
    system: &System,
    peer: SocketAddr,
    slot: Slot,
    entry: Entry,
    body: Message,
) -> Result<(), Refusal> {
    let put = Change::Put { entry: entry.clone(), body };
    let claims = system.spool.commit(vec![put]).await.map_err(|error| {
        system.spool_failed("accepting a message", &error);
        error.refusal()
    })?;
    if let Some(claim) = claims.into_iter().next() {
        system.admit(slot, claim, &entry);
    }
    system.observers.tell(Event::Accepted {
        id: entry.id,
        peer: Some(peer),
        reverse_path: &entry.envelope.reverse_path,
        recipients: entry.envelope.recipients.len(),
        octets: usize::try_from(entry.size).unwrap_or(usize::MAX),
    });
    Ok(())
}

fn trace<'a>(
    system: &'a System,
    arrival: &Arrival<'a>,
    envelope: &'a Envelope,
    id: SpoolId,
    at: Timestamp,
) -> Trace<'a> {
    let only_recipient = match &envelope.recipients[..] {
        [only] => Some(&only.mailbox),
        _ => None,
    };
    let (hello, peer, by, with) = (arrival.hello, arrival.peer.ip(), &system.hostname, arrival.with);
    Trace { hello, peer, by, with, id, only_recipient, at }
}

/// What an attempt brought, with the message it was about, if it was read.
pub(crate) struct Attempted {
    pub(crate) result: AttemptResult,
    brought: Brought,
    /// The room that the body takes, until it is settled.
    held: Option<Held>,
}

impl Attempted {
    fn without_body(result: AttemptResult) -> Attempted {
        Attempted { result, brought: Brought::default(), held: None }
    }
}

/// What an attempt leaves for settling it, as far as there is any.
#[derive(Clone, Default)]
pub(crate) struct Brought {
    body: Option<Message>,
    timings: Option<Timings>,
}

/// Does what the scheduler asks for: mostly, delivers to some recipients of one message. Whatever happens, the
/// attempt is given back; a panic on the way costs the message a pause.
pub(crate) async fn attempt(system: &System, attempt: &Attempt) -> Attempted {
    let carried = guarded(Box::pin(carry(system, attempt))).await.unwrap_or_else(|Panicked| {
        let until = system.world.clock.now() + system.settings.retry.first;
        let because = "the last attempt ended in a fault of this system".into();
        Err(AttemptResult::Postponed { until, scope: Scope::Message, because })
    });
    carried.unwrap_or_else(Attempted::without_body)
}

/// Reads the message and delivers it; what ends earlier is the error.
async fn carry(system: &System, attempt: &Attempt) -> Result<Attempted, AttemptResult> {
    let (Loaded { entry, body, .. }, held) = load(system, attempt).await?;
    let (statuses, timings) = match attempt.task {
        Task::Deliver => {
            let delivered = deliver::to_the_open(system, attempt, &entry, body.clone()).await;
            delivered.map_err(|NotNow { until, because, .. }| AttemptResult::Postponed {
                until,
                scope: Scope::Lane,
                because,
            })?
        }
        // Nobody is tried; settling says what there is to tell.
        Task::Expire | Task::Warn | Task::Cancel => (Vec::new(), None),
    };
    let result = AttemptResult::Finished { entry: Box::new(entry), statuses };
    Ok(Attempted { result, brought: Brought { body: Some(body), timings }, held: Some(held) })
}

/// Reads a message from the spool, when there is room for it.
async fn load(system: &System, attempt: &Attempt) -> Result<(Loaded, Held), AttemptResult> {
    // I3: one that waits for room must not outlive its message. What is to be told of an end waits as long as it takes.
    let patience = match attempt.task {
        Task::Deliver => attempt.deadline.since(system.world.clock.now()),
        Task::Expire | Task::Warn | Task::Cancel => Duration::MAX,
    };
    match tokio::time::timeout(patience, system.bodies.load(&*system.spool, attempt.id)).await {
        Ok(loaded) => loaded.map_err(|error| unreadable(system, attempt, &error)),
        Err(_) => {
            let (until, because) = (system.world.clock.now(), "there was no memory for it".into());
            Err(AttemptResult::Postponed { until, scope: Scope::Message, because })
        }
    }
}

fn unreadable(system: &System, attempt: &Attempt, error: &SpoolError) -> AttemptResult {
    match error {
        SpoolError::NotFound(_) | SpoolError::Damaged(_) => {
            system.observers.tell(Event::Damaged { what: &error.to_string() });
            AttemptResult::Lost
        }
        _ => {
            system.spool_failed("reading a message", error);
            AttemptResult::Postponed {
                until: system.world.clock.now() + system.settings.spool_pause,
                scope: Scope::Message,
                because: format!("the spool cannot read it: {error}; message {}", attempt.id).into(),
            }
        }
    }
}

/// Makes what an attempt brought durable, together with the notifications about it, and tells of it.
pub(crate) async fn settle(system: &System, attempt: Attempt, attempted: Attempted) {
    let recipients = attempt.recipients.clone();
    let effects = system.scheduler().record(attempt, attempted.result, system.world.clock.now());
    for effect in &effects {
        if let Effect::Settle(settlement) = effect {
            tell::deferrals(system, settlement, &recipients, attempted.brought.timings.as_ref());
        }
    }
    carry_out(system, effects, attempted.brought).await;
    drop(attempted.held);
}

/// Commits what the scheduler asks for, and what it asks for in turn, until it asks for nothing more.
pub(crate) async fn carry_out(system: &System, effects: Vec<Effect>, brought: Brought) {
    let mut effects = VecDeque::from(effects);
    while let Some(effect) = effects.pop_front() {
        match effect {
            Effect::Settle(settlement) => effects.extend(commit(system, settlement, brought.clone()).await),
            Effect::Store(change) => {
                if let Err(error) = system.spool.commit(vec![change]).await {
                    system.spool_failed("storing a change", &error);
                }
            }
        }
    }
    system.wake.notify_one();
}

/// Commits a settlement with its notifications. After a failure the scheduler brings it again in a moment.
async fn commit(system: &System, settlement: Settlement, brought: Brought) -> Vec<Effect> {
    let Brought { body, timings } = brought;
    let (id, entry, reports) = (settlement.id, settlement.entry.clone(), settlement.reports.clone());
    let committed = async {
        let notices = notices::notices(system, &settlement, body).await?;
        let puts = notices
            .iter()
            .map(|notice| Change::Put { entry: notice.entry.clone(), body: notice.body.clone() });
        let changes = puts.chain([settlement.change]).collect();
        let claims = system.spool.commit(changes).await?;
        Ok::<_, SpoolError>((notices, claims))
    };
    let committed = guarded(committed).await;
    let fault = |Panicked| Err(SpoolError::Unavailable("a fault of this system".into()));
    let committed = committed.unwrap_or_else(fault);
    let result = match committed {
        Err(error) => {
            system.spool_failed("settling a message", &error);
            Err(error)
        }
        Ok((notices, claims)) => {
            tell::outcomes(system, id, &entry, &reports, timings.as_ref());
            for (notice, claim) in notices.into_iter().zip(claims) {
                tell::notice(system, &notice, id);
                let slot = system.scheduler().reserve_notice();
                system.admit(slot, claim, &notice.entry);
            }
            Ok(())
        }
    };
    system.scheduler().settled(id, result, system.world.clock.now())
}

/// What became of a recipient, as the last attempt had it.
fn last_status(entry: &Entry, report: &Report, now: Timestamp) -> DeliveryStatus {
    let last = entry.progress.get(report.recipient).and_then(|progress| progress.last.clone());
    last.unwrap_or_else(|| expired(now))
}

/// Its time was up before anything else was said.
fn expired(now: Timestamp) -> DeliveryStatus {
    DeliveryStatus::local(EnhancedStatus::known(4, 4, 7), Cause::Expired, Phase::Resolve, now)
}

fn octets(message: &Message) -> u64 {
    u64::try_from(message.len()).unwrap_or(u64::MAX)
}

fn queue_full() -> Refusal {
    Refusal::known(452, EnhancedStatus::known(4, 3, 1), "The queue is full, try again later")
}

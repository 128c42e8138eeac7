//! One message, door to door: [`take_in`], [`attempt`], [`settle`].
//!
//! ```text
//! server --> take_in: loop guard, stamp, reserve, commit (durable), 250, admit
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
//! Not here: when an attempt is due (queue), how it is made (delivery.rs), the loop that calls this (dispatch.rs).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_bounce::dsn::{Action, DsnId, Fate, Original};
use postwright_core::{
    Cause, DeliveryStatus, Diagnostic, EnhancedStatus, Envelope, Message, Phase, Recipient, Refusal,
    ReversePath, Timestamp,
};
use postwright_queue::scheduler::{
    Attempt, AttemptResult, Effect, Report, ReportEvent, Scope, Settlement, Slot, Task,
};
use postwright_queue::{Change, Entry, Progress, SpoolError, SpoolId};
use postwright_smtp_proto::client::Timings;

use crate::bodies::Held;
use crate::delivery::{Delivered, Pacing, SoFar};
use crate::dispatch;
use crate::feedback::{Gate, return_path};
use crate::guard::{Panicked, guarded};
use crate::received::Trace;
use crate::system::System;
use crate::{Event, NotNow, Visit};

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
    if envelope.recipients.is_empty() {
        return Err(Refusal::known(554, EnhancedStatus::known(5, 5, 1), "No valid recipients"));
    }
    if postwright_bounce::is_looping(&message, system.settings.hops) {
        return Err(Refusal::known(
            554,
            EnhancedStatus::known(5, 4, 6),
            "Too many hops: this message is in a loop",
        ));
    }
    let now = system.world.clock.now();
    let id = SpoolId::new(now, &*system.world.entropy);
    let mut body = message.prepend(trace(system, &arrival, envelope, id, now).field());
    let visit = Visit { peer: arrival.peer, hello: arrival.hello, trusted: arrival.trusted };
    for policy in &system.policies {
        body = policy.apply(visit, envelope, body).await?;
    }
    let slot = system.scheduler().reserve().map_err(|_| queue_full())?;
    let mut entry =
        Entry::new(id, envelope.clone(), octets(&body), now, system.settings.retry_policy().lifetime);
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
    guarded(Box::pin(carry(system, attempt))).await.unwrap_or_else(|Panicked| {
        let until = system.world.clock.now() + system.settings.retry.first;
        let because = "the last attempt ended in a fault of this system".into();
        Attempted::without_body(AttemptResult::Postponed { until, scope: Scope::Message, because })
    })
}

async fn carry(system: &System, attempt: &Attempt) -> Attempted {
    let now = system.world.clock.now();
    // I3: one that waits for room must not outlive its message. What is to be told of an end waits as long as it takes.
    let patience = match attempt.task {
        Task::Deliver => attempt.deadline.since(now),
        Task::Expire | Task::Warn | Task::Cancel => Duration::MAX,
    };
    let load = system.bodies.load(&*system.spool, attempt.id);
    let (loaded, held) = match tokio::time::timeout(patience, load).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(error)) => return Attempted::without_body(unreadable(system, attempt, &error)),
        Err(_) => {
            let (until, because) = (system.world.clock.now(), "there was no memory for it".into());
            let result = AttemptResult::Postponed { until, scope: Scope::Message, because };
            return Attempted::without_body(result);
        }
    };
    let (statuses, timings) = match attempt.task {
        Task::Deliver => match gated(system, attempt, &loaded.entry, loaded.body.clone()).await {
            Ok(brought) => brought,
            Err(NotNow { until, because, .. }) => {
                let result = AttemptResult::Postponed { until, scope: Scope::Lane, because };
                return Attempted::without_body(result);
            }
        },
        Task::Expire | Task::Warn | Task::Cancel => (Vec::new(), None),
    };
    let result = AttemptResult::Finished { entry: Box::new(loaded.entry), statuses };
    Attempted { result, brought: Brought { body: Some(loaded.body), timings }, held: Some(held) }
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

/// The statuses of an attempt, and where its time went, if a way was taken at all.
type Fates = (Vec<DeliveryStatus>, Option<Timings>);

/// Delivers to those who are not on the suppression list; the others have failed.
async fn gated(system: &System, attempt: &Attempt, entry: &Entry, body: Message) -> Result<Fates, NotNow> {
    let gate = Gate::of(system, entry, &attempt.recipients);
    if gate.open.is_empty() {
        return Ok((gate.join(Vec::new()), None));
    }
    let (statuses, timings) = leased(system, attempt, &gate.open, entry, body).await?;
    Ok((gate.join(statuses), timings))
}

/// Delivers for as long as the message is ours. I4: on a shared spool another node may attempt it after that.
async fn leased(
    system: &System,
    attempt: &Attempt,
    recipients: &[usize],
    entry: &Entry,
    body: Message,
) -> Result<Fates, NotNow> {
    tokio::select! {
        biased;
        statuses = deliver(system, attempt, recipients, entry, body) => statuses,
        () = system.leases.ended(system) => {
            let until = system.world.clock.now() + system.settings.spool_pause;
            Err(NotNow::new(until, "the lease ended before the attempt did"))
        }
    }
}

/// One status for each of these recipients. What the spool says has ended is not attempted again, whatever
/// the scheduler knew; its status counts for nothing.
async fn deliver(
    system: &System,
    attempt: &Attempt,
    asked: &[usize],
    entry: &Entry,
    body: Message,
) -> Result<Fates, NotNow> {
    let is_pending = |index: &usize| entry.progress.get(*index).is_some_and(|progress| progress.is_pending());
    let recipients: Vec<Recipient> = asked
        .iter()
        .filter(|index| is_pending(index))
        .filter_map(|index| entry.envelope.recipients.get(*index).cloned())
        .collect();
    let envelope = Envelope {
        reverse_path: return_path(system, entry, &body),
        recipients,
        options: entry.envelope.options.clone(),
    };
    let clock = &system.world.clock;
    // I3: an attempt that would outlive the message is given up.
    let left = attempt.deadline.since(clock.now());
    let (statuses, timings) = if envelope.recipients.is_empty() {
        (Vec::new(), None)
    } else {
        let count = envelope.recipients.len();
        let pacing = pacing(system, attempt, entry.size);
        let via = dispatch::way(system, attempt)?;
        let delivery = system.delivery.deliver(&attempt.lane.host, &via, envelope, body, pacing.as_ref());
        let ended = tokio::time::timeout(left, delivery).await;
        if let (Some(feedback), Some(pacing)) = (&system.feedback, &pacing)
            && let Some(trail) = pacing.so_far().trail.take()
        {
            feedback.took(entry, pacing.domain, &trail);
        }
        match ended {
            Ok(delivered) => {
                let Delivered { statuses, timings } = delivered?;
                (statuses, Some(timings))
            }
            Err(_) => {
                let known = pacing.as_ref().map(|pacing| std::mem::take(&mut pacing.so_far().statuses));
                let mut known = known.unwrap_or_default();
                known.resize(count, expired(clock.now()));
                (known, None)
            }
        }
    };
    let mut statuses = statuses.into_iter();
    let status = |index: &usize| if is_pending(index) { statuses.next() } else { Some(expired(clock.now())) };
    Ok((asked.iter().map_while(status).collect(), timings))
}

/// The pace of an attempt, if the system keeps one.
fn pacing<'a>(system: &'a System, attempt: &'a Attempt, octets: u64) -> Option<Pacing<'a>> {
    let (pace, domain) = (system.pace.as_deref()?, attempt.lane.host.domain()?);
    let (tenant, stream) = (&*attempt.lane.tenant, &*attempt.lane.stream);
    let site = attempt.site.as_ref().map_or(domain.as_str(), |site| &*site.name);
    let so_far = Mutex::new(SoFar::default());
    Some(Pacing { pace, domain, site, tenant, stream, octets, so_far })
}

/// Makes what an attempt brought durable, together with the notifications about it, and tells of it.
pub(crate) async fn settle(system: &System, attempt: Attempt, attempted: Attempted) {
    let recipients = attempt.recipients.clone();
    let effects = system.scheduler().record(attempt, attempted.result, system.world.clock.now());
    for effect in &effects {
        if let Effect::Settle(settlement) = effect {
            tell_deferrals(system, settlement, &recipients, attempted.brought.timings.as_ref());
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
        let notices = notices(system, &settlement, body).await?;
        let puts = notices
            .iter()
            .map(|notice| Change::Put { entry: notice.entry.clone(), body: notice.body.clone() });
        let changes = puts.chain([settlement.change]).collect();
        let claims = system.spool.commit(changes).await?;
        Ok::<_, SpoolError>((notices, claims))
    };
    let committed = guarded(committed).await;
    let committed =
        committed.unwrap_or_else(|Panicked| Err(SpoolError::Unavailable("a fault of this system".into())));
    let result = match committed {
        Err(error) => {
            system.spool_failed("settling a message", &error);
            Err(error)
        }
        Ok((notices, claims)) => {
            tell_outcomes(system, id, &entry, &reports, timings.as_ref());
            for (notice, claim) in notices.into_iter().zip(claims) {
                tell_notice(system, &notice, id);
                let slot = system.scheduler().reserve_notice();
                system.admit(slot, claim, &notice.entry);
            }
            Ok(())
        }
    };
    system.scheduler().settled(id, result, system.world.clock.now())
}

/// A notification, ready to be stored.
struct Notice {
    entry: Entry,
    body: Message,
}

/// The notifications that the sender of a message is owed: none for most settlements, one for the others.
async fn notices(
    system: &System,
    settlement: &Settlement,
    body: Option<Message>,
) -> Result<Vec<Notice>, SpoolError> {
    let entry = &settlement.entry;
    let reported: Vec<(&Report, Action)> =
        settlement.reports.iter().filter_map(|report| Some((report, action(report.event)?))).collect();
    let wanted = |(report, action): &(&Report, Action)| {
        let recipient = entry.envelope.recipients.get(report.recipient);
        recipient.is_some_and(|recipient| action.is_wanted(recipient.notify))
    };
    let wanted: Vec<_> = reported.into_iter().filter(wanted).collect();
    let ReversePath::Mailbox(sender) = &entry.envelope.reverse_path else {
        if !wanted.is_empty() {
            system.observers.tell(Event::Unnotified { about: settlement.id });
        }
        return Ok(Vec::new());
    };
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let message = match body {
        Some(body) => body,
        None => {
            let (loaded, _held) = system.bodies.load(&*system.spool, settlement.id).await?;
            loaded.body
        }
    };
    let now = system.world.clock.now();
    let statuses: Vec<DeliveryStatus> =
        wanted.iter().map(|(report, _)| last_status(entry, report, now)).collect();
    let fates: Vec<Fate<'_>> = wanted
        .iter()
        .zip(&statuses)
        .filter_map(|((report, action), status)| {
            let recipient = entry.envelope.recipients.get(report.recipient)?;
            let retry_until = (*action == Action::Delayed).then_some(entry.expires);
            Some(Fate { recipient, action: *action, status, retry_until })
        })
        .collect();
    let original = Original { options: &entry.envelope.options, message: &message, arrived: entry.created };
    let mut notices = Vec::new();
    for (part, fates) in fates.chunks(system.composer.limits.recipients).enumerate() {
        let id = notice_id(entry, part);
        let Some(dsn_id) = DsnId::new(&id.to_string()) else { continue };
        // The chunks are as large as the composer takes, so that it has nothing to refuse.
        let Ok(Some(dsn)) = system.composer.compose(sender, original, fates, &dsn_id, now) else { continue };
        let lifetime = system.settings.retry_policy().lifetime;
        // Above its rate it waits, as durable as the others.
        let slot = system.storm.slot(sender, now);
        let mut entry = Entry::new(id, dsn.envelope, octets(&dsn.message), slot, lifetime);
        entry.created = now;
        notices.push(Notice { entry, body: dsn.message });
    }
    Ok(notices)
}

fn action(event: ReportEvent) -> Option<Action> {
    match event {
        ReportEvent::Delivered => Some(Action::Delivered),
        ReportEvent::Relayed => Some(Action::Relayed),
        ReportEvent::Failed | ReportEvent::Expired => Some(Action::Failed),
        ReportEvent::Delayed => Some(Action::Delayed),
        ReportEvent::Cancelled => None,
    }
}

/// The same id for the same notification, so that one that is composed twice is stored once: the message's own id,
/// moved on by how far its recipients have come. Whatever is reported moves a recipient: an attempt, a warning, or
/// its end, which may come without an attempt.
fn notice_id(entry: &Entry, part: usize) -> SpoolId {
    let moves = |progress: &Progress| {
        u128::from(progress.attempts) + u128::from(progress.warned) + u128::from(!progress.is_pending())
    };
    let moved: u128 = entry.progress.iter().map(moves).sum();
    let part = u128::try_from(part).unwrap_or(0);
    let number = u128::from_be_bytes(*entry.id.as_bytes()).wrapping_add(1 + moved * 1024 + part);
    SpoolId::from_bytes(number.to_be_bytes())
}

fn last_status(entry: &Entry, report: &Report, now: Timestamp) -> DeliveryStatus {
    let last = entry.progress.get(report.recipient).and_then(|progress| progress.last.clone());
    last.unwrap_or_else(|| expired(now))
}

fn expired(now: Timestamp) -> DeliveryStatus {
    DeliveryStatus::local(EnhancedStatus::known(4, 4, 7), Cause::Expired, Phase::Resolve, now)
}

/// The time of an attempt, for a recipient that it was made for.
fn timings_of<'a>(timings: Option<&'a Timings>, status: &DeliveryStatus) -> Option<&'a Timings> {
    let is_suppressed = matches!(status.diagnostic, Diagnostic::Local(Cause::Suppressed(_)));
    timings.filter(|_| !is_suppressed)
}

fn tell_deferrals(system: &System, settlement: &Settlement, recipients: &[usize], timings: Option<&Timings>) {
    let entry = &settlement.entry;
    for index in recipients {
        let (Some(progress), Some(recipient)) =
            (entry.progress.get(*index), entry.envelope.recipients.get(*index))
        else {
            continue;
        };
        if let (true, Some(status)) = (progress.is_pending(), &progress.last) {
            let (id, next, recipient) = (settlement.id, progress.due, &recipient.mailbox);
            let timings = timings_of(timings, status);
            system.observers.tell(Event::Deferred { id, recipient, status, next, timings });
        }
    }
}

fn tell_outcomes(system: &System, id: SpoolId, entry: &Entry, reports: &[Report], timings: Option<&Timings>) {
    let now = system.world.clock.now();
    for report in reports {
        let Some(recipient) = entry.envelope.recipients.get(report.recipient) else { continue };
        let recipient = &recipient.mailbox;
        let status = &last_status(entry, report, now);
        let attempts = entry.progress.get(report.recipient).map_or(0, |progress| progress.attempts);
        let after = now.since(entry.created);
        let timings = timings_of(timings, status);
        if let (Some(feedback), ReportEvent::Delivered | ReportEvent::Relayed | ReportEvent::Failed) =
            (&system.feedback, report.event)
        {
            feedback.ended(entry, recipient, status, now, &system.observers);
        }
        system.observers.tell(match report.event {
            ReportEvent::Delivered | ReportEvent::Relayed => {
                Event::Delivered { id, recipient, status, after, attempts, timings }
            }
            ReportEvent::Failed => Event::Bounced { id, recipient, status, timings },
            ReportEvent::Expired => Event::Expired { id, recipient, status },
            ReportEvent::Cancelled => Event::Cancelled { id, recipient },
            ReportEvent::Delayed => continue,
        });
    }
}

fn tell_notice(system: &System, notice: &Notice, about: SpoolId) {
    let id = notice.entry.id;
    for recipient in &notice.entry.envelope.recipients {
        system.observers.tell(Event::Notified { id, about, to: &recipient.mailbox });
    }
}

fn octets(message: &Message) -> u64 {
    u64::try_from(message.len()).unwrap_or(u64::MAX)
}

fn queue_full() -> Refusal {
    Refusal::known(452, EnhancedStatus::known(4, 3, 1), "The queue is full, try again later")
}

//! Between the pipeline and a delivery: who is to be tried, for how long the message is ours, what is told to whom it
//! was not handed over.
//!
//! Invariants: I3, no attempt outlives its message; I4, none goes on after the message's lease; one status for each
//! recipient that was tried, in their order.
//!
//! Not here: the way to the servers and the talk with them (mta/src/delivery.rs), the list of who is not tried (feedback).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Mutex;

use postwright_core::{
    Cause, DeliveryStatus, Diagnostic, Domain, EnhancedStatus, Envelope, Host, Message, Outcome, Recipient,
};
use postwright_queue::Entry;
use postwright_queue::scheduler::Attempt;
use postwright_smtp_proto::client::Timings;

use super::expired;
use crate::NotNow;
use crate::delivery::{Delivered, Pacing, SoFar};
use crate::dispatch;
use crate::feedback::{Gate, return_path};
use crate::system::System;

/// The statuses of an attempt, and where its time went, if a way was taken at all.
pub(super) type Fates = (Vec<DeliveryStatus>, Option<Timings>);

/// Delivers to those who are not on the suppression list; the others have failed.
pub(super) async fn to_the_open(
    system: &System,
    attempt: &Attempt,
    entry: &Entry,
    body: Message,
) -> Result<Fates, NotNow> {
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
    let pending: Vec<Recipient> = asked
        .iter()
        .filter(|index| is_pending(index))
        .filter_map(|index| entry.envelope.recipients.get(*index).cloned())
        .collect();
    let (statuses, timings) = match pending.is_empty() {
        true => (Vec::new(), None),
        false => hand_over(system, attempt, pending, entry, body).await?,
    };
    let (mut statuses, now) = (statuses.into_iter(), system.world.clock.now());
    let status = |index: &usize| if is_pending(index) { statuses.next() } else { Some(expired(now)) };
    Ok((asked.iter().map_while(status).collect(), timings))
}

/// Hands the message over to recipients that wait for it. I3: an attempt that would outlive the message is given up,
/// and what was known by then stands.
async fn hand_over(
    system: &System,
    attempt: &Attempt,
    recipients: Vec<Recipient>,
    entry: &Entry,
    body: Message,
) -> Result<Fates, NotNow> {
    let (clock, count) = (&system.world.clock, recipients.len());
    let left = attempt.deadline.since(clock.now());
    let envelope = Envelope {
        reverse_path: return_path(system, entry, &body),
        recipients,
        options: entry.envelope.options.clone(),
    };
    let rule = dispatch::rule_of(system, attempt)?;
    // What goes to a mail store has arrived: it is charged to no limit of what leaves.
    let named = domain_of(&attempt.lane.host);
    let pacing = pacing(system, attempt, named.as_deref(), entry.size).filter(|_| !rule.via().is_local());
    let delivery = system.delivery.deliver(&attempt.lane.host, &rule, envelope, body, pacing.as_ref());
    let ended = tokio::time::timeout(left, delivery).await;
    if let (Some(feedback), Some(pacing)) = (&system.feedback, &pacing)
        && let Some(trail) = pacing.so_far().trail.take()
    {
        feedback.took(entry, pacing.domain, &trail);
    }
    match ended {
        Ok(delivered) => {
            let Delivered { mut statuses, timings } = delivered?;
            if system.settings.assume_delivered {
                statuses.iter_mut().for_each(assume_delivered);
            }
            Ok((statuses, Some(timings)))
        }
        Err(_) => {
            let known = pacing.as_ref().map(|pacing| std::mem::take(&mut pacing.so_far().statuses));
            let mut known = known.unwrap_or_default();
            known.resize(count, expired(clock.now()));
            Ok((known, None))
        }
    }
}

/// Silence behind the end of a message is taken for consent, if the operator says so. A connection that was lost there is
/// not silence.
fn assume_delivered(status: &mut DeliveryStatus) {
    if status.outcome == Outcome::Unknown && matches!(status.diagnostic, Diagnostic::Local(Cause::Timeout(_)))
    {
        status.outcome = Outcome::Relayed;
        status.status = EnhancedStatus::known(2, 0, 0);
    }
}

/// The domain that a host counts as: an address literal is one of its own, such as `192.0.2.1` or `2001-db8-0-0-0-0-0-1`.
fn domain_of(host: &Host) -> Option<Cow<'_, Domain>> {
    match host {
        Host::Domain(domain) => Some(Cow::Borrowed(domain)),
        Host::Literal(IpAddr::V4(ip)) => ip.to_string().parse().ok().map(Cow::Owned),
        Host::Literal(IpAddr::V6(ip)) => {
            let parts = ip.segments().map(|part| format!("{part:x}"));
            parts.join("-").parse().ok().map(Cow::Owned)
        }
    }
}

/// The pace of an attempt, if the system keeps one.
fn pacing<'a>(
    system: &'a System,
    attempt: &'a Attempt,
    domain: Option<&'a Domain>,
    octets: u64,
) -> Option<Pacing<'a>> {
    let (pace, domain) = (system.pace.as_deref()?, domain?);
    let (tenant, stream) = (&*attempt.lane.tenant, &*attempt.lane.stream);
    let site = attempt.site.as_ref().map_or(domain.as_str(), |site| &*site.name);
    let so_far = Mutex::new(SoFar::default());
    Some(Pacing { pace, domain, site, tenant, stream, octets, so_far })
}

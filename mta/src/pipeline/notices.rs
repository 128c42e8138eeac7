//! The notifications that a settlement owes to the sender of a message, ready to be stored in the same commit.
//!
//! Invariants: none about a null sender (RFC 5321 6.1), none that the recipient's NOTIFY does not want (RFC 3461 4.1);
//! the same notification has the same id, however often it is composed.
//!
//! Standards: RFC 3461 4.1, 6; RFC 5321 6.1.
//!
//! Not here: what a notification says (bounce's `dsn`), its commit (pipeline.rs).

use postwright_bounce::dsn::{Action, DsnId, Fate, Original};
use postwright_core::{DeliveryStatus, Mailbox, Message, ReversePath};
use postwright_queue::scheduler::{Report, ReportEvent, Settlement};
use postwright_queue::{Entry, Progress, SpoolError, SpoolId};

use super::{last_status, octets};
use crate::Event;
use crate::system::System;

/// A notification, ready to be stored.
pub(super) struct Notice {
    pub(super) entry: Entry,
    pub(super) body: Message,
}

/// The notifications that the sender of a message is owed: none for most settlements, one for the others.
pub(super) async fn notices(
    system: &System,
    settlement: &Settlement,
    body: Option<Message>,
) -> Result<Vec<Notice>, SpoolError> {
    let owed = owed(settlement);
    if owed.is_empty() {
        return Ok(Vec::new());
    }
    let ReversePath::Mailbox(sender) = &settlement.entry.envelope.reverse_path else {
        system.observers.tell(Event::Unnotified { about: settlement.id });
        return Ok(Vec::new());
    };
    let message = match body {
        Some(body) => body,
        None => {
            let (loaded, _held) = system.bodies.load(&*system.spool, settlement.id).await?;
            loaded.body
        }
    };
    Ok(compose(system, &settlement.entry, &owed, sender, &message))
}

/// What is to be told, as far as the recipients' NOTIFY wants it told.
fn owed(settlement: &Settlement) -> Vec<(&Report, Action)> {
    let wanted = |report: &'_ Report| {
        let action = action(report.event)?;
        let recipient = settlement.entry.envelope.recipients.get(report.recipient)?;
        action.is_wanted(recipient.notify).then_some(action)
    };
    settlement.reports.iter().filter_map(|report| Some((report, wanted(report)?))).collect()
}

fn compose(
    system: &System,
    entry: &Entry,
    owed: &[(&Report, Action)],
    sender: &Mailbox,
    message: &Message,
) -> Vec<Notice> {
    let now = system.world.clock.now();
    let statuses: Vec<DeliveryStatus> =
        owed.iter().map(|(report, _)| last_status(entry, report, now)).collect();
    let fates: Vec<Fate<'_>> = owed
        .iter()
        .zip(&statuses)
        .filter_map(|((report, action), status)| {
            let recipient = entry.envelope.recipients.get(report.recipient)?;
            let retry_until = (*action == Action::Delayed).then_some(entry.expires);
            Some(Fate { recipient, action: *action, status, retry_until })
        })
        .collect();
    let original = Original { options: &entry.envelope.options, message, arrived: entry.created };
    let lifetime = system.settings.retry_policy().lifetime;
    let mut notices = Vec::new();
    for (part, fates) in fates.chunks(system.composer.limits.recipients).enumerate() {
        let id = notice_id(entry, part);
        let Some(dsn_id) = DsnId::new(&id.to_string()) else { continue };
        // The chunks are as large as the composer takes, so that it has nothing to refuse.
        let Ok(Some(dsn)) = system.composer.compose(sender, original, fates, &dsn_id, now) else { continue };
        // Above its rate it waits, as durable as the others.
        let slot = system.storm.slot(sender, now);
        let mut entry = Entry::new(id, dsn.envelope, octets(&dsn.message), lifetime, slot);
        entry.created = now;
        notices.push(Notice { entry, body: dsn.message });
    }
    notices
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

//! What the pipeline tells observers and feedback of an attempt.
//!
//! Invariant: an outcome and a notification are told after they are durable; each end of a recipient once.
//!
//! Not here: what there is to tell (mta/src/event.rs), what a word leads to (feedback).

use postwright_core::{Cause, DeliveryStatus, Diagnostic};
use postwright_queue::scheduler::{Report, ReportEvent, Settlement};
use postwright_queue::{Entry, SpoolId};
use postwright_smtp_proto::client::Timings;

use super::last_status;
use super::notices::Notice;
use crate::Event;
use crate::system::System;

/// The time of an attempt, for a recipient that it was made for.
fn timings_of<'a>(timings: Option<&'a Timings>, status: &DeliveryStatus) -> Option<&'a Timings> {
    let is_suppressed = matches!(status.diagnostic, Diagnostic::Local(Cause::Suppressed(_)));
    timings.filter(|_| !is_suppressed)
}

pub(super) fn deferrals(
    system: &System,
    settlement: &Settlement,
    recipients: &[usize],
    timings: Option<&Timings>,
) {
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

pub(super) fn outcomes(
    system: &System,
    id: SpoolId,
    entry: &Entry,
    reports: &[Report],
    timings: Option<&Timings>,
) {
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

pub(super) fn notice(system: &System, notice: &Notice, about: SpoolId) {
    let id = notice.entry.id;
    for recipient in &notice.entry.envelope.recipients {
        system.observers.tell(Event::Notified { id, about, to: &recipient.mailbox });
    }
}

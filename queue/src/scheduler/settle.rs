//! What came of an attempt: new state, reports, and one commit at a time for each message.
//!
//! Invariant: of one message at most one settlement is under way, so that a later state can never be overwritten by an
//! earlier one; a unit is not attempted again before the settlement that covers it was committed.
//!
//! Standards: RFC 3461 5.2 (what is reported), RFC 3463 3.5 (X.4.7, time expired).
//!
//! Not here: composing notifications.

use std::sync::Arc;

use postwright_core::{Cause, DeliveryStatus, EnhancedStatus, Phase, Timestamp};

use super::attempt::{
    Attempt, AttemptResult, Effect, Report, ReportEvent, SETTLE_AGAIN, Scope, Settlement, Task,
};
use super::policy::{RetryPolicy, second_of};
use super::unit::{Flags, Members, State};
use super::{Scheduler, Timer};
use crate::error::SpoolError;
use crate::{Change, Claim, Entry, Fate, SpoolId};

/// A message between an attempt and its commit: the one true copy of its entry meanwhile.
pub(super) struct Open {
    entry: Arc<Entry>,
    epoch: u64,
    /// Units recorded since the last settlement was made.
    recorded: Vec<u32>,
    /// Units that the settlement under way covers.
    covered: Vec<u32>,
    /// What has to be reported with the next settlement, and with the one under way.
    reports: Vec<Report>,
    sent: Vec<Report>,
    under_way: bool,
}

/// What one attempt is about, while it is recorded.
struct Outcome<'a> {
    task: Task,
    recipients: &'a [usize],
    statuses: Vec<DeliveryStatus>,
    /// Whether the sender hears of a cancellation.
    bounce: bool,
    /// Whether it is time to tell of the delay.
    warn: bool,
    now: Timestamp,
}

impl Scheduler {
    /// Takes an attempt back with what came of it.
    pub fn record(&mut self, attempt: Attempt, result: AttemptResult, now: Timestamp) -> Vec<Effect> {
        self.give_back(&attempt);
        let ours = |unit: &&mut super::Unit| unit.turn == attempt.turn && unit.state == State::InFlight;
        if self.units.get_mut(attempt.unit).filter(ours).is_none() {
            // The message was forgotten meanwhile: lost, or another node has it.
            self.found_again(attempt.id);
            return Vec::new();
        }
        match result {
            AttemptResult::Lost => {
                self.forget(attempt.id);
                Vec::new()
            }
            AttemptResult::Postponed { until, scope, because } => {
                self.postpone(&attempt, until, scope, &because, now);
                Vec::new()
            }
            AttemptResult::Finished { entry, statuses } => {
                self.finish(&attempt, *entry, statuses, now);
                self.settle(attempt.id).map(Effect::Settle).into_iter().collect()
            }
        }
    }

    /// Frees what the attempt took.
    fn give_back(&mut self, attempt: &Attempt) {
        match attempt.site_number {
            Some(site) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.ready.finished(site);
            }
            None => self.housekeeping = self.housekeeping.saturating_sub(1),
        }
        if let Some(lane) = self.lanes.get_mut(attempt.lane_number) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
        self.drop_lane_if_unused(attempt.lane_number);
    }

    /// Everything of a message goes, without a commit.
    pub(super) fn forget(&mut self, id: SpoolId) {
        self.open.remove(&id);
        for number in self.units_of(id) {
            if self.units.get(number).is_some_and(|unit| unit.state == State::InFlight) {
                *self.astray.entry(id).or_default() += 1;
            }
            self.remove_unit(number);
        }
    }

    fn postpone(&mut self, attempt: &Attempt, until: Timestamp, scope: Scope, because: &str, now: Timestamp) {
        // A postponement into the past would come back at once, for ever.
        let until = until.max(now + std::time::Duration::from_millis(1));
        match (scope, attempt.site_number) {
            (Scope::Site, Some(site)) => {
                if let Some(old) = self.ready.site(site).and_then(|site| site.paused_until) {
                    self.timers.remove(&(old, Timer::Site(site)));
                }
                self.ready.pause(site, Some(until), because);
                self.timers.insert((until, Timer::Site(site)));
            }
            (Scope::Lane, _) => {
                if let Some(lane) = self.lanes.get_mut(attempt.lane_number) {
                    lane.postponed_until = Some(until);
                }
            }
            (Scope::Message | Scope::Site, _) => {
                if let Some(unit) = self.units.get_mut(attempt.unit) {
                    unit.due = unit.due.max(until);
                }
            }
        }
        if attempt.task == Task::Deliver {
            self.release(attempt.unit, now);
        } else {
            self.look_again(attempt.unit, until);
        }
    }

    /// A unit whose expiry, warning or cancellation could not be dealt with is looked at again later.
    fn look_again(&mut self, number: u32, at: Timestamp) {
        let Some(unit) = self.units.get_mut(number) else { return };
        unit.state = State::Waiting;
        unit.due = unit.due.max(at);
        let (due, lane) = (unit.due, unit.lane);
        self.sweep.entry(second_of(at)).or_default().push(number);
        self.sweep_len += 1;
        // It also waits in its lane, so that it is not lost if the task has become moot.
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.due.push(std::cmp::Reverse((due, number)));
        }
    }

    /// Puts what came of an attempt into the open entry, and the unit among the recorded ones.
    fn finish(&mut self, attempt: &Attempt, loaded: Entry, statuses: Vec<DeliveryStatus>, now: Timestamp) {
        let Some(unit) = self.units.get_mut(attempt.unit) else { return };
        let policy = self.lanes.get(unit.lane).map(|lane| lane.policy.clone()).unwrap_or_default();
        let outcome = Outcome {
            task: attempt.task,
            recipients: &attempt.recipients,
            statuses,
            bounce: unit.flags.has(Flags::BOUNCED),
            warn: unit.is_warning_due(now),
            now,
        };
        let epoch = unit.epoch;
        let open = self.open.entry(attempt.id).or_insert_with(|| Open {
            entry: Arc::new(loaded),
            epoch,
            recorded: Vec::new(),
            covered: Vec::new(),
            reports: Vec::new(),
            sent: Vec::new(),
            under_way: false,
        });
        let entry = Arc::make_mut(&mut open.entry);
        if unit.flags.has(Flags::UNTRIED) {
            // A clock that was ahead when the message came must not keep it for years.
            let held = entry.envelope.options.hold_until.unwrap_or_default();
            entry.expires = entry.expires.min(now.max(held) + self.config.policies.longest_lifetime());
        }
        let due = apply(entry, outcome, &policy, &*self.entropy, &mut open.reports);
        open.recorded.push(attempt.unit);
        unit.state = State::Settling;
        if let Some(due) = due {
            unit.due = due;
        }
        if attempt.task == Task::Deliver {
            unit.flags.set(Flags::TRIED, true);
            if unit.flags.has(Flags::UNTRIED) {
                // From now on its own lifetime counts.
                unit.flags.set(Flags::UNTRIED, false);
                unit.flags.set(Flags::SWEPT, true);
                unit.expires = second_of(entry.expires);
            }
        }
        if unit.is_warning_due(now) {
            unit.flags.set(Flags::WARNED, true);
            unit.flags.set(Flags::SWEPT, true);
        }
    }

    /// The next commit of a message, unless one is under way.
    fn settle(&mut self, id: SpoolId) -> Option<Settlement> {
        let open = self.open.get_mut(&id).filter(|open| !open.under_way && !open.recorded.is_empty())?;
        open.under_way = true;
        open.covered = std::mem::take(&mut open.recorded);
        open.sent = std::mem::take(&mut open.reports);
        let claim = Claim { id, epoch: open.epoch };
        let change = if open.entry.is_done() {
            Change::Remove { claim }
        } else {
            Change::Update { claim, entry: Entry::clone(&open.entry) }
        };
        Some(Settlement { id, change, entry: open.entry.clone(), reports: open.sent.clone() })
    }

    /// Says how the commit of a [`Settlement`] went. What it returns is to be done like the effects of
    /// [`Scheduler::record`].
    ///
    /// A failed commit is handed out again by [`Scheduler::poll`] after a few seconds; meanwhile nothing of the
    /// message is attempted. A message that is gone, or in the hands of another node, is forgotten.
    pub fn settled(&mut self, id: SpoolId, result: Result<(), SpoolError>, now: Timestamp) -> Vec<Effect> {
        let Some(open) = self.open.get_mut(&id).filter(|open| open.under_way) else { return Vec::new() };
        open.under_way = false;
        match result {
            Ok(()) => {
                open.sent.clear();
                let covered = std::mem::take(&mut open.covered);
                let entry = open.entry.clone();
                covered.into_iter().for_each(|number| self.resume(number, &entry, now));
                let next = self.settle(id);
                if next.is_none() && !self.is_busy(id) {
                    self.open.remove(&id);
                }
                next.map(Effect::Settle).into_iter().collect()
            }
            Err(SpoolError::NotFound(_) | SpoolError::Fenced(_)) => {
                self.forget(id);
                Vec::new()
            }
            Err(_) => {
                let mut reports = std::mem::take(&mut open.sent);
                reports.append(&mut open.reports);
                open.reports = reports;
                let mut recorded = std::mem::take(&mut open.covered);
                recorded.append(&mut open.recorded);
                open.recorded = recorded;
                self.settle_again.insert((now + SETTLE_AGAIN, id));
                Vec::new()
            }
        }
    }

    pub(super) fn next_settlement(&mut self, now: Timestamp) -> Option<Settlement> {
        while let Some((at, id)) = self.settle_again.first().copied().filter(|(at, _)| *at <= now) {
            self.settle_again.remove(&(at, id));
            if let Some(settlement) = self.settle(id) {
                return Some(settlement);
            }
        }
        None
    }

    /// A unit whose settlement was committed goes, or waits for what is left of it.
    fn resume(&mut self, number: u32, entry: &Entry, now: Timestamp) {
        let Some(unit) = self.units.get_mut(number) else { return };
        let pending =
            |index: &usize| entry.progress.get(*index).is_some_and(|progress| progress.is_pending());
        let left: Vec<u32> =
            unit.members.iter().filter(pending).filter_map(|index| u32::try_from(index).ok()).collect();
        if left.is_empty() {
            self.remove_unit(number);
            return;
        }
        unit.members = Members::new(left);
        self.release(number, now);
    }

    /// Whether a unit of the message is between an attempt and its commit.
    pub(super) fn is_busy(&self, id: SpoolId) -> bool {
        let busy = |unit: &super::Unit| matches!(unit.state, State::InFlight | State::Settling);
        self.units_of(id).into_iter().any(|number| self.units.get(number).is_some_and(busy))
    }
}

/// Notes what came of an attempt in the entry and its reports; returns when what is left is due.
fn apply(
    entry: &mut Entry,
    outcome: Outcome<'_>,
    policy: &RetryPolicy,
    entropy: &dyn postwright_core::Entropy,
    reports: &mut Vec<Report>,
) -> Option<Timestamp> {
    let Outcome { task, recipients, statuses, bounce, warn, now } = outcome;
    let expired = entry.expires <= now;
    let mut statuses = statuses.into_iter();
    let (mut delay, mut deferred) = (None, Vec::new());
    for recipient in recipients.iter().copied() {
        let status = statuses.next();
        let Some(progress) = entry.progress.get_mut(recipient).filter(|progress| progress.is_pending())
        else {
            continue;
        };
        let mut report = |event| reports.push(Report { recipient, event });
        match (task, status) {
            (Task::Deliver, Some(status)) => {
                let steps = progress.steps;
                let waits = !status.is_final();
                progress.note(status.clone());
                if waits {
                    let retry = policy.after(&status, steps, progress.attempts, entropy);
                    delay = delay.max(Some(retry.delay));
                    progress.steps = steps.saturating_add(u32::from(retry.is_step));
                }
            }
            // A recipient without a status was not attempted after all.
            (Task::Deliver, None) => delay = delay.max(Some(policy.schedule.delay(progress.steps))),
            (Task::Expire, _) => close(progress, Fate::Expired, 4, Cause::Expired, now),
            (Task::Cancel, _) => {
                let fate = if bounce { Fate::Bounced } else { Fate::Cancelled };
                close(progress, fate, 7, Cause::Cancelled("removed by an operator".into()), now);
            }
            (Task::Warn, _) => {}
        }
        if progress.is_pending() && expired && task == Task::Deliver {
            progress.fate = Fate::Expired;
        }
        match progress.fate {
            Fate::Delivered => report(ReportEvent::Delivered),
            Fate::Relayed => report(ReportEvent::Relayed),
            Fate::Bounced => report(ReportEvent::Failed),
            Fate::Expired => report(ReportEvent::Expired),
            Fate::Cancelled => report(ReportEvent::Cancelled),
            Fate::Pending => {
                if warn && !progress.warned {
                    progress.warned = true;
                    report(ReportEvent::Delayed);
                }
                deferred.push(recipient);
            }
        }
    }
    let due = now + delay?;
    for recipient in deferred {
        if let Some(progress) = entry.progress.get_mut(recipient) {
            progress.due = due;
        }
    }
    Some(due)
}

/// Ends a recipient without an attempt. What the last attempt brought stays: it is what the sender wants to know.
fn close(progress: &mut crate::Progress, fate: Fate, subject: u16, cause: Cause, now: Timestamp) {
    progress.fate = fate;
    let detail = if subject == 4 { 7 } else { 1 };
    if progress.last.is_none() || fate == Fate::Bounced {
        let status = EnhancedStatus::known(5, subject, detail);
        progress.last = Some(DeliveryStatus::local(status, cause, Phase::Resolve, now));
    }
}

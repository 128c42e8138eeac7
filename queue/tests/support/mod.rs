//! A world around a scheduler: entries in a map, time in a variable, one site for each host.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{
    DeliveryStatus, EnhancedStatus, Envelope, Mailbox, Phase, Reply, ReversePath, SeededEntropy, Timestamp,
};
use postwright_queue::scheduler::{
    Attempt, AttemptResult, Effect, Next, Report, ReportEvent, Scheduler, SchedulerConfig, Scope, Settlement,
    Site,
};
use postwright_queue::{Change, Claim, Claimed, Entry, SpoolError, SpoolId};

pub(crate) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    /// What the spool holds.
    pub(crate) stored: BTreeMap<SpoolId, Entry>,
    pub(crate) controls: BTreeMap<Box<str>, bytes::Bytes>,
    pub(crate) reports: Vec<(SpoolId, Report)>,
    pub(crate) now: Timestamp,
    pub(crate) config: SchedulerConfig,
    pub(crate) fail_commits: bool,
    number: u64,
}

pub(crate) fn reply(code: u16) -> DeliveryStatus {
    let class = u8::try_from(code / 100).unwrap();
    let reply = Reply::known(code, EnhancedStatus::known(class, 0, 0), "says the remote");
    DeliveryStatus::from_reply(reply, Phase::Rcpt, None, START)
}

impl World {
    pub(crate) fn new(config: SchedulerConfig) -> World {
        World {
            scheduler: Scheduler::new(config.clone(), Arc::new(SeededEntropy::new(1))),
            stored: BTreeMap::new(),
            controls: BTreeMap::new(),
            reports: Vec::new(),
            now: START,
            config,
            fail_commits: false,
            number: 0,
        }
    }

    /// No jitter, so that times can be written down.
    pub(crate) fn exact() -> World {
        World::new(exact_config())
    }

    pub(crate) fn entry(&mut self, recipients: &[&str]) -> Entry {
        self.number += 1;
        let id = SpoolId::new(self.now, &SeededEntropy::new(self.number));
        let mailboxes = recipients.iter().map(|to| to.parse::<Mailbox>().unwrap());
        let from: Mailbox = "sender@example.org".parse().unwrap();
        let envelope = Envelope::new(ReversePath::from(from), mailboxes);
        let lifetime = self.config.policies.default.lifetime;
        Entry::new(id, envelope, 100, lifetime, self.now)
    }

    pub(crate) fn accept_entry(&mut self, entry: Entry) -> SpoolId {
        let id = entry.id;
        let slot = self.scheduler.reserve().unwrap();
        self.scheduler.admit(slot, Claim { id, epoch: 0 }, &entry, self.now);
        self.stored.insert(id, entry);
        id
    }

    pub(crate) fn accept(&mut self, recipients: &[&str]) -> SpoolId {
        let entry = self.entry(recipients);
        self.accept_entry(entry)
    }

    /// Answers questions about routes and commits what failed before, until something else comes.
    pub(crate) fn next(&mut self) -> Next {
        loop {
            match self.scheduler.poll(self.now) {
                Next::Route(query) => {
                    let name = query.bound_to.unwrap_or_else(|| query.lane.host.to_string().into());
                    let site = Site { pool: "pool".into(), name: (&*name).into() };
                    self.scheduler.routed(query.id, site, self.now + DAY);
                }
                Next::Settle(settlement) => self.commit(*settlement),
                other => return other,
            }
        }
    }

    /// Everything that is handed out now.
    pub(crate) fn attempts(&mut self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        while let Next::Attempt(attempt) = self.next() {
            attempts.push(attempt);
        }
        attempts
    }

    pub(crate) fn only_attempt(&mut self) -> Attempt {
        let mut attempts = self.attempts();
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        attempts.remove(0)
    }

    pub(crate) fn waits_until(&mut self) -> Option<Timestamp> {
        match self.next() {
            Next::Wait { until } => until,
            other => panic!("not waiting: {other:?}"),
        }
    }

    pub(crate) fn finish(&mut self, attempt: Attempt, statuses: Vec<DeliveryStatus>) {
        let entry = Box::new(self.stored[&attempt.id].clone());
        let effects = self.scheduler.record(attempt, AttemptResult::Finished { entry, statuses }, self.now);
        self.perform(effects);
    }

    pub(crate) fn finish_with(&mut self, attempt: Attempt, code: u16) {
        let statuses = vec![reply(code); attempt.recipients.len()];
        self.finish(attempt, statuses);
    }

    pub(crate) fn postpone(&mut self, attempt: Attempt, until: Timestamp, scope: Scope) {
        let result = AttemptResult::Postponed { until, scope, because: "limit".into() };
        let effects = self.scheduler.record(attempt, result, self.now);
        assert!(effects.is_empty());
    }

    pub(crate) fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Settle(settlement) => self.commit(settlement),
                Effect::Store(change) => self.store(change),
            }
        }
    }

    fn store(&mut self, change: Change) {
        match change {
            Change::Update { claim, entry } => drop(self.stored.insert(claim.id, entry)),
            Change::Remove { claim } => drop(self.stored.remove(&claim.id)),
            Change::Control { key, value: Some(value) } => drop(self.controls.insert(key, value)),
            Change::Control { key, value: None } => drop(self.controls.remove(&key)),
            other => panic!("not a change of a scheduler: {other:?}"),
        }
    }

    pub(crate) fn commit(&mut self, settlement: Settlement) {
        if self.fail_commits {
            let error = SpoolError::Unavailable("the test says so".into());
            let effects = self.scheduler.settled(settlement.id, Err(error), self.now);
            return self.perform(effects);
        }
        let id = settlement.id;
        self.store(settlement.change);
        self.reports.extend(settlement.reports.into_iter().map(|report| (id, report)));
        let effects = self.scheduler.settled(id, Ok(()), self.now);
        self.perform(effects);
    }

    /// The process ends and starts again: only what is stored is left.
    pub(crate) fn restart(&mut self) {
        self.scheduler = Scheduler::new(self.config.clone(), Arc::new(SeededEntropy::new(2)));
        for (key, value) in self.controls.clone() {
            let effects = self.scheduler.restore_order(&key, &value, self.now).unwrap();
            self.perform(effects);
        }
        for (id, entry) in &self.stored {
            let claimed = Claimed { claim: Claim { id: *id, epoch: 0 }, entry: entry.clone() };
            assert!(self.scheduler.restore(&claimed, self.now));
        }
    }

    pub(crate) fn events(&self, id: SpoolId) -> Vec<(usize, ReportEvent)> {
        let of = |(of, report): &(SpoolId, Report)| (*of == id).then_some((report.recipient, report.event));
        self.reports.iter().filter_map(of).collect()
    }

    /// Nothing is held by anyone any more.
    pub(crate) fn assert_idle(&self) {
        let totals = self.scheduler.totals();
        assert_eq!((totals.messages, totals.reserved, totals.units), (0, 0, 0), "{totals:?}");
        assert_eq!(
            (totals.lanes, totals.in_flight, totals.housekeeping, totals.settling),
            (0, 0, 0, 0),
            "{totals:?}"
        );
        assert_eq!(self.scheduler.sites().count(), 0);
    }
}

pub(crate) fn exact_config() -> SchedulerConfig {
    let mut config = SchedulerConfig::default();
    config.policies.default.jitter = 0;
    config
}

//! Warm-up: a new source sends little at first and more each day ([`WarmUp`]).
//!
//! Invariant: the messages let through on a calendar day never exceed that day's cap, whatever restarts happen
//! (given the store's checkpoint); a pause sends nothing more that day; the day after a pause starts at half.
//!
//! Not here: where the overflow goes ([`Egress`](crate::Egress) tries the next source).

mod progress;
mod schedule;

pub use progress::{Alarms, Progress};
pub use schedule::{GrowthWarning, PRESETS, Schedule, ScheduleError};

use std::sync::{Mutex, MutexGuard, PoisonError};

use postwright_core::Timestamp;

use crate::adapt::Signal;
use crate::limit::{Dimension, Scope};
use crate::path::Path;
use crate::{Day, Zone};

/// What happens to messages beyond the day's cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// They may leave by the next source of the pool.
    #[default]
    NextSource,
    /// They wait for tomorrow.
    Wait,
}

/// The plan for one source, at all providers or at one.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmUp {
    /// Its name, under which the state is kept.
    pub name: Box<str>,
    /// The source that is warmed up.
    pub source: Box<str>,
    /// Only for this provider.
    pub provider: Option<Box<str>>,
    /// The caps.
    pub schedule: Schedule,
    /// The first day.
    pub start: Day,
    /// Whose midnight ends a day.
    pub zone: Zone,
    /// What happens beyond the cap.
    pub overflow: Overflow,
    /// What pauses it.
    pub alarms: Alarms,
}

impl WarmUp {
    /// A plan for a source from a day on, in UTC, with the usual alarms.
    pub fn of(source: &str, schedule: Schedule, start: Day) -> WarmUp {
        WarmUp {
            name: source.into(),
            source: source.into(),
            provider: None,
            schedule,
            start,
            zone: Zone::UTC,
            overflow: Overflow::default(),
            alarms: Alarms::default(),
        }
    }

    fn covers(&self, path: &Path) -> bool {
        path.value(Dimension::Source) == Some(&self.source)
            && self
                .provider
                .as_deref()
                .is_none_or(|provider| path.value(Dimension::Provider) == Some(provider))
    }

    pub(crate) fn scope(&self) -> Scope {
        match self.provider {
            None => Scope::of(&[Dimension::Source]),
            Some(_) => Scope::of(&[Dimension::Source, Dimension::Provider]),
        }
    }
}

/// The cap of one plan on one day.
pub(crate) struct Today {
    pub(crate) name: Box<str>,
    pub(crate) scope: Scope,
    pub(crate) cap: u32,
    pub(crate) zone: Zone,
    pub(crate) overflow: Overflow,
    /// Midnight.
    pub(crate) until: Timestamp,
}

/// All plans with their progress.
#[derive(Debug, Default)]
pub(crate) struct WarmUps {
    plans: Mutex<Vec<(WarmUp, Progress)>>,
}

impl WarmUps {
    fn lock(&self) -> MutexGuard<'_, Vec<(WarmUp, Progress)>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts plans in force; plans of the same name keep their progress.
    pub(crate) fn set(&self, plans: Vec<WarmUp>, now: Timestamp) {
        let mut current = self.lock();
        let kept =
            |plan: &WarmUp| current.iter().find(|(old, _)| old.name == plan.name).map(|(_, p)| p.clone());
        let new = plans.into_iter().map(|plan| {
            let progress = kept(&plan).unwrap_or_else(|| Progress::begin(plan.start, plan.zone.day(now)));
            (plan, progress)
        });
        *current = new.collect();
    }

    /// The scopes of the plans' caps.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.lock().iter().map(|(plan, _)| plan.scope()).collect::<Vec<_>>().into_iter()
    }

    /// What the plans allow on a path today.
    pub(crate) fn today(&self, path: &Path, now: Timestamp) -> Vec<Today> {
        let mut plans = self.lock();
        let covering = plans.iter_mut().filter(|(plan, _)| plan.covers(path));
        let caps = covering.filter_map(|(plan, progress)| {
            let day = plan.zone.day(now);
            progress.advance(&plan.schedule, day);
            let cap = progress.cap(&plan.schedule)?;
            let (name, scope, zone, overflow) = (plan.name.clone(), plan.scope(), plan.zone, plan.overflow);
            Some(Today { name, scope, cap, zone, overflow, until: zone.start(day.plus(1)) })
        });
        caps.collect()
    }

    /// Counts a signal; the names of the plans that it paused.
    pub(crate) fn observe(&self, path: &Path, signal: Signal, now: Timestamp) -> Vec<(Box<str>, String)> {
        let mut plans = self.lock();
        let covering = plans.iter_mut().filter(|(plan, _)| plan.covers(path));
        let paused = covering.filter_map(|(plan, progress)| {
            progress.advance(&plan.schedule, plan.zone.day(now));
            let why = progress.observe(signal, &plan.alarms)?;
            Some((plan.name.clone(), why))
        });
        paused.collect()
    }

    /// Ends a pause before midnight; the day's counts start anew.
    pub(crate) fn resume(&self, name: &str) {
        let mut plans = self.lock();
        for (_, progress) in plans.iter_mut().filter(|(plan, _)| &*plan.name == name) {
            progress.resume();
        }
    }

    /// One line a plan.
    pub(crate) fn save(&self) -> String {
        self.lock().iter().map(|(plan, progress)| format!("{progress}\t{}\n", plan.name)).collect()
    }

    /// Reads what `save` wrote; lines about unknown plans and damaged lines are left out. How many were taken.
    pub(crate) fn restore(&self, saved: &str) -> usize {
        let mut plans = self.lock();
        let lines = saved.lines().filter_map(|line| line.split_once('\t'));
        lines.fold(0, |taken, (state, name)| {
            let found = plans.iter_mut().find(|(plan, _)| &*plan.name == name);
            match (found, state.parse::<Progress>()) {
                (Some((_, progress)), Ok(saved)) => {
                    *progress = saved;
                    taken + 1
                }
                _ => taken,
            }
        })
    }
}

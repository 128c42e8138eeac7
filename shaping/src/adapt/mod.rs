//! Adaptation: what receivers say changes how fast we send, and every change is an event that can be undone.
//!
//! Invariant: adaptation only ever makes a path slower than the policy allows, never faster; every automatic
//! change has an [`Event`] with its cause, and its effect ends by itself.
//!
//! | file | job |
//! |---|---|
//! | `connections.rs` | how many connections a receiver takes, learnt from its refusals |
//! | `pace.rs` | how many messages a minute it takes, learnt the same way |
//! | `backoff.rs` | probing a path that is down or blocks us |
//! | `rules.rs` | rules as data: signal or text, "N in a period", action, duration |
//! | `state.rs` | the three for one (source, site) |
//!
//! Not here: what a reply means (the bounce crate says it), the limits of the policy.

mod backoff;
mod connections;
mod event;
mod pace;
mod rules;
mod state;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use postwright_core::Timestamp;

pub use event::{Change, Event};
pub use rules::{Action, AutomationRule, Threshold};
pub(crate) use state::{Gate, PathState};

use crate::limit::{Dimension, Kind, Scope};
use crate::path::{Key, Path};
use event::Journal;
use rules::Matcher;

/// Most suspensions in force at once; a further one takes the place of the one that ends first.
pub const SUSPENSIONS_MAX: usize = 4096;

/// What happened on a path, as the classification of replies has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// A connection was accepted (greeting 220).
    Connected,
    /// A connection was refused for now: 421 or 4xx in the greeting, or "too many connections" later on.
    ConnectionThrottled,
    /// No connection could be made.
    Unreachable,
    /// A message was accepted.
    Delivered,
    /// A message was put off because of how much we send.
    Throttled,
    /// A message was refused because of who we are: a blocklist, a reputation.
    Blocked,
    /// A message was put off for another reason.
    Deferred,
    /// A message was put off by greylisting, which is no reason to slow down.
    Greylisted,
    /// A message was refused for good.
    Bounced,
    /// A recipient complained (feedback loop).
    Complained,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Signal {
    /// The name in rules and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Signal::Connected => "connected",
            Signal::ConnectionThrottled => "connection-throttled",
            Signal::Unreachable => "unreachable",
            Signal::Delivered => "delivered",
            Signal::Throttled => "throttled",
            Signal::Blocked => "blocked",
            Signal::Deferred => "deferred",
            Signal::Greylisted => "greylisted",
            Signal::Bounced => "bounced",
            Signal::Complained => "complained",
        }
    }
}

/// How adaptation works.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdaptSettings {
    /// Connections that a new path starts with; more are tried as they succeed.
    pub initial_connections: u32,
    /// How long a refused number of connections is not tried again, first and at most.
    pub connection_hold: (Duration, Duration),
    /// The pause after a throttled message, first and at most.
    pub pause: (Duration, Duration),
    /// What the pace of messages is multiplied by when a message is throttled.
    pub decrease: f64,
    /// What is added to the pace each quiet minute, as a part of the pace that was refused.
    pub increase: f64,
    /// Messages a minute below which the pace never falls.
    pub floor: f64,
    /// Consecutive failed connections that put a path into back-off.
    pub dead_after: u32,
    /// The interval between probes in back-off, first and at most.
    pub backoff: (Duration, Duration),
    /// Rules beside the built-in signals.
    pub rules: Vec<AutomationRule>,
}

impl Default for AdaptSettings {
    /// The built-in values and rules.
    fn default() -> AdaptSettings {
        AdaptSettings {
            initial_connections: 5,
            connection_hold: (Duration::from_secs(60), Duration::from_secs(1800)),
            pause: (Duration::from_secs(5), Duration::from_secs(60)),
            decrease: 0.9,
            increase: 0.02,
            floor: 1.0,
            dead_after: 3,
            backoff: (Duration::from_secs(60), Duration::from_secs(1800)),
            rules: AutomationRule::built_in(),
        }
    }
}

/// A stop for the paths with certain values, until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// The event that tells of it, and the handle to undo it.
    pub event: u64,
    /// The paths: all of these values.
    pub when: Vec<(Dimension, Box<str>)>,
    /// When it ends.
    pub until: Timestamp,
    /// Why.
    pub cause: Arc<str>,
}

impl Suspension {
    fn stops(&self, path: &Path, now: Timestamp) -> bool {
        self.until > now && self.when.iter().all(|(dimension, value)| path.value(*dimension) == Some(value))
    }
}

/// The adaptive side of a shaper.
pub(crate) struct Adaptation {
    settings: Arc<AdaptSettings>,
    paths: Mutex<HashMap<Key, Arc<PathState>>>,
    suspensions: RwLock<Vec<Suspension>>,
    suspended: AtomicUsize,
    matcher: Mutex<Matcher>,
    journal: Mutex<Journal>,
}

impl Adaptation {
    pub(crate) fn new(settings: AdaptSettings) -> Adaptation {
        Adaptation {
            matcher: Mutex::new(Matcher::new(settings.rules.clone())),
            settings: Arc::new(settings),
            paths: Mutex::default(),
            suspensions: RwLock::default(),
            suspended: AtomicUsize::new(0),
            journal: Mutex::default(),
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a path's (source, site).
    pub(crate) fn path_state(&self, path: &Path) -> Arc<PathState> {
        let key = path.key(Kind::Connections, Scope::SOURCE_SITE, "adapt");
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(PathState::new(Arc::clone(&self.settings)));
        Arc::clone(paths.entry(key).or_insert_with(made))
    }

    /// Whether anything at all is suspended.
    #[inline]
    pub(crate) fn has_suspensions(&self) -> bool {
        self.suspended.load(Ordering::Acquire) != 0
    }

    /// The suspension that stops a path, if any.
    pub(crate) fn suspension(&self, path: &Path, now: Timestamp) -> Option<Suspension> {
        if !self.has_suspensions() {
            return None;
        }
        let all = self.suspensions.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|one| one.stops(path, now)).max_by_key(|one| one.until).cloned()
    }

    pub(crate) fn suspend(
        &self,
        when: Vec<(Dimension, Box<str>)>,
        until: Timestamp,
        cause: &str,
        now: Timestamp,
    ) -> u64 {
        let change = Change::Suspended { when: when.clone(), until };
        let event = self.journal().note(now, change, cause.into(), None);
        let mut all = self.suspensions.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.until > now);
        if all.len() >= SUSPENSIONS_MAX
            && let Some((first, _)) = all.iter().enumerate().min_by_key(|(_, one)| one.until)
        {
            all.swap_remove(first);
        }
        all.push(Suspension { event, when, until, cause: cause.into() });
        self.suspended.store(all.len(), Ordering::Release);
        event
    }

    pub(crate) fn suspensions(&self, now: Timestamp) -> Vec<Suspension> {
        let all = self.suspensions.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|one| one.until > now).cloned().collect()
    }

    /// Takes in what happened on a path.
    pub(crate) fn observe(
        &self,
        state: &Arc<PathState>,
        path: &Path,
        signal: Signal,
        text: &str,
        now: Timestamp,
    ) {
        for change in state.observe(signal, now) {
            let cause =
                if text.is_empty() { signal.as_str().into() } else { format!("{}: {text}", signal.as_str()) };
            self.journal().note(now, change, cause, Some((path.clone(), Arc::clone(state))));
        }
        let fired =
            self.matcher.lock().unwrap_or_else(PoisonError::into_inner).observe(path, signal, text, now);
        for (rule, cause) in fired {
            self.act(&rule, state, path, &cause, now);
        }
    }

    fn act(&self, rule: &AutomationRule, state: &Arc<PathState>, path: &Path, cause: &str, now: Timestamp) {
        let until = now + rule.duration;
        let change = match rule.action {
            Action::Suspend(scope) => {
                let values = scope.dimensions().filter_map(|d| path.value(d).map(|value| (d, value.into())));
                self.suspend(values.collect(), until, cause, now);
                return;
            }
            Action::BackOff => state.back_off(now),
            Action::Pace(per_minute) => state.hold_pace(per_minute, until, now),
            Action::Connections(most) => state.hold_connections(most, until),
        };
        if let Some(change) = change {
            self.journal().note(now, change, cause.into(), Some((path.clone(), Arc::clone(state))));
        }
    }

    /// A warm-up was paused.
    pub(crate) fn note_pause(&self, plan: Box<str>, why: &str, path: &Path, now: Timestamp) {
        let subject = Some((path.clone(), self.path_state(path)));
        self.journal().note(now, Change::WarmUpPaused { plan }, why.into(), subject);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.journal().list()
    }

    /// Undoes what an event did, and says what that was; `None` if there is no such event or it was undone before.
    pub(crate) fn undo(&self, id: u64, now: Timestamp) -> Option<Change> {
        let (change, subject) = self.journal().undo(id, now)?;
        if matches!(change, Change::Suspended { .. }) {
            let mut all = self.suspensions.write().unwrap_or_else(PoisonError::into_inner);
            all.retain(|one| one.event != id && one.until > now);
            self.suspended.store(all.len(), Ordering::Release);
        } else if let Some((_, state)) = subject {
            state.undo(&change, now);
        }
        Some(change)
    }

    pub(crate) fn sweep(&self, now: Timestamp) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.retain(|_, state| Arc::strong_count(state) > 1 || !state.is_fresh(now));
        self.matcher.lock().unwrap_or_else(PoisonError::into_inner).sweep(now);
        let mut all = self.suspensions.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.until > now);
        self.suspended.store(all.len(), Ordering::Release);
    }
}

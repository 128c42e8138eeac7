//! One (source, site): its connections, its pace, its back-off, behind one lock that messages touch only while
//! something is wrong.
//!
//! Invariant: `open` is the number of connections that were let in and not yet given back. For each of them one
//! signal (connected, throttled, unreachable) is expected while its permit is held; that is how connections that
//! the receiver has are told from those on their way.
//!
//! Not here: suspensions and rules, which concern more than one path (`mod.rs`).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Timestamp;

use super::backoff::Backoff;
use super::connections::ConnectionWindow;
use super::event::Change;
use super::pace::{Pace, PaceSettings};
use super::{AdaptSettings, Signal};
use crate::rate::Tat;
use crate::store::Ask;

/// When a connection has to wait for another one to end, the end is not known.
const CONNECTION_POLL: Duration = Duration::from_millis(100);

/// Which of the three says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// As many connections as the receiver takes.
    Connections(u32),
    /// The receiver throttles.
    Pace,
    /// Down or blocked.
    Backoff,
}

pub(crate) struct PathState {
    settings: Arc<AdaptSettings>,
    open: AtomicU32,
    /// Messages must ask.
    gated: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    connections: ConnectionWindow,
    pace: Pace,
    backoff: Option<Backoff>,
    failures: u32,
    /// Connections that were let in and of which nothing was heard yet.
    pending: u32,
}

impl Inner {
    /// How many connections the receiver has of ours, the one that a signal came for included.
    fn level(&mut self, open: u32) -> u32 {
        self.pending = self.pending.min(open).saturating_sub(1);
        (open - self.pending.min(open)).max(1)
    }
}

/// What an `enter` changed, so that it can be taken back.
#[derive(Default)]
pub(crate) struct Entered {
    connection: bool,
    tat: Option<Tat>,
}

impl PathState {
    pub(super) fn new(settings: Arc<AdaptSettings>) -> PathState {
        let inner = Inner {
            connections: ConnectionWindow::new(settings.initial_connections, settings.connection_hold),
            pace: Pace::new(),
            backoff: None,
            failures: 0,
            pending: 0,
        };
        PathState {
            settings,
            open: AtomicU32::new(0),
            gated: AtomicBool::new(false),
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace_settings(&self) -> PaceSettings {
        let AdaptSettings { pause, decrease, increase, floor, .. } = *self.settings;
        PaceSettings { pause, decrease, increase, floor }
    }

    /// Whether messages have to ask.
    #[inline]
    pub(crate) fn is_gated(&self) -> bool {
        self.gated.load(Ordering::Acquire)
    }

    /// May this go, as far as the receiver's behaviour tells?
    #[inline]
    pub(crate) fn enter(&self, ask: &Ask, now: Timestamp) -> Result<Entered, (Gate, Timestamp)> {
        if !ask.connection && !self.is_gated() {
            return Ok(Entered::default());
        }
        self.enter_slowly(ask, now)
    }

    #[cold]
    fn enter_slowly(&self, ask: &Ask, now: Timestamp) -> Result<Entered, (Gate, Timestamp)> {
        let mut inner = self.lock();
        let open = self.open.load(Ordering::Acquire);
        if ask.connection {
            let most = inner.connections.most(now);
            if open >= most {
                return Err((Gate::Connections(most), now + CONNECTION_POLL));
            }
        }
        if let Some(backoff) = &mut inner.backoff {
            let entered = backoff.enter(ask.connection, ask.messages > 0, now);
            entered.map_err(|until| (Gate::Backoff, until))?;
        }
        let tat = match ask.messages {
            0 => None,
            _ => inner.pace.enter(now).map_err(|until| (Gate::Pace, until))?,
        };
        self.regate(&inner, now);
        if ask.connection {
            inner.pending = inner.pending.min(open).saturating_add(1);
            self.open.fetch_add(1, Ordering::AcqRel);
        }
        Ok(Entered { connection: ask.connection, tat })
    }

    /// What was entered came to nothing.
    pub(crate) fn take_back(&self, entered: &Entered) {
        if entered.tat.is_some() {
            self.lock().pace.undo_enter(entered.tat);
        }
        if entered.connection {
            self.closed();
        }
    }

    /// A connection has ended.
    pub(crate) fn closed(&self) {
        // It was counted when it was let in, and permits end once.
        let _ = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| open.checked_sub(1));
    }

    fn regate(&self, inner: &Inner, now: Timestamp) {
        let gated = inner.backoff.is_some() || !inner.pace.is_fresh(now);
        self.gated.store(gated, Ordering::Release);
    }

    /// Takes in a signal; the changes that it led to.
    pub(super) fn observe(&self, signal: Signal, now: Timestamp) -> Vec<Change> {
        let mut inner = self.lock();
        let open = self.open.load(Ordering::Acquire).max(1);
        let mut changes = Vec::new();
        match signal {
            Signal::Connected => {
                inner.failures = 0;
                let level = inner.level(open);
                inner.connections.succeeded(level, now);
                if inner.backoff.take_if(|backoff| backoff.ends_with_a_connection()).is_some() {
                    changes.push(Change::Recovered);
                }
            }
            Signal::ConnectionThrottled => {
                let level = inner.level(open);
                if let Some(most) = inner.connections.refused(level, now) {
                    changes.push(Change::Connections { most });
                }
                // Not even one connection: as good as down.
                if level <= 1 {
                    changes.extend(self.failed(&mut inner, now));
                }
            }
            Signal::Unreachable => {
                inner.level(open);
                changes.extend(self.failed(&mut inner, now));
            }
            Signal::Delivered => {
                inner.failures = 0;
                inner.pace.accepted(&self.pace_settings(), now);
                if inner.backoff.take().is_some() {
                    changes.push(Change::Recovered);
                }
            }
            Signal::Throttled => {
                if let Some((per_minute, paused_until)) = inner.pace.throttled(&self.pace_settings(), now) {
                    changes.push(Change::Pace { per_minute, paused_until });
                }
            }
            Signal::Blocked => {
                if let Some(backoff) = &mut inner.backoff {
                    backoff.failed(self.settings.backoff.1, now);
                }
            }
            Signal::Deferred | Signal::Greylisted | Signal::Bounced | Signal::Complained => {}
        }
        self.regate(&inner, now);
        changes
    }

    fn failed(&self, inner: &mut Inner, now: Timestamp) -> Option<Change> {
        inner.failures = inner.failures.saturating_add(1);
        let (first, longest) = self.settings.backoff;
        match &mut inner.backoff {
            Some(backoff) => backoff.failed(longest, now),
            None if inner.failures >= self.settings.dead_after => {
                inner.backoff = Some(Backoff::new(first, true, now));
                return Some(Change::BackOff { interval: first });
            }
            None => {}
        }
        None
    }

    /// By a rule: only probes from here on.
    pub(super) fn back_off(&self, now: Timestamp) -> Option<Change> {
        let mut inner = self.lock();
        let interval = self.settings.backoff.0;
        if inner.backoff.is_some() {
            return None;
        }
        inner.backoff = Some(Backoff::new(interval, false, now));
        self.regate(&inner, now);
        Some(Change::BackOff { interval })
    }

    pub(super) fn hold_pace(&self, per_minute: f64, until: Timestamp, now: Timestamp) -> Option<Change> {
        let mut inner = self.lock();
        inner.pace.hold(per_minute, until, now);
        self.regate(&inner, now);
        Some(Change::Pace { per_minute, paused_until: now })
    }

    pub(super) fn hold_connections(&self, most: u32, until: Timestamp) -> Option<Change> {
        self.lock().connections.hold_at(most, until);
        Some(Change::Connections { most })
    }

    /// Undoes a change of this path.
    pub(super) fn undo(&self, change: &Change, now: Timestamp) {
        let mut inner = self.lock();
        match change {
            Change::Connections { .. } => inner.connections.forget_ceiling(),
            Change::Pace { .. } => inner.pace.forget(),
            Change::BackOff { .. } => {
                inner.backoff = None;
                inner.failures = 0;
            }
            Change::Recovered | Change::Suspended { .. } | Change::WarmUpPaused { .. } => {}
        }
        self.regate(&inner, now);
    }

    /// Whether forgetting the state would lose nothing that was learnt.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        let inner = self.lock();
        inner.backoff.is_none() && inner.pace.is_fresh(now) && inner.connections.is_fresh()
    }
}

//! What adaptation did: [`Event`], kept in a bounded journal.
//!
//! Invariant: numbers grow and are never used twice; the journal holds the latest [`EVENTS_MAX`].
//!
//! Not here: writing them to a log; the embedder reads the list.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::Timestamp;

use super::state::PathState;
use crate::limit::Dimension;
use crate::path::Path;

/// Events that are kept.
pub(super) const EVENTS_MAX: usize = 1024;

/// What changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The receiver takes no more than so many connections.
    Connections {
        /// The new bound.
        most: u32,
    },
    /// The receiver takes no more than so many messages a minute.
    Pace {
        /// The new bound.
        per_minute: f64,
        /// Nothing is sent before.
        paused_until: Timestamp,
    },
    /// The path is down or blocked: only probes are sent.
    BackOff {
        /// The time between probes at first.
        interval: Duration,
    },
    /// A probe succeeded.
    Recovered,
    /// A warm-up was paused until midnight; it goes on at half.
    WarmUpPaused {
        /// The plan.
        plan: Box<str>,
    },
    /// Nothing is sent on the paths with these values.
    Suspended {
        /// The values.
        when: Vec<(Dimension, Box<str>)>,
        /// When it ends.
        until: Timestamp,
    },
}

/// One automatic action (or one of the operator's).
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number, the handle to undo it.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: Change,
    /// The path, unless it concerns many.
    pub path: Option<Path>,
    /// Why: the signal and the reply, or the rule, or the operator's words.
    pub cause: String,
    /// When it was undone.
    pub undone: Option<Timestamp>,
}

pub(super) type Subject = Option<(Path, Arc<PathState>)>;

#[derive(Default)]
pub(super) struct Journal {
    next: u64,
    entries: VecDeque<(Event, Option<Arc<PathState>>)>,
}

impl Journal {
    pub(super) fn note(&mut self, at: Timestamp, change: Change, cause: String, subject: Subject) -> u64 {
        self.next += 1;
        let (path, state) = subject.unzip();
        if self.entries.len() >= EVENTS_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((Event { id: self.next, at, change, path, cause, undone: None }, state));
        self.next
    }

    pub(super) fn list(&self) -> Vec<Event> {
        self.entries.iter().map(|(event, _)| event.clone()).collect()
    }

    pub(super) fn undo(&mut self, id: u64, now: Timestamp) -> Option<(Change, Subject)> {
        let (event, state) =
            self.entries.iter_mut().find(|(event, _)| event.id == id && event.undone.is_none())?;
        event.undone = Some(now);
        Some((event.change.clone(), event.path.clone().zip(state.clone())))
    }
}

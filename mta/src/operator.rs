//! What an operator sees and orders while the system runs: [`Operator`].
//!
//! Invariant: looking changes nothing and holds the scheduler for a moment only; an order that lasts is in the spool
//! when [`Operator::give`] returns `Ok`, so that it outlives a restart.
//!
//! Not here: what an order does (the queue's scheduler), and how an operator reaches this (the reference MTA has a
//! control socket).

use std::sync::Arc;

use postwright_queue::scheduler::{Effect, LaneView, Order, Selector, SiteView, Totals, Waiting};
use postwright_queue::{Entry, Health, Page, Scan, SpoolError, SpoolId};

use crate::Mta;
use crate::feedback::FeedbackCounts;
use crate::pipeline::{self, Brought};
use crate::system::System;
use crate::{Via, ViaError};

/// Lanes that are looked at without giving the scheduler back in between.
const LANES: usize = 1000;

/// Looks into the queue and gives orders to it; made by [`Mta::operator`].
#[derive(Clone)]
pub struct Operator {
    system: Arc<System>,
}

impl Mta {
    /// A view of the queue, and a hand on it.
    pub fn operator(&self) -> Operator {
        Operator { system: self.system().clone() }
    }
}

impl Operator {
    /// Counts over the whole queue.
    pub fn totals(&self) -> Totals {
        self.system.scheduler().totals()
    }

    /// Whether the spool takes mail, and what it knows of itself.
    pub fn spool(&self) -> Health {
        self.system.spool.health()
    }

    /// What came back about mail that was sent, and what was done about it; `None` without feedback.
    pub fn feedback(&self) -> Option<FeedbackCounts> {
        self.system.feedback.as_ref().map(|feedback| feedback.counts())
    }

    /// Lanes (tenant, stream, destination) that hold messages, in order, at most 1,000 from a position on.
    pub fn lanes(&self, from: usize) -> Vec<LaneView> {
        let now = self.system.world.clock.now();
        self.system.scheduler().lanes(now).skip(from).take(LANES).collect()
    }

    /// Sites that mail goes to or waits for.
    pub fn sites(&self) -> Vec<SiteView> {
        self.system.scheduler().sites().collect()
    }

    /// Why a message waits and until when, for each of its destinations; empty if it is not queued here.
    pub fn why(&self, id: SpoolId) -> Vec<Waiting> {
        let now = self.system.world.clock.now();
        self.system.scheduler().why(id, now)
    }

    /// A message with the trace of its attempts.
    ///
    /// # Errors
    /// [`SpoolError::NotFound`] if there is none, or what keeps the spool from reading it.
    pub async fn message(&self, id: SpoolId) -> Result<Entry, SpoolError> {
        Ok(self.system.spool.load(id).await?.entry)
    }

    /// A page of the messages in the spool, by age.
    ///
    /// # Errors
    /// What keeps the spool from being read. Damaged records are items of the page, no error.
    pub async fn messages(&self, after: Option<SpoolId>, limit: usize) -> Result<Page, SpoolError> {
        self.system.spool.scan(Scan::Messages { after, limit }).await
    }

    /// What mail can be bound to, as orders have it: the name of a route, or what [`Via`] reads.
    ///
    /// # Errors
    /// It is neither.
    pub fn read_route(&self, text: &str) -> Result<String, ViaError> {
        match self.system.delivery.routes().named(text) {
            Some(rule) => Ok(rule.name().to_owned()),
            None => text.parse::<Via>().map(|via| via.to_string()),
        }
    }

    /// The orders in force.
    pub fn orders(&self) -> Vec<Order> {
        self.system.scheduler().orders().cloned().collect()
    }

    /// Gives an order: suspend, bind to a route, or cancel. It is in force at once.
    ///
    /// # Errors
    /// What keeps the spool from storing it: the order then holds until the next start and no longer.
    pub async fn give(&self, order: Order) -> Result<(), SpoolError> {
        let now = self.system.world.clock.now();
        let effects = self.system.scheduler().give(order, now);
        self.carry_out(effects).await
    }

    /// Takes an order back by its [key](Order::key): what it held goes on. False if there is no such order.
    ///
    /// # Errors
    /// What keeps the spool from forgetting it: the order is then back after the next start.
    pub async fn take_back(&self, key: &str) -> Result<bool, SpoolError> {
        let now = self.system.world.clock.now();
        let effects = self.system.scheduler().take_back(key, now);
        let found = !effects.is_empty();
        self.carry_out(effects).await?;
        Ok(found)
    }

    /// Makes everything that matches and waits for its retry due now; suspensions stay. Returns how many pairs of a
    /// message and a destination that were.
    pub fn flush(&self, selector: &Selector) -> usize {
        let flushed = self.system.scheduler().flush(selector, self.system.world.clock.now());
        self.system.wake.notify_one();
        flushed
    }

    /// Lanes that wait for the [pace](crate::Pace) ask it again at once: it has changed its mind.
    pub fn ask_pace_again(&self) {
        self.system.scheduler().end_postponements(self.system.world.clock.now());
        self.system.wake.notify_one();
    }

    async fn carry_out(&self, effects: Vec<Effect>) -> Result<(), SpoolError> {
        let mut stored = Ok(());
        for effect in effects {
            match effect {
                Effect::Store(change) => {
                    let commit = self.system.spool.commit(vec![change]).await;
                    stored = stored.and(commit.map(drop));
                }
                settle @ Effect::Settle(_) => {
                    pipeline::carry_out(&self.system, vec![settle], Brought::default()).await
                }
            }
        }
        self.system.wake.notify_one();
        stored
    }
}

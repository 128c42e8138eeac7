//! When each message is attempted next: the pure scheduler.
//!
//! It holds no message, does no input or output and has no clock: it is told what was accepted, asked what to do
//! now, and told what came of it. Two levels of lanes: *scheduled* lanes (tenant, stream, destination, priority, route)
//! hold messages until they are due; then a route is known and they wait for their turn in the *ready* lane of their
//! site (pool, site), by weight and priority.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use postwright_core::{DeliveryStatus, EnhancedStatus, Phase, Reply, SeededEntropy};
//! use postwright_queue::contract::{block_on, sample};
//! use postwright_queue::scheduler::{AttemptResult, Effect, Next, Scheduler, SchedulerConfig, Site};
//! use postwright_queue::{Change, MemorySpool, Spool};
//!
//! let spool = MemorySpool::default();
//! let mut scheduler = Scheduler::new(SchedulerConfig::default(), Arc::new(SeededEntropy::new(1)));
//! let (entry, body) = sample(1);
//! let now = entry.created;
//!
//! // Accept: reserve, commit, admit.
//! let slot = scheduler.reserve()?;
//! let claims = block_on(spool.commit(vec![Change::Put { entry: entry.clone(), body }]))?;
//! scheduler.admit(slot, claims[0], &entry, now);
//!
//! // Deliver: poll, load, attempt, record, commit, settled.
//! loop {
//!     match scheduler.poll(now) {
//!         Next::Route(query) => {
//!             let site = Site { pool: "default".into(), name: query.lane.host.to_string().into() };
//!             scheduler.routed(query.id, site, now + Duration::from_secs(3600));
//!         }
//!         Next::Attempt(attempt) => {
//!             let entry = Box::new(block_on(spool.load(attempt.id))?.entry);
//!             let reply = Reply::known(250, EnhancedStatus::known(2, 0, 0), "fine");
//!             let status = DeliveryStatus::from_reply(reply, Phase::EndOfData, None, now);
//!             let statuses = vec![status; attempt.recipients.len()];
//!             for effect in scheduler.record(attempt, AttemptResult::Finished { entry, statuses }, now) {
//!                 if let Effect::Settle(settlement) = effect {
//!                     // Notifications that `settlement.reports` ask for go into the same commit.
//!                     let result = block_on(spool.commit(vec![settlement.change])).map(drop);
//!                     scheduler.settled(settlement.id, result, now);
//!                 }
//!             }
//!         }
//!         Next::Settle(_) => unreachable!("no commit failed"),
//!         Next::Wait { .. } => break,
//!     }
//! }
//! assert!(spool.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariant: a recipient is in one attempt at most and ends once; nothing is handed out before it is due or while
//! its lane is suspended; nothing outlives its lifetime by more than a second (after a restart: by more than the longest time
//! between attempts, since nothing expires that was not tried).
//!
//! Standards: RFC 5321 4.5.4, RFC 3461 (delay notifications), RFC 4865, RFC 6710.
//!
//! Not here: storage (spool), rate limits (they answer "postponed"), composing notifications.

mod admit;
mod attempt;
mod hold;
mod jobs;
mod lane;
mod operate;
mod orders;
mod policy;
mod ready;
mod settle;
mod slab;
mod unit;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postwright_core::{Entropy, Timestamp};

pub use attempt::{
    Attempt, AttemptResult, Effect, Next, QueueFull, Reason, Report, ReportEvent, RouteQuery, Scope,
    Settlement, Task, Waiting,
};
pub use hold::Taken;
pub use jobs::JOB;
pub use lane::{Lane, LaneId, RouteOf};
pub use orders::{Order, OrderKind};
pub use policy::{Policies, RetryPolicy, Schedule, Selector};
pub use ready::Site;
pub use view::{LaneView, SiteView, Totals};

use crate::{Claim, Claimed, Entry, SpoolId};
use jobs::Jobs;
use lane::{LaneState, Place, Route};
use orders::Orders;
use ready::{FlowKey, Ready};
use settle::Open;
use slab::Slab;
use unit::{Flags, State, Unit};

/// The limits of a scheduler.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SchedulerConfig {
    /// Retries, lifetimes and weights.
    pub policies: Policies,
    /// Messages that it holds at most; one more is refused by [`Scheduler::reserve`]. Default 5,000,000.
    pub max_messages: usize,
    /// Deliveries handed out and not given back. Default 2,000.
    pub max_in_flight: usize,
    /// The same for one site. Default 100.
    pub max_in_flight_per_site: usize,
    /// Expiries, warnings and cancellations handed out and not given back. Default 32.
    pub max_housekeeping: usize,
    /// Which route a message takes to a destination. Default: there is one.
    pub route_of: RouteOf,
}

impl Default for SchedulerConfig {
    fn default() -> SchedulerConfig {
        SchedulerConfig {
            policies: Policies::default(),
            max_messages: 5_000_000,
            max_in_flight: 2000,
            max_in_flight_per_site: 100,
            max_housekeeping: 32,
            route_of: RouteOf::default(),
        }
    }
}

/// Room for one message, so that a queue that is full says so before the message is ours. Dropped, it is given
/// back.
#[derive(Debug)]
#[must_use = "hand it to Scheduler::admit"]
pub struct Slot {
    counter: Option<Arc<AtomicUsize>>,
}

impl Slot {
    /// The room is used from now on.
    fn take(mut self) {
        self.counter = None;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(counter) = &self.counter {
            counter.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// What a timer wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lane(u32),
    Site(u32),
}

/// The pure scheduler. See the [module](self) for its use.
pub struct Scheduler {
    config: SchedulerConfig,
    entropy: Arc<dyn Entropy>,
    /// Slots taken: messages here, and those on their way.
    messages: Arc<AtomicUsize>,
    units: Slab<Unit>,
    /// One unit of each message; the others are its siblings.
    by_id: BTreeMap<SpoolId, u32>,
    lanes: Slab<LaneState>,
    lane_names: BTreeMap<Arc<Lane>, u32>,
    generations: u64,
    ready: Ready,
    timers: BTreeSet<(Timestamp, Timer)>,
    /// Units by the second in which they have to be looked at; some are stale.
    sweep: BTreeMap<u32, Vec<u32>>,
    sweep_len: usize,
    /// Units that expire, warn or are cancelled.
    urgent: VecDeque<u32>,
    to_route: VecDeque<u32>,
    /// Entries of messages between an attempt and its commit.
    open: BTreeMap<SpoolId, Open>,
    settle_again: BTreeSet<(Timestamp, SpoolId)>,
    orders: Orders,
    in_flight: usize,
    housekeeping: usize,
    turns: u32,
    jobs: Jobs,
    /// Attempts that are out for messages that were forgotten meanwhile, by message.
    astray: BTreeMap<SpoolId, usize>,
}

impl Scheduler {
    /// An empty one.
    pub fn new(config: SchedulerConfig, entropy: Arc<dyn Entropy>) -> Scheduler {
        Scheduler {
            ready: Ready::new(config.max_in_flight_per_site),
            config,
            entropy,
            messages: Arc::default(),
            units: Slab::new(),
            by_id: BTreeMap::new(),
            lanes: Slab::new(),
            lane_names: BTreeMap::new(),
            generations: 0,
            timers: BTreeSet::new(),
            sweep: BTreeMap::new(),
            sweep_len: 0,
            urgent: VecDeque::new(),
            to_route: VecDeque::new(),
            open: BTreeMap::new(),
            settle_again: BTreeSet::new(),
            orders: Orders::default(),
            in_flight: 0,
            housekeeping: 0,
            turns: 0,
            jobs: Jobs::default(),
            astray: BTreeMap::new(),
        }
    }

    /// Its policies: an accepting server asks them for the lifetime of a message.
    pub fn policies(&self) -> &Policies {
        &self.config.policies
    }

    /// Room for one message, to be taken before the message is committed.
    pub fn reserve(&self) -> Result<Slot, QueueFull> {
        let limit = self.config.max_messages;
        let grow = |used: usize| (used < limit).then_some(used + 1);
        let grown = self.messages.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow);
        grown.map_err(|_| QueueFull { limit })?;
        Ok(Slot { counter: Some(self.messages.clone()) })
    }

    /// Room for a notification. It is never refused, since the message that it tells of makes room in turn.
    pub fn reserve_notice(&self) -> Slot {
        self.messages.fetch_add(1, Ordering::AcqRel);
        Slot { counter: Some(self.messages.clone()) }
    }

    /// Takes charge of a message that was committed.
    pub fn admit(&mut self, slot: Slot, claim: Claim, entry: &Entry, now: Timestamp) {
        if self.insert(claim, entry, now, false) {
            slot.take();
        }
    }

    /// Takes charge of a message that was claimed at the start, or from another node. Returns whether anything of it is
    /// left to do; if not, the caller removes it.
    ///
    /// It is due no later than one longest retry from now, whatever a wrong clock stored, and does not expire
    /// before it was attempted once, or before that time has passed.
    pub fn restore(&mut self, claimed: &Claimed, now: Timestamp) -> bool {
        let pending = !claimed.entry.is_done();
        if pending && self.insert(claimed.claim, &claimed.entry, now, true) {
            self.messages.fetch_add(1, Ordering::AcqRel);
        }
        pending
    }

    /// Whether a message is in its charge.
    pub fn contains(&self, id: SpoolId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// What to do now. Ask until it says [`Next::Wait`].
    pub fn poll(&mut self, now: Timestamp) -> Next {
        self.end_orders(now);
        self.ring(now);
        self.sweep(now);
        if let Some(settlement) = self.next_settlement(now) {
            return Next::Settle(Box::new(settlement));
        }
        if let Some(query) = self.next_query(now) {
            return Next::Route(query);
        }
        if let Some(attempt) = self.next_urgent(now) {
            return Next::Attempt(attempt);
        }
        if let Some(attempt) = self.next_delivery(now) {
            return Next::Attempt(attempt);
        }
        Next::Wait { until: self.next_event() }
    }

    /// Where the messages of a lane go, for as long as that is known. An answer to an old question is ignored.
    pub fn routed(&mut self, id: LaneId, site: Site, until: Timestamp) {
        let asked = |lane: &LaneState| lane.generation == id.generation && lane.route == Route::Asked;
        let Some(lane) = self.lanes.get_mut(id.number).filter(|lane| asked(lane)) else { return };
        let site = self.ready.route_to(site);
        lane.route = Route::Known { site, until };
        if lane.place == Place::Routing {
            lane.place = Place::Ready;
            self.ready.enqueue(site, flow_key(&lane.lane), id.number);
        }
    }

    /// When something happens by itself.
    fn next_event(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let sweep = self.sweep.keys().next().map(|second| Timestamp::from_secs(u64::from(*second)));
        let settle = self.settle_again.first().map(|(at, _)| *at);
        [timer, sweep, settle, self.orders.next_end()].into_iter().flatten().min()
    }

    /// A unit that is nobody's waits again, or is dealt with at once.
    fn release(&mut self, number: u32, now: Timestamp) {
        let Some(unit) = self.units.get_mut(number) else { return };
        let urgent = unit.flags.has(Flags::CANCELLED) || unit.is_expired(now) || unit.is_warning_due(now);
        if unit.flags.has(Flags::SWEPT) && !urgent {
            unit.flags.set(Flags::SWEPT, false);
            self.sweep.entry(unit.sweep_at()).or_default().push(number);
            self.sweep_len += 1;
        }
        if urgent {
            unit.flags.set(Flags::SWEPT, true);
            unit.state = State::Urgent;
            self.urgent.push_back(number);
            return;
        }
        unit.state = State::Waiting;
        let (due, lane_number) = (unit.due, unit.lane);
        if let Some(lane) = self.lanes.get_mut(lane_number) {
            lane.due.push(std::cmp::Reverse((due, number)));
            if lane.place == Place::Idle {
                self.set_timer(lane_number, now);
            }
        }
    }

    /// The earliest waiting unit of a lane, after what is stale was dropped.
    fn earliest(&mut self, lane_number: u32) -> Option<(Timestamp, u32)> {
        let lane = self.lanes.get_mut(lane_number)?;
        while let Some(std::cmp::Reverse((due, number))) = lane.due.peek() {
            let waits =
                |unit: &Unit| unit.lane == lane_number && unit.state == State::Waiting && unit.due == *due;
            if self.units.get(*number).is_some_and(waits) {
                return Some((*due, *number));
            }
            lane.due.pop();
        }
        None
    }

    /// Sets the timer of a lane that is idle to when it has something to do.
    fn set_timer(&mut self, lane_number: u32, now: Timestamp) {
        let earliest = self.earliest(lane_number).map(|(due, _)| due);
        let Some(lane) = self.lanes.get_mut(lane_number) else { return };
        let at = earliest.map(|due| lane.blocked_until(now).map_or(due, |until| until.max(due)));
        if lane.timer != at {
            if let Some(old) = lane.timer {
                self.timers.remove(&(old, Timer::Lane(lane_number)));
            }
            self.timers.extend(at.map(|at| (at, Timer::Lane(lane_number))));
            lane.timer = at;
        }
    }

    /// Wakes what the time has come for.
    fn ring(&mut self, now: Timestamp) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Lane(number) => {
                    if let Some(lane) = self.lanes.get_mut(number) {
                        lane.timer = None;
                    }
                    self.activate(number, now);
                }
                Timer::Site(number) => {
                    if self.ready.site(number).is_some_and(|site| site.paused_until == Some(at)) {
                        self.ready.pause(number, None, "");
                    }
                }
            }
        }
    }

    /// A lane that is idle takes its place among the ready ones if it has something due.
    fn activate(&mut self, number: u32, now: Timestamp) {
        let due = self.earliest(number).is_some_and(|(due, _)| due <= now);
        let Some(lane) = self.lanes.get_mut(number).filter(|lane| lane.place == Place::Idle) else { return };
        if !due || lane.blocked_until(now).is_some() {
            self.set_timer(number, now);
            return;
        }
        if let Some(old) = lane.timer.take() {
            self.timers.remove(&(old, Timer::Lane(number)));
        }
        match lane.route {
            Route::Known { site, until } if until > now => {
                lane.place = Place::Ready;
                self.ready.enqueue(site, flow_key(&lane.lane), number);
            }
            route => {
                lane.place = Place::Routing;
                if let Route::Known { site, .. } = route {
                    self.ready.unroute(site);
                }
                if route != Route::Asked {
                    lane.route = Route::Asked;
                    self.to_route.push_back(number);
                }
            }
        }
    }

    fn next_query(&mut self, now: Timestamp) -> Option<RouteQuery> {
        while let Some(number) = self.to_route.pop_front() {
            let Some(lane) = self.lanes.get(number) else { continue };
            if lane.route == Route::Asked {
                return Some(RouteQuery {
                    id: LaneId { number, generation: lane.generation },
                    lane: lane.lane.clone(),
                    bound_to: self.orders.binding(&lane.lane, now),
                });
            }
        }
        None
    }

    /// Looks at every unit whose lifetime or warning has come.
    fn sweep(&mut self, now: Timestamp) {
        let second = u32::try_from(now.secs()).unwrap_or(u32::MAX);
        while let Some(entry) = self.sweep.first_entry().filter(|entry| *entry.key() <= second) {
            let numbers = entry.remove();
            self.sweep_len -= numbers.len();
            for number in numbers {
                let Some(unit) = self.units.get_mut(number) else { continue };
                match unit.state {
                    State::Waiting if unit.sweep_at() <= second || unit.flags.has(Flags::CANCELLED) => {
                        // It leaves the heap of its lane by not waiting any more.
                        unit.flags.set(Flags::SWEPT, true);
                        self.release(number, now);
                    }
                    State::Waiting => {
                        self.sweep.entry(unit.sweep_at()).or_default().push(number);
                        self.sweep_len += 1;
                    }
                    State::Urgent | State::InFlight | State::Settling => unit.flags.set(Flags::SWEPT, true),
                }
            }
        }
        // Messages that were delivered leave stale items behind; now and then they are cleared out.
        if self.sweep_len > 2 * self.units.len() + 1024 {
            self.sweep.clear();
            self.sweep_len = self.units.len();
            for (number, unit) in self.units.iter() {
                self.sweep.entry(unit.sweep_at().max(second + 1)).or_default().push(number);
            }
        }
    }

    fn next_urgent(&mut self, now: Timestamp) -> Option<Attempt> {
        while self.housekeeping < self.config.max_housekeeping {
            let number = self.urgent.pop_front()?;
            let Some(unit) = self.units.get(number).filter(|unit| unit.state == State::Urgent) else {
                continue;
            };
            let task = match unit.flags {
                flags if flags.has(Flags::CANCELLED) => Task::Cancel,
                _ if unit.is_expired(now) => Task::Expire,
                _ if unit.is_warning_due(now) => Task::Warn,
                _ => {
                    self.release(number, now);
                    continue;
                }
            };
            self.housekeeping += 1;
            return self.hand_out(number, task, None);
        }
        None
    }

    fn next_delivery(&mut self, now: Timestamp) -> Option<Attempt> {
        while self.in_flight < self.config.max_in_flight {
            let (flow, lane_number) = self.ready.next()?;
            let unit = self.earliest(lane_number).filter(|(due, _)| *due <= now);
            let lane = self.lanes.get_mut(lane_number);
            let blocked = lane.as_ref().is_none_or(|lane| lane.blocked_until(now).is_some());
            let (Some(lane), Some((_, number)), false) = (lane, unit, blocked) else {
                self.ready.served(flow, 0, false);
                self.rest(lane_number, now);
                continue;
            };
            lane.due.pop();
            let (cost, route) = (lane.cost(), lane.route);
            let attempt = match route {
                Route::Known { site, .. } => self.hand_out(number, Task::Deliver, Some(site)),
                Route::Unknown | Route::Asked => None,
            };
            let more = self.earliest(lane_number).is_some_and(|(due, _)| due <= now);
            self.ready.served(flow, cost, more);
            if !more {
                self.rest(lane_number, now);
            }
            self.in_flight += usize::from(attempt.is_some());
            return attempt;
        }
        None
    }

    /// A lane leaves the ready ones.
    fn rest(&mut self, number: u32, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.place = Place::Idle;
            self.set_timer(number, now);
        }
        self.drop_lane_if_unused(number);
    }

    fn hand_out(&mut self, number: u32, task: Task, site_number: Option<u32>) -> Option<Attempt> {
        let unit = self.units.get_mut(number)?;
        let lane = self.lanes.get_mut(unit.lane)?;
        unit.state = State::InFlight;
        lane.in_flight += 1;
        Some(Attempt {
            id: unit.id,
            recipients: unit.members.iter().collect(),
            task,
            lane: lane.lane.clone(),
            site: site_number.and_then(|number| self.ready.site(number)).map(|site| site.site.clone()),
            deadline: Timestamp::from_secs(u64::from(unit.expires)),
            turn: unit.turn,
            unit: number,
            lane_number: unit.lane,
            site_number,
        })
    }
}

fn flow_key(lane: &Lane) -> FlowKey {
    (lane.tenant.clone(), lane.stream.clone(), lane.priority)
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scheduler({:?})", self.totals())
    }
}

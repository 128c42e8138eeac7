//! The shaper: the policy in force, the lanes of the paths that are asked for, and the choice among a pool's sources.
//!
//! Invariant: a lane is of the policy and the warm-up plans in force, and of today; one that is not is made anew before
//! it decides.
//!
//! Not here: the decision on a lane (`lane.rs`), the counts (`store.rs`), the limits (`policy.rs`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use postwright_core::Timestamp;

use crate::adapt::{AdaptSettings, Adaptation, Change, Event, Signal, Suspension};
use crate::egress::{Egress, Source};
use crate::explain::Explanation;
use crate::lane::{BROKEN_POLICY_RETRY, Lane, LaneState, admission, leave_queues, pass_slowly};
use crate::limit::{Bound, Dimension, Kind, Limit, Limits, Scope};
use crate::path::Path;
use crate::permit::{Admission, Because, Later, Pass};
use crate::policy::{Applied, Policy};
use crate::store::{Ask, TokenStore};
use crate::warmup::{Overflow, WarmUp, WarmUps};

const SHARDS: usize = 16;

/// How the shaper works; the rest is in the policy.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// How long a connection's lease lasts without being renewed.
    pub lease: Duration,
    /// How the receivers' behaviour is followed; `None` keeps to the policy alone.
    pub adapt: Option<AdaptSettings>,
}

impl Default for Settings {
    /// Leases of ten minutes, the longest time that RFC 5321 4.5.3.2.6 lets a server be silent.
    fn default() -> Settings {
        Settings { lease: Duration::from_secs(600), adapt: Some(AdaptSettings::default()) }
    }
}

/// Decides when things may go.
pub struct Shaper {
    store: Arc<dyn TokenStore>,
    lease: Duration,
    adaptive: bool,
    adaptation: Arc<Adaptation>,
    policy: RwLock<Arc<Policy>>,
    generation: AtomicU64,
    lanes: Vec<Mutex<HashMap<Path, Arc<LaneState>>>>,
    hasher: RandomState,
    warmups: WarmUps,
}

impl Shaper {
    /// A shaper of this policy over this store.
    pub fn new(policy: Policy, store: Arc<dyn TokenStore>) -> Shaper {
        Shaper::with_settings(policy, store, Settings::default())
    }

    /// The same with settings of one's own.
    pub fn with_settings(policy: Policy, store: Arc<dyn TokenStore>, settings: Settings) -> Shaper {
        Shaper {
            store,
            lease: settings.lease,
            adaptive: settings.adapt.is_some(),
            adaptation: Arc::new(Adaptation::new(settings.adapt.unwrap_or_default())),
            policy: RwLock::new(Arc::new(policy)),
            generation: AtomicU64::new(0),
            lanes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            warmups: WarmUps::default(),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another policy in force. Counts of limits that keep their kind, scope and period go on.
    pub fn set_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.forget_lanes();
    }

    /// Puts warm-up plans in force; plans of the same name keep their progress.
    pub fn set_warmups(&self, plans: Vec<WarmUp>, now: Timestamp) {
        self.warmups.set(plans, now);
        self.forget_lanes();
    }

    /// The progress of all warm-ups as text, to be kept over a restart.
    pub fn save_warmups(&self) -> String {
        self.warmups.save()
    }

    /// Goes on where [`Shaper::save_warmups`] left off, for the plans in force; how many were found.
    pub fn restore_warmups(&self, saved: &str) -> usize {
        let taken = self.warmups.restore(saved);
        self.forget_lanes();
        taken
    }

    fn forget_lanes(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        for shard in &self.lanes {
            for (_, lane) in shard.lock().unwrap_or_else(PoisonError::into_inner).drain() {
                // They were told when to come back by limits that may have changed.
                leave_queues(&lane);
            }
        }
    }

    fn shard(&self, path: &Path) -> MutexGuard<'_, HashMap<Path, Arc<LaneState>>> {
        let place = usize::try_from(self.hasher.hash_one(path) % SHARDS as u64).unwrap_or(0);
        self.lanes[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane of a path.
    pub fn lane(&self, path: &Path, now: Timestamp) -> Lane {
        Lane::of(self.lane_state(path, now))
    }

    fn lane_state(&self, path: &Path, now: Timestamp) -> Arc<LaneState> {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(found) = self.shard(path).get(path)
            && found.generation == generation
            && now < found.until
        {
            return Arc::clone(found);
        }
        let lane = Arc::new(self.build_lane(path, generation, now));
        self.shard(path).insert(path.clone(), Arc::clone(&lane));
        lane
    }

    fn build_lane(&self, path: &Path, generation: u64, now: Timestamp) -> LaneState {
        let mut lane = LaneState {
            // A lane that is made anew keeps its place in the queues.
            id: self.hasher.hash_one(path),
            generation,
            until: Timestamp::from_millis(u64::MAX),
            overflow_waits: false,
            warming: false,
            path: path.clone(),
            limits: Limits::default(),
            messages_per_connection: None,
            recipients_per_message: None,
            store: Arc::clone(&self.store),
            ttl: self.lease,
            adaptation: Arc::clone(&self.adaptation),
            adaptive: self.adaptive.then(|| self.adaptation.path_state(path)),
        };
        let policy = self.policy();
        // What all limits of all paths have in common: paths that differ in it share no limit.
        let common = self.warmups.scopes().fold(policy.common_scope(), Scope::and);
        let home = self.hasher.hash_one(path.key(Kind::Messages, common, "home"));
        let mut limits = Vec::new();
        for applied in policy.resolve(path) {
            match (applied.kind, applied.bound) {
                (Kind::MessagesPerConnection, Bound::AtMost(most)) => {
                    lane.messages_per_connection = smaller(lane.messages_per_connection, most);
                }
                (Kind::RecipientsPerMessage, Bound::AtMost(most)) => {
                    lane.recipients_per_message = smaller(lane.recipients_per_message, most);
                }
                (_, bound) => self.push_limit(&mut limits, path, home, applied, tag(&bound)),
            }
        }
        for today in self.warmups.today(path, now) {
            lane.until = lane.until.min(today.until);
            lane.overflow_waits |= today.overflow == Overflow::Wait;
            let bound = Bound::Daily { cap: today.cap, zone: today.zone };
            let origin = format!("warm-up {}", today.name).into();
            let applied = Applied { kind: Kind::Messages, scope: today.scope, bound, origin };
            self.push_limit(&mut limits, path, home, applied, format!("daily {} warm-up", today.zone));
            lane.warming = true;
        }
        LaneState { limits: Limits::of(limits), ..lane }
    }

    fn push_limit(&self, limits: &mut Vec<Limit>, path: &Path, home: u64, applied: Applied, mut tag: String) {
        let Applied { kind, scope, bound, origin } = applied;
        let mut key = path.key(kind, scope, &tag);
        // Two limits of one kind, scope and period must not be counted in one place.
        while limits.iter().any(|other| other.key == key) {
            tag.push('+');
            key = path.key(kind, scope, &tag);
        }
        let cell = self.store.cell(&key, home, &bound);
        limits.push(Limit { kind, scope, bound, key, origin, cell });
    }

    /// Asks for a path.
    pub fn admit(&self, path: &Path, ask: Ask, now: Timestamp) -> Admission {
        admission(&self.lane_state(path, now), ask, now)
    }

    /// Asks by way of a pool: tries its usable sources in turn, until one is admitted.
    ///
    /// `path` is without source and pool; they are filled in. A source whose limits are reached passes the load on
    /// to the next one, unless it is being warmed up and its plan says that the overflow waits. If none is
    /// admitted, the answer is the one with the earliest moment; if none is usable, [`Because::NoSource`].
    pub fn admit_from(
        &self,
        way: Way<'_>,
        path: &Path,
        ask: Ask,
        now: Timestamp,
    ) -> (Option<Arc<Source>>, Admission) {
        let none = |until, why: &str| Later { until, because: Because::NoSource(why.into()) };
        let Some(pool) = way.egress.pool(way.pool) else {
            let later = none(now + BROKEN_POLICY_RETRY, "there is no such pool");
            return (None, Admission::Later(later));
        };
        let candidates = match way.egress.candidates(pool, way.key, way.draw, now) {
            Ok(candidates) => candidates,
            Err(down) => return (None, Admission::Later(none(down.until, &down.cause))),
        };
        let mut best: Option<(Arc<Source>, Arc<LaneState>, Later)> = None;
        for source in candidates {
            let path = Path {
                source: Some(Arc::clone(&source.name)),
                pool: Some(Arc::clone(&pool.name)),
                ..path.clone()
            };
            let lane = self.lane_state(&path, now);
            let later = match admission(&lane, ask, now) {
                Admission::Granted(permit) => {
                    if let Some((_, lane, _)) = best {
                        leave_queues(&lane);
                    }
                    return (Some(source), Admission::Granted(permit));
                }
                Admission::Later(later) => later,
            };
            // A day's count that waits for its checkpoint has room in a moment; that is no overflow.
            let waits = lane.overflow_waits || waits_for_checkpoint(&later, now);
            // The place in a queue is kept for the best answer only; nobody comes back for the others.
            match &best {
                Some((_, _, other)) if other.until <= later.until => leave_queues(&lane),
                _ => {
                    if let Some((_, other, _)) = best.replace((source, lane, later)) {
                        leave_queues(&other);
                    }
                }
            }
            if waits {
                break;
            }
        }
        match best {
            Some((source, _, later)) => (Some(source), Admission::Later(later)),
            None => {
                (None, Admission::Later(none(now + BROKEN_POLICY_RETRY, "the pool has no usable source")))
            }
        }
    }

    /// Asks for a lane; renews the lane if the policy has changed since.
    #[inline]
    pub fn admit_on(&self, lane: &mut Lane, ask: Ask, now: Timestamp) -> Admission {
        self.renew(lane, now);
        admission(&lane.state, ask, now)
    }

    /// Asks for one more message of so many octets on a connection that a lane has open: the cheapest question,
    /// since there is nothing to give back when it is sent.
    #[inline]
    pub fn pass<'l>(&self, lane: &'l mut Lane, bytes: u64, now: Timestamp) -> Result<Pass<'l>, Later> {
        self.renew(lane, now);
        if let (Some(fast), false) = (&mut lane.fast, self.adaptation.has_suspensions())
            && fast.pass(bytes, now)
        {
            return Ok(Pass::fast(lane, bytes));
        }
        pass_slowly(lane, bytes, now)
    }

    #[inline]
    fn renew(&self, lane: &mut Lane, now: Timestamp) {
        if lane.generation != self.generation.load(Ordering::Acquire) || now >= lane.until {
            *lane = self.lane(&lane.state.path, now);
        }
    }

    /// All limits on a path, where they come from, and which of them can never bind.
    pub fn explain(&self, path: &Path, now: Timestamp) -> Explanation {
        let lane = self.lane_state(path, now);
        let per_connection = [lane.messages_per_connection, lane.recipients_per_message];
        Explanation::of(path.clone(), &lane.limits, per_connection)
    }

    /// A lane that no longer wants anything gives up its place in all queues at once.
    pub fn withdraw(&self, lane: &Lane) {
        leave_queues(&lane.state);
    }

    /// Forgets lanes that nobody holds and counts that would not change a decision. Call it every minute or so.
    pub fn sweep(&self, now: Timestamp) {
        for shard in &self.lanes {
            shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        self.store.sweep(now);
        self.adaptation.sweep(now);
    }

    /// Most recipients in a transaction on a path, if limited: known without asking for anything.
    pub fn recipients_per_message(&self, path: &Path, now: Timestamp) -> Option<u32> {
        self.lane_state(path, now).recipients_per_message
    }

    /// Takes in what happened on a path; `text` is the receiver's reply, or empty.
    pub fn observe(&self, path: &Path, signal: Signal, text: &str, now: Timestamp) {
        let lane = self.lane_state(path, now);
        if let Some(state) = &lane.adaptive {
            self.adaptation.observe(state, path, signal, text, now);
        }
        if lane.warming {
            let paused = self.warmups.observe(path, signal, now);
            if !paused.is_empty() {
                // The day's cap has changed for everybody on the plan.
                self.forget_lanes();
            }
            for (plan, why) in paused {
                self.adaptation.note_pause(plan, &why, path, now);
            }
        }
    }

    /// Stops the paths with all of these values until a moment; the number is the handle for [`Shaper::undo`].
    /// No values stop everything.
    pub fn suspend(&self, when: &[(Dimension, &str)], until: Timestamp, cause: &str, now: Timestamp) -> u64 {
        let when = when.iter().map(|(dimension, value)| (*dimension, (*value).into())).collect();
        self.adaptation.suspend(when, until, cause, now)
    }

    /// The suspensions in force.
    pub fn suspensions(&self, now: Timestamp) -> Vec<Suspension> {
        self.adaptation.suspensions(now)
    }

    /// The latest 1024 automatic changes and suspensions, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.adaptation.events()
    }

    /// Undoes an event; `false` if it is not known any more or was undone before.
    pub fn undo(&self, event: u64, now: Timestamp) -> bool {
        let undone = self.adaptation.undo(event, now);
        if let Some(Change::WarmUpPaused { plan }) = &undone {
            self.warmups.resume(plan);
            self.forget_lanes();
        }
        undone.is_some()
    }
}

impl std::fmt::Debug for Shaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shaper").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Which pool to leave by, and how to choose in it.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The sources and pools.
    pub egress: &'a Egress,
    /// The pool's name.
    pub pool: &'a str,
    /// What sticks to a source in a sticky pool: a tenant, a campaign.
    pub key: &'a str,
    /// A random number for a weighted pool.
    pub draw: u64,
}

/// Whether a day's cap refuses before the day is used up: its count waits to be written down.
fn waits_for_checkpoint(later: &Later, now: Timestamp) -> bool {
    match &later.because {
        Because::Limit(limit) => match limit.bound {
            Bound::Daily { zone, .. } => later.until < zone.start(zone.day(now).plus(1)),
            _ => false,
        },
        _ => false,
    }
}

fn smaller(known: Option<u32>, most: u32) -> Option<u32> {
    Some(known.map_or(most, |known| known.min(most)))
}

/// Tells limits of one kind and scope apart, and keeps a count apart from one of another unit.
fn tag(bound: &Bound) -> String {
    match bound {
        Bound::Rate(rate) => format!("{}ms", rate.period().as_millis()),
        Bound::Daily { zone, .. } => format!("daily {zone}"),
        Bound::AtMost(_) => String::new(),
    }
}

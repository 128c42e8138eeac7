//! The shaper: [`Shaper::admit`] decides, a [`Lane`] is a path with its limits at hand.
//!
//! Invariant: a permit is granted only if every limit on the path agrees at that moment. Lanes that were told to
//! wait for the same limit are served in the order in which they came, if they come back when they were told to.
//!
//! Not here: the counts (`store.rs`), the limits (`policy.rs`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use postwright_core::Timestamp;

use crate::adapt::{AdaptSettings, Adaptation, Event, Gate, PathState, Signal, Suspension};
use crate::explain::Explanation;
use crate::limit::{Bound, Dimension, Kind, Limit};
use crate::path::Path;
use crate::permit::{Admission, Because, Later, Permit};
use crate::policy::Policy;
use crate::rate::RetryAt;
use crate::store::{Ask, LIMITS_PER_PATH, Refused, TokenStore};

const SHARDS: usize = 16;
/// How long to wait before asking again about a path whose policy is in error.
const BROKEN_POLICY_RETRY: Duration = Duration::from_secs(60);
/// A waiter for a connection is not told a time, since connections end when they like.
const CONNECTION_SPACING: Duration = Duration::from_millis(20);

/// How the shaper works; the rest is in the policy.
#[derive(Debug, Clone, PartialEq)]
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
    next_lane: AtomicU64,
}

/// A path with its limits at hand: asking by lane spares the look-up by path.
#[derive(Clone, Debug)]
pub struct Lane(Arc<LaneState>);

impl Lane {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The limits on it that are used up by sending.
    pub fn limits(&self) -> &[Limit] {
        &self.0.limits
    }
}

pub(crate) struct LaneState {
    id: u64,
    generation: u64,
    pub(crate) path: Path,
    pub(crate) limits: Vec<Limit>,
    pub(crate) messages_per_connection: Option<u32>,
    pub(crate) recipients_per_message: Option<u32>,
    store: Arc<dyn TokenStore>,
    ttl: Duration,
    adaptation: Arc<Adaptation>,
    pub(crate) adaptive: Option<Arc<PathState>>,
}

impl LaneState {
    pub(crate) fn store(&self) -> &dyn TokenStore {
        &*self.store
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("path", &self.path).finish_non_exhaustive()
    }
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
            next_lane: AtomicU64::new(1),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another policy in force. Counts of limits that keep their kind, scope and period go on.
    pub fn set_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.generation.fetch_add(1, Ordering::AcqRel);
        for shard in &self.lanes {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn shard(&self, path: &Path) -> MutexGuard<'_, HashMap<Path, Arc<LaneState>>> {
        let place = usize::try_from(self.hasher.hash_one(path) % SHARDS as u64).unwrap_or(0);
        self.lanes[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane of a path.
    pub fn lane(&self, path: &Path) -> Lane {
        Lane(self.lane_state(path))
    }

    fn lane_state(&self, path: &Path) -> Arc<LaneState> {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(found) = self.shard(path).get(path)
            && found.generation == generation
        {
            return Arc::clone(found);
        }
        let lane = Arc::new(self.build_lane(path, generation));
        self.shard(path).insert(path.clone(), Arc::clone(&lane));
        lane
    }

    fn build_lane(&self, path: &Path, generation: u64) -> LaneState {
        let mut lane = LaneState {
            id: self.next_lane.fetch_add(1, Ordering::Relaxed),
            generation,
            path: path.clone(),
            limits: Vec::new(),
            messages_per_connection: None,
            recipients_per_message: None,
            store: Arc::clone(&self.store),
            ttl: self.lease,
            adaptation: Arc::clone(&self.adaptation),
            adaptive: self.adaptive.then(|| self.adaptation.path_state(path)),
        };
        for applied in self.policy().resolve(path) {
            match (applied.kind, applied.bound) {
                (Kind::MessagesPerConnection, Bound::AtMost(most)) => {
                    lane.messages_per_connection = smaller(lane.messages_per_connection, most);
                }
                (Kind::RecipientsPerMessage, Bound::AtMost(most)) => {
                    lane.recipients_per_message = smaller(lane.recipients_per_message, most);
                }
                (kind, bound) => {
                    let key = path.key(kind, applied.scope, &tag(&bound));
                    let cell = self.store.cell(&key, &bound);
                    lane.limits.push(Limit {
                        kind,
                        scope: applied.scope,
                        bound,
                        key,
                        origin: applied.origin,
                        cell,
                    });
                }
            }
        }
        lane
    }

    /// Asks for a path.
    pub fn admit(&self, path: &Path, ask: Ask, now: Timestamp) -> Admission {
        decide(&self.lane_state(path), ask, now)
    }

    /// Asks for a lane; renews the lane if the policy has changed since.
    #[inline]
    pub fn admit_on(&self, lane: &mut Lane, ask: Ask, now: Timestamp) -> Admission {
        if lane.0.generation != self.generation.load(Ordering::Acquire) {
            *lane = self.lane(lane.path());
        }
        decide(&lane.0, ask, now)
    }

    /// All limits on a path, where they come from, and which of them can never bind.
    pub fn explain(&self, path: &Path) -> Explanation {
        let lane = self.lane_state(path);
        let per_connection = [lane.messages_per_connection, lane.recipients_per_message];
        Explanation::of(path.clone(), &lane.limits, per_connection)
    }

    /// A lane that no longer wants anything gives up its place in all queues at once.
    pub fn withdraw(&self, lane: &Lane) {
        for limit in &lane.0.limits {
            limit.cell.leave(lane.0.id);
        }
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

    /// Takes in what happened on a path; `text` is the receiver's reply, or empty.
    pub fn observe(&self, path: &Path, signal: Signal, text: &str, now: Timestamp) {
        let lane = self.lane_state(path);
        if let Some(state) = &lane.adaptive {
            self.adaptation.observe(state, path, signal, text, now);
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
        self.adaptation.undo(event, now)
    }
}

impl std::fmt::Debug for Shaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shaper").field("lease", &self.lease).finish_non_exhaustive()
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

fn decide(lane: &Arc<LaneState>, ask: Ask, now: Timestamp) -> Admission {
    if lane.limits.len() > LIMITS_PER_PATH {
        let because = Because::TooManyLimits(lane.limits.len());
        return Admission::Later(Later { until: now + BROKEN_POLICY_RETRY, because });
    }
    if let Some(suspension) = lane.adaptation.suspension(&lane.path, now) {
        return Admission::Later(Later {
            until: suspension.until,
            because: Because::Suspended(suspension.into()),
        });
    }
    for limit in &lane.limits {
        if ask.cost(limit.kind) != 0
            && let Err(RetryAt(until)) = limit.cell.turn(lane.id, now)
        {
            return wait_in_line(lane, limit, until, now);
        }
    }
    let entered = match lane.adaptive.as_ref().map(|state| state.enter(&ask, now)) {
        None => None,
        Some(Ok(entered)) => Some(entered),
        Some(Err((gate, until))) => return Admission::Later(Later { until, because: shown(gate) }),
    };
    match lane.store.take(&lane.limits, ask, lane.ttl, now) {
        Ok(receipt) => {
            for limit in &lane.limits {
                limit.cell.leave(lane.id);
            }
            Admission::Granted(Permit::new(Arc::clone(lane), receipt))
        }
        Err(refused) => {
            if let (Some(state), Some(entered)) = (&lane.adaptive, &entered) {
                state.take_back(entered);
            }
            refuse(lane, refused, now)
        }
    }
}

fn shown(gate: Gate) -> Because {
    match gate {
        Gate::Connections(most) => Because::ReceiverConnections(most),
        Gate::Pace => Because::ReceiverPace,
        Gate::Backoff => Because::BackOff,
    }
}

#[cold]
fn wait_in_line(lane: &LaneState, limit: &Limit, ready: Timestamp, now: Timestamp) -> Admission {
    let until = limit.cell.enqueue(lane.id, ready, spacing(limit), now);
    Admission::Later(Later { until, because: Because::Queue(Arc::new(limit.clone())) })
}

#[cold]
fn refuse(lane: &LaneState, refused: Refused, now: Timestamp) -> Admission {
    let Some(limit) = refused.limit.and_then(|index| lane.limits.get(index)) else {
        return Admission::Later(Later { until: refused.until, because: Because::Store });
    };
    // A lane waits in the queue of one limit only: the one that binds.
    for other in &lane.limits {
        if other.key != limit.key {
            other.cell.leave(lane.id);
        }
    }
    let until = limit.cell.enqueue(lane.id, refused.until, spacing(limit), now);
    Admission::Later(Later { until, because: Because::Limit(Arc::new(limit.clone())) })
}

fn spacing(limit: &Limit) -> Duration {
    match &limit.bound {
        Bound::Rate(rate) => rate.spacing(),
        // Whoever waits for midnight or for a connection may ask all at once.
        Bound::Daily { .. } | Bound::AtMost(_) => CONNECTION_SPACING,
    }
}

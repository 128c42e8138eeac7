//! [`PacedResolver`]: any [`Resolver`], asked no faster and no more at a time than an operator wants.
//!
//! Invariant: in every span of length t at most `burst + t * per_second` look-ups reach the resolver behind it, and
//! no more than `at_a_time` are under way at any moment, however many ask and however they go away. Whoever waits is
//! served in order; whoever would wait for longer than `patience` is told [`DnsError::Timeout`], which is no answer
//! and therefore never a reason to bounce. Only answers are remembered, no failures, and at most `remembered` of
//! them until their TTL ends: what is remembered costs nothing.
//!
//! Why: after an outage everything that waited asks at once. DNS operators throttle or drop such a crowd (and public
//! resolvers ban it), which looks like the next outage.
//!
//! Standards: RFC 1035 7.1 and RFC 2308 section 5 (TTLs of answers and of absences).
//!
//! Not here: retries, several servers (the resolver behind), limits by receiver (`Pace`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::{Answer, BoxFuture, Clock, DnsError, Instant, Name, RecordKind, Resolver};
use tokio::sync::Semaphore;
use tokio::time;

/// The longest time that an answer is remembered, whatever its TTL: an hour. The resolver behind keeps it longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// How often a log is told that look-ups are turned away.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How much a [`PacedResolver`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsPace {
    /// Look-ups in a second: 1,000. One of 0 counts as 1.
    pub per_second: u32,
    /// Look-ups that may start at once after a quiet time: 1,000; at least 1.
    pub burst: u32,
    /// Look-ups that are under way at a time: 128; at least 1.
    pub at_a_time: usize,
    /// How long a look-up may wait for its turn: 30 s.
    pub patience: Duration,
    /// Answers that are remembered: 8,192.
    pub remembered: usize,
}

impl Default for DnsPace {
    fn default() -> Self {
        DnsPace {
            per_second: 1000,
            burst: 1000,
            at_a_time: 128,
            patience: Duration::from_secs(30),
            remembered: 8192,
        }
    }
}

/// Asks another resolver at a pace; needs a tokio runtime with time around each look-up.
///
/// ```
/// use std::sync::Arc;
/// use postwright::core::{MemoryZone, SystemClock};
/// use postwright::{DnsPace, PacedResolver};
/// let mut pace = DnsPace::default();
/// (pace.per_second, pace.burst) = (50, 100);
/// let dns = PacedResolver::new(Arc::new(MemoryZone::new()), Arc::new(SystemClock::new()), pace);
/// ```
pub struct PacedResolver {
    behind: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    pace: DnsPace,
    places: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the next look-up would start if all kept to the rate exactly.
    next: Instant,
    memory: Memory,
    warned: Option<Instant>,
}

/// Answers in two halves: when the younger one is full, the older one is forgotten.
#[derive(Default)]
struct Memory {
    young: BTreeMap<(Name, RecordKind), Kept>,
    old: BTreeMap<(Name, RecordKind), Kept>,
}

#[derive(Clone)]
struct Kept {
    answer: Answer,
    until: Instant,
}

impl Memory {
    fn get(&self, question: &(Name, RecordKind), now: Instant) -> Option<Answer> {
        let kept = self.young.get(question).or_else(|| self.old.get(question))?;
        if now >= kept.until {
            return None;
        }
        let left = kept.until.since(now).as_secs();
        let mut answer = kept.answer.clone();
        answer.ttl = u32::try_from(left).unwrap_or(u32::MAX).min(answer.ttl);
        Some(answer)
    }

    fn put(&mut self, question: (Name, RecordKind), kept: Kept, most: usize) {
        if self.young.len() >= most.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(question, kept);
    }
}

impl PacedResolver {
    /// Asks `behind` at a pace, by the time of `clock`.
    pub fn new(behind: Arc<dyn Resolver>, clock: Arc<dyn Clock>, pace: DnsPace) -> PacedResolver {
        let places = Semaphore::new(pace.at_a_time.clamp(1, Semaphore::MAX_PERMITS));
        PacedResolver { behind, clock, pace, places, state: Mutex::default() }
    }

    async fn ask(&self, name: &Name, kind: RecordKind) -> Result<Answer, DnsError> {
        let question = (name.clone(), kind);
        let came = self.clock.mono();
        if let Some(answer) = self.state().memory.get(&question, came) {
            return Ok(answer);
        }
        let Ok(place) = time::timeout(self.pace.patience, self.places.acquire()).await else {
            return Err(self.turned_away());
        };
        // The semaphore is never closed.
        let _place = place.map_err(|_| DnsError::ServFail)?;
        // Somebody may have asked the same meanwhile.
        if let Some(answer) = self.state().memory.get(&question, self.clock.mono()) {
            return Ok(answer);
        }
        // A turn is taken last: one that were taken before the place could be used together with many others, later.
        let Some(wait) = self.turn(came) else { return Err(self.turned_away()) };
        if !wait.is_zero() {
            time::sleep(wait).await;
        }
        let answer = self.behind.lookup(name, kind).await?;
        let lives = Duration::from_secs(answer.ttl.into()).min(REMEMBERED_FOR);
        if self.pace.remembered > 0 && !lives.is_zero() {
            let kept = Kept { answer: answer.clone(), until: self.clock.mono() + lives };
            self.state().memory.put(question, kept, self.pace.remembered);
        }
        Ok(answer)
    }

    /// Takes the next turn and says how long it is until then; `None`, and nothing is taken, if that is too long for
    /// somebody who came at `came`. The generic cell rate algorithm in its virtual scheduling form.
    fn turn(&self, came: Instant) -> Option<Duration> {
        let now = self.clock.mono();
        let spacing = Duration::from_secs(1) / self.pace.per_second.max(1);
        let tolerance = spacing.saturating_mul(self.pace.burst.saturating_sub(1));
        let mut state = self.state();
        let next = state.next.max(now);
        // `since` is zero for what lies in the past.
        let wait = next.since(now).saturating_sub(tolerance);
        if now.since(came) + wait > self.pace.patience {
            return None;
        }
        state.next = next + spacing;
        Some(wait)
    }

    fn turned_away(&self) -> DnsError {
        let now = self.clock.mono();
        let mut state = self.state();
        if state.warned.is_none_or(|at| now.since(at) >= WARN_EVERY) {
            state.warned = Some(now);
            tracing::warn!(
                per_second = self.pace.per_second,
                at_a_time = self.pace.at_a_time,
                "DNS look-ups had to wait for too long: their limits are too low, or the servers too slow"
            );
        }
        DnsError::Timeout
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and every state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for PacedResolver {
    fn lookup<'a>(&'a self, name: &'a Name, kind: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(self.ask(name, kind))
    }
}

impl std::fmt::Debug for PacedResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacedResolver").field("pace", &self.pace).finish_non_exhaustive()
    }
}

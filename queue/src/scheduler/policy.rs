//! When to try again, for how long, and who is served how often: [`RetryPolicy`], chosen by [`Selector`].
//!
//! Invariant: a delay is never zero and never beyond the schedule's longest.
//!
//! Standards: RFC 5321 4.5.4.1 (retry for at least 4 to 5 days; more often at first), RFC 6647 (greylisting),
//! RFC 6710 (priorities), RFC 5321 3.8 (421).
//!
//! Not here: the classification of replies in general (bounce).

use std::time::Duration;

use postwright_core::{DeliveryStatus, Diagnostic, Domain, Entropy, Host, Timestamp};

use super::jobs::Jobs;
use super::lane::Lane;
use crate::SpoolId;

/// The time between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// `first`, then each time `percent` of the one before, up to `longest`.
    Exponential {
        /// The first delay.
        first: Duration,
        /// Growth in percent: 200 doubles.
        percent: u32,
        /// No delay is longer.
        longest: Duration,
    },
    /// These delays; the last one repeats.
    Table(Vec<Duration>),
}

impl Schedule {
    const SHORTEST: Duration = Duration::from_secs(1);

    /// The delay after `step` steps, before jitter.
    pub fn delay(&self, step: u32) -> Duration {
        let delay = match self {
            Schedule::Exponential { first, percent, longest } => {
                let mut delay = (*first).min(*longest);
                for _ in 0..step {
                    delay = (delay.saturating_mul(*percent) / 100).min(*longest);
                    // Neither direction can change any more.
                    if delay == *longest || *percent <= 100 {
                        break;
                    }
                }
                delay
            }
            Schedule::Table(delays) => {
                let at = usize::try_from(step).unwrap_or(usize::MAX).min(delays.len().saturating_sub(1));
                delays.get(at).copied().unwrap_or(Schedule::SHORTEST)
            }
        };
        delay.max(Schedule::SHORTEST)
    }

    /// The longest delay.
    pub fn longest(&self) -> Duration {
        match self {
            Schedule::Exponential { first, longest, .. } => (*longest).max((*first).min(*longest)),
            Schedule::Table(delays) => delays.iter().copied().max().unwrap_or(Schedule::SHORTEST),
        }
        .max(Schedule::SHORTEST)
    }
}

/// How messages of a lane are retried and served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The time between attempts.
    pub schedule: Schedule,
    /// Percent by which a delay is made longer or shorter at random, 0 to 100, so that what failed together does
    /// not come back together.
    pub jitter: u32,
    /// How long a message is tried. It becomes [`Entry::expires`](crate::Entry::expires) when it is accepted.
    pub lifetime: Duration,
    /// After which time the sender is told of the delay; `None` never.
    pub warn_after: Option<Duration>,
    /// The delay after a reply that looks like greylisting, for the first few times.
    pub greylist_delay: Duration,
    /// How many attempts may be taken for greylisting; they cost no step.
    pub greylist_tries: u32,
    /// Share of the capacity beside other streams at the same site, 1 to 1000.
    pub weight: u32,
}

impl Default for RetryPolicy {
    /// 5 minutes, doubling to 2 hours, 10% jitter, for 5 days, a warning after 4 hours, weight 10.
    fn default() -> RetryPolicy {
        RetryPolicy {
            schedule: Schedule::Exponential {
                first: Duration::from_secs(300),
                percent: 200,
                longest: Duration::from_secs(7200),
            },
            jitter: 10,
            lifetime: Duration::from_secs(5 * 86_400),
            warn_after: Some(Duration::from_secs(4 * 3600)),
            greylist_delay: Duration::from_secs(300),
            greylist_tries: 3,
            weight: 10,
        }
    }
}

/// When to try next, and whether the attempt counts as a step on the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) delay: Duration,
    pub(super) is_step: bool,
}

impl RetryPolicy {
    /// The next delay after a status that is not final, given the steps and attempts so far (this one included).
    pub(super) fn after(
        &self,
        status: &DeliveryStatus,
        steps: u32,
        attempts: u32,
        entropy: &dyn Entropy,
    ) -> Retry {
        let (delay, is_step) = if is_shutting_down(status) {
            // "Later", not "failed": the connection was the problem (RFC 5321 3.8).
            (self.schedule.delay(0), false)
        } else if attempts <= self.greylist_tries && looks_like_greylisting(status) {
            (self.greylist_delay, false)
        } else {
            (self.schedule.delay(steps), true)
        };
        Retry { delay: self.jittered(delay, entropy), is_step }
    }

    fn jittered(&self, delay: Duration, entropy: &dyn Entropy) -> Duration {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX / 200);
        let span = millis.saturating_mul(u64::from(self.jitter.min(100))) / 100;
        let offset = entropy.below(span.saturating_mul(2).saturating_add(1));
        Duration::from_millis((millis - span).saturating_add(offset)).max(Schedule::SHORTEST)
    }
}

/// 421: the server closes the connection, whatever the message (RFC 5321 3.8).
fn is_shutting_down(status: &DeliveryStatus) -> bool {
    matches!(&status.diagnostic, Diagnostic::Smtp(reply) if reply.code().get() == 421)
}

/// 450 or 451 with 4.7.1, or a text that says so (RFC 6647 2.1 shows both).
fn looks_like_greylisting(status: &DeliveryStatus) -> bool {
    let Diagnostic::Smtp(reply) = &status.diagnostic else { return false };
    if !matches!(reply.code().get(), 450 | 451) {
        return false;
    }
    let policy = reply.status().is_some_and(|status| (status.subject(), status.detail()) == (7, 1));
    let text = reply.text().to_ascii_lowercase();
    policy || ["greylist", "graylist", "grey-list", "grey list"].iter().any(|word| text.contains(word))
}

/// Which messages something applies to; what is `None` matches everything.
///
/// ```
/// use postwright_queue::scheduler::Selector;
/// let bulk = Selector { stream: Some("bulk".into()), ..Selector::default() };
/// assert_eq!(bulk.to_string(), "stream=\"bulk\"");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// One message.
    pub message: Option<SpoolId>,
    /// The messages of one [job](super::JOB).
    pub job: Option<Box<str>>,
    /// A tenant.
    pub tenant: Option<Box<str>>,
    /// A stream.
    pub stream: Option<Box<str>>,
    /// A destination: the domain itself, not what lies below it.
    pub domain: Option<Domain>,
}

impl Selector {
    /// Whether a lane matches; a selector of some of its messages matches no lane as a whole.
    pub(super) fn matches_lane(&self, lane: &Lane) -> bool {
        !self.is_of_messages() && self.matches(lane)
    }

    /// Whether it names messages, or a job, and not lanes.
    pub(super) fn is_of_messages(&self) -> bool {
        self.message.is_some() || self.job.is_some()
    }

    fn matches(&self, lane: &Lane) -> bool {
        self.tenant.as_deref().is_none_or(|tenant| tenant == &*lane.tenant)
            && self.stream.as_deref().is_none_or(|stream| stream == &*lane.stream)
            && self
                .domain
                .as_ref()
                .is_none_or(|domain| matches!(&lane.host, Host::Domain(host) if host == domain))
    }

    /// Whether a message of a lane matches.
    pub(super) fn matches_message(&self, id: SpoolId, jobs: &Jobs, lane: &Lane) -> bool {
        self.message.is_none_or(|message| message == id)
            && self.job.as_deref().is_none_or(|job| jobs.has(job, id))
            && self.matches(lane)
    }
}

/// `message=... job="..." tenant="..." stream="..." domain=...`, or `*` for everything.
impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.message.map(|id| format!("message={id}")));
        parts.extend(self.job.as_ref().map(|job| format!("job={job:?}")));
        parts.extend(self.tenant.as_ref().map(|tenant| format!("tenant={tenant:?}")));
        parts.extend(self.stream.as_ref().map(|stream| format!("stream={stream:?}")));
        parts.extend(self.domain.as_ref().map(|domain| format!("domain={domain}")));
        if parts.is_empty() { f.write_str("*") } else { f.write_str(&parts.join(" ")) }
    }
}

/// The policies of a scheduler: the first rule that matches a lane, or the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// Overrides, most special first. A rule with a `message` or a `job` matches nothing.
    pub rules: Vec<(Selector, RetryPolicy)>,
    /// For everything else.
    pub default: RetryPolicy,
}

impl Policies {
    /// The policy of a lane.
    pub fn of(&self, lane: &Lane) -> &RetryPolicy {
        self.rules
            .iter()
            .find(|(selector, _)| selector.matches_lane(lane))
            .map_or(&self.default, |(_, policy)| policy)
    }

    /// When a message's lifetime may end at most, whatever was stored by a clock that was wrong.
    pub(super) fn longest_lifetime(&self) -> Duration {
        self.all().map(|policy| policy.lifetime).max().unwrap_or_default()
    }

    /// The longest time between attempts of any policy.
    pub fn longest_retry(&self) -> Duration {
        let longest = self.all().map(|policy| policy.schedule.longest().max(policy.greylist_delay)).max();
        longest.unwrap_or(Schedule::SHORTEST)
    }

    fn all(&self) -> impl Iterator<Item = &RetryPolicy> {
        self.rules.iter().map(|(_, policy)| policy).chain([&self.default])
    }
}

/// The moment `span` after `at` in whole seconds, rounded up, for the index of lifetimes.
pub(super) fn second_of(at: Timestamp) -> u32 {
    u32::try_from(at.millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use postwright_core::{EnhancedStatus, Phase, Reply, SeededEntropy};

    use super::*;

    fn status(code: u16, enhanced: (u16, u16), text: &str) -> DeliveryStatus {
        let reply = Reply::known(code, EnhancedStatus::known(4, enhanced.0, enhanced.1), text);
        DeliveryStatus::from_reply(reply, Phase::Rcpt, None, Timestamp::default())
    }

    #[test]
    fn delays_grow_to_the_longest() {
        let schedule = RetryPolicy::default().schedule;
        let minutes: Vec<u64> = (0..7).map(|step| schedule.delay(step).as_secs() / 60).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 120, 120]);
        assert_eq!(schedule.delay(u32::MAX), schedule.longest());
        let table = Schedule::Table(vec![Duration::from_secs(60), Duration::from_secs(30)]);
        let seconds: Vec<u64> = (0..4).map(|step| table.delay(step).as_secs()).collect();
        assert_eq!(seconds, [60, 30, 30, 30]);
        assert_eq!(table.longest(), Duration::from_secs(60));
        assert_eq!(Schedule::Table(Vec::new()).delay(3), Duration::from_secs(1));
    }

    #[test]
    fn a_421_and_greylisting_cost_no_step() {
        let policy = RetryPolicy { jitter: 0, ..RetryPolicy::default() };
        let entropy = SeededEntropy::new(1);
        let after =
            |status: &DeliveryStatus, steps, attempts| policy.after(status, steps, attempts, &entropy);
        let closing = status(421, (3, 2), "shutting down");
        let free = |seconds| Retry { delay: Duration::from_secs(seconds), is_step: false };
        assert_eq!(after(&closing, 4, 9), free(300));
        assert_eq!(after(&status(451, (7, 1), "try again"), 0, 1), free(300));
        assert_eq!(after(&status(450, (2, 0), "You are Greylisted"), 0, 3), free(300));
        let step = |seconds| Retry { delay: Duration::from_secs(seconds), is_step: true };
        assert_eq!(after(&status(450, (2, 0), "You are Greylisted"), 1, 4), step(600));
        assert_eq!(after(&status(452, (2, 2), "mailbox full"), 0, 1), step(300));
    }

    proptest::proptest! {
        #[test]
        fn jitter_stays_within_its_percentage(seed: u64, percent in 0u32..=100, step in 0u32..9) {
            let policy = RetryPolicy { jitter: percent, ..RetryPolicy::default() };
            let plain = policy.schedule.delay(step).as_millis();
            let retry = policy.after(&status(451, (2, 0), "later"), step, 9, &SeededEntropy::new(seed));
            let off = retry.delay.as_millis().abs_diff(plain);
            assert!(off * 100 <= plain * u128::from(percent) || retry.delay == Duration::from_secs(1));
        }
    }
}

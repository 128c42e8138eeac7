//! The numbers that an [`Mta`](crate::Mta) keeps to.

use std::time::Duration;

use postwright_queue::scheduler::{RetryPolicy, Schedule};

/// Limits and times; change them with [`Builder::settings`](crate::Builder::settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The pauses between attempts.
    pub retry: Retry,
    /// How long a message is tried: 5 days (RFC 5321 4.5.4.1 asks for at least 4 to 5).
    pub lifetime: Duration,
    /// After which time a sender is told of a delay: 4 hours; `None` never.
    pub warn_after: Option<Duration>,
    /// Attempts that run at a time: 200. As many connections again may be kept idle for the next message.
    pub connections: usize,
    /// Attempts that run at a time to one site: 10.
    pub connections_per_site: usize,
    /// Octets of messages on their way out that may be in memory: 256 MiB. An attempt waits for room.
    pub bodies: usize,
    /// Whether a message counts as taken if the server is silent for ten minutes behind its end (RFC 5321 4.5.3.2.6): no. It may
    /// not have arrived, so it is still ours (RFC 5321 6.1) and is tried again, and the recipient may get it twice (RFC 1047).
    /// With `true` nobody gets it twice for that reason, and **it may be lost**.
    pub assume_delivered: bool,
    /// Messages that the queue holds: 1,000,000. One more is refused with 452 4.3.1.
    pub queued: usize,
    /// Received fields that a message may have: 50; one more and it is refused with 554 5.4.6 (RFC 5321 6.3).
    pub hops: usize,
    /// Notifications that one sender gets at once, and in each hour after that: 100; 0 is no limit. Those above it are
    /// queued and sent when their time comes.
    pub notifications_per_hour: u64,
    /// How long running attempts may take when the system is told to stop: 5 s.
    pub drain_timeout: Duration,
    /// How long to leave the spool alone after it failed: 5 s.
    pub spool_pause: Duration,
    /// How long it is remembered to which site a domain belongs: 10 minutes.
    pub route_cache: Duration,
    /// On a spool that several nodes share: messages that this one claims ahead, 10,000.
    pub claim_ahead: usize,
    /// The same: only what is due within this time is claimed, 5 minutes; what is due later than twice this is
    /// released for whichever node is there by then.
    pub claim_horizon: Duration,
}

/// Exponential pauses with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// After the first attempt: 5 minutes. Each further one is twice as long.
    pub first: Duration,
    /// The longest: 4 hours.
    pub longest: Duration,
    /// How much a pause is made longer or shorter at random, in percent: 10.
    pub jitter: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            retry: Retry {
                first: Duration::from_secs(300),
                longest: Duration::from_secs(4 * 3600),
                jitter: 10,
            },
            lifetime: Duration::from_secs(5 * 86_400),
            warn_after: Some(Duration::from_secs(4 * 3600)),
            connections: 200,
            connections_per_site: 10,
            bodies: 256 << 20,
            assume_delivered: false,
            queued: 1_000_000,
            hops: 50,
            notifications_per_hour: 100,
            drain_timeout: Duration::from_secs(5),
            spool_pause: Duration::from_secs(5),
            route_cache: Duration::from_secs(600),
            claim_ahead: 10_000,
            claim_horizon: Duration::from_secs(300),
        }
    }
}

impl Settings {
    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        let Retry { first, longest, jitter } = self.retry;
        let mut policy = RetryPolicy::default();
        policy.schedule = Schedule::Exponential { first, percent: 200, longest };
        policy.jitter = jitter;
        policy.lifetime = self.lifetime;
        policy.warn_after = self.warn_after;
        policy.greylist_delay = policy.greylist_delay.min(first);
        policy
    }
}

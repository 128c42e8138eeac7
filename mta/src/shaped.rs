//! [`Shaped`]: the pace that a [`Shaper`] sets, which learns from what the [`Classifier`] makes of each status.
//!
//! What mail is counted by: the recipient's domain; the site and the provider of the *next hop*. By MX that is the
//! set of the domain's mail hosts; with a smart host it is the smart host, whatever domains it is handed, since it is
//! who takes the connections, while a limit for one domain still holds on its own.
//!
//! Not here: the limits (shaping), connections (transfer.rs).

use std::sync::Arc;
use std::time::Duration;

use postwright_bounce::classify::{Action, Category, Classifier};
use postwright_core::{DeliveryStatus, Domain, Entropy, Outcome, Phase, Timestamp};
use postwright_shaping::{
    Admission, Ask, Because, Dimension, Egress, Kind, Later, Mode, Path, Permit, Provider, Shaper, Signal,
    Site, Source, Way,
};

use crate::pace::{Departure, Exit, NotNow, Pace, Pass, Returned, Sent};

/// How long a way out that failed is left alone.
const EXIT_PAUSE: Duration = Duration::from_secs(60);

/// The pool that mail of a tenant and a stream leaves by.
type PoolOf = dyn Fn(Option<&str>, Option<&str>) -> Option<Arc<str>> + Send + Sync;
/// The provider behind mail hosts.
type ProviderOf = dyn Fn(&[Domain]) -> Option<Arc<str>> + Send + Sync;

/// Limits by a [`Shaper`].
pub struct Shaped {
    shaper: Arc<Shaper>,
    classifier: Arc<Classifier>,
    egress: Arc<Egress>,
    pool_of: Box<PoolOf>,
    provider_of: Box<ProviderOf>,
    entropy: Option<Arc<dyn Entropy>>,
}

impl Shaped {
    /// Keeps to the shaper's limits, by one way out, with the built-in table of providers.
    pub fn new(shaper: Arc<Shaper>, classifier: Arc<Classifier>) -> Shaped {
        Shaped {
            shaper,
            classifier,
            egress: Arc::default(),
            pool_of: Box::new(|_, _| None),
            provider_of: Box::new(|hosts| {
                let first = Provider::of_host(hosts.first()?)?;
                let all = hosts.iter().all(|host| Provider::of_host(host) == Some(first));
                all.then(|| first.name.into())
            }),
            entropy: None,
        }
    }

    /// With ways out: `pool_of` says by which pool mail of a tenant and a stream leaves; without one it leaves as
    /// the system likes.
    #[must_use]
    pub fn with_egress(
        self,
        egress: Arc<Egress>,
        entropy: Arc<dyn Entropy>,
        pool_of: impl Fn(Option<&str>, Option<&str>) -> Option<Arc<str>> + Send + Sync + 'static,
    ) -> Shaped {
        Shaped { egress, entropy: Some(entropy), pool_of: Box::new(pool_of), ..self }
    }

    /// With another way to tell providers by their hosts.
    #[must_use]
    pub fn with_providers(
        self,
        provider_of: impl Fn(&[Domain]) -> Option<Arc<str>> + Send + Sync + 'static,
    ) -> Shaped {
        Shaped { provider_of: Box::new(provider_of), ..self }
    }

    fn pool(&self, departure: Departure<'_>) -> Option<Arc<str>> {
        (self.pool_of)(named(departure.tenant), named(departure.stream))
    }

    /// The path without its way out.
    fn path(&self, departure: Departure<'_>) -> Path {
        Path {
            tenant: named(departure.tenant).map(Into::into),
            stream: named(departure.stream).map(Into::into),
            provider: (self.provider_of)(departure.hosts),
            ..Path::to(departure.domain.clone()).at_site(Site::named(departure.site))
        }
    }

    fn path_by(&self, departure: Departure<'_>, exit: Option<Arc<str>>) -> Path {
        let path = self.path(departure);
        match exit {
            None => path,
            Some(name) => Path { source: Some(name), pool: self.pool(departure), ..path },
        }
    }

    /// The names of all sources that a departure may leave by; one without a name if there is no pool.
    fn sources(&self, departure: Departure<'_>, now: Timestamp) -> Vec<Option<Arc<str>>> {
        let pool = self.pool(departure);
        let pool = pool.as_deref().and_then(|name| self.egress.pool(name));
        let order = pool.and_then(|pool| self.egress.candidates(pool, Self::key(departure), 0, now).ok());
        match order {
            Some(order) => order.iter().map(|source| Some(Arc::clone(&source.name))).collect(),
            None => vec![None],
        }
    }

    /// What sticks to a source: whose mail it is, or else which kind, or else where it goes.
    fn key<'a>(departure: Departure<'a>) -> &'a str {
        let keys = [departure.tenant, departure.stream, departure.domain.as_str()];
        keys.into_iter().find(|key| !key.is_empty()).unwrap_or_default()
    }

    /// Whether the order of the pool has a source before this one that would take the message. In a weighted pool
    /// there is no order, and an open connection is used again.
    fn another_is_first(&self, departure: Departure<'_>, exit: &Exit, now: Timestamp) -> bool {
        let Some(name) = self.pool(departure) else { return false };
        let Some(pool) = self.egress.pool(&name).filter(|pool| pool.mode != Mode::Weighted) else {
            return false;
        };
        let Ok(order) = self.egress.candidates(pool, Self::key(departure), 0, now) else { return false };
        let before = order.iter().take_while(|source| source.name != exit.name);
        before.into_iter().any(|source| {
            let path = Path {
                source: Some(Arc::clone(&source.name)),
                pool: Some(Arc::clone(&name)),
                ..self.path(departure)
            };
            let lane = self.shaper.lane(&path, now);
            match self.shaper.admit(&path, Ask::first_message(departure.octets), now) {
                Admission::Granted(permit) => {
                    permit.give_back();
                    true
                }
                Admission::Later(_) => {
                    self.shaper.withdraw(&lane);
                    false
                }
            }
        })
    }

    fn signal(&self, status: &DeliveryStatus) -> Option<Signal> {
        Some(match status.outcome {
            Outcome::Delivered | Outcome::Relayed => Signal::Delivered,
            Outcome::Unknown => return None,
            Outcome::Delayed | Outcome::Failed if status.phase <= Phase::Connect => {
                if status.phase == Phase::Resolve {
                    return None;
                }
                Signal::Unreachable
            }
            Outcome::Delayed if status.phase <= Phase::Hello => Signal::ConnectionThrottled,
            Outcome::Delayed | Outcome::Failed => {
                let verdict = self.classifier.classify(status);
                let failed = status.outcome == Outcome::Failed;
                match (verdict.category, verdict.action) {
                    (Category::Blocked | Category::BadReputation, _) => Signal::Blocked,
                    (Category::Greylisted, _) => Signal::Greylisted,
                    (_, Action::SlowDown) => Signal::Throttled,
                    _ if failed => Signal::Bounced,
                    _ => Signal::Deferred,
                }
            }
        })
    }
}

fn named(text: &str) -> Option<&str> {
    if text.is_empty() { None } else { Some(text) }
}

fn pass(permit: Permit, exit: Option<Arc<Exit>>) -> Pass {
    let messages = permit.messages_per_connection();
    Pass::new(permit).by(exit).for_messages(messages)
}

fn not_now(later: &Later) -> NotNow {
    let connections = match &later.because {
        Because::Limit(limit) | Because::Queue(limit) => limit.kind == Kind::Concurrency,
        Because::ReceiverConnections(_) => true,
        _ => false,
    };
    NotNow { until: later.until, because: later.because.to_string().into(), connections }
}

fn exit(source: &Source) -> Exit {
    let Source { name, ip, ehlo, proxy } = source.clone();
    Exit { name, ip, ehlo, proxy }
}

impl Pace for Shaped {
    fn admit(&self, departure: Departure<'_>, now: Timestamp) -> Result<Pass, NotNow> {
        let ask = Ask::first_message(departure.octets);
        let (source, admission) = match self.pool(departure) {
            None => (None, self.shaper.admit(&self.path(departure), ask, now)),
            Some(pool) => {
                let key = Self::key(departure);
                let mut draw = [0; 8];
                if let Some(entropy) = &self.entropy {
                    entropy.fill(&mut draw);
                }
                let way = Way { egress: &self.egress, pool: &pool, key, draw: u64::from_le_bytes(draw) };
                self.shaper.admit_from(way, &self.path(departure), ask, now)
            }
        };
        match admission {
            Admission::Granted(permit) => Ok(pass(permit, source.map(|source| Arc::new(exit(&source))))),
            Admission::Later(later) => Err(not_now(&later)),
        }
    }

    fn admit_on(&self, departure: Departure<'_>, exit: Option<&Exit>, now: Timestamp) -> Result<(), NotNow> {
        if let Some(exit) = exit
            && self.another_is_first(departure, exit, now)
        {
            return Err(NotNow::new(now, "another source of the pool comes first"));
        }
        let path = self.path_by(departure, exit.map(|exit| Arc::clone(&exit.name)));
        match self.shaper.admit(&path, Ask::message(departure.octets), now) {
            // A message needs nothing to be held.
            Admission::Granted(permit) => {
                permit.release();
                Ok(())
            }
            Admission::Later(later) => Err(not_now(&later)),
        }
    }

    fn observe(&self, departure: Departure<'_>, sent: Sent<'_>, now: Timestamp) {
        let path = self.path_by(departure, sent.exit.map(|exit| Arc::clone(&exit.name)));
        let mut tell_connection = sent.new_connection;
        for status in sent.statuses {
            let signal = self.signal(status);
            let about_connection = matches!(signal, Some(Signal::Unreachable | Signal::ConnectionThrottled));
            if tell_connection && status.phase > Phase::Hello {
                // The server took the connection: the number that it takes may grow.
                self.shaper.observe(&path, Signal::Connected, "", now);
            }
            // One connection, one word on it, however many recipients there are.
            if let Some(signal) = signal
                && (tell_connection || !about_connection)
            {
                self.shaper.observe(&path, signal, &status.diagnostic.to_string(), now);
            }
            tell_connection = false;
        }
    }

    fn returned(&self, returned: Returned<'_>, now: Timestamp) {
        let path = self.path_by(returned.departure, returned.exit.map(Into::into));
        let signal = if returned.complaint { Signal::Complained } else { Signal::Bounced };
        self.shaper.observe(&path, signal, returned.note, now);
    }

    /// The smallest number of all sources that it may leave by: which of them it will be is not known yet.
    fn recipients(&self, departure: Departure<'_>, now: Timestamp) -> Option<u32> {
        let sources = self.sources(departure, now).into_iter();
        sources
            .filter_map(|source| {
                let path = self.path_by(departure, source);
                self.shaper.recipients_per_message(&path, now)
            })
            .min()
    }

    fn way(&self, departure: Departure<'_>) -> Arc<str> {
        self.pool(departure).unwrap_or_default()
    }

    fn exit_failed(&self, exit: &Exit, why: &str, now: Timestamp) {
        tracing::warn!(source = %exit.name, %why, "a source cannot be used; its mail takes another one");
        self.shaper.suspend(&[(Dimension::Source, &exit.name)], now + EXIT_PAUSE, why, now);
    }
}

#[cfg(test)]
mod tests {
    use postwright_shaping::{Change, MemoryTokenStore, Policy, WarmUp, Zone};

    use super::*;

    /// The source and the provider are those of the servers that took the message, not of the recipient's domain.
    #[test]
    fn what_comes_back_later_counts_for_the_source_and_the_provider_that_took_it() {
        let now = Timestamp::from_secs(1_800_000_000);
        let shaper = Arc::new(Shaper::new(Policy::new(), Arc::new(MemoryTokenStore::new())));
        let plan = |source: &str, provider: &str| WarmUp {
            name: format!("{source} {provider}").into(),
            provider: Some(provider.into()),
            ..WarmUp::of(source, "1000*9".parse().unwrap(), Zone::UTC.day(now))
        };
        let plans = ["a gmail", "b gmail", "a yahoo"].map(|name| name.split_once(' ').unwrap());
        shaper.set_warmups(plans.map(|(source, provider)| plan(source, provider)).into(), now);
        let pace = Shaped::new(Arc::clone(&shaper), Arc::new(Classifier::built_in()));
        let (domain, host) = ("customer.example".parse().unwrap(), "aspmx.l.google.com".parse().unwrap());
        let hosts = [host];
        let departure =
            Departure { domain: &domain, hosts: &hosts, site: "site", tenant: "", stream: "", octets: 0 };
        let returned =
            |complaint| Returned { departure, exit: Some("a"), complaint, note: "550 5.1.1 no such user" };
        let path = pace.path_by(departure, Some("a".into()));
        assert_eq!(path.provider.as_deref(), Some("gmail"));
        for _ in 0..100 {
            shaper.observe(&path, Signal::Delivered, "", now);
        }
        // 2 of 102 are no more than 2 %, 3 of 103 are.
        for paused in [0, 0, 1] {
            pace.returned(returned(false), now);
            assert_eq!(shaper.events().len(), paused);
        }
        assert_eq!(shaper.events()[0].change, Change::WarmUpPaused { plan: "a gmail".into() });
        // Fifty complaints an hour are the built-in rule's.
        for slowed in [false, true] {
            let is_pace = |event: &postwright_shaping::Event| matches!(event.change, Change::Pace { .. });
            assert_eq!(shaper.events().iter().any(is_pace), slowed);
            (0..50).for_each(|_| pace.returned(returned(true), now));
        }
    }
}

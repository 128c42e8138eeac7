//! Finding the policy of a domain, and keeping the kept ones fresh.
//!
//! Invariant: a fetch that failed is not tried again for the same announcement before [`PAUSE`] is over, however
//! many messages ask; meanwhile the kept policy stands, or there is none. At most [`REMEMBERED`] failures are
//! remembered.
//!
//! Standards: RFC 8461 3.3 (limits on fetching again), 5.1 (control flow), 10.2 (daily refresh).
//!
//! Not here: the text of policies and records (sts.rs).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postwright_core::{Domain, Name, RecordKind, Resolver, Timestamp};

use super::{
    FETCH_TIMEOUT, Fetch, FetchError, Fetched, Found, Kept, Mode, POLICY_MAX, Policy, Store, Trouble,
    record_id,
};

/// How long a failed fetch is not repeated: 5 minutes (RFC 8461 3.3).
pub const PAUSE: Duration = Duration::from_secs(300);
/// Most failures that are remembered; of more, the oldest are forgotten.
pub const REMEMBERED: usize = 10_000;
/// Policies are fetched again when they are this old: a day (RFC 8461 10.2).
pub const REFRESH: Duration = Duration::from_secs(86_400);

/// A domain's policy, and what was wrong with a newer one, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What holds.
    pub found: Found,
    /// Why it is not the one that DNS announces.
    pub trouble: Option<Trouble>,
}

impl Finding {
    /// There is no policy, and nothing wrong with that.
    pub const NONE: Finding = Finding { found: Found::None, trouble: None };
}

/// A fetch that failed.
#[derive(Debug)]
struct Failure {
    id: Box<str>,
    at: Timestamp,
    trouble: Trouble,
}

/// Finds policies: fetches them when they are new, keeps them, and fetches them again now and then. Cheap to clone.
#[derive(Clone)]
pub struct Finder {
    fetch: Arc<dyn Fetch>,
    store: Arc<dyn Store>,
    failures: Arc<Mutex<BTreeMap<Domain, Failure>>>,
}

impl Finder {
    /// Fetches by `fetch` and keeps in `store`.
    pub fn new(fetch: Arc<dyn Fetch>, store: Arc<dyn Store>) -> Finder {
        Finder { fetch, store, failures: Arc::default() }
    }

    /// The policy of a domain: the kept one, or a newer one if DNS announces it and it can be fetched.
    pub async fn find(&self, domain: &Domain, resolver: &dyn Resolver, now: Timestamp) -> Finding {
        let kept = match kept(domain, &*self.store, now).await {
            Ok(kept) => kept,
            Err(found) => return Finding { found, trouble: None },
        };
        let Some(id) = announced(domain, kept.as_ref(), resolver).await else {
            return Finding { found: holds(kept), trouble: None };
        };
        if let Some(trouble) = self.recent_failure(domain, &id, now) {
            return Finding { found: holds(kept), trouble: Some(trouble) };
        }
        let finding = renew(domain, kept, id.clone(), &*self.fetch, &*self.store, now).await;
        self.remember(domain, id, now, finding.trouble.as_ref());
        finding
    }

    /// Fetches again the kept policies that are a day old, so that they do not run out while their domain still
    /// has one; those that cannot be fetched stand until they expire. Says how many were renewed.
    ///
    /// # Errors
    /// The store failed; nothing is lost by it.
    pub async fn refresh(&self, now: Timestamp) -> Result<usize, String> {
        let mut renewed = 0;
        for domain in self.store.domains().await? {
            let Some(old) = self.store.load(&domain).await?.filter(|kept| kept.is_alive(now)) else {
                continue;
            };
            if now.since(old.at) < REFRESH || self.recent_failure(&domain, &old.id, now).is_some() {
                continue;
            }
            let id = old.id.clone();
            let finding = renew(&domain, Some(old), id.clone(), &*self.fetch, &*self.store, now).await;
            self.remember(&domain, id, now, finding.trouble.as_ref());
            renewed += usize::from(finding.trouble.is_none());
        }
        Ok(renewed)
    }

    fn recent_failure(&self, domain: &Domain, id: &str, now: Timestamp) -> Option<Trouble> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = failures.get(domain).filter(|failure| *failure.id == *id)?;
        (now.since(failure.at) < PAUSE).then(|| failure.trouble.clone())
    }

    fn remember(&self, domain: &Domain, id: Box<str>, at: Timestamp, trouble: Option<&Trouble>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(trouble) = trouble.cloned() else {
            failures.remove(domain);
            return;
        };
        if failures.len() >= REMEMBERED && !failures.contains_key(domain) {
            failures.retain(|_, failure| at.since(failure.at) < PAUSE);
            if failures.len() >= REMEMBERED {
                let oldest =
                    failures.iter().min_by_key(|(_, failure)| failure.at).map(|(name, _)| name.clone());
                oldest.and_then(|name| failures.remove(&name));
            }
        }
        failures.insert(domain.clone(), Failure { id, at, trouble });
    }
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finder").finish_non_exhaustive()
    }
}

/// As [`Finder::find`], once and without a memory for failures.
pub async fn find(
    domain: &Domain,
    resolver: &dyn Resolver,
    fetch: &dyn Fetch,
    store: &dyn Store,
    now: Timestamp,
) -> Finding {
    let kept = match kept(domain, store, now).await {
        Ok(kept) => kept,
        Err(found) => return Finding { found, trouble: None },
    };
    match announced(domain, kept.as_ref(), resolver).await {
        None => Finding { found: holds(kept), trouble: None },
        Some(id) => renew(domain, kept, id, fetch, store, now).await,
    }
}

async fn kept(domain: &Domain, store: &dyn Store, now: Timestamp) -> Result<Option<Kept>, Found> {
    match store.load(domain).await {
        Ok(kept) => Ok(kept.filter(|kept| kept.is_alive(now))),
        Err(why) => Err(Found::Unknown(format!("the store of MTA-STS policies failed: {why}").into())),
    }
}

/// The id that DNS announces, if it is not that of the kept policy.
async fn announced(domain: &Domain, kept: Option<&Kept>, resolver: &dyn Resolver) -> Option<Box<str>> {
    let name = Name::from(domain).prepend("_mta-sts").ok()?;
    let answer = resolver.lookup(&name, RecordKind::Txt).await.ok()?;
    let known = kept.map(|kept| &*kept.id);
    record_id(answer.records()).filter(|id| known != Some(&**id))
}

fn holds(kept: Option<Kept>) -> Found {
    match kept.map(|kept| kept.policy) {
        Some(policy) if policy.mode != Mode::None => Found::Policy(policy),
        _ => Found::None,
    }
}

/// Fetches the policy and keeps it in place of the old one, which goes on standing if that fails (RFC 8461 5.1).
async fn renew(
    domain: &Domain,
    old: Option<Kept>,
    id: Box<str>,
    fetch: &dyn Fetch,
    store: &dyn Store,
    now: Timestamp,
) -> Finding {
    match fetched(domain, fetch).await {
        Ok(policy) => {
            let new = Kept { policy, id, at: now };
            if let Err(why) = store.save(domain, &new).await {
                tracing::warn!(%domain, %why, "an MTA-STS policy was not kept");
            }
            Finding { found: holds(Some(new)), trouble: None }
        }
        Err(trouble) => {
            tracing::info!(%domain, %trouble, "an MTA-STS policy was not fetched");
            Finding { found: holds(old), trouble: Some(trouble) }
        }
    }
}

async fn fetched(domain: &Domain, fetch: &dyn Fetch) -> Result<Policy, Trouble> {
    let url = format!("https://mta-sts.{domain}/.well-known/mta-sts.txt");
    let Fetched { status, content_type, body } =
        fetch.get(&url, POLICY_MAX, FETCH_TIMEOUT).await.map_err(|error| match error {
            FetchError::Certificate(why) => Trouble::Certificate(format!("{url}: {why}")),
            FetchError::Failed(why) => Trouble::Fetch(format!("{url}: {why}")),
        })?;
    // RFC 8461 3.3: 200 and nothing else; redirects count as failures.
    if status != 200 {
        return Err(Trouble::Fetch(format!("{url} answers {status}")));
    }
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("text/plain") {
        return Err(Trouble::Invalid(format!("{url} is {kind:?}, not text/plain")));
    }
    Policy::parse(&body).map_err(|error| Trouble::Invalid(format!("{url}: {error}")))
}

//! Counting failed logins by address and by account: [`Lockout`].
//!
//! Invariant: memory is bounded by `ENTRIES_MAX` of each kind; a lock ends by itself.
//!
//! Not here: the limit of failures in one session (smtp-proto's `Limits::auth_failures`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Instant;

use crate::admission::one_host;

/// Addresses, and accounts, whose failures are remembered. When full, the oldest is forgotten.
pub(super) const ENTRIES_MAX: usize = 50_000;

/// After so many failures within a time, an address or an account is refused until the time is over.
#[derive(Debug)]
pub struct Lockout {
    per_address: u32,
    per_account: u32,
    window: Duration,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    addresses: BTreeMap<IpAddr, Count>,
    accounts: BTreeMap<Box<str>, Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    failures: u32,
}

impl Default for Lockout {
    /// 20 failures of an address or 10 of an account in 15 minutes.
    fn default() -> Self {
        Lockout::new(20, 10, Duration::from_secs(15 * 60))
    }
}

impl Lockout {
    /// Locks after `per_address` or `per_account` failures, for the rest of `window` since the first of them.
    pub fn new(per_address: u32, per_account: u32, window: Duration) -> Lockout {
        Lockout { per_address, per_account, window, failures: Mutex::default() }
    }

    /// Whether this address (IPv6 by /64) is refused now.
    pub fn is_address_locked(&self, ip: IpAddr, now: Instant) -> bool {
        self.is_locked(self.failures().addresses.get(&one_host(ip)), self.per_address, now)
    }

    /// Whether this account is refused now.
    pub fn is_account_locked(&self, user: &str, now: Instant) -> bool {
        self.is_locked(self.failures().accounts.get(user), self.per_account, now)
    }

    pub(super) fn failed(&self, ip: IpAddr, user: Option<&str>, now: Instant) {
        let mut failures = self.failures();
        add(&mut failures.addresses, one_host(ip), self.window, now);
        if let Some(user) = user.filter(|user| !user.is_empty()) {
            add(&mut failures.accounts, user.into(), self.window, now);
        }
    }

    /// The account's count ends. The address's does not: whoever has one account could otherwise guess at all others
    /// for ever, with a login of its own in between.
    pub(super) fn succeeded(&self, user: &str) {
        self.failures().accounts.remove(user);
    }

    fn is_locked(&self, count: Option<&Count>, limit: u32, now: Instant) -> bool {
        count.is_some_and(|count| count.failures >= limit && now.since(count.since) < self.window)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        // Every change is one insertion or removal, so a poisoned lock guards whole maps.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<K: Ord + Clone>(map: &mut BTreeMap<K, Count>, key: K, window: Duration, now: Instant) {
    if map.len() >= ENTRIES_MAX && !map.contains_key(&key) {
        map.retain(|_, count| now.since(count.since) < window);
        if map.len() >= ENTRIES_MAX
            && let Some(oldest) = map.iter().min_by_key(|(_, count)| count.since).map(|(key, _)| key.clone())
        {
            map.remove(&oldest);
        }
    }
    let count = map.entry(key).or_insert(Count { since: now, failures: 0 });
    if now.since(count.since) >= window {
        *count = Count { since: now, failures: 0 };
    }
    count.failures = count.failures.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_end_by_themselves_and_success_clears() {
        let lockout = Lockout::new(3, 2, Duration::from_secs(60));
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let at = |secs| Instant::from_start(Duration::from_secs(secs));
        lockout.failed(ip, Some("joe"), at(0));
        assert!(!lockout.is_account_locked("joe", at(1)));
        lockout.failed(ip, Some("joe"), at(1));
        assert!(lockout.is_account_locked("joe", at(2)) && !lockout.is_address_locked(ip, at(2)));
        lockout.failed(neighbour, None, at(2));
        assert!(lockout.is_address_locked(ip, at(3)));
        assert!(!lockout.is_address_locked(ip, at(60)) && !lockout.is_account_locked("joe", at(60)));
        lockout.failed(ip, Some("joe"), at(70));
        lockout.succeeded("joe");
        lockout.failed(ip, Some("joe"), at(71));
        assert!(!lockout.is_account_locked("joe", at(72)));
        // A login of one's own does not pay for guesses at others.
        lockout.failed(ip, Some("ann"), at(72));
        assert!(lockout.is_address_locked(ip, at(73)));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let lockout = Lockout::new(1, 1, Duration::from_secs(3600));
        let at = |secs| Instant::from_start(Duration::from_secs(secs));
        let ip = |n: u32| IpAddr::from(n.to_be_bytes());
        let count = u32::try_from(ENTRIES_MAX).unwrap();
        for n in 0..count {
            lockout.failed(ip(n), Some(&format!("user{n}")), at(u64::from(n / 1000)));
        }
        lockout.failed(ip(count), Some("one more"), at(100));
        let failures = lockout.failures();
        assert_eq!((failures.addresses.len(), failures.accounts.len()), (ENTRIES_MAX, ENTRIES_MAX));
        drop(failures);
        assert!(lockout.is_address_locked(ip(count), at(101)) && !lockout.is_address_locked(ip(0), at(101)));
        // When their time is over, all make room at once.
        lockout.failed(ip(count + 1), None, at(4000));
        assert_eq!(lockout.failures().addresses.len(), 1);
    }
}

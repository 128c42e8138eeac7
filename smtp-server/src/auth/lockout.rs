//! Counting failed logins by address and by account: [`Lockout`].
//!
//! Invariant: memory is bounded by `ENTRIES_MAX` of each kind; a lock ends by itself.
//!
//! Not here: the limit of failures in one session (smtp-proto's `Limits::auth_failures`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Instant;

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

    pub(super) fn succeeded(&self, ip: IpAddr, user: &str) {
        let mut failures = self.failures();
        failures.addresses.remove(&one_host(ip));
        failures.accounts.remove(user);
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

fn one_host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
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
        lockout.succeeded(ip, "joe");
        lockout.failed(ip, Some("joe"), at(71));
        assert!(!lockout.is_account_locked("joe", at(72)));
    }
}

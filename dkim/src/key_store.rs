//! Which keys sign a message: the seam [`KeyStore`], one in memory, and one whose keys are replaced while it serves.
//!
//! Invariant: a tenant's own keys for a domain replace the domain's keys; nothing falls back to another domain's.
//!
//! Standards: RFC 6376 3.1 (several selectors), 5.1 (who may sign).
//!
//! Not here: reading files (the program builds a new store and swaps it in), dates (rotation.rs).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use postwright_core::Domain;

use crate::sign::Signer;

/// Who signs for whom. Implement it over your database; the answer is wanted at once, so keep keys in memory.
pub trait KeyStore: Send + Sync {
    /// The signers for a message of `domain` that `tenant` sends; all of them sign. Empty: it goes out unsigned.
    fn signers(&self, domain: &Domain, tenant: Option<&str>) -> Vec<Signer>;
}

/// Keys in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryKeyStore {
    /// By the domain that is signed for, and the tenant.
    keys: BTreeMap<(Domain, Option<String>), Vec<Signer>>,
}

impl MemoryKeyStore {
    /// A store without keys.
    pub fn new() -> MemoryKeyStore {
        MemoryKeyStore::default()
    }

    /// Adds a signer for its own domain: for one tenant, or for all that have none of their own. A signer with the
    /// same selector is replaced.
    pub fn insert(&mut self, signer: Signer, tenant: Option<&str>) {
        let place = (signer.domain().clone(), tenant.map(str::to_owned));
        let signers = self.keys.entry(place).or_default();
        signers.retain(|known| known.selector() != signer.selector());
        signers.push(signer);
    }

    /// Forgets the keys of a domain for a tenant.
    pub fn remove(&mut self, domain: &Domain, tenant: Option<&str>) {
        self.keys.remove(&(domain.clone(), tenant.map(str::to_owned)));
    }
}

impl KeyStore for MemoryKeyStore {
    fn signers(&self, domain: &Domain, tenant: Option<&str>) -> Vec<Signer> {
        let own = tenant.and_then(|tenant| self.keys.get(&(domain.clone(), Some(tenant.to_owned()))));
        own.or_else(|| self.keys.get(&(domain.clone(), None))).cloned().unwrap_or_default()
    }
}

/// Keys that are replaced as a whole while others sign with them: for a program that re-reads its keys.
///
/// Invariant: a message is signed with the old keys or with the new ones, never with some of each.
pub struct ReloadableKeyStore {
    current: RwLock<Arc<dyn KeyStore>>,
}

impl ReloadableKeyStore {
    /// Begins with these keys.
    pub fn new(keys: impl KeyStore + 'static) -> ReloadableKeyStore {
        ReloadableKeyStore { current: RwLock::new(Arc::new(keys)) }
    }

    /// Signs with these keys from now on.
    pub fn replace(&self, keys: impl KeyStore + 'static) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

impl KeyStore for ReloadableKeyStore {
    fn signers(&self, domain: &Domain, tenant: Option<&str>) -> Vec<Signer> {
        // The lock is held for the pointer only: a slow store never keeps `replace` waiting.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        current.signers(domain, tenant)
    }
}

#[cfg(test)]
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
mod tests {
    use super::*;
    use crate::{KeyKind, Provider, SigningKey};

    fn signer(domain: &str, selector: &str) -> Signer {
        let (key, _) = SigningKey::generate(Provider::default(), KeyKind::Ed25519).unwrap();
        Signer::new(key, domain.parse().unwrap(), selector.parse().unwrap()).unwrap()
    }

    #[test]
    fn keys_are_replaced_as_a_whole() {
        let (mut old, mut new) = (MemoryKeyStore::new(), MemoryKeyStore::new());
        ["a", "b"].into_iter().for_each(|name| old.insert(signer("example.org", name), None));
        new.insert(signer("example.org", "c"), None);
        let store = ReloadableKeyStore::new(old);
        let names = || -> Vec<String> {
            let signers = store.signers(&"example.org".parse().unwrap(), None);
            signers.iter().map(|signer| signer.selector().to_string()).collect()
        };
        assert_eq!(names(), ["a", "b"]);
        store.replace(new);
        assert_eq!(names(), ["c"]);
    }

    #[test]
    fn a_tenants_own_keys_come_first_and_domains_do_not_mix() {
        let mut store = MemoryKeyStore::new();
        for (selector, tenant) in [("rsa", None), ("ed", None), ("t", Some("acme")), ("ed", None)] {
            store.insert(signer("example.org", selector), tenant);
        }
        let names = |domain: &str, tenant| -> Vec<String> {
            let signers = store.signers(&domain.parse().unwrap(), tenant);
            signers.iter().map(|signer| signer.selector().to_string()).collect()
        };
        assert_eq!(names("example.org", None), ["rsa", "ed"]);
        assert_eq!(names("example.org", Some("other")), ["rsa", "ed"]);
        assert_eq!(names("example.org", Some("acme")), ["t"]);
        assert!(names("sub.example.org", None).is_empty());
    }
}

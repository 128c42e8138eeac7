//! The rules file: TOML into a [`Policy`] (feature `rules`).
//!
//! Invariant: a file either becomes a policy in which every key had its meaning, or a list of all its errors,
//! each with its line, its key and, for a misspelt key, the nearest valid one. No key is ignored.
//!
//! ```toml
//! built-in = true                       # start from the table of providers (the default)
//!
//! [defaults]                            # by source+site
//! messages = ["600/min", "20_000/h"]    # several hold at once
//! bytes = "50MB/min burst 50MB"
//! connections = "2/s"
//! concurrency = 10
//! messages-per-connection = 100
//!
//! [defaults.by."source"]                # one more limit, kept by another scope
//! messages = "100_000/h"
//!
//! [provider.gmail]                      # by source+provider; replaces what the defaults say
//! concurrency = 3
//! messages = "unset"
//!
//! [domain."example.org"]
//! messages = "500/calendar-day +01:00"
//!
//! [source."192.0.2.7".provider.gmail]   # both must hold
//! messages = "20/min"
//!
//! [tenant.acme]                         # tenants, streams and pools come on top of the receivers' limits
//! messages = "5000/h burst 100"
//!
//! [egress.sources."192.0.2.7"]          # a way out: the address to bind to, the name to greet with, a proxy
//! ip = "192.0.2.7"
//! ehlo = "a.mx.example.org"
//! proxy = "192.0.2.9:2525"
//!
//! [egress.sources.b]
//! ip = "192.0.2.8"
//!
//! [egress.pools.batch]                  # mode: weighted (the default), sticky (by tenant), failover
//! mode = "sticky"
//! sources = ["192.0.2.7*3", "b"]        # with weights
//! streams = ["batch"]                   # whose mail leaves by it: a stream's, a tenant's, or everybody else's
//! default = true
//!
//! [warm-up.b]
//! source = "b"
//! schedule = "56-days"                  # a preset or "100*7, 500*7"
//! start = "2026-12-01"
//! overflow = "wait"                     # or "next-source" of the pool, the default
//!
//! [automation.slow-down]                # beside the built-in rules
//! provider = "gmail"
//! signal = "throttled"
//! pattern = "*4.7.28*"
//! threshold = "3/h"
//! action = "pace 10/min"                # or "back-off", "suspend source+site", "connections 5"
//! for = "2h"
//!
//! [providers]                           # more providers, by the names of their mail hosts
//! campus = ["mx.campus.example"]
//! ```
//!
//! Not here: reading the file from a disk, the meaning of layers (`policy.rs`).

mod layout;
mod walk;

use std::fmt;
use std::sync::Arc;

use postwright_core::Domain;

use crate::adapt::AutomationRule;
use crate::egress::Egress;
use crate::policy::Policy;
use crate::providers::Provider;
use crate::warmup::WarmUp;
use layout::PoolRule;

/// What a rules file says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rules {
    /// The limits.
    pub policy: Policy,
    /// The sources and pools; empty if the file names none.
    pub egress: Arc<Egress>,
    /// The warm-ups.
    pub warmups: Vec<WarmUp>,
    /// Automation rules beside the built-in ones.
    pub automation: Vec<AutomationRule>,
    pools: Vec<PoolRule>,
    /// Providers of the file's own: names and the suffixes of their mail hosts.
    providers: Vec<(Box<str>, Vec<Domain>)>,
}

/// One error of a rules file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RulesError {
    /// The line, counted from 1.
    pub line: usize,
    /// The key with its tables, such as `provider.gmail.concurency`.
    pub key: String,
    /// What is wrong with it, and what to write.
    pub problem: String,
    /// The nearest key or name that would be valid here.
    pub nearest: Option<String>,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl Rules {
    /// Reads a rules file; all of its errors if there are any.
    pub fn parse(text: &str) -> Result<Rules, Vec<RulesError>> {
        walk::parse(text)
    }

    /// The pool that mail leaves by: the one that claims its stream, or its tenant, or the default.
    pub fn pool_of(&self, tenant: Option<&str>, stream: Option<&str>) -> Option<&str> {
        let claims = |list: &[Box<str>], name: Option<&str>| {
            name.is_some_and(|name| list.iter().any(|claimed| **claimed == *name))
        };
        let find = |wanted: &dyn Fn(&PoolRule) -> bool| self.pools.iter().find(|rule| wanted(rule));
        find(&|rule| claims(&rule.streams, stream))
            .or_else(|| find(&|rule| claims(&rule.tenants, tenant)))
            .or_else(|| find(&|rule| rule.default))
            .map(|rule| &*rule.pool.name)
    }

    fn provider_names(&self) -> impl Iterator<Item = &str> {
        let own = self.providers.iter().map(|(name, _)| &**name);
        crate::providers::PROVIDERS.iter().map(|provider| provider.name).chain(own)
    }

    /// Whether a provider of this name is in the built-in table or the file's own.
    pub fn knows_provider(&self, name: &str) -> bool {
        self.provider_names().any(|known| known == name)
    }

    /// The provider whose name is nearest to a misspelt one.
    pub fn nearest_provider(&self, name: &str) -> Option<String> {
        nearest(name, self.provider_names())
    }

    /// The provider of a set of mail hosts: one of the file's, or else one of the built-in table. All hosts must
    /// be the same provider's.
    pub fn provider_of(&self, hosts: &[Domain]) -> Option<&str> {
        let own = |host: &Domain| {
            let mut named = self.providers.iter();
            named
                .find(|(_, suffixes)| suffixes.iter().any(|suffix| host.is_within(suffix)))
                .map(|(name, _)| &**name)
        };
        let any = |host: &Domain| own(host).or_else(|| Provider::of_host(host).map(|provider| provider.name));
        let first = any(hosts.first()?)?;
        hosts.iter().all(|host| any(host) == Some(first)).then_some(first)
    }
}

/// The candidate that takes the fewest edits, if that is no more than two fifths of the word.
pub(crate) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    let scored = candidates.map(|candidate| (edits(word, candidate), candidate));
    let (score, best) = scored.min_by_key(|(score, _)| *score)?;
    (score <= (word.chars().count() * 2 / 5).max(1)).then(|| best.to_owned())
}

/// The least number of letters to put in, take out or replace, or of neighbours to swap; row by row.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut above: Vec<usize> = row.clone();
    for (i, from) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&row, j) + usize::from(from != to);
            let mut least = replaced.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let before = |text: &[char], k: usize| k.checked_sub(1).and_then(|k| text.get(k)).copied();
            if before(&a, i) == Some(*to) && before(&b, j) == Some(*from) {
                least = least.min(at(&above, j - 1) + 1);
            }
            next.push(least);
        }
        above = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_as_levenshtein_does() {
        // Textbook pairs.
        for (a, b, distance) in [
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("ehol", "ehlo", 1),
        ] {
            assert_eq!(edits(a, b), distance, "{a} {b}");
            assert_eq!(edits(b, a), distance, "{b} {a}");
        }
        assert_eq!(
            nearest("concurency", ["messages", "concurrency"].into_iter()).as_deref(),
            Some("concurrency")
        );
        assert_eq!(nearest("colour", ["messages", "concurrency"].into_iter()), None);
    }
}

//! Key rotation as a state machine with dates: published, waiting, active, retiring, removed.
//!
//! ```text
//! publish ──> Published ── seen ──> Waiting ── time ──> Active ── a successor is active ──> Retiring ── time ──> Removed
//!   DNS:      add the record        leave it            leave it                            leave it            p= or delete
//!   signs:    no                    no                  yes                                 no                  no
//! ```
//!
//! Invariant: a key signs only when its record was seen in DNS and every cached "no such name" has run out; its
//! record stays until mail that it signed cannot be under way any more. A domain that had an active key has one at all
//! times. Time is an argument; nothing here waits or asks DNS.
//!
//! Standards: RFC 6376 3.6.1 (revocation by an empty `p=`), RFC 2308 5 (how long absence is cached), RFC 5321
//! 4.5.4.1 (mail is under way for 4 to 5 days).
//!
//! Not here: making keys (signing_key.rs), changing DNS and seeing it (the program).

use std::time::Duration;

use postwright_core::Timestamp;

use crate::signature::Selector;

const DAY: Duration = Duration::from_secs(86_400);

/// How long a key stays in each state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotationPolicy {
    /// From the moment that the record was seen until it may be used: longer than resolvers keep its absence. 1 day.
    pub wait: Duration,
    /// From the end of signing until the record goes: longer than mail is under way or looked at. 14 days.
    pub retire: Duration,
    /// After how long in use a successor is due. 180 days.
    pub lifetime: Duration,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        RotationPolicy { wait: DAY, retire: 14 * DAY, lifetime: 180 * DAY }
    }
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// The record is to be put into DNS, and was not seen there yet.
    Published {
        /// When the key was made.
        since: Timestamp,
    },
    /// The record was seen; caches may still deny it.
    Waiting {
        /// When it may be used.
        until: Timestamp,
    },
    /// The key signs.
    Active {
        /// Since when.
        since: Timestamp,
    },
    /// The key signs no more; what it signed is still to be verified.
    Retiring {
        /// When the record may go.
        until: Timestamp,
    },
    /// The record is to go.
    Removed,
}

/// What has to stand in DNS for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsStep {
    /// The key's record: add it if it is not there.
    Publish,
    /// The key's record, unchanged.
    Keep,
    /// `v=DKIM1; p=`, which says that the key was revoked, or nothing. Then destroy the private key.
    Revoke,
}

impl KeyState {
    /// What has to stand in DNS.
    pub fn dns(self) -> DnsStep {
        match self {
            KeyState::Published { .. } => DnsStep::Publish,
            KeyState::Waiting { .. } | KeyState::Active { .. } | KeyState::Retiring { .. } => DnsStep::Keep,
            KeyState::Removed => DnsStep::Revoke,
        }
    }

    /// Whether the key signs.
    pub fn signs(self) -> bool {
        matches!(self, KeyState::Active { .. })
    }
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Whose.
    pub selector: Selector,
    /// The new state; [`KeyState::dns`] says what to do.
    pub state: KeyState,
}

/// The keys of one domain and one algorithm, of which one signs at a time.
///
/// ```
/// use postwright_core::Timestamp;
/// use postwright_dkim::{KeyState, Rotation, RotationPolicy};
/// let mut rotation = Rotation::new(RotationPolicy::default());
/// let day = |n: u64| Timestamp::from_secs(n * 86_400);
/// rotation.publish("2026a".parse()?, day(0));
/// rotation.seen(&"2026a".parse()?, day(1)); // the program found the record in DNS
/// assert!(rotation.advance(day(1)).is_empty());
/// assert_eq!(rotation.advance(day(2))[0].state, KeyState::Active { since: day(2) });
/// # Ok::<(), postwright_dkim::SelectorError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    policy: RotationPolicy,
    /// From the oldest to the newest.
    keys: Vec<(Selector, KeyState)>,
}

impl Rotation {
    /// No keys yet.
    pub fn new(policy: RotationPolicy) -> Rotation {
        Rotation { policy, keys: Vec::new() }
    }

    /// As it was stored: keys from the oldest to the newest.
    pub fn restore(policy: RotationPolicy, keys: Vec<(Selector, KeyState)>) -> Rotation {
        Rotation { policy, keys }
    }

    /// The keys and their states, to be stored; from the oldest to the newest.
    pub fn keys(&self) -> &[(Selector, KeyState)] {
        &self.keys
    }

    /// Begins the life of a key. `false` if the selector was used before: a selector never names two keys.
    pub fn publish(&mut self, selector: Selector, now: Timestamp) -> bool {
        if self.keys.iter().any(|(known, _)| *known == selector) {
            return false;
        }
        self.keys.push((selector, KeyState::Published { since: now }));
        true
    }

    /// The key's record was seen in DNS, with the right key in it. `false` if it was not waited for.
    pub fn seen(&mut self, selector: &Selector, now: Timestamp) -> bool {
        let until = now + self.policy.wait;
        let key = self.keys.iter_mut().find(|(known, _)| known == selector);
        match key {
            Some((_, state @ KeyState::Published { .. })) => {
                *state = KeyState::Waiting { until };
                true
            }
            _ => false,
        }
    }

    /// The key leaked: it signs no more, and its record is to be revoked at once.
    pub fn compromised(&mut self, selector: &Selector) -> Option<Step> {
        let (selector, state) = self.keys.iter_mut().find(|(known, _)| known == selector)?;
        *state = KeyState::Removed;
        Some(Step { selector: selector.clone(), state: *state })
    }

    /// Lets time pass; gives the changes in their order.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        // The newest key that may sign does; all older ones retire.
        let ready = |state: &KeyState| matches!(state, KeyState::Waiting { until } if *until <= now);
        let newest = self.keys.iter().rposition(|(_, state)| ready(state) || state.signs());
        for (nth, (selector, state)) in self.keys.iter_mut().enumerate() {
            let is_newest = Some(nth) == newest;
            let next = match *state {
                KeyState::Waiting { until } if until <= now && is_newest => KeyState::Active { since: now },
                KeyState::Waiting { until } if until <= now => KeyState::Removed,
                KeyState::Active { .. } if !is_newest => {
                    KeyState::Retiring { until: now + self.policy.retire }
                }
                KeyState::Retiring { until } if until <= now => KeyState::Removed,
                same => same,
            };
            if next != *state {
                *state = next;
                steps.push(Step { selector: selector.clone(), state: next });
            }
        }
        steps
    }

    /// The key that signs.
    pub fn signing(&self) -> Option<&Selector> {
        self.keys.iter().rev().find(|(_, state)| state.signs()).map(|(selector, _)| selector)
    }

    /// Whether a new key is to be published: none is on its way, and the active one is old, or missing.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let on_its_way =
            |state: &KeyState| matches!(state, KeyState::Published { .. } | KeyState::Waiting { .. });
        if self.keys.iter().any(|(_, state)| on_its_way(state)) {
            return false;
        }
        !self.keys.iter().any(
            |(_, state)| matches!(state, KeyState::Active { since } if now < *since + self.policy.lifetime),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(n: u64) -> Timestamp {
        Timestamp::from_secs(n * 86_400)
    }

    fn selector(text: &str) -> Selector {
        text.parse().unwrap()
    }

    fn states(steps: &[Step]) -> Vec<(&str, KeyState)> {
        steps.iter().map(|step| (step.selector.as_str(), step.state)).collect()
    }

    #[test]
    fn a_key_is_followed_by_its_successor_without_a_gap() {
        let mut rotation = Rotation::new(RotationPolicy::default());
        assert!(rotation.is_due(day(0)));
        assert!(rotation.publish(selector("a"), day(0)));
        assert!(!rotation.publish(selector("a"), day(0)));
        // Unseen, it never signs.
        assert!(rotation.advance(day(100)).is_empty());
        assert!(rotation.seen(&selector("a"), day(100)));
        assert!(!rotation.seen(&selector("a"), day(100)));
        assert!(rotation.advance(day(100)).is_empty());
        assert_eq!(states(&rotation.advance(day(101))), [("a", KeyState::Active { since: day(101) })]);
        assert!(!rotation.is_due(day(280)) && rotation.is_due(day(281)));

        rotation.publish(selector("b"), day(281));
        assert!(!rotation.is_due(day(281)));
        rotation.seen(&selector("b"), day(281));
        for now in 281..330 {
            rotation.advance(day(now));
            let signing = if now < 282 { "a" } else { "b" };
            assert_eq!(rotation.signing().unwrap().as_str(), signing, "day {now}");
            let a = rotation.keys()[0].1;
            let wanted = if now < 296 { DnsStep::Keep } else { DnsStep::Revoke };
            assert_eq!(a.dns(), wanted, "day {now}");
        }
    }

    #[test]
    fn after_a_long_sleep_the_newest_signs_and_the_rest_goes_its_way() {
        let mut rotation = Rotation::new(RotationPolicy::default());
        for name in ["a", "b", "c"] {
            rotation.publish(selector(name), day(0));
            rotation.seen(&selector(name), day(0));
        }
        let steps = rotation.advance(day(50));
        let expected =
            [("a", KeyState::Removed), ("b", KeyState::Removed), ("c", KeyState::Active { since: day(50) })];
        assert_eq!(states(&steps), expected);
        assert!(rotation.advance(day(50)).is_empty());
    }

    #[test]
    fn a_leaked_key_is_revoked_at_once_and_the_next_is_due() {
        let mut rotation = Rotation::new(RotationPolicy::default());
        rotation.publish(selector("a"), day(0));
        rotation.seen(&selector("a"), day(0));
        rotation.advance(day(1));
        assert_eq!(rotation.compromised(&selector("a")).unwrap().state.dns(), DnsStep::Revoke);
        assert_eq!(rotation.signing(), None);
        assert!(rotation.is_due(day(1)));
        assert_eq!(rotation.compromised(&selector("x")), None);
    }

    #[test]
    fn a_stored_rotation_goes_on() {
        let mut rotation = Rotation::new(RotationPolicy::default());
        rotation.publish(selector("a"), day(0));
        rotation.seen(&selector("a"), day(0));
        let mut restored = Rotation::restore(RotationPolicy::default(), rotation.keys().to_vec());
        assert_eq!(restored.advance(day(1)), rotation.advance(day(1)));
    }
}

//! Holding messages by leases: what several nodes share comes and goes.
//!
//! Invariant (I4): a message of which an attempt is out, or a commit under way, is not taken again before that came
//! back, whatever the spool hands out.
//!
//! Not here: the leases themselves (spool), when they are renewed (whoever drives the scheduler).

use std::sync::atomic::Ordering;

use postwright_core::Timestamp;

use super::Scheduler;
use super::unit::{Flags, State};
use crate::{Claim, Claimed, SpoolId};

/// What became of a claim that was handed to [`Scheduler::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Taken {
    /// The message is in the scheduler's charge now.
    New,
    /// It was before, under the same epoch.
    Known,
    /// It was before, under an older epoch: another node had it meanwhile. What was known of it is forgotten.
    Again,
    /// An attempt of it is out or a commit is under way from before it was lost. Leave the claim alone: it is handed
    /// out again once its lease ran out.
    Busy,
    /// Nothing of it is left to do: the caller removes it.
    Done,
}

impl Scheduler {
    /// Takes charge of a message that was claimed on a shared spool, like [`Scheduler::restore`], whatever is known of
    /// it from before.
    pub fn take(&mut self, claimed: &Claimed, now: Timestamp) -> Taken {
        let id = claimed.claim.id;
        if self.astray.contains_key(&id) {
            return Taken::Busy;
        }
        let known = self.epoch_of(id);
        if known == Some(claimed.claim.epoch) {
            return Taken::Known;
        }
        if self.is_busy(id) {
            return Taken::Busy;
        }
        self.forget(id);
        match (self.restore(claimed, now), known) {
            (false, _) => Taken::Done,
            (true, None) => Taken::New,
            (true, Some(_)) => Taken::Again,
        }
    }

    /// Forgets messages whose leases were lost; an attempt that is out changes nothing any more when it comes back.
    /// Claims of another epoch than the one that is known are ignored. Returns how many were forgotten.
    pub fn lose(&mut self, claims: &[Claim]) -> usize {
        let mut lost = 0;
        for claim in claims {
            if self.epoch_of(claim.id) == Some(claim.epoch) {
                self.forget(claim.id);
                lost += 1;
            }
        }
        lost
    }

    /// The claims of up to `limit` messages, by id, behind `after`: for renewal a page at a time.
    pub fn claims(&self, after: Option<SpoolId>, limit: usize) -> Vec<Claim> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let claim = |(id, number): (&SpoolId, &u32)| {
            self.units.get(*number).map(|unit| Claim { id: *id, epoch: unit.epoch })
        };
        self.by_id.range((from, Bound::Unbounded)).filter_map(claim).take(limit).collect()
    }

    /// Lets go of messages nothing of which has to be done before `until`: whichever node is there by then claims them.
    /// Returns their claims; they are to be released.
    pub fn let_go(&mut self, until: Timestamp) -> Vec<Claim> {
        let rests = |number: &u32| {
            let later = |unit: &super::Unit| {
                let look = unit.due.min(Timestamp::from_secs(u64::from(unit.sweep_at())));
                // What an operator holds is known to be held here.
                unit.state == State::Waiting && look > until && !unit.flags.has(Flags::HELD)
            };
            self.units.get(*number).is_some_and(later)
        };
        let all_rest = |(id, first): (&SpoolId, &u32)| {
            let unit = self.units.get(*first)?;
            // Most messages have one unit, which is its own sibling.
            let rest = rests(first) && (unit.sibling == *first || self.units_of(*id).iter().all(rests));
            (rest && !self.open.contains_key(id)).then_some(Claim { id: *id, epoch: unit.epoch })
        };
        let claims: Vec<Claim> = self.by_id.iter().filter_map(all_rest).collect();
        claims.iter().for_each(|claim| self.forget(claim.id));
        claims
    }

    /// Messages in its charge.
    pub fn held(&self) -> usize {
        self.messages.load(Ordering::Acquire)
    }

    fn epoch_of(&self, id: SpoolId) -> Option<u64> {
        self.by_id.get(&id).and_then(|number| self.units.get(*number)).map(|unit| unit.epoch)
    }

    /// An attempt came back whose message had been forgotten.
    pub(super) fn found_again(&mut self, id: SpoolId) {
        if let Some(count) = self.astray.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.astray.remove(&id);
            }
        }
    }
}

//! Units: all recipients of one message that wait in one lane. The scheduler's memory is mostly these, so they are
//! kept small; what is not needed to decide when, lies in the spool.
//!
//! Invariant: a unit is in one state; the units of a message form a ring through `sibling`.
//!
//! Not here: the entry.

use postwright_core::Timestamp;

use crate::SpoolId;

/// Where a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the heap of its lane.
    Waiting,
    /// In the list of what has to be done at once: expiry, warning, cancellation.
    Urgent,
    /// Handed out.
    InFlight,
    /// Recorded; waits for its commit.
    Settling,
}

/// Indices of recipients. Nearly all messages have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Members {
    One(u32),
    Many(Box<[u32]>),
}

impl Members {
    pub(super) fn new(indices: Vec<u32>) -> Members {
        match indices[..] {
            [one] => Members::One(one),
            _ => Members::Many(indices.into()),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let slice = match self {
            Members::One(one) => std::slice::from_ref(one),
            Members::Many(many) => many,
        };
        slice.iter().filter_map(|index| usize::try_from(*index).ok())
    }
}

/// One bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags(u8);

impl Flags {
    /// Loaded at the start and not attempted since: it must not expire yet, and nobody is warned.
    pub(super) const UNTRIED: u8 = 1;
    /// The sender was told of the delay, or is not to be.
    pub(super) const WARNED: u8 = 2;
    /// Its place in the index of lifetimes came up while it was busy.
    pub(super) const SWEPT: u8 = 4;
    /// An operator removes it.
    pub(super) const CANCELLED: u8 = 8;
    /// An operator removes it and the sender is to be told.
    pub(super) const BOUNCED: u8 = 16;
    /// It was attempted before.
    pub(super) const TRIED: u8 = 32;
    /// An operator holds it until it is due.
    pub(super) const HELD: u8 = 64;

    /// Whether any of these is set.
    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8, on: bool) {
        self.0 = if on { self.0 | flag } else { self.0 & !flag };
    }
}

pub(super) struct Unit {
    pub(super) id: SpoolId,
    pub(super) epoch: u64,
    pub(super) due: Timestamp,
    pub(super) members: Members,
    /// Whole seconds: when the lifetime ends, and when the sender is to be told of a delay.
    pub(super) expires: u32,
    pub(super) warn_at: u32,
    pub(super) lane: u32,
    pub(super) sibling: u32,
    pub(super) state: State,
    pub(super) flags: Flags,
    /// Tells this unit from another one of the same message that had its place before.
    pub(super) turn: u32,
}

impl Unit {
    /// When it has to be looked at, due or not.
    pub(super) fn sweep_at(&self) -> u32 {
        if self.flags.has(Flags::WARNED | Flags::UNTRIED) {
            self.expires
        } else {
            self.expires.min(self.warn_at)
        }
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        now.millis() >= u64::from(self.expires) * 1000
    }

    pub(super) fn is_warning_due(&self, now: Timestamp) -> bool {
        !self.flags.has(Flags::WARNED | Flags::UNTRIED) && now.millis() >= u64::from(self.warn_at) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_small() {
        assert!(size_of::<Option<Unit>>() <= 72, "{} octets", size_of::<Option<Unit>>());
    }

    #[test]
    fn flags_are_independent() {
        let mut flags = Flags::default();
        flags.set(Flags::HELD, true);
        flags.set(Flags::WARNED, true);
        flags.set(Flags::HELD, false);
        assert!(flags.has(Flags::WARNED) && !flags.has(Flags::HELD));
    }
}

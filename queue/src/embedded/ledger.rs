//! Who works on what, on a spool that one process has for itself.
//!
//! Invariant: a message is claimable if it was stored before this opening and the cursor has not passed it, or if
//! it was released; everything else belongs to whoever put or claimed it. Memory: only what was put while the
//! cursor walks, and what was released.
//!
//! Not here: leases.

use std::collections::BTreeSet;

use crate::SpoolId;

pub(super) struct Ledger {
    /// Everything up to here was handed out; `Some(None)` is the start, `None` the end of the walk.
    cursor: Option<Option<SpoolId>>,
    /// Put since the opening, while the cursor still walks.
    fresh: BTreeSet<SpoolId>,
    released: BTreeSet<SpoolId>,
}

impl Ledger {
    pub(super) fn new(nothing_stored: bool) -> Ledger {
        let cursor = if nothing_stored { None } else { Some(None) };
        Ledger { cursor, fresh: BTreeSet::new(), released: BTreeSet::new() }
    }

    /// Where the walk goes on; `None` once it is over.
    pub(super) fn cursor(&self) -> Option<Option<SpoolId>> {
        self.cursor
    }

    /// The walk goes on behind `next`, or is over.
    pub(super) fn advance(&mut self, next: Option<SpoolId>) {
        self.cursor = next.map(Some);
        if next.is_none() {
            self.fresh.clear();
        }
    }

    /// Whether a message that the cursor meets was stored before this opening.
    pub(super) fn is_old(&self, id: SpoolId) -> bool {
        !self.fresh.contains(&id)
    }

    pub(super) fn put(&mut self, id: SpoolId) {
        self.released.remove(&id);
        if self.cursor.is_some() {
            self.fresh.insert(id);
        }
    }

    /// A put that was not acknowledged after all, or a removal.
    pub(super) fn forget(&mut self, id: SpoolId) {
        self.fresh.remove(&id);
    }

    pub(super) fn owns(&self, id: SpoolId) -> bool {
        let passed = match self.cursor {
            None => true,
            Some(None) => false,
            Some(Some(cursor)) => id <= cursor,
        };
        (passed || self.fresh.contains(&id)) && !self.released.contains(&id)
    }

    pub(super) fn release(&mut self, id: SpoolId) {
        self.released.insert(id);
    }

    pub(super) fn take_released(&mut self) -> Option<SpoolId> {
        self.released.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> SpoolId {
        SpoolId::from_bytes([byte; 16])
    }

    #[test]
    fn what_the_cursor_has_not_passed_is_nobodys() {
        let mut ledger = Ledger::new(false);
        assert!(!ledger.owns(id(5)));
        ledger.put(id(7));
        assert!(ledger.owns(id(7)) && !ledger.is_old(id(7)));
        ledger.advance(Some(id(5)));
        assert!(ledger.owns(id(5)) && !ledger.owns(id(6)));
        ledger.advance(None);
        assert!(ledger.owns(id(6)) && ledger.owns(id(7)));
    }

    #[test]
    fn released_is_nobodys_until_it_is_taken() {
        let mut ledger = Ledger::new(true);
        ledger.put(id(1));
        ledger.release(id(1));
        assert!(!ledger.owns(id(1)));
        assert_eq!(ledger.take_released(), Some(id(1)));
        assert!(ledger.owns(id(1)));
        assert_eq!(ledger.take_released(), None);
    }
}

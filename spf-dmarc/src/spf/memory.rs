//! Records that were read before: the large senders' come with every other message.
//!
//! Invariant: a record is taken from here only if its text is, octet for octet, what DNS says now. So nothing in here
//! can be out of date, and how long it is kept changes no verdict, only the work.
//!
//! Not here: keeping DNS answers for their time to live (the resolver's business).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postwright_core::Name;

use super::{Record, RecordError};

/// Longest record that is kept, in octets.
const TEXT_MAX: usize = 4096;
/// Most directives of a record that is kept: what is read of one may take more room than its text.
const DIRECTIVES_MAX: usize = 256;

/// A fixed number of records, each in the slot that its domain's name falls into; whoever comes later stays.
///
/// To be shared by all checks, see [`SpfQuery::memory`](super::SpfQuery::memory). A slot costs up to 32 KiB if the
/// largest record that is kept (4096 octets, 256 directives) fills it, and 2 KiB as records are.
#[derive(Debug)]
pub struct Memory {
    slots: Box<[Mutex<Option<Arc<Record>>>]>,
}

impl Memory {
    /// Room for so many records; 1024 suit a server of any size.
    pub fn new(records: usize) -> Memory {
        Memory { slots: (0..records).map(|_| Mutex::default()).collect() }
    }

    /// The record of this text, read now or before.
    pub(super) fn read(&self, domain: &Name, text: &[u8]) -> Result<Arc<Record>, RecordError> {
        let kept = self.slot(domain).and_then(|slot| slot.clone());
        if let Some(record) = kept.filter(|record| record.as_str().as_bytes() == text) {
            return Ok(record);
        }
        let mut record = Record::parse(text)?;
        record.shrink();
        let record = Arc::new(record);
        let small = text.len() <= TEXT_MAX && record.directives().len() <= DIRECTIVES_MAX;
        if let Some(mut slot) = self.slot(domain).filter(|_| small) {
            *slot = Some(Arc::clone(&record));
        }
        Ok(record)
    }

    fn slot(&self, domain: &Name) -> Option<MutexGuard<'_, Option<Arc<Record>>>> {
        // FNV-1a: who makes names fall together gains nothing but that they are read again.
        let mix = |hash: u64, octet: u8| (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = domain.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        let slots = u64::try_from(self.slots.len()).ok()?;
        let slot = self.slots.get(usize::try_from(hash.checked_rem(slots)?).ok()?)?;
        // A slot is whole even if someone panicked who held it.
        Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Directive;
    use super::*;

    #[test]
    fn only_the_same_text_is_the_same_record() {
        let name: Name = "example.org".parse().unwrap();
        for memory in [Memory::new(0), Memory::new(1)] {
            let first = memory.read(&name, b"v=spf1 mx -all").unwrap();
            let again = memory.read(&name, b"v=spf1 mx -all").unwrap();
            assert_eq!(Arc::ptr_eq(&first, &again), !memory.slots.is_empty());
            assert_eq!(memory.read(&name, b"v=spf1 a -all").unwrap().as_str(), "v=spf1 a -all");
            assert!(memory.read(&name, b"v=spf1 b -all").is_err(), "what is wrong stays wrong");
            assert_eq!(memory.read(&name, b"v=spf1 a -all").unwrap().as_str(), "v=spf1 a -all");
        }
    }

    #[test]
    fn large_records_are_not_kept() {
        let name = "example.org".parse().unwrap();
        let is_kept = |terms: String| {
            let (memory, text) = (Memory::new(1), format!("v=spf1 {terms}-all").into_bytes());
            let first = memory.read(&name, &text).unwrap();
            (text.len(), Arc::ptr_eq(&first, &memory.read(&name, &text).unwrap()))
        };
        assert_eq!(is_kept("ip4:192.0.2.10 ".repeat(255)), (7 + 255 * 15 + 4, true));
        assert_eq!(is_kept("ip4:192.0.2.10 ".repeat(256)), (7 + 256 * 15 + 4, false), "too many directives");
        assert_eq!(is_kept("a ".repeat(2000)), (7 + 4000 + 4, false), "short ones, too");
        assert!(!is_kept("ip6:2001:db8:1111:2222:3333:4444:5555:6666 ".repeat(100)).1, "too long");
    }

    /// What [`Memory`] says of its size.
    #[test]
    fn a_slot_has_its_size() {
        let names = DIRECTIVES_MAX * 48;
        assert!(TEXT_MAX + DIRECTIVES_MAX * size_of::<Directive>() + names <= 32 << 10);
    }
}

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

/// A fixed number of records, each in the slot that its domain's name falls into; whoever comes later stays.
///
/// To be shared by all checks, see [`SpfQuery::memory`](super::SpfQuery::memory). A slot costs up to 20 KiB if the
/// longest records that are kept (4096 octets) fill it, and 2 KiB as records are.
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
        let record = Arc::new(Record::parse(text)?);
        if let Some(mut slot) = self.slot(domain).filter(|_| text.len() <= TEXT_MAX) {
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
    fn long_records_are_not_kept() {
        let (memory, name) = (Memory::new(1), "example.org".parse().unwrap());
        let text = format!("v=spf1 {}-all", "ip4:192.0.2.1 ".repeat(300)).into_bytes();
        assert!(text.len() > TEXT_MAX);
        let first = memory.read(&name, &text).unwrap();
        assert!(!Arc::ptr_eq(&first, &memory.read(&name, &text).unwrap()));
    }
}

//! What departed: enough to know, weeks later, whose message a bounce is about.
//!
//! Invariant: a message is found by its id and by its `Message-ID` until it is forgotten. Losing an entry loses a match, not mail.
//!
//! Not here: the journal on disk (`store`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use postwright_core::{Domain, Timestamp};
use postwright_queue::SpoolId;

/// A message that left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Departed {
    /// For whom.
    pub tenant: Box<str>,
    /// The kind of mail.
    pub stream: Box<str>,
    /// The reverse-path that its author gave.
    pub sender: Box<str>,
    /// Its recipients.
    pub recipients: Vec<Box<str>>,
    /// Its `Message-ID` with the angle brackets.
    pub message_id: Option<Box<str>>,
}

/// The way that a message took to one domain, the last time that it was handed over: what pace and warm-up count by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trail {
    /// The name of the way out; `None` is the system's own, or unknown.
    pub exit: Option<Box<str>>,
    /// The next hop's name.
    pub site: Box<str>,
    /// The mail hosts of its recipients' domain.
    pub hosts: Vec<Domain>,
}

/// Where departures are remembered.
pub trait Journal: Send + Sync {
    /// Remembers one; the same id again replaces it.
    fn note(&self, id: SpoolId, departed: &Departed, now: Timestamp);
    /// Remembers the way that a message took to a domain.
    fn took(&self, id: SpoolId, domain: &Domain, trail: &Trail);
    /// The way that a message took to a domain.
    fn trail(&self, id: SpoolId, domain: &Domain) -> Option<Trail>;
    /// The message of that id.
    fn find(&self, id: SpoolId) -> Option<Departed>;
    /// The last message with that `Message-ID`.
    fn by_message_id(&self, message_id: &str) -> Option<(SpoolId, Departed)>;
    /// Forgets messages that were made before `before`.
    fn forget(&self, before: Timestamp);
}

/// A journal in memory; what it holds is lost with the process.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    departed: BTreeMap<SpoolId, Departed>,
    trails: BTreeMap<(SpoolId, Domain), Trail>,
    ids: BTreeMap<Box<str>, SpoolId>,
}

impl Journal for MemoryJournal {
    fn note(&self, id: SpoolId, departed: &Departed, _: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(message_id) = &departed.message_id {
            kept.ids.insert(message_id.clone(), id);
        }
        kept.departed.insert(id, departed.clone());
    }

    fn took(&self, id: SpoolId, domain: &Domain, trail: &Trail) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.trails.insert((id, domain.clone()), trail.clone());
    }

    fn trail(&self, id: SpoolId, domain: &Domain) -> Option<Trail> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.trails.get(&(id, domain.clone())).cloned()
    }

    fn find(&self, id: SpoolId) -> Option<Departed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).departed.get(&id).cloned()
    }

    fn by_message_id(&self, message_id: &str) -> Option<(SpoolId, Departed)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *kept.ids.get(message_id)?;
        Some((id, kept.departed.get(&id)?.clone()))
    }

    fn forget(&self, before: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.departed.retain(|id, _| id.created() >= before);
        kept.trails.retain(|(id, _), _| id.created() >= before);
        kept.ids.retain(|_, id| id.created() >= before);
    }
}

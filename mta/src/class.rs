//! Whose mail a message is, and of which kind: what routes, limits, pools and the suppression list tell apart.
//!
//! Invariant: it is decided once, when the message is taken in, and stored with it.
//!
//! Not here: what follows from it (routes, shaping, feedback).

use std::fmt;
use std::sync::Arc;

use postwright_core::Envelope;
use postwright_queue::Entry;

use crate::Visit;

/// For whom a message is sent, and which kind of mail it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Class {
    /// For whom; empty where there is only one.
    pub tenant: Box<str>,
    /// Which kind, such as `bulk`; empty where there is only one.
    pub stream: Box<str>,
}

type ClassOf = dyn Fn(&Visit<'_>, &Envelope) -> Class + Send + Sync;

/// What tells the classes of messages apart; without anything all are of one.
#[derive(Clone, Default)]
pub(crate) struct Classes(Option<Arc<ClassOf>>);

impl Classes {
    pub(crate) fn new(class_of: impl Fn(&Visit<'_>, &Envelope) -> Class + Send + Sync + 'static) -> Classes {
        Classes(Some(Arc::new(class_of)))
    }

    /// Writes down whose mail an entry is.
    pub(crate) fn mark(&self, visit: &Visit<'_>, entry: &mut Entry) {
        if let Some(class_of) = &self.0 {
            Class { tenant: entry.tenant, stream: entry.stream } = class_of(visit, &entry.envelope);
        }
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classes")
    }
}

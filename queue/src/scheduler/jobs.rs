//! Jobs: which messages belong together because whoever sent them said so.
//!
//! Invariant: exactly the messages in the scheduler's charge that name a job are here. Nothing is kept for messages that
//! name none, which is most of them.
//!
//! Not here: what is done to a job (operate).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{Entry, SpoolId};

/// The key in [`Entry::metadata`] whose value, UTF-8, names the job.
pub const JOB: &str = "job";

#[derive(Default)]
pub(super) struct Jobs {
    messages: BTreeMap<Arc<str>, BTreeSet<SpoolId>>,
    job_of: BTreeMap<SpoolId, Arc<str>>,
}

impl Jobs {
    pub(super) fn note(&mut self, entry: &Entry) {
        let Some(Ok(job)) = entry.metadata.get(JOB).map(|job| std::str::from_utf8(job)) else { return };
        let known = self.messages.get_key_value(job).map(|(job, _)| job.clone());
        let job = known.unwrap_or_else(|| job.into());
        self.messages.entry(job.clone()).or_default().insert(entry.id);
        self.job_of.insert(entry.id, job);
    }

    pub(super) fn forget(&mut self, id: SpoolId) {
        let Some(job) = self.job_of.remove(&id) else { return };
        if let Some(messages) = self.messages.get_mut(&job) {
            messages.remove(&id);
            if messages.is_empty() {
                self.messages.remove(&job);
            }
        }
    }

    pub(super) fn has(&self, job: &str, id: SpoolId) -> bool {
        self.messages.get(job).is_some_and(|messages| messages.contains(&id))
    }

    /// The messages of a job, oldest first.
    pub(super) fn of(&self, job: &str) -> impl Iterator<Item = SpoolId> {
        self.messages.get(job).into_iter().flatten().copied()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.job_of.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::sample;

    #[test]
    fn what_comes_goes_without_a_trace() {
        let mut jobs = Jobs::default();
        let entries: Vec<Entry> = (0..3)
            .map(|number| {
                let mut entry = sample(number).0;
                let name: &[u8] = if number == 2 { b"\xff" } else { b"newsletter" };
                entry.metadata.insert(JOB.into(), name.into());
                entry
            })
            .collect();
        entries.iter().for_each(|entry| jobs.note(entry));
        assert_eq!(jobs.of("newsletter").count(), 2, "what is no text names no job");
        assert!(jobs.has("newsletter", entries[0].id) && !jobs.has("other", entries[0].id));
        entries.iter().for_each(|entry| jobs.forget(entry.id));
        assert!(jobs.is_empty());
    }
}

//! Octets that came and are not yet used: [`Input`].
//!
//! Invariant: what is taken from the front is never seen again; memory is given back when the buffer runs empty
//! after a burst.
//!
//! Not here: how much a driver may read ahead.

/// Octets in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
}

/// A buffer that grew beyond this gives its memory back when it is empty.
const KEEP: usize = 16 * 1024;

impl Input {
    pub(super) fn push(&mut self, more: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    pub(super) fn take(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.take(usize::MAX);
    }
}

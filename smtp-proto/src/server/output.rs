//! Replies on their way out.
//!
//! Invariant: replies leave in the order of their commands; our own are written without allocation.
//!
//! Standards: RFC 5321 4.2; RFC 2034 (enhanced codes); RFC 2920 3.2 (replies may be collected).
//!
//! Not here: what to reply.

use postwright_core::{EnhancedStatus, Reply};

/// Replies that are not yet written.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    start: usize,
}

impl Output {
    /// A one-line reply of the machine's own. `text` comes from the source or from checked configuration.
    pub(super) fn say(&mut self, code: u16, status: Option<EnhancedStatus>, text: &str) {
        // Each is below 10: a code has three digits.
        self.bytes.extend([code / 100 % 10, code / 10 % 10, code % 10].map(|digit| b'0' + digit as u8));
        self.bytes.push(b' ');
        if let Some(status) = status {
            status.write_to(&mut self.bytes);
            self.bytes.push(b' ');
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Any reply.
    pub(super) fn reply(&mut self, reply: &Reply) {
        reply.write_to(&mut self.bytes);
    }

    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.bytes.len()
    }

    pub(super) fn written(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }
}

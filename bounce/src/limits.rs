//! Every number that bounds this crate's work: [`Limits`].
//!
//! Invariant: reading any input takes time linear in its length and memory bounded by these numbers.
//!
//! Standards: each number names the section it serves. Not here: the work itself.

/// The numbers that bound composing, reading and classifying. Start from `Limits::default()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most octets of an original that a composed notification returns, 64 KiB. A longer message is returned as its
    /// header section, and that is cut behind the last field that fits (RFC 3461 4.3 leaves both to the sender of the notification).
    pub returned: usize,
    /// Most recipients reported in one composed notification, 1,000 (RFC 5321 4.5.3.1.8 wants at least 100).
    pub recipients: usize,
    /// Most octets of a diagnostic in a composed notification, 4 KiB (RFC 3464 2.3.6 sets none).
    pub diagnostic: usize,
    /// Most octets of a mail that are read, 4 MiB; what lies behind is not looked at (RFC 3464 sets none).
    pub mail: usize,
    /// Deepest nesting of MIME parts that is entered, 16 (RFC 2046 5.1 sets none).
    pub depth: usize,
    /// Most MIME parts that are looked at, 200 (RFC 2046 5.1 sets none).
    pub parts: usize,
    /// Most header fields that are looked at in one header section, 500 (RFC 5322 sets none).
    pub fields: usize,
    /// Most octets kept of one header field, 8 KiB (RFC 5322 2.1.1 limits lines, not fields).
    pub field: usize,
    /// Most recipients taken from one report, 1,000.
    pub reports: usize,
    /// Most octets of a decoded text that is searched for refusals, 256 KiB.
    pub text: usize,
    /// Most octets of one refusal that is classified, 2 KiB (RFC 5321 4.5.3.1.5 allows 512 a line).
    pub refusal: usize,
    /// Most `Received` fields before a message counts as looping, 50 (RFC 5321 6.3 wants at least 100 to be safe; a
    /// server that sits in one loop alone may set less).
    pub received: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            returned: 64 * 1024,
            recipients: 1000,
            diagnostic: 4096,
            mail: 4 << 20,
            depth: 16,
            parts: 200,
            fields: 500,
            field: 8192,
            reports: 1000,
            text: 256 * 1024,
            refusal: 2048,
            received: 50,
        }
    }
}

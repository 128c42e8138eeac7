//! Every limit of the crate, each a named number with its reason.
//!
//! Invariant: nothing that comes from the network makes the crate do more than these numbers allow.

/// The limits; [`Limits::default`] holds what the standards ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// SPF terms that cause DNS look-ups in one check: 10 (RFC 7208 4.6.4).
    pub spf_terms: u32,
    /// SPF look-ups without an answer in one check: 2 (RFC 7208 4.6.4).
    pub spf_void_lookups: u32,
    /// Mail exchanges of one `mx`; more are a permerror: 10 (RFC 7208 4.6.4).
    pub spf_mx_hosts: usize,
    /// Names of one client address that are looked at; more are ignored: 10 (RFC 7208 4.6.4).
    pub spf_ptr_names: usize,
    /// Octets of an SPF explanation after expansion; a longer one is left out: 1024, so that it fits two lines of
    /// a reply (RFC 5321 4.5.3.1.5).
    pub spf_explanation: usize,
    /// Steps that an SPF trace keeps: 1000.
    pub spf_trace_steps: usize,
    /// Author domains of one message that DMARC looks at; a message with more is a permerror: 4 (RFC 9989 11.5).
    pub dmarc_authors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            spf_terms: 10,
            spf_void_lookups: 2,
            spf_mx_hosts: 10,
            spf_ptr_names: 10,
            spf_explanation: 1024,
            spf_trace_steps: 1000,
            dmarc_authors: 4,
        }
    }
}

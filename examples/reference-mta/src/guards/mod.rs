//! What keeps strangers at a distance before their mail is looked at: [`Greylist`](greylist::Greylist) and
//! [`Blocklist`](dnsbl::Blocklist), both optional, both asked at RCPT.
//!
//! Invariant: neither can stop mail when it is broken itself. A list that does not answer lists nobody, and is not
//! asked for a while ([`Breaker`](breaker::Breaker)); a greylist that is full forgets its oldest entries.
//!
//! Not here: content filters, reputation of our own.

pub(crate) mod breaker;
pub(crate) mod dnsbl;
pub(crate) mod greylist;

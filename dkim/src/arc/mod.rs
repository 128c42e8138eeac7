//! ARC, the Authenticated Received Chain (RFC 8617): what earlier hops say about a message, sealed.
//!
//! An intermediary that changes a message breaks its DKIM signatures; with ARC it states what it saw before. How far
//! a receiver believes that is the receiver's business.
//!
//! ARC is Experimental and on its way to Historic: the IETF is working on DKIM2, in which each hop signs what it
//! changed. These types leave room for that (a chain has its own result, apart from [`DkimResult`](crate::DkimResult));
//! there is no code for it.
//!
//! | file | what it does |
//! |---|---|
//! | chain.rs | finds the sets in a header and checks their structure |
//! | seal_field.rs | the tags of ARC-Seal |
//! | results.rs | the text of authentication results |
//! | validate.rs | [`ArcVerifier`], [`ArcVerification`]: is the chain whole? |
//! | sealer.rs | [`Sealer`]: adds a set |
//!
//! Not here: what a valid chain of a trusted sealer changes (local policy).

mod chain;
mod results;
mod seal_field;
mod sealer;
mod validate;

pub use results::authentication_results;
pub use sealer::{SealError, Sealer};
pub use validate::{ArcVerification, ArcVerifier};

use std::fmt;

use postwright_core::Domain;

use crate::result::Reason;

/// The state of a chain (`cv`, RFC 8617 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainValidation {
    /// The message has no ARC fields.
    None,
    /// The chain is whole and the newest message signature is valid.
    Pass,
    /// It is not.
    Fail,
}

impl ChainValidation {
    /// As written in `cv=` and `arc=`.
    pub fn as_str(self) -> &'static str {
        match self {
            ChainValidation::None => "none",
            ChainValidation::Pass => "pass",
            ChainValidation::Fail => "fail",
        }
    }
}

impl fmt::Display for ChainValidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a chain fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ArcReason {
    /// More sets than are allowed.
    #[error("there are more ARC sets than allowed (RFC 8617 4.2.1)")]
    TooManySets,
    /// A field has no valid instance number in its place.
    #[error("an ARC field has no instance number in its place (RFC 8617 4.2.1)")]
    Instance,
    /// A set is incomplete, doubled, or missing.
    #[error("ARC set {0} is incomplete, doubled or missing (RFC 8617 5.2)")]
    Structure(u32),
    /// An ARC-Seal cannot be read.
    #[error("the ARC-Seal of set {0} is not valid: {1}")]
    SealSyntax(u32, Reason),
    /// An ARC-Seal's cv= is not what its place demands.
    #[error("the cv= of set {0} is neither none at the start nor pass behind it (RFC 8617 5.2)")]
    ChainValue(u32),
    /// The last sealer found the chain broken.
    #[error("the chain was broken when set {0} was made (RFC 8617 5.2)")]
    BrokenBefore(u32),
    /// The newest ARC-Message-Signature is not valid.
    #[error("the ARC-Message-Signature of set {0} is not valid: {1}")]
    MessageSignature(u32, Reason),
    /// An ARC-Seal does not match.
    #[error("the ARC-Seal of set {0} does not verify: {1}")]
    Seal(u32, Reason),
    /// The header section is longer than what is kept.
    #[error("the header section is longer than what is verified")]
    HeaderTooLarge,
}

impl ArcReason {
    /// A stable word for logs and machines.
    pub fn as_str(self) -> &'static str {
        match self {
            ArcReason::TooManySets => "too-many-sets",
            ArcReason::Instance => "instance",
            ArcReason::Structure(_) => "structure",
            ArcReason::SealSyntax(..) => "seal-syntax",
            ArcReason::ChainValue(_) => "chain-value",
            ArcReason::BrokenBefore(_) => "broken-before",
            ArcReason::MessageSignature(..) => "message-signature",
            ArcReason::Seal(..) => "seal",
            ArcReason::HeaderTooLarge => "header-too-large",
        }
    }
}

/// The result for the chain of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArcResult {
    /// Whether the chain holds.
    pub cv: ChainValidation,
    /// The highest instance number: how many sets there are, if the structure is right.
    pub instances: u32,
    /// For a pass: the lowest instance from which on all message signatures are valid, 0 if all are (RFC 8617 5.2).
    pub oldest_pass: Option<u32>,
    /// Why the chain fails.
    pub reason: Option<ArcReason>,
    /// For a pass: the domains of the seals, from the first on. A receiver trusts a chain for these.
    pub sealers: Vec<Domain>,
    /// The last seal says `cv=fail`: nobody adds to this chain (RFC 8617 5.1.2).
    pub closed: bool,
}

impl ArcResult {
    pub(crate) fn fail(instances: u32, reason: ArcReason) -> ArcResult {
        ArcResult {
            cv: ChainValidation::Fail,
            instances,
            oldest_pass: None,
            reason: Some(reason),
            sealers: Vec::new(),
            closed: matches!(reason, ArcReason::BrokenBefore(_)),
        }
    }

    pub(crate) fn none() -> ArcResult {
        ArcResult {
            cv: ChainValidation::None,
            instances: 0,
            oldest_pass: None,
            reason: None,
            sealers: Vec::new(),
            closed: false,
        }
    }
}

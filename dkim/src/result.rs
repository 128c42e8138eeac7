//! What verification says: [`Verdict`], the typed [`Reason`] behind it, and [`DkimResult`].
//!
//! Invariant: a verdict follows from its reason by one table ([`Reason::verdict`]); only a pass has none.
//!
//! Standards: RFC 8601 2.7.1 (result values), RFC 6376 6.1 (which failure is which), RFC 8301.

use std::fmt;

use postwright_core::{DnsError, Domain};

use crate::signature::{Algorithm, Selector};

/// A DKIM result (RFC 8601 2.7.1). `none` is an empty list of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The signature is valid and acceptable.
    Pass,
    /// The message or its header is not what was signed.
    Fail,
    /// Never given by this crate, which says `permerror` with a reason instead; kept so that values of other
    /// verifiers can be expressed.
    Neutral,
    /// Something about the signature is not acceptable here: SHA-1, a short key, a limit.
    Policy,
    /// No answer from DNS; try again later.
    TempError,
    /// The signature or its key cannot be used, now or later.
    PermError,
}

impl Verdict {
    /// As written in Authentication-Results.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Neutral => "neutral",
            Verdict::Policy => "policy",
            Verdict::TempError => "temperror",
            Verdict::PermError => "permerror",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a signature is not a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The field is no tag list.
    #[error("the signature is not a tag list (RFC 6376 3.2)")]
    Syntax,
    /// A required tag is missing.
    #[error("the signature has no {0}= tag (RFC 6376 3.5)")]
    MissingTag(&'static str),
    /// `v=` is not 1.
    #[error("the signature's version is not 1 (RFC 6376 3.5)")]
    Version,
    /// `a=` names no algorithm that DKIM has.
    #[error("the signature's algorithm is unknown (RFC 6376 3.3, RFC 8463)")]
    Algorithm,
    /// `c=` names no known canonicalisation.
    #[error("the signature's canonicalization is unknown (RFC 6376 3.4)")]
    Canonicalization,
    /// `q=` offers no way but unknown ones.
    #[error("the signature's key is not to be had by dns/txt (RFC 6376 3.5)")]
    QueryMethod,
    /// `d=` is no domain name.
    #[error("the signing domain d= is not a domain name (RFC 6376 3.5)")]
    Domain,
    /// `s=` is no selector, or makes a name too long for DNS.
    #[error("the selector s= is not a series of labels (RFC 6376 3.1)")]
    Selector,
    /// `i=` is broken, or outside the signing domain.
    #[error("the identity i= is not within the signing domain d= (RFC 6376 3.5)")]
    Identity,
    /// `h=` is broken or too long.
    #[error("the list of signed fields h= is not a list of field names (RFC 6376 3.5)")]
    SignedFields,
    /// `h=` does not name From.
    #[error("the From field is not signed (RFC 6376 3.5)")]
    FromNotSigned,
    /// The message has no From field.
    #[error("the message has no From field (RFC 6376 5.4)")]
    NoFrom,
    /// `t=` or `x=` is no time, or `x=` is not after `t=`.
    #[error("the times t= and x= make no sense (RFC 6376 3.5)")]
    Times,
    /// `x=` has passed.
    #[error("the signature has expired (RFC 6376 3.5)")]
    Expired,
    /// `l=` is no number, or more than the body has.
    #[error("the body length l= is not a length of this body (RFC 6376 3.5)")]
    BodyLength,
    /// `b=` or `bh=` is not base64, or empty.
    #[error("the value of b= or bh= is not base64 (RFC 6376 3.5)")]
    Base64,
    /// An ARC instance tag is no number, or one that has no place here.
    #[error("the instance i= is not a number from 1 to 50 (RFC 8617 4.2.1)")]
    Instance,
    /// SHA-1, which nobody may accept any more.
    #[error("the signature uses SHA-1 (RFC 8301 3.1)")]
    Sha1,
    /// A shorter RSA key than this verifier accepts.
    #[error("the RSA key is too short (RFC 8301 3.2)")]
    KeyTooSmall,
    /// A longer RSA key than this verifier can use.
    #[error("the RSA key is longer than this verifier can use (RFC 8301 3.2)")]
    KeyTooLarge,
    /// Beyond the cap of signatures that are looked at.
    #[error("the message has more signatures than are verified (RFC 6376 6.1)")]
    TooManySignatures,
    /// The header section is longer than what is kept.
    #[error("the header section is longer than what is verified")]
    HeaderTooLarge,
    /// The body goes on behind what `l=` signs, and the policy refuses that.
    #[error("part of the body is not signed, because of l= (RFC 6376 8.2)")]
    UnsignedContent,
    /// A field that may occur once occurs again, unsigned.
    #[error("a field that may occur once occurs more often than it is signed (RFC 6376 8.15)")]
    UnsignedDuplicate,
    /// The body is not the one that was signed.
    #[error("the body hash does not match (RFC 6376 6.1.3)")]
    BodyHash,
    /// The header is not the one that was signed, or the key is another.
    #[error("the signature does not match (RFC 6376 6.1.3)")]
    Signature,
    /// DNS gave no answer.
    #[error("the key could not be looked up: {0}")]
    Dns(DnsError),
    /// There is no key record.
    #[error("there is no key record (RFC 6376 6.1.2)")]
    KeyMissing,
    /// The key was revoked: `p=` is empty.
    #[error("the key was revoked (RFC 6376 3.6.1)")]
    KeyRevoked,
    /// The key record is no tag list, or its key is broken.
    #[error("the key record cannot be read (RFC 6376 3.6.1)")]
    KeySyntax,
    /// The key record is longer than what is read.
    #[error("the key record is longer than what is read")]
    KeyRecordTooLong,
    /// The key record's version is not DKIM1.
    #[error("the key record's version is not DKIM1 (RFC 6376 3.6.1)")]
    KeyVersion,
    /// `k=` is unknown or not the signature's.
    #[error("the key is of another type than the signature (RFC 6376 3.6.1)")]
    KeyType,
    /// The key record's `h=` does not allow the signature's hash.
    #[error("the key is not for this hash algorithm (RFC 6376 3.6.1)")]
    KeyHash,
    /// The key record's `s=` does not allow e-mail.
    #[error("the key is not for e-mail (RFC 6376 3.6.1)")]
    KeyService,
    /// The key record says `t=s`, and `i=` is in a subdomain.
    #[error("the key does not allow subdomains in i= (RFC 6376 3.6.1)")]
    KeyStrict,
}

impl Reason {
    /// The verdict that follows.
    pub fn verdict(self) -> Verdict {
        use Reason::*;
        match self {
            BodyHash | Signature => Verdict::Fail,
            Sha1 | KeyTooSmall | KeyTooLarge | TooManySignatures | HeaderTooLarge | UnsignedContent
            | UnsignedDuplicate => Verdict::Policy,
            Dns(_) => Verdict::TempError,
            Syntax | MissingTag(_) | Version | Algorithm | Canonicalization | QueryMethod | Domain
            | Selector | Identity | SignedFields | FromNotSigned | NoFrom | Times | Expired | BodyLength
            | Base64 | Instance | KeyMissing | KeyRevoked | KeySyntax | KeyRecordTooLong | KeyVersion
            | KeyType | KeyHash | KeyService | KeyStrict => Verdict::PermError,
        }
    }

    /// A stable word for logs and machines.
    pub fn as_str(self) -> &'static str {
        use Reason::*;
        match self {
            Syntax => "syntax",
            MissingTag(_) => "missing-tag",
            Version => "version",
            Algorithm => "algorithm",
            Canonicalization => "canonicalization",
            QueryMethod => "query-method",
            Domain => "domain",
            Selector => "selector",
            Identity => "identity",
            SignedFields => "signed-fields",
            FromNotSigned => "from-not-signed",
            NoFrom => "no-from",
            Times => "times",
            Expired => "expired",
            BodyLength => "body-length",
            Base64 => "base64",
            Instance => "instance",
            Sha1 => "sha1",
            KeyTooSmall => "key-too-small",
            KeyTooLarge => "key-too-large",
            TooManySignatures => "too-many-signatures",
            HeaderTooLarge => "header-too-large",
            UnsignedContent => "unsigned-content",
            UnsignedDuplicate => "unsigned-duplicate",
            BodyHash => "body-hash",
            Signature => "signature",
            Dns(DnsError::Timeout) => "dns-timeout",
            Dns(DnsError::ServFail) => "dns-failure",
            Dns(DnsError::Bogus) => "dns-bogus",
            KeyMissing => "key-missing",
            KeyRevoked => "key-revoked",
            KeySyntax => "key-syntax",
            KeyRecordTooLong => "key-record-too-long",
            KeyVersion => "key-version",
            KeyType => "key-type",
            KeyHash => "key-hash",
            KeyService => "key-service",
            KeyStrict => "key-strict",
        }
    }
}

/// The result for one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DkimResult {
    /// RFC 8601's value.
    pub verdict: Verdict,
    /// Why it is not a pass; `None` for a pass.
    pub reason: Option<Reason>,
    /// `d=`: who takes responsibility. `None` if it could not be read. Only on a pass does it mean anything.
    pub domain: Option<Domain>,
    /// `s=`.
    pub selector: Option<Selector>,
    /// `i=`, decoded; `@` and `d=` if the tag is absent.
    pub identity: Option<String>,
    /// `a=`.
    pub algorithm: Option<Algorithm>,
    /// The first eight characters of `b=`, which tell signatures of one domain apart (RFC 6008).
    pub tag: Option<String>,
    /// Bits of the public key, if one was found: 256 for Ed25519.
    pub key_bits: Option<u32>,
    /// The key says `t=y`: the domain is testing, and a failure is to be treated as no signature (RFC 6376 3.6.1).
    pub testing: bool,
    /// Octets of the canonical body behind what `l=` signs. Zero without `l=`.
    pub unsigned_bytes: u64,
}

impl DkimResult {
    /// Whether the signature is valid and acceptable.
    pub fn is_pass(&self) -> bool {
        self.verdict == Verdict::Pass
    }
}

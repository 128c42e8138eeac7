//! The signature field: `DKIM-Signature` (RFC 6376 3.5) and, with the same tags, `ARC-Message-Signature`.
//!
//! Invariant: a [`Signature`] is complete and consistent: From is signed, `i=` lies within `d=`, the name of its
//! key is a DNS name. What is wrong with one that is not is a [`Reason`].
//!
//! Standards: RFC 6376 3.2, 3.5; RFC 8463 (ed25519-sha256); RFC 8616 (UTF-8); RFC 8617 4.1.2.
//!
//! Not here: the seal of ARC (arc/), the key (key.rs).

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use postwright_core::{Domain, Name};

use crate::base64;
use crate::canon::CanonPair;
use crate::limits::Limits;
use crate::names::Names;
use crate::result::Reason;
use crate::tag::{self, TagList};

/// Largest `l=`, `t=` and `x=` in digits (RFC 6376 3.5: up to 76 and 12 digits; more than fits is no number here).
const NUMBER_DIGITS_MAX: usize = 76;

/// A signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// `rsa-sha1`: historic; verified only where the policy says so (RFC 8301 3.1).
    RsaSha1,
    /// `rsa-sha256` (RFC 6376 3.3.2).
    RsaSha256,
    /// `ed25519-sha256` (RFC 8463).
    Ed25519Sha256,
}

impl Algorithm {
    /// As written in `a=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RsaSha1 => "rsa-sha1",
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Algorithm> {
        [Algorithm::RsaSha1, Algorithm::RsaSha256, Algorithm::Ed25519Sha256]
            .into_iter()
            .find(|known| known.as_str() == text)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A selector: one or more labels (RFC 6376 3.1), kept in the case it was written in.
///
/// Letters, digits, inner hyphens, and underscores, which the ABNF lacks and published keys have.
///
/// ```
/// use postwright_dkim::Selector;
/// assert!("2026-11.eu".parse::<Selector>().is_ok());
/// assert!("a..b".parse::<Selector>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Box<str>);

/// The text is no selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a selector is labels of letters, digits, hyphens and underscores, joined by dots, 63 octets each (RFC 6376 3.1)"
)]
pub struct SelectorError;

impl Selector {
    /// The selector as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the key of this selector is published: `SELECTOR._domainkey.DOMAIN` (RFC 6376 3.6.2.1). `None` if that
    /// is longer than a DNS name may be.
    pub fn key_name(&self, domain: &Domain) -> Option<Name> {
        [self.as_str(), "._domainkey.", domain.as_str()].concat().parse().ok()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
        };
        if text.len() <= Name::MAX && text.split('.').all(is_label) {
            Ok(Selector(text.into()))
        } else {
            Err(SelectorError)
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a signature claims, as far as it can be read: for reports, even when the signature is invalid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    pub(crate) domain: Option<Domain>,
    pub(crate) selector: Option<Selector>,
    pub(crate) identity: Option<String>,
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) tag: Option<String>,
}

impl Claims {
    pub(crate) fn of(tags: &TagList<'_>, family: Family) -> Claims {
        let domain: Option<Domain> = tags.value("d").and_then(|d| d.parse().ok());
        let identity = match tags.value("i").filter(|_| family == Family::Dkim) {
            Some(i) => tag::quoted_printable(i),
            None => domain.as_ref().map(|domain| ["@", domain.as_str()].concat()),
        };
        Claims {
            identity,
            domain,
            selector: tags.value("s").and_then(|s| s.parse().ok()),
            algorithm: tags.value("a").and_then(Algorithm::parse),
            tag: tags.value("b").map(first_of_b),
        }
    }
}

/// What tells signatures of one domain apart (RFC 6008).
fn first_of_b(b: &str) -> String {
    let mut first = String::with_capacity(8);
    first.extend(b.chars().filter(|c| !tag::is_blank(*c)).take(8));
    first
}

/// Which field the tags are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Dkim,
    #[cfg(feature = "arc")]
    ArcMessage,
}

impl Family {
    /// Without `c=`. ARC's is relaxed in the suite of its authors (`ams_fields_c_na`), though RFC 8617 4.1.2 takes
    /// the tags over from DKIM without a word on it.
    fn default_canon(self) -> CanonPair {
        match self {
            Family::Dkim => CanonPair::SIMPLE,
            #[cfg(feature = "arc")]
            Family::ArcMessage => CanonPair::default(),
        }
    }
}

/// A signature that can be verified.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub(crate) algorithm: Algorithm,
    pub(crate) canon: CanonPair,
    pub(crate) key_name: Name,
    /// Whether `i=` is in a subdomain of `d=`, which a key with `t=s` forbids.
    pub(crate) in_subdomain: bool,
    /// Names from `h=`.
    pub(crate) signed: Names,
    pub(crate) body_hash: Vec<u8>,
    pub(crate) body_length: Option<u64>,
    pub(crate) signature: Vec<u8>,
    pub(crate) expires: Option<u64>,
    /// Where the value of `b=` stands in the field's value.
    pub(crate) b_span: Range<usize>,
}

impl Signature {
    /// `claims` are those of the same tags.
    pub(crate) fn parse(
        tags: &TagList<'_>,
        claims: &Claims,
        family: Family,
        limits: &Limits,
    ) -> Result<Signature, Reason> {
        let need = |name: &'static str| tags.value(name).ok_or(Reason::MissingTag(name));
        if family == Family::Dkim && need("v")? != "1" {
            return Err(Reason::Version);
        }
        let algorithm = Algorithm::parse(need("a")?).ok_or(Reason::Algorithm)?;
        let canon = match tags.value("c") {
            None => family.default_canon(),
            Some(c) => c.parse().map_err(|_| Reason::Canonicalization)?,
        };
        let b = tags.get("b").ok_or(Reason::MissingTag("b"))?;
        let signature = octets(b.value)?;
        let body_hash = octets(need("bh")?)?;
        need("d").and_then(|_| need("s"))?;
        let domain = claims.domain.as_ref().ok_or(Reason::Domain)?;
        let selector = claims.selector.as_ref().ok_or(Reason::Selector)?;
        let key_name = selector.key_name(domain).ok_or(Reason::Selector)?;
        let in_subdomain = match tags.value("i").filter(|_| family == Family::Dkim) {
            None => false,
            Some(i) => identity_domain(i, domain)? != *domain,
        };
        if let Some(q) = tags.value("q")
            && !tag::members(q).any(|method| method == "dns/txt")
        {
            return Err(Reason::QueryMethod);
        }
        let signed = signed_names(need("h")?, family, limits)?;
        let (signed_at, expires) = (number(tags, "t", Reason::Times)?, number(tags, "x", Reason::Times)?);
        if let (Some(signed_at), Some(expires)) = (signed_at, expires)
            && expires <= signed_at
        {
            return Err(Reason::Times);
        }
        let body_length = number(tags, "l", Reason::BodyLength)?;
        Ok(Signature {
            algorithm,
            canon,
            key_name,
            in_subdomain,
            signed,
            body_hash,
            body_length,
            signature,
            expires,
            b_span: b.span.clone(),
        })
    }

    /// Whether the signature's time has passed, give or take the skew of clocks.
    pub(crate) fn is_expired(&self, now_secs: u64, skew_secs: u64) -> bool {
        self.expires.is_some_and(|expires| now_secs > expires.saturating_add(skew_secs))
    }
}

pub(crate) fn octets(value: &str) -> Result<Vec<u8>, Reason> {
    base64::decode(value.as_bytes()).filter(|octets| !octets.is_empty()).ok_or(Reason::Base64)
}

/// The domain of `i=`, which must be `d=` or below it.
fn identity_domain(i: &str, domain: &Domain) -> Result<Domain, Reason> {
    let identity = tag::quoted_printable(i).ok_or(Reason::Identity)?;
    let (_, host) = identity.rsplit_once('@').ok_or(Reason::Identity)?;
    let host: Domain = host.parse().map_err(|_| Reason::Identity)?;
    if host.is_within(domain) { Ok(host) } else { Err(Reason::Identity) }
}

/// The names of `h=`: printable ASCII without colon and semicolon (RFC 6376 3.5, RFC 5322 3.6.8).
fn signed_names(h: &str, family: Family, limits: &Limits) -> Result<Names, Reason> {
    let mut names = Names::with_capacity(h.len());
    let mut from = false;
    for name in tag::members(h) {
        // The suite of ARC's authors has an empty h= and an empty name in it, both passing.
        if family != Family::Dkim && name.is_empty() {
            continue;
        }
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic()) {
            return Err(Reason::SignedFields);
        }
        if names.len() == limits.signed_names {
            return Err(Reason::SignedFields);
        }
        from |= name.eq_ignore_ascii_case("from");
        names.push(name);
    }
    if family == Family::Dkim && !from {
        return Err(Reason::FromNotSigned);
    }
    Ok(names)
}

/// A time or a length: a number in decimal digits. One too large for 64 bits is taken as the largest: all such numbers lie beyond any
/// body and any date.
pub(crate) fn number(tags: &TagList<'_>, name: &str, reason: Reason) -> Result<Option<u64>, Reason> {
    let Some(text) = tags.value(name) else { return Ok(None) };
    if text.is_empty() || text.len() > NUMBER_DIGITS_MAX || !text.bytes().all(|octet| octet.is_ascii_digit())
    {
        return Err(reason);
    }
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "v=1; a=rsa-sha256; d=example.org; s=sel; h=from:to; bh=YWI=; b=YWI=";

    fn parse(text: &str) -> Result<Signature, Reason> {
        let tags = TagList::parse(text.as_bytes()).map_err(|_| Reason::Syntax)?;
        Signature::parse(&tags, &Claims::of(&tags, Family::Dkim), Family::Dkim, &Limits::default())
    }

    #[test]
    fn defaults_are_those_of_the_rfc() {
        let signature = parse(GOOD).unwrap();
        assert_eq!(signature.canon, CanonPair::SIMPLE);
        assert_eq!(signature.key_name.as_str(), "sel._domainkey.example.org");
        assert_eq!((signature.body_length, signature.expires, signature.in_subdomain), (None, None, false));
    }

    #[test]
    fn each_broken_tag_has_its_reason() {
        for (from, to, reason) in [
            ("v=1; ", "", Reason::MissingTag("v")),
            ("v=1", "v=2", Reason::Version),
            ("v=1", "v=", Reason::Version),
            ("rsa-sha256", "rsa-md5", Reason::Algorithm),
            ("rsa-sha256", "RSA-SHA256", Reason::Algorithm),
            ("d=example.org; ", "", Reason::MissingTag("d")),
            ("d=example.org", "d=-x.org", Reason::Domain),
            ("s=sel", "s=", Reason::Selector),
            ("s=sel", "s=a..b", Reason::Selector),
            ("s=sel", "s=s\u{e9}l", Reason::Selector),
            ("v=1", "v=1; c=Relaxed", Reason::Canonicalization),
            ("h=from:to", "h=to", Reason::FromNotSigned),
            ("h=from:to", "h=from::to", Reason::SignedFields),
            ("h=from:to", "h=from:t o", Reason::SignedFields),
            ("bh=YWI=", "bh=", Reason::Base64),
            ("b=YWI=", "b=Y*I=", Reason::Base64),
            ("h=from:to; ", "", Reason::MissingTag("h")),
            ("v=1", "v=1; c=nofws", Reason::Canonicalization),
            ("v=1", "v=1; q=http", Reason::QueryMethod),
            ("v=1", "v=1; i=@example.com", Reason::Identity),
            ("v=1", "v=1; i=@badexample.org", Reason::Identity),
            ("v=1", "v=1; i=example.org", Reason::Identity),
            ("v=1", "v=1; t=5; x=5", Reason::Times),
            ("v=1", "v=1; t=-5", Reason::Times),
            ("v=1", "v=1; l=1k", Reason::BodyLength),
            ("v=1", "v=1; v=1", Reason::Syntax),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_eq!(parse(&text).map(|_| ()), Err(reason), "{text}");
        }
    }

    #[test]
    fn one_label_is_a_domain() {
        assert_eq!(
            parse(&GOOD.replace("example.org", "test")).unwrap().key_name.as_str(),
            "sel._domainkey.test"
        );
    }

    /// RFC 8617 4.1.2: "if seen, a version tag MUST be ignored".
    #[cfg(feature = "arc")]
    #[test]
    fn arc_has_no_version() {
        for version in ["v=1; ", "v=7; ", "v=; ", ""] {
            let text = GOOD.replacen("v=1; ", version, 1);
            let tags = TagList::parse(text.as_bytes()).unwrap();
            let (family, limits) = (Family::ArcMessage, Limits::default());
            let parsed = Signature::parse(&tags, &Claims::of(&tags, family), family, &limits);
            assert!(parsed.is_ok(), "{version:?}");
        }
    }

    #[test]
    fn identities_below_the_domain_are_taken_and_noted() {
        let text = format!("{GOOD}; i=joe=40x@Mail.example.org; q=http : dns/txt; l=99999999999999999999999");
        let signature = parse(&text).unwrap();
        assert!(signature.in_subdomain);
        assert_eq!(signature.body_length, Some(u64::MAX));
    }

    #[test]
    fn expiry_gives_the_clocks_their_skew() {
        let signature = parse(&format!("{GOOD}; t=900; x=1000")).unwrap();
        assert!(!signature.is_expired(1000, 0));
        assert!(signature.is_expired(1001, 0));
        assert!(!signature.is_expired(1300, 300));
        assert!(signature.is_expired(1301, 300));
    }
}

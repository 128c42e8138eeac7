//! The tags of ARC-Seal (RFC 8617 4.1.3), and instance numbers (4.2.1).

use std::ops::Range;

use postwright_core::{Domain, Name};

use super::ChainValidation;
use crate::result::Reason;
use crate::signature::{self, Algorithm, Selector};
use crate::tag::TagList;

/// An ARC-Seal that can be verified.
#[derive(Debug, Clone)]
pub(super) struct Seal {
    pub(super) cv: ChainValidation,
    pub(super) algorithm: Algorithm,
    pub(super) domain: Domain,
    pub(super) key_name: Name,
    pub(super) signature: Vec<u8>,
    /// Where the value of `b=` stands in the field's value.
    pub(super) b_span: Range<usize>,
}

impl Seal {
    pub(super) fn parse(value: &[u8]) -> Result<Seal, Reason> {
        let tags = TagList::parse(value).map_err(|_| Reason::Syntax)?;
        let need = |name: &'static str| tags.value(name).ok_or(Reason::MissingTag(name));
        // A seal covers what RFC 8617 5.1.1 says, and nothing else.
        if tags.get("h").is_some() {
            return Err(Reason::SignedFields);
        }
        let cv = match need("cv")? {
            "none" => ChainValidation::None,
            "pass" => ChainValidation::Pass,
            "fail" => ChainValidation::Fail,
            _ => return Err(Reason::Syntax),
        };
        let algorithm = Algorithm::parse(need("a")?).ok_or(Reason::Algorithm)?;
        if algorithm == Algorithm::RsaSha1 {
            return Err(Reason::Sha1);
        }
        let b = tags.get("b").ok_or(Reason::MissingTag("b"))?;
        let domain: Domain = need("d")?.parse().map_err(|_| Reason::Domain)?;
        let selector: Selector = need("s")?.parse().map_err(|_| Reason::Selector)?;
        let key_name = selector.key_name(&domain).ok_or(Reason::Selector)?;
        signature::number(&tags, "t", Reason::Times)?;
        Ok(Seal {
            cv,
            algorithm,
            domain,
            key_name,
            signature: signature::octets(b.value)?,
            b_span: b.span.clone(),
        })
    }
}

/// The instance number in a tag list.
pub(super) fn instance(value: &[u8]) -> Option<u32> {
    number(TagList::parse(value).ok()?.value("i")?)
}

/// A position: one or two digits (RFC 8617 3.9). Whether it is within the limit is decided by the caller.
pub(super) fn number(text: &str) -> Option<u32> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_stand_where_they_must() {
        assert_eq!(instance(b" a=x; i = 7 ;cv=none"), Some(7));
        for bad in ["i=", "i=0", "i=x", "i=-1", "i=+1", "i=001", "i=100", "a=b", "i=1; i=1"] {
            assert_eq!(instance(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn seals_have_no_h_and_a_known_cv() {
        let good = "i=1; a=rsa-sha256; cv=none; d=example.org; s=s; t=1; b=YWI=";
        assert_eq!(Seal::parse(good.as_bytes()).unwrap().domain.as_str(), "example.org");
        for (from, to, reason) in [
            ("cv=none", "cv=maybe", Reason::Syntax),
            ("cv=none; ", "", Reason::MissingTag("cv")),
            ("cv=none", "cv=none; h=from", Reason::SignedFields),
            ("rsa-sha256", "rsa-sha1", Reason::Sha1),
            ("t=1", "t=", Reason::Times),
            ("b=YWI=", "b=", Reason::Base64),
        ] {
            let text = good.replacen(from, to, 1);
            assert_eq!(Seal::parse(text.as_bytes()).map(|_| ()), Err(reason), "{text}");
        }
    }
}

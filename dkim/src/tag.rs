//! Tag lists (RFC 6376 3.2): `name=value; name=value`, the syntax of signatures and of key records.
//!
//! Invariant: a [`TagList`] holds no name twice and no value with a line break that is not folding white space;
//! values are without white space at both ends.
//!
//! Standards: RFC 6376 3.2 (ABNF), RFC 8616 4 (UTF-8 in values).

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Why a text is no tag list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TagError {
    /// A tag has no `=`, or there is nothing between two semicolons.
    #[error("a tag has no = (RFC 6376 3.2)")]
    NoEquals,
    /// A tag name is not a letter followed by letters, digits and underscores.
    #[error("a tag name is a letter, then letters, digits and underscores (RFC 6376 3.2)")]
    Name,
    /// A value holds control characters, a broken fold, or text that is not UTF-8.
    #[error("a tag value holds an octet that is neither printable nor folding white space (RFC 6376 3.2)")]
    Value,
    /// A tag occurs twice.
    #[error("a tag occurs twice, so the whole list is invalid (RFC 6376 3.2)")]
    Duplicate,
}

/// One tag.
#[derive(Debug, Clone)]
pub(crate) struct Tag<'t> {
    pub(crate) name: &'t str,
    /// Without white space at both ends.
    pub(crate) value: &'t str,
    /// From behind `=` up to the semicolon or the end: what is deleted of `b=` before hashing.
    pub(crate) span: Range<usize>,
}

/// The tags in their order.
#[derive(Debug, Clone)]
pub(crate) struct TagList<'t>(Vec<Tag<'t>>);

impl<'t> TagList<'t> {
    pub(crate) fn parse(text: &'t [u8]) -> Result<TagList<'t>, TagError> {
        let text = std::str::from_utf8(text).map_err(|_| TagError::Value)?;
        if !is_clean(text.as_bytes()) {
            return Err(TagError::Value);
        }
        let mut tags: Vec<Tag<'t>> = Vec::with_capacity(12);
        let mut at = 0;
        // One trailing semicolon is allowed; what is behind it is white space only.
        let body = text.trim_end_matches(is_fws);
        let body = body.strip_suffix(';').unwrap_or(body);
        if body.trim_matches(is_fws).is_empty() {
            return if body.len() == text.trim_end_matches(is_fws).len() {
                Ok(TagList(tags))
            } else {
                Err(TagError::NoEquals)
            };
        }
        for spec in body.split(';') {
            let (name, raw) = spec.split_once('=').ok_or(TagError::NoEquals)?;
            let start = at + name.len() + 1;
            let span = start..start + raw.len();
            at += spec.len() + 1;
            let name = name.trim_matches(is_fws);
            if !is_tag_name(name) {
                return Err(TagError::Name);
            }
            tags.push(Tag { name, value: raw.trim_matches(is_fws), span });
        }
        unique(&tags)?;
        Ok(TagList(tags))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Tag<'t>> {
        self.0.iter().find(|tag| tag.name == name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'t str> {
        self.get(name).map(|tag| tag.value)
    }

    /// The name of the first tag.
    pub(crate) fn first(&self) -> Option<&'t str> {
        self.0.first().map(|tag| tag.name)
    }
}

/// Few tags are compared pairwise, many are sorted: a list of 100,000 tags costs no square.
fn unique(tags: &[Tag<'_>]) -> Result<(), TagError> {
    let twice = if tags.len() <= 16 {
        tags.iter().zip(1..).any(|(tag, next)| tags.iter().skip(next).any(|other| other.name == tag.name))
    } else {
        let mut names: Vec<&str> = tags.iter().map(|tag| tag.name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
    };
    if twice { Err(TagError::Duplicate) } else { Ok(()) }
}

fn is_tag_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// White space of a tag list. Line ends are known to be folds by then.
pub(crate) fn is_fws(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// No control characters, and every line end is CRLF followed by a blank.
fn is_clean(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|octet| *octet < 0x20 || *octet == 0x7f) {
        let behind = match rest.get(at..) {
            Some([b'\r', b'\n', b' ' | b'\t', behind @ ..]) | Some([b'\t', behind @ ..]) => behind,
            _ => return false,
        };
        rest = behind;
    }
    true
}

/// A value without any white space in it.
pub(crate) fn without_fws(value: &str) -> Cow<'_, [u8]> {
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t' | b'\r' | b'\n');
    let octets = value.as_bytes();
    if !octets.iter().any(is_blank) {
        return Cow::Borrowed(octets);
    }
    let mut out = Vec::with_capacity(octets.len());
    octets.split(is_blank).for_each(|word| out.extend_from_slice(word));
    Cow::Owned(out)
}

/// Padding may be left out (the ABNF allows it); bits behind the last octet must be zero, so that no two
/// spellings of a signature exist.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a `base64string` (RFC 6376 2.10 and 3.2), white space inside included.
pub(crate) fn base64(value: &str) -> Option<Vec<u8>> {
    BASE64.decode(without_fws(value)).ok()
}

/// The members of a colon-separated list, white space around each left out.
pub(crate) fn members(value: &str) -> impl Iterator<Item = &str> {
    value.split(':').map(|member| member.trim_matches(is_fws))
}

/// Decodes `dkim-quoted-printable` (RFC 6376 2.11): `=` and two upper-case hex digits are an octet.
pub(crate) fn quoted_printable(value: &str) -> Option<String> {
    let compact = without_fws(value);
    let mut out = Vec::with_capacity(compact.len());
    let mut rest = &*compact;
    loop {
        rest = match rest {
            [] => return String::from_utf8(out).ok(),
            [b'=', high, low, tail @ ..] => {
                out.push(hex(*high)? << 4 | hex(*low)?);
                tail
            }
            [b'=', ..] => return None,
            [octet, tail @ ..] => {
                out.push(*octet);
                tail
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Result<Vec<(&str, &str)>, TagError> {
        TagList::parse(text.as_bytes()).map(|list| list.0.iter().map(|tag| (tag.name, tag.value)).collect())
    }

    #[test]
    fn lists_follow_the_abnf() {
        assert_eq!(pairs("a=b"), Ok(vec![("a", "b")]));
        assert_eq!(pairs(" a = b c ;\r\n\tb= ; "), Ok(vec![("a", "b c"), ("b", "")]));
        assert_eq!(pairs("a=x=y;B_1=z"), Ok(vec![("a", "x=y"), ("B_1", "z")]));
        assert_eq!(pairs("a=1; A=2"), Ok(vec![("a", "1"), ("A", "2")]));
        assert_eq!(pairs(""), Ok(vec![]));
        for (bad, error) in [
            ("a", TagError::NoEquals),
            (";", TagError::NoEquals),
            ("a=b;;c=d", TagError::NoEquals),
            ("a=b;;", TagError::NoEquals),
            ("=b", TagError::Name),
            ("1=b", TagError::Name),
            ("a-b=c", TagError::Name),
            ("a b=c", TagError::Name),
            ("a=b;a=c", TagError::Duplicate),
            ("a=b\r\nc", TagError::Value),
            ("a=b\nc", TagError::Value),
            ("a=\0", TagError::Value),
        ] {
            assert_eq!(pairs(bad), Err(error), "{bad:?}");
        }
        assert_eq!(TagList::parse(b"a=\xff").map(|_| ()), Err(TagError::Value));
    }

    #[test]
    fn many_tags_are_compared_without_a_square() {
        let list: String = (0..100_000).map(|n| format!("t{n}=;")).collect();
        assert!(pairs(&list).is_ok());
        assert_eq!(pairs(&format!("{list}t7=")), Err(TagError::Duplicate));
    }

    #[test]
    fn the_span_is_what_a_hash_leaves_out() {
        let text = "a=1; b = xy\r\n\tz ; c=2";
        let list = TagList::parse(text.as_bytes()).unwrap();
        assert_eq!(&text[list.get("b").unwrap().span.clone()], " xy\r\n\tz ");
    }

    #[test]
    fn base64_has_one_spelling_but_for_padding_and_blanks() {
        assert_eq!(base64("Zm9v\r\n YmE=").as_deref(), Some(&b"fooba"[..]));
        assert_eq!(base64("Zm9vYmE").as_deref(), Some(&b"fooba"[..]));
        assert_eq!(base64("Zm9vYmF="), None, "bits behind the last octet");
        assert_eq!(base64("Zm9v-mE="), None);
    }

    #[test]
    fn quoted_printable_takes_upper_case_digits_only() {
        assert_eq!(quoted_printable("a=3Bb c").as_deref(), Some("a;bc"));
        for bad in ["=3b", "=3", "=", "=FF"] {
            assert_eq!(quoted_printable(bad), None, "{bad}");
        }
    }
}

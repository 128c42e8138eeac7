//! Tag lists (RFC 6376 3.2): `name=value; name=value`, the syntax of signatures and of key records.
//!
//! Invariant: a [`TagList`] holds no name twice and no value with a line break that is not folding white space;
//! values are without white space at both ends.
//!
//! Standards: RFC 6376 3.2 (ABNF), RFC 8616 4 (UTF-8 in values).

use std::borrow::Cow;
use std::ops::Range;

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
        // One trailing semicolon is allowed; what is behind it is white space only.
        let whole = trim_end(text);
        let body = whole.strip_suffix(';').unwrap_or(whole);
        if trim(body).is_empty() {
            return if body.len() == whole.len() { Ok(TagList(tags)) } else { Err(TagError::NoEquals) };
        }
        let mut start = 0;
        let ends = memchr::memchr_iter(b';', body.as_bytes()).chain([body.len()]);
        for end in ends {
            let spec = body.get(start..end).unwrap_or_default();
            // A name is a letter or two: looking at each is quicker than calling for it.
            let equals = spec.bytes().position(|octet| octet == b'=').ok_or(TagError::NoEquals)?;
            let (name, raw) = spec.split_at_checked(equals).ok_or(TagError::NoEquals)?;
            let (name, raw) = (trim(name), raw.get(1..).unwrap_or_default());
            if !is_tag_name(name) {
                return Err(TagError::Name);
            }
            tags.push(Tag { name, value: trim(raw), span: start + equals + 1..end });
            start = end + 1;
        }
        // The blanks behind the last value belong to it as well where no semicolon ends it.
        if let Some(last) = tags.last_mut().filter(|_| body.len() == whole.len()) {
            last.span.end = text.len();
        }
        unique(&tags)?;
        Ok(TagList(tags))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Tag<'t>> {
        // As above.
        self.0.iter().find(|tag| tag.name.len() == name.len() && tag.name.bytes().eq(name.bytes()))
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'t str> {
        self.get(name).map(|tag| tag.value)
    }

    /// The name of the first tag.
    pub(crate) fn first(&self) -> Option<&'t str> {
        self.0.first().map(|tag| tag.name)
    }
}

/// Names of one letter are counted in a set of bits, the others sorted: a list of 100,000 tags costs no square.
fn unique(tags: &[Tag<'_>]) -> Result<(), TagError> {
    let mut letters: u128 = 0;
    let mut long = 0;
    for tag in tags {
        match tag.name.as_bytes() {
            [letter] => {
                // Tag names are ASCII.
                let bit = 1u128 << (letter & 0x7f);
                if letters & bit != 0 {
                    return Err(TagError::Duplicate);
                }
                letters |= bit;
            }
            _ => long += 1,
        }
    }
    // A signature has `bh` and no other as a rule.
    if long > 1 {
        let mut names: Vec<&str> = tags.iter().map(|tag| tag.name).filter(|name| name.len() > 1).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(TagError::Duplicate);
        }
    }
    Ok(())
}

fn is_tag_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// White space of a tag list. Line ends are known to be folds by then.
pub(crate) fn is_fws(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r' | b'\n')
}

/// As [`is_fws`].
pub(crate) fn is_blank(c: char) -> bool {
    u8::try_from(c).is_ok_and(is_fws)
}

fn trim_end(text: &str) -> &str {
    let kept = text.bytes().rposition(|octet| !is_fws(octet)).map_or(0, |last| last + 1);
    text.get(..kept).unwrap_or_default()
}

/// Without white space at both ends.
pub(crate) fn trim(text: &str) -> &str {
    let text = trim_end(text);
    let blanks = text.bytes().take_while(|octet| is_fws(*octet)).count();
    text.get(blanks..).unwrap_or_default()
}

/// No control characters, and every line end is CRLF followed by a blank.
fn is_clean(text: &[u8]) -> bool {
    let mut rest = text;
    loop {
        // Blocks without branches become vector code.
        while let Some((block, behind)) = rest.split_first_chunk::<16>()
            && !block.iter().fold(false, |found, octet| found | is_control(*octet))
        {
            rest = behind;
        }
        let Some(at) = rest.iter().position(|octet| is_control(*octet)) else { return true };
        rest = match rest.get(at..) {
            Some([b'\r', b'\n', b' ' | b'\t', behind @ ..]) | Some([b'\t', behind @ ..]) => behind,
            _ => return false,
        };
    }
}

fn is_control(octet: u8) -> bool {
    (octet < 0x20) | (octet == 0x7f)
}

/// A value without any white space in it.
pub(crate) fn without_fws(value: &str) -> Cow<'_, [u8]> {
    let octets = value.as_bytes();
    // Each LF has a CR before it.
    let Some(mut at) = memchr::memchr3(b' ', b'\t', b'\r', octets) else { return Cow::Borrowed(octets) };
    let mut out = Vec::with_capacity(octets.len());
    let mut rest = octets;
    loop {
        let (word, blanks) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend_from_slice(word);
        let run = blanks.iter().take_while(|octet| is_fws(**octet)).count();
        rest = blanks.get(run..).unwrap_or_default();
        match memchr::memchr3(b' ', b'\t', b'\r', rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// The members of a colon-separated list, white space around each left out.
pub(crate) fn members(value: &str) -> impl Iterator<Item = &str> {
    between_colons(value).map(trim)
}

/// What `split(':')` gives, for lists of short words: without its search for long stretches.
pub(crate) fn between_colons(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(colon) = text.bytes().position(|octet| octet == b':') else { return rest.take() };
        rest = text.get(colon + 1..);
        text.get(..colon)
    })
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
        for (text, span) in [("a=1; b= x \r\n ", " x \r\n "), ("a=1; b= x ; \r\n ", " x ")] {
            let list = TagList::parse(text.as_bytes()).unwrap();
            assert_eq!(&text[list.get("b").unwrap().span.clone()], span);
        }
    }

    #[test]
    fn lists_are_split_as_str_does() {
        for text in ["", ":", "a", "a:", ":a", "a:b::c", "\u{e9}:\u{e9}"] {
            assert!(between_colons(text).eq(text.split(':')), "{text:?}");
        }
    }

    #[test]
    fn quoted_printable_takes_upper_case_digits_only() {
        assert_eq!(quoted_printable("a=3Bb c").as_deref(), Some("a;bc"));
        for bad in ["=3b", "=3", "=", "=FF"] {
            assert_eq!(quoted_printable(bad), None, "{bad}");
        }
    }
}

//! The macro language of SPF: reading it without copies, and expanding it.
//!
//! Invariant: [`check`] accepts exactly the texts that [`Pieces`] reads to their end without an error, so a text
//! that was checked once expands without failure. The memory of an expansion is bounded by its caller's limit.
//!
//! Standards: RFC 7208 section 7; RFC 3986 2.3 (what an upper-case macro leaves unescaped).
//!
//! Not here: the look-ups behind `%{p}` (check.rs finds the validated name first).

use std::fmt::Write;
use std::net::IpAddr;

/// What is wrong with a macro string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum MacroError {
    /// A `%` that is followed by none of `{`, `%`, `_` and `-`.
    #[error("a % stands for nothing; write %% (RFC 7208 7.1)")]
    Percent,
    /// A `%{` without its `}`, or something between them that is no transformer or delimiter.
    #[error("a macro is not of the form %{{letter digits r delimiters}} (RFC 7208 7.1)")]
    Form,
    /// A letter that is no macro.
    #[error("an unknown macro letter (RFC 7208 7.2)")]
    Letter,
    /// `%{c}`, `%{r}` or `%{t}` outside of an explanation.
    #[error("the macros c, r and t are allowed in explanations only (RFC 7208 7.2)")]
    OnlyInExplanation,
    /// A transformer of zero.
    #[error("a macro keeps zero parts; the number must not be zero (RFC 7208 7.3)")]
    Zero,
    /// A character outside of visible ASCII (and the blank, in explanations).
    #[error("a character outside of printable ASCII (RFC 7208 7.1)")]
    Character,
}

/// Where a macro string stands: explanations know three more letters and may hold blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Term,
    Explanation,
}

/// One piece of a macro string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Literal(&'t str),
    Expand(Macro<'t>),
}

/// `%{letter digits r delimiters}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Macro<'t> {
    /// Lower-case.
    letter: u8,
    /// Whether the letter was upper-case: URL-escape the value.
    escape: bool,
    /// How many right-hand parts stay; `None` for all.
    keep: Option<usize>,
    reverse: bool,
    /// Empty for the default, a dot.
    delimiters: &'t str,
}

/// The pieces of a macro string from left to right. Nothing comes after an error.
pub(super) struct Pieces<'t> {
    rest: &'t str,
    place: Place,
}

impl<'t> Pieces<'t> {
    pub(super) fn of(text: &'t str, place: Place) -> Pieces<'t> {
        Pieces { rest: text, place }
    }

    fn literal(&self) -> Result<(Piece<'t>, &'t str), MacroError> {
        let end = self.rest.find('%').unwrap_or(self.rest.len());
        let (literal, rest) = self.rest.split_at(end);
        let blank = self.place == Place::Explanation;
        if literal.bytes().all(|b| b.is_ascii_graphic() || (blank && b == b' ')) {
            Ok((Piece::Literal(literal), rest))
        } else {
            Err(MacroError::Character)
        }
    }

    fn expand(&self, inner: &'t str) -> Result<(Piece<'t>, &'t str), MacroError> {
        let (body, rest) = inner.split_once('}').ok_or(MacroError::Form)?;
        let letter = *body.as_bytes().first().ok_or(MacroError::Form)?;
        let lower = letter.to_ascii_lowercase();
        match lower {
            b's' | b'l' | b'o' | b'd' | b'i' | b'p' | b'v' | b'h' => {}
            b'c' | b'r' | b't' if self.place == Place::Explanation => {}
            b'c' | b'r' | b't' => return Err(MacroError::OnlyInExplanation),
            _ => return Err(MacroError::Letter),
        }
        let tail = body.get(1..).unwrap_or("");
        let unnumbered = tail.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = tail.strip_suffix(unnumbered).unwrap_or("");
        let keep = match digits {
            "" => None,
            zeros if zeros.bytes().all(|b| b == b'0') => return Err(MacroError::Zero),
            // No text has that many parts, so a number too great to hold means all of them.
            digits => Some(digits.parse().unwrap_or(usize::MAX)),
        };
        let delimiters = unnumbered.strip_prefix(['r', 'R']).unwrap_or(unnumbered);
        if !delimiters.bytes().all(|b| b".-+,/_=".contains(&b)) {
            return Err(MacroError::Form);
        }
        let reverse = delimiters.len() < unnumbered.len();
        let escape = letter.is_ascii_uppercase();
        Ok((Piece::Expand(Macro { letter: lower, escape, keep, reverse, delimiters }), rest))
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Result<Piece<'t>, MacroError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.bytes();
        let piece = match (rest.next()?, rest.next()) {
            (b'%', Some(b'{')) => self.expand(self.rest.get(2..).unwrap_or("")),
            (b'%', Some(b'%')) => Ok((Piece::Literal("%"), self.rest.get(2..).unwrap_or(""))),
            (b'%', Some(b'_')) => Ok((Piece::Literal(" "), self.rest.get(2..).unwrap_or(""))),
            (b'%', Some(b'-')) => Ok((Piece::Literal("%20"), self.rest.get(2..).unwrap_or(""))),
            (b'%', _) => Err(MacroError::Percent),
            _ => self.literal(),
        };
        self.rest = piece.map_or("", |(_, rest)| rest);
        Some(piece.map(|(piece, _)| piece))
    }
}

/// Whether a text is a macro string of its place.
pub(super) fn check(text: &str, place: Place) -> Result<(), MacroError> {
    Pieces::of(text, place).try_for_each(|piece| piece.map(drop))
}

/// Whether expanding the text needs the validated name of the client (`%{p}`).
pub(super) fn needs_validated_name(text: &str, place: Place) -> bool {
    text.contains('%')
        && Pieces::of(text, place).any(|p| matches!(p, Ok(Piece::Expand(Macro { letter: b'p', .. }))))
}

/// Whether expanding the text uses the sender's local part (`%{s}`, `%{l}`).
pub(super) fn uses_local_part(text: &str) -> bool {
    text.contains('%')
        && Pieces::of(text, Place::Term)
            .any(|p| matches!(p, Ok(Piece::Expand(Macro { letter: b's' | b'l', .. }))))
}

/// What the macro letters stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'s> {
    pub(super) local: &'s str,
    pub(super) sender_domain: &'s str,
    pub(super) domain: &'s str,
    pub(super) ip: IpAddr,
    pub(super) helo: &'s str,
    /// `None` for "unknown".
    pub(super) validated: Option<&'s str>,
    /// Who checks; `None` for "unknown".
    pub(super) receiver: Option<&'s str>,
    /// Seconds since 1970.
    pub(super) now_secs: u64,
}

impl Scope<'_> {
    /// Expands a checked text into `out`. When `out` grows beyond `window` octets, only its right-hand half of a
    /// window is kept: a DNS name is cut on its left side anyway (RFC 7208 7.3), so the result is exact for names.
    /// Returns whether something was dropped.
    pub(super) fn expand(
        &self,
        text: &str,
        place: Place,
        window: usize,
        out: &mut String,
    ) -> Result<bool, MacroError> {
        let mut dropped = false;
        for piece in Pieces::of(text, place) {
            match piece? {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Expand(expand) => self.expand_one(&expand, out),
            }
            if out.len() > window {
                let mut from = out.len() - window / 2;
                while !out.is_char_boundary(from) {
                    from += 1;
                }
                out.drain(..from);
                dropped = true;
            }
        }
        Ok(dropped)
    }

    fn expand_one(&self, expand: &Macro<'_>, out: &mut String) {
        let plain = expand.keep.is_none() && !expand.reverse && expand.delimiters.is_empty();
        if plain && !expand.escape {
            return self.value(expand.letter, out);
        }
        let mut value = String::new();
        self.value(expand.letter, &mut value);
        if !plain {
            value = transform(&value, expand);
        }
        if expand.escape { url_escape(&value, out) } else { out.push_str(&value) }
    }

    /// Appends the value of a letter. Writing to a String cannot fail.
    fn value(&self, letter: u8, out: &mut String) {
        match letter {
            b's' => {
                let _ = write!(out, "{}@{}", self.local, self.sender_domain);
            }
            b'l' => out.push_str(self.local),
            b'o' => out.push_str(self.sender_domain),
            b'd' => out.push_str(self.domain),
            b'i' => dotted(self.ip, out),
            b'p' => out.push_str(self.validated.unwrap_or("unknown")),
            b'v' => out.push_str(if self.ip.is_ipv4() { "in-addr" } else { "ip6" }),
            b'h' => out.push_str(self.helo),
            b'c' => {
                let _ = write!(out, "{}", self.ip);
            }
            b'r' => out.push_str(self.receiver.unwrap_or("unknown")),
            _ => {
                let _ = write!(out, "{}", self.now_secs);
            }
        }
    }
}

/// IPv4 as usual; IPv6 as 32 nibbles with dots between (RFC 7208 7.4). The case of the nibbles makes no difference
/// to DNS; upper case is what the OpenSPF suite prints in explanations.
fn dotted(ip: IpAddr, out: &mut String) {
    match ip {
        IpAddr::V4(ip) => {
            let _ = write!(out, "{ip}");
        }
        IpAddr::V6(ip) => {
            for (i, octet) in ip.octets().iter().enumerate() {
                let dot = if i == 0 { "" } else { "." };
                let _ = write!(out, "{dot}{:X}.{:X}", octet >> 4, octet & 15);
            }
        }
    }
}

/// Splits, reverses, keeps right-hand parts and joins with dots (RFC 7208 7.3).
fn transform(value: &str, expand: &Macro<'_>) -> String {
    let delimiters = if expand.delimiters.is_empty() { "." } else { expand.delimiters };
    let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
    if expand.reverse {
        parts.reverse();
    }
    let skip = expand.keep.map_or(0, |keep| parts.len().saturating_sub(keep));
    parts.get(skip..).unwrap_or_default().join(".")
}

/// Escapes everything but the unreserved characters of RFC 3986 2.3.
fn url_escape(value: &str, out: &mut String) {
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str, ip: &str) -> String {
        let scope = Scope {
            local: "strong-bad",
            sender_domain: "email.example.com",
            domain: "email.example.com",
            ip: ip.parse().unwrap(),
            helo: "mx.example.org",
            validated: None,
            receiver: None,
            now_secs: 0,
        };
        let mut out = String::new();
        scope.expand(text, Place::Explanation, 4096, &mut out).unwrap();
        out
    }

    /// The examples of RFC 7208 section 7.4.
    #[test]
    fn the_examples_of_the_rfc() {
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ] {
            assert_eq!(expand(text, "192.0.2.3"), expected, "{text}");
        }
        assert_eq!(
            expand("%{ir}.%{v}._spf.%{d2}", "2001:db8::cb01").to_ascii_lowercase(),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
    }

    #[test]
    fn escapes_and_refusals() {
        assert_eq!(expand("%%%_%-%{S}", "192.0.2.3"), "% %20strong-bad%40email.example.com");
        for (text, error) in [
            ("%", MacroError::Percent),
            ("%(ir)", MacroError::Percent),
            ("%{", MacroError::Form),
            ("%{}", MacroError::Form),
            ("%{d", MacroError::Form),
            ("%{dx}", MacroError::Form),
            ("%{d0}", MacroError::Zero),
            ("%{x}", MacroError::Letter),
            ("%{c}", MacroError::OnlyInExplanation),
            ("a b", MacroError::Character),
            ("\u{200b}", MacroError::Character),
        ] {
            assert_eq!(check(text, Place::Term), Err(error), "{text}");
        }
        assert_eq!(check("%{d99999999999999999999999r.-+,/_=}", Place::Term), Ok(()));
    }
}

//! Canonicalisation (RFC 6376 3.4): which bytes of a message a signature covers.
//!
//! Invariant: whatever the chunking of the input, the same octets come out; nothing is buffered but what has to be
//! held back (a run of blanks, trailing empty lines as a count).
//!
//! Standards: RFC 6376 3.4.1 to 3.4.5, errata 1384 and 3192 wording of the current text.
//!
//! Not here: which header fields are chosen (header.rs), hashing (body_hash.rs).

mod body;
mod header;

pub use body::BodyCanon;
pub(crate) use header::relaxed_value;
pub use header::{relaxed_field, simple_field};

use std::fmt;
use std::str::FromStr;

/// One of the two algorithms of RFC 6376 3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Canon {
    /// Tolerates almost nothing: the octets as they are.
    Simple,
    /// Tolerates changes of white space and of the case of field names.
    #[default]
    Relaxed,
}

impl Canon {
    /// As written in `c=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Canon::Simple => "simple",
            Canon::Relaxed => "relaxed",
        }
    }
}

impl std::fmt::Display for Canon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The pair of algorithms that a `c=` tag names: `header/body`.
///
/// ```
/// use postwright_dkim::{Canon, CanonPair};
/// let pair: CanonPair = "relaxed".parse().unwrap();
/// assert_eq!(pair, CanonPair { header: Canon::Relaxed, body: Canon::Simple }); // RFC 6376 3.5
/// assert_eq!(CanonPair::default().to_string(), "relaxed/relaxed");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CanonPair {
    /// For the header.
    pub header: Canon,
    /// For the body.
    pub body: Canon,
}

impl CanonPair {
    /// What a signature without `c=` means (RFC 6376 3.5).
    pub const SIMPLE: CanonPair = CanonPair { header: Canon::Simple, body: Canon::Simple };

    /// As written in `c=`.
    pub fn as_str(self) -> &'static str {
        match (self.header, self.body) {
            (Canon::Simple, Canon::Simple) => "simple/simple",
            (Canon::Simple, Canon::Relaxed) => "simple/relaxed",
            (Canon::Relaxed, Canon::Simple) => "relaxed/simple",
            (Canon::Relaxed, Canon::Relaxed) => "relaxed/relaxed",
        }
    }
}

/// The text names no pair of known algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a canonicalization is simple or relaxed, for header and body: relaxed/simple (RFC 6376 3.5)")]
pub struct CanonError;

impl FromStr for CanonPair {
    type Err = CanonError;

    /// A body algorithm that is left out is `simple`.
    fn from_str(text: &str) -> Result<Self, CanonError> {
        let one = |word: &str| match word {
            "simple" => Ok(Canon::Simple),
            "relaxed" => Ok(Canon::Relaxed),
            _ => Err(CanonError),
        };
        let (header, body) = text.split_once('/').unwrap_or((text, "simple"));
        Ok(CanonPair { header: one(header)?, body: one(body)? })
    }
}

impl fmt::Display for CanonPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const SP: u8 = b' ';
const TAB: u8 = b'\t';
const CR: u8 = b'\r';
const LF: u8 = b'\n';

fn is_wsp(octet: u8) -> bool {
    matches!(octet, SP | TAB)
}

/// Whether a blank run that has to be rewritten begins at `a`, given the octet `b` behind it.
///
/// A single SP between words is its own canonical form, so most text is passed on untouched. A SP before any control
/// character is taken for dirty as well: one comparison instead of three, and the slow way does no harm. `FOLD`:
/// whether CR has to be looked at (header fields are unfolded, body lines are not).
#[inline(always)]
fn is_dirty<const FOLD: bool>(a: u8, b: u8) -> bool {
    (a == TAB) | ((a == SP) & (b <= SP)) | (FOLD & (a == CR))
}

/// Clean octets after which a long step is worth its start.
const LONG: usize = 256;

/// Length of the prefix that is its own canonical form. A final SP never belongs to it: what follows is unknown.
///
/// Works in blocks whose test has no branches, so that the compiler makes vector code of it.
fn clean_prefix<const FOLD: bool>(octets: &[u8]) -> usize {
    let mut at = 0;
    while block_is_clean::<FOLD, 65>(octets.get(at..)) {
        at += 64;
        // Some lines in a row without anything to do: most likely there are more.
        if at == LONG && !FOLD {
            at += crate::wide::canonical(octets.get(at..).unwrap_or_default());
        }
    }
    while block_is_clean::<FOLD, 17>(octets.get(at..)) {
        at += 16;
    }
    let mut rest = octets.get(at..).unwrap_or_default();
    while let Some(word) = rest.first_chunk::<9>() {
        let clean = clean_in_word::<FOLD>(word);
        at += clean;
        if clean < 8 {
            return at;
        }
        rest = rest.get(8..).unwrap_or_default();
    }
    // Behind the end stand blanks, as it were: a final SP is dirty, and so is the first octet that is not there.
    let mut word = [SP; 9];
    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    at + clean_in_word::<FOLD>(&word)
}

/// How many of the first eight octets are clean before the first dirty one; the ninth is only looked at as what
/// follows. The eight are compared at once, as the digits of one number.
fn clean_in_word<const FOLD: bool>(word: &[u8; 9]) -> usize {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (Some(a), Some(b)) = (word.first_chunk(), word.last_chunk()) else { return 0 };
    let (a, b) = (u64::from_le_bytes(*a), u64::from_le_bytes(*b));
    // Each gives the high bit of the octets for which it holds; no sum carries into the next octet.
    let equal = |octet: u8| {
        let difference = a ^ (ONES * u64::from(octet));
        !(((difference & !HIGH) + !HIGH) | difference) & HIGH
    };
    let at_most_sp = !(((b & !HIGH) + ONES * u64::from(0x7f - SP)) | b) & HIGH;
    let mut dirty = equal(TAB) | (equal(SP) & at_most_sp);
    if FOLD {
        dirty |= equal(CR);
    }
    // The lowest octet comes first; without a dirty one this is 64 / 8.
    usize::try_from(dirty.trailing_zeros() / 8).unwrap_or(8)
}

/// Whether the first `N` - 1 octets are clean; the last one is only looked at as what follows.
#[inline(always)]
fn block_is_clean<const FOLD: bool, const N: usize>(octets: Option<&[u8]>) -> bool {
    let Some(block) = octets.and_then(|octets| octets.first_chunk::<N>()) else { return false };
    let mut dirty = false;
    for (a, b) in block.iter().zip(block.iter().skip(1)) {
        dirty |= is_dirty::<FOLD>(*a, *b);
    }
    !dirty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_read_as_the_rfc_says() {
        assert_eq!("simple/relaxed".parse(), Ok(CanonPair { header: Canon::Simple, body: Canon::Relaxed }));
        assert_eq!("simple".parse(), Ok(CanonPair::SIMPLE));
        for bad in ["", "/", "relaxed/", "Relaxed/simple", "relaxed/simple/simple", "nofws"] {
            assert_eq!(bad.parse::<CanonPair>(), Err(CanonError), "{bad:?}");
        }
    }

    #[test]
    fn blocks_and_single_steps_agree() {
        // Every position of one dirty octet in texts around the block sizes.
        for len in [0, 1, 7, 8, 9, 10, 15, 16, 17, 25, 63, 64, 65, 66, 130] {
            for place in 0..len {
                for (dirty, clean) in [(&b"\t"[..], b'x'), (b"  ", b'!'), (b" \r", 0xa0), (b"\t", b'\n')] {
                    let mut text = vec![clean; len];
                    text.splice(place.., dirty.iter().copied());
                    assert_eq!(clean_prefix::<false>(&text), place, "{len} {place} {dirty:?}");
                }
            }
        }
    }
}

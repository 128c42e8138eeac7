//! The grammar of addresses outside quotes: labels and dot-strings, by one look-up an octet.
//!
//! Invariant: agrees with the grammar read by the letter, which the tests hold beside it.
//!
//! Standards: RFC 5321 4.1.2; RFC 5322 3.2.3 (`atext`); RFC 6531 3.3 (UTF-8).
//!
//! Not here: quoted strings, literals, sizes of the whole ([`address`](super)).

use super::LABEL_MAX;

/// Labels of letters, digits and inner hyphens, none empty or too long, with a dot between any two.
pub(super) fn are_labels(text: &[u8]) -> bool {
    let (mut len, mut last) = (0, b'.');
    for b in text {
        match OCTETS[usize::from(*b)] {
            Octet::LetterOrDigit => len += 1,
            // A hyphen is neither first nor, by what the dot below asks for, last.
            Octet::Hyphen if len > 0 => len += 1,
            Octet::Dot if len > 0 && last != b'-' => len = 0,
            _ => return false,
        }
        if len > LABEL_MAX {
            return false;
        }
        last = *b;
    }
    len > 0 && last != b'-'
}

/// `Dot-string = Atom *("." Atom)`, with the UTF-8 of RFC 6531.
pub(super) fn is_dot_string(text: &str) -> bool {
    let mut after_atom = false;
    for b in text.bytes() {
        after_atom = match OCTETS[usize::from(b)] {
            Octet::LetterOrDigit | Octet::Hyphen | Octet::Atext => true,
            Octet::Dot if after_atom => false,
            Octet::NonAscii => return is_dot_string_of_utf8(text),
            _ => return false,
        };
    }
    after_atom
}

fn is_dot_string_of_utf8(text: &str) -> bool {
    let is_atext = |c: char| is_utf8_non_ascii(c) || (c.is_ascii() && OCTETS[c as usize].is_atext());
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// What an octet may be in an address outside quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Octet {
    LetterOrDigit,
    Hyphen,
    Dot,
    /// The other octets of `atext` (RFC 5322 3.2.3).
    Atext,
    NonAscii,
    None,
}

impl Octet {
    const fn of(octet: u8) -> Octet {
        match octet {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => Octet::LetterOrDigit,
            b'-' => Octet::Hyphen,
            b'.' => Octet::Dot,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'/' | b'=' | b'?' | b'^'..=b'`' | b'{'..=b'~' => {
                Octet::Atext
            }
            0x80.. => Octet::NonAscii,
            _ => Octet::None,
        }
    }

    fn is_atext(self) -> bool {
        matches!(self, Octet::LetterOrDigit | Octet::Hyphen | Octet::Atext)
    }
}

/// One look-up an octet instead of a search in a list of characters.
const OCTETS: [Octet; 256] = {
    let (mut all, mut octet) = ([Octet::None; 256], 0);
    while octet < 256 {
        all[octet] = Octet::of(octet as u8);
        octet += 1;
    }
    all
};

/// `UTF8-non-ascii` of RFC 6531, less the C1 controls and the separators that no one can see or type.
pub(super) fn is_utf8_non_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && c != '\u{2028}' && c != '\u{2029}'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `atext` by the letter of RFC 5322 3.2.3, and atoms by splitting: the twin of the table.
    fn is_dot_string_by_the_letter(text: &str) -> bool {
        let is_atext =
            |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_non_ascii(c);
        text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
    }

    fn are_labels_by_the_letter(text: &str) -> bool {
        text.split('.').all(|label| {
            (1..=LABEL_MAX).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    }

    #[test]
    fn every_character_is_classed_as_the_grammar_does() {
        for c in (0..0x300).filter_map(char::from_u32).chain(['\u{2028}', '\u{1f4e7}']) {
            for text in [format!("{c}"), format!("a{c}"), format!("{c}a"), format!("a.{c}b")] {
                assert_eq!(is_dot_string(&text), is_dot_string_by_the_letter(&text), "{text:?}");
                assert_eq!(are_labels(text.as_bytes()), are_labels_by_the_letter(&text), "{text:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_table_agrees_with_the_letter(text in "[a-z.é!,-]{0,12}", labels in "([a-z-]{0,3}|x{61,65})([.][a-z0-9-]{0,3}){0,3}") {
            assert_eq!(is_dot_string(&text), is_dot_string_by_the_letter(&text));
            for text in [text, labels] {
                assert_eq!(are_labels(text.as_bytes()), are_labels_by_the_letter(&text));
            }
        }
    }
}

//! The grammar of addresses outside quotes: labels and dot-strings, by one look-up an octet.
//!
//! Invariant: agrees with the grammar read by the letter, which the tests hold beside it.
//!
//! Standards: RFC 5321 4.1.2; RFC 5322 3.2.3 (`atext`); RFC 6531 3.3 (UTF-8).
//!
//! Not here: quoted strings, literals, sizes of the whole ([`address`](super)).

use super::LABEL_MAX;

/// Labels of letters, digits and inner hyphens, none empty or too long, with a dot between any two.
pub(super) fn are_labels(mut text: &[u8]) -> bool {
    loop {
        let (label, behind) = text.split_at(run(text, &LABEL));
        if label.len() > LABEL_MAX || matches!(label, [] | [b'-', ..] | [.., b'-']) {
            return false;
        }
        match behind {
            [] => return true,
            [b'.', next @ ..] => text = next,
            _ => return false,
        }
    }
}

/// `Dot-string = Atom *("." Atom)`, with the UTF-8 of RFC 6531.
pub(super) fn is_dot_string(text: &str) -> bool {
    let mut rest = text.as_bytes();
    loop {
        let (atom, behind) = rest.split_at(run(rest, &ATEXT));
        match behind {
            [b, ..] if !b.is_ascii() => return is_dot_string_of_utf8(text),
            [] => return !atom.is_empty(),
            [b'.', next @ ..] if !atom.is_empty() => rest = next,
            _ => return false,
        }
    }
}

fn is_dot_string_of_utf8(text: &str) -> bool {
    let is_atext = |c: char| if c.is_ascii() { ATEXT[c as usize] } else { is_utf8_non_ascii(c) };
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// How many octets from the front are of a class.
fn run(text: &[u8], class: &[bool; 256]) -> usize {
    text.iter().position(|b| !class[usize::from(*b)]).unwrap_or(text.len())
}

/// Octets of a label: one look-up instead of a search in a list of characters.
const LABEL: [bool; 256] = class(b"-");
/// Octets of `atext` (RFC 5322 3.2.3).
const ATEXT: [bool; 256] = class(b"!#$%&'*+-/=?^_`{|}~");

/// Letters, digits and some more.
const fn class(more: &[u8]) -> [bool; 256] {
    let mut all = [false; 256];
    let mut octet = 0;
    while octet < all.len() {
        all[octet] = (octet as u8).is_ascii_alphanumeric();
        octet += 1;
    }
    let mut i = 0;
    while i < more.len() {
        all[more[i] as usize] = true;
        i += 1;
    }
    all
}

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

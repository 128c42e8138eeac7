//! Cutting text at single octets: what `str` does for patterns, for one ASCII octet and without its machinery.
//!
//! Invariant: the octet is ASCII, so every cut is at a character's border.
//!
//! Not here: what the words say.

/// Whether there is an ASCII control character, DEL included. Eight octets at a time: of each, adding the right number
/// sets the highest bit unless it is below the blank, or beyond the tilde.
pub(crate) fn has_control(line: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const LOW: u64 = !HIGH;
    const ONES: u64 = 0x0101_0101_0101_0101;
    let found = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        let ascii = word & LOW;
        let printable = (ascii + ONES * (0x80 - 0x20)) & !(ascii + ONES);
        !(printable | word) & HIGH != 0
    };
    let (words, tail) = line.as_chunks::<8>();
    let last = || tail.iter().any(|b| *b < 0x20 || *b == 0x7f);
    words.iter().any(|word| found(*word)) || last()
}

/// Whether a text is this word of capital letters, digits and hyphens, in any case. Always inlined, so that the word's
/// length is known where it is compared.
#[inline(always)]
pub(super) fn is(text: &str, word: &str) -> bool {
    text.len() == word.len() && text.bytes().zip(word.bytes()).all(|(a, b)| a.to_ascii_uppercase() == b)
}

/// The text before and behind the first `at`.
pub(super) fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.bytes().position(|b| b == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// Without the blanks in front.
pub(super) fn trim_start(mut text: &str) -> &str {
    while text.as_bytes().first() == Some(&b' ') {
        text = text.get(1..).unwrap_or_default();
    }
    text
}

/// Without the blanks at the end.
pub(super) fn trim_end(mut text: &str) -> &str {
    while text.as_bytes().last() == Some(&b' ') {
        text = text.get(..text.len() - 1).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_character_is_found_in_every_place() {
        for octet in 0..=u8::MAX {
            for place in 0..20 {
                let mut line = [b' ', b'~', 0x80, 0xff].repeat(5);
                line[place] = octet;
                assert_eq!(has_control(&line), octet.is_ascii_control(), "{octet} at {place}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn do_what_str_does(text in "[ a=\u{e9};]{0,12}") {
            for at in [b' ', b'=', b';'] {
                proptest::prop_assert_eq!(cut(&text, at), text.split_once(char::from(at)));
            }
            for word in ["", "A", "AA", "7BIT", "MT-PRIORITY"] {
                proptest::prop_assert_eq!(is(&text, word), text.eq_ignore_ascii_case(word));
                proptest::prop_assert!(is(&word.to_ascii_lowercase(), word));
            }
            proptest::prop_assert_eq!(trim_end(trim_start(&text)), text.trim_matches(' '));
        }
    }
}

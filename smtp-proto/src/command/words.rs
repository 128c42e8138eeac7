//! Cutting text at single octets: what `str` does for patterns, for one ASCII octet and without its machinery.
//!
//! Invariant: the octet is ASCII, so every cut is at a character's border.
//!
//! Not here: what the words say.

/// Whether there is an ASCII control character, DEL included. Eight octets at a time: of each, adding the right number
/// sets the highest bit unless it is below the blank, or beyond the tilde.
pub(super) fn has_control(line: &[u8]) -> bool {
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

/// The text before and behind the first `at`.
pub(super) fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.bytes().position(|b| b == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// The octets from the front for which `fits` holds, and what follows. `fits` must not tell the octets of one
/// character apart: then the cut is before an ASCII octet or at the end. Else everything counts as not fitting.
pub(super) fn run(text: &str, fits: impl Fn(u8) -> bool) -> (&str, &str) {
    let len = text.bytes().position(|b| !fits(b)).unwrap_or(text.len());
    text.split_at_checked(len).unwrap_or(("", text))
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
            let word = text.split(' ').next().unwrap_or("");
            proptest::prop_assert_eq!(run(&text, |b| b != b' ').0, word);
            proptest::prop_assert_eq!(run(&text, |b| b.is_ascii()).0, text.split('\u{e9}').next().unwrap_or(""));
            proptest::prop_assert_eq!(trim_end(trim_start(&text)), text.trim_matches(' '));
        }
    }
}

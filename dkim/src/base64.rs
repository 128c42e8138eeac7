//! Reading base64 that is folded over lines, in one pass.
//!
//! Invariant: gives what a strict decoder gives for the same text without its white space: padding may be left out (the
//! ABNF allows it), bits behind the last octet are zero, so that no two spellings of a signature exist.
//!
//! Standards: RFC 4648 4 and 3.5; RFC 6376 2.10 and 3.2 (`base64string`, folding white space inside).
//!
//! Not here: writing base64 (the crate `base64`).

use crate::tag;

/// Where a digit's six bits stand, for each of the four digits that make up three octets: those three are then the
/// first of the number. What is no digit is `OTHER`, a bit that no digit has.
const DIGITS: [[u32; 256]; 4] = [digits(26), digits(20), digits(14), digits(8)];
const OTHER: u32 = 1;

const fn digits(shift: u32) -> [u32; 256] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut all = [OTHER; 256];
    let mut value = 0;
    while value < 64 {
        all[ALPHABET[value] as usize] = (value as u32) << shift;
        value += 1;
    }
    all
}

/// The number whose first three octets four digits stand for, with `OTHER` set if one of them is none.
fn combine(four: [u8; 4]) -> u32 {
    let [a, b, c, d] = four.map(usize::from);
    DIGITS[0][a] | DIGITS[1][b] | DIGITS[2][c] | DIGITS[3][d]
}

/// The octets that `text` stands for; `None` if it is not base64.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut rest = decode_whole(text, &mut out);
    // Digits that do not make up three octets yet; a missing one counts as zero.
    let (mut four, mut digits, mut pads) = ([b'A'; 4], 0, 0);
    while let Some((octet, behind)) = rest.split_first() {
        rest = behind;
        match octet {
            b'=' => pads += 1,
            blank if tag::is_fws(*blank) => {}
            _ if pads > 0 => return None,
            digit => {
                *four.get_mut(digits)? = *digit;
                digits += 1;
            }
        }
        if digits == 4 {
            out.extend_from_slice(&octets(four)?);
            (four, digits) = ([b'A'; 4], 0);
            rest = decode_whole(rest, &mut out);
        }
    }
    // Two digits are left for one octet, three for two, and as many pads at most as would make four.
    let kept = match digits {
        0 if pads == 0 => 0,
        2 if pads <= 2 => 1,
        3 if pads <= 1 => 2,
        _ => return None,
    };
    let last = octets(four)?;
    let (last, unused) = last.split_at_checked(kept)?;
    out.extend_from_slice(last);
    unused.iter().all(|octet| *octet == 0).then_some(out)
}

fn octets(four: [u8; 4]) -> Option<[u8; 3]> {
    let bits = combine(four);
    let [octets @ .., _] = bits.to_be_bytes();
    if bits & OTHER == 0 { Some(octets) } else { None }
}

/// Decodes digits by four, as long as they stand together; what follows.
fn decode_whole<'t>(text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
    let start = out.len();
    out.resize(start + text.len() / 4 * 3, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let mut done = 0;
    for (four, three) in text.as_chunks().0.iter().zip(room.as_chunks_mut().0) {
        let Some(octets) = octets(*four) else { break };
        *three = octets;
        done += 1;
    }
    out.truncate(start + done * 3);
    text.get(done * 4..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine;
    use ::base64::alphabet::STANDARD;
    use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    use proptest::prelude::*;

    const STRICT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );

    #[test]
    fn there_is_one_spelling_but_for_padding_and_blanks() {
        for (text, octets) in
            [("", &b""[..]), (" \t", b""), ("Zg", b"f"), ("Z g==", b"f"), ("Zm8\r\n =", b"fo")]
        {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(octets), "{text:?}");
        }
        for bad in ["Z", "=", "Zh==", "Zm9=", "Zg===", "Zg=a", "Zm9v=", "Zm9v-mE=", "Zm9vZ", "\u{e9}m9v"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_decoder_of_clean_text(
            text in "([A-Za-z0-9+/]{0,20}(\r\n | |\t)?){0,4}[A-Z0-9/]{0,3}[=A-]{0,3}",
        ) {
            let clean: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            prop_assert_eq!(decode(text.as_bytes()), STRICT.decode(clean).ok());
        }
    }
}

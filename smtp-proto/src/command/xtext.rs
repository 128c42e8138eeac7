//! The two encodings of DSN parameters: xtext and the UTF-8 address form.
//!
//! Invariant: what is decoded holds no control characters, so it can stand in a report or a log.
//!
//! Standards: RFC 3461 4 (xtext), RFC 6533 3 (`utf-8` addresses).
//!
//! Not here: which parameter uses which ([`parameters`](super::parameters)).

/// Decodes xtext: printable ASCII without `+` and `=`, and `+HH` in upper-case hex. `None` if the text is not
/// xtext, or if what it stands for is not printable ASCII (RFC 3461 4.4 and 5.2.1 allow nothing else).
pub fn decode_xtext(text: &str) -> Option<String> {
    if text.bytes().all(|b| matches!(b, b'!'..=b'*' | b','..=b'<' | b'>'..=b'~')) {
        return Some(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let decoded = match b {
            b'+' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => b,
            _ => return None,
        };
        if !(b' '..=b'~').contains(&decoded) {
            return None;
        }
        out.push(char::from(decoded));
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Encodes as xtext. Octets above 126 are encoded too; RFC 3461 does not foresee them, so do not send such text.
pub fn encode_xtext(text: &str) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if (b'!'..=b'~').contains(&b) && b != b'+' && b != b'=' {
            out.push(char::from(b));
        } else {
            out.push('+');
            out.push(DIGITS[usize::from(b >> 4)]);
            out.push(DIGITS[usize::from(b & 15)]);
        }
    }
    out
}

/// Decodes the address of `ORCPT=utf-8;...` (RFC 6533 3): UTF-8 or `\x{HEX}`, in either of its forms.
pub fn decode_utf8_address(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(escape) = rest.strip_prefix("\\x{") {
            let (digits, behind) = escape.split_once('}')?;
            let fine = (2..=6).contains(&digits.len()) && digits.bytes().all(|b| hex(b).is_some());
            let decoded = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
            out.push(decoded.filter(|c| fine && !c.is_control())?);
            rest = behind;
            continue;
        }
        if matches!(c, '\\' | '+' | '=' | ' ') || c.is_control() {
            return None;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_strict() {
        assert_eq!(decode_xtext("a+2Bb+3Dc+20d").as_deref(), Some("a+b=c d"));
        for bad in ["a=b", "+", "+2", "+2b", "+0A", "+00", "+7F", "+E9", "a b", "\u{e9}"] {
            assert_eq!(decode_xtext(bad), None, "{bad}");
        }
    }

    #[test]
    fn utf8_addresses_take_both_forms() {
        // The character of RFC 6533 section 3's encoding: U+00E9 as \x{E9}.
        assert_eq!(decode_utf8_address("andr\\x{E9}@example.org").as_deref(), Some("andr\u{e9}@example.org"));
        assert_eq!(decode_utf8_address("andr\u{e9}@example.org").as_deref(), Some("andr\u{e9}@example.org"));
        for bad in ["a+b", "a\\b", "\\x{D800}", "\\x{0A}", "\\x{E9", "\\x{110000}", "\\x{}"] {
            assert_eq!(decode_utf8_address(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn xtext_comes_back(text in "[ -~]{0,40}") {
            assert_eq!(decode_xtext(&encode_xtext(&text)), Some(text));
        }
    }
}

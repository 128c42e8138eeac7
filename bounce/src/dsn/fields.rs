//! Writing header-like fields that stay within a line's limits, whatever text they carry.
//!
//! Invariant: what is written holds no CR, LF or NUL beside the line ends written here, no line is longer than
//! 998 octets, and without UTF-8 every octet is ASCII.
//!
//! Standards: RFC 5322 2.1.1 and 2.2.3; RFC 6533 3 (`\x{...}` for what ASCII cannot say).
//!
//! Not here: structured header fields of a user's message.

/// Lines are folded before this column where a blank allows it (RFC 5322 2.1.1).
const FOLD_AT: usize = 76;
/// A word longer than this is cut: with a name in front the line stays below 998 octets.
const WORD_MAX: usize = 900;

/// Appends text as a line can hold it: controls become blanks, and without `utf8` other letters become `\x{HEX}`.
pub(super) fn clean(text: &str, utf8: bool, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= most {
            out.push_str(" [cut]");
            break;
        }
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            out.push(' ');
        } else if c.is_ascii() || utf8 {
            out.push(c);
        } else {
            out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    out
}

/// Appends `name: value` CRLF, folded at blanks.
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    words(out, value, name.len() + 1, b" ", b"\r\n ");
    out.extend_from_slice(b"\r\n");
}

/// Appends a paragraph indented by four blanks, wrapped, and CRLF.
pub(super) fn quoted(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"   ");
    words(out, text, 3, b" ", b"\r\n    ");
    out.extend_from_slice(b"\r\n");
}

fn words(out: &mut Vec<u8>, text: &str, mut column: usize, gap: &[u8], fold: &[u8]) {
    let mut first = true;
    for word in text.split_ascii_whitespace() {
        let mut rest = word;
        while !rest.is_empty() {
            let mut end = rest.len().min(WORD_MAX);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (now, later) = rest.split_at(end);
            if !first && column + now.len() + gap.len() > FOLD_AT {
                out.extend_from_slice(fold);
                column = fold.len();
            } else {
                out.extend_from_slice(gap);
                column += gap.len();
            }
            out.extend_from_slice(now.as_bytes());
            column += now.len();
            first = false;
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_text_breaks_out_of_its_field(text in "\\PC{0,200}|[ -~\r\n\0\u{2028}é]{0,3000}|x{2000}", utf8: bool) {
            let mut out = Vec::new();
            field(&mut out, "Diagnostic-Code", &clean(&text, utf8, 4096));
            let shown = String::from_utf8(out).unwrap();
            let body = shown.strip_suffix("\r\n").unwrap();
            for (i, line) in body.split("\r\n").enumerate() {
                proptest::prop_assert!(line.len() <= 998);
                proptest::prop_assert!(i == 0 || line.starts_with(' ') && !line.trim().is_empty());
                proptest::prop_assert!(!line.contains(['\r', '\n', '\0']));
            }
            proptest::prop_assert!(utf8 || shown.is_ascii());
        }
    }
}

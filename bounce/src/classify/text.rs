//! Two ways of looking at a refusal's text: folded for matching, and normalised for grouping.
//!
//! Invariant: one pass, output never longer than a small multiple of the input; no digits of a reply code, no address of
//! the text reaches the matcher, so a rule cannot match on somebody's name.
//!
//! Standards: RFC 5321 4.2.1 (multi-line replies repeat their code), RFC 2034.
//!
//! Not here: phrases (`rules`), searching (`matcher`).

use postwright_core::EnhancedStatus;

/// Folds a text for matching: lower case, words parted by one blank, a blank at both ends; punctuation, reply codes,
/// enhanced codes and addresses left out, apostrophes closed up.
pub(super) fn fold(text: &str, most: usize, out: &mut String) {
    let text = text.get(..text.floor_char_boundary(most)).unwrap_or(text);
    with_folded(text, |folded| {
        out.clear();
        out.push_str(&String::from_utf8_lossy(folded));
    });
}

/// Texts up to this length are folded on the stack: RFC 5321 4.5.3.1.5 allows 512 octets a reply line, and most have a hundred.
const SHORT: usize = 250;

/// Folds a text and hands it on; only a long text costs an allocation.
pub(super) fn with_folded<R>(text: &str, then: impl FnOnce(&[u8]) -> R) -> R {
    // A letter may become three octets where it had one: `\u{130}` in lower case is the worst with 3 for 2.
    let room = text.len() * 3 + 2;
    let mut short = [0_u8; SHORT * 3 + 2];
    match short.get_mut(..room) {
        Some(out) => {
            let len = fold_into(text, out);
            then(out.get(..len).unwrap_or_default())
        }
        None => {
            let mut out = vec![0; room];
            let len = fold_into(text, &mut out);
            then(out.get(..len).unwrap_or_default())
        }
    }
}

/// What stands where in the folded text.
struct Folding<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl Folding<'_> {
    fn push(&mut self, octet: u8) {
        if let Some(place) = self.out.get_mut(self.len) {
            *place = octet;
            self.len += 1;
        }
    }

    fn push_words(&mut self, word: &str) {
        let start = self.len;
        if word.is_ascii() {
            for octet in word.bytes() {
                match octet {
                    b'a'..=b'z' | b'0'..=b'9' => self.push(octet),
                    b'A'..=b'Z' => self.push(octet.to_ascii_lowercase()),
                    b'\'' | b'`' => {}
                    _ => self.end_word(start),
                }
            }
        } else {
            for c in word.chars() {
                if c.is_ascii_alphanumeric() {
                    self.push(u8::try_from(c.to_ascii_lowercase()).unwrap_or(b' '));
                } else if !c.is_ascii() && c.is_alphanumeric() {
                    let mut octets = [0; 4];
                    for c in c.to_lowercase() {
                        c.encode_utf8(&mut octets).bytes().for_each(|octet| self.push(octet));
                    }
                } else if c == '\'' || c == '\u{2019}' || c == '`' {
                    // doesn't = doesnt
                } else {
                    self.end_word(start);
                }
            }
        }
        self.end_word(start);
    }

    /// A blank, unless there is one or nothing was written since `start`.
    fn end_word(&mut self, start: usize) {
        if self.len > start && self.out.get(self.len - 1) != Some(&b' ') {
            self.push(b' ');
        }
    }
}

/// What an ASCII octet is to the folding: itself in lower case, or one of the three below.
const PARTS: u8 = 0;
const CLOSES_UP: u8 = 1;
const BLANK: u8 = 2;
const KINDS: [u8; 256] = kinds();

const fn kinds() -> [u8; 256] {
    let mut kinds = [PARTS; 256];
    let mut octet = 0_u8;
    while octet < 128 {
        kinds[octet as usize] = match octet {
            b'a'..=b'z' | b'0'..=b'9' | b'A'..=b'Z' => octet.to_ascii_lowercase(),
            b'\'' | b'`' => CLOSES_UP,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => BLANK,
            _ => PARTS,
        };
        octet += 1;
    }
    kinds
}

/// The same as [`fold_words`] for ASCII, which most refusals are: one pass, and a word that turns out to be an address or a
/// status is taken back.
fn fold_ascii(text: &str, folding: &mut Folding<'_>) {
    let octets = text.as_bytes();
    let mut at = 0;
    while let Some(first) = octets.get(at) {
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (start, written) = (at, folding.len);
        at += reply_code(octets.get(at..).unwrap_or_default());
        let begin = at;
        let (mut has_at, mut has_dot) = (false, false);
        while let Some(octet) = octets.get(at) {
            match KINDS.get(usize::from(*octet)).copied().unwrap_or(PARTS) {
                BLANK => break,
                CLOSES_UP => {}
                PARTS => {
                    has_at |= *octet == b'@';
                    has_dot |= *octet == b'.';
                    folding.end_word(0);
                }
                letter => folding.push(letter),
            }
            at += 1;
        }
        folding.end_word(0);
        if has_at || has_dot {
            let word = text.get(begin..at).unwrap_or_default();
            if (has_at && !word.contains("://")) || is_status(word) {
                folding.len = written;
                if let Some((_, behind)) = word.split_once("...").or_else(|| word.split_once(">:")) {
                    folding.push_words(behind);
                }
            }
        }
        at = at.max(start + 1);
    }
}

fn fold_into(text: &str, out: &mut [u8]) -> usize {
    let mut folding = Folding { out, len: 0 };
    folding.push(b' ');
    if text.is_ascii() {
        fold_ascii(text, &mut folding);
    } else {
        fold_words(text, &mut folding);
    }
    folding.len
}

fn fold_words(text: &str, folding: &mut Folding<'_>) {
    for word in text.split_ascii_whitespace() {
        let word = strip_reply_code(word);
        let is_url = || word.contains("://");
        if (word.contains('@') && !is_url()) || is_status(word) {
            // An address may have text stuck to it: `<x@example.org>:user unknown` or `x@example.org...User`.
            if let Some((_, behind)) = word.split_once("...").or_else(|| word.split_once(">:")) {
                folding.push_words(behind);
            }
            continue;
        }
        folding.push_words(word);
    }
}

/// `550-5.1.1` and `550-Text` of a multi-line reply; a lone `550` says no more than the code does.
fn strip_reply_code(word: &str) -> &str {
    word.get(reply_code(word.as_bytes())..).unwrap_or("")
}

/// Octets of a reply code at the beginning of a word, with what sets it apart; 0 if there is none.
fn reply_code(word: &[u8]) -> usize {
    match word {
        [b'2' | b'4' | b'5', b'0'..=b'5', b'0'..=b'9', rest @ ..] => match rest {
            [] => 3,
            [b'-' | b':' | b',', ..] => 4,
            [blank, ..] if blank.is_ascii_whitespace() => 3,
            _ => 0,
        },
        _ => 0,
    }
}

const WRAPPING: &[char] = &['(', ')', '[', ']', '<', '>', '#', ',', ';', ':', '.', '"', '\''];

/// Whether a digit, a dot and a digit follow each other: without them there is no enhanced status.
fn has_dotted_digits(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|three| matches!(three, [a, b'.', c] if a.is_ascii_digit() && c.is_ascii_digit()))
}

fn is_status(word: &str) -> bool {
    has_dotted_digits(word) && word.trim_matches(WRAPPING).parse::<EnhancedStatus>().is_ok()
}

/// The first word of the text that is an enhanced status of class 4 or 5, wrapped in punctuation perhaps.
pub(super) fn find_status(text: &str) -> Option<EnhancedStatus> {
    if !has_dotted_digits(text) {
        return None;
    }
    text.split_ascii_whitespace().take(40).filter(|word| has_dotted_digits(word)).find_map(|word| {
        let word = strip_reply_code(word);
        let word = word.trim_matches(WRAPPING);
        let word = word.strip_prefix("smtp;").unwrap_or(word);
        word.parse::<EnhancedStatus>().ok().filter(|status| matches!(status.class(), 4 | 5))
    })
}

/// Replaces what differs between two refusals of one cause (addresses, ids, numbers, hosts, URLs) by placeholders, so
/// that equal refusals group.
///
/// ```
/// use postwright_bounce::classify::normalise;
/// let one = normalise("550 5.1.1 <ann@example.org>: user unknown (id 4QxT3B5z) from 192.0.2.1");
/// let two = normalise("550 5.1.1 <bob@example.net>: user unknown (id 9ZmK2C7a) from 198.51.100.7");
/// assert_eq!(one, two);
/// assert_eq!(one, "550 5.1.1 <{address}>: user unknown (id {id}) from {ip}");
/// ```
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_ascii_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        let trim = |c: char| {
            matches!(c, '(' | ')' | '[' | ']' | '<' | '>' | ',' | ';' | ':' | '"' | '\'' | '.' | '!')
        };
        let core = word.trim_matches(trim);
        let Some(start) = word.find(core).filter(|_| !core.is_empty()) else {
            out.push_str(word);
            continue;
        };
        let kind = if core.contains("://") {
            "{url}"
        } else if core.contains('@') {
            "{address}"
        } else if core.parse::<std::net::IpAddr>().is_ok() {
            "{ip}"
        } else if core.parse::<EnhancedStatus>().is_ok() || is_plain(core) {
            core
        } else if is_host(core) {
            "{host}"
        } else if core.bytes().all(|octet| octet.is_ascii_digit()) {
            "{number}"
        } else {
            "{id}"
        };
        out.push_str(word.get(..start).unwrap_or(""));
        out.push_str(kind);
        out.push_str(word.get(start + core.len()..).unwrap_or(""));
    }
    out
}

/// A word without digits that is no host name, a reply code, or a reply code stuck to a status.
fn is_plain(word: &str) -> bool {
    let is_code = |text: &str| {
        text.len() == 3 && text.starts_with(['2', '4', '5']) && text.bytes().all(|b| b.is_ascii_digit())
    };
    if let Some((code, status)) = word.split_once('-')
        && is_code(code)
        && status.parse::<EnhancedStatus>().is_ok()
    {
        return true;
    }
    is_code(word) || (!word.bytes().any(|octet| octet.is_ascii_digit()) && !is_host(word))
}

fn is_host(word: &str) -> bool {
    word.split('.').count() >= 2
        && word
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        && word
            .rsplit('.')
            .next()
            .is_some_and(|top| top.len() >= 2 && top.bytes().all(|b| b.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        let mut out = String::new();
        fold(text, 2048, &mut out);
        out
    }

    #[test]
    fn folding_keeps_the_words_only() {
        for (text, expected) in [
            (
                "550-5.1.1 The account doesn't exist. Try 550 5.1.1 again",
                " the account doesnt exist try again ",
            ),
            ("User <ann@example.org> Unknown", " user unknown "),
            ("<ann@example.org>:User_Unknown", " user unknown "),
            ("see https://example.org/mail/?p=NoSuchUser x@y", " see https example org mail p nosuchuser "),
            ("(#5.2.2) mailbox-full [4.3.2.1]", " mailbox full 4 3 2 1 "),
            ("", " "),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn a_status_needs_word_boundaries() {
        let status = |text| find_status(text).map(|status| status.to_string());
        assert_eq!(status("rejected (#5.7.1)").as_deref(), Some("5.7.1"));
        assert_eq!(status("550-5.1.1 no such user").as_deref(), Some("5.1.1"));
        assert_eq!(status("from 5.1.1.9 or 15.1.1 or v5.1.1x"), None);
        assert_eq!(status("2.1.5 ok"), None);
    }

    proptest::proptest! {
        #[test]
        fn ascii_folds_as_any_text_does(text in "([45][0-5][0-9][-: ,]|<a@b\\.c>|5\\.1\\.1|[a-zA-Z' .:@/<>()#-]){0,40}") {
            let mut out = vec![0; text.len() * 3 + 2];
            let mut folding = Folding { out: &mut out, len: 0 };
            folding.push(b' ');
            fold_words(&text, &mut folding);
            let len = folding.len;
            let (quick, naive) = (folded(&text), String::from_utf8_lossy(&out[..len]).into_owned());
            proptest::prop_assert_eq!(quick, naive);
        }

        #[test]
        fn any_text_folds_and_normalises_within_bounds(text in "\\PC{0,300}") {
            let folded = folded(&text);
            proptest::prop_assert!(folded.len() <= text.len() * 3 + 2);
            proptest::prop_assert!(!folded.contains("  "));
            proptest::prop_assert!(normalise(&text).len() <= text.len() * 9 + 9);
        }
    }
}

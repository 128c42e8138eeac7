//! Transfer encodings, encoded words, and text out of HTML.
//!
//! Invariant: what is not decodable stays as it is; output is bounded. Standards: RFC 2045 6.7, 6.8; RFC 2047.
//!
//! Not here: charsets beyond UTF-8 and Latin-1.

/// The text of a body.
pub(crate) fn to_text(body: &[u8], encoding: Option<&str>, charset: Option<&str>, most: usize) -> String {
    let encoding = encoding.unwrap_or("7bit").trim().to_ascii_lowercase();
    let octets = match encoding.as_str() {
        "base64" => base64(body, most),
        "quoted-printable" => quoted_printable(body, most, false),
        _ => body.get(..most).unwrap_or(body).to_vec(),
    };
    decode_charset(&octets, charset)
}

fn decode_charset(octets: &[u8], charset: Option<&str>) -> String {
    let latin = charset.is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        name.starts_with("iso-8859-") || name.starts_with("windows-125")
    });
    match std::str::from_utf8(octets) {
        Ok(text) => text.to_owned(),
        Err(_) if latin => octets.iter().map(|octet| char::from(*octet)).collect(),
        Err(_) => String::from_utf8_lossy(octets).into_owned(),
    }
}

fn base64(body: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for octet in body {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xff).unwrap_or(0));
            if out.len() >= most {
                break;
            }
        }
    }
    out
}

fn quoted_printable(body: &[u8], most: usize, word: bool) -> Vec<u8> {
    let hex = |octet: Option<&u8>| octet.and_then(|octet| char::from(*octet).to_digit(16));
    let mut out = Vec::with_capacity(body.len().min(most));
    let mut at = 0;
    while let Some(octet) = body.get(at) {
        if out.len() >= most {
            break;
        }
        match octet {
            b'=' if body.get(at + 1) == Some(&b'\n') => at += 2,
            b'=' if body.get(at + 1) == Some(&b'\r') && body.get(at + 2) == Some(&b'\n') => at += 3,
            b'=' => match (hex(body.get(at + 1)), hex(body.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                    at += 3;
                }
                _ => {
                    out.push(b'=');
                    at += 1;
                }
            },
            b'_' if word => {
                out.push(b' ');
                at += 1;
            }
            other => {
                out.push(*other);
                at += 1;
            }
        }
    }
    out
}

/// Decodes the encoded words of a field's value.
pub(crate) fn unfold_words(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once("=?") {
        let mut pieces = behind.splitn(4, '?');
        let (charset, kind, text, tail) = (pieces.next(), pieces.next(), pieces.next(), pieces.next());
        let (Some(charset), Some(kind), Some(text), Some(tail)) = (charset, kind, text, tail) else { break };
        let Some(tail) = tail.strip_prefix('=') else { break };
        if !before.trim().is_empty() || out.is_empty() {
            out.push_str(before);
        }
        let octets = match kind {
            "b" | "B" => base64(text.as_bytes(), 4096),
            "q" | "Q" => quoted_printable(text.as_bytes(), 4096, true),
            _ => text.as_bytes().to_vec(),
        };
        out.push_str(&decode_charset(&octets, Some(charset)));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The text of an HTML body: tags out, block ends as line ends, the common entities decoded.
pub(crate) fn strip_tags(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, behind)) = rest.split_once('<') {
        out.push_str(before);
        let (tag, tail) = match behind.split_once('>') {
            Some(split) => split,
            None => break,
        };
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        match name.to_ascii_lowercase().as_str() {
            "br" | "p" | "div" | "tr" | "li" | "td" | "h1" | "h2" | "h3" | "table" | "title" => {
                out.push('\n')
            }
            // `<ann@example.org>` written without escapes is an address, not a tag.
            _ if tag.contains('@') && !tag.contains('=') => {
                out.push('<');
                out.push_str(tag);
                out.push('>');
            }
            _ => {}
        }
        rest = tail;
    }
    out.push_str(rest);
    for (entity, text) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&#64;", "@"),
        ("&amp;", "&"),
    ] {
        if out.contains(entity) {
            out = out.replace(entity, text);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_of_the_rfcs() {
        // RFC 2045 6.7 and RFC 4648 10, RFC 2047 8.
        assert_eq!(
            to_text(b"Now's the time =\r\nfor=3D", Some("Quoted-Printable"), None, 99),
            "Now's the time for="
        );
        assert_eq!(to_text(b"Zm9v\r\nYmFy", Some("base64"), None, 99), "foobar");
        assert_eq!(
            unfold_words("=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?= <keld@dkuug.dk>"),
            "Keld Jørn Simonsen <keld@dkuug.dk>"
        );
        assert_eq!(
            unfold_words("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?="),
            "If you can read this yo"
        );
        assert_eq!(unfold_words("broken =?x?"), "broken =?x?");
        assert_eq!(strip_tags("<p>to <b>&lt;a@b&gt;</b><br>no"), "\nto <a@b>\nno");
    }
}

//! Taking a mail apart as far as reports need it: parts, their types, their octets.
//!
//! Invariant: each octet is decoded once, nesting and the number of parts are limited, and no input is an error:
//! what cannot be decoded is left out.
//!
//! Standards: RFC 2045 (encodings), RFC 2046 5.1 (multipart).
//!
//! Not here: character sets, RFC 2231 parameters.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::ReportLimits;
use crate::header::{Field, fields};

/// Deepest nesting of multiparts.
const DEPTH_MAX: usize = 8;

/// A leaf of the MIME tree, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The type in lower case, without parameters; `text/plain` if there is none.
    pub content_type: String,
    /// `name=` or `filename=`.
    pub name: Option<String>,
    /// The octets, transfer encoding undone.
    pub body: Vec<u8>,
}

impl Part {
    /// Whether an aggregate report could be in here: by its type, its name or its first octets.
    pub(super) fn may_hold_xml(&self) -> bool {
        let name = self.name.as_deref().unwrap_or("").to_ascii_lowercase();
        let packed = self.body.starts_with(b"PK\x03\x04") || self.body.starts_with(&[0x1f, 0x8b]);
        packed
            || ["gzip", "zip", "xml"]
                .iter()
                .any(|word| self.content_type.contains(word) || name.ends_with(word))
            || name.ends_with(".gz")
            || self.body.trim_ascii_start().starts_with(b"<?xml")
    }
}

/// Whether a file looks like a mail: it starts with a header field that mails have.
pub(super) fn is_mail(octets: &[u8]) -> bool {
    let octets = skip_mbox_line(octets);
    fields(octets).take(100).any(|field| {
        ["From", "Received", "Content-Type", "Subject", "MIME-Version", "Date"]
            .iter()
            .any(|name| field.is(name))
    })
}

/// Mailboxes in mbox form start with a line that is no field.
fn skip_mbox_line(octets: &[u8]) -> &[u8] {
    if !octets.starts_with(b"From ") {
        return octets;
    }
    let end = octets.iter().position(|b| *b == b'\n').map_or(octets.len(), |i| i + 1);
    octets.get(end..).unwrap_or_default()
}

/// The leaves of a mail, from first to last. `message/rfc822` is a leaf.
pub fn attachments(mail: &[u8], limits: &ReportLimits) -> Vec<Part> {
    let mut parts = Vec::new();
    take_apart(skip_mbox_line(mail), 0, limits, &mut parts);
    parts
}

fn take_apart(entity: &[u8], depth: usize, limits: &ReportLimits, parts: &mut Vec<Part>) {
    if parts.len() >= limits.parts {
        return;
    }
    let all: Vec<Field<'_>> = fields(entity).collect();
    let end = all.last().map_or(0, |field| field.range.end);
    let body = entity.get(end..).unwrap_or_default();
    let body = body.strip_prefix(b"\r\n").or_else(|| body.strip_prefix(b"\n")).unwrap_or(body);
    let text = |name: &str| all.iter().find(|field| field.is(name)).map(Field::text).unwrap_or_default();
    let content_type = text("Content-Type");
    let kind = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if let (true, Some(boundary)) = (kind.starts_with("multipart/"), parameter(&content_type, "boundary"))
        && depth < DEPTH_MAX
    {
        for part in split(body, boundary.as_bytes()) {
            take_apart(part, depth + 1, limits, parts);
        }
        return;
    }
    let name =
        parameter(&text("Content-Disposition"), "filename").or_else(|| parameter(&content_type, "name"));
    parts.push(Part {
        content_type: if kind.is_empty() { "text/plain".to_owned() } else { kind },
        name,
        body: decode(body, text("Content-Transfer-Encoding").trim()),
    });
}

/// A parameter of a structured field, its quotes taken off.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value;
    while let Some((_, behind)) = rest.split_once(';') {
        rest = behind;
        let Some((name, text)) = rest.split_once('=') else { continue };
        if !name.trim().eq_ignore_ascii_case(wanted) {
            continue;
        }
        let text = text.trim_start();
        return Some(match text.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or("").to_owned(),
            None => text.split([';', ' ', '\t', '(']).next().unwrap_or("").to_owned(),
        });
    }
    None
}

/// The pieces between delimiter lines; the preamble and the epilogue are left out.
fn split<'b>(body: &'b [u8], boundary: &[u8]) -> Vec<&'b [u8]> {
    let (mut pieces, mut start, mut at) = (Vec::new(), None, 0);
    for line in body.split_inclusive(|b| *b == b'\n') {
        let begin = at;
        at += line.len();
        let delimiter = line.strip_prefix(b"--").and_then(|rest| rest.strip_prefix(boundary));
        let Some(rest) = delimiter.map(<[u8]>::trim_ascii_end) else { continue };
        if !(rest.is_empty() || rest == b"--") {
            continue;
        }
        if let Some(piece) = start.and_then(|start| body.get(start..begin)) {
            pieces.push(piece);
        }
        start = (rest != b"--").then_some(at);
    }
    // A mail that was cut short still has its last part.
    pieces.extend(start.and_then(|start| body.get(start..)).filter(|piece| !piece.is_empty()));
    pieces
}

fn decode(body: &[u8], encoding: &str) -> Vec<u8> {
    if encoding.eq_ignore_ascii_case("base64") {
        return decode_base64(body);
    }
    if encoding.eq_ignore_ascii_case("quoted-printable") {
        return decode_quoted_printable(body);
    }
    body.to_vec()
}

fn decode_base64(body: &[u8]) -> Vec<u8> {
    let forgiving = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let letters: Vec<u8> =
        body.iter().copied().filter(|b| b.is_ascii_alphanumeric() || b"+/".contains(b)).collect();
    // A last letter alone holds no octet.
    let whole = letters.len() - usize::from(letters.len() % 4 == 1);
    let letters = letters.get(..whole).unwrap_or_default();
    GeneralPurpose::new(&STANDARD, forgiving).decode(letters).unwrap_or_default()
}

fn decode_quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'=' {
            out.push(first);
            continue;
        }
        if let Some(next) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            rest = next;
            continue;
        }
        let digit = |i: usize| rest.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (digit(0), digit(1)) {
            (Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                rest = rest.get(2..).unwrap_or_default();
            }
            _ => out.push(b'='),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_out_decoded() {
        let mail = b"From x\nSubject: y\nContent-Type: multipart/mixed; boundary=\"b b\"\n\npreamble\n--b b\n\nplain\n\
            --b b\nContent-Type: application/GZIP; name=a.gz\nContent-Transfer-Encoding: base64\n\naGVs\nbG8=\n\
            --b b\nContent-Type: multipart/x; boundary=c\n\n--c\nContent-Transfer-Encoding: Quoted-Printable\n\na=3Db=\nc\n\
            --c--\n--b b--\nepilogue";
        let parts = attachments(mail, &ReportLimits::default());
        let found: Vec<_> = parts.iter().map(|p| (p.content_type.as_str(), p.body.as_slice())).collect();
        assert_eq!(
            found,
            [("text/plain", &b"plain\n"[..]), ("application/gzip", b"hello"), ("text/plain", b"a=bc\n")]
        );
        assert_eq!(parts[1].name.as_deref(), Some("a.gz"));
    }
}

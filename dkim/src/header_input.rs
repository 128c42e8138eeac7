//! The octets that `b=` signs (RFC 6376 3.7): the chosen fields, then the signature field itself without its `b=`.

use std::ops::Range;

use crate::canon::{Canon, relaxed_field, relaxed_value, simple_field};
use crate::names::Names;
use crate::section::{Section, Selection};

/// Appends one field in canonical form, CRLF left out.
pub(crate) fn field(canon: Canon, raw: &[u8], out: &mut Vec<u8>) {
    match canon {
        Canon::Simple => simple_field(raw, out),
        Canon::Relaxed => relaxed_field(raw, out),
    }
}

/// The fields that `names` choose, without the signature `itself`. A name without a field left contributes nothing
/// (RFC 6376 5.4.2).
pub(crate) fn signed_fields(
    section: &Section,
    names: &Names,
    canon: Canon,
    itself: Option<usize>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    let mut selection = Selection::new(section, itself);
    for name in names.iter() {
        if let Some(index) = selection.next(name.as_bytes()) {
            field(canon, section.raw(index), &mut out);
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

/// Appends the signature field without the value of its `b=` tag; no CRLF behind it. `b_span` is a range of the
/// field's value.
pub(crate) fn signature_field(canon: Canon, raw: &[u8], b_span: Range<usize>, out: &mut Vec<u8>) {
    let value_at = memchr::memchr(b':', raw).map_or(raw.len(), |colon| colon + 1);
    let (start, end) = (value_at.saturating_add(b_span.start), value_at.saturating_add(b_span.end));
    let (before, behind) = (raw.get(..start).unwrap_or(raw), raw.get(end..).unwrap_or_default());
    // What stands before the gap ends in `=`, and what comes behind it begins with `;`: no blanks meet.
    match canon {
        Canon::Simple => [before, behind].iter().for_each(|part| out.extend_from_slice(part)),
        Canon::Relaxed => {
            relaxed_field(before, out);
            relaxed_value(behind, out);
        }
    }
}

/// Appends a signature field that is being made, its `b=` empty; no CRLF behind it.
pub(crate) fn unsigned(canon: Canon, name: &str, value: &str, out: &mut Vec<u8>) {
    match canon {
        Canon::Simple => [name, ": ", value].iter().for_each(|part| out.extend_from_slice(part.as_bytes())),
        Canon::Relaxed => {
            out.extend(name.bytes().map(|octet| octet.to_ascii_lowercase()));
            out.push(b':');
            relaxed_value(value.as_bytes(), out);
        }
    }
}

//! What a notification returns of the original message.
//!
//! Invariant: at most the given number of octets; CRLF line ends only; lines of at most 998 octets.
//!
//! Standards: RFC 3461 4.3; RFC 6522 4 (text/rfc822-headers); RFC 5322 2.1.1.
//!
//! Not here: which form is wanted (`compose`).

use postwright_core::Message;
use postwright_core::message::LINE_MAX;

/// The part of a message that goes back.
pub(super) struct Returned {
    /// Header and body; otherwise the header section only.
    pub(super) is_full: bool,
    /// The octets, CRLF at the end of each line.
    pub(super) octets: Vec<u8>,
}

/// The whole message, if it is short enough and made of proper lines (a BINARYMIME body need not be).
pub(super) fn whole(message: &Message, most: usize) -> Option<Returned> {
    if message.len() > most {
        return None;
    }
    let mut octets = message.to_vec();
    if !octets.is_empty() && !octets.ends_with(b"\r\n") {
        octets.extend_from_slice(b"\r\n");
    }
    let proper = octets.split_inclusive(|octet| *octet == b'\n').all(|line| {
        line.len() <= LINE_MAX + 2
            && line.strip_suffix(b"\r\n").is_some_and(|text| !text.contains(&b'\r') && !text.contains(&0))
    });
    proper.then_some(Returned { is_full: true, octets })
}

/// The header section, cut behind the last whole field that fits.
pub(super) fn cut_headers(message: &Message, most: usize) -> Returned {
    let mut octets = Vec::new();
    let mut line: Vec<u8> = Vec::new();
    // Where the field begun last starts: a cut goes back to it.
    let mut field_start = 0;
    for octet in message.chunks().flat_map(|chunk| chunk.iter().copied()) {
        match octet {
            b'\n' => {
                if line.is_empty() {
                    return Returned { is_full: false, octets };
                }
                if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                    field_start = octets.len();
                }
                push_line(&mut octets, &line);
                line.clear();
            }
            b'\r' => {}
            0 => line.push(b' '),
            other => line.push(other),
        }
        if octets.len() + line.len() + 2 > most {
            octets.truncate(field_start);
            return Returned { is_full: false, octets };
        }
    }
    if !line.is_empty() {
        push_line(&mut octets, &line);
    }
    Returned { is_full: false, octets }
}

/// A line longer than SMTP allows is folded: it goes back for reading, not for checking a signature.
fn push_line(octets: &mut Vec<u8>, line: &[u8]) {
    for (i, piece) in line.chunks(LINE_MAX - 1).enumerate() {
        if i > 0 {
            octets.push(b' ');
        }
        octets.extend_from_slice(piece);
        octets.extend_from_slice(b"\r\n");
    }
}

/// The `Message-ID` of a message, if it has a plain one within its first 64 KiB of header.
pub(super) fn message_id(message: &Message) -> Option<String> {
    const NAME: &[u8] = b"message-id:";
    let head = cut_headers(message, 64 * 1024).octets;
    let mut lines = head.split(|octet| *octet == b'\n').peekable();
    while let Some(line) = lines.next() {
        let Some(value) =
            line.get(..NAME.len()).filter(|name| name.eq_ignore_ascii_case(NAME)).and(line.get(NAME.len()..))
        else {
            continue;
        };
        // The id is often folded to the next line, being long.
        let next = lines.peek().filter(|next| next.starts_with(b" ") || next.starts_with(b"\t"));
        let text = String::from_utf8([value, next.copied().unwrap_or_default()].concat()).ok()?;
        let text = text.trim();
        let plain = text.starts_with('<')
            && text.ends_with('>')
            && text.len() <= 250
            && !text.contains([' ', '\t', '\r']);
        return plain.then(|| text.to_owned());
    }
    None
}

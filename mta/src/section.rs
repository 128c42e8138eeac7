//! The header section of a message, without its body.

use postwright_core::Message;

/// The octets up to and with the empty line; all of a message that has none. The body is not copied.
pub(crate) fn header_section(message: &Message) -> Vec<u8> {
    const END: &[u8] = b"\r\n\r\n";
    let mut section: Vec<u8> = Vec::new();
    for chunk in message.chunks() {
        // The end may lie across two chunks.
        let searched = section.len().saturating_sub(END.len() - 1);
        section.extend_from_slice(chunk);
        let found =
            section.get(searched..).and_then(|tail| tail.windows(END.len()).position(|window| window == END));
        if let Some(at) = found {
            section.truncate(searched + at + END.len());
            break;
        }
    }
    section
}

/// Whether the header says, once, `TLS-Required: No` (RFC 8689 5).
pub(crate) fn says_tls_required_no(message: &Message) -> bool {
    let section = header_section(message);
    let fields = section.split(|octet| *octet == b'\n').filter_map(|line| {
        let (name, value) = line.split_at_checked(line.iter().position(|octet| *octet == b':')?)?;
        name.trim_ascii_end().eq_ignore_ascii_case(b"TLS-Required").then_some(value)
    });
    let mut values = fields.map(|value| value.get(1..).unwrap_or_default().trim_ascii());
    // Two of them are a mistake, and a mistake must not weaken anything.
    values.next().is_some_and(|value| value.eq_ignore_ascii_case(b"no")) && values.next().is_none()
}

#[cfg(test)]
mod tests {
    use postwright_core::HeaderField;

    use super::*;

    #[test]
    fn the_end_is_found_across_chunks() {
        let message =
            Message::from_bytes(&b"\r\nbody\r\n\r\nmore"[..]).prepend(HeaderField::new("A", "b").unwrap());
        assert_eq!(header_section(&message), b"A: b\r\n\r\n");
        assert_eq!(header_section(&Message::from_bytes(&b"A: b\r\n"[..])), b"A: b\r\n");
    }

    #[test]
    fn tls_required_is_read_from_the_header_alone() {
        for (text, says) in [
            (&b"TLS-Required: No\r\n\r\n"[..], true),
            (b"A: b\r\ntls-required:no \r\nC: d\r\n\r\n", true),
            (b"TLS-Required: Yes\r\n\r\n", false),
            (b"TLS-Required: Not really\r\n\r\n", false),
            (b"TLS-Required: No\r\nTLS-Required: No\r\n\r\n", false),
            (b"A: b\r\n TLS-Required: No\r\n\r\n", false),
            (b"A: b\r\n\r\nTLS-Required: No\r\n", false),
            (b"", false),
        ] {
            assert_eq!(says_tls_required_no(&Message::from_bytes(text)), says, "{:?}", text.escape_ascii());
        }
    }
}

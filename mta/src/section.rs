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
}

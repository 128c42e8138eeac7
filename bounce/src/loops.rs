//! Loop guard: counting the hops of a message.
//!
//! Invariant: reads the header section once and stops at the limit, however many fields follow.
//!
//! Standards: RFC 5321 6.3. Not here: the reply (554 5.4.6), which the server gives.

use postwright_core::Message;

/// How many `Received` fields the header section holds, counted up to `most + 1`.
///
/// ```
/// use postwright_bounce::received_count;
/// use postwright_core::Message;
/// let message = Message::from_bytes(&b"Received: one\r\nRECEIVED: two\r\nSubject: x\r\n\r\nReceived: body\r\n"[..]);
/// assert_eq!(received_count(&message, 50), 2);
/// ```
pub fn received_count(message: &Message, most: usize) -> usize {
    const NAME: &[u8] = b"received:";
    let mut count = 0;
    // The part of the name matched so far on this line; `None` once the line is known to be something else.
    let mut matched = Some(0);
    let mut line_is_empty = true;
    for octet in message.chunks().flat_map(|chunk| chunk.iter().copied()) {
        match octet {
            b'\n' if line_is_empty => break,
            b'\n' => (matched, line_is_empty) = (Some(0), true),
            b'\r' => matched = None,
            _ => {
                line_is_empty = false;
                matched =
                    matched.filter(|at| NAME.get(*at) == Some(&octet.to_ascii_lowercase())).map(|at| at + 1);
                if matched == Some(NAME.len()) {
                    count += 1;
                    matched = None;
                    if count > most {
                        break;
                    }
                }
            }
        }
    }
    count
}

/// Whether a message has made more hops than `most` (the server answers 554 5.4.6).
pub fn is_looping(message: &Message, most: usize) -> bool {
    received_count(message, most) > most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fields_not_text_and_stops_at_the_limit() {
        let hops = |n: usize| {
            Message::from_bytes([b"Received: from a\r\n\tby b\r\n".repeat(n), b"\r\n".to_vec()].concat())
        };
        assert_eq!(received_count(&hops(50), 50), 50);
        assert!(!is_looping(&hops(50), 50));
        assert!(is_looping(&hops(51), 50));
        assert_eq!(received_count(&hops(100_000), 50), 51);
        let odd = Message::from_bytes(
            &b"X-Received: no\r\nSubject: a\r\n received: folded\r\nReceived-SPF: no\r\n"[..],
        );
        assert_eq!(received_count(&odd, 50), 0);
        assert_eq!(received_count(&Message::from_bytes(&b""[..]), 50), 0);
    }
}

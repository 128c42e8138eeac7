//! What a submission server mends in a message before it sends it on: [`fix_up`].
//!
//! Invariant: fields are only added, on top; nothing that the author wrote is changed, so a signature of the client
//! stays good. A message whose author cannot be told is refused instead of guessed at.
//!
//! Standards: RFC 6409 8.2 (Date), 8.3 (Message-ID), 6.3 (a message may be refused for its form); RFC 5322 3.6
//! (From is there once).
//!
//! Not here: who may send as whom ([`Handler::mail`](crate::Handler::mail)), signing (dkim).

use postwright_core::{Domain, EnhancedStatus, Entropy, HeaderField, Message, Refusal, Timestamp};

/// Longest header section in octets; longer ones are refused with 552 5.3.4.
pub const HEADER_MAX: usize = 1024 * 1024;

/// The fields that matter here, counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    from: u32,
    date: u32,
    message_id: u32,
}

/// Adds `Date` and `Message-ID` where they are missing.
///
/// ```
/// use postwright_core::{Domain, Message, SeededEntropy, Timestamp};
/// use postwright_smtp_server::submission::fix_up;
/// let message = Message::from_bytes(&b"From: joe@example.org\r\nSubject: x\r\n\r\nHello\r\n"[..]);
/// let host: Domain = "mx.example.org".parse()?;
/// let sent = fix_up(&message, &host, Timestamp::from_secs(0), &SeededEntropy::new(1)).unwrap();
/// let text = String::from_utf8(sent.to_vec())?;
/// assert!(text.starts_with("Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <"));
/// assert!(text.ends_with("From: joe@example.org\r\nSubject: x\r\n\r\nHello\r\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// 554 5.6.0 if there is no `From`, or more than one `From`, `Date` or `Message-ID` (RFC 5322 3.6); 552 5.3.4 if
/// the header section is longer than [`HEADER_MAX`].
pub fn fix_up(
    message: &Message,
    hostname: &Domain,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<Message, Refusal> {
    let found = count_fields(&header_section(message)?);
    if found.from != 1 || found.date > 1 || found.message_id > 1 {
        let text = "From must be there once, Date and Message-ID at most once (RFC 5322 3.6)";
        return Err(Refusal::known(554, EnhancedStatus::known(5, 6, 0), text));
    }
    let mut fixed = message.clone();
    if found.message_id == 0 {
        let id = format!("<{:x}.{:016x}@{hostname}>", now.millis(), entropy.next_u64());
        fixed = with_field(fixed, "Message-ID", &id);
    }
    if found.date == 0 {
        fixed = with_field(fixed, "Date", &now.to_rfc5322());
    }
    Ok(fixed)
}

fn with_field(message: Message, name: &str, value: &str) -> Message {
    // Both values are made here, of characters that a field may hold.
    match HeaderField::new(name, value) {
        Ok(field) => message.prepend(field),
        Err(_) => message,
    }
}

/// The octets up to the empty line, or all if there is none.
fn header_section(message: &Message) -> Result<Vec<u8>, Refusal> {
    let mut head = Vec::new();
    for chunk in message.chunks() {
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(chunk);
        let end = head.get(from..).and_then(|new| new.windows(4).position(|four| four == b"\r\n\r\n"));
        if let Some(end) = end {
            head.truncate(from + end + 2);
            break;
        }
        if head.starts_with(b"\r\n") {
            return Ok(Vec::new());
        }
        if head.len() > HEADER_MAX {
            break;
        }
    }
    if head.starts_with(b"\r\n") {
        return Ok(Vec::new());
    }
    if head.len() <= HEADER_MAX {
        return Ok(head);
    }
    Err(Refusal::known(552, EnhancedStatus::known(5, 3, 4), "The header section is too long"))
}

fn count_fields(head: &[u8]) -> Found {
    let mut found = Found::default();
    for line in head.split(|octet| *octet == b'\n') {
        let Some(colon) = line.iter().position(|octet| *octet == b':') else { continue };
        let name = line.get(..colon).unwrap_or_default();
        // A folded line begins with a blank, which no name has; blanks before the colon are obsolete but legal.
        match name.trim_ascii_end().to_ascii_lowercase().as_slice() {
            b"from" => found.from += 1,
            b"date" => found.date += 1,
            b"message-id" => found.message_id += 1,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use postwright_core::SeededEntropy;

    fn fix(text: &str) -> Result<String, u16> {
        let message = Message::from_bytes(text.as_bytes().to_vec());
        let host = "mx.example.org".parse().unwrap();
        let fixed = fix_up(&message, &host, Timestamp::from_secs(0), &SeededEntropy::new(1));
        fixed.map(|m| String::from_utf8(m.to_vec()).unwrap()).map_err(|no| no.reply().code().get())
    }

    #[test]
    fn what_is_there_stays_and_what_is_missing_comes_on_top() {
        let whole = "from: a@example.org\r\nDATE : now\r\nMessage-Id: <x@y>\r\n\r\nFrom: body\r\n";
        assert_eq!(fix(whole), Ok(whole.to_owned()));
        let bare = "From: a@example.org\r\n folded: date: x\r\n\r\nDate: in the body\r\n";
        let fixed = fix(bare).unwrap();
        assert!(
            fixed.starts_with("Date: ") && fixed.contains("\r\nMessage-ID: <0.") && fixed.ends_with(bare)
        );
    }

    #[test]
    fn an_author_who_cannot_be_told_is_refused() {
        for bad in [
            "Subject: x\r\n\r\n",
            "\r\nFrom: a@example.org\r\n",
            "From: a@example.org\r\nFROM: b@example.org\r\n\r\n",
            "From: a@example.org\r\nDate: x\r\nDate: y\r\n\r\n",
            "",
        ] {
            assert_eq!(fix(bad), Err(554), "{bad:?}");
        }
        let long = format!("From: a@example.org\r\nX: {}", "x".repeat(HEADER_MAX));
        assert_eq!(fix(&long), Err(552));
    }
}

//! The `Received:` field that we put on top of what we take.
//!
//! Invariant: whatever a peer called itself, the field is one valid, folded field.
//!
//! Standards: RFC 5321 4.4; RFC 3848 (the `with` keywords); RFC 6531 4.3 (UTF8SMTP).

use std::net::IpAddr;

use postwright_core::{Domain, HeaderField, Mailbox, Timestamp};
use postwright_queue::SpoolId;

/// What the field tells.
pub(crate) struct Trace<'a> {
    /// What the peer called itself.
    pub(crate) hello: Option<&'a str>,
    pub(crate) peer: IpAddr,
    pub(crate) by: &'a Domain,
    /// A keyword of RFC 3848.
    pub(crate) with: &'a str,
    pub(crate) id: SpoolId,
    /// Named only if it is the only one: nobody learns of the others (RFC 5321 7.2).
    pub(crate) only_recipient: Option<&'a Mailbox>,
    pub(crate) at: Timestamp,
}

/// Longest name of a peer that is copied, in characters; RFC 5321 4.5.3.1.2 allows a domain 255.
const HELLO_MAX: usize = 255;

impl Trace<'_> {
    pub(crate) fn field(&self) -> HeaderField {
        let hello = printable(self.hello.unwrap_or("unknown"));
        let peer = match self.peer.to_canonical() {
            IpAddr::V4(ip) => format!("[{ip}]"),
            IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        };
        let to = match self.only_recipient {
            Some(mailbox) => format!("\r\n\tfor <{mailbox}>"),
            None => String::new(),
        };
        let (by, with, id, at) = (self.by, self.with, self.id, self.at.to_rfc5322());
        let value = format!("from {hello} ({peer})\r\n\tby {by} with {with} id {id}{to};\r\n\t{at}");
        // Each part is printable and each line well below 998 octets, so that only the fallback could be wrong.
        HeaderField::new("Received", &value).unwrap_or_else(|_| {
            HeaderField::new("Received", &format!("by {by} with {with} id {id}; {at}"))
                .expect("fixed words only")
        })
    }
}

/// A peer's name as a comment-safe word.
fn printable(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
    name.chars().take(HELLO_MAX).map(|c| if safe(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_write_into_our_field() {
        let by = "mx.example.org".parse().unwrap();
        let recipient = "joe@example.org".parse().unwrap();
        let trace = Trace {
            hello: Some("evil)\r\nX: y (\0é"),
            peer: "::ffff:192.0.2.1".parse().unwrap(),
            by: &by,
            with: "ESMTPS",
            id: SpoolId::MIN,
            only_recipient: Some(&recipient),
            at: Timestamp::from_secs(0),
        };
        assert_eq!(
            std::str::from_utf8(trace.field().as_bytes()).unwrap(),
            "Received: from evil???X:?y???? ([192.0.2.1])\r\n\tby mx.example.org with ESMTPS id 00000000000000000000000000\r\n\tfor \
             <joe@example.org>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }
}

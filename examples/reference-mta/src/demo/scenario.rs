//! What the demo sends, and to whom: the domains, their zone, and the messages.

use std::fmt::Write;

/// Where notifications go.
pub(super) const SENDER: &str = "sender@origin.example";

/// How a receiving domain behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Takes everything.
    Healthy,
    /// Says 451 to each recipient at first, and takes it later.
    Greylists,
    /// Says 550 to each recipient.
    Refuses,
    /// Is not there at first, and takes everything later.
    Down,
}

/// A receiving domain: its name, its address in the zone, its behaviour, and its share of the messages.
pub(super) struct Destination {
    pub(super) domain: &'static str,
    pub(super) address: &'static str,
    pub(super) behaviour: Behaviour,
    share: usize,
}

/// Addresses of TEST-NET-1 (RFC 5737); the demo's connector leads them to loopback ports.
pub(super) const DESTINATIONS: [Destination; 5] = [
    Destination { domain: "healthy.example", address: "192.0.2.1", behaviour: Behaviour::Healthy, share: 6 },
    Destination {
        domain: "greylists.example",
        address: "192.0.2.2",
        behaviour: Behaviour::Greylists,
        share: 2,
    },
    Destination { domain: "refuses.example", address: "192.0.2.3", behaviour: Behaviour::Refuses, share: 1 },
    Destination { domain: "down.example", address: "192.0.2.4", behaviour: Behaviour::Down, share: 1 },
    Destination { domain: "origin.example", address: "192.0.2.5", behaviour: Behaviour::Healthy, share: 0 },
];

/// The DNS of the demo, in zone file form.
pub(super) fn zone_text() -> String {
    let mut text = String::new();
    for Destination { domain, address, .. } in DESTINATIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{domain}. MX 10 mx.{domain}.\nmx.{domain}. A {address}");
    }
    text
}

/// The recipient of message `number`: shares are dealt in turn, so that every run sends the same.
pub(super) fn recipient(number: usize) -> String {
    let shares: usize = DESTINATIONS.iter().map(|destination| destination.share).sum();
    let mut place = number % shares;
    for destination in &DESTINATIONS {
        if place < destination.share {
            return format!("user-{number}@{}", destination.domain);
        }
        place -= destination.share;
    }
    SENDER.to_owned()
}

/// Message `number`: 1 KiB, or 30 KiB for every second one.
pub(super) fn message(number: usize) -> Vec<u8> {
    let size = if number.is_multiple_of(2) { 1024 } else { 30 * 1024 };
    let to = recipient(number);
    let mut text = format!(
        "{}: {number}\r\nFrom: {SENDER}\r\nTo: {to}\r\nSubject: demo {number}\r\nMessage-ID: <{number}@origin.example>\r\n\r\n",
        super::ledger::NUMBER_FIELD
    );
    let line = "The quick brown fox jumps over the lazy dog, again and again.\r\n";
    while text.len() + line.len() <= size {
        text.push_str(line);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_is_dealt() {
        let to = |domain: &str| (0..2000).filter(|number| recipient(*number).ends_with(domain)).count();
        assert_eq!(to("@healthy.example"), 1200);
        assert_eq!(to("@greylists.example"), 400);
        assert_eq!(to("@refuses.example"), 200);
        assert_eq!(to("@down.example"), 200);
    }

    #[test]
    fn both_sizes_are_sent() {
        assert!((900..=1024).contains(&message(0).len()));
        assert!((30_000..=30_720).contains(&message(1).len()));
    }
}

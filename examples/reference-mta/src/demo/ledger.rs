//! The demo's books: what happened to each message, seen from outside the MTA only.
//!
//! Invariant: a message is accounted for when its own octets reached a receiver, or a notification that returns
//! its header reached its sender.

use std::sync::Mutex;
use std::time::Duration;

use postwright::core::Instant;

/// The header field that carries a message's number.
pub(super) const NUMBER_FIELD: &str = "X-Demo-Number";

#[derive(Clone, Copy, Default)]
struct Row {
    sent: Option<Instant>,
    accepted: Option<Instant>,
    delivered: Option<Instant>,
    notified: bool,
}

pub(super) struct Ledger(Mutex<Vec<Row>>);

/// The books, closed.
pub(super) struct Balance {
    pub(super) accepted: usize,
    pub(super) delivered: usize,
    pub(super) dsns: usize,
    pub(super) unaccounted: usize,
    /// From the first octet of a transaction to its 250, sorted.
    pub(super) to_accept: Vec<Duration>,
    /// From the 250 to the receiver's end of data, sorted.
    pub(super) to_deliver: Vec<Duration>,
}

impl Ledger {
    pub(super) fn new(messages: usize) -> Ledger {
        Ledger(Mutex::new(vec![Row::default(); messages]))
    }

    pub(super) fn sent(&self, number: usize, at: Instant) {
        self.change(number, |row| row.sent = Some(at));
    }

    pub(super) fn accepted(&self, number: usize, at: Instant) {
        self.change(number, |row| row.accepted = Some(at));
    }

    /// A receiver has the message that starts with `head`.
    pub(super) fn arrived(&self, head: &[u8], at: Instant) {
        for number in numbers(head) {
            self.change(number, |row| row.delivered = row.delivered.or(Some(at)));
        }
    }

    /// The senders' mailbox has the notification `text`.
    pub(super) fn notified(&self, text: &[u8]) {
        for number in numbers(text) {
            self.change(number, |row| row.notified = true);
        }
    }

    /// Accepted so far, and how many of these are accounted for.
    pub(super) fn progress(&self) -> (usize, usize) {
        let rows = self.rows();
        let accepted = rows.iter().filter(|row| row.accepted.is_some());
        let done = accepted.clone().filter(|row| row.is_done()).count();
        (accepted.count(), done)
    }

    pub(super) fn balance(&self) -> Balance {
        let rows = self.rows();
        let accepted: Vec<&Row> = rows.iter().filter(|row| row.accepted.is_some()).collect();
        let sorted = |span: fn(&Row) -> Option<Duration>| {
            let mut spans: Vec<Duration> = accepted.iter().filter_map(|row| span(row)).collect();
            spans.sort();
            spans
        };
        Balance {
            accepted: accepted.len(),
            delivered: accepted.iter().filter(|row| row.delivered.is_some()).count(),
            dsns: accepted.iter().filter(|row| row.notified).count(),
            unaccounted: accepted.iter().filter(|row| !row.is_done()).count(),
            to_accept: sorted(|row| Some(row.accepted?.since(row.sent?))),
            to_deliver: sorted(|row| Some(row.delivered?.since(row.accepted?))),
        }
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows().get_mut(number) {
            change(row);
        }
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Vec<Row>> {
        // Every change is one assignment, so a poisoned lock guards whole rows.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Row {
    fn is_done(&self) -> bool {
        self.delivered.is_some() || self.notified
    }
}

/// The value below which `percent` of the sorted spans lie; zero if there are none.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// The numbers in a text: of a message its own, of a notification those of what it returns.
fn numbers(text: &[u8]) -> impl Iterator<Item = usize> {
    let text = String::from_utf8_lossy(text);
    let found: Vec<usize> = text
        .lines()
        .filter_map(|line| line.strip_prefix(NUMBER_FIELD)?.strip_prefix(": ")?.trim().parse().ok())
        .collect();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spans: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&spans, 50), Duration::from_millis(100));
        assert_eq!(percentile(&spans, 99), Duration::from_millis(198));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn a_message_is_done_when_it_arrived_or_came_back() {
        let ledger = Ledger::new(3);
        for number in 0..3 {
            ledger.accepted(number, Instant::ZERO);
        }
        ledger.arrived(b"Received: x\r\nX-Demo-Number: 0\r\n\r\n", Instant::ZERO);
        ledger.notified(b"To: sender\r\n\r\nX-Demo-Number: 2\r\n");
        ledger.arrived(b"X-Demo-Number: 77\r\n\r\n", Instant::ZERO);
        let balance = ledger.balance();
        assert_eq!((balance.accepted, balance.delivered, balance.dsns, balance.unaccounted), (3, 1, 1, 1));
    }
}

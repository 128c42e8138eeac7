//! The demo's result: a table for people, one line of JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::ledger::{Balance, percentile};

/// Everything that the demo found out.
pub(super) struct Report {
    pub(super) balance: Balance,
    /// Recipients that were deferred at least once and delivered in the end.
    pub(super) deferred: u64,
    pub(super) bounced: u64,
    pub(super) durability: &'static str,
    /// From the first message sent to the last one accepted.
    pub(super) accepting: Duration,
    /// From the first message sent to the last one accounted for.
    pub(super) whole: Duration,
}

impl Report {
    pub(super) fn json(&self) -> Value {
        let balance = &self.balance;
        json!({
            "accepted": balance.accepted,
            "delivered": balance.delivered,
            "deferred": self.deferred,
            "bounced": self.bounced,
            "dsns": balance.dsns,
            "unaccounted": balance.unaccounted,
            "durability": self.durability,
            "accept_p50_ms": millis(percentile(&balance.to_accept, 50)),
            "accept_p99_ms": millis(percentile(&balance.to_accept, 99)),
            "delivery_p50_ms": millis(percentile(&balance.to_deliver, 50)),
            "delivery_p99_ms": millis(percentile(&balance.to_deliver, 99)),
            "messages_per_second": self.rate().round(),
            "seconds": (self.whole.as_secs_f64() * 100.0).round() / 100.0,
        })
    }

    pub(super) fn table(&self) -> String {
        let balance = &self.balance;
        let span = |spans: &[Duration], percent| format!("{:.1} ms", millis(percentile(spans, percent)));
        let rows = [
            ("accepted (250 read)", balance.accepted.to_string()),
            ("delivered", balance.delivered.to_string()),
            ("  of these deferred first", self.deferred.to_string()),
            ("bounced", self.bounced.to_string()),
            ("DSNs delivered", balance.dsns.to_string()),
            ("unaccounted for", balance.unaccounted.to_string()),
            ("time to 250, p50", span(&balance.to_accept, 50)),
            ("time to 250, p99", span(&balance.to_accept, 99)),
            ("time to delivery, p50", span(&balance.to_deliver, 50)),
            ("time to delivery, p99", span(&balance.to_deliver, 99)),
            ("messages accepted per second", format!("{:.0}", self.rate())),
            ("whole run", format!("{:.1} s", self.whole.as_secs_f64())),
            ("durability", self.durability.to_owned()),
        ];
        rows.iter().map(|(name, value)| format!("{name:<30} {value:>12}\n")).collect()
    }

    fn rate(&self) -> f64 {
        let accepted = u32::try_from(self.balance.accepted).unwrap_or(u32::MAX);
        f64::from(accepted) / self.accepting.as_secs_f64().max(0.001)
    }
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

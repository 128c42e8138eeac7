//! What the daemon tells: events as log lines on stderr.

use std::io::IsTerminal;

use postwright::{Event, Observer};

/// Starts logging to stderr; `RUST_LOG` chooses how much.
pub(crate) fn start() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,postwright::mail=info".into());
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

/// Writes each event as a line with the target `postwright::mail`.
pub(crate) struct Events;

impl Observer for Events {
    fn event(&self, event: &Event<'_>) {
        macro_rules! line {
            ($level:ident, $($field:tt)*) => { tracing::$level!(target: "postwright::mail", $($field)*) };
        }
        match event {
            Event::Refused { peer, reply } => line!(info, %peer, %reply, "refused"),
            Event::Accepted { id, peer, reverse_path, recipients, octets } => {
                line!(info, %id, peer = ?peer, from = %reverse_path, recipients, octets, "accepted");
            }
            Event::Delivered { id, recipient, status, after, attempts } => {
                line!(info, %id, to = %recipient, said = %status.diagnostic, ?after, attempts, "delivered");
            }
            Event::Deferred { id, recipient, status, next } => {
                line!(info, %id, to = %recipient, said = %status.diagnostic, %next, "deferred");
            }
            Event::Bounced { id, recipient, status } => {
                line!(warn, %id, to = %recipient, said = %status.diagnostic, "bounced");
            }
            Event::Expired { id, recipient, status } => {
                line!(warn, %id, to = %recipient, said = %status.diagnostic, "expired");
            }
            Event::Cancelled { id, recipient } => line!(warn, %id, to = %recipient, "cancelled"),
            Event::Notified { id, about, to } => line!(info, %id, %about, %to, "notification queued"),
            Event::Unnotified { about } => line!(warn, %about, "nobody to notify"),
            Event::SpoolFailed { doing, error } => line!(error, doing, error, "the spool failed"),
            Event::Damaged { what } => line!(error, what, "a record is damaged and set aside"),
            Event::Loaded { messages, damaged } => line!(info, messages, damaged, "queue loaded"),
        }
    }
}

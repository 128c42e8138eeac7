//! What the daemon tells: events as log lines on stderr. Mail goes on when the log cannot (lines.rs).

mod lines;

use std::io::IsTerminal;

use postwright::bounce::suppress::Reason;
use postwright::core::DeliveryStatus;
use postwright::feedback::FeedbackEvent;
use postwright::{Event, Observer};
use tracing::field::display;

/// Starts logging to stderr; `RUST_LOG` chooses how much. Keep what comes back until the end of the program.
///
/// # Errors
/// The system has no thread for it.
pub(crate) fn start() -> std::io::Result<lines::Writing> {
    let (lines, writing) = lines::to(std::io::stderr())?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,postwright::mail=info".into());
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        // It would complain to stderr that stderr fails, and panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    Ok(writing)
}

/// Writes each event as a line with the target `postwright::mail`.
pub(crate) struct Events;

impl Observer for Events {
    fn event(&self, event: &Event<'_>) {
        macro_rules! line {
            ($level:ident, $($field:tt)*) => { tracing::$level!(target: "postwright::mail", $($field)*) };
        }
        match event {
            Event::Refused { peer, reply } => line!(info, %peer, reply = reply.to_string(), "refused"),
            Event::Accepted { id, peer, reverse_path, recipients, octets } => {
                line!(info, %id, peer = peer.map(display), from = %reverse_path, recipients, octets, "accepted");
            }
            Event::Delivered { id, recipient, status, after, attempts, timings } => {
                let (by, tls, timings) = (by(status), tls(status), timings.map(display));
                let remote_id = event.remote_id();
                line!(
                    info, %id, to = %recipient, by, tls, remote_id = remote_id.as_deref(), said = status.diagnostic.to_string(),
                    ?after, attempts, timings, "delivered"
                );
            }
            Event::Deferred { id, recipient, status, next, timings } => {
                let (by, tls, timings) = (by(status), tls(status), timings.map(display));
                line!(info, %id, to = %recipient, by, tls, said = status.diagnostic.to_string(), %next, timings, "deferred");
            }
            Event::Bounced { id, recipient, status, timings } => {
                let (by, tls, timings) = (by(status), tls(status), timings.map(display));
                line!(warn, %id, to = %recipient, by, tls, said = status.diagnostic.to_string(), timings, "bounced");
            }
            Event::Expired { id, recipient, status } => {
                line!(warn, %id, to = %recipient, said = status.diagnostic.to_string(), "expired");
            }
            Event::Cancelled { id, recipient } => line!(warn, %id, to = %recipient, "cancelled"),
            Event::Notified { id, about, to } => line!(info, %id, %about, %to, "notification queued"),
            Event::Unnotified { about } => line!(warn, %about, "nobody to notify"),
            Event::Feedback(told) => feedback(told),
            Event::LoginRefused { account, user, status, until } => {
                let (by, said) = (by(status), &status.diagnostic);
                line!(error, account, user, by, %said, %until, "the smart host refused the account; its mail waits");
            }
            Event::SpoolFailed { doing, error } => line!(error, doing, error, "the spool failed"),
            Event::Damaged { what } => line!(error, what, "a record is damaged and set aside"),
            Event::Loaded { messages, damaged } => line!(info, messages, damaged, "queue loaded"),
        }
    }
}

/// The server that decided, as `mx.example.org[192.0.2.1:25]`.
fn by(status: &DeliveryStatus) -> Option<String> {
    let remote = status.remote.as_ref()?;
    Some(match remote.address {
        Some(address) => format!("{}[{address}]", remote.host),
        None => remote.host.to_string(),
    })
}

/// How the connection was protected, as `TLSv1.3 TLS13_AES_256_GCM_SHA384 verified`.
fn tls(status: &DeliveryStatus) -> Option<String> {
    let tls = status.remote.as_ref()?.tls.as_ref()?;
    let verified = if tls.verified { "verified" } else { "unverified" };
    Some(format!("{} {} {verified}", tls.version, tls.cipher))
}

/// What came back, in words.
fn feedback(told: &FeedbackEvent) {
    macro_rules! line {
        ($level:ident, $($field:tt)*) => { tracing::$level!(target: "postwright::mail", $($field)*) };
    }
    match told {
        FeedbackEvent::Returned { about, tenant, stream, recipient, verdict, suppressed } => {
            let (category, permanence, hard) = (verdict.category, verdict.permanence, verdict.hard);
            let suppressed = suppressed.map(Reason::as_str);
            line!(warn, %about, %tenant, %stream, to = %recipient, %category, %permanence, hard, ?suppressed, "came back");
        }
        FeedbackEvent::Suppressed { about, recipient, reason } => {
            line!(warn, %about, to = %recipient, reason = reason.as_str(), "suppressed");
        }
        FeedbackEvent::Ignored(why) => line!(info, ?why, "ignored what came to the bounce domain"),
        FeedbackEvent::Alert { key, sums, level } => {
            line!(warn, tenant = %key.tenant, stream = %key.stream, provider = %key.provider, ?sums, ?level, "a rate is high");
        }
        other => line!(info, ?other, "feedback"),
    }
}

//! The queue as JSON. Times are RFC 3339, spans milliseconds.
//!
//! Not here: which of it is asked for (request.rs).

use postwright::core::Timestamp;
use postwright::feedback::FeedbackCounts;
use postwright::queue::scheduler::{LaneView, Order, OrderKind, SiteView, Waiting};
use postwright::queue::{Entry, Fate, Item, Progress};
use postwright::shaping::{self, Change, Dimension};
use serde_json::{Value, json};

use super::Desk;

pub(super) fn status(desk: &Desk) -> Value {
    let (totals, spool, counts) = (desk.operator.totals(), desk.operator.spool(), desk.metrics.counts());
    json!({
        "at": time(desk.clock.now()),
        "queue": {
            "messages": totals.messages,
            "destinations": totals.units,
            "lanes": totals.lanes,
            "in_flight": totals.in_flight,
            "settling": totals.settling,
            "orders": desk.operator.orders().len(),
        },
        "spool": {
            "condition": spool.condition.as_str(),
            "free_octets": spool.free,
            "last_sync_ms": spool.sync_latency.map(|span| (span.as_secs_f64() * 1e6).round() / 1e3),
            "commits": spool.commits,
            "syncs": spool.syncs,
            "reopened": spool.reopened,
            "quarantined": spool.quarantined,
        },
        "feedback": desk.operator.feedback().map(|counts| feedback(&counts)),
        "since_start": {
            "accepted": counts.accepted,
            "accepted_recipients": counts.accepted_recipients,
            "accepted_octets": counts.accepted_octets,
            "refused": counts.refused,
            "delivered": counts.delivered,
            "deferred": counts.deferred,
            "bounced": counts.bounced,
            "expired": counts.expired,
            "cancelled": counts.cancelled,
            "notified": counts.notified,
            "spool_failures": counts.spool_failures,
            "damaged": counts.damaged,
        },
    })
}

fn feedback(counts: &FeedbackCounts) -> Value {
    json!({
        "bounces": counts.bounces,
        "complaints": counts.complaints,
        "suppressed": counts.suppressed,
        "stopped": counts.stopped,
        "expired": counts.expired,
        "auto_replies": counts.auto_replies,
        "forged": counts.forged,
        "unmatched": counts.unmatched,
    })
}

/// An automatic action of the shaping: what, where, why, and whether it still holds.
pub(super) fn event(event: &shaping::Event) -> Value {
    let mut shown = change(&event.change);
    shown["event"] = event.id.into();
    shown["at"] = time(event.at).into();
    shown["cause"] = event.cause.clone().into();
    shown["undone"] = event.undone.map(time).into();
    shown["path"] = event.path.as_ref().map(path).into();
    shown
}

fn change(change: &Change) -> Value {
    match change {
        Change::Connections { most } => json!({ "action": "connections", "most": most }),
        Change::Pace { per_minute, paused_until } => {
            json!({ "action": "pace", "per_minute": per_minute, "paused_until": time(*paused_until) })
        }
        Change::BackOff { interval } => {
            json!({ "action": "back-off", "probe_every_seconds": interval.as_secs() })
        }
        Change::Recovered => json!({ "action": "recovered" }),
        Change::WarmUpPaused { plan } => json!({ "action": "warm-up-paused", "plan": &**plan }),
        Change::Suspended { when, until } => {
            let when: serde_json::Map<String, Value> =
                when.iter().map(|(by, value)| (by.as_str().to_owned(), (&**value).into())).collect();
            json!({ "action": "suspended", "when": when, "until": time(*until) })
        }
    }
}

/// Only what is known of it.
fn path(path: &shaping::Path) -> Value {
    let known =
        Dimension::ALL.into_iter().filter_map(|by| Some((by.as_str().to_owned(), path.value(by)?.into())));
    Value::Object(known.collect())
}

pub(super) fn lane(view: &LaneView) -> Value {
    let mut shown = json!({
        "tenant": &*view.lane.tenant,
        "stream": &*view.lane.stream,
        "destination": view.lane.host.to_string(),
        "priority": view.lane.priority,
        "messages": view.messages,
        "in_flight": view.in_flight,
        "oldest": view.oldest.map(time),
        "next_due": view.next_due.map(time),
        "blocked_until": view.blocked_until.map(time),
    });
    if !view.lane.route.is_empty() {
        shown["route"] = (&*view.lane.route).into();
    }
    shown
}

pub(super) fn site(view: &SiteView) -> Value {
    json!({
        "pool": &*view.site.pool,
        "site": &*view.site.name,
        "in_flight": view.in_flight,
        "paused_until": view.paused.as_ref().map(|(until, _)| time(*until)),
        "because": view.paused.as_ref().map(|(_, because)| &**because),
    })
}

pub(super) fn order(order: &Order) -> Value {
    let (kind, bounce, route) = match &order.kind {
        OrderKind::Suspend => ("suspend", None, None),
        OrderKind::Cancel { bounce } => ("cancel", Some(*bounce), None),
        OrderKind::Bind(route) => ("bind", None, Some(&**route)),
    };
    json!({
        "key": order.key(),
        "order": kind,
        "bounce": bounce,
        "route": route,
        "selects": order.selector.to_string(),
        "given": time(order.given),
        "until": time(order.until),
        "reason": &*order.reason,
    })
}

/// A message, or a record that cannot be read; an operator's order is neither.
pub(super) fn item(item: &Item) -> Option<Value> {
    match item {
        Item::Entry(entry) => Some(message(entry)),
        Item::Damaged(damage) => Some(json!({
            "id": damage.id.to_string(),
            "damaged": damage.reason.to_string(),
            "quarantined": damage.quarantined,
        })),
        Item::Control { .. } => None,
    }
}

fn message(entry: &Entry) -> Value {
    let recipients = entry.envelope.recipients.iter().zip(&entry.progress);
    json!({
        "id": entry.id.to_string(),
        "reverse_path": entry.envelope.reverse_path.to_string(),
        "octets": entry.size,
        "tenant": &*entry.tenant,
        "stream": &*entry.stream,
        "created": time(entry.created),
        "expires": time(entry.expires),
        "recipients": recipients.map(|(to, progress)| recipient(&to.mailbox.to_string(), progress)).collect::<Value>(),
    })
}

fn recipient(mailbox: &str, progress: &Progress) -> Value {
    let history = progress.history.iter().map(|past| {
        json!({
            "at": time(past.at),
            "outcome": format!("{:?}", past.outcome).to_lowercase(),
            "status": past.status.to_string(),
            "code": past.code.map(|code| code.to_string()),
        })
    });
    json!({
        "recipient": mailbox,
        "fate": match progress.fate {
            Fate::Pending => "pending",
            Fate::Delivered => "delivered",
            Fate::Relayed => "relayed",
            Fate::Bounced => "bounced",
            Fate::Expired => "expired",
            Fate::Cancelled => "cancelled",
        },
        "attempts": progress.attempts,
        "due": progress.is_pending().then(|| time(progress.due)),
        "last": progress.last.as_ref().map(|status| status.diagnostic.to_string()),
        "remote": progress.last.as_ref().and_then(|status| status.remote.as_ref()).map(|remote| remote.host.to_string()),
        "history": history.collect::<Value>(),
    })
}

pub(super) fn waiting(waiting: &Waiting) -> Value {
    json!({
        "destination": waiting.lane.host.to_string(),
        "recipients": waiting.recipients,
        "why": waiting.reason.as_str(),
        "because": waiting.reason.because(),
        "until": waiting.until.map(time),
        "expires": time(waiting.expires),
    })
}

fn time(at: Timestamp) -> String {
    at.to_string()
}

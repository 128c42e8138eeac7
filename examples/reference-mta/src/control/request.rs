//! What may be asked of a running MTA, and what it answers.
//!
//! Not here: the socket (mod.rs), the shape of what is shown (show.rs).

use std::time::Duration;

use postwright::core::Domain;
use postwright::queue::scheduler::{Order, OrderKind, Selector};
use postwright::queue::{Item, SpoolId};
use postwright::shaping::Shaper;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Desk, show};

/// Messages that one `list` shows at most.
const LIST: usize = 1000;
/// Longest that an order lasts: beyond it somebody has forgotten it.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Status,
    Lanes { from: usize },
    Sites,
    List { after: Option<String>, limit: usize },
    Show { id: String },
    Orders,
    Suspend { select: Select, seconds: u64, reason: String },
    Cancel { select: Select, bounce: bool, reason: String },
    Bind { select: Select, to: String, seconds: u64, reason: String },
    Resume { key: String },
    Flush { select: Select },
    ShapingEvents,
    ShapingUndo { event: u64 },
}

/// Which messages; what is left out matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Select {
    pub(crate) message: Option<String>,
    pub(crate) job: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) stream: Option<String>,
    pub(crate) domain: Option<String>,
}

impl Select {
    fn read(&self) -> Result<Selector, String> {
        let domain = |text: &String| text.parse::<Domain>().map_err(|error| format!("{text:?}: {error}"));
        Ok(Selector {
            message: self.message.as_deref().map(id).transpose()?,
            job: self.job.as_deref().map(Into::into),
            tenant: self.tenant.as_deref().map(Into::into),
            stream: self.stream.as_deref().map(Into::into),
            domain: self.domain.as_ref().map(domain).transpose()?,
        })
    }
}

fn id(text: &str) -> Result<SpoolId, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

impl Request {
    pub(super) async fn answer(self, desk: &Desk) -> Result<Vec<Value>, String> {
        let operator = &desk.operator;
        match self {
            Request::Status => Ok(vec![show::status(desk)]),
            Request::Lanes { from } => Ok(operator.lanes(from).iter().map(show::lane).collect()),
            Request::Sites => Ok(operator.sites().iter().map(show::site).collect()),
            Request::List { after, limit } => {
                let after = after.as_deref().map(id).transpose()?;
                let page = operator.messages(after, limit.clamp(1, LIST)).await;
                let items = page.map_err(|error| error.to_string())?.items;
                Ok(items.iter().filter_map(show::item).collect())
            }
            Request::Show { id: name } => {
                let id = id(&name)?;
                let entry = operator.message(id).await.map_err(|error| error.to_string())?;
                let mut shown = show::item(&Item::Entry(Box::new(entry))).unwrap_or_default();
                shown["waits"] = operator.why(id).iter().map(show::waiting).collect();
                Ok(vec![shown])
            }
            Request::Orders => Ok(operator.orders().iter().map(show::order).collect()),
            Request::Suspend { select, seconds, reason } => {
                let span = Duration::from_secs(seconds).min(LONGEST);
                give(desk, &select, OrderKind::Suspend, span, reason).await
            }
            Request::Cancel { select, bounce, reason } => {
                // It must outlive the messages that it is about, which may be read back after a restart.
                give(desk, &select, OrderKind::Cancel { bounce }, LONGEST, reason).await
            }
            Request::Bind { select, to, seconds, reason } => {
                if select.message.is_some() || select.job.is_some() {
                    return Err(
                        "a route is for lanes: choose by --tenant, --stream, --domain or --all".into()
                    );
                }
                let wrong = |error| format!("{to:?} is not the name of a [[route]], and {error}");
                let route = operator.read_route(&to).map_err(wrong)?;
                let span = Duration::from_secs(seconds).min(LONGEST);
                give(desk, &select, OrderKind::Bind(route.into()), span, reason).await
            }
            Request::Resume { key } => match operator.take_back(&key).await {
                Ok(true) => Ok(vec![json!({ "key": key })]),
                Ok(false) => {
                    Err(format!("no order has the key {key:?}; `postwright queue orders` lists them"))
                }
                Err(error) => {
                    Err(format!("in force again after a restart, since it cannot be stored: {error}"))
                }
            },
            Request::ShapingEvents => Ok(shaper(desk)?.events().iter().map(show::event).collect()),
            Request::ShapingUndo { event } => undo(desk, event),
            Request::Flush { select } => Ok(vec![json!({ "flushed": operator.flush(&select.read()?) })]),
        }
    }
}

fn shaper(desk: &Desk) -> Result<&Shaper, String> {
    let none = || "this server shapes nothing: its configuration names no delivery.shaping".to_owned();
    desk.shaper.as_deref().ok_or_else(none)
}

/// Undoes one automatic action, and makes what waited for it due.
fn undo(desk: &Desk, event: u64) -> Result<Vec<Value>, String> {
    if !shaper(desk)?.undo(event, desk.clock.now()) {
        return Err(format!(
            "no event has the number {event}, or it was undone before; `postwright shaping events` lists them"
        ));
    }
    desk.operator.ask_pace_again();
    let events = shaper(desk)?.events();
    Ok(events.iter().filter(|one| one.id == event).map(show::event).collect())
}

async fn give(
    desk: &Desk,
    select: &Select,
    kind: OrderKind,
    span: Duration,
    reason: String,
) -> Result<Vec<Value>, String> {
    let given = desk.clock.now();
    let order = Order { selector: select.read()?, kind, until: given + span, given, reason: reason.into() };
    let shown = show::order(&order);
    let stored = desk.operator.give(order).await;
    stored.map_err(|error| format!("in force until a restart only, since it cannot be stored: {error}"))?;
    Ok(vec![shown])
}

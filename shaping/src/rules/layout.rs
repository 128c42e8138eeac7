//! The tables of the file that are not limits: ways out, warm-ups, automation.
//!
//! Invariant: every name that one table gives and another one uses exists; every key is understood or reported.
//!
//! Not here: limits (`walk.rs`).

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::nearest;
use super::walk::{Walk, dimension};
use crate::adapt::{Action, AutomationRule, Signal, Threshold};
use crate::egress::{Mode, Pool, Source};
use crate::limit::{Dimension, Scope};
use crate::rate::{Rate, parse_count, parse_span};
use crate::warmup::{Alarms, Overflow, Schedule, WarmUp};
use crate::{Day, Zone};

type Value<'a> = Spanned<DeValue<'a>>;

/// A pool, and whose mail leaves by it.
#[derive(Debug, Clone)]
pub(super) struct PoolRule {
    pub(super) pool: Pool,
    pub(super) streams: Vec<Box<str>>,
    pub(super) tenants: Vec<Box<str>>,
    pub(super) default: bool,
}

/// What the tables say.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    pub(super) sources: Vec<Source>,
    pub(super) pools: Vec<PoolRule>,
    pub(super) warmups: Vec<WarmUp>,
    pub(super) automation: Vec<AutomationRule>,
}

/// One table with its key, of which every entry must be known.
struct Section<'w, 'v, 't> {
    walk: &'w mut Walk<'t>,
    key: String,
    at: usize,
    entries: Vec<(&'v str, usize, &'v Value<'v>)>,
}

impl<'v> Section<'_, 'v, '_> {
    fn find(&self, word: &str) -> Option<&'v Value<'v>> {
        self.entries.iter().find(|(name, ..)| *name == word).map(|(_, _, value)| *value)
    }

    /// A text that is read by `FromStr`; reports what cannot be read.
    fn read<T: FromStr<Err: Display>>(&mut self, word: &str) -> Option<T> {
        let value = self.find(word)?;
        let read = match value.get_ref() {
            DeValue::String(text) => text.parse::<T>().map_err(|error| error.to_string()),
            DeValue::Integer(number) => number.as_str().parse::<T>().map_err(|error| error.to_string()),
            DeValue::Float(number) => number.as_str().parse::<T>().map_err(|error| error.to_string()),
            DeValue::Boolean(flag) => flag.to_string().parse::<T>().map_err(|error| error.to_string()),
            _ => Err("is one value, not a list or a table".to_owned()),
        };
        read.map_err(|problem| self.problem(value, word, problem)).ok()
    }

    /// As `read`, for what must be there.
    fn need<T: FromStr<Err: Display>>(&mut self, word: &str) -> Option<T> {
        if self.find(word).is_none() {
            let problem = format!("needs {word:?}");
            let (at, key) = (self.at, self.key.clone());
            self.walk.error(at, &key, problem, None);
        }
        self.read(word)
    }

    /// One of these words; the first of them if there is none.
    fn one_of<T: Copy>(&mut self, word: &str, words: &[(&str, T)]) -> Option<T> {
        let default = words.first().map(|(_, value)| *value);
        let Some(value) = self.find(word) else { return default };
        let text = value.get_ref().as_str().unwrap_or_default();
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            let key = format!("{}.{word}", self.key);
            let near = nearest(text, names.iter().copied());
            self.walk.error(value.span().start, &key, format!("is one of {}", names.join(", ")), near);
        }
        found
    }

    fn list(&mut self, word: &str) -> Vec<(Box<str>, &'v Value<'v>)> {
        let Some(value) = self.find(word) else { return Vec::new() };
        let items: Option<Vec<_>> = value.get_ref().as_array().and_then(|list| {
            list.iter().map(|item| item.get_ref().as_str().map(|text| (text.into(), item))).collect()
        });
        items.unwrap_or_else(|| {
            self.problem(value, word, "is a list of names");
            Vec::new()
        })
    }

    fn names(&mut self, word: &str) -> Vec<Box<str>> {
        self.list(word).into_iter().map(|(name, _)| name).collect()
    }

    fn problem(&mut self, value: &Value<'_>, word: &str, problem: impl Into<String>) {
        let key = format!("{}.{word}", self.key);
        self.walk.error(value.span().start, &key, problem, None);
    }
}

/// The entries of a table of tables: `f` reads each, which may have only these keys.
fn each<'t, 'v, T>(
    walk: &mut Walk<'t>,
    key: &str,
    value: &'v Value<'v>,
    valid: &[&str],
    f: impl Fn(&mut Section<'_, 'v, 't>, &str) -> Option<T>,
) -> Vec<T> {
    let Some(table) = value.get_ref().as_table() else {
        walk.error(value.span().start, key, format!("is a table: write [{key}.NAME]"), None);
        return Vec::new();
    };
    let mut read = Vec::new();
    for (name, value) in table {
        let key = format!("{key}.{}", name.get_ref());
        let Some(fields) = value.get_ref().as_table() else {
            walk.error(value.span().start, &key, format!("is a table: write [{key}]"), None);
            continue;
        };
        let mut entries = Vec::new();
        for (word, value) in fields {
            let (text, at) = (word.get_ref().as_ref(), word.span().start);
            if valid.contains(&text) {
                entries.push((text, at, value));
            } else {
                let key = format!("{key}.{text}");
                walk.error(at, &key, "no such setting", nearest(text, valid.iter().copied()));
            }
        }
        let mut section = Section { walk, key, at: name.span().start, entries };
        read.extend(f(&mut section, name.get_ref()));
    }
    read
}

/// `[egress.sources.NAME]` and `[egress.pools.NAME]`.
pub(super) fn egress(walk: &mut Walk<'_>, value: &Value<'_>) {
    let Some(table) = value.get_ref().as_table() else {
        return walk.error(value.span().start, "egress", "is a table: write [egress.sources.NAME]", None);
    };
    for (name, _) in table {
        let word = name.get_ref().as_ref();
        if !["sources", "pools"].contains(&word) {
            let near = nearest(word, ["sources", "pools"].into_iter());
            walk.error(name.span().start, &format!("egress.{word}"), "no such table", near);
        }
    }
    if let Some(sources) = table.get("sources") {
        let read = each(walk, "egress.sources", sources, &["ip", "ehlo", "proxy"], |section, name| {
            let (ip, ehlo, proxy) =
                (section.read::<IpAddr>("ip"), section.read("ehlo"), section.read::<SocketAddr>("proxy"));
            if let (Some(_), None, Some(value)) = (proxy, ip, section.find("proxy")) {
                section.problem(value, "proxy", "needs \"ip\": the address that the proxy is to send from");
            }
            Some(Source { name: name.into(), ip, ehlo, proxy })
        });
        walk.layout.sources = read;
    }
    if let Some(pools) = table.get("pools") {
        let valid = ["mode", "sources", "streams", "tenants", "default"];
        let read = each(walk, "egress.pools", pools, &valid, pool);
        walk.layout.pools = read;
        unique_claims(walk, pools);
    }
}

fn pool(section: &mut Section<'_, '_, '_>, name: &str) -> Option<PoolRule> {
    let modes = [("weighted", Mode::Weighted), ("sticky", Mode::Sticky), ("failover", Mode::Failover)];
    let mode = section.one_of("mode", &modes)?;
    let known: Vec<Arc<str>> = section.walk.layout.sources.iter().map(|s| Arc::clone(&s.name)).collect();
    let mut members = Vec::new();
    for (text, value) in section.list("sources") {
        let (member, weight) = match text.split_once('*') {
            None => (&*text, Some(1)),
            Some((member, weight)) => (member.trim(), parse_count(weight.trim())),
        };
        let weight = weight.and_then(|weight| u32::try_from(weight).ok());
        let found = known.iter().find(|name| &***name == member);
        match (found, weight) {
            (Some(name), Some(weight)) => members.push((Arc::clone(name), weight)),
            (Some(_), None) => section.problem(value, "sources", "is a list such as [\"a*3\", \"b\"]"),
            (None, _) => {
                let key = format!("{}.sources", section.key);
                let near = nearest(member, known.iter().map(|name| &**name));
                section.walk.error(value.span().start, &key, "no such source under [egress.sources]", near);
            }
        }
    }
    if members.is_empty() {
        let (at, key) = (section.at, section.key.clone());
        section.walk.error(at, &key, "needs \"sources\", a list of at least one source", None);
    }
    let (streams, tenants) = (section.names("streams"), section.names("tenants"));
    let default = section.read("default").unwrap_or(false);
    Some(PoolRule { pool: Pool { name: name.into(), mode, members }, streams, tenants, default })
}

/// What belongs to two pools belongs to none: the order of tables in a file means nothing.
fn unique_claims(walk: &mut Walk<'_>, value: &Value<'_>) {
    let mut claimed = BTreeSet::new();
    let mut twice = Vec::new();
    for rule in &walk.layout.pools {
        let streams = rule.streams.iter().map(|name| format!("stream {name:?}"));
        let tenants = rule.tenants.iter().map(|name| format!("tenant {name:?}"));
        let default = rule.default.then(|| "the default".to_owned());
        for claim in streams.chain(tenants).chain(default) {
            if !claimed.insert(claim.clone()) {
                twice.push((format!("egress.pools.{}", rule.pool.name), claim));
            }
        }
    }
    for (key, claim) in twice {
        walk.error(value.span().start, &key, format!("another pool has {claim} already"), None);
    }
}

/// `[warm-up.NAME]`.
pub(super) fn warmups(walk: &mut Walk<'_>, value: &Value<'_>) {
    let valid =
        ["source", "provider", "schedule", "start", "zone", "overflow", "bounces", "complaints", "at-least"];
    let read = each(walk, "warm-up", value, &valid, |section, name| {
        let overflow = [("next-source", Overflow::NextSource), ("wait", Overflow::Wait)];
        let usual = Alarms::default();
        let plan = WarmUp {
            name: name.into(),
            source: section.need::<String>("source")?.into(),
            provider: section.read::<String>("provider").map(Into::into),
            schedule: section.need::<Schedule>("schedule")?,
            start: section.need::<Day>("start")?,
            zone: section.read::<Zone>("zone").unwrap_or_default(),
            overflow: section.one_of("overflow", &overflow)?,
            alarms: Alarms {
                bounces: section.read("bounces").unwrap_or(usual.bounces),
                complaints: section.read("complaints").unwrap_or(usual.complaints),
                at_least: section.read("at-least").unwrap_or(usual.at_least),
            },
        };
        for (word, part) in [("bounces", plan.alarms.bounces), ("complaints", plan.alarms.complaints)] {
            if let (Some(value), false) = (section.find(word), part > 0.0 && part <= 1.0) {
                section.problem(value, word, "is a part of what was sent, such as 0.02 for 2 %");
            }
        }
        let known: Vec<Arc<str>> = section.walk.layout.sources.iter().map(|s| Arc::clone(&s.name)).collect();
        if let (false, Some(value)) =
            (known.iter().any(|name| **name == *plan.source), section.find("source"))
        {
            let key = format!("{}.source", section.key);
            let near = nearest(&plan.source, known.iter().map(|name| &**name));
            section.walk.error(value.span().start, &key, "no such source under [egress.sources]", near);
        }
        if let (Some(provider), Some(value)) = (&plan.provider, section.find("provider")) {
            let key = format!("{}.provider", section.key);
            section.walk.known_name(Dimension::Provider, provider, value.span().start, &key);
        }
        Some(plan)
    });
    walk.layout.warmups = read;
}

const SIGNALS: [Signal; 10] = [
    Signal::Connected,
    Signal::ConnectionThrottled,
    Signal::Unreachable,
    Signal::Delivered,
    Signal::Throttled,
    Signal::Blocked,
    Signal::Deferred,
    Signal::Greylisted,
    Signal::Bounced,
    Signal::Complained,
];

/// `[automation.NAME]`.
pub(super) fn automation(walk: &mut Walk<'_>, value: &Value<'_>) {
    let words = ["signal", "pattern", "threshold", "action", "for"];
    let dimensions = Dimension::ALL.map(Dimension::as_str);
    let valid: Vec<&str> = words.into_iter().chain(dimensions).collect();
    let read = each(walk, "automation", value, &valid, |section, name| {
        let signals: Vec<(&str, Option<Signal>)> =
            std::iter::once(("any", None)).chain(SIGNALS.map(|s| (s.as_str(), Some(s)))).collect();
        let signal = section.one_of("signal", &signals)?;
        let pattern = section.read::<String>("pattern").unwrap_or_default().into();
        // "3/h": a count within a period, as rates are written.
        let threshold = section.need::<Rate>("threshold")?;
        let count = u32::try_from(threshold.count()).unwrap_or(u32::MAX);
        let action = section.need::<RuleAction>("action")?.0;
        let span = section.need::<Span>("for")?.0;
        let mut when = Vec::new();
        for word in dimensions {
            if let (Some(value), Some(dimension)) = (section.read::<String>(word), dimension(word)) {
                let at = section.find(word).map_or(section.at, |value| value.span().start);
                let key = format!("{}.{word}", section.key);
                when.extend(
                    section.walk.known_name(dimension, &value, at, &key).map(|v| (dimension, v.into())),
                );
            }
        }
        let threshold = Threshold { count, period: threshold.period() };
        Some(AutomationRule { name: name.into(), when, signal, pattern, threshold, action, duration: span })
    });
    walk.layout.automation = read;
}

/// `back-off`, `suspend source+site`, `pace 10/min`, `connections 5`.
struct RuleAction(Action);

impl FromStr for RuleAction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "is \"back-off\", \"suspend source+site\" (any scope), \"pace 10/min\" or \"connections 5\""
                .to_owned()
        };
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Ok(RuleAction(match word {
            "back-off" if rest.is_empty() => Action::BackOff,
            "suspend" => Action::Suspend(rest.parse::<Scope>().map_err(|error| error.to_string())?),
            "pace" => {
                Action::Pace(rest.parse::<Rate>().map_err(|error| error.to_string())?.per_second() * 60.0)
            }
            "connections" => {
                let most = parse_count(rest).and_then(|most| u32::try_from(most).ok());
                Action::Connections(most.filter(|most| *most > 0).ok_or_else(wrong)?)
            }
            _ => return Err(wrong()),
        }))
    }
}

/// `2h`, `30min`.
struct Span(Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_span(text).map(Span).ok_or("is a span such as 30min, 2h or 1d")
    }
}

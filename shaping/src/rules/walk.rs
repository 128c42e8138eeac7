//! From the tables of the file to layers, collecting errors on the way.
//!
//! Invariant: every key is either understood or reported.
//!
//! Not here: the file's format in words (`mod.rs`).

use postwright_core::Domain;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::layout::{self, Layout};
use super::{Rules, RulesError, nearest};
use crate::egress::Egress;
use crate::limit::{Bound, Dimension, Kind, Scope};
use crate::policy::{Layer, Policy};
use crate::providers::PROVIDERS;
use crate::rate::parse_count;
use crate::{Rate, Zone};

const TOP: [&str; 6] = ["automation", "built-in", "defaults", "egress", "providers", "warm-up"];
const RATE_HELP: &str = "write a rate such as \"600/min\", \"5000/h burst 50\" or \"500/calendar-day +01:00\", \
                         a list of them, or \"unset\"";

pub(super) fn parse(text: &str) -> Result<Rules, Vec<RulesError>> {
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let problem = error.message().replace('\n', " ");
            return Err(vec![RulesError {
                line: line_of(text, at),
                key: String::new(),
                problem,
                nearest: None,
            }]);
        }
    };
    let mut walk = Walk {
        text,
        errors: Vec::new(),
        layers: Vec::new(),
        providers: Vec::new(),
        layout: Layout::default(),
    };
    let built_in = walk.top(table.get_ref());
    if !walk.errors.is_empty() {
        walk.errors.sort_by_key(|error| error.line);
        return Err(walk.errors);
    }
    let base = if built_in { Policy::built_in() } else { Policy::new() };
    let policy = walk.layers.into_iter().fold(base, Policy::with);
    let Layout { sources, pools, warmups, automation } = walk.layout;
    let members = pools.iter().map(|rule| rule.pool.clone()).collect();
    match Egress::new(sources, members) {
        Ok(egress) => {
            Ok(Rules { policy, warmups, automation, egress: egress.into(), pools, providers: walk.providers })
        }
        // Nothing of this gets past the tables' own checks.
        Err(error) => {
            let (key, problem) = ("egress".to_owned(), error.to_string());
            Err(vec![RulesError { line: 1, key, problem, nearest: None }])
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

pub(super) struct Walk<'t> {
    text: &'t str,
    errors: Vec<RulesError>,
    layers: Vec<Layer>,
    providers: Vec<(Box<str>, Vec<Domain>)>,
    pub(super) layout: Layout,
}

impl Walk<'_> {
    pub(super) fn error(
        &mut self,
        at: usize,
        key: &str,
        problem: impl Into<String>,
        nearest: Option<String>,
    ) {
        let line = line_of(self.text, at);
        self.errors.push(RulesError { line, key: key.to_owned(), problem: problem.into(), nearest });
    }

    /// The whole file; whether it starts from the built-in table.
    fn top(&mut self, table: &DeTable<'_>) -> bool {
        if let Some(value) = table.get("providers") {
            self.own_providers(value);
        }
        // Names are given here and used below.
        if let Some(value) = table.get("egress") {
            layout::egress(self, value);
        }
        let mut built_in = true;
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            match (key, dimension(key)) {
                ("providers" | "egress", _) => {}
                ("warm-up", _) => layout::warmups(self, value),
                ("automation", _) => layout::automation(self, value),
                ("built-in", _) => match value.get_ref().as_bool() {
                    Some(flag) => built_in = flag,
                    None => self.error(value.span().start, key, "is true or false", None),
                },
                ("defaults", _) => self.section(key, Layer::defaults(), value),
                (_, Some(dimension)) => self.by_value(key, None, dimension, value),
                _ => {
                    let valid = TOP.into_iter().chain(Dimension::ALL.map(Dimension::as_str));
                    self.error(name.span().start, key, "no such table", nearest(key, valid));
                }
            }
        }
        built_in
    }

    fn own_providers(&mut self, value: &Spanned<DeValue<'_>>) {
        let Some(table) = value.get_ref().as_table() else {
            return self.error(
                value.span().start,
                "providers",
                "is a table of names and lists of mail hosts",
                None,
            );
        };
        for (name, hosts) in table {
            let key = format!("providers.{}", name.get_ref());
            let list = hosts.get_ref().as_array();
            let suffixes =
                list.and_then(|list| list.iter().map(|host| host.get_ref().as_str()?.parse().ok()).collect());
            match suffixes {
                Some(suffixes) => self.providers.push((name.get_ref().as_ref().into(), suffixes)),
                None => self.error(
                    hosts.span().start,
                    &key,
                    "is a list of domains below which its hosts lie",
                    None,
                ),
            }
        }
    }

    /// `[provider.NAME]`, alone or within another section.
    fn by_value(
        &mut self,
        key: &str,
        outer: Option<&Layer>,
        dimension: Dimension,
        value: &Spanned<DeValue<'_>>,
    ) {
        let Some(table) = value.get_ref().as_table() else {
            let problem = format!("is a table: write [{key}.NAME] before its settings");
            return self.error(value.span().start, key, problem, None);
        };
        for (name, section) in table {
            let (text, key) = (name.get_ref().as_ref(), format!("{key}.{}", name.get_ref()));
            let Some(text) = self.known_name(dimension, text, name.span().start, &key) else { continue };
            let layer = match outer {
                None => Layer::of(dimension, &text),
                Some(outer) => outer.clone().and(dimension, &text),
            };
            self.section(&key, layer, section);
        }
    }

    /// The name as paths have it; `None` (and an error) if it cannot match any path.
    pub(super) fn known_name(
        &mut self,
        dimension: Dimension,
        text: &str,
        at: usize,
        key: &str,
    ) -> Option<String> {
        match dimension {
            Dimension::Domain => match text.parse::<Domain>() {
                Ok(domain) => Some(domain.to_string()),
                Err(error) => {
                    self.error(at, key, error.to_string(), None);
                    None
                }
            },
            Dimension::Provider => {
                let own = self.providers.iter().map(|(name, _)| &**name);
                let names: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).chain(own).collect();
                if names.contains(&text) {
                    return Some(text.to_owned());
                }
                let nearest = nearest(text, names.into_iter());
                self.error(at, key, "no such provider in the built-in table or under [providers]", nearest);
                None
            }
            Dimension::Source if !self.layout.sources.is_empty() => {
                let known = self.layout.sources.iter().map(|source| &*source.name);
                let near = nearest(text, known.clone());
                let found = known.into_iter().any(|name| name == text);
                self.known_here(found, at, key, "no such source under [egress.sources]", near, text)
            }
            Dimension::Pool if !self.layout.pools.is_empty() => {
                let known = self.layout.pools.iter().map(|rule| &*rule.pool.name);
                let near = nearest(text, known.clone());
                let found = known.into_iter().any(|name| name == text);
                self.known_here(found, at, key, "no such pool under [egress.pools]", near, text)
            }
            _ => Some(text.to_owned()),
        }
    }

    fn known_here(
        &mut self,
        found: bool,
        at: usize,
        key: &str,
        problem: &str,
        near: Option<String>,
        text: &str,
    ) -> Option<String> {
        if !found {
            self.error(at, key, problem, near);
            return None;
        }
        Some(text.to_owned())
    }

    fn section(&mut self, key: &str, layer: Layer, value: &Spanned<DeValue<'_>>) {
        let Some(table) = value.get_ref().as_table() else {
            return self.error(value.span().start, key, "is a table of settings", None);
        };
        let mut own = layer.clone();
        for (name, value) in table {
            let word = name.get_ref().as_ref();
            let key = format!("{key}.{word}");
            if let Some(kind) = kind(word) {
                own = self.setting(own, &key, None, kind, value);
            } else if word == "by" {
                own = self.by_scope(own, &key, value);
            } else if let Some(dimension) = dimension(word) {
                // Nested sections must not take over what this one sets.
                self.by_value(&key, Some(&layer), dimension, value);
            } else {
                let valid = Kind::ALL
                    .map(Kind::as_str)
                    .into_iter()
                    .chain(["by"])
                    .chain(Dimension::ALL.map(Dimension::as_str));
                self.error(name.span().start, &key, "no such setting", nearest(word, valid));
            }
        }
        self.layers.push(own);
    }

    fn by_scope(&mut self, mut layer: Layer, key: &str, value: &Spanned<DeValue<'_>>) -> Layer {
        let Some(table) = value.get_ref().as_table() else {
            self.error(
                value.span().start,
                key,
                "is a table of scopes: write [TABLE.by.\"source+site\"]",
                None,
            );
            return layer;
        };
        for (name, settings) in table {
            let (word, key) = (name.get_ref().as_ref(), format!("{key}.{}", name.get_ref()));
            let (scope, settings) = match (word.parse::<Scope>(), settings.get_ref().as_table()) {
                (Ok(scope), Some(settings)) => (scope, settings),
                (Err(error), _) => {
                    let valid = Dimension::ALL.map(Dimension::as_str).into_iter().chain(["global"]);
                    let nearest = nearest(&error.0, valid);
                    self.error(name.span().start, &key, error.to_string(), nearest);
                    continue;
                }
                (_, None) => {
                    self.error(settings.span().start, &key, "is a table of settings", None);
                    continue;
                }
            };
            for (name, value) in settings {
                let key = format!("{key}.{}", name.get_ref());
                match kind(name.get_ref()) {
                    Some(kind) => layer = self.setting(layer, &key, Some(scope), kind, value),
                    None => {
                        let nearest = nearest(name.get_ref(), Kind::ALL.map(Kind::as_str).into_iter());
                        self.error(name.span().start, &key, "no such setting", nearest);
                    }
                }
            }
        }
        layer
    }

    fn setting(
        &mut self,
        layer: Layer,
        key: &str,
        by: Option<Scope>,
        kind: Kind,
        value: &Spanned<DeValue<'_>>,
    ) -> Layer {
        let bounds = match bounds(kind, value.get_ref()) {
            Ok(bounds) => bounds,
            Err(problem) => {
                self.error(value.span().start, key, problem, None);
                return layer;
            }
        };
        let set = match by {
            None => layer.clone().set(kind, &bounds),
            Some(scope) => layer.clone().set_by(scope, kind, &bounds),
        };
        set.unwrap_or_else(|error| {
            self.error(value.span().start, key, error.to_string(), None);
            layer
        })
    }
}

pub(super) fn dimension(word: &str) -> Option<Dimension> {
    Dimension::ALL.into_iter().find(|dimension| dimension.as_str() == word)
}

fn kind(word: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
}

fn bounds(kind: Kind, value: &DeValue<'_>) -> Result<Vec<Bound>, String> {
    match value {
        DeValue::String(text) if text == "unset" => Ok(Vec::new()),
        DeValue::Array(list) => list.iter().map(|item| bound(kind, item.get_ref())).collect(),
        value => bound(kind, value).map(|bound| vec![bound]),
    }
}

fn bound(kind: Kind, value: &DeValue<'_>) -> Result<Bound, String> {
    let counts = matches!(kind, Kind::Concurrency | Kind::MessagesPerConnection | Kind::RecipientsPerMessage);
    match value {
        DeValue::Integer(number) if counts => at_most(number.as_str()),
        DeValue::String(text) if counts => at_most(text),
        DeValue::String(text) => rate_or_daily(text),
        _ if counts => Err("is a whole number, or \"unset\"".to_owned()),
        _ => Err(RATE_HELP.to_owned()),
    }
}

fn at_most(text: &str) -> Result<Bound, String> {
    let number = parse_count(text).and_then(|number| u32::try_from(number).ok());
    number.map(Bound::AtMost).ok_or_else(|| "is a whole number below 4 billion, or \"unset\"".to_owned())
}

fn rate_or_daily(text: &str) -> Result<Bound, String> {
    let Some((count, zone)) = text.split_once("/calendar-day") else {
        return text.parse::<Rate>().map(Bound::Rate).map_err(|error| format!("{error}; {RATE_HELP}"));
    };
    let cap = parse_count(count.trim()).and_then(|cap| u32::try_from(cap).ok());
    let zone = match zone.trim() {
        "" => Zone::UTC,
        zone => zone.parse().map_err(|error| format!("{error}"))?,
    };
    cap.map(|cap| Bound::Daily { cap, zone }).ok_or_else(|| RATE_HELP.to_owned())
}

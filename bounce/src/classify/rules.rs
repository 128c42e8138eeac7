//! Rules as data: reading a rules file.
//!
//! A file is TOML, of which this reader knows what rules need: `[[rule]]` tables of strings (basic and literal, one line),
//! booleans and arrays of strings, and comments. So the built-in set needs no TOML library; a test reads it with one, too, and compares.
//!
//! Invariant: a file is read whole or refused with the line and the reason. Not here: matching (`matcher`), advice (`lint`).

use super::{Action, Category, Permanence, Scope};

/// Most octets of a rules file, 1 MiB.
pub const FILE_MAX: usize = 1 << 20;
/// Most rules in a file.
pub const RULES_MAX: usize = 5000;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, unique in its file.
    pub name: Box<str>,
    /// What it finds.
    pub category: Category,
    /// Phrases; one is enough. Words match whole, punctuation and case do not count, addresses and codes in the text are
    /// skipped. A final `*` matches the beginning of a word; ` .. ` allows up to 60 octets between two pieces.
    pub any: Vec<Box<str>>,
    /// Regular expressions (RE2 syntax, linear time) over the text as it came, in any case; one is enough.
    pub regex: Vec<Box<str>>,
    /// The regular expressions are tried only in texts with one of these phrases, which makes them cheap; empty for all texts.
    pub needs: Vec<Box<str>>,
    /// Only for these mail hosts: domain suffixes. A refusal whose host is not known does not pass.
    pub mx: Vec<Box<str>>,
    /// Only for these reply codes: `5`, `45`, `550`; empty for all.
    pub codes: Vec<Box<str>>,
    /// Goes before the enhanced status code.
    pub early: bool,
    /// Only counts when no enhanced status code says anything.
    pub weak: bool,
    /// Overrides what the class of the code says.
    pub permanence: Option<Permanence>,
    /// Overrides the category's.
    pub hard: Option<bool>,
    /// Overrides the category's.
    pub scope: Option<Scope>,
    /// Overrides the category's.
    pub action: Option<Action>,
    /// Where the wording comes from.
    pub source: Box<str>,
    /// The line it begins on.
    pub line: usize,
}

/// What is wrong with a rules file; its author's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rules, line {line}: {what}")]
pub struct RulesError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub what: Box<str>,
}

impl RulesError {
    pub(super) fn new(line: usize, what: impl Into<String>) -> RulesError {
        RulesError { line, what: what.into().into() }
    }
}

enum Value {
    Text(String),
    List(Vec<Box<str>>),
    Bool(bool),
}

/// Reads a rules file.
///
/// # Errors
/// The first line that is not understood.
pub fn parse(text: &str) -> Result<Vec<Rule>, RulesError> {
    if text.len() > FILE_MAX {
        return Err(RulesError::new(1, format!("the file is longer than {FILE_MAX} octets")));
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((i, raw)) = lines.next() {
        let line = i + 1;
        let content = strip_comment(raw).trim();
        if content.is_empty() {
            continue;
        }
        if content == "[[rule]]" {
            if rules.len() == RULES_MAX {
                return Err(RulesError::new(line, format!("more than {RULES_MAX} rules")));
            }
            rules.push(empty(line));
            continue;
        }
        let (key, value) = content
            .split_once('=')
            .ok_or_else(|| RulesError::new(line, "want [[rule]], key = value or a comment"))?;
        let mut value = value.trim().to_owned();
        // An array may go on over several lines.
        while value.starts_with('[') && !is_closed(&value) {
            let (_, more) = lines.next().ok_or_else(|| RulesError::new(line, "the array is not closed"))?;
            value.push(' ');
            value.push_str(strip_comment(more).trim());
        }
        let value = parse_value(&value).ok_or_else(|| {
            RulesError::new(line, "want a string in quotes on one line, true, false or an array of strings")
        })?;
        let rule =
            rules.last_mut().ok_or_else(|| RulesError::new(line, "a key before the first [[rule]]"))?;
        set(rule, key.trim(), value).map_err(|what| RulesError::new(line, what))?;
    }
    check(&rules)?;
    Ok(rules)
}

fn empty(line: usize) -> Rule {
    Rule {
        name: "".into(),
        category: Category::Undefined,
        any: Vec::new(),
        needs: Vec::new(),
        regex: Vec::new(),
        mx: Vec::new(),
        codes: Vec::new(),
        early: false,
        weak: false,
        permanence: None,
        hard: None,
        scope: None,
        action: None,
        source: "".into(),
        line,
    }
}

fn check(rules: &[Rule]) -> Result<(), RulesError> {
    let mut names = std::collections::BTreeSet::new();
    for rule in rules {
        if rule.name.is_empty() {
            return Err(RulesError::new(rule.line, "the rule has no name"));
        }
        if rule.any.is_empty() && rule.regex.is_empty() {
            return Err(RulesError::new(rule.line, "the rule has neither `any` nor `regex`"));
        }
        if !names.insert(&rule.name) {
            return Err(RulesError::new(rule.line, format!("a second rule is named {:?}", rule.name)));
        }
    }
    Ok(())
}

const KEYS: &str =
    "name, category, any, regex, needs, mx, codes, early, weak, permanence, hard, scope, action, source";

fn set(rule: &mut Rule, key: &str, value: Value) -> Result<(), String> {
    let name = |what: &str, text: &str| format!("{text:?} is not a {what}");
    match (key, value) {
        ("name", Value::Text(text)) => rule.name = text.into(),
        ("source", Value::Text(text)) => rule.source = text.into(),
        ("category", Value::Text(text)) => {
            rule.category = text.parse().map_err(|_| name("category", &text))?;
        }
        ("permanence", Value::Text(text)) => {
            rule.permanence = Some(text.parse().map_err(|_| name("permanence", &text))?);
        }
        ("scope", Value::Text(text)) => rule.scope = Some(text.parse().map_err(|_| name("scope", &text))?),
        ("action", Value::Text(text)) => rule.action = Some(text.parse().map_err(|_| name("action", &text))?),
        ("any", Value::List(list)) => rule.any = list,
        ("regex", Value::List(list)) => rule.regex = list,
        ("needs", Value::List(list)) => rule.needs = list,
        ("mx", Value::List(list)) => rule.mx = list.iter().map(|mx| mx.to_ascii_lowercase().into()).collect(),
        ("codes", Value::List(list)) => {
            if !list
                .iter()
                .all(|code| (1..=3).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit()))
            {
                return Err("a code is one to three digits".into());
            }
            rule.codes = list;
        }
        ("early", Value::Bool(yes)) => rule.early = yes,
        ("weak", Value::Bool(yes)) => rule.weak = yes,
        ("hard", Value::Bool(yes)) => rule.hard = Some(yes),
        (key, _) => {
            return Err(format!("{key:?} is not a key, or its value is of the wrong type; keys: {KEYS}"));
        }
    }
    Ok(())
}

/// The line without its comment: a `#` outside quotes begins one.
fn strip_comment(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match quote {
            None if c == '#' => return line.get(..at).unwrap_or(line),
            None if c == '"' || c == '\'' => quote = Some(c),
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            _ => {}
        }
    }
    line
}

fn is_closed(value: &str) -> bool {
    value.ends_with(']') && parse_value(value).is_some()
}

fn parse_value(text: &str) -> Option<Value> {
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(inner) = text.strip_prefix('[') {
        let mut rest = inner.trim_start();
        let mut list = Vec::new();
        loop {
            if let Some(end) = rest.strip_prefix(']') {
                return end.trim().is_empty().then_some(Value::List(list));
            }
            let (item, behind) = parse_string(rest)?;
            list.push(item.into());
            rest = behind.trim_start();
            if let Some(behind) = rest.strip_prefix(',') {
                rest = behind.trim_start();
            } else if !rest.starts_with(']') {
                return None;
            }
        }
    }
    let (text, rest) = parse_string(text)?;
    rest.trim().is_empty().then_some(Value::Text(text))
}

/// A string and what follows it.
fn parse_string(text: &str) -> Option<(String, &str)> {
    if let Some(inner) = text.strip_prefix('\'') {
        let (value, rest) = inner.split_once('\'')?;
        return Some((value.to_owned(), rest));
    }
    let inner = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, inner.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                c @ ('"' | '\\') => out.push(c),
                _ => return None,
            },
            c if c.is_control() && c != '\t' => return None,
            c => out.push(c),
        }
    }
    None
}

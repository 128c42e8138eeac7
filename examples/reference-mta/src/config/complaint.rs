//! Turning a TOML error into one line: file, line, what is wrong, and the nearest valid key.

use crate::commands::Failure;

/// Names at least this alike are worth suggesting (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.7;

pub(super) fn of_toml(error: &toml::de::Error, text: &str, shown: &str) -> Failure {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count() + 1;
    let what = with_suggestion(error.message());
    let what = match (key_of(text, line), advice(&what)) {
        (Some(key), Some(advice)) => format!("{key}: {what}; {advice}"),
        (Some(key), None) if what == "duplicate key" => format!("{key} is there already; leave one out"),
        _ => what,
    };
    Failure::new(format!("{shown}:{line}: {what}"))
}

/// The key, or the header of the section, that a line begins with.
fn key_of(text: &str, line: usize) -> Option<&str> {
    let line = text.lines().nth(line.checked_sub(1)?)?.trim();
    let end = line.find(['=', ' ']).unwrap_or(line.len());
    (!line.is_empty()).then(|| &line[..end])
}

/// What to write, where the parser only says what it wants.
fn advice(what: &str) -> Option<&'static str> {
    let (found, wanted) =
        what.strip_prefix("invalid type: ").and_then(|what| what.split_once(", expected "))?;
    Some(match wanted {
        "a string" => "write it in quotes; sizes and times have a unit: \"64 KiB\", \"5m\"",
        "a sequence" => "write it in brackets: [\"one\", \"two\"]",
        "a boolean" => "write true or false, without quotes",
        _ if found.starts_with("string") => "write it without quotes",
        _ => "see docs/configuration.md",
    })
}

/// The message, with the nearest valid name behind it where a name is unknown.
pub(super) fn with_suggestion(what: &str) -> String {
    match nearest(what) {
        Some(near) => format!("{what}; did you mean `{near}`?"),
        None => what.to_owned(),
    }
}

/// Where a key of a section stands in a text, counted from 1.
pub(super) fn line_of(text: &str, section: &str, key: &str) -> Option<usize> {
    let header = format!("[{section}]");
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| line.trim() != header).skip(1);
    let own = lines.by_ref().take_while(|(_, line)| !line.trim_start().starts_with('['));
    let names = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
    own.filter(|(_, line)| names(line)).map(|(index, _)| index + 1).next()
}

/// Where the section of that number begins among those of its name, all counted from 1.
pub(super) fn line_of_section(text: &str, section: &str, number: usize) -> Option<usize> {
    let header = format!("[[{section}]]");
    let mut lines = text.lines().enumerate().filter(|(_, line)| line.trim() == header);
    lines.nth(number.checked_sub(1)?).map(|(index, _)| index + 1)
}

/// The expected name that is most like the unknown one, both read from serde's message, which quotes names.
fn nearest(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown") {
        return None;
    }
    nearest_of(quoted.next()?, quoted)
}

/// The name that is most like a wrong one, if any is.
pub(super) fn nearest_of<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let alike = |name: &str| strsim::jaro_winkler(wrong, name);
    names.filter(|name| alike(name) >= ALIKE).max_by(|a, b| alike(a).total_cmp(&alike(b)))
}

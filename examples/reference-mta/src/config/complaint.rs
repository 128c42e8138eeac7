//! Turning a TOML error into one line: file, line, what is wrong, and the nearest valid key.

use crate::commands::Failure;

/// Names at least this alike are worth suggesting (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.7;

pub(super) fn of_toml(error: &toml::de::Error, text: &str, shown: &str) -> Failure {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count() + 1;
    let what = error.message();
    Failure::new(match nearest(what) {
        Some(near) => format!("{shown}:{line}: {what}; did you mean `{near}`?"),
        None => format!("{shown}:{line}: {what}"),
    })
}

/// The expected name that is most like the unknown one, both read from serde's message, which quotes names.
fn nearest(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown") {
        return None;
    }
    let wrong = quoted.next()?;
    let alike = |name: &str| strsim::jaro_winkler(wrong, name);
    quoted.filter(|name| alike(name) >= ALIKE).max_by(|a, b| alike(a).total_cmp(&alike(b)))
}

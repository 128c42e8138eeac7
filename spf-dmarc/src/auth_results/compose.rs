//! Writing the field.
//!
//! Invariant: only keywords stand bare; every other text is a token or a quoted-string of at most [`VALUE_MAX`]
//! characters, without controls. So the value parses back, and no line outgrows RFC 5322.
//!
//! Standards: RFC 8601 2.2, RFC 2045 5.1 (tokens), RFC 5322 2.1.1.

use std::borrow::Cow;

use postwright_core::HeaderField;

use super::{AuthResults, MethodResult, NAME};

/// Longest text that is taken from a stranger, in characters.
const VALUE_MAX: usize = 200;
/// Where lines are folded, in characters, if they can be.
const FOLD_AT: usize = 78;

pub(super) fn value(results: &AuthResults) -> String {
    // Room for the usual three or four results.
    let mut out = String::with_capacity(512);
    out.push_str(&quoted(&results.authserv_id));
    if results.version != 1 {
        out.push_str(&format!(" {}", results.version));
    }
    if results.results.is_empty() {
        out.push_str("; none");
    }
    for result in &results.results {
        out.push_str(";\r\n\t");
        let mut line = 8;
        for i in 0.. {
            let start = out.len();
            if !write_word(result, i, &mut out) {
                break;
            }
            let len = out.get(start..).unwrap_or("").chars().count();
            if i > 0 && line + 1 + len > FOLD_AT {
                out.insert_str(start, "\r\n\t ");
                line = 9;
            } else if i > 0 {
                out.insert(start, ' ');
                line += 1;
            }
            line += len;
        }
    }
    out
}

pub(super) fn field(results: &AuthResults) -> HeaderField {
    // The value has no controls but its folds, and no fold is empty, so this cannot fail.
    HeaderField::new(NAME, &value(results)).unwrap_or_else(|_| none())
}

fn none() -> HeaderField {
    #[expect(clippy::expect_used, reason = "a constant")]
    HeaderField::new(NAME, "unknown; none").expect("a constant field is valid")
}

/// Writes one word of a result: the method, then the reason if there is one, then the properties. Whether there is
/// such a word.
fn write_word(result: &MethodResult, index: usize, out: &mut String) -> bool {
    let reason = result.reason.as_deref();
    match (index, reason) {
        (0, _) => {
            out.push_str(&keyword(&result.method));
            if result.version != 1 {
                out.push_str(&format!("/{}", result.version));
            }
            out.push('=');
            out.push_str(&keyword(&result.result));
        }
        (1, Some(reason)) => {
            out.push_str("reason=");
            out.push_str(&quoted(reason));
        }
        _ => {
            let before = 1 + usize::from(reason.is_some());
            let Some(property) = index.checked_sub(before).and_then(|at| result.properties.get(at)) else {
                return false;
            };
            out.push_str(&keyword(&property.ptype));
            out.push('.');
            out.push_str(&keyword(&property.name));
            out.push('=');
            out.push_str(&address_or_quoted(&property.value));
        }
    }
    true
}

/// Letters, digits, hyphens (RFC 5321 Keyword), and the underscore that some results have.
fn keyword(text: &str) -> Cow<'_, str> {
    let fits = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    if !text.is_empty() && text.len() <= VALUE_MAX && text.chars().all(|c| fits(&c)) {
        return text.into();
    }
    let clean: String = text.chars().filter(fits).take(VALUE_MAX).collect();
    if clean.is_empty() { "unknown".into() } else { clean.into() }
}

/// A token as it is, all else quoted.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.len() <= VALUE_MAX && is_token(text) {
        return text.into();
    }
    let clean: String = text.chars().filter(|c| !c.is_control()).take(VALUE_MAX).collect();
    if is_token(&clean) {
        return clean.into();
    }
    let mut out = String::with_capacity(clean.len() + 2);
    out.push('"');
    for c in clean.chars() {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out.into()
}

/// `local@domain` and `@domain` may stand bare (RFC 8601 2.2, pvalue).
fn address_or_quoted(text: &str) -> Cow<'_, str> {
    let bare = text
        .rsplit_once('@')
        .is_some_and(|(local, domain)| (local.is_empty() || is_token(local)) && is_token(domain));
    if bare && text.len() <= VALUE_MAX { text.into() } else { quoted(text) }
}

/// A token of RFC 2045: visible ASCII but the specials, and at least one.
fn is_token(text: &str) -> bool {
    let special = |octet| {
        matches!(
            octet,
            b'(' | b')'
                | b'<'
                | b'>'
                | b'@'
                | b','
                | b';'
                | b':'
                | b'\\'
                | b'"'
                | b'/'
                | b'['
                | b']'
                | b'?'
                | b'='
        )
    };
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic() && !special(octet))
}

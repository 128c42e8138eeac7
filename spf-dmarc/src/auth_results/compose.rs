//! Writing the field.
//!
//! Invariant: only keywords stand bare; every other text is a token or a quoted-string of at most [`VALUE_MAX`]
//! characters, without controls. So the value parses back, and no line outgrows RFC 5322.
//!
//! Standards: RFC 8601 2.2, RFC 2045 5.1 (tokens), RFC 5322 2.1.1.

use postwright_core::HeaderField;

use super::{AuthResults, MethodResult, NAME};

/// Longest text that is taken from a stranger, in characters.
const VALUE_MAX: usize = 200;
/// Where lines are folded, in characters, if they can be.
const FOLD_AT: usize = 78;

pub(super) fn value(results: &AuthResults) -> String {
    let mut out = quoted(&results.authserv_id);
    if results.version != 1 {
        out.push_str(&format!(" {}", results.version));
    }
    if results.results.is_empty() {
        out.push_str("; none");
    }
    for result in &results.results {
        out.push_str(";\r\n\t");
        let mut line = 8;
        for (i, word) in words(result).into_iter().enumerate() {
            let len = word.chars().count();
            if i > 0 && line + 1 + len > FOLD_AT {
                out.push_str("\r\n\t ");
                line = 9;
            } else if i > 0 {
                out.push(' ');
                line += 1;
            }
            out.push_str(&word);
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

fn words(result: &MethodResult) -> Vec<String> {
    let version = if result.version == 1 { String::new() } else { format!("/{}", result.version) };
    let mut words = vec![format!("{}{version}={}", keyword(&result.method), keyword(&result.result))];
    if let Some(reason) = &result.reason {
        words.push(format!("reason={}", quoted(reason)));
    }
    for property in &result.properties {
        let (ptype, name) = (keyword(&property.ptype), keyword(&property.name));
        words.push(format!("{ptype}.{name}={}", address_or_quoted(&property.value)));
    }
    words
}

/// Letters, digits, hyphens (RFC 5321 Keyword), and the underscore that some results have.
fn keyword(text: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    let clean: String = text.chars().filter(fits).take(VALUE_MAX).collect();
    if clean.is_empty() { "unknown".to_owned() } else { clean }
}

/// A token as it is, all else quoted.
fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).take(VALUE_MAX).collect();
    if !clean.is_empty() && clean.chars().all(is_token) {
        return clean;
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
    out
}

/// `local@domain` and `@domain` may stand bare (RFC 8601 2.2, pvalue).
fn address_or_quoted(text: &str) -> String {
    let bare = text.rsplit_once('@').is_some_and(|(local, domain)| {
        let token = |part: &str| part.chars().all(|c| is_token(c) && c.is_ascii());
        token(local) && !domain.is_empty() && token(domain)
    });
    if bare && text.len() <= VALUE_MAX { text.to_owned() } else { quoted(text) }
}

/// A token of RFC 2045: visible ASCII but the specials.
fn is_token(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

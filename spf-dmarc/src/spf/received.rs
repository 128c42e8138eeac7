//! `Received-SPF`: the verdict as a header field.
//!
//! Invariant: whatever a client sent as its identities, the field is one field and its pairs parse.
//!
//! Standards: RFC 7208 section 9.1.

use postwright_core::HeaderField;

use super::{Identity, SpfQuery, SpfResult, Verdict};

/// Longest text that is taken from a client, in characters.
const VALUE_MAX: usize = 200;

impl SpfResult {
    /// The field for the query that led to this result, to be put on top of the message.
    ///
    /// Prefer `Authentication-Results`, which carries the other checks as well (RFC 7208 9.2).
    pub fn received_spf(&self, query: &SpfQuery<'_>) -> HeaderField {
        let receiver = query.receiver.unwrap_or("unknown");
        let identity = match self.identity {
            Identity::Helo => query.helo,
            Identity::MailFrom => query.mail_from,
        };
        let meaning = match self.verdict {
            Verdict::None => "is not checked: there is no SPF record",
            Verdict::Neutral => "neither permits nor denies",
            Verdict::Pass => "permits",
            Verdict::Fail => "denies",
            Verdict::SoftFail => "probably denies",
            Verdict::TempError => "cannot be looked up at present for",
            Verdict::PermError => "publishes a wrong record, found for",
        };
        let mut value = format!(
            "{}\r\n\t({}: {} {meaning} {})",
            self.verdict,
            comment(receiver),
            comment(identity),
            query.ip
        );
        let mut pairs = vec![("receiver", receiver.to_owned()), ("identity", self.identity.to_string())];
        pairs.push(("client-ip", query.ip.to_string()));
        if !query.mail_from.is_empty() {
            pairs.push(("envelope-from", query.mail_from.to_owned()));
        }
        pairs.push(("helo", query.helo.to_owned()));
        pairs.extend(self.matched.iter().map(|term| ("mechanism", term.clone())));
        pairs.extend(self.problem.iter().map(|problem| ("problem", problem.to_string())));
        for (i, (key, text)) in pairs.iter().enumerate() {
            let separator = if i == 0 { "" } else { ";" };
            value.push_str(&format!("{separator}\r\n\t{key}={}", quoted(text)));
        }
        // No part holds controls or an empty line, so this cannot fail.
        HeaderField::new("Received-SPF", &value).unwrap_or_else(|_| bare(self.verdict))
    }
}

fn bare(verdict: Verdict) -> HeaderField {
    #[expect(clippy::expect_used, reason = "one of seven constants")]
    HeaderField::new("Received-SPF", &verdict.to_string()).expect("a verdict is a valid value")
}

/// A text inside of a comment: without parentheses and backslashes it cannot end it.
fn comment(text: &str) -> String {
    let clean = text.chars().filter(|c| !c.is_control()).take(VALUE_MAX);
    clean.map(|c| if "()\\".contains(c) { '_' } else { c }).collect()
}

/// A dot-atom as it is, all else quoted.
fn quoted(text: &str) -> String {
    let atext = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    if text.len() <= VALUE_MAX && text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atext)) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()).take(VALUE_MAX) {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

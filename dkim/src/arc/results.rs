//! The text of authentication results, as far as ARC has to read it: the statements between semicolons, and the
//! instance number in front of them.
//!
//! Invariant: a semicolon in a quoted string or a comment ends nothing.
//!
//! Standards: RFC 8601 2.2, RFC 8617 3.9 and 4.1.1, RFC 5322 3.2.2 (comments).
//!
//! Not here: what the statements say (the crate spf-dmarc).

use postwright_core::Message;

use super::seal_field;
use crate::header_reader::HeaderReader;
use crate::limits::Limits;
use crate::section::Section;
use crate::tag;

/// Walks through a text and knows what is quoted or commented.
#[derive(Default)]
struct Walk {
    /// How many comments are open.
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Walk {
    /// Whether the next character stands outside all quoted strings and comments; their own marks do not.
    fn is_outside(&mut self, c: char) -> bool {
        let inside = self.quoted || self.depth > 0;
        if std::mem::take(&mut self.escaped) {
            return false;
        }
        match c {
            '\\' if inside => self.escaped = true,
            '"' if self.depth == 0 => self.quoted = !self.quoted,
            '(' if !self.quoted => self.depth += 1,
            ')' if self.depth > 0 => self.depth -= 1,
            _ => return !inside,
        }
        false
    }
}

/// The texts between semicolons, without blanks around them; empty ones are left out.
pub(super) fn statements(text: &str) -> impl Iterator<Item = &str> {
    let mut walk = Walk::default();
    text.split(move |c| walk.is_outside(c) && c == ';').map(str::trim).filter(|one| !one.is_empty())
}

/// Whether a statement is a result of the method `arc` (RFC 8601 2.2: its name, perhaps a version, and `=`).
pub(super) fn is_arc(statement: &str) -> bool {
    let method = statement.split(['=', '/']).next().unwrap_or_default();
    method.trim().eq_ignore_ascii_case("arc")
}

/// The instance number of an ARC-Authentication-Results, which must be the first thing in it (RFC 8617 4.1.1); there
/// may be comments around it.
pub(super) fn instance(value: &[u8]) -> Option<u32> {
    let mut walk = Walk::default();
    let mut first = String::new();
    for c in std::str::from_utf8(value).ok()?.chars() {
        let outside = walk.is_outside(c);
        if walk.quoted {
            return None;
        }
        if outside && c == ';' {
            let (name, number) = first.split_once('=')?;
            return seal_field::number(tag::trim(number)).filter(|_| tag::trim(name) == "i");
        }
        // A comment parts what stands around it, as a blank does.
        first.push(if outside { c } else { ' ' });
    }
    None
}

/// Joins what the Authentication-Results fields of `authserv_id` say, from the top down; the fields of others are
/// not ours to repeat (RFC 8617 4.1.1). The text is what [`Sealer::seal`](super::Sealer::seal) takes.
pub fn authentication_results(message: &Message, authserv_id: &str) -> String {
    let mut reader = HeaderReader::new(Limits::default().header_octets);
    let mut header = None;
    for chunk in message.chunks() {
        header = reader.feed(chunk).map(|(header, _)| header);
        if header.is_some() {
            break;
        }
    }
    let header = header.unwrap_or_else(|| reader.finish().unwrap_or_else(|part| part));
    let section = Section::new(header);
    let mut joined: Vec<String> = Vec::new();
    for field in section.all(b"authentication-results") {
        let value = String::from_utf8_lossy(section.value(field)).replace("\r\n", "");
        let mut parts = statements(&value);
        // A version may follow the name (RFC 8601 2.2).
        let id = parts.next().and_then(|id| id.split_whitespace().next()).unwrap_or_default();
        if id.eq_ignore_ascii_case(authserv_id) {
            joined.extend(parts.map(str::to_owned));
        }
    }
    joined.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_stand_first() {
        assert_eq!(instance(b" i=2; example.org; spf=pass"), Some(2));
        for bad in
            ["example.org; i=2;", "i=2 example.org; spf=pass", "i=2", "", "I=2;", "i=1(c)2;", "\"i\"=1;"]
        {
            assert_eq!(instance(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn statements_end_at_semicolons_that_nothing_encloses() {
        let all: Vec<&str> = statements("a=1;; b=\"x;\\\";y\" ;(c;(\u{2014}\\));) d=2)").collect();
        assert_eq!(all, ["a=1", "b=\"x;\\\";y\"", "(c;(\u{2014}\\));) d=2)"]);
        assert!(is_arc("ARC =none") && is_arc("arc/1=pass") && !is_arc("arcane=x") && !is_arc("x=\"arc=\""));
    }
}

//! Reading the field.
//!
//! Invariant: every octet is looked at a bounded number of times; nesting of comments and the number of results are
//! limited.
//!
//! Standards: RFC 8601 2.2; RFC 5322 3.2.2 (comments); RFC 7601 2.2 (the older form has the same grammar).

use super::{AuthResults, MethodResult, Property};

/// Most results of one field.
const RESULTS_MAX: usize = 100;
/// Most properties of one result.
const PROPERTIES_MAX: usize = 100;

/// What is wrong with a value, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at octet {at} of the Authentication-Results value: expected {expected} (RFC 8601 2.2)")]
pub struct ParseError {
    /// The octet, from 0.
    pub at: usize,
    /// What should stand there.
    pub expected: &'static str,
}

struct Cursor<'v> {
    text: &'v str,
    at: usize,
}

pub(super) fn parse(value: &str) -> Result<AuthResults, ParseError> {
    let mut cursor = Cursor { text: value, at: 0 };
    let mut all = AuthResults::new(cursor.value("an authserv-id", VALUE)?);
    cursor.skip_cfws();
    if cursor.peek().is_some_and(|c| c.is_ascii_digit()) {
        all.version = cursor.number()?;
    }
    while cursor.take_semicolon()? {
        // A semicolon at the end is common.
        if cursor.at_end() {
            break;
        }
        let Some(result) = cursor.result()? else { continue };
        if all.results.len() >= RESULTS_MAX {
            return Err(cursor.error("fewer results"));
        }
        all.results.push(result);
    }
    Ok(all)
}

/// The authserv-id alone: the rest of the field need not be readable.
pub(super) fn authserv_id(value: &str) -> Option<String> {
    let mut cursor = Cursor { text: value, at: 0 };
    let name = cursor.value("an authserv-id", VALUE).ok()?;
    cursor.skip_cfws();
    let ends = cursor.peek().is_none_or(|c| c == ';' || c.is_ascii_digit());
    ends.then_some(name)
}

/// What ends a bare value: white space, comments, and the field's own separators.
const VALUE: &str = "();,\"";
/// What ends a method's, a result's or a property's name.
const KEYWORD: &str = "();,\"=/.";

impl Cursor<'_> {
    fn error(&self, expected: &'static str) -> ParseError {
        ParseError { at: self.at, expected }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn bump(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn take(&mut self, c: char) -> bool {
        self.skip_cfws();
        let there = self.peek() == Some(c);
        if there {
            self.bump(c);
        }
        there
    }

    fn at_end(&mut self) -> bool {
        self.skip_cfws();
        self.peek().is_none()
    }

    fn take_semicolon(&mut self) -> Result<bool, ParseError> {
        if self.take(';') {
            return Ok(true);
        }
        if self.at_end() { Ok(false) } else { Err(self.error("a semicolon")) }
    }

    /// White space and comments. A comment that never ends swallows the rest.
    fn skip_cfws(&mut self) {
        let (mut depth, mut escaped) = (0_usize, false);
        while let Some(c) = self.peek() {
            match c {
                _ if escaped => escaped = false,
                '\\' if depth > 0 => escaped = true,
                '(' => depth = depth.saturating_add(1),
                ')' if depth > 0 => depth -= 1,
                _ if depth > 0 || c.is_ascii_whitespace() => {}
                _ => return,
            }
            self.bump(c);
        }
    }

    /// A quoted-string, or everything up to white space and the characters of `stop`.
    fn value(&mut self, expected: &'static str, stop: &str) -> Result<String, ParseError> {
        self.skip_cfws();
        let mut out = String::new();
        if self.peek() == Some('"') {
            self.quoted(&mut out)?;
            // "local part"@domain
            if self.peek() == Some('@') && stop == VALUE {
                let local = format!("\"{}\"", out.replace('\\', "\\\\").replace('"', "\\\""));
                self.bare(stop, &mut out);
                let domain: String = out.chars().skip_while(|c| *c != '@').collect();
                return Ok(local + &domain);
            }
            return Ok(out);
        }
        self.bare(stop, &mut out);
        if out.is_empty() { Err(self.error(expected)) } else { Ok(out) }
    }

    fn bare(&mut self, stop: &str, out: &mut String) {
        while let Some(c) = self.peek().filter(|c| !c.is_ascii_whitespace() && !stop.contains(*c)) {
            out.push(c);
            self.bump(c);
        }
    }

    fn quoted(&mut self, out: &mut String) -> Result<(), ParseError> {
        self.bump('"');
        let mut escaped = false;
        while let Some(c) = self.peek() {
            self.bump(c);
            match c {
                _ if escaped => {
                    out.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => return Ok(()),
                // Folding inside of quotes is white space only.
                '\r' | '\n' => {}
                _ => out.push(c),
            }
        }
        Err(self.error("a closing quote"))
    }

    fn number(&mut self) -> Result<u32, ParseError> {
        let digits = self.value("a version", KEYWORD)?;
        digits.parse().map_err(|_| self.error("a version"))
    }

    /// One `resinfo`; `None` for `none`.
    fn result(&mut self) -> Result<Option<MethodResult>, ParseError> {
        let method = self.value("a method", KEYWORD)?;
        let version = if self.take('/') { self.number()? } else { 1 };
        if !self.take('=') {
            let none = method.eq_ignore_ascii_case("none") && version == 1;
            return if none { Ok(None) } else { Err(self.error("=")) };
        }
        let mut result = MethodResult::new(method, self.value("a result", KEYWORD)?);
        result.version = version;
        while !self.at_end() && self.peek() != Some(';') {
            // Some writers put commas between properties.
            if self.take(',') {
                continue;
            }
            self.property(&mut result)?;
        }
        Ok(Some(result))
    }

    /// A `reasonspec` or a `propspec`.
    fn property(&mut self, result: &mut MethodResult) -> Result<(), ParseError> {
        let first = self.value("a property", KEYWORD)?;
        if self.take('.') {
            let name = self.value("a property", KEYWORD)?;
            if !self.take('=') {
                return Err(self.error("="));
            }
            if result.properties.len() >= PROPERTIES_MAX {
                return Err(self.error("fewer properties"));
            }
            let value = self.value("a value", VALUE)?;
            result.properties.push(Property { ptype: first.into(), name: name.into(), value });
            return Ok(());
        }
        if !self.take('=') {
            return Err(self.error(". or ="));
        }
        let value = self.value("a value", VALUE)?;
        if first.eq_ignore_ascii_case("reason") {
            result.reason = Some(value);
        }
        // Other bare words (as "action=none") are of no standard and are dropped.
        Ok(())
    }
}

//! A small reader of mails: header fields and the tree of MIME parts, as far as bounces need it.
//!
//! Invariant: no input makes it recurse, and it looks at no more octets, fields, parts and levels than [`Limits`] says. Each
//! octet is looked at once a level.
//!
//! Standards: RFC 5322 2.2 and 3.6.4; RFC 2045, 2046, 2047 (Q and B words of UTF-8 and Latin-1). Line ends may be LF.
//!
//! Not here: writing mails; charsets other than UTF-8, ASCII and Latin-1, which are read octet by octet.

mod decode;

pub(crate) use decode::{strip_tags, to_text, unfold_words};

use crate::Limits;

/// A header section: names in lower case, values unfolded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads fields up to an empty line; gives them and what follows it.
    pub(crate) fn read<'a>(octets: &'a [u8], limits: &Limits) -> (Fields, &'a [u8]) {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut rest = octets;
        let mut seen = 0;
        while !rest.is_empty() {
            let (line, behind) = split_line(rest);
            if line.is_empty() {
                return (Fields(fields), behind);
            }
            rest = behind;
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                if let Some((_, value)) =
                    fields.last_mut().filter(|(_, value)| value.len() < limits.field && seen <= limits.fields)
                {
                    value.push(' ');
                    value.push_str(&lossy(line, limits.field));
                }
                continue;
            }
            seen += 1;
            if seen > limits.fields {
                continue;
            }
            match line.iter().position(|octet| *octet == b':') {
                Some(colon)
                    if colon > 0
                        && line
                            .iter()
                            .take(colon)
                            .all(|octet| (0x21..=0x7e).contains(octet) || *octet == b' ') =>
                {
                    let (name, value) = line.split_at(colon);
                    let name = lossy(name, 200).trim_end().to_ascii_lowercase();
                    fields.push((
                        name,
                        lossy(value.get(1..).unwrap_or_default(), limits.field).trim().to_owned(),
                    ));
                }
                // mbox's separator, or a line that is no field: passed over, as sendmail does.
                _ if fields.is_empty() || line.starts_with(b">From ") => {}
                _ => {}
            }
        }
        (Fields(fields), rest)
    }

    /// The first field of that name (lower case).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// All fields of that name.
    pub(crate) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn lossy(octets: &[u8], most: usize) -> String {
    let octets = octets.get(..most).unwrap_or(octets);
    match std::str::from_utf8(octets) {
        Ok(text) => text.trim_end_matches('\r').to_owned(),
        Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
    }
}

/// The first line without its end (CRLF or LF), and the rest.
pub(crate) fn split_line(octets: &[u8]) -> (&[u8], &[u8]) {
    match octets.iter().position(|octet| *octet == b'\n') {
        Some(at) => {
            let (line, rest) = octets.split_at(at);
            (line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..).unwrap_or_default())
        }
        None => (octets.strip_suffix(b"\r").unwrap_or(octets), &[]),
    }
}

/// A structured value such as that of Content-Type: the main word in lower case, and its parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Structured {
    pub(crate) main: String,
    params: Vec<(String, String)>,
}

impl Structured {
    pub(crate) fn parse(value: &str) -> Structured {
        let mut pieces = split_semicolons(value).into_iter();
        // `text/plain charset=x`, without its semicolon, is text/plain all the same.
        let main = pieces
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .next()
            .unwrap_or("")
            .to_ascii_lowercase();
        let params = pieces.take(20).filter_map(|piece| {
            let (name, value) = piece.split_once('=')?;
            let value = value.trim();
            let value = match value.strip_prefix('"') {
                Some(rest) => rest.split('"').next().unwrap_or("").to_owned(),
                None => value.split_ascii_whitespace().next().unwrap_or("").to_owned(),
            };
            Some((name.trim().to_ascii_lowercase(), value))
        });
        Structured { main, params: params.collect() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn split_semicolons(value: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, c) in value.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ';' if !quoted => {
                pieces.push(value.get(start..at).unwrap_or(""));
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(value.get(start..).unwrap_or(""));
    pieces
}

/// A part that is not a multipart; a `message/rfc822` is given as a part of its own, and then what it holds.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) fields: Fields,
    pub(crate) kind: Structured,
    pub(crate) body: &'a [u8],
    /// Whether it lies within a `message/rfc822`: then it belongs to a returned message.
    pub(crate) enclosed: bool,
}

impl Part<'_> {
    /// The body without its transfer encoding, as text.
    pub(crate) fn text(&self, limits: &Limits) -> String {
        to_text(
            self.body,
            self.fields.get("content-transfer-encoding"),
            self.kind.get("charset"),
            limits.text,
        )
    }
}

/// A mail taken apart.
#[derive(Debug)]
pub(crate) struct Mail<'a> {
    /// Its header section.
    pub(crate) fields: Fields,
    /// Its parts in order.
    pub(crate) parts: Vec<Part<'a>>,
}

impl<'a> Mail<'a> {
    pub(crate) fn read(octets: &'a [u8], limits: &Limits) -> Mail<'a> {
        let octets = octets.get(..limits.mail).unwrap_or(octets);
        let (fields, body) = Fields::read(octets, limits);
        let mut parts = Vec::new();
        // Entities still to be opened, the next one last. Depth bounds how often an octet is scanned.
        let mut open = vec![(fields.clone(), body, 0_usize, false)];
        let mut seen = 0;
        while let Some((fields, body, depth, enclosed)) = open.pop() {
            seen += 1;
            if seen > limits.parts {
                break;
            }
            let kind = Structured::parse(fields.get("content-type").unwrap_or("text/plain"));
            let boundary = kind.get("boundary").filter(|boundary| !boundary.is_empty());
            match boundary {
                Some(boundary) if kind.main.starts_with("multipart/") && depth < limits.depth => {
                    let room = limits.parts.saturating_sub(open.len() + seen);
                    let pieces = split_parts(body, boundary.as_bytes(), room);
                    if pieces.is_empty() {
                        parts.push(Part { fields, kind: Structured::parse("text/plain"), body, enclosed });
                        continue;
                    }
                    for piece in pieces.into_iter().rev() {
                        let (fields, body) = Fields::read(piece, limits);
                        open.push((fields, body, depth + 1, enclosed));
                    }
                }
                _ => {
                    let is_message = matches!(kind.main.as_str(), "message/rfc822" | "message/global");
                    // A multipart that lost its boundary is still something to read.
                    let kind = if kind.main.starts_with("multipart/") && depth < limits.depth {
                        Structured::parse("text/plain")
                    } else {
                        kind
                    };
                    parts.push(Part { fields, kind, body, enclosed });
                    if is_message && depth < limits.depth {
                        let (fields, body) = Fields::read(body, limits);
                        open.push((fields, body, depth + 1, true));
                    }
                }
            }
        }
        Mail { fields, parts }
    }

    /// The first part of one of these types, outside returned messages.
    pub(crate) fn part(&self, kinds: &[&str]) -> Option<&Part<'a>> {
        self.parts.iter().find(|part| !part.enclosed && kinds.contains(&part.kind.main.as_str()))
    }

    /// The first part of one of these types at any depth: for a notification that somebody passed on as an attachment.
    pub(crate) fn part_anywhere(&self, kinds: &[&str]) -> Option<&Part<'a>> {
        self.parts.iter().find(|part| kinds.contains(&part.kind.main.as_str()))
    }
}

/// The pieces between the delimiter lines of `boundary` (RFC 2046 5.1.1), at most `most`; the end of the mail closes the last.
fn split_parts<'a>(body: &'a [u8], boundary: &[u8], most: usize) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut start = None;
    let mut at = 0;
    while at < body.len() && pieces.len() < most {
        let rest = body.get(at..).unwrap_or_default();
        let (line, behind) = split_line(rest);
        if let Some(tail) = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)) {
            let closing = tail.starts_with(b"--");
            if closing || tail.iter().all(u8::is_ascii_whitespace) {
                if let Some(start) = start.take() {
                    pieces.push(body.get(start..at).unwrap_or_default());
                }
                if closing {
                    return pieces;
                }
                start = Some(body.len() - behind.len());
            }
        }
        at = body.len() - behind.len();
    }
    if let Some(start) = start.filter(|_| pieces.len() < most) {
        pieces.push(body.get(start..).unwrap_or_default());
    }
    pieces
}

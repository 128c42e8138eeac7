//! The canonicalisations written down as slowly and plainly as RFC 6376 3.4 says them: what the fast ones are
//! compared with.

#![allow(dead_code, reason = "each test file uses some of it")]

/// The text between line ends.
pub(crate) fn lines(body: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < body.len() {
        if body[at..].starts_with(b"\r\n") {
            lines.push(&body[start..at]);
            at += 2;
            start = at;
        } else {
            at += 1;
        }
    }
    // What has no line end is a line as well.
    if start < body.len() {
        lines.push(&body[start..]);
    }
    lines
}

fn reduce(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for octet in text {
        match octet {
            b' ' | b'\t' if out.last() == Some(&b' ') => {}
            b' ' | b'\t' => out.push(b' '),
            other => out.push(*other),
        }
    }
    out
}

fn join(mut lines: Vec<Vec<u8>>) -> Vec<u8> {
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect()
}

/// RFC 6376 3.4.3.
pub(crate) fn simple_body(body: &[u8]) -> Vec<u8> {
    let joined = join(lines(body).into_iter().map(<[u8]>::to_vec).collect());
    if joined.is_empty() { b"\r\n".to_vec() } else { joined }
}

/// RFC 6376 3.4.4.
pub(crate) fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let one = |line: &[u8]| {
        let mut line = reduce(line);
        if line.last() == Some(&b' ') {
            line.pop();
        }
        line
    };
    join(lines(body).into_iter().map(one).collect())
}

/// RFC 6376 3.4.2, for a field without its final CRLF.
pub(crate) fn relaxed_field(field: &[u8]) -> Vec<u8> {
    let colon = field.iter().position(|octet| *octet == b':').unwrap();
    let mut value = Vec::new();
    let mut at = colon + 1;
    while at < field.len() {
        if field[at..].starts_with(b"\r\n") {
            at += 2;
        } else {
            value.push(field[at]);
            at += 1;
        }
    }
    let value = reduce(&value);
    let value = value.strip_prefix(b" ").unwrap_or(&value);
    let value = value.strip_suffix(b" ").unwrap_or(value);
    let mut name = field[..colon].to_ascii_lowercase();
    while matches!(name.last(), Some(b' ' | b'\t')) {
        name.pop();
    }
    [&name, &b":"[..], value].concat()
}

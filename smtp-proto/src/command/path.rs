//! Reverse-paths and forward-paths: what stands in angle brackets behind MAIL FROM and RCPT TO.
//!
//! Invariant: `<>`, `<Postmaster>` and a mailbox are three different things; quoting decides where a path ends.
//!
//! Standards: RFC 5321 4.1.1.2, 4.1.1.3, 4.1.2 (Path, A-d-l), 4.5.1 (Postmaster), appendix C (source routes).
//!
//! Not here: whether an address is local or wanted (the embedder).

use postwright_core::{AddressError, Host, Mailbox, ReversePath};

/// The forward-path of RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain, in any case.
    Postmaster,
    /// A mailbox.
    Mailbox(Mailbox),
}

/// Why a path is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No `<`, no `>`, or text right behind the `>`.
    #[error("an address stands in angle brackets")]
    Brackets,
    /// `<>` where a recipient must be.
    #[error("a recipient cannot be empty")]
    Empty,
    /// The source route is not `@domain,@domain:`.
    #[error("the source route is malformed")]
    Route,
    /// The mailbox is not one.
    #[error("{0}")]
    Address(#[from] AddressError),
}

/// Splits `<path> parameters` into the inside of the brackets and the parameters.
pub(super) fn split(text: &str) -> Result<(&str, &str), PathError> {
    let inner = text.strip_prefix('<').ok_or(PathError::Brackets)?;
    let end = closing_bracket(inner.as_bytes()).ok_or(PathError::Brackets)?;
    let (path, rest) = inner.split_at(end);
    match rest.get(1..) {
        Some("") => Ok((path, "")),
        Some(parameters) if parameters.starts_with(' ') => Ok((path, parameters)),
        _ => Err(PathError::Brackets),
    }
}

/// The index of the first `>` outside a quoted string. A quote only opens where a local part begins, so that
/// `<a"b@c>` ends where it seems to.
fn closing_bracket(inner: &[u8]) -> Option<usize> {
    let plain_end = memchr::memchr2(b'>', b'"', inner)?;
    if inner.get(plain_end) == Some(&b'>') {
        return Some(plain_end);
    }
    let mut quoted = false;
    let mut escaped = false;
    for (i, b) in inner.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(i),
            _ => {}
        }
    }
    None
}

pub(super) fn reverse(path: &str) -> Result<ReversePath, PathError> {
    if path.is_empty() {
        return Ok(ReversePath::Null);
    }
    Ok(ReversePath::Mailbox(drop_route(path)?.parse()?))
}

pub(super) fn forward(path: &str) -> Result<ForwardPath, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster);
    }
    Ok(ForwardPath::Mailbox(drop_route(path)?.parse()?))
}

/// RFC 5321 appendix C: a source route is to be accepted, checked for its form, and ignored.
fn drop_route(path: &str) -> Result<&str, PathError> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let (route, mailbox) = split_route(path).ok_or(PathError::Route)?;
    for hop in route.split(',') {
        let host = hop.strip_prefix('@').ok_or(PathError::Route)?;
        host.parse::<Host>().map_err(|error| match error {
            AddressError::NotAscii => PathError::Address(error),
            _ => PathError::Route,
        })?;
    }
    Ok(mailbox)
}

/// The `:` that ends the route is the first one outside the brackets of an address literal (`@[IPv6:...]:`).
fn split_route(path: &str) -> Option<(&str, &str)> {
    let mut in_literal = false;
    for (i, b) in path.bytes().enumerate() {
        match b {
            b'[' => in_literal = true,
            b']' => in_literal = false,
            b':' if !in_literal => return path.get(i + 1..).map(|mailbox| (&path[..i], mailbox)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_decides_where_the_path_ends() {
        assert_eq!(split("<\"a> b\"@c.example> X=1"), Ok(("\"a> b\"@c.example", " X=1")));
        assert_eq!(split("<\"a\\\">\"@c.example>"), Ok(("\"a\\\">\"@c.example", "")));
        for bad in ["a@b", "<a@b", "<a@b>x", "<\"a@b>", ""] {
            assert_eq!(split(bad), Err(PathError::Brackets), "{bad}");
        }
    }

    #[test]
    fn empty_postmaster_and_mailbox_are_three_things() {
        assert_eq!(reverse(""), Ok(ReversePath::Null));
        assert_eq!(forward(""), Err(PathError::Empty));
        assert_eq!(forward("POSTmaster"), Ok(ForwardPath::Postmaster));
        assert!(matches!(forward("postmaster@example.org"), Ok(ForwardPath::Mailbox(_))));
        assert_eq!(reverse("Postmaster"), Err(PathError::Address(AddressError::NoDomain)));
    }

    #[test]
    fn source_routes_are_checked_and_dropped() {
        let kept = |path: &str| reverse(path).map(|path| path.to_string());
        assert_eq!(kept("@a.example,@b.example:joe@c.example").unwrap(), "<joe@c.example>");
        assert_eq!(kept("@[IPv6:2001:db8::1]:\"x:y\"@c.example").unwrap(), "<\"x:y\"@c.example>");
        for bad in
            ["@a.example", "@a.example,b.example:j@c.example", "@:j@c.example", "@-:j@c.example", "@a..b:j@c"]
        {
            assert_eq!(kept(bad), Err(PathError::Route), "{bad}");
        }
    }
}

//! One term of an SPF record: a directive or a modifier, and how it is read.
//!
//! Invariant: what was read is right as RFC 7208 12 has it, its macros included; nothing is copied.
//!
//! Standards: RFC 7208 sections 4.6.1, 5, 6 and 12 (the collected grammar).
//!
//! Not here: the record as a whole (record.rs), networks (network.rs), the macro language (macros.rs).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::macros::{self, MacroError, Place};
use super::network::{DualCidr, prefix, read_ip4, read_ip6, same_v4, same_v6};

/// What a matching mechanism says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qualifier {
    /// `+`, the default.
    Pass,
    /// `-`.
    Fail,
    /// `~`.
    SoftFail,
    /// `?`.
    Neutral,
}

/// One term of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term<'r> {
    /// The term as written.
    pub text: &'r str,
    /// What it is.
    pub kind: TermKind<'r>,
}

/// What a term is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermKind<'r> {
    /// A mechanism with its qualifier.
    Directive(Qualifier, Mechanism<&'r str>),
    /// `redirect=domain-spec`.
    Redirect(&'r str),
    /// `exp=domain-spec`.
    Explanation(&'r str),
    /// Any other modifier: ignored (RFC 7208 6).
    UnknownModifier,
}

/// A mechanism, with domain-specs as `S`: in a [`Term`] the macro strings as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism<S> {
    /// Matches always.
    All,
    /// Matches if the other record says pass.
    Include(S),
    /// Matches if an address of the name is the client's.
    A(Option<S>, DualCidr),
    /// Matches if an address of a mail exchange is the client's.
    Mx(Option<S>, DualCidr),
    /// Matches if the validated name of the client lies within the domain; not to be used (RFC 7208 5.5).
    Ptr(Option<S>),
    /// An IPv4 network.
    Ip4(Ipv4Addr, u8),
    /// An IPv6 network.
    Ip6(Ipv6Addr, u8),
    /// Matches if the name has any IPv4 address.
    Exists(S),
}

impl<S> Mechanism<S> {
    pub(super) fn map<T>(self, spec: impl FnOnce(S) -> T) -> Mechanism<T> {
        match self {
            Mechanism::All => Mechanism::All,
            Mechanism::Include(s) => Mechanism::Include(spec(s)),
            Mechanism::A(s, cidr) => Mechanism::A(s.map(spec), cidr),
            Mechanism::Mx(s, cidr) => Mechanism::Mx(s.map(spec), cidr),
            Mechanism::Ptr(s) => Mechanism::Ptr(s.map(spec)),
            Mechanism::Ip4(net, bits) => Mechanism::Ip4(net, bits),
            Mechanism::Ip6(net, bits) => Mechanism::Ip6(net, bits),
            Mechanism::Exists(s) => Mechanism::Exists(spec(s)),
        }
    }

    pub(super) fn spec(&self) -> Option<&S> {
        match self {
            Mechanism::Include(spec) | Mechanism::Exists(spec) => Some(spec),
            Mechanism::A(spec, _) | Mechanism::Mx(spec, _) | Mechanism::Ptr(spec) => spec.as_ref(),
            Mechanism::All | Mechanism::Ip4(..) | Mechanism::Ip6(..) => None,
        }
    }

    /// Whether `all` or a network holds the address; `None` for what DNS must tell.
    #[inline]
    pub(super) fn holds(&self, ip: IpAddr) -> Option<bool> {
        match (self, ip) {
            (Mechanism::All, _) => Some(true),
            (Mechanism::Ip4(net, bits), IpAddr::V4(ip)) => Some(same_v4(*net, ip, *bits)),
            (Mechanism::Ip6(net, bits), IpAddr::V6(ip)) => Some(same_v6(*net, ip, *bits)),
            (Mechanism::Ip4(..) | Mechanism::Ip6(..), _) => Some(false),
            _ => None,
        }
    }
}

/// What is wrong with a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermError {
    /// The record does not start with `v=spf1` and a blank.
    #[error("the record does not start with \"v=spf1\" (RFC 7208 4.5)")]
    Version,
    /// An octet outside of printable ASCII: invisible characters come here, too.
    #[error("an SPF record is printable ASCII (RFC 7208 3.1); an invisible character may have slipped in")]
    NotAscii,
    /// No mechanism of that name.
    #[error("no such mechanism (RFC 7208 5)")]
    UnknownMechanism,
    /// The mechanism must not have an argument, or must have one.
    #[error("the mechanism needs a domain, or must not have one (RFC 7208 5)")]
    Argument,
    /// Not an address of the mechanism's family.
    #[error("not an address of the mechanism's family (RFC 7208 5.6)")]
    Address,
    /// A prefix length that is out of range or has leading zeros.
    #[error("a prefix length is 0 to 32 for IPv4 and 0 to 128 for IPv6 (RFC 7208 5.6)")]
    Prefix,
    /// The domain does not end in a top label or a macro.
    #[error("the domain ends neither in a dot and a top label nor in a macro (RFC 7208 7.1)")]
    Domain,
    /// The macro string is wrong.
    #[error("{0}")]
    Macro(MacroError),
    /// `redirect` or `exp` stands twice.
    #[error("the modifier stands twice (RFC 7208 6)")]
    Twice,
    /// A modifier's name is not a letter followed by letters, digits, `-`, `_` and `.`.
    #[error("not a modifier's name (RFC 7208 4.6.1)")]
    ModifierName,
}

impl From<MacroError> for TermError {
    fn from(error: MacroError) -> Self {
        TermError::Macro(error)
    }
}

/// Reads one term: visible ASCII.
pub(super) fn read_term(text: &str) -> Result<TermKind<'_>, TermError> {
    let end = text.bytes().position(|b| matches!(b, b':' | b'/' | b'=')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let Some(value) = rest.strip_prefix('=') {
        return read_modifier(name, value);
    }
    let (qualifier, name) = match name.as_bytes().first() {
        Some(b'+') => (Qualifier::Pass, name.get(1..)),
        Some(b'-') => (Qualifier::Fail, name.get(1..)),
        Some(b'~') => (Qualifier::SoftFail, name.get(1..)),
        Some(b'?') => (Qualifier::Neutral, name.get(1..)),
        _ => (Qualifier::Pass, Some(name)),
    };
    read_mechanism(name.unwrap_or(""), rest).map(|mechanism| TermKind::Directive(qualifier, mechanism))
}

fn read_modifier<'r>(name: &str, value: &'r str) -> Result<TermKind<'r>, TermError> {
    let mut bytes = name.bytes();
    if !bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        || !bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return Err(TermError::ModifierName);
    }
    if name.eq_ignore_ascii_case("redirect") {
        return check_domain(value).map(|()| TermKind::Redirect(value));
    }
    if name.eq_ignore_ascii_case("exp") {
        return check_domain(value).map(|()| TermKind::Explanation(value));
    }
    macros::check(value, Place::Explanation)?;
    Ok(TermKind::UnknownModifier)
}

fn read_mechanism<'r>(name: &str, rest: &'r str) -> Result<Mechanism<&'r str>, TermError> {
    const NAMES: [&str; 8] = ["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"];
    let argument = rest.strip_prefix(':');
    let domain = || {
        let spec = argument.ok_or(TermError::Argument)?;
        check_domain(spec).map(|()| spec)
    };
    // The two that make up most of most records, as they are nearly always written.
    let known = match name {
        "ip4" | "ip6" | "include" | "a" | "mx" => Some(name),
        _ => NAMES.into_iter().find(|known| name.eq_ignore_ascii_case(known)),
    };
    match known {
        Some("all") if rest.is_empty() => Ok(Mechanism::All),
        Some("all") => Err(TermError::Argument),
        Some("include") => domain().map(Mechanism::Include),
        Some("exists") => domain().map(Mechanism::Exists),
        Some("a") => target(rest).map(|(spec, cidr)| Mechanism::A(spec, cidr)),
        Some("mx") => target(rest).map(|(spec, cidr)| Mechanism::Mx(spec, cidr)),
        Some("ptr") if rest.is_empty() => Ok(Mechanism::Ptr(None)),
        Some("ptr") => domain().map(|spec| Mechanism::Ptr(Some(spec))),
        Some("ip4") => {
            let (address, bits) = read_ip4(argument.ok_or(TermError::Argument)?)?;
            Ok(Mechanism::Ip4(address, bits))
        }
        Some("ip6") => {
            let (address, bits) = read_ip6(argument.ok_or(TermError::Argument)?)?;
            Ok(Mechanism::Ip6(address, bits))
        }
        _ => Err(TermError::UnknownMechanism),
    }
}

/// `[ ":" domain-spec ] [ "/" n ] [ "//" n ]`. A slash may also stand in the domain-spec, so the prefix lengths
/// are read from the end.
fn target(rest: &str) -> Result<(Option<&str>, DualCidr), TermError> {
    let mut cidr = DualCidr::FULL;
    let mut head = rest;
    let unnumbered = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if let Some((before, bits)) = head.split_at_checked(unnumbered(head))
        && let Some(before) = before.strip_suffix("//")
    {
        cidr.v6 = prefix(bits.as_bytes(), 128)?;
        head = before;
    }
    if let Some((before, bits)) = head.split_at_checked(unnumbered(head))
        && let Some(before) = before.strip_suffix('/')
    {
        cidr.v4 = prefix(bits.as_bytes(), 32)?;
        head = before;
    }
    match head.strip_prefix(':') {
        None if head.is_empty() => Ok((None, cidr)),
        None => Err(TermError::Argument),
        Some(spec) => check_domain(spec).map(|()| (Some(spec), cidr)),
    }
}

/// `domain-spec = macro-string domain-end`.
fn check_domain(spec: &str) -> Result<(), TermError> {
    if spec.is_empty() {
        return Err(TermError::Argument);
    }
    // A term is visible ASCII, so what has no macro is right.
    if spec.bytes().any(|b| b == b'%') {
        macros::check(spec, Place::Term)?;
        if ends_in_macro(spec) {
            return Ok(());
        }
    }
    let octets = spec.as_bytes();
    let undotted = octets.strip_suffix(b".").unwrap_or(octets);
    let dot = undotted.iter().rposition(|b| *b == b'.').ok_or(TermError::Domain)?;
    let top = undotted.get(dot + 1..).unwrap_or_default();
    if is_top_label(top) { Ok(()) } else { Err(TermError::Domain) }
}

/// Whether a checked macro string ends in a macro-expand, which `%%`, `%_` and `%-` are, too.
fn ends_in_macro(spec: &str) -> bool {
    let mut rest = spec;
    while let Some(at) = rest.find('%') {
        let behind = rest.get(at..).unwrap_or("");
        let len = if behind.starts_with("%{") { behind.find('}').map_or(behind.len(), |i| i + 1) } else { 2 };
        rest = behind.get(len..).unwrap_or("");
        if rest.is_empty() {
            return true;
        }
    }
    false
}

/// `toplabel`: letters, digits and inner hyphens, but not digits alone.
fn is_top_label(label: &[u8]) -> bool {
    let (mut fits, mut digits) = (!matches!(label, [] | [b'-', ..] | [.., b'-']), true);
    for b in label {
        fits &= b.is_ascii_alphanumeric() || *b == b'-';
        digits &= b.is_ascii_digit();
    }
    fits && !digits
}

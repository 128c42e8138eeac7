//! One term of an SPF record: a directive or a modifier, and how it is read.
//!
//! Invariant: what was read is right as RFC 7208 12 has it, its macros included; nothing is copied.
//!
//! Standards: RFC 7208 sections 4.6.1, 5, 6 and 12 (the collected grammar).
//!
//! Not here: the record as a whole (record.rs), the macro language (macros.rs).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::macros::{self, MacroError, Place};

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

/// How many leading bits must agree, for each address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DualCidr {
    /// 0 to 32.
    pub v4: u8,
    /// 0 to 128.
    pub v6: u8,
}

impl DualCidr {
    /// All bits.
    pub const FULL: DualCidr = DualCidr { v4: 32, v6: 128 };

    /// Whether two addresses of one family agree in the leading bits.
    pub fn matches(&self, one: IpAddr, other: IpAddr) -> bool {
        match (one, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same_v4(a, b, self.v4),
            (IpAddr::V6(a), IpAddr::V6(b)) => same_v6(a, b, self.v6),
            _ => false,
        }
    }
}

fn same_v4(a: Ipv4Addr, b: Ipv4Addr, bits: u8) -> bool {
    let differing = u32::from(a) ^ u32::from(b);
    differing.checked_shr(32_u32.saturating_sub(bits.into())).unwrap_or(0) == 0
}

fn same_v6(a: Ipv6Addr, b: Ipv6Addr, bits: u8) -> bool {
    let differing = u128::from(a) ^ u128::from(b);
    differing.checked_shr(128_u32.saturating_sub(bits.into())).unwrap_or(0) == 0
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
    Directive(Qualifier, Mechanism<'r>),
    /// `redirect=domain-spec`.
    Redirect(&'r str),
    /// `exp=domain-spec`.
    Explanation(&'r str),
    /// Any other modifier: ignored (RFC 7208 6).
    UnknownModifier,
}

/// A mechanism. Domains are macro strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism<'r> {
    /// Matches always.
    All,
    /// Matches if the other record says pass.
    Include(&'r str),
    /// Matches if an address of the name is the client's.
    A(Option<&'r str>, DualCidr),
    /// Matches if an address of a mail exchange is the client's.
    Mx(Option<&'r str>, DualCidr),
    /// Matches if the validated name of the client lies within the domain; not to be used (RFC 7208 5.5).
    Ptr(Option<&'r str>),
    /// An IPv4 network.
    Ip4(Ipv4Addr, u8),
    /// An IPv6 network.
    Ip6(Ipv6Addr, u8),
    /// Matches if the name has any IPv4 address.
    Exists(&'r str),
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

/// `ip4:` and `ip6:` as they nearly always are written; they make up most of most records. Everything else, and
/// everything wrong, is for [`read_term`].
pub(super) fn read_network(text: &str) -> Option<TermKind<'static>> {
    let v4 = match text.as_bytes().first_chunk()? {
        b"ip4:" => true,
        b"ip6:" => false,
        _ => return None,
    };
    let (most, argument) = (if v4 { 32 } else { 128 }, text.get(4..)?);
    let (address, bits) = network(argument, most).ok()?;
    let mechanism =
        if v4 { Mechanism::Ip4(ip4(address)?, bits) } else { Mechanism::Ip6(ip6(address)?, bits) };
    Some(TermKind::Directive(Qualifier::Pass, mechanism))
}

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

fn read_mechanism<'r>(name: &str, rest: &'r str) -> Result<Mechanism<'r>, TermError> {
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
            let (address, bits) = network(argument.ok_or(TermError::Argument)?, 32)?;
            Ok(Mechanism::Ip4(ip4(address).ok_or(TermError::Address)?, bits))
        }
        Some("ip6") => {
            let (address, bits) = network(argument.ok_or(TermError::Argument)?, 128)?;
            Ok(Mechanism::Ip6(ip6(address).ok_or(TermError::Address)?, bits))
        }
        _ => Err(TermError::UnknownMechanism),
    }
}

/// Four numbers of at most 255 without leading zeros, as the standard library reads them, in a third of its time.
fn ip4(text: &str) -> Option<Ipv4Addr> {
    let (mut address, mut number, mut digits, mut dots) = (0_u32, 0_u32, 0_u8, 0_u8);
    for b in text.bytes() {
        match b {
            b'0'..=b'9' if digits < 3 && (digits == 0 || number > 0) => {
                number = number * 10 + u32::from(b - b'0');
                digits += 1;
            }
            b'.' if digits > 0 && number < 256 && dots < 3 => {
                (address, number, digits) = (address << 8 | number, 0, 0);
                dots += 1;
            }
            _ => return None,
        }
    }
    (digits > 0 && number < 256 && dots == 3).then(|| (address << 8 | number).into())
}

/// Groups of one to four hexadecimal digits with one gap at most; what ends in an IPv4 address is left to the standard
/// library.
fn ip6(text: &str) -> Option<Ipv6Addr> {
    let (mut head, mut tail) = (0_u128, 0_u128);
    let (mut groups, mut behind_gap, mut gap) = (0_u32, 0_u32, false);
    let mut rest = text.as_bytes();
    if let Some(more) = rest.strip_prefix(b"::") {
        (gap, rest) = (true, more);
    }
    while !rest.is_empty() {
        let (mut group, mut digits) = (0_u128, 0_u32);
        while let Some((b, more)) = rest.split_first()
            && let Some(digit) = char::from(*b).to_digit(16)
        {
            (group, digits, rest) = (group << 4 | u128::from(digit), digits + 1, more);
            if digits > 4 {
                return None;
            }
        }
        if digits == 0 || groups == 8 {
            return None;
        }
        groups += 1;
        let half = if gap { &mut tail } else { &mut head };
        *half = *half << 16 | group;
        behind_gap += u32::from(gap);
        match rest {
            [] => break,
            [b':', b':', more @ ..] if !gap => (gap, rest) = (true, more),
            [b':', more @ ..] if !more.is_empty() => rest = more,
            [b'.', ..] => return text.parse().ok(),
            _ => return None,
        }
    }
    match gap {
        true if groups < 8 => {
            Some((head.checked_shl(16 * (8 - (groups - behind_gap))).unwrap_or(0) | tail).into())
        }
        false if groups == 8 => Some(head.into()),
        _ => None,
    }
}

fn network(text: &str, most: u8) -> Result<(&str, u8), TermError> {
    match text.bytes().position(|b| b == b'/').and_then(|at| text.split_at_checked(at)) {
        None => Ok((text, most)),
        Some((address, bits)) => Ok((address, prefix(bits.get(1..).unwrap_or(""), most)?)),
    }
}

fn prefix(text: &str, most: u8) -> Result<u8, TermError> {
    let digit = |b: u8| b.is_ascii_digit().then(|| u16::from(b - b'0'));
    let bits = match *text.as_bytes() {
        [one] => digit(one),
        [b'0', ..] => None,
        [one, two] => digit(one).zip(digit(two)).map(|(one, two)| one * 10 + two),
        [b'1', two, three] => digit(two).zip(digit(three)).map(|(two, three)| 100 + two * 10 + three),
        _ => None,
    };
    bits.and_then(|bits| u8::try_from(bits).ok()).filter(|bits| *bits <= most).ok_or(TermError::Prefix)
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
        cidr.v6 = prefix(bits, 128)?;
        head = before;
    }
    if let Some((before, bits)) = head.split_at_checked(unnumbered(head))
        && let Some(before) = before.strip_suffix('/')
    {
        cidr.v4 = prefix(bits, 32)?;
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
    macros::check(spec, Place::Term)?;
    if ends_in_macro(spec) {
        return Ok(());
    }
    let undotted = spec.strip_suffix('.').unwrap_or(spec);
    match undotted.rsplit_once('.') {
        Some((_, top)) if is_top_label(top) => Ok(()),
        _ => Err(TermError::Domain),
    }
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
fn is_top_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_agree_in_their_leading_bits() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let cidr = |v4, v6| DualCidr { v4, v6 };
        assert!(cidr(24, 128).matches(ip("192.0.2.1"), ip("192.0.2.255")));
        assert!(!cidr(25, 128).matches(ip("192.0.2.1"), ip("192.0.2.255")));
        assert!(cidr(0, 0).matches(ip("192.0.2.1"), ip("10.0.0.1")));
        assert!(cidr(0, 0).matches(ip("::1"), ip("2001:db8::1")));
        assert!(!cidr(0, 0).matches(ip("::1"), ip("10.0.0.1")));
        assert!(cidr(32, 33).matches(ip("2001:db8:8000::"), ip("2001:db8:ffff::")));
        assert!(!cidr(32, 33).matches(ip("2001:db8:8000::"), ip("2001:db8:7fff::")));
    }

    /// The quick readers beside the standard library's.
    #[test]
    fn numbers_are_read_as_the_standard_library_reads_them() {
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "192.0.2.1",
            "256.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.",
            ".1.2.3",
            "1..2.3",
            "01.2.3.4",
            "1.2.3.00",
            "1.2.3.04",
            "1.2.3.1000",
            "1.2.3.4 ",
            "+1.2.3.4",
            "",
            "a.b.c.d",
            "999.1.1.1",
            "1.2.3.-4",
        ] {
            assert_eq!(ip4(text), text.parse().ok(), "{text:?}");
        }
        for text in [
            "::",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1:2:3:4::5:6:7:8",
            "1::2::3",
            "12345::",
            ":1",
            "1:",
            ":::",
            "1:::2",
            "2001:DB8::ffff",
            "::192.0.2.1",
            "1::192.0.2.1:3",
            "g::",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7",
            "",
            ":",
            "::%1",
            "1::2:",
            "fe80::1/",
            "::1.2.3",
            "1:2:3:4:5:6:1.2.3.4",
        ] {
            assert_eq!(ip6(text), text.parse().ok(), "{text:?}");
        }
        for bits in 0..=300_u16 {
            let text = bits.to_string();
            assert_eq!(prefix(&text, 128).ok(), text.parse().ok().filter(|bits| *bits <= 128), "{text}");
            assert!(prefix(&format!("0{bits}"), 128).is_err());
        }
        for text in ["", "+1", "-1", " 1", "1x", "1288", "000"] {
            assert_eq!(prefix(text, 128), Err(TermError::Prefix), "{text:?}");
        }
    }
}

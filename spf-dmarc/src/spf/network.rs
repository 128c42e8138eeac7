//! Networks as records write them, and whether they hold an address.
//!
//! Invariant: an address reads as the standard library reads it, which the tests hold beside it, in a third of the time;
//! a number has no leading zeros.
//!
//! Standards: RFC 7208 section 5.6 and the grammar of 12; RFC 4291 2.2 (the text of IPv6).
//!
//! Not here: which mechanism a network belongs to (term.rs).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Mechanism, TermError};

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

#[inline]
pub(super) fn same_v4(a: Ipv4Addr, b: Ipv4Addr, bits: u8) -> bool {
    let differing = u32::from(a) ^ u32::from(b);
    differing.checked_shr(32_u32.saturating_sub(bits.into())).unwrap_or(0) == 0
}

#[inline]
pub(super) fn same_v6(a: Ipv6Addr, b: Ipv6Addr, bits: u8) -> bool {
    let differing = u128::from(a) ^ u128::from(b);
    differing.checked_shr(128_u32.saturating_sub(bits.into())).unwrap_or(0) == 0
}

/// The argument of `ip4`: `ip4-network [ ip4-cidr-length ]`.
pub(super) fn read_ip4(text: &str) -> Result<(Ipv4Addr, u8), TermError> {
    let (address, rest) = ip4(text.as_bytes()).ok_or(TermError::Address)?;
    Ok((address, bits(rest, 32)?))
}

/// The argument of `ip6`: `ip6-network [ ip6-cidr-length ]`.
pub(super) fn read_ip6(text: &str) -> Result<(Ipv6Addr, u8), TermError> {
    let (address, rest) = ip6(text.as_bytes()).ok_or(TermError::Address)?;
    Ok((address, bits(rest, 128)?))
}

/// A network at the head of a text, as it is nearly always written, and what stands behind it. They make up most of
/// most records, so they are read without looking for their end first; all else, and all that is wrong, is for
/// [`read_term`](super::term::read_term).
#[inline]
pub(super) fn read_leading<S>(text: &[u8]) -> Option<(Mechanism<S>, &[u8])> {
    let (network, rest) = match text.split_first_chunk()? {
        (b"ip4:", rest) => {
            let (address, rest) = ip4(rest)?;
            let (bits, rest) = leading_bits(rest, 32)?;
            (Mechanism::Ip4(address, bits), rest)
        }
        (b"ip6:", rest) => {
            let (address, rest) = ip6(rest)?;
            let (bits, rest) = leading_bits(rest, 128)?;
            (Mechanism::Ip6(address, bits), rest)
        }
        _ => return None,
    };
    matches!(rest, [] | [b' ', ..]).then_some((network, rest))
}

#[inline]
fn leading_bits(text: &[u8], most: u8) -> Option<(u8, &[u8])> {
    let Some(length) = text.strip_prefix(b"/") else { return Some((most, text)) };
    let (bits, rest) = number(length, most.into())?;
    Some((u8::try_from(bits).ok()?, rest))
}

/// A prefix length without its slash.
pub(super) fn prefix(text: &[u8], most: u8) -> Result<u8, TermError> {
    match number(text, most.into()) {
        Some((bits, [])) => u8::try_from(bits).map_err(|_| TermError::Prefix),
        _ => Err(TermError::Prefix),
    }
}

/// What stands behind an address: nothing, or a slash and a prefix length.
#[inline]
fn bits(rest: &[u8], most: u8) -> Result<u8, TermError> {
    match rest {
        [] => Ok(most),
        [b'/', length @ ..] => prefix(length, most),
        _ => Err(TermError::Address),
    }
}

/// A number of at most three digits without leading zeros, no greater than `most`, and what stands behind it.
#[inline]
fn number(text: &[u8], most: u32) -> Option<(u32, &[u8])> {
    let (mut number, mut rest) = digit(text)?;
    for _ in 0..2 {
        match digit(rest) {
            Some((next, more)) if number > 0 => (number, rest) = (number * 10 + next, more),
            _ => break,
        }
    }
    (number <= most).then_some((number, rest))
}

#[inline]
fn digit(text: &[u8]) -> Option<(u32, &[u8])> {
    let (b, rest) = text.split_first()?;
    let digit = b.wrapping_sub(b'0');
    (digit < 10).then_some((digit.into(), rest))
}

/// Four numbers of at most 255, and what stands behind them.
#[inline]
fn ip4(text: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let (mut address, mut rest) = number(text, 255)?;
    for _ in 0..3 {
        let (octet, more) = number(rest.strip_prefix(b".")?, 255)?;
        (address, rest) = (address << 8 | octet, more);
    }
    Some((address.into(), rest))
}

/// Groups of one to four hexadecimal digits with one gap at most, and what stands behind them. Groups that end in an
/// IPv4 address are left to the standard library.
#[inline]
fn ip6(text: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let ends = |rest: &[u8]| matches!(rest, [] | [b'/' | b' ', ..]);
    let mut rest = text.strip_prefix(b"::").unwrap_or(text);
    let mut gap = rest.len() < text.len();
    let (mut head, mut tail, mut groups, mut behind_gap) = (0_u128, 0_u128, 0_u32, 0_u32);
    while !ends(rest) {
        let (group, more) = group(rest)?;
        if groups == 8 {
            return None;
        }
        groups += 1;
        behind_gap += u32::from(gap);
        let half = if gap { &mut tail } else { &mut head };
        *half = *half << 16 | u128::from(group);
        rest = match more {
            [b':', b':', more @ ..] if !gap => {
                gap = true;
                more
            }
            [b':', more @ ..] if !ends(more) => more,
            [b'.', ..] => return ip6_with_ip4(text),
            more if ends(more) => more,
            _ => return None,
        };
    }
    let address = match gap {
        true if groups < 8 => head.checked_shl(16 * (8 - (groups - behind_gap))).unwrap_or(0) | tail,
        false if groups == 8 => head,
        _ => return None,
    };
    Some((address.into(), rest))
}

/// One to four hexadecimal digits, and what stands behind them.
#[inline]
fn group(text: &[u8]) -> Option<(u32, &[u8])> {
    let (mut group, mut rest) = (0, text);
    for _ in 0..4 {
        let Some((b, more)) = rest.split_first() else { break };
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            b'A'..=b'F' => b - b'A' + 10,
            _ => break,
        };
        (group, rest) = (group << 4 | u32::from(digit), more);
    }
    (rest.len() < text.len()).then_some((group, rest))
}

fn ip6_with_ip4(text: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let end = text.iter().position(|b| matches!(b, b'/' | b' ')).unwrap_or(text.len());
    let (address, rest) = text.split_at_checked(end)?;
    Some((std::str::from_utf8(address).ok()?.parse().ok()?, rest))
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
            assert_eq!(read_ip4(text).ok(), text.parse().ok().map(|ip| (ip, 32)), "{text:?}");
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
            assert_eq!(read_ip6(text).ok(), text.parse().ok().map(|ip| (ip, 128)), "{text:?}");
        }
        for bits in 0..=300_u16 {
            let text = bits.to_string();
            assert_eq!(
                prefix(text.as_bytes(), 128).ok(),
                text.parse().ok().filter(|bits| *bits <= 128),
                "{text}"
            );
            assert!(prefix(format!("0{bits}").as_bytes(), 128).is_err());
        }
        for text in ["", "+1", "-1", " 1", "1x", "1288", "000"] {
            assert_eq!(prefix(text.as_bytes(), 128), Err(TermError::Prefix), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_as_the_standard_library_reads_it(
            v4 in "[0-9]{1,3}([.][0-9]{0,3}){2,4}", v6 in "[0-9a-fA-F]{0,4}(::?[0-9a-fA-F]{0,5}){1,8}", odd in "[0-9a-f:.]{0,12}",
        ) {
            for text in [&v4, &v6, &odd] {
                assert_eq!(read_ip4(text).ok(), text.parse().ok().map(|ip| (ip, 32)), "{text}");
                assert_eq!(read_ip6(text).ok(), text.parse().ok().map(|ip| (ip, 128)), "{text}");
            }
        }
    }
}

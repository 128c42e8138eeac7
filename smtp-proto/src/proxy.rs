//! The PROXY protocol: what a load balancer says about the client before the first octet of SMTP or TLS.
//!
//! Invariant: the parser never asks for an octet that does not belong to the header, so a reader that follows it
//! leaves the rest of the stream untouched. A header is at most [`HEADER_MAX`] octets.
//!
//! Standards: haproxy's proxy-protocol.txt, sections 2.1 (version 1) and 2.2 (version 2).
//!
//! Not here: who may send such a header (the embedder: only a proxy of its own), TLVs (skipped).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first octets of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, CRLF included (section 2.1).
const LINE_MAX: usize = 107;
/// Shortest line of version 1: `PROXY UNKNOWN` CRLF.
const LINE_MIN: usize = 15;
/// Octets of version 2 before the addresses.
const FIXED: usize = 16;
/// Longest header that is taken. Addresses need 36 octets; the rest is TLVs, of which some are certificates' names.
pub const HEADER_MAX: usize = 4096;

/// What the proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (a health check), or for a client without addresses: keep the socket's own.
    Local,
    /// The client's address, and the one that it connected to.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

/// How far the header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// At least so many octets more belong to the header.
    More(usize),
    /// The header, and its length in octets.
    Done(Header, usize),
}

/// This is not a PROXY header; the connection is to be closed without a word (section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PROXY protocol header of version 1 or 2")]
pub struct NotAHeader;

/// Looks for a header at the start of `input`.
///
/// ```
/// use postwright_smtp_proto::proxy::{Header, Progress, parse};
/// let input = b"PROXY TCP4 192.0.2.77 192.0.2.1 40000 25\r\nEHLO x\r\n";
/// let Progress::Done(Header::Proxied { source, .. }, consumed) = parse(input)? else { panic!() };
/// assert_eq!((source.to_string().as_str(), consumed), ("192.0.2.77:40000", 42));
/// # Ok::<(), postwright_smtp_proto::proxy::NotAHeader>(())
/// ```
pub fn parse(input: &[u8]) -> Result<Progress, NotAHeader> {
    let seen = input.len().min(SIGNATURE.len());
    if input.get(..seen) == SIGNATURE.get(..seen) && seen > 0 {
        return parse_v2(input);
    }
    let seen = input.len().min(6);
    if input.get(..seen) == b"PROXY ".get(..seen) { parse_v1(input) } else { Err(NotAHeader) }
}

fn parse_v1(input: &[u8]) -> Result<Progress, NotAHeader> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return match input.len() {
            0..LINE_MIN => Ok(Progress::More(LINE_MIN - input.len())),
            LINE_MIN..LINE_MAX => Ok(Progress::More(1)),
            _ => Err(NotAHeader),
        };
    };
    let line = input.get(..end).and_then(|line| line.strip_suffix(b"\r")).filter(|_| end < LINE_MAX);
    let line = std::str::from_utf8(line.ok_or(NotAHeader)?).map_err(|_| NotAHeader)?;
    let words: Vec<&str> = line.split(' ').collect();
    let header = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Header::Local,
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            let ip = |text: &str| text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| NotAHeader);
            proxied(ip(from)?, from_port, ip(to)?, to_port)?
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            let ip = |text: &str| text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| NotAHeader);
            proxied(ip(from)?, from_port, ip(to)?, to_port)?
        }
        _ => return Err(NotAHeader),
    };
    Ok(Progress::Done(header, end + 1))
}

fn proxied(from: IpAddr, from_port: &str, to: IpAddr, to_port: &str) -> Result<Header, NotAHeader> {
    let port = |text: &str| -> Result<u16, NotAHeader> {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if digits { text.parse().map_err(|_| NotAHeader) } else { Err(NotAHeader) }
    };
    Ok(Header::Proxied {
        source: SocketAddr::new(from, port(from_port)?),
        destination: SocketAddr::new(to, port(to_port)?),
    })
}

fn parse_v2(input: &[u8]) -> Result<Progress, NotAHeader> {
    let Some(fixed) = input.first_chunk::<FIXED>() else { return Ok(Progress::More(FIXED - input.len())) };
    let [.., command, family, high, low] = *fixed;
    let total = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if total > HEADER_MAX || command >> 4 != 2 {
        return Err(NotAHeader);
    }
    let Some(body) = input.get(FIXED..total) else { return Ok(Progress::More(total - input.len())) };
    let header = match (command & 15, family) {
        // LOCAL: the rest is to be ignored.
        (0, _) => Header::Local,
        (1, 0x11) => addresses_v4(body).ok_or(NotAHeader)?,
        (1, 0x21) => addresses_v6(body).ok_or(NotAHeader)?,
        // UDP and UNIX sockets: there is no address that mail could use.
        (1, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Header::Local,
        _ => return Err(NotAHeader),
    };
    Ok(Progress::Done(header, total))
}

fn addresses_v4(body: &[u8]) -> Option<Header> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *body.first_chunk::<12>()?;
    Some(Header::Proxied {
        source: SocketAddr::from(([a, b, c, d], u16::from_be_bytes([i, j]))),
        destination: SocketAddr::from(([e, f, g, h], u16::from_be_bytes([k, l]))),
    })
}

fn addresses_v6(body: &[u8]) -> Option<Header> {
    let (from, rest) = body.split_first_chunk::<16>()?;
    let (to, rest) = rest.split_first_chunk::<16>()?;
    let [a, b, c, d] = *rest.first_chunk::<4>()?;
    Some(Header::Proxied {
        source: SocketAddr::from((*from, u16::from_be_bytes([a, b]))),
        destination: SocketAddr::from((*to, u16::from_be_bytes([c, d]))),
    })
}

/// Writes a header of version 2, for a connection that is made on behalf of `source`.
///
/// Both addresses must be of one family; an IPv4 address beside an IPv6 one is written in its mapped form.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) {
        out.extend_from_slice(&[0x21, 0x11, 0, 12]);
        out.extend_from_slice(&from.octets());
        out.extend_from_slice(&to.octets());
    } else {
        out.extend_from_slice(&[0x21, 0x21, 0, 36]);
        for ip in [source.ip(), destination.ip()] {
            let octets = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            out.extend_from_slice(&octets);
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1() {
        // The shortest and the longest forms of section 2.1.
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Ok(Progress::Done(Header::Local, 15)));
        let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        let all_ones = socket("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
        let header = Header::Proxied { source: all_ones, destination: all_ones };
        assert_eq!(parse(longest), Ok(Progress::Done(header, longest.len())));
        for bad in [
            &b"EHLO x\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"proxy unknown\r\n",
            &[b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat(),
        ] {
            assert_eq!(parse(bad), Err(NotAHeader), "{bad:?}");
        }
    }

    #[test]
    fn version_2() {
        // Written out by hand from section 2.2: PROXY, TCP over IPv4, 192.0.2.77:40000 to 192.0.2.1:25, a TLV.
        let octets =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x4d\xc0\0\x02\x01\x9c\x40\0\x19\x04\0\x01\xff";
        let header =
            Header::Proxied { source: socket("192.0.2.77:40000"), destination: socket("192.0.2.1:25") };
        assert_eq!(parse(octets), Ok(Progress::Done(header, octets.len())));
        assert_eq!(parse(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0EHLO"), Ok(Progress::Done(Header::Local, 16)));
        for bad in [
            &b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c"[..],
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert_eq!(parse(bad), Err(NotAHeader), "{bad:?}");
        }
    }

    #[test]
    fn a_reader_that_follows_never_reads_too_far() {
        for header in [
            &b"PROXY TCP4 192.0.2.77 192.0.2.1 40000 25\r\n"[..],
            b"PROXY UNKNOWN\r\n",
            &encode_v2(socket("192.0.2.77:40000"), socket("192.0.2.1:25")),
            &encode_v2(socket("[2001:db8::1]:40000"), socket("192.0.2.1:25")),
        ] {
            let mut read = 0;
            while let Progress::More(more) = parse(&header[..read]).unwrap() {
                read += more;
                assert!(more > 0 && read <= header.len(), "{header:?}");
            }
            assert_eq!(read, header.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr) {
            let octets = encode_v2(source, destination);
            let Ok(Progress::Done(Header::Proxied { source: from, destination: to }, len)) = parse(&octets) else { panic!() };
            proptest::prop_assert_eq!(len, octets.len());
            proptest::prop_assert_eq!((from.ip().to_canonical(), from.port()), (source.ip().to_canonical(), source.port()));
            proptest::prop_assert_eq!((to.ip().to_canonical(), to.port()), (destination.ip().to_canonical(), destination.port()));
        }

        #[test]
        fn any_octets_are_judged(input in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), signed: bool) {
            let input = if signed { [SIGNATURE.to_vec(), input].concat() } else { input };
            let _ = parse(&input);
        }
    }
}

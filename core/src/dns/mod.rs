//! DNS: the seam [`Resolver`], its questions and answers; [`MemoryZone`], DNS in memory; behind the
//! feature `hickory` the real one, `HickoryResolver`.
//!
//! Invariant: an [`Answer`] is an answer: "no such name" and "no such record" are values, and [`DnsError`] means
//! that nobody knows. A caller that bounces mail on an error is wrong by construction.
//!
//! Standards: RFC 1035, RFC 2308 (negative answers), RFC 4035 (what `secure` means), RFC 6698 (TLSA), RFC 7505.
//!
//! Not here: caching (the resolver's business), MX selection (smtp-client).

#[cfg(feature = "hickory")]
mod hickory;
mod name;
mod zone;
mod zone_text;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

#[cfg(feature = "hickory")]
pub use hickory::{HickoryConfig, HickoryError, HickoryResolver};
pub use name::{Name, NameError};
pub use zone::MemoryZone;
pub use zone_text::ZoneError;

use crate::BoxFuture;

/// The record types that mail needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
    /// Alias. Asked for itself only; other look-ups follow aliases unasked.
    Cname,
    /// Mail exchange.
    Mx,
    /// Name server.
    Ns,
    /// Name of an address.
    Ptr,
    /// Text.
    Txt,
    /// TLS association (RFC 6698).
    Tlsa,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [RecordKind; 8] = [
        RecordKind::A,
        RecordKind::Aaaa,
        RecordKind::Cname,
        RecordKind::Mx,
        RecordKind::Ns,
        RecordKind::Ptr,
        RecordKind::Txt,
        RecordKind::Tlsa,
    ];
}

impl RecordKind {
    /// As in a zone file: `A`, `AAAA`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            RecordKind::A => "A",
            RecordKind::Aaaa => "AAAA",
            RecordKind::Cname => "CNAME",
            RecordKind::Mx => "MX",
            RecordKind::Ns => "NS",
            RecordKind::Ptr => "PTR",
            RecordKind::Txt => "TXT",
            RecordKind::Tlsa => "TLSA",
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The data of one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Record {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias.
    Cname(Name),
    /// Mail exchange; the root name as exchange is a null MX (RFC 7505).
    Mx {
        /// Lower is preferred.
        preference: u16,
        /// The host.
        exchange: Name,
    },
    /// Name server.
    Ns(Name),
    /// Name of an address.
    Ptr(Name),
    /// Text, in its character-strings of at most 255 octets each. See [`Record::text`].
    Txt(Vec<Box<[u8]>>),
    /// TLS association (RFC 6698 2.1).
    Tlsa {
        /// Certificate usage.
        usage: u8,
        /// Selector.
        selector: u8,
        /// Matching type.
        matching: u8,
        /// Certificate association data.
        data: Box<[u8]>,
    },
}

impl Record {
    /// The record's type.
    pub fn kind(&self) -> RecordKind {
        match self {
            Record::A(_) => RecordKind::A,
            Record::Aaaa(_) => RecordKind::Aaaa,
            Record::Cname(_) => RecordKind::Cname,
            Record::Mx { .. } => RecordKind::Mx,
            Record::Ns(_) => RecordKind::Ns,
            Record::Ptr(_) => RecordKind::Ptr,
            Record::Txt(_) => RecordKind::Txt,
            Record::Tlsa { .. } => RecordKind::Tlsa,
        }
    }

    /// A TXT record's character-strings joined without blanks, as SPF, DKIM and DMARC read it; of one string, without
    /// a copy.
    pub fn text(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Record::Txt(strings) => Some(match &strings[..] {
                [whole] => Cow::Borrowed(whole),
                parts => Cow::Owned(parts.concat()),
            }),
            _ => None,
        }
    }

    /// The address of an A or AAAA record.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Record::A(ip) => Some(IpAddr::V4(*ip)),
            Record::Aaaa(ip) => Some(IpAddr::V6(*ip)),
            _ => None,
        }
    }

    /// A TXT record of any length, split into character-strings of 255 octets.
    pub fn txt(text: impl AsRef<[u8]>) -> Record {
        Record::Txt(text.as_ref().chunks(255).map(Box::from).collect())
    }
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// At least one record, all of the kind that was asked for; shared with whoever keeps the answer.
    Records(Arc<[Record]>),
    /// The name exists and has no record of this kind (NODATA, RFC 2308 2.2).
    NoData,
    /// The name does not exist (NXDOMAIN).
    NoName,
}

/// An answer to a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was found.
    pub found: Found,
    /// The name behind all aliases; the one asked for if there were none.
    pub canonical: Name,
    /// Whether DNSSEC validated every step, aliases and proofs of absence included.
    pub secure: bool,
    /// For how many seconds the answer may be kept.
    pub ttl: u32,
}

impl Answer {
    /// The records; none for a negative answer.
    pub fn records(&self) -> &[Record] {
        match &self.found {
            Found::Records(records) => records,
            Found::NoData | Found::NoName => &[],
        }
    }
}

/// There is no answer at present: never a reason to give up for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DnsError {
    /// Nobody answered in time.
    #[error("the DNS look-up timed out")]
    Timeout,
    /// A server answered that it cannot tell (SERVFAIL, REFUSED, an alias loop, a broken packet).
    #[error("the DNS server failed")]
    ServFail,
    /// DNSSEC validation failed: the answer is forged or the zone is broken (RFC 4035 4.3).
    #[error("the DNS answer is bogus: DNSSEC validation failed")]
    Bogus,
}

/// Who answers DNS questions.
///
/// Implementations follow aliases (CNAME, DNAME) and bound their own time and work.
pub trait Resolver: Send + Sync {
    /// Looks up the records of one kind at a name.
    fn lookup<'a>(&'a self, name: &'a Name, kind: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>>;
}

impl<R: Resolver + ?Sized> Resolver for std::sync::Arc<R> {
    fn lookup<'a>(&'a self, name: &'a Name, kind: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        (**self).lookup(name, kind)
    }
}

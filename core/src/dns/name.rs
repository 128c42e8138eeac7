//! DNS names in presentation form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::Domain;

/// A DNS name: lower-case, fully qualified, written without its final dot; the root is `.`.
///
/// Wider than a mail [`Domain`]: labels may hold any printable ASCII but the dot (`_dmarc`, and what an SPF macro
/// makes of a local part). A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a string is not a DNS name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, or with an empty label.
    #[error("a DNS name has no empty labels")]
    EmptyLabel,
    /// A label longer than 63 octets, or a name longer than 253.
    #[error("a DNS label has at most 63 octets and a name at most 253 (RFC 1035 2.3.4)")]
    TooLong,
    /// A character outside printable ASCII.
    #[error("a DNS name is written in printable ASCII; use A-labels")]
    Character,
}

impl Name {
    /// Longest name in octets, final dot left out.
    pub const MAX: usize = 253;

    /// The root, which as the exchange of an MX means "no mail" (RFC 7505).
    pub fn root() -> Name {
        Name("".into())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The name without final dot; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from left to right; none for the root.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.').filter(|label| !label.is_empty())
    }

    /// The name one label up; `None` for the root.
    pub fn parent(&self) -> Option<Name> {
        if self.is_root() {
            return None;
        }
        Some(Name(self.0.split_once('.').map_or("", |(_, rest)| rest).into()))
    }

    /// Whether this name is `other` or lies below it.
    pub fn is_within(&self, other: &Name) -> bool {
        other.is_root()
            || self.0.strip_suffix(other.as_str()).is_some_and(|head| head.is_empty() || head.ends_with('.'))
    }

    /// `label` (which may hold dots) put in front: `_dmarc` and `example.org` make `_dmarc.example.org`.
    pub fn prepend(&self, label: &str) -> Result<Name, NameError> {
        if self.is_root() { label.parse() } else { [label, ".", &*self.0].concat().parse() }
    }

    /// The name under `in-addr.arpa` (RFC 1035 3.5) or `ip6.arpa` (RFC 3596 2.5) that holds the PTR records of an address.
    pub fn reverse(ip: IpAddr) -> Name {
        use fmt::Write;
        let mut text = String::new();
        // Writing to a String cannot fail.
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                let _ = write!(text, "{d}.{c}.{b}.{a}.in-addr.arpa");
            }
            IpAddr::V6(ip) => {
                for octet in ip.octets().iter().rev() {
                    let _ = write!(text, "{:x}.{:x}.", octet & 15, octet >> 4);
                }
                text.push_str("ip6.arpa");
            }
        }
        Name(text.into())
    }

    /// The mail domain of the same spelling, if it is one.
    pub fn to_domain(&self) -> Option<Domain> {
        self.0.parse().ok()
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// A final dot is allowed; without one the name is taken as fully qualified all the same.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "." {
            return Ok(Name::root());
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        // One pass; of several things that are wrong the character is told before the length before the empty label.
        let (mut label, mut long, mut empty) = (0_usize, text.len() > Name::MAX, false);
        for b in text.bytes() {
            match b {
                b'.' => {
                    empty |= label == 0;
                    label = 0;
                }
                0x20..=0x7e => {
                    label += 1;
                    long |= label > 63;
                }
                _ => return Err(NameError::Character),
            }
        }
        if long {
            return Err(NameError::TooLong);
        }
        if empty || label == 0 {
            return Err(NameError::EmptyLabel);
        }
        let mut name: Arc<str> = text.into();
        if let Some(text) = Arc::get_mut(&mut name) {
            text.make_ascii_lowercase();
        }
        Ok(Name(name))
    }
}

impl From<&Domain> for Name {
    /// A domain of more than 253 octets, which DNS cannot hold, is cut to its last labels that fit: it exists
    /// nowhere, so its look-up cannot succeed either way.
    fn from(domain: &Domain) -> Self {
        let mut text = domain.as_str();
        while text.len() > Name::MAX {
            text = text.split_once('.').map_or("invalid", |(_, rest)| rest);
        }
        Name(text.into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_refuses() {
        let name: Name = "_DMARC.Example.org.".parse().unwrap();
        assert_eq!(name.as_str(), "_dmarc.example.org");
        assert_eq!(".".parse(), Ok(Name::root()));
        assert_eq!("".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!("a..b".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!("é.example".parse::<Name>(), Err(NameError::Character));
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::TooLong));
    }

    #[test]
    fn reverse_names_are_those_of_rfc_1035_and_rfc_3596() {
        let name = |ip: &str| Name::reverse(ip.parse().unwrap()).to_string();
        assert_eq!(name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert_eq!(
            name("4321:0:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"
        );
    }

    #[test]
    fn parents_end_at_the_root() {
        let name: Name = "a.b".parse().unwrap();
        let up = name.parent().unwrap();
        assert_eq!(up.as_str(), "b");
        assert_eq!(up.parent(), Some(Name::root()));
        assert_eq!(Name::root().parent(), None);
        assert!(name.is_within(&up) && name.is_within(&Name::root()));
    }
}

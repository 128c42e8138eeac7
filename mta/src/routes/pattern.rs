//! What a route is chosen by: senders and destinations.
//!
//! Invariant: a pattern that [covers](DomainPattern::covers) another one fits whatever that one fits.
//!
//! Standards: RFC 5321 4.5.5 (the null reverse-path).
//!
//! Not here: what is chosen (rule.rs).

use std::fmt;
use std::str::FromStr;

use postwright_core::{AddressError, Domain, Host, Mailbox, ReversePath};

/// A domain, or the domains below one.
///
/// ```
/// use postwright::DomainPattern;
/// let (one, below): (DomainPattern, DomainPattern) = ("example.org".parse()?, ".example.org".parse()?);
/// assert!(one.fits(&"example.org".parse()?) && !one.fits(&"a.example.org".parse()?));
/// assert!(below.fits(&"a.b.example.org".parse()?) && !below.fits(&"example.org".parse()?));
/// # Ok::<(), postwright::core::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DomainPattern {
    /// `example.org`: this one alone; or one address literal.
    Exactly(Host),
    /// `.example.org`: everything below it, itself left out.
    Below(Domain),
}

impl DomainPattern {
    /// Whether a host is meant.
    pub fn fits(&self, host: &Host) -> bool {
        match self {
            DomainPattern::Exactly(one) => one == host,
            DomainPattern::Below(above) => {
                host.domain().is_some_and(|domain| domain != above && domain.is_within(above))
            }
        }
    }

    /// Whether nothing fits the other one that does not fit this one.
    pub fn covers(&self, other: &DomainPattern) -> bool {
        match (self, other) {
            (_, DomainPattern::Exactly(host)) => self.fits(host),
            (DomainPattern::Below(above), DomainPattern::Below(below)) => below.is_within(above),
            (DomainPattern::Exactly(_), DomainPattern::Below(_)) => false,
        }
    }
}

impl FromStr for DomainPattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<DomainPattern, AddressError> {
        match text.strip_prefix('.') {
            Some(above) => above.parse().map(DomainPattern::Below),
            None => text.parse().map(DomainPattern::Exactly),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DomainPattern::Exactly(host) => host.fmt(f),
            DomainPattern::Below(above) => write!(f, ".{above}"),
        }
    }
}

/// Whose mail: a mailbox, whoever writes from a domain, or nobody (`<>`).
///
/// ```
/// use postwright::SenderPattern;
/// let news: SenderPattern = "news@example.org".parse()?;
/// // Whoever files mail under one spelling means the other one too.
/// assert!(news.fits(&"<News@example.org>".parse()?) && !news.fits(&"<joe@example.org>".parse()?));
/// assert!("<>".parse::<SenderPattern>()?.fits(&"<>".parse()?));
/// assert!(".example.org".parse::<SenderPattern>()?.fits(&"<joe@shop.example.org>".parse()?));
/// # Ok::<(), postwright::core::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SenderPattern {
    /// `<>`: notifications.
    Null,
    /// `news@example.org`; the case of letters does not count.
    Mailbox(Mailbox),
    /// `example.org` or `.example.org`.
    At(DomainPattern),
}

impl SenderPattern {
    /// Whether mail with this reverse-path is meant.
    pub fn fits(&self, sender: &ReversePath) -> bool {
        match (self, sender) {
            (SenderPattern::Null, ReversePath::Null) => true,
            (SenderPattern::Mailbox(one), ReversePath::Mailbox(mailbox)) => is_same(one, mailbox),
            (SenderPattern::At(pattern), ReversePath::Mailbox(mailbox)) => pattern.fits(mailbox.host()),
            _ => false,
        }
    }

    /// Whether nothing fits the other one that does not fit this one.
    pub fn covers(&self, other: &SenderPattern) -> bool {
        match (self, other) {
            (SenderPattern::Null, SenderPattern::Null) => true,
            (SenderPattern::Mailbox(one), SenderPattern::Mailbox(other)) => is_same(one, other),
            (SenderPattern::At(pattern), SenderPattern::Mailbox(mailbox)) => pattern.fits(mailbox.host()),
            (SenderPattern::At(one), SenderPattern::At(other)) => one.covers(other),
            _ => false,
        }
    }
}

/// The same mailbox but for quoting and the case of ASCII letters.
fn is_same(one: &Mailbox, other: &Mailbox) -> bool {
    one.host() == other.host() && one.local_unquoted().eq_ignore_ascii_case(&other.local_unquoted())
}

impl FromStr for SenderPattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<SenderPattern, AddressError> {
        if text == "<>" {
            return Ok(SenderPattern::Null);
        }
        match text.contains('@') {
            true => text.parse().map(SenderPattern::Mailbox),
            false => text.parse().map(SenderPattern::At),
        }
    }
}

impl fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SenderPattern::Null => f.write_str("<>"),
            SenderPattern::Mailbox(mailbox) => mailbox.fmt(f),
            SenderPattern::At(pattern) => pattern.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_covers_another_pattern_fits_all_that_it_fits() {
        let patterns =
            ["<>", "a@x.example", "A@x.example", "a@b.x.example", "x.example", ".x.example", ".example"];
        let patterns = patterns.map(|text| text.parse::<SenderPattern>().unwrap());
        let senders =
            ["<>", "<a@x.example>", "<b@x.example>", "<a@b.x.example>", "<b@b.x.example>", "<a@example>"];
        let senders = senders.map(|text| text.parse::<ReversePath>().unwrap());
        let fitting =
            |pattern: &SenderPattern| senders.iter().map(|sender| pattern.fits(sender)).collect::<Vec<_>>();
        for one in &patterns {
            for other in &patterns {
                let all = fitting(other).iter().zip(fitting(one)).all(|(theirs, ours)| ours || !theirs);
                // Each pair of different patterns is told apart by one of the senders.
                assert_eq!(one.covers(other), all, "{one} {other}");
            }
        }
    }

    #[test]
    fn patterns_are_read_as_they_are_written() {
        for text in ["<>", "a@x.example", "x.example", ".x.example", "[192.0.2.1]"] {
            assert_eq!(text.parse::<SenderPattern>().unwrap().to_string(), text);
        }
        for wrong in ["", ".", "@x.example", "a@", "*.x.example", "a@.x.example"] {
            assert!(wrong.parse::<SenderPattern>().is_err(), "{wrong}");
        }
    }
}

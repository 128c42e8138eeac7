//! Mail addresses: [`Domain`], [`Host`], [`Mailbox`], [`ReversePath`].
//!
//! Invariant: a value of these types is a valid address of RFC 5321 section 4.1.2 (with the UTF-8 local parts
//! of RFC 6531 section 3.3), holds no CR, LF or NUL, and can be written into a command as it stands. Local parts
//! keep their case and their quoting to the letter; domains are lower-case A-labels.
//!
//! Standards: RFC 5321 4.1.2, 4.1.3, 4.5.3.1; RFC 6531 3.3; RFC 5890 (A-labels, feature `idna`).
//!
//! Not here: source routes and command parameters (smtp-proto), display names and comments (RFC 5322 headers).

mod grammar;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use grammar::{are_labels, is_dot_string, is_utf8_non_ascii};

/// Longest domain in octets (RFC 5321 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;
/// Longest label of a domain in octets (RFC 1035 2.3.4).
pub const LABEL_MAX: usize = 63;
/// Longest local part in octets (RFC 5321 4.5.3.1.1).
pub const LOCAL_PART_MAX: usize = 64;
/// Longest mailbox in octets: a path of 256 octets less its angle brackets (RFC 5321 4.5.3.1.3, erratum 1690).
pub const MAILBOX_MAX: usize = 254;

/// Why a string is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no text at all.
    #[error("the address is empty")]
    Empty,
    /// A mailbox has no `@` outside quotes.
    #[error("the address has no @ and domain")]
    NoDomain,
    /// The local part breaks the grammar of RFC 5321 4.1.2.
    #[error("the local part is neither a dot-string nor a quoted string (RFC 5321 4.1.2)")]
    LocalPart,
    /// The local part is longer than 64 octets.
    #[error("the local part is longer than 64 octets (RFC 5321 4.5.3.1.1)")]
    LocalPartTooLong,
    /// The domain breaks the grammar: labels of letters, digits and inner hyphens.
    #[error("the domain is not a series of labels of letters, digits and inner hyphens (RFC 5321 4.1.2)")]
    Domain,
    /// The domain holds non-ASCII letters, which need the feature `idna` or an A-label.
    #[error("the domain is not ASCII; write it in A-labels (xn--...)")]
    NotAscii,
    /// The domain is longer than 255 octets or a label longer than 63.
    #[error(
        "the domain is longer than 255 octets, or one of its labels is longer than 63 (RFC 5321 4.5.3.1.2)"
    )]
    DomainTooLong,
    /// The text in brackets is not an IPv4 or IPv6 literal.
    #[error("the address literal is not [IPv4] or [IPv6:...] (RFC 5321 4.1.3)")]
    Literal,
    /// The whole mailbox is longer than 254 octets.
    #[error("the address is longer than 254 octets (RFC 5321 4.5.3.1.3)")]
    TooLong,
}

/// A domain name of mail: lower-case A-labels, no trailing dot.
///
/// Stricter than a DNS [`Name`](crate::Name): letters, digits and inner hyphens only.
///
/// ```
/// use postwright_core::Domain;
/// let domain: Domain = "Mail.Example.COM".parse()?;
/// assert_eq!(domain.as_str(), "mail.example.com");
/// assert!("-bad.example".parse::<Domain>().is_err());
/// # Ok::<(), postwright_core::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

impl Domain {
    /// The domain as text: lower-case, no trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from left to right; never empty.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The domain one label up; `None` for a top-level domain.
    pub fn parent(&self) -> Option<Domain> {
        self.0.split_once('.').map(|(_, rest)| Domain(rest.into()))
    }

    /// Whether this domain is `other` or lies below it.
    pub fn is_within(&self, other: &Domain) -> bool {
        self.0.strip_suffix(other.as_str()).is_some_and(|head| head.is_empty() || head.ends_with('.'))
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if !text.is_ascii() {
            return domain_from_unicode(text);
        }
        domain_from_ascii(text)
    }
}

fn domain_from_ascii(text: &str) -> Result<Domain, AddressError> {
    if text.len() > DOMAIN_MAX || !are_labels(text.as_bytes()) {
        let too_long = text.len() > DOMAIN_MAX || text.split('.').any(|label| label.len() > LABEL_MAX);
        return Err(if too_long { AddressError::DomainTooLong } else { AddressError::Domain });
    }
    Ok(Domain(text.to_ascii_lowercase().into()))
}

#[cfg(feature = "idna")]
fn domain_from_unicode(text: &str) -> Result<Domain, AddressError> {
    let ascii = idna::domain_to_ascii(text).map_err(|_| AddressError::Domain)?;
    domain_from_ascii(&ascii)
}

#[cfg(not(feature = "idna"))]
fn domain_from_unicode(_: &str) -> Result<Domain, AddressError> {
    Err(AddressError::NotAscii)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Where a mailbox lives: a domain, or an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Host {
    /// A domain name.
    Domain(Domain),
    /// An address literal (RFC 5321 4.1.3).
    Literal(IpAddr),
}

impl Host {
    /// The domain, if this is not a literal.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Host::Domain(domain) => Some(domain),
            Host::Literal(_) => None,
        }
    }
}

impl FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix('[') {
            None => text.parse().map(Host::Domain),
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or(AddressError::Literal)?;
                parse_literal(inner).map(Host::Literal).ok_or(AddressError::Literal)
            }
        }
    }
}

fn parse_literal(inner: &str) -> Option<IpAddr> {
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Domain(domain) => domain.fmt(f),
            Host::Literal(IpAddr::V4(ip)) => write!(f, "[{ip}]"),
            Host::Literal(IpAddr::V6(ip)) => write!(f, "[IPv6:{ip}]"),
        }
    }
}

impl From<Domain> for Host {
    fn from(domain: Domain) -> Self {
        Host::Domain(domain)
    }
}

/// A mailbox of the envelope: `local-part@host` (RFC 5321 4.1.2, RFC 6531 3.3).
///
/// The local part is kept to the letter, quoting and case included, because only the final host may interpret
/// it (RFC 5321 2.4). Equality is exact; [`Mailbox::is_same`] also sees through needless quoting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mailbox {
    local: Box<str>,
    host: Host,
}

impl Mailbox {
    /// Joins a local part (as written in the envelope, so quoted where it must be) and a host.
    pub fn new(local: &str, host: impl Into<Host>) -> Result<Mailbox, AddressError> {
        let host = host.into();
        check_local_part(local)?;
        let mailbox = Mailbox { local: local.into(), host };
        if mailbox.octets() > MAILBOX_MAX { Err(AddressError::TooLong) } else { Ok(mailbox) }
    }

    /// Joins any text and a host, quoting the text where the grammar asks for it.
    ///
    /// ```
    /// # use postwright_core::{Domain, Mailbox};
    /// let domain: Domain = "example.org".parse()?;
    /// assert_eq!(Mailbox::quote("a b", domain)?.to_string(), "\"a b\"@example.org");
    /// # Ok::<(), postwright_core::AddressError>(())
    /// ```
    pub fn quote(raw: &str, host: impl Into<Host>) -> Result<Mailbox, AddressError> {
        if is_dot_string(raw) {
            return Mailbox::new(raw, host);
        }
        let mut quoted = String::with_capacity(raw.len() + 2);
        quoted.push('"');
        for c in raw.chars() {
            if c == '"' || c == '\\' {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted.push('"');
        Mailbox::new(&quoted, host)
    }

    /// The local part exactly as written, quotes included.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The local part without quotes and backslashes: what it stands for.
    pub fn local_unquoted(&self) -> Cow<'_, str> {
        let Some(inner) = self.local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Cow::Borrowed(&self.local);
        };
        if !inner.contains('\\') {
            return Cow::Borrowed(inner);
        }
        let mut out = String::with_capacity(inner.len());
        let mut escaped = false;
        for c in inner.chars() {
            if c == '\\' && !escaped {
                escaped = true;
            } else {
                out.push(c);
                escaped = false;
            }
        }
        Cow::Owned(out)
    }

    /// Where the mailbox lives.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The domain, unless the mailbox lives at an address literal.
    pub fn domain(&self) -> Option<&Domain> {
        self.host.domain()
    }

    /// Whether the address fits in ASCII, so that it can go to a peer without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// Whether both name the same mailbox: as [`Eq`], but `"joe"@example.org` is `joe@example.org`.
    pub fn is_same(&self, other: &Mailbox) -> bool {
        self.host == other.host && self.local_unquoted() == other.local_unquoted()
    }

    fn octets(&self) -> usize {
        let host = match &self.host {
            Host::Domain(domain) => domain.as_str().len(),
            literal => literal.to_string().len(),
        };
        self.local.len() + 1 + host
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let at = local_part_end(text)?;
        let (local, host) = (&text[..at], &text[at + 1..]);
        if host.is_empty() {
            return Err(AddressError::NoDomain);
        }
        Mailbox::new(local, host.parse::<Host>()?)
    }
}

/// The index of the `@` behind the local part: the first one outside a quoted string.
fn local_part_end(text: &str) -> Result<usize, AddressError> {
    if !text.starts_with('"') {
        return text.bytes().position(|b| b == b'@').ok_or(AddressError::NoDomain);
    }
    let bytes = text.as_bytes();
    let mut i = 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' if bytes.get(i + 1) == Some(&b'@') => return Ok(i + 1),
            b'"' if i + 1 == bytes.len() => return Err(AddressError::NoDomain),
            b'"' => return Err(AddressError::LocalPart),
            _ => i += 1,
        }
    }
    Err(AddressError::LocalPart)
}

fn check_local_part(local: &str) -> Result<(), AddressError> {
    if local.len() > LOCAL_PART_MAX {
        return Err(AddressError::LocalPartTooLong);
    }
    if is_dot_string(local) || is_quoted_string(local) { Ok(()) } else { Err(AddressError::LocalPart) }
}

/// `Quoted-string = DQUOTE *QcontentSMTP DQUOTE`.
fn is_quoted_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let fine = match c {
            '\\' => matches!(chars.next(), Some(' '..='~')),
            '"' => false,
            ' '..='~' => true,
            other => is_utf8_non_ascii(other),
        };
        if !fine {
            return false;
        }
    }
    text.len() >= 2
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.host)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

/// The reverse-path of MAIL FROM: a mailbox, or the null reverse-path `<>` of notifications.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReversePath {
    /// `<>`: nobody is to be told about failures (RFC 5321 4.5.5).
    Null,
    /// The mailbox that hears of failures.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless this is `<>`.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether this is `<>`.
    pub fn is_null(&self) -> bool {
        matches!(self, ReversePath::Null)
    }
}

impl From<Mailbox> for ReversePath {
    fn from(mailbox: Mailbox) -> Self {
        ReversePath::Mailbox(mailbox)
    }
}

/// Takes `<>`, `<mailbox>` or a bare mailbox; an empty string is an error, not the null reverse-path.
impl FromStr for ReversePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "<>" {
            return Ok(ReversePath::Null);
        }
        let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        inner.parse().map(ReversePath::Mailbox)
    }
}

/// With angle brackets, as in MAIL FROM.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => f.write_str("<>"),
            ReversePath::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

impl fmt::Debug for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> Result<Mailbox, AddressError> {
        text.parse()
    }

    #[test]
    fn keeps_the_local_part_to_the_letter() {
        for text in
            ["Joe.Q@example.org", "\"a@b>,c\"@example.org", "\"\\\"q\\\\\"@example.org", "a+b=c@[192.0.2.7]"]
        {
            assert_eq!(mailbox(text).unwrap().to_string(), text);
        }
        assert_eq!(mailbox("x@[IPv6:2001:DB8::1]").unwrap().to_string(), "x@[IPv6:2001:db8::1]");
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        use AddressError::*;
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long_label = format!("a@{}.org", "b".repeat(64));
        for (text, error) in [
            ("", Empty),
            ("joe", NoDomain),
            ("joe@", NoDomain),
            ("@example.org", LocalPart),
            (".joe@example.org", LocalPart),
            ("jo..e@example.org", LocalPart),
            ("jo e@example.org", LocalPart),
            ("\"joe@example.org", LocalPart),
            ("\"joe\"x@example.org", LocalPart),
            ("joe@example.org\r\n", Domain),
            ("\"a\rb\"@example.org", LocalPart),
            ("joe@example.org.", Domain),
            ("joe@ex_ample.org", Domain),
            ("joe@-a.org", Domain),
            ("joe@[192.0.2.1", Literal),
            ("joe@[192.0.2.256]", Literal),
            ("joe@[2001:db8::1]", Literal),
            (long_local.as_str(), LocalPartTooLong),
            (long_label.as_str(), DomainTooLong),
        ] {
            assert_eq!(mailbox(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn octet_limits_are_exact() {
        assert!(mailbox(&format!("{}@example.org", "a".repeat(64))).is_ok());
        let domain = |len: usize| {
            let mut text = "d".repeat(61) + "." + &"e".repeat(61) + "." + &"f".repeat(61) + ".";
            text.push_str(&"g".repeat(len - text.len()));
            text
        };
        let local = "a".repeat(64);
        assert!(mailbox(&format!("{local}@{}", domain(189))).is_ok());
        assert_eq!(mailbox(&format!("{local}@{}", domain(190))), Err(AddressError::TooLong));
    }

    #[test]
    fn quoting_is_seen_through_by_is_same_only() {
        let (plain, quoted) = (mailbox("joe@example.org").unwrap(), mailbox("\"joe\"@example.org").unwrap());
        assert_ne!(plain, quoted);
        assert!(plain.is_same(&quoted));
        assert_eq!(
            Mailbox::quote("a \"b\"\\", "example.org".parse::<Domain>().unwrap()).unwrap().local_unquoted(),
            "a \"b\"\\"
        );
    }

    #[test]
    fn null_is_not_a_mailbox_and_not_an_empty_string() {
        assert_eq!("<>".parse(), Ok(ReversePath::Null));
        assert_eq!("".parse::<ReversePath>(), Err(AddressError::Empty));
        assert_eq!("<a@b.example>".parse::<ReversePath>().unwrap().to_string(), "<a@b.example>");
    }

    #[test]
    fn within_looks_at_whole_labels() {
        let d = |text: &str| text.parse::<Domain>().unwrap();
        assert!(d("a.example.org").is_within(&d("example.org")));
        assert!(d("example.org").is_within(&d("example.org")));
        assert!(!d("badexample.org").is_within(&d("example.org")));
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_prints_itself_and_is_safe_in_a_command(text in "\\PC{0,40}@[a-zA-Z0-9.-]{1,30}") {
            if let Ok(mailbox) = text.parse::<Mailbox>() {
                let printed = mailbox.to_string();
                assert!(!printed.bytes().any(|b| b < 0x20 || b == 0x7f));
                assert_eq!(printed.parse::<Mailbox>(), Ok(mailbox));
            }
        }

        #[test]
        fn any_printable_text_can_be_quoted(raw in "[ -~]{0,30}") {
            let host: Domain = "example.org".parse().unwrap();
            let mailbox = Mailbox::quote(&raw, host).unwrap();
            assert_eq!(mailbox.local_unquoted(), raw);
        }
    }
}

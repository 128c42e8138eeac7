//! The DMARC record: what a domain owner publishes at `_dmarc`.
//!
//! Invariant: reading never fails behind `v=DMARC1`: a tag that is wrong counts as left out, and is kept by name so
//! that tools can tell the owner (RFC 9989 4.7: syntax errors are discarded in favour of defaults, unknown tags
//! are ignored). The one exception is a wrong policy, which [`DmarcRecord::policy`] settles as 4.10.1 says.
//!
//! Standards: RFC 9989 sections 4.7 and 4.8; RFC 7489 section 6.3 for `pct` and report sizes.
//!
//! Not here: finding the record (discover.rs).

use std::fmt;

use postwright_core::Mailbox;

/// What the owner wants done with mail that fails; ordered by strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
    /// Treat as suspicious.
    Quarantine,
    /// Refuse.
    Reject,
}

impl Policy {
    fn read(text: &str) -> Option<Policy> {
        let known = [Policy::None, Policy::Quarantine, Policy::Reject];
        known.into_iter().find(|policy| text.eq_ignore_ascii_case(policy.as_str()))
    }

    /// As in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::None => "none",
            Policy::Quarantine => "quarantine",
            Policy::Reject => "reject",
        }
    }

    /// One level below: what `t=y` asks for (RFC 9989 4.7), and what is left for mail outside of the sample of
    /// `pct` (RFC 7489 6.6.4).
    #[must_use]
    pub fn relaxed(self) -> Policy {
        match self {
            Policy::Reject => Policy::Quarantine,
            Policy::Quarantine | Policy::None => Policy::None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How close two domains must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Alignment {
    /// The same organizational domain.
    #[default]
    Relaxed,
    /// The same domain.
    Strict,
}

impl Alignment {
    /// As in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Alignment::Relaxed => "r",
            Alignment::Strict => "s",
        }
    }
}

impl std::fmt::Display for Alignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the domain is a public suffix (`psd`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Psd {
    /// `u`: the tree walk decides.
    #[default]
    Unknown,
    /// `y`: names one label below belong to different organisations.
    Yes,
    /// `n`: this is an organizational domain.
    No,
}

/// When the owner wants failure reports (`fo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FailureOptions {
    /// `1`: when any mechanism gave no aligned pass; without it, when all did not.
    pub any: bool,
    /// `d`: when a DKIM signature failed.
    pub dkim: bool,
    /// `s`: when SPF failed.
    pub spf: bool,
}

/// Where a report is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReportUri {
    /// The URI without its size limit.
    pub uri: String,
    /// The size limit in octets, of RFC 7489 6.2; RFC 9989 says to ignore it.
    pub max_size: Option<u64>,
}

impl ReportUri {
    /// Reads one entry of `rua` or `ruf`: a scheme, a colon and more, with `!10m` at its end as RFC 7489 had it.
    pub fn read(text: &str) -> Option<ReportUri> {
        let (uri, max_size) = match text.rsplit_once('!') {
            Some((uri, size)) => (uri, Some(read_size(size)?)),
            None => (text, None),
        };
        let (scheme, rest) = uri.split_once(':')?;
        let mut letters = scheme.bytes();
        let fine = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            && !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_graphic());
        let uri = ReportUri { uri: uri.to_owned(), max_size };
        // A mailto that names no mailbox is of no use to anyone.
        (fine && (!scheme.eq_ignore_ascii_case("mailto") || uri.mailbox().is_some())).then_some(uri)
    }

    /// The mailbox of a `mailto:` URI, percent-decoding done.
    pub fn mailbox(&self) -> Option<Mailbox> {
        let (scheme, rest) = self.uri.split_once(':')?;
        if !scheme.eq_ignore_ascii_case("mailto") {
            return None;
        }
        let address = rest.split('?').next()?;
        percent_decode(address)?.parse().ok()
    }
}

/// The addresses of `rua` or `ruf`: as published, and read when someone asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ReportUris(Box<str>);

impl ReportUris {
    /// The entries that can be used, from left to right.
    pub fn iter(&self) -> impl Iterator<Item = ReportUri> + '_ {
        self.0.split(',').filter_map(|uri| ReportUri::read(uri.trim()))
    }

    /// Whether there is none that can be used.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

fn read_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let shift = match text.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let (high, low) =
                (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

/// A policy tag as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PolicyTag {
    /// Left out.
    #[default]
    Absent,
    /// Not one of none, quarantine, reject.
    Invalid,
    /// A policy.
    Valid(Policy),
}

impl PolicyTag {
    fn read(text: &str) -> PolicyTag {
        Policy::read(text).map_or(PolicyTag::Invalid, PolicyTag::Valid)
    }

    /// The policy, if it is one.
    pub fn valid(self) -> Option<Policy> {
        match self {
            PolicyTag::Valid(policy) => Some(policy),
            _ => None,
        }
    }
}

/// A record as published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DmarcRecord {
    /// `p`: for the domain itself.
    pub p: PolicyTag,
    /// `sp`: for subdomains that exist.
    pub sp: PolicyTag,
    /// `np`: for subdomains that do not.
    pub np: PolicyTag,
    /// `adkim`.
    pub adkim: Alignment,
    /// `aspf`.
    pub aspf: Alignment,
    /// `psd`.
    pub psd: Psd,
    /// `t=y`: the owner is testing.
    pub testing: bool,
    /// `fo`.
    pub failure_options: FailureOptions,
    /// `rua`: for aggregate reports.
    pub rua: ReportUris,
    /// `ruf`: for failure reports.
    pub ruf: ReportUris,
    /// `pct`, 0 to 100: a tag of RFC 7489 that RFC 9989 ignores.
    pub pct: u8,
    /// Tags that were ignored: unknown, removed, repeated or wrong.
    pub ignored: Vec<String>,
}

impl Default for DmarcRecord {
    fn default() -> Self {
        DmarcRecord {
            p: PolicyTag::Absent,
            sp: PolicyTag::Absent,
            np: PolicyTag::Absent,
            adkim: Alignment::Relaxed,
            aspf: Alignment::Relaxed,
            psd: Psd::Unknown,
            testing: false,
            failure_options: FailureOptions::default(),
            rua: ReportUris::default(),
            ruf: ReportUris::default(),
            pct: 100,
            ignored: Vec::new(),
        }
    }
}

/// The tags that are read.
const KNOWN: [&str; 12] = ["p", "sp", "rua", "adkim", "aspf", "ruf", "fo", "pct", "np", "t", "psd", "v"];

impl DmarcRecord {
    /// Reads the octets of a TXT record; `None` if it does not start with `v=DMARC1` (RFC 9989 4.8).
    ///
    /// ```
    /// use postwright_spf_dmarc::dmarc::{DmarcRecord, Policy};
    /// let record = DmarcRecord::parse(b"v=DMARC1; p=reject; sp=none; rf=afrf").unwrap();
    /// assert_eq!(record.p.valid(), Some(Policy::Reject));
    /// assert_eq!(record.ignored, ["rf"]);
    /// assert!(DmarcRecord::parse(b"v=DMARC1\xe2\x80\x8b; p=reject").is_none());
    /// ```
    pub fn parse(octets: &[u8]) -> Option<DmarcRecord> {
        let mut tags = octets.split(|b| *b == b';');
        let (name, version) = split_tag(tags.next()?)?;
        if !name.eq_ignore_ascii_case("v") || version != b"DMARC1" || !octets.first()?.is_ascii_alphabetic() {
            return None;
        }
        let mut record = DmarcRecord::default();
        let mut seen = [false; KNOWN.len()];
        for tag in tags.filter(|tag| !tag.trim_ascii().is_empty()) {
            let Some((name, value)) = split_tag(tag) else {
                record.ignore(&String::from_utf8_lossy(tag.trim_ascii()));
                continue;
            };
            // Of several tags of one name the first counts, even if it is the wrong one.
            let mut known = KNOWN.iter().zip(&mut seen);
            let known = known.find(|(known, _)| name.eq_ignore_ascii_case(known));
            let first = known.and_then(|(known, seen)| (!std::mem::replace(seen, true)).then_some(known));
            let value = std::str::from_utf8(value).ok().filter(|value| value.is_ascii());
            let taken = first.zip(value).is_some_and(|(name, value)| record.take(name, value));
            if !taken {
                record.ignore(&name.to_ascii_lowercase());
            }
        }
        Some(record)
    }

    fn ignore(&mut self, name: &str) {
        if self.ignored.len() < 64 {
            self.ignored.push(name.chars().take(64).collect());
        }
    }

    /// Takes a tag; whether it is one that counts.
    fn take(&mut self, name: &str, value: &str) -> bool {
        let is = |known: &str| value.eq_ignore_ascii_case(known);
        match name {
            "p" => self.p = PolicyTag::read(value),
            "sp" => self.sp = PolicyTag::read(value),
            "np" => self.np = PolicyTag::read(value),
            "adkim" | "aspf" => {
                let alignment = match value {
                    _ if is("r") => Alignment::Relaxed,
                    _ if is("s") => Alignment::Strict,
                    _ => return false,
                };
                *(if name == "aspf" { &mut self.aspf } else { &mut self.adkim }) = alignment;
            }
            "psd" => {
                self.psd = match value {
                    _ if is("y") => Psd::Yes,
                    _ if is("n") => Psd::No,
                    _ if is("u") => Psd::Unknown,
                    _ => return false,
                }
            }
            "t" if is("y") || is("n") => self.testing = is("y"),
            "fo" => return self.take_failure_options(value),
            "rua" => self.rua = ReportUris(value.into()),
            "ruf" => self.ruf = ReportUris(value.into()),
            "pct" => {
                if let Some(pct) = value.parse().ok().filter(|pct| *pct <= 100) {
                    self.pct = pct;
                }
                return false;
            }
            _ => return false,
        }
        true
    }

    fn take_failure_options(&mut self, value: &str) -> bool {
        let mut options = FailureOptions::default();
        let mut default = false;
        for option in value.split(':') {
            let slot = match option.trim() {
                "0" => &mut default,
                "1" => &mut options.any,
                "d" | "D" => &mut options.dkim,
                "s" | "S" => &mut options.spf,
                _ => return false,
            };
            if std::mem::replace(slot, true) {
                return false;
            }
        }
        // All mechanisms, or any: not both.
        if default && options.any {
            return false;
        }
        self.failure_options = options;
        true
    }

    /// The policy for a domain, or `None` if the record asks for no processing at all (RFC 9989 4.10.1): a wrong
    /// policy tag makes the record one of `p=none` if it asks for aggregate reports, and void if it does not.
    pub fn policy(&self, of: PolicyOf) -> Option<Policy> {
        if [self.p, self.sp, self.np].contains(&PolicyTag::Invalid) {
            return (!self.rua.is_empty()).then_some(Policy::None);
        }
        let own = self.p.valid().unwrap_or_default();
        let below = self.sp.valid().unwrap_or(own);
        Some(match of {
            PolicyOf::Itself => own,
            PolicyOf::Subdomain => below,
            PolicyOf::Missing => self.np.valid().unwrap_or(below),
        })
    }
}

/// Which of a record's policies applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyOf {
    /// `p`: the record is the author domain's own.
    Itself,
    /// `sp`, then `p`: the author domain lies below the record's.
    Subdomain,
    /// `np`, then `sp`, then `p`: it lies below and does not exist.
    Missing,
}

/// `name = value`, blanks around both left out.
fn split_tag(tag: &[u8]) -> Option<(&str, &[u8])> {
    let at = tag.iter().position(|b| *b == b'=')?;
    let (name, value) = tag.split_at(at);
    let name = std::str::from_utf8(name.trim_ascii()).ok()?;
    let letters = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
    letters.then_some((name, value.get(1..)?.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_version_makes_a_record() {
        for text in ["v=DMARC1", "v=DMARC1;", "V = DMARC1 ; p=none", "v=DMARC1;;p=none"] {
            assert!(DmarcRecord::parse(text.as_bytes()).is_some(), "{text}");
        }
        for text in [
            "",
            "v=dmarc1; p=none",
            "v=DMARC2",
            "v=DMARC1 p=none",
            "p=none; v=DMARC1",
            " v=DMARC1",
            "v=DMARC10",
        ] {
            assert!(DmarcRecord::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn wrong_tags_are_as_good_as_absent() {
        let record = DmarcRecord::parse(
            b"v=DMARC1; adkim=x; t=maybe; psd=q; pct=50; ri=1; p=none; p=reject; junk; \xff=1",
        )
        .unwrap();
        assert_eq!(record.policy(PolicyOf::Itself), Some(Policy::None));
        assert_eq!((record.adkim, record.testing, record.psd), (Alignment::Relaxed, false, Psd::Unknown));
        assert_eq!(record.pct, 50);
        assert_eq!(record.ignored, ["adkim", "t", "psd", "pct", "ri", "p", "junk", "\u{fffd}=1"]);
    }

    /// RFC 9989 4.7 and 4.10.1.
    #[test]
    fn policies_fall_back() {
        let policy = |text: &str, of| DmarcRecord::parse(text.as_bytes()).unwrap().policy(of);
        use Policy::*;
        use PolicyOf::*;
        for (text, of, expected) in [
            ("v=DMARC1; p=reject", Missing, Some(Reject)),
            ("v=DMARC1; p=reject; sp=quarantine", Missing, Some(Quarantine)),
            ("v=DMARC1; p=reject; sp=quarantine; np=none", Missing, Some(None)),
            ("v=DMARC1; p=reject; sp=quarantine; np=none", Subdomain, Some(Quarantine)),
            ("v=DMARC1; sp=quarantine; np=none", Itself, Some(None)),
            ("v=DMARC1; p=bogus", Itself, Option::None),
            ("v=DMARC1; p=bogus; rua=mailto:a@example.org", Itself, Some(None)),
            ("v=DMARC1; p=reject; sp=bogus; rua=mailto:a@example.org", Itself, Some(None)),
            ("v=DMARC1; p=reject; sp=bogus; rua=bogus", Itself, Option::None),
        ] {
            assert_eq!(policy(text, of), expected, "{text} {of:?}");
        }
    }

    /// RFC 9989 4.7 and 4.8: each option once, and not both of 0 and 1; what is wrong is as good as absent.
    #[test]
    fn failure_options_are_read_or_left_out() {
        let options = |fo: &str| {
            let record = DmarcRecord::parse(format!("v=DMARC1; fo={fo}").as_bytes()).unwrap();
            let FailureOptions { any, dkim, spf } = record.failure_options;
            (record.ignored.is_empty(), any, dkim, spf)
        };
        assert_eq!(options("0"), (true, false, false, false));
        assert_eq!(options("1"), (true, true, false, false));
        assert_eq!(options("d:S"), (true, false, true, true));
        for wrong in ["0:1", "d:d", "1:1", "x", "d:", "01"] {
            assert_eq!(options(wrong), (false, false, false, false), "{wrong}");
        }
    }

    #[test]
    fn report_uris_are_read() {
        let record = DmarcRecord::parse(
            b"v=DMARC1; rua=mailto:dmarc%2Brua@example.org!10m, https://example.org/r ,mailto:nobody,:x,a b:c",
        )
        .unwrap();
        let found: Vec<ReportUri> = record.rua.iter().collect();
        let uris: Vec<&str> = found.iter().map(|uri| uri.uri.as_str()).collect();
        assert_eq!(uris, ["mailto:dmarc%2Brua@example.org", "https://example.org/r"]);
        assert_eq!(found[0].mailbox().unwrap().to_string(), "dmarc+rua@example.org");
        assert_eq!(found[0].max_size, Some(10 << 20));
        assert_eq!(found[1].mailbox(), None);
        assert_eq!(ReportUri::read("mailto:a@example.org!99999999999999999999t"), None);
    }
}

//! MTA-STS: the policy of a domain, found by DNS and HTTPS, and kept.
//!
//! Invariant: a policy that is kept and not expired stands, whatever DNS and the web server say or fail to say,
//! until a newer one was fetched whole. If the store cannot tell whether there is one, the answer is
//! [`Found::Unknown`], never "none".
//!
//! Standards: RFC 8461 (3.1 TXT, 3.2 policy, 3.3 fetching, 4.1 matching, 5 applying, 10.2 sizes and times).
//!
//! Parts: finding and refreshing them is in finder.rs.
//!
//! Not here: what a policy demands of a session (policy), the HTTPS client (the embedder's [`Fetch`]).

mod finder;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postwright_core::{BoxFuture, Domain, Host, Record, Timestamp};

pub use finder::{Finder, Finding, PAUSE, REFRESH, REMEMBERED, find};

/// Longest policy in octets (RFC 8461 3.3 suggests 64 KiB).
pub const POLICY_MAX: usize = 64 * 1024;
/// Longest time for a fetch (RFC 8461 3.3 suggests one minute).
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest life of a policy in seconds: about a year (RFC 8461 3.2).
pub const MAX_AGE_MAX: u64 = 31_557_600;
/// Most `mx` lines of a policy.
const PATTERNS_MAX: usize = 256;

/// What a policy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Do not deliver to hosts that fail.
    Enforce,
    /// Deliver, and report failures.
    Testing,
    /// There is no policy any more.
    None,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What it asks for.
    pub mode: Mode,
    /// Mail hosts: names, or `*.` and a name for all that are one label longer.
    pub mx: Vec<Box<str>>,
    /// How long it lives, in seconds.
    pub max_age: u64,
}

/// The policy's text (RFC 8461 3.2): what [`Policy::parse`] reads.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        };
        writeln!(f, "version: STSv1\nmode: {mode}")?;
        self.mx.iter().try_for_each(|pattern| writeln!(f, "mx: {pattern}"))?;
        writeln!(f, "max_age: {}", self.max_age)
    }
}

/// Why a text is no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Longer than [`POLICY_MAX`], or not UTF-8.
    #[error("the policy is longer than 64 KiB or is not text")]
    Form,
    /// The version is missing or not STSv1.
    #[error("the policy does not say version: STSv1 (RFC 8461 3.2)")]
    Version,
    /// The mode is missing or unknown.
    #[error("the policy has no mode of enforce, testing or none (RFC 8461 3.2)")]
    Mode,
    /// max_age is missing or out of range.
    #[error("the policy has no max_age of 0 to 31557600 (RFC 8461 3.2)")]
    MaxAge,
    /// No mx, or one that is no host name pattern.
    #[error("the policy names no mail host, or one that is no name (RFC 8461 3.2)")]
    Mx,
}

impl Policy {
    /// Reads a policy: lines of `key: value`. Of a key that comes twice (other than mx) the first counts.
    ///
    /// # Errors
    /// It is no policy; the fault is the domain's.
    pub fn parse(text: &[u8]) -> Result<Policy, PolicyError> {
        if text.len() > POLICY_MAX {
            return Err(PolicyError::Form);
        }
        let text = std::str::from_utf8(text).map_err(|_| PolicyError::Form)?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim() {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" if mx.len() < PATTERNS_MAX => mx.push(pattern(value).ok_or(PolicyError::Mx)?),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(PolicyError::Version);
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(PolicyError::Mode),
        };
        let digits = max_age.filter(|text| text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit()));
        let max_age = digits.and_then(|text| text.parse().ok()).filter(|age| *age <= MAX_AGE_MAX);
        if mode != Mode::None && mx.is_empty() {
            return Err(PolicyError::Mx);
        }
        Ok(Policy { mode, mx, max_age: max_age.ok_or(PolicyError::MaxAge)? })
    }

    /// Whether the policy names a mail host (RFC 8461 4.1): a wildcard stands for exactly one label.
    pub fn names(&self, host: &Host) -> bool {
        let Some(host) = host.domain().map(Domain::as_str) else { return false };
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(rest) => host.split_once('.').is_some_and(|(_, parent)| parent == rest),
            None => **pattern == *host,
        })
    }
}

/// The pattern in lower case, if it is one.
fn pattern(text: &str) -> Option<Box<str>> {
    let (prefix, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    let domain: Domain = name.parse().ok()?;
    Some(format!("{prefix}{domain}").into())
}

/// The id of the TXT record at `_mta-sts`, if there is exactly one such record and it is well-formed (RFC 8461 3.1).
pub fn record_id(records: &[Record]) -> Option<Box<str>> {
    let texts =
        records.iter().filter_map(Record::text).filter_map(|text| String::from_utf8(text.into_owned()).ok());
    let mut ours =
        texts.filter(|text| text.split(';').next().is_some_and(|first| first.trim_end() == "v=STSv1"));
    let (text, None) = (ours.next()?, ours.next()) else { return None };
    let mut fields = text.split(';').skip(1).filter_map(|field| field.trim().split_once('='));
    let (_, id) = fields.find(|(key, _)| key.trim() == "id")?;
    let id = id.trim();
    let fits = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    fits.then(|| id.into())
}

/// An answer over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The status code of the one request; redirects are not followed.
    pub status: u16,
    /// The Content-Type.
    pub content_type: Box<str>,
    /// The body; at most the octets that were asked for, and one more if there are more.
    pub body: Vec<u8>,
}

/// Gets pages over HTTPS: the seam to an HTTP client.
///
/// The certificate must be verified against the web's roots for the URL's host. Redirects must not be followed, and
/// no more than `limit` octets and `timeout` of time be spent.
pub trait Fetch: Send + Sync {
    /// Gets `url`.
    fn get<'a>(
        &'a self,
        url: &'a str,
        limit: usize,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Fetched, FetchError>>;
}

/// Why a document was not fetched, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The web server's certificate is bad.
    #[error("the web server's certificate is bad: {0}")]
    Certificate(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A policy as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The policy.
    pub policy: Policy,
    /// The id that it was fetched under.
    pub id: Box<str>,
    /// When it was fetched.
    pub at: Timestamp,
}

impl Kept {
    fn is_alive(&self, now: Timestamp) -> bool {
        now.since(self.at) < Duration::from_secs(self.policy.max_age)
    }
}

/// Keeps policies over restarts. A failure is an error in words, and never the same as "nothing kept".
pub trait Store: Send + Sync {
    /// What is kept for a domain.
    fn load<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Option<Kept>, String>>;

    /// Keeps a policy in place of an older one.
    fn save<'a>(&'a self, domain: &'a Domain, kept: &'a Kept) -> BoxFuture<'a, Result<(), String>>;

    /// The domains of which something is kept.
    fn domains(&self) -> BoxFuture<'_, Result<Vec<Domain>, String>>;
}

/// A [`Store`] in memory: for tests, and where a restart may forget.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Mutex<BTreeMap<Domain, Kept>>,
}

impl Store for MemoryStore {
    fn load<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Option<Kept>, String>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(domain).cloned();
        Box::pin(async { Ok(kept) })
    }

    fn save<'a>(&'a self, domain: &'a Domain, kept: &'a Kept) -> BoxFuture<'a, Result<(), String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(domain.clone(), kept.clone());
        Box::pin(async { Ok(()) })
    }

    fn domains(&self) -> BoxFuture<'_, Result<Vec<Domain>, String>> {
        let domains = self.kept.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        Box::pin(async { Ok(domains) })
    }
}

/// Why a policy that DNS announces cannot be had, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// It cannot be fetched.
    #[error("{0}")]
    Fetch(String),
    /// The web server's certificate is bad.
    #[error("{0}")]
    Certificate(String),
    /// What was fetched is no policy.
    #[error("{0}")]
    Invalid(String),
}

/// What is known of a domain's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It has none.
    None,
    /// This one.
    Policy(Policy),
    /// It may have one: mail to it waits. Why.
    Unknown(Box<str>),
}

//! The shape of the configuration file, its defaults, and the default file with comments.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use postwright_core::{Domain, Host, Mailbox};
use serde::{Deserialize, Deserializer, de, de::Error as _};

use super::Network;
use super::limits::Limits;
use super::listen::{AccountsConfig, Dnsbl, Greylist, Listener, Role};
use super::redis::RedisServer;
use super::reports::Reports;
use super::route::{ClassOf, Credentials, RouteTo, TlsLevel};

/// What `postwright config print-default` prints: every key with its default.
pub(crate) const DEFAULT_TEXT: &str = include_str!("default.toml");

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    #[serde(deserialize_with = "from_text")]
    pub(crate) hostname: Domain,
    pub(crate) spool: SpoolConfig,
    pub(crate) listen: Vec<Listener>,
    pub(crate) relay: Relay,
    pub(crate) delivery: Delivery,
    pub(crate) retry: Retry,
    pub(crate) limits: Limits,
    pub(crate) dns: Dns,
    pub(crate) authentication: Authentication,
    pub(crate) reports: Reports,
    pub(crate) dkim: Vec<DkimKey>,
    pub(crate) arc: Option<ArcKey>,
    pub(crate) route: Vec<RouteTo>,
    pub(crate) credentials: Vec<Credentials>,
    pub(crate) class: Vec<ClassOf>,
    pub(crate) feedback: Feedback,
    pub(crate) tls_reports: Option<TlsReports>,
    pub(crate) control: Control,
    pub(crate) accounts: AccountsConfig,
    pub(crate) greylist: Greylist,
    pub(crate) dnsbl: Vec<Dnsbl>,
    /// `[limits]` as written: what was not written is left to the roles.
    #[serde(skip)]
    pub(crate) written_limits: toml::Table,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            hostname: "localhost".parse().expect("a literal domain"),
            spool: SpoolConfig::default(),
            listen: vec![Listener::new(SocketAddr::from(([127, 0, 0, 1], 2525)), Role::default())],
            relay: Relay::default(),
            delivery: Delivery::default(),
            retry: Retry::default(),
            limits: Limits::default(),
            dns: Dns::default(),
            authentication: Authentication::default(),
            reports: Reports::default(),
            dkim: Vec::new(),
            arc: None,
            route: Vec::new(),
            credentials: Vec::new(),
            class: Vec::new(),
            feedback: Feedback::default(),
            tls_reports: None,
            control: Control::default(),
            accounts: AccountsConfig::default(),
            greylist: Greylist::default(),
            dnsbl: Vec::new(),
            written_limits: toml::Table::new(),
        }
    }
}

/// What comes back about mail that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Feedback {
    pub(crate) store: Option<PathBuf>,
    #[serde(deserialize_with = "from_text_maybe")]
    pub(crate) domain: Option<Domain>,
    pub(crate) keys: Option<PathBuf>,
    #[serde(deserialize_with = "from_span")]
    pub(crate) hold: Duration,
    pub(crate) complaints: Vec<String>,
    pub(crate) notifications_per_hour: u64,
}

impl Default for Feedback {
    fn default() -> Self {
        Feedback {
            store: None,
            domain: None,
            keys: None,
            hold: Duration::from_secs(30 * 86_400),
            complaints: ["fbl", "abuse", "postmaster"].map(str::to_owned).to_vec(),
            notifications_per_hour: 100,
        }
    }
}

/// How an operator reaches the running MTA.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Control {
    pub(crate) socket: Option<PathBuf>,
}

/// Where DNS answers come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dns {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) zone: Option<PathBuf>,
    pub(crate) validate: bool,
    pub(crate) trust_anchors: Option<PathBuf>,
    pub(crate) at_a_time: usize,
    pub(crate) per_second: u32,
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            servers: Vec::new(),
            zone: None,
            validate: false,
            trust_anchors: None,
            at_a_time: 128,
            per_second: 1000,
        }
    }
}

/// What is done with mail from strangers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Authentication {
    pub(crate) check: bool,
    pub(crate) dmarc: Dmarc,
}

impl Default for Authentication {
    fn default() -> Self {
        Authentication { check: true, dmarc: Dmarc::default() }
    }
}

/// How far DMARC policies of others are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dmarc {
    #[default]
    Observe,
    Mark,
    Reject,
}

/// Reports to other domains about TLS (RFC 8460).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsReports {
    pub(crate) organization: String,
    pub(crate) contact: String,
    #[serde(deserialize_with = "from_mailbox")]
    pub(crate) from: Mailbox,
    pub(crate) file: PathBuf,
}

/// A key that signs for a domain, or a rotation that says which one does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DkimKey {
    #[serde(deserialize_with = "from_text")]
    pub(crate) domain: Domain,
    pub(crate) selector: Option<String>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) rotation: Option<PathBuf>,
    pub(crate) tenant: Option<String>,
    #[serde(default)]
    pub(crate) from: Vec<Network>,
}

impl DkimKey {
    pub(super) fn check(&self) -> Result<(), String> {
        let domain = &self.domain;
        match (&self.selector, &self.key, &self.rotation) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => {}
            _ => return Err(format!("[[dkim]] for {domain} has either selector and key, or rotation")),
        }
        if self.tenant.is_some() == self.from.is_empty() {
            return Err(format!(
                "[[dkim]] for {domain}: tenant says whose key it is, and from where it sends; give both"
            ));
        }
        Ok(())
    }
}

/// The key that seals what is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArcKey {
    #[serde(deserialize_with = "from_text")]
    pub(crate) domain: Domain,
    pub(crate) selector: String,
    pub(crate) key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SpoolConfig {
    pub(crate) path: PathBuf,
    #[serde(deserialize_with = "from_size")]
    pub(crate) min_free: u64,
    pub(crate) relaxed: bool,
    pub(crate) postgres: Option<String>,
    pub(crate) postgres_roots: Option<PathBuf>,
    pub(crate) node: Option<String>,
    #[serde(deserialize_with = "from_span")]
    pub(crate) lease: Duration,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        SpoolConfig {
            path: PathBuf::from("/var/spool/postwright"),
            min_free: 256 << 20,
            relaxed: false,
            postgres: None,
            postgres_roots: None,
            node: None,
            lease: Duration::from_secs(60),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Relay {
    pub(crate) from: Vec<Network>,
    #[serde(deserialize_with = "from_texts")]
    pub(crate) domains: Vec<Domain>,
    pub(crate) recipients: Option<PathBuf>,
}

impl Default for Relay {
    /// Loopback only.
    fn default() -> Self {
        let network = |text: &str| text.parse().expect("a literal network");
        Relay {
            from: vec![network("127.0.0.0/8"), network("::1/128")],
            domains: Vec::new(),
            recipients: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Delivery {
    pub(crate) smart_host: Option<SmartHost>,
    pub(crate) smart_host_tls: Option<TlsLevel>,
    pub(crate) smart_host_credentials: Option<String>,
    pub(crate) roots: Option<PathBuf>,
    pub(crate) connections: usize,
    pub(crate) connections_per_site: usize,
    #[serde(deserialize_with = "from_size")]
    pub(crate) bodies: u64,
    pub(crate) assume_delivered: bool,
    pub(crate) port: u16,
    pub(crate) private_addresses: bool,
    pub(crate) shaping: Option<PathBuf>,
    pub(crate) shaping_state: Option<PathBuf>,
    pub(crate) shaping_redis: Option<RedisServer>,
    pub(crate) shaping_nodes: u32,
    pub(crate) shaping_node: u32,
    pub(crate) mta_sts: Option<PathBuf>,
}

impl Default for Delivery {
    fn default() -> Self {
        Delivery {
            smart_host: None,
            smart_host_tls: None,
            smart_host_credentials: None,
            roots: None,
            connections: 200,
            connections_per_site: 10,
            bodies: 256 << 20,
            assume_delivered: false,
            port: 25,
            private_addresses: false,
            shaping: None,
            shaping_state: None,
            shaping_redis: None,
            shaping_nodes: 1,
            shaping_node: 0,
            mta_sts: None,
        }
    }
}

/// A host and a port that all mail goes to: `relay.example.org:587` or `127.0.0.1:2526`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SmartHost {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl TryFrom<String> for SmartHost {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for SmartHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(SmartHost { host: Host::Literal(address.ip()), port: address.port() });
        }
        let wrong =
            || format!("{text:?} is not a smart host; write it like relay.example.org:587 or 192.0.2.1:25");
        let (host, port) = text.rsplit_once(':').unwrap_or((text, "25"));
        Ok(SmartHost { host: host.parse().map_err(|_| wrong())?, port: port.parse().map_err(|_| wrong())? })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retry {
    #[serde(deserialize_with = "from_span")]
    pub(crate) first: Duration,
    #[serde(deserialize_with = "from_span")]
    pub(crate) longest: Duration,
    #[serde(deserialize_with = "from_span")]
    pub(crate) lifetime: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            first: Duration::from_secs(5 * 60),
            longest: Duration::from_secs(4 * 3600),
            lifetime: Duration::from_secs(5 * 86_400),
        }
    }
}

impl Retry {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.first > self.longest {
            return Err("retry.first is longer than retry.longest; lower one or raise the other".to_owned());
        }
        if self.first.is_zero() {
            return Err("retry.first is zero: a refused message would be tried without a pause".to_owned());
        }
        if self.lifetime < self.first {
            return Err(
                "retry.lifetime is shorter than retry.first: no message would be tried twice".to_owned()
            );
        }
        Ok(())
    }
}

/// `Domain`s, through their `FromStr`.
fn from_text<'de, D: Deserializer<'de>>(input: D) -> Result<Domain, D::Error> {
    parse(&String::deserialize(input)?)
}

fn from_text_maybe<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Domain>, D::Error> {
    parse(&String::deserialize(input)?).map(Some)
}

fn from_mailbox<'de, D: Deserializer<'de>>(input: D) -> Result<Mailbox, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map_err(|error| de::Error::custom(format!("{text:?}: {error}")))
}

pub(super) fn from_texts<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Domain>, D::Error> {
    Vec::<String>::deserialize(input)?.iter().map(|text| parse(text)).collect()
}

fn parse<E: de::Error>(text: &str) -> Result<Domain, E> {
    text.parse().map_err(|error| E::custom(format!("{text:?}: {error}")))
}

pub(super) fn from_address<'de, D: Deserializer<'de>>(input: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map_err(|_| {
        de::Error::custom(format!("{text:?} is not an address; write it like 127.0.0.1:2525 or [::1]:2525"))
    })
}

/// Spans such as `90s`, `5m`, `4h`, `5d`.
pub(super) fn from_span<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    span(&String::deserialize(input)?).map_err(D::Error::custom)
}

/// A span such as `90s`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    number_with_unit(text, &units)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a span; write it like 90s, 5m, 4h or 5d"))
}

/// Sizes such as `512 MiB`; a bare number is octets.
pub(super) fn from_size<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let text = String::deserialize(input)?;
    let units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    number_with_unit(&text, &units).ok_or_else(|| wrong(&text, "a size", "64 KiB, 50 MiB or 1 GiB"))
}

fn wrong<E: de::Error>(text: &str, what: impl fmt::Display, like: &str) -> E {
    E::custom(format!("{text:?} is not {what}; write it like {like}"))
}

fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = (text[..digits].parse::<u64>().ok()?, text[digits..].trim());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

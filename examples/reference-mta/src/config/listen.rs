//! `[[listen]]`, `[accounts]`, `[greylist]` and `[[dnsbl]]`: who may connect, how, and what is asked of them.
//!
//! Invariant: a submission listener that [`check`] lets pass takes nothing before TLS and a login; a client is asked
//! for a certificate only where it is said which are believed.
//!
//! Not here: what the values do (`listener/`, `guards/`).

use std::net::SocketAddr;
use std::path::PathBuf;

use postwright_core::{Domain, Name};
use serde::{Deserialize, Deserializer, de};

use super::limits::{Count, Span};
use super::{Config, Limits, Network, schema};

/// One `[[listen]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    #[serde(deserialize_with = "schema::from_address")]
    pub(crate) address: SocketAddr,
    #[serde(default)]
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
    #[serde(default)]
    pub(crate) reuse_port: bool,
    #[serde(default = "yes")]
    pub(crate) dual_stack: bool,
    #[serde(default)]
    pub(crate) proxy_from: Vec<Network>,
    #[serde(default)]
    pub(crate) xclient_from: Vec<Network>,
    #[serde(default)]
    pub(crate) xforward_from: Vec<Network>,
    #[serde(default)]
    pub(crate) limits: toml::Table,
}

impl Listener {
    pub(crate) fn new(address: SocketAddr, role: Role) -> Listener {
        Listener {
            address,
            role,
            tls: None,
            reuse_port: false,
            dual_stack: true,
            proxy_from: Vec::new(),
            xclient_from: Vec::new(),
            xforward_from: Vec::new(),
            limits: toml::Table::new(),
        }
    }
}

fn yes() -> bool {
    true
}

/// Whose mail a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Mail for our domains from anybody, and for anybody from our networks.
    #[default]
    Mx,
    /// Mail for anybody from whoever logged in (RFC 6409).
    Submission,
    /// Mail from our networks only.
    Relay,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    #[serde(default)]
    pub(crate) mode: TlsMode,
    /// Clear text is refused; by default on submission only.
    pub(crate) required: Option<bool>,
    /// Session tickets; by default on submission only.
    pub(crate) tickets: Option<bool>,
    #[serde(default)]
    pub(crate) more: Vec<Certificate>,
    #[serde(default)]
    pub(crate) clients: Clients,
    pub(crate) client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsMode {
    #[default]
    Starttls,
    Implicit,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Clients {
    #[default]
    Off,
    Ask,
    Require,
}

/// Another certificate, for clients that ask for one of these names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    #[serde(deserialize_with = "schema::from_texts")]
    pub(crate) names: Vec<Domain>,
}

/// `[accounts]`: who may log in on submission listeners.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccountsConfig {
    pub(crate) file: Option<PathBuf>,
    pub(crate) mechanisms: Vec<MechanismName>,
    pub(crate) failures_per_ip: Count,
    pub(crate) failures_per_account: Count,
    pub(crate) lockout: Span,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        let mechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"];
        AccountsConfig {
            file: None,
            mechanisms: mechanisms.map(|name| MechanismName(name.to_owned())).to_vec(),
            failures_per_ip: Count(20),
            failures_per_account: Count(10),
            lockout: Span(15 * 60_000),
        }
    }
}

/// A mechanism that a file of accounts can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MechanismName(pub(crate) String);

impl<'de> Deserialize<'de> for MechanismName {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        const SERVED: [&str; 4] = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"];
        let name = String::deserialize(input)?;
        match SERVED.contains(&name.as_str()) {
            true => Ok(MechanismName(name)),
            false => Err(de::Error::unknown_variant(&name, &SERVED)),
        }
    }
}

/// `[greylist]`: strangers are asked to come again, which robots seldom do (RFC 6647).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Greylist {
    pub(crate) enabled: bool,
    pub(crate) delay: Span,
    pub(crate) window: Span,
    pub(crate) remember: Span,
    pub(crate) entries: Count,
    pub(crate) file: Option<PathBuf>,
}

impl Default for Greylist {
    fn default() -> Self {
        Greylist {
            enabled: false,
            delay: Span(5 * 60_000),
            window: Span(86_400_000),
            remember: Span(36 * 86_400_000),
            entries: Count(100_000),
            file: None,
        }
    }
}

/// One `[[dnsbl]]`: a list of addresses in DNS (RFC 5782) whose mail is refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dnsbl {
    #[serde(deserialize_with = "from_name")]
    pub(crate) zone: Name,
    #[serde(default = "Dnsbl::timeout")]
    pub(crate) timeout: Span,
    #[serde(default = "Dnsbl::failures")]
    pub(crate) failures: Count,
    #[serde(default = "Dnsbl::pause")]
    pub(crate) pause: Span,
    #[serde(default = "Dnsbl::look_ups")]
    pub(crate) look_ups: Count,
}

impl Dnsbl {
    fn timeout() -> Span {
        Span(3000)
    }

    fn failures() -> Count {
        Count(5)
    }

    fn pause() -> Span {
        Span(30_000)
    }

    fn look_ups() -> Count {
        Count(100)
    }
}

fn from_name<'de, D: Deserializer<'de>>(input: D) -> Result<Name, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map_err(|error| de::Error::custom(format!("{text:?} is not a zone: {error}")))
}

/// What the types cannot rule out. `common` is `[limits]` as written.
pub(super) fn check(config: &Config, common: &toml::Table) -> Result<(), String> {
    for (i, listener) in config.listen.iter().enumerate() {
        let at = |what: &str| format!("the [[listen]] section {}: {what}", listener.address);
        let same = |other: &&Listener| other.address == listener.address && listener.address.port() != 0;
        if config
            .listen
            .iter()
            .take(i)
            .find(same)
            .is_some_and(|other| !(other.reuse_port && listener.reuse_port))
        {
            return Err(format!(
                "two [[listen]] sections have the address {}; leave one out",
                listener.address
            ));
        }
        if let Some(other) = config.listen.iter().find(|other| covers(other, listener)) {
            return Err(at(&format!(
                "{} has this port on all addresses already; leave one out",
                other.address
            )));
        }
        let limits = Limits::of(listener.role, common, &listener.limits).map_err(|what| at(&what))?;
        limits.check("limits").map_err(|what| at(&what))?;
        if listener.role == Role::Submission {
            if listener.tls.as_ref().is_none_or(|tls| tls.required == Some(false)) {
                return Err(at(
                    "role \"submission\" needs tls = { certificate = \"...\", key = \"...\" } that is required: \
                     passwords must not travel in clear",
                ));
            }
            if config.accounts.file.is_none() {
                return Err(at(
                    "role \"submission\" needs [accounts] file = \"...\"; see `postwright accounts hash`",
                ));
            }
        }
        for networks in [&listener.proxy_from, &listener.xclient_from, &listener.xforward_from] {
            if let Some(wide) = networks.iter().find(|network| network.open_relay().is_some()) {
                return Err(at(&format!(
                    "{wide} may state any client's address: name your proxies, not everybody"
                )));
            }
        }
        if let Some(tls) = &listener.tls {
            check_tls(tls).map_err(|what| at(&what))?;
        }
    }
    check_guards(config)
}

/// Whether one listener takes the port of another, by listening on all addresses.
fn covers(all: &Listener, one: &Listener) -> bool {
    let family = all.address.is_ipv4() == one.address.is_ipv4() || (all.address.is_ipv6() && all.dual_stack);
    all.address != one.address
        && all.address.port() == one.address.port()
        && one.address.port() != 0
        && all.address.ip().is_unspecified()
        && family
        && !(all.reuse_port && one.reuse_port)
}

fn check_tls(tls: &Tls) -> Result<(), String> {
    if (tls.clients == Clients::Off) != tls.client_ca.is_none() {
        return Err("tls.clients = \"ask\" or \"require\" and tls.client_ca go together".to_owned());
    }
    match tls.more.iter().find(|more| more.names.is_empty()) {
        Some(more) => Err(format!("tls.more: {} has no names to be shown for", more.certificate.display())),
        None => Ok(()),
    }
}

fn check_guards(config: &Config) -> Result<(), String> {
    let within = |key: &str, value: u64, least: u64, most: u64, shown: &str| {
        if (least..=most).contains(&value) { Ok(()) } else { Err(format!("{key} is not {shown}")) }
    };
    let (accounts, greylist) = (&config.accounts, &config.greylist);
    within("accounts.failures_per_ip", accounts.failures_per_ip.0, 1, 1_000_000, "from 1 to 1000000")?;
    within(
        "accounts.failures_per_account",
        accounts.failures_per_account.0,
        1,
        1_000_000,
        "from 1 to 1000000",
    )?;
    within("accounts.lockout", accounts.lockout.0, 1000, 86_400_000, "from 1s to 1d")?;
    if accounts.mechanisms.is_empty() {
        return Err("accounts.mechanisms is empty: nobody could log in".to_owned());
    }
    within("greylist.delay", greylist.delay.0, 1000, 86_400_000, "from 1s to 1d")?;
    within(
        "greylist.window",
        greylist.window.0,
        greylist.delay.0 + 1000,
        30 * 86_400_000,
        "longer than greylist.delay, up to 30d",
    )?;
    within(
        "greylist.remember",
        greylist.remember.0,
        greylist.window.0,
        400 * 86_400_000,
        "from greylist.window to 400d",
    )?;
    within("greylist.entries", greylist.entries.0, 100, 10_000_000, "from 100 to 10000000")?;
    for list in &config.dnsbl {
        let key = |name: &str| format!("dnsbl {}: {name}", list.zone);
        within(&key("timeout"), list.timeout.0, 100, 30_000, "from 100ms to 30s")?;
        within(&key("failures"), list.failures.0, 1, 1000, "from 1 to 1000")?;
        within(&key("pause"), list.pause.0, 1000, 3_600_000, "from 1s to 1h")?;
        within(&key("look_ups"), list.look_ups.0, 1, 100_000, "from 1 to 100000")?;
    }
    Ok(())
}

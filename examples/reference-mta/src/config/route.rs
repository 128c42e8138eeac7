//! `[[route]]`, `[[credentials]]` and `[[class]]`: which mail goes where, with which account.
//!
//! Invariant: routes that [`check`] lets pass can each be reached, and no credentials of theirs leave without verified
//! TLS, unless the file says so and the server is on this machine.
//!
//! Not here: what routes do (the library), reading secrets (`relay_accounts.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use postwright::core::{Domain, Host, SystemEntropy};
use postwright::shaping::Rate;
use postwright::smtp_client::policy::Level;
use postwright::smtp_proto::sasl::{Mechanism, Secret};
use postwright::{Credential, DomainPattern, RelayAccount, RouteRule, Routes, SenderPattern, Via};
use serde::{Deserialize, Deserializer, de};

use super::complaint::nearest_of;
use super::schema::SmartHost;
use super::{Config, Network};

/// Where some mail goes: everything that is given must fit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteTo {
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) sender: OneOrMore<SenderPattern>,
    #[serde(default)]
    pub(crate) domain: OneOrMore<DomainPattern>,
    #[serde(default)]
    pub(crate) tenant: OneOrMore<String>,
    #[serde(default)]
    pub(crate) stream: OneOrMore<String>,
    pub(crate) host: Option<SmartHost>,
    pub(crate) lmtp: Option<Lmtp>,
    #[serde(default)]
    pub(crate) mx: bool,
    pub(crate) tls: Option<TlsLevel>,
    pub(crate) credentials: Option<String>,
    pub(crate) connections: Option<u32>,
    pub(crate) messages_per_connection: Option<u32>,
    pub(crate) rate: Option<RateText>,
}

/// An account at a smart host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) password_env: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) mechanisms: OneOrMore<MechanismName>,
    #[serde(default)]
    pub(crate) clear_on_loopback: bool,
}

/// Whose mail some mail of ours is, and of which kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassOf {
    #[serde(default)]
    pub(crate) tenant: String,
    #[serde(default)]
    pub(crate) stream: String,
    #[serde(default)]
    pub(crate) from: Vec<Network>,
    #[serde(default)]
    pub(crate) sender: OneOrMore<SenderPattern>,
}

/// What is asked of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsLevel {
    Never,
    Opportunistic,
    Encrypted,
    Verified,
}

impl From<TlsLevel> for Level {
    fn from(level: TlsLevel) -> Level {
        match level {
            TlsLevel::Never => Level::Never,
            TlsLevel::Opportunistic => Level::Opportunistic,
            TlsLevel::Encrypted => Level::Encrypted,
            TlsLevel::Verified => Level::Verified,
        }
    }
}

/// A mail store that speaks LMTP: `unix:/run/lmtp` or `127.0.0.1:24`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Lmtp {
    Socket(PathBuf),
    Host(SmartHost),
}

impl TryFrom<String> for Lmtp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a mail store; write it like unix:/run/lmtp or 127.0.0.1:24");
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Lmtp::Socket(PathBuf::from(path))),
            Some(_) => Err(wrong()),
            // LMTP has no port of its own, so it must be named; 25 is SMTP's (RFC 2033 5).
            None => match text.parse::<SmartHost>() {
                Ok(host) if text.contains(':') && host.port != 25 => Ok(Lmtp::Host(host)),
                _ => Err(wrong()),
            },
        }
    }
}

/// A rate such as `100/min`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RateText(pub(crate) Rate);

impl<'de> Deserialize<'de> for RateText {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let rate =
            text.parse().map_err(|error| de::Error::custom(format!("{text:?} is not a rate: {error}")));
        rate.map(RateText)
    }
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MechanismName(pub(crate) Mechanism);

impl FromStr for MechanismName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Mechanism::ALL.map(Mechanism::as_str);
        let known = || format!("is not a mechanism; there are {}", names.join(", "));
        Mechanism::from_name(text).map(MechanismName).ok_or_else(known)
    }
}

/// A value, or a list of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOrMore<T>(pub(crate) Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        OneOrMore(Vec::new())
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Texts<T>(PhantomData<T>);
        impl<'de, T: FromStr<Err: fmt::Display>> de::Visitor<'de> for Texts<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                parsed(text).map(|value| OneOrMore(vec![value]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut texts: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(text) = texts.next_element::<String>()? {
                    values.push(parsed(&text)?);
                }
                match values.is_empty() {
                    true => Err(de::Error::custom(
                        "an empty list fits nothing; leave the key out to let anything fit",
                    )),
                    false => Ok(OneOrMore(values)),
                }
            }
        }
        input.deserialize_any(Texts(PhantomData))
    }
}

fn parsed<T: FromStr<Err: fmt::Display>, E: de::Error>(text: &str) -> Result<T, E> {
    text.parse().map_err(|error| E::custom(format!("{text:?}: {error}")))
}

impl RouteTo {
    fn via(&self) -> Result<Via, String> {
        let smart = |SmartHost { host, port }: SmartHost, tls| Via::SmartHost { host, port, tls };
        // Who logs in wants to know where.
        let usual = if self.credentials.is_some() { TlsLevel::Verified } else { TlsLevel::Opportunistic };
        let tls = self.tls.unwrap_or(usual).into();
        match (self.host.clone(), self.lmtp.clone(), self.mx) {
            (Some(host), None, false) => Ok(smart(host, tls)),
            (None, Some(Lmtp::Host(SmartHost { host, port })), false) => Ok(Via::Lmtp { host, port, tls }),
            (None, Some(Lmtp::Socket(path)), false) if self.tls.is_none() => Ok(Via::LmtpSocket(path)),
            (None, None, true) if self.tls.is_none() => Ok(Via::Mx),
            (None, Some(_), false) => Err("a UNIX socket has no TLS; leave tls out".to_owned()),
            (None, None, true) => {
                Err("with mx, TLS is decided by what the receiver publishes; leave tls out".to_owned())
            }
            _ => Err("needs either host or lmtp, or mx = true".to_owned()),
        }
    }

    /// Whether it has limits of its own.
    pub(crate) fn is_limited(&self) -> bool {
        self.connections.is_some() || self.messages_per_connection.is_some() || self.rate.is_some()
    }

    fn check(&self, names: &[&str]) -> Result<(), String> {
        if self.via()? == Via::Mx && self.name.is_some() {
            return Err("a route by MX has as many sites as there are receivers: it needs no name".to_owned());
        }
        if self.is_limited() && self.name.is_none() {
            return Err(
                "connections, messages_per_connection and rate are counted by name: add name = \"...\""
                    .to_owned(),
            );
        }
        if self.is_limited() && self.lmtp.is_some() {
            return Err(
                "a mail store is limited by delivery.connections_per_site; leave the limits out".to_owned()
            );
        }
        if self.connections == Some(0) || self.messages_per_connection == Some(0) {
            return Err("a limit of 0 lets nothing through; the least is 1".to_owned());
        }
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if let Some(name) = self.name.as_ref().filter(|name| name.is_empty() || !name.chars().all(is_fine)) {
            return Err(format!(
                "{name:?} is no name: letters, digits, hyphens, dots and underscores make one"
            ));
        }
        match &self.credentials {
            Some(account) if !names.contains(&account.as_str()) => Err(unknown_account(account, names)),
            _ => Ok(()),
        }
    }

    fn rule(&self, accounts: &Accounts) -> Result<RouteRule, String> {
        let rule = RouteRule::new(self.via()?)
            .for_senders(self.sender.0.iter().cloned())
            .for_domains(self.domain.0.iter().cloned());
        let rule = self.tenant.0.iter().fold(rule, |rule, name| rule.for_tenant(name));
        let rule = self.stream.0.iter().fold(rule, |rule, name| rule.for_stream(name));
        let rule = self.name.iter().fold(rule, |rule, name| rule.named(name));
        let account = self.credentials.as_ref().and_then(|name| accounts.get(name));
        Ok(account.into_iter().fold(rule, |rule, account| rule.with_account(account.clone())))
    }
}

fn unknown_account(account: &str, names: &[&str]) -> String {
    let what = format!("there is no [[credentials]] section with the name {account:?}");
    match nearest_of(account, names.iter().copied()) {
        Some(near) => format!("{what}; did you mean {near:?}?"),
        None => format!("{what}; add one"),
    }
}

/// Accounts at smart hosts by their names.
pub(crate) type Accounts = BTreeMap<String, Arc<RelayAccount>>;

impl Credentials {
    fn check(&self) -> Result<(), String> {
        let secrets = [self.password_file.is_some(), self.password_env.is_some(), self.token_file.is_some()];
        if secrets.iter().filter(|given| **given).count() != 1 {
            return Err("has one secret: password_file, password_env or token_file".to_owned());
        }
        if self.user.is_empty() || self.user.chars().any(char::is_control) {
            return Err(format!("{:?} is no user name", self.user));
        }
        let credential = match self.token_file {
            Some(_) => postwright::smtp_proto::sasl::client::Credentials::Token {
                user: "".into(),
                token: Secret::new(""),
            },
            None => postwright::smtp_proto::sasl::client::Credentials::Password {
                user: "".into(),
                password: Secret::new(""),
            },
        };
        match self.mechanisms.0.iter().find(|name| !credential.fit(name.0)) {
            Some(name) if self.token_file.is_some() => {
                Err(format!("{} takes a password, not a token", name.0))
            }
            Some(name) => Err(format!("{} does not take a password", name.0)),
            None => Ok(()),
        }
    }
}

/// The routes of a configuration; those of accounts that are not there have none.
///
/// # Errors
/// What is wrong with the first route that is: `[[route]] N: what`.
pub(crate) fn routes(config: &Config, accounts: &Accounts) -> Result<Routes, String> {
    let mut routes = Routes::mx();
    for (index, route) in config.route.iter().enumerate() {
        routes = routes.with(route.rule(accounts).map_err(|what| at("route", index, &what))?);
    }
    if let Some(SmartHost { host, port }) = config.delivery.smart_host.clone() {
        let usual = if config.delivery.smart_host_credentials.is_some() {
            TlsLevel::Verified
        } else {
            TlsLevel::Opportunistic
        };
        let tls = config.delivery.smart_host_tls.unwrap_or(usual).into();
        let rule = RouteRule::new(Via::SmartHost { host, port, tls });
        let account = config.delivery.smart_host_credentials.as_ref().and_then(|name| accounts.get(name));
        routes = routes
            .or_else(account.into_iter().fold(rule, |rule, account| rule.with_account(account.clone())));
    }
    let count = config.route.len();
    match routes.check() {
        Err(fault) if fault.index < count => Err(at("route", fault.index, &fault.why)),
        Err(fault) => Err(format!("delivery.smart_host {}", fault.why)),
        Ok(()) => Ok(routes),
    }
}

/// What the types cannot rule out.
pub(super) fn check(config: &Config) -> Result<(), String> {
    let mut accounts = Accounts::new();
    for (index, account) in config.credentials.iter().enumerate() {
        account.check().map_err(|what| at("credentials", index, &what))?;
        let nobody = Credential::password("", Secret::new(""));
        let mut stand_in = RelayAccount::new(&account.name, nobody, Arc::new(SystemEntropy));
        if account.clear_on_loopback {
            stand_in = stand_in.clear_on_loopback();
        }
        if accounts.insert(account.name.clone(), Arc::new(stand_in)).is_some() {
            return Err(at("credentials", index, &format!("there are two with the name {:?}", account.name)));
        }
    }
    let names: Vec<&str> = accounts.keys().map(String::as_str).collect();
    for (index, route) in config.route.iter().enumerate() {
        route.check(&names).map_err(|what| at("route", index, &what))?;
    }
    check_smart_host(config, &names)?;
    let routes = routes(config, &accounts)?;
    if config.delivery.smart_host.is_some() && routes.list().iter().any(|rule| rule.is_for_all()) {
        return Err("delivery.smart_host is never used: the last [[route]] takes all mail; drop one of them"
            .to_owned());
    }
    let lost = |domain: &&Domain| {
        let all =
            RouteRule::new(Via::Mx).for_domains([DomainPattern::Exactly(Host::Domain((*domain).clone()))]);
        !routes.list().iter().any(|rule| *rule.via() != Via::Mx && rule.covers(&all))
    };
    // Mail for our own domains must have somewhere to go, whoever writes: their MX is this host.
    match config.relay.domains.iter().find(lost) {
        Some(domain) if config.delivery.smart_host.is_none() => Err(format!(
            "relay.domains has {domain}, and nothing says where its mail goes: add [[route]] domain = \"{domain}\", \
             host = \"HOST:PORT\""
        )),
        _ => check_classes(config),
    }
}

fn check_smart_host(config: &Config, names: &[&str]) -> Result<(), String> {
    let delivery = &config.delivery;
    if delivery.smart_host.is_none()
        && (delivery.smart_host_tls.is_some() || delivery.smart_host_credentials.is_some())
    {
        return Err(
            "delivery.smart_host is not there, and smart_host_tls and smart_host_credentials are about it"
                .to_owned(),
        );
    }
    match &delivery.smart_host_credentials {
        Some(account) if !names.contains(&account.as_str()) => {
            Err(format!("delivery.smart_host_credentials {}", unknown_account(account, names)))
        }
        _ => Ok(()),
    }
}

fn check_classes(config: &Config) -> Result<(), String> {
    let known = |list: fn(&ClassOf) -> &String| -> BTreeSet<&str> {
        config.class.iter().map(|class| list(class).as_str()).collect()
    };
    let (tenants, streams) = (known(|class| &class.tenant), known(|class| &class.stream));
    for (index, route) in config.route.iter().enumerate() {
        for (key, names, known) in
            [("tenant", &route.tenant.0, &tenants), ("stream", &route.stream.0, &streams)]
        {
            if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
                let what =
                    format!("no [[class]] section has the {key} {name:?}, so that no mail is of it; add one");
                return Err(at("route", index, &what));
            }
        }
    }
    match config.class.iter().position(|class| class.tenant.is_empty() && class.stream.is_empty()) {
        Some(index) => Err(at("class", index, "says neither tenant nor stream")),
        None => Ok(()),
    }
}

/// A complaint about the section with this index among those of its name.
fn at(section: &str, index: usize, what: &str) -> String {
    format!("[[{section}]] {}: {what}", index + 1)
}

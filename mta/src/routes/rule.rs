//! One route: which mail takes it, and how it travels.
//!
//! Invariant: whatever a rule [covers](RouteRule::covers) can never reach a rule behind it.
//!
//! Not here: the order of rules (mod.rs), what its account says (account.rs).

use std::sync::Arc;

use postwright_core::{Host, ReversePath};
use postwright_smtp_client::policy::Level;

use super::{DomainPattern, SenderPattern, Via};
use crate::RelayAccount;

/// What a route is chosen by.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// Whose mail it is, as it was handed in.
    pub sender: &'a ReversePath,
    /// Where its recipients live.
    pub host: &'a Host,
    /// For whom it is sent.
    pub tenant: &'a str,
    /// Which kind of mail it is.
    pub stream: &'a str,
}

/// A route: everything that is asked for must fit, and of several patterns for one thing one must.
///
/// ```
/// use postwright::{RouteRule, Via};
/// let rule = RouteRule::new("relay.example.net:587".parse()?)
///     .named("news")
///     .for_senders(["news@example.org".parse()?])
///     .for_domains([".example.com".parse()?]);
/// assert_eq!((rule.name(), rule.site().as_deref()), ("news", Some("news")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// Its number where it has no name of its own.
    pub(super) label: Arc<str>,
    named: bool,
    senders: Vec<SenderPattern>,
    pub(super) domains: Vec<DomainPattern>,
    tenants: Vec<Box<str>>,
    streams: Vec<Box<str>>,
    via: Via,
    account: Option<Arc<RelayAccount>>,
}

impl RouteRule {
    /// A route for all mail.
    pub fn new(via: Via) -> RouteRule {
        RouteRule {
            label: Arc::default(),
            named: false,
            senders: Vec::new(),
            domains: Vec::new(),
            tenants: Vec::new(),
            streams: Vec::new(),
            via,
            account: None,
        }
    }

    /// The same as a site of its own: limits hold for it and for nothing else that leads to the same host.
    #[must_use]
    pub fn named(self, name: &str) -> RouteRule {
        RouteRule { label: name.into(), named: true, ..self }
    }

    /// The same for these senders only.
    #[must_use]
    pub fn for_senders(mut self, senders: impl IntoIterator<Item = SenderPattern>) -> RouteRule {
        self.senders.extend(senders);
        self
    }

    /// The same for recipients in these domains only.
    #[must_use]
    pub fn for_domains(mut self, domains: impl IntoIterator<Item = DomainPattern>) -> RouteRule {
        self.domains.extend(domains);
        self
    }

    /// The same for mail of this tenant, or of another one that is named.
    #[must_use]
    pub fn for_tenant(mut self, tenant: &str) -> RouteRule {
        self.tenants.push(tenant.into());
        self
    }

    /// The same for mail of this kind, or of another one that is named.
    #[must_use]
    pub fn for_stream(mut self, stream: &str) -> RouteRule {
        self.streams.push(stream.into());
        self
    }

    /// The same with an account at the smart host: nothing is sent without logging in.
    #[must_use]
    pub fn with_account(self, account: Arc<RelayAccount>) -> RouteRule {
        RouteRule { account: Some(account), ..self }
    }

    /// Its name, or its number among the routes; empty for the default.
    pub fn name(&self) -> &str {
        &self.label
    }

    /// How its mail travels.
    pub fn via(&self) -> &Via {
        &self.via
    }

    /// The account that it uses.
    pub fn account(&self) -> Option<&Arc<RelayAccount>> {
        self.account.as_ref()
    }

    /// Its name, if it is a site of its own: then nobody else's mail goes by its connections.
    pub(crate) fn own_site(&self) -> Option<Arc<str>> {
        self.named.then(|| self.label.clone())
    }

    /// The site that its mail goes to, unless DNS decides: its name if it has one, else that of the host.
    pub fn site(&self) -> Option<String> {
        match (&self.via, self.named) {
            (Via::Mx, _) => None,
            (_, true) => Some(self.label.to_string()),
            (via, false) => Some(via.to_string()),
        }
    }

    /// Whether mail takes it, if none before it fits.
    pub fn fits(&self, parcel: Parcel<'_>) -> bool {
        let among =
            |names: &[Box<str>], name: &str| names.is_empty() || names.iter().any(|one| **one == *name);
        (self.senders.is_empty() || self.senders.iter().any(|pattern| pattern.fits(parcel.sender)))
            && (self.domains.is_empty() || self.domains.iter().any(|pattern| pattern.fits(parcel.host)))
            && among(&self.tenants, parcel.tenant)
            && among(&self.streams, parcel.stream)
    }

    /// Whether it takes all mail.
    pub fn is_for_all(&self) -> bool {
        self.senders.is_empty()
            && self.domains.is_empty()
            && self.tenants.is_empty()
            && self.streams.is_empty()
    }

    /// Whether no mail can fit the other one that does not fit this one.
    pub fn covers(&self, other: &RouteRule) -> bool {
        fn all<P>(ours: &[P], theirs: &[P], covers: impl Fn(&P, &P) -> bool) -> bool {
            let covered = |one: &P| ours.iter().any(|pattern| covers(pattern, one));
            ours.is_empty() || !theirs.is_empty() && theirs.iter().all(covered)
        }
        all(&self.senders, &other.senders, SenderPattern::covers)
            && all(&self.domains, &other.domains, DomainPattern::covers)
            && all(&self.tenants, &other.tenants, |one, other| one == other)
            && all(&self.streams, &other.streams, |one, other| one == other)
    }

    /// What is asked of TLS: with an account a valid certificate, unless the account says otherwise and the host is
    /// this machine.
    pub(crate) fn level(&self, of_mx: Level) -> Level {
        let level = self.via.level().unwrap_or(match self.via {
            Via::Mx => of_mx,
            _ => Level::Never,
        });
        match self.account.as_ref().is_some_and(|account| !self.may_be_clear(account)) {
            true => Level::Verified,
            false => level,
        }
    }

    fn may_be_clear(&self, account: &RelayAccount) -> bool {
        account.is_clear_on_loopback() && self.via.is_loopback()
    }

    /// What is wrong with its account, if anything: credentials must have a host to go to, and protection.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let account = self.account.as_ref()?;
        match (&self.via, self.via.level()) {
            (Via::SmartHost { .. }, Some(level))
                if level < Level::Verified && !self.may_be_clear(account) =>
            {
                Some(
                    "credentials need verified TLS; only for a server at a loopback address may the account say that it is \
                     used in clear",
                )
            }
            (Via::SmartHost { .. }, _) => None,
            _ => Some("credentials are for a smart host: there is none to give them to"),
        }
    }
}

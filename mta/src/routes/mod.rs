//! The routes of a system: an ordered list, of which the first that fits is taken.
//!
//! Invariants: each rule has a name of its own, and can be reached: [`Routes::check`] names one that cannot.
//!
//! Not here: what a route is chosen by (pattern.rs, rule.rs), how mail travels (via.rs, delivery.rs).

mod pattern;
mod rule;
mod via;

use std::collections::BTreeMap;
use std::sync::Arc;

use postwright_core::{Domain, Host};
use postwright_queue::Entry;
use postwright_smtp_client::policy::Level;
use postwright_smtp_client::route::Rules;
use postwright_smtp_client::site::Rule as Provider;

pub use pattern::{DomainPattern, SenderPattern};
pub use rule::{Parcel, RouteRule};
pub use via::{Via, ViaError};

/// The routes of a system.
///
/// ```
/// use postwright::{Parcel, RouteRule, Routes, Via};
/// let relay: Via = "relay.example.net:587".parse()?;
/// let routes = Routes::mx().with(RouteRule::new(relay.clone()).for_senders([".example.org".parse()?]));
/// routes.check()?;
/// let (sender, host) = ("<joe@shop.example.org>".parse()?, "example.com".parse()?);
/// let parcel = Parcel { sender: &sender, host: &host, tenant: "", stream: "" };
/// assert_eq!(routes.find(parcel).via(), &relay);
/// assert_eq!(routes.find(Parcel { sender: &"<>".parse()?, ..parcel }).via(), &Via::Mx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Routes {
    default: Arc<RouteRule>,
    list: Vec<Arc<RouteRule>>,
    /// The rules that ask for nothing but one of some domains in full, by those: there may be thousands.
    by_host: BTreeMap<Host, Vec<usize>>,
    /// All others.
    others: Vec<usize>,
    /// What is asked of TLS to MX hosts where their domain publishes no policy: trying.
    pub tls: Level,
    /// The port of MX hosts: 25, unless the network says otherwise.
    pub mx_port: u16,
    /// What MX look-ups have to keep to.
    pub rules: Rules,
    /// Providers by where their mail hosts live: all domains of one are one site.
    pub providers: Vec<Provider>,
}

/// Why routes cannot be meant as they are written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {}: {why}", .index + 1)]
pub struct RouteFault {
    /// Which of the rules, from 0; one more than the last is the default.
    pub index: usize,
    /// What is wrong with it, and what to do.
    pub why: String,
}

impl Routes {
    /// Everything by MX.
    pub fn mx() -> Routes {
        Routes {
            default: Arc::new(RouteRule::new(Via::Mx)),
            list: Vec::new(),
            by_host: BTreeMap::new(),
            others: Vec::new(),
            tls: Level::default(),
            mx_port: 25,
            rules: Rules::default(),
            providers: Vec::new(),
        }
    }

    /// Everything to one host, with TLS if it offers it.
    pub fn smart_host(host: Host, port: u16) -> Routes {
        Routes::mx().or_else(RouteRule::new(Via::SmartHost { host, port, tls: Level::Opportunistic }))
    }

    /// Adds a route behind those that there are.
    #[must_use]
    pub fn with(mut self, mut rule: RouteRule) -> Routes {
        let index = self.list.len();
        if rule.label.is_empty() {
            rule.label = format!("route-{}", index + 1).into();
        }
        match hosts(&rule.domains) {
            Some(hosts) => hosts.for_each(|host| self.by_host.entry(host.clone()).or_default().push(index)),
            None => self.others.push(index),
        }
        self.list.push(Arc::new(rule));
        self
    }

    /// Sends mail for one domain another way, if no route before it takes it.
    #[must_use]
    pub fn with_domain(self, domain: Domain, via: Via) -> Routes {
        self.with(RouteRule::new(via).for_domains([DomainPattern::Exactly(Host::Domain(domain))]))
    }

    /// Takes this route where no other one fits.
    #[must_use]
    pub fn or_else(self, default: RouteRule) -> Routes {
        Routes { default: Arc::new(default), ..self }
    }

    /// The rules in their order, without the default.
    pub fn list(&self) -> &[Arc<RouteRule>] {
        &self.list
    }

    /// The first route that fits.
    pub fn find(&self, parcel: Parcel<'_>) -> &Arc<RouteRule> {
        let fits = |rule: &&Arc<RouteRule>| rule.fits(parcel);
        self.candidates(parcel.host)
            .filter_map(|index| self.list.get(index))
            .find(fits)
            .unwrap_or(&self.default)
    }

    /// The route of that name; the default has none, and is not found.
    pub fn named(&self, name: &str) -> Option<&Arc<RouteRule>> {
        self.list.iter().chain([&self.default]).find(|rule| !name.is_empty() && rule.name() == name)
    }

    /// The route that a lane was made for.
    pub(crate) fn of_lane(&self, name: &str) -> &Arc<RouteRule> {
        self.named(name).unwrap_or(&self.default)
    }

    /// The name of the route that a message takes to a host.
    pub(crate) fn name_for(&self, entry: &Entry, host: &Host) -> Arc<str> {
        let sender = &entry.envelope.reverse_path;
        self.find(Parcel { sender, host, tenant: &entry.tenant, stream: &entry.stream }).label.clone()
    }

    /// The rules that may fit a host, in their order.
    fn candidates(&self, host: &Host) -> impl Iterator<Item = usize> {
        let mut named = self.by_host.get(host).into_iter().flatten().copied().peekable();
        let mut others = self.others.iter().copied().peekable();
        std::iter::from_fn(move || match (named.peek(), others.peek()) {
            (Some(one), Some(other)) if one < other => named.next(),
            (Some(_), None) => named.next(),
            _ => others.next(),
        })
    }

    /// Whether every rule can be reached, has a name of its own, and protects its credentials.
    ///
    /// # Errors
    /// The first rule of which that is not true, and why.
    pub fn check(&self) -> Result<(), RouteFault> {
        let mut names = BTreeMap::new();
        for (index, rule) in self.list.iter().chain([&self.default]).enumerate() {
            let wrong = |why: String| Err(RouteFault { index, why });
            if let Some(why) = rule.fault() {
                return wrong(why.to_owned());
            }
            if rule.name().parse::<Via>().is_ok() {
                return wrong(format!("the name {:?} is a way for mail; take another one", rule.name()));
            }
            if let Some(other) = names.insert(rule.name(), index) {
                return wrong(format!(
                    "the name {:?} is that of route {}; names tell routes apart",
                    rule.name(),
                    other + 1
                ));
            }
            // The default is there for what no rule takes, be it nothing.
            if let Some(earlier) = self.shadow(index, rule).filter(|_| index < self.list.len()) {
                return wrong(format!(
                    "nothing can reach it: route {} takes all that it asks for; put it before that one, or take it out",
                    earlier + 1
                ));
            }
        }
        Ok(())
    }

    /// An earlier rule that takes everything that this one asks for.
    fn shadow(&self, index: usize, rule: &RouteRule) -> Option<usize> {
        let covers = |earlier: &usize| self.list.get(*earlier).is_some_and(|other| other.covers(rule));
        // What covers a rule fits each of its hosts; only what asks for no host covers one that asks for none.
        match hosts(&rule.domains).and_then(|mut hosts| hosts.next()) {
            Some(host) => self.candidates(host).take_while(|other| *other < index).find(covers),
            None => self.others.iter().copied().take_while(|other| *other < index).find(covers),
        }
    }
}

/// The hosts of a rule that asks for some in full and for nothing else of a domain.
fn hosts(domains: &[DomainPattern]) -> Option<impl Iterator<Item = &Host>> {
    fn host(pattern: &DomainPattern) -> Option<&Host> {
        match pattern {
            DomainPattern::Exactly(host) => Some(host),
            DomainPattern::Below(_) => None,
        }
    }
    let all = !domains.is_empty() && domains.iter().all(|pattern| host(pattern).is_some());
    all.then(|| domains.iter().filter_map(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(number: u16) -> RouteRule {
        RouteRule::new(format!("192.0.2.1:{number}").parse().unwrap())
    }

    fn port(rule: &RouteRule) -> u16 {
        match rule.via() {
            Via::SmartHost { port, .. } => *port,
            _ => 0,
        }
    }

    #[test]
    fn the_first_that_fits_is_taken() {
        let sender = |text: &str| [text.parse::<SenderPattern>().unwrap()];
        let domain = |text: &str| [text.parse::<DomainPattern>().unwrap()];
        let routes = Routes::mx()
            .with(rule(1).for_senders(sender("news@a.example")).for_domains(domain("x.example")))
            .with(rule(2).for_domains(domain("x.example")))
            .with(rule(3).for_senders(sender("a.example")).for_stream("bulk").for_tenant("shop"))
            .with(rule(4).for_domains(domain("x.example")).for_domains(domain("y.example")))
            .with(rule(5).for_domains(domain(".y.example")))
            .with(rule(6).for_senders(sender("<>")))
            .or_else(rule(7));
        routes.check().unwrap();
        for (from, to, tenant, stream, expected) in [
            ("<news@a.example>", "x.example", "shop", "bulk", 1),
            ("<joe@a.example>", "x.example", "shop", "bulk", 2),
            ("<joe@a.example>", "y.example", "shop", "bulk", 3),
            ("<joe@a.example>", "y.example", "shop", "", 4),
            ("<joe@a.example>", "y.example", "", "bulk", 4),
            ("<joe@b.a.example>", "y.example", "shop", "bulk", 4),
            ("<>", "b.y.example", "", "", 5),
            ("<>", "z.example", "", "", 6),
            ("<joe@a.example>", "z.example", "", "", 7),
            ("<joe@a.example>", "[192.0.2.9]", "", "", 7),
        ] {
            let (sender, host) = (from.parse().unwrap(), to.parse().unwrap());
            let found = routes.find(Parcel { sender: &sender, host: &host, tenant, stream });
            assert_eq!(port(found), expected, "{from} {to} {tenant} {stream}");
            // A lane finds its route again by the name.
            assert_eq!(port(routes.of_lane(found.name())), expected);
        }
    }

    #[test]
    fn a_rule_that_nothing_can_reach_is_named() {
        let sender = |text: &str| [text.parse::<SenderPattern>().unwrap()];
        let domain = |text: &str| [text.parse::<DomainPattern>().unwrap()];
        let check = |rules: Vec<RouteRule>| {
            let routes = rules.into_iter().fold(Routes::mx(), Routes::with);
            routes.check().map_err(|fault| (fault.index, fault.why))
        };
        for (earlier, later) in [
            (rule(1), rule(2).for_stream("bulk")),
            (rule(1), rule(2)),
            (
                rule(1).for_domains(domain("x.example")),
                rule(2).for_domains(domain("x.example")).for_tenant("a"),
            ),
            (rule(1).for_domains(domain(".example")), rule(2).for_domains(domain("x.example"))),
            (rule(1).for_senders(sender("a.example")), rule(2).for_senders(sender("joe@a.example"))),
        ] {
            let fine = rule(9).for_tenant("other");
            let (index, why) = check(vec![fine, earlier.clone(), later.clone()]).unwrap_err();
            assert!(index == 2 && why.contains("route 2 takes all"), "{index} {why}");
            if !earlier.covers(&later) || !later.covers(&earlier) {
                check(vec![later, earlier]).unwrap();
            }
        }
        // Two that meet in part are in order.
        check(vec![rule(1).for_domains(domain("x.example")), rule(2).for_tenant("a")]).unwrap();
        let (index, why) =
            check(vec![rule(1).named("a").for_tenant("a"), rule(2).named("a").for_tenant("b")]).unwrap_err();
        assert!(index == 1 && why.contains("\"a\" is that of route 1"), "{why}");
    }
}

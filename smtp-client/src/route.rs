//! Routing: which hosts take mail for a domain, and in which order they are tried.
//!
//! Invariant: only an answer can make mail fail for good. NXDOMAIN, NODATA and a null MX are answers; a time-out,
//! SERVFAIL and a bogus signature are not, and defer. The order depends on the answers and on the given randomness
//! alone.
//!
//! Standards: RFC 5321 5.1 (MX selection, implicit MX, loops), RFC 7505 (null MX), RFC 2181 10.3 (MX at an alias),
//! RFC 3463 (5.1.2, 5.1.10, 5.4.4, 5.4.6), RFC 7672 2.2 (what DANE needs to know of the look-ups).
//!
//! Not here: connecting (deliver), TLS policy (policy), routes by sender or tenant (mta).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postwright_core::{
    Answer, Cause, DeliveryStatus, DnsError, Domain, EnhancedStatus, Entropy, Found, Host, Name, Phase,
    Record, RecordKind, Resolver, Timestamp,
};

/// In which order the addresses of a host are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// IPv6 and IPv4 in turns, IPv6 first: one that is broken or blocklisted costs one try at most.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// What routing has to keep to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Most hosts tried for a domain: 5 (RFC 5321 5.1 asks for at least two addresses).
    pub hosts: usize,
    /// Most addresses tried for a host: 4.
    pub addresses: usize,
    /// Most MX records that are looked at, the most preferred ones first: 100.
    pub records: usize,
    /// Names under which we receive mail: an MX that names one of them, and all that are not preferred to it, are
    /// left out (RFC 5321 5.1).
    pub own_names: Vec<Domain>,
    /// Addresses at which we receive mail, with the same effect.
    pub own_addresses: Vec<IpAddr>,
    /// Leave out hosts at loopback, private, link-local, multicast and unspecified addresses. Off by default; on
    /// where anyone may choose the recipient domain.
    pub prohibit_private: bool,
    /// Which addresses, and in which order.
    pub family: Family,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            hosts: 5,
            addresses: 4,
            records: 100,
            own_names: Vec::new(),
            own_addresses: Vec::new(),
            prohibit_private: false,
            family: Family::default(),
        }
    }
}

/// A host that takes mail, with its addresses in the order they are to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailHost {
    /// The name from the MX record, the domain itself (implicit MX), or a literal.
    pub name: Host,
    /// The name behind the host's aliases; `None` for a literal. DANE looks here first (RFC 7672 2.2.2).
    pub canonical: Option<Name>,
    /// The name behind the aliases of the recipients' domain, if it has any. Under DANE-TA a certificate may be for it
    /// (RFC 7672 3.2.2).
    pub expanded: Option<Name>,
    /// Where to connect to, in order; never empty.
    pub addresses: Vec<IpAddr>,
    /// Whether DNSSEC vouches for the MX answer that named this host, or for the absence of one; true if an operator
    /// named it.
    pub mx_secure: bool,
    /// Whether DNSSEC vouches for every address answer of this host. A look-up that failed is none: it takes its addresses
    /// away, and not the protection of the others (RFC 7672 2.1.2).
    pub address_secure: bool,
}

/// Where mail goes, or why it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To these hosts, best first; never empty.
    Hosts(Vec<MailHost>),
    /// Nowhere: the domain says that it takes no mail (RFC 7505).
    NullMx,
    /// Nowhere: the domain does not exist, or has neither MX nor address.
    NoDomain,
    /// Nowhere: there are MX records, and none of their hosts has an address.
    NoHost,
    /// Back to us: we are the most preferred host.
    Loop,
    /// Only to hosts that [`Rules::prohibit_private`] forbids.
    Prohibited,
    /// Not known at present.
    Deferred(DnsError),
}

impl Route {
    /// What the route means for a recipient, if it leads nowhere: failed for an answer, delayed for none.
    pub fn failure(&self, at: Timestamp) -> Option<DeliveryStatus> {
        let (status, cause) = match self {
            Route::Hosts(_) => return None,
            Route::NullMx => (EnhancedStatus::known(5, 1, 10), Cause::NullMx),
            Route::NoDomain => (EnhancedStatus::known(5, 1, 2), Cause::NoRoute),
            Route::NoHost => (EnhancedStatus::known(5, 4, 4), Cause::NoRoute),
            Route::Loop => (EnhancedStatus::known(5, 4, 6), Cause::Loop),
            Route::Prohibited => {
                let what = "the mail hosts of the domain have private addresses only";
                (EnhancedStatus::known(5, 4, 4), Cause::Policy(what.into()))
            }
            Route::Deferred(error) => (EnhancedStatus::known(4, 4, 3), Cause::Dns(*error)),
        };
        Some(DeliveryStatus::local(status, cause, Phase::Resolve, at))
    }
}

/// Finds the hosts that take mail for `target`.
///
/// Look-ups go to `resolver`, which follows aliases; `entropy` decides among MX records of equal preference and
/// among a host's addresses.
///
/// ```
/// use postwright_core::{MemoryZone, SeededEntropy};
/// use postwright_smtp_client::route::{Route, Rules, plan};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let zone = MemoryZone::parse("example.org. MX 10 mx.example.org.\nmx.example.org. A 192.0.2.1\n")?;
/// let route = plan(&"example.org".parse()?, &zone, &SeededEntropy::new(1), &Rules::default()).await;
/// let Route::Hosts(hosts) = route else { panic!() };
/// assert_eq!(hosts[0].name.to_string(), "mx.example.org");
/// # Ok(()) }
/// ```
pub async fn plan(target: &Host, resolver: &dyn Resolver, entropy: &dyn Entropy, rules: &Rules) -> Route {
    match target {
        Host::Literal(ip) => literal(*ip, rules),
        Host::Domain(domain) => of_domain(domain, resolver, entropy, rules).await,
    }
}

/// Finds the addresses of one named host without looking for MX records: for smart hosts. DANE applies to it as to any
/// other host (RFC 7672 2.2.2): nobody could have forged its name.
pub async fn plan_host(
    target: &Host,
    resolver: &dyn Resolver,
    entropy: &dyn Entropy,
    rules: &Rules,
) -> Route {
    match target {
        Host::Literal(ip) => literal(*ip, rules),
        Host::Domain(domain) => {
            let planner = Planner { resolver, entropy, rules };
            planner.hosts(vec![(0, Name::from(domain))], true, Route::NoDomain).await
        }
    }
}

fn literal(ip: IpAddr, rules: &Rules) -> Route {
    if rules.own_addresses.contains(&ip) {
        return Route::Loop;
    }
    if rules.prohibit_private && is_private(ip) {
        return Route::Prohibited;
    }
    let name = Host::Literal(ip);
    let addresses = vec![ip];
    let (canonical, expanded, mx_secure, address_secure) = (None, None, false, false);
    Route::Hosts(vec![MailHost { name, canonical, expanded, addresses, mx_secure, address_secure }])
}

async fn of_domain(domain: &Domain, resolver: &dyn Resolver, entropy: &dyn Entropy, rules: &Rules) -> Route {
    let planner = Planner { resolver, entropy, rules };
    let name = Name::from(domain);
    let answer = match resolver.lookup(&name, RecordKind::Mx).await {
        Ok(answer) => answer,
        Err(error) => return Route::Deferred(error),
    };
    let expanded = Some(answer.canonical).filter(|canonical| *canonical != name);
    let route = match answer.found {
        Found::NoName => Route::NoDomain,
        Found::NoData => planner.hosts(vec![(0, name)], answer.secure, Route::NoDomain).await,
        Found::Records(records) => {
            let mut exchanges: Vec<(u16, Name)> = records.iter().filter_map(exchange).collect();
            let before = exchanges.len();
            // RFC 7505 3: "." alone means no mail. Beside other records it is a mistake and names no host.
            exchanges.retain(|(_, name)| !name.is_root());
            if exchanges.is_empty() {
                return if before > 0 { Route::NullMx } else { Route::NoHost };
            }
            planner.shuffle(&mut exchanges);
            exchanges.sort_by_key(|(preference, _)| *preference);
            exchanges.truncate(rules.records);
            planner.hosts(exchanges, answer.secure, Route::NoHost).await
        }
    };
    match route {
        Route::Hosts(mut hosts) => {
            hosts.iter_mut().for_each(|host| host.expanded.clone_from(&expanded));
            Route::Hosts(hosts)
        }
        nowhere => nowhere,
    }
}

fn exchange(record: &Record) -> Option<(u16, Name)> {
    match record {
        Record::Mx { preference, exchange } => Some((*preference, exchange.clone())),
        _ => None,
    }
}

/// What became of one exchange's addresses.
enum Lookup {
    Host(MailHost),
    Ourselves,
    Prohibited,
    Nothing,
    Unknown(DnsError),
}

struct Planner<'p> {
    resolver: &'p dyn Resolver,
    entropy: &'p dyn Entropy,
    rules: &'p Rules,
}

impl Planner<'_> {
    /// Resolves exchanges, sorted by preference, until enough hosts are found. `nothing` is the route if every
    /// name turns out to have no address.
    async fn hosts(&self, exchanges: Vec<(u16, Name)>, mx_secure: bool, nothing: Route) -> Route {
        let mut hosts: Vec<(u16, MailHost)> = Vec::new();
        let mut otherwise = nothing;
        let mut unknown = None;
        for (preference, name) in exchanges {
            if hosts.len() >= self.rules.hosts.max(1)
                && hosts.last().is_some_and(|(last, _)| *last < preference)
            {
                break;
            }
            match self.host(&name, mx_secure).await {
                Lookup::Host(host) => hosts.push((preference, host)),
                Lookup::Ourselves => {
                    // RFC 5321 5.1: leave out this preference and everything behind it.
                    hosts.retain(|(other, _)| *other < preference);
                    otherwise = Route::Loop;
                    break;
                }
                Lookup::Prohibited => otherwise = Route::Prohibited,
                Lookup::Nothing => {}
                Lookup::Unknown(error) => unknown = unknown.or(Some(error)),
            }
        }
        hosts.truncate(self.rules.hosts.max(1));
        match (hosts.is_empty(), unknown) {
            (false, _) => Route::Hosts(hosts.into_iter().map(|(_, host)| host).collect()),
            // Some host may have an address: nobody knows, so nothing is final.
            (true, Some(error)) => Route::Deferred(error),
            (true, None) => otherwise,
        }
    }

    async fn host(&self, name: &Name, mx_secure: bool) -> Lookup {
        // An exchange may be no mail domain at all (an underscore, say); such a host cannot be named in a report.
        let Some(domain) = name.to_domain() else { return Lookup::Nothing };
        if self.rules.own_names.contains(&domain) {
            return Lookup::Ourselves;
        }
        let (v4, v6) = tokio::join!(
            self.addresses(name, RecordKind::A, Family::V6),
            self.addresses(name, RecordKind::Aaaa, Family::V4)
        );
        let failed = v4.as_ref().err().or(v6.as_ref().err()).copied();
        let answers: Vec<Answer> = [v6, v4].into_iter().filter_map(Result::ok).flatten().collect();
        let (mut addresses, address_secure) =
            (self.order(&answers), answers.iter().all(|answer| answer.secure));
        if addresses.iter().any(|ip| self.rules.own_addresses.contains(ip)) {
            return Lookup::Ourselves;
        }
        let found = addresses.len();
        addresses.retain(|ip| !(self.rules.prohibit_private && is_private(*ip)));
        match (addresses.is_empty(), failed, found > 0) {
            (false, ..) => {}
            (true, _, true) => return Lookup::Prohibited,
            (true, Some(error), false) => return Lookup::Unknown(error),
            (true, None, false) => return Lookup::Nothing,
        }
        addresses.truncate(self.rules.addresses.max(1));
        let canonical =
            answers.iter().find(|answer| !answer.records().is_empty()).map(|answer| answer.canonical.clone());
        let name = domain.into();
        Lookup::Host(MailHost { name, canonical, expanded: None, addresses, mx_secure, address_secure })
    }

    /// Asks for addresses of one family, unless only the other one (`other`) is wanted.
    async fn addresses(
        &self,
        name: &Name,
        kind: RecordKind,
        other: Family,
    ) -> Result<Option<Answer>, DnsError> {
        if self.rules.family == other {
            return Ok(None);
        }
        self.resolver.lookup(name, kind).await.map(Some)
    }

    /// Shuffles each family and takes them in turns.
    fn order(&self, answers: &[Answer]) -> Vec<IpAddr> {
        let mut families: Vec<Vec<IpAddr>> = Vec::with_capacity(answers.len());
        for answer in answers {
            let mut addresses: Vec<IpAddr> = answer.records().iter().filter_map(Record::address).collect();
            self.shuffle(&mut addresses);
            families.push(addresses);
        }
        let longest = families.iter().map(Vec::len).max().unwrap_or(0);
        (0..longest).flat_map(|i| families.iter().filter_map(move |family| family.get(i).copied())).collect()
    }

    /// Fisher and Yates.
    fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u64::try_from(last + 1).unwrap_or(u64::MAX);
            let other = usize::try_from(self.entropy.below(bound)).unwrap_or(last);
            items.swap(last, other);
        }
    }
}

/// Whether an address is one that no mail host on the open Internet has.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_private_v4(ip),
            None => is_private_v6(ip),
        },
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    a == 0
        || shared
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || a >= 240
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
}

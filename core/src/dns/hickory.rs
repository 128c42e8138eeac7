//! [`HickoryResolver`]: the real DNS, by the crate hickory-resolver.
//!
//! Invariant: an answer is reported as secure only if each record that led to it, every alias and the proof of
//! an absence included, was validated up to a trust anchor; whatever is neither an answer nor a proven absence
//! is a [`DnsError`]. Nothing but DNS answers: no hosts file, no search list, no `ndots`.
//!
//! Standards: RFC 1035 (7.3: answers are checked, aliases followed by owner), RFC 2308 (negative answers, their
//! TTL), RFC 4035 section 5 (validation), RFC 6698, RFC 7766 (TCP after truncation).
//!
//! Not here: DNS over TLS or HTTPS; policy about what an insecure answer is good for (the caller's).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as NetDnsError, NetError, NoRecords};
use hickory_resolver::proto::dnssec::{DnssecSummary, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr;
use hickory_resolver::{TokioResolver, system_conf};
use tokio::sync::Semaphore;

use super::{Answer, DnsError, Found, Name, Record, RecordKind, Resolver};
use crate::BoxFuture;

/// Longest chain of aliases that is followed.
const ALIASES_MAX: usize = 16;

/// What a [`HickoryResolver`] asks, and how long and how much it takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HickoryConfig {
    /// Who is asked. Empty: the servers of the system's configuration (`/etc/resolv.conf`); of that file nothing
    /// else is used.
    ///
    /// Each is asked by UDP, and by TCP when an answer is truncated (RFC 7766 section 5).
    pub servers: Vec<SocketAddr>,
    /// Whether answers are validated by DNSSEC here, from the root's trust anchors down (RFC 4035 section 5).
    /// Without it no answer is ever `secure`. The servers must pass DNSSEC records on.
    pub validate: bool,
    /// Trust anchors in place of the built-in ones of the root: a file of DNSKEY records.
    pub trust_anchors: Option<PathBuf>,
    /// How long one server may take to answer once.
    pub timeout: Duration,
    /// How often a question is asked in all before it fails; at least once.
    pub attempts: usize,
    /// How long one look-up may take, waiting for its turn and all its steps (aliases, DNSSEC keys) included.
    pub deadline: Duration,
    /// How many look-ups may be under way; others wait their turn.
    pub in_flight_max: usize,
    /// How many records of an answer are taken; the rest is left out. An answer in DNS has at most 65,535 octets.
    pub records_max: usize,
    /// How many answers are kept until their TTL ends.
    pub cache_max: u64,
}

/// The system's servers, no validation, 5 s and 2 attempts as resolv.conf(5) has them, 30 s in all, 128 look-ups
/// at a time, 256 records an answer, 8,192 answers kept.
impl HickoryConfig {
    /// `IP` or `IP:PORT` (`[IPv6]:PORT`), with port 53 if there is none: how a server is written in a configuration.
    pub fn parse_server(text: &str) -> Option<SocketAddr> {
        let with_port = text.parse::<SocketAddr>().ok();
        with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)))
    }
}

impl Default for HickoryConfig {
    fn default() -> Self {
        HickoryConfig {
            servers: Vec::new(),
            validate: false,
            trust_anchors: None,
            timeout: Duration::from_secs(5),
            attempts: 2,
            deadline: Duration::from_secs(30),
            in_flight_max: 128,
            records_max: 256,
            cache_max: 8192,
        }
    }
}

/// Why there is no [`HickoryResolver`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HickoryError {
    /// The system's DNS configuration cannot be read, or names no server.
    #[error("the system's DNS configuration is of no use ({0}); name a server instead")]
    System(String),
    /// The file of trust anchors cannot be read.
    #[error("the trust anchors in {path} cannot be read: {why}")]
    TrustAnchors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The configuration as a whole is refused.
    #[error("the DNS resolver cannot be set up: {0}")]
    Setup(String),
}

/// Looks names up over the network; needs a tokio runtime with time and IO around each look-up.
pub struct HickoryResolver {
    inner: TokioResolver,
    turns: Semaphore,
    validate: bool,
    deadline: Duration,
    records_max: usize,
}

impl HickoryResolver {
    /// Sets a resolver up; nothing is asked yet.
    ///
    /// # Errors
    /// See [`HickoryError`]; all of them are the operator's to mend.
    pub fn new(config: &HickoryConfig) -> Result<HickoryResolver, HickoryError> {
        let servers = if config.servers.is_empty() { system_servers()? } else { given_servers(config) };
        let validate = config.validate || config.trust_anchors.is_some();
        let mut options = ResolverOpts::default();
        options.timeout = config.timeout;
        // Hickory counts the attempts after the first.
        options.attempts = config.attempts.saturating_sub(1);
        options.validate = validate;
        options.cache_size = config.cache_max;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = config.in_flight_max.max(1);
        options.preserve_intermediates = true;
        let network = TokioRuntimeProvider::default();
        let mut builder =
            TokioResolver::builder_with_config(ResolverConfig::from_name_servers(servers), network)
                .with_options(options);
        if let Some(path) = &config.trust_anchors {
            let anchors = TrustAnchors::from_file(path)
                .map_err(|error| HickoryError::TrustAnchors { path: path.clone(), why: error.to_string() })?;
            builder = builder.with_trust_anchor(Arc::new(anchors));
        }
        let inner = builder.build().map_err(|error| HickoryError::Setup(error.to_string()))?;
        Ok(HickoryResolver {
            inner,
            turns: Semaphore::new(config.in_flight_max.clamp(1, Semaphore::MAX_PERMITS)),
            validate,
            deadline: config.deadline,
            records_max: config.records_max.max(1),
        })
    }

    async fn ask(&self, name: &Name, kind: RecordKind) -> Result<Answer, DnsError> {
        let Ok(_turn) = self.turns.acquire().await else {
            // The semaphore is never closed.
            return Err(DnsError::ServFail);
        };
        let asked = to_wire(name)?;
        match self.inner.lookup(asked.clone(), wire_kind(kind)).await {
            Ok(lookup) => self.positive(asked, &lookup, kind),
            Err(NetError::Dns(NetDnsError::NoRecordsFound(none))) => self.negative(&asked, none).await,
            // A proof that says "not signed from here on" (opt-out, too many NSEC3 iterations).
            Err(NetError::Dns(NetDnsError::Nsec { query, response, proof, .. })) if proof.is_insecure() => {
                let found = absence(response.response_code)?;
                let step = self.aliases_to(&asked, query.name()).await?;
                let canonical = from_wire(&step.owner).ok_or(DnsError::ServFail)?;
                Ok(Answer { found, canonical, secure: false, ttl: response.negative_ttl().unwrap_or(0) })
            }
            Err(error) => Err(failure(&error)),
        }
    }

    /// An answer with records: follows its aliases from the name asked for, so that stray records count for nothing.
    fn positive(&self, asked: rr::Name, lookup: &Lookup, kind: RecordKind) -> Result<Answer, DnsError> {
        let wanted = wire_kind(kind);
        let (mut owner, mut secure, mut ttl) = (asked, self.validate, u32::MAX);
        for _ in 0..ALIASES_MAX {
            let here = || lookup.answers().iter().filter(|record| record.name == owner);
            let mut records = Vec::new();
            let mut present = false;
            for record in here().filter(|record| record.record_type() == wanted).take(self.records_max) {
                present = true;
                secure &= record.proof.is_secure();
                ttl = ttl.min(record.ttl);
                records.extend(from_data(&record.data));
            }
            if present {
                // Records of which none can be expressed are no answer, and not the absence of one either.
                let canonical = from_wire(&owner).filter(|_| !records.is_empty());
                let canonical = canonical.ok_or(DnsError::ServFail)?;
                return Ok(Answer { found: Found::Records(records.into()), canonical, secure, ttl });
            }
            let alias = here().find_map(|record| match &record.data {
                rr::RData::CNAME(target) => Some((target.0.clone(), record)),
                _ => None,
            });
            let Some((target, record)) = alias else { break };
            secure &= record.proof.is_secure();
            ttl = ttl.min(record.ttl);
            owner = target;
        }
        Err(DnsError::ServFail)
    }

    /// An absence. Where hickory validates, it has checked the proof: its records bear the verdict.
    async fn negative(&self, asked: &rr::Name, none: NoRecords) -> Result<Answer, DnsError> {
        let found = absence(none.response_code)?;
        let last = none.query.name();
        // Hickory reports a chain of aliases without an end in the same way. A true absence nearly always comes
        // with its SOA (RFC 2308 section 3) in the authority section; where it did not, the name is looked at.
        let usual = none.soa.is_some() && none.authorities.is_some();
        let step = self.aliases_to(asked, last).await?;
        if found == Found::NoData && !usual && self.alias_of(last).await?.is_some() {
            return Err(DnsError::ServFail);
        }
        let canonical = from_wire(&step.owner).ok_or(DnsError::ServFail)?;
        let proof = none.authorities.as_deref().unwrap_or_default();
        let proven = matches!(DnssecSummary::from_records(proof.iter()), DnssecSummary::Secure);
        Ok(Answer { found, canonical, secure: step.secure && proven, ttl: negative_ttl(&none) })
    }

    /// Follows the aliases from `asked` to `last`, which a negative answer names only by its end.
    async fn aliases_to(&self, asked: &rr::Name, last: &rr::Name) -> Result<Step, DnsError> {
        let mut step = Step { owner: asked.clone(), secure: self.validate };
        for _ in 0..ALIASES_MAX {
            if step.owner == *last {
                return Ok(step);
            }
            let Some(alias) = self.alias_of(&step.owner).await? else {
                // The zone changed between two questions.
                return Ok(Step { owner: last.clone(), secure: false });
            };
            step = Step { owner: alias.owner, secure: step.secure && alias.secure };
        }
        Err(DnsError::ServFail)
    }

    /// Where a name's own CNAME points to.
    async fn alias_of(&self, name: &rr::Name) -> Result<Option<Step>, DnsError> {
        let lookup = match self.inner.lookup(name.clone(), rr::RecordType::CNAME).await {
            Ok(lookup) => lookup,
            Err(NetError::Dns(NetDnsError::NoRecordsFound(_) | NetDnsError::Nsec { .. })) => return Ok(None),
            Err(error) => return Err(failure(&error)),
        };
        Ok(lookup.answers().iter().find_map(|record| match &record.data {
            rr::RData::CNAME(target) if record.name == *name => {
                Some(Step { owner: target.0.clone(), secure: record.proof.is_secure() })
            }
            _ => None,
        }))
    }
}

/// Where a chain of aliases has arrived, and whether every step to there was validated.
struct Step {
    owner: rr::Name,
    secure: bool,
}

impl Resolver for HickoryResolver {
    fn lookup<'a>(&'a self, name: &'a Name, kind: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            // Boxed again: hickory's futures are large and the time-out would copy them.
            let ask = Box::pin(self.ask(name, kind));
            tokio::time::timeout(self.deadline, ask).await.unwrap_or(Err(DnsError::Timeout))
        })
    }
}

impl std::fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HickoryResolver").field("validate", &self.validate).finish_non_exhaustive()
    }
}

fn system_servers() -> Result<Vec<NameServerConfig>, HickoryError> {
    let (config, _) =
        system_conf::read_system_conf().map_err(|error| HickoryError::System(error.to_string()))?;
    if config.name_servers().is_empty() {
        return Err(HickoryError::System("it names no server".to_owned()));
    }
    Ok(config.name_servers().to_vec())
}

fn given_servers(config: &HickoryConfig) -> Vec<NameServerConfig> {
    let server = |address: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    };
    config.servers.iter().map(server).collect()
}

fn failure(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError::Timeout,
        NetError::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => DnsError::Timeout,
        NetError::Dns(NetDnsError::DnssecBogus | NetDnsError::Nsec { .. }) => DnsError::Bogus,
        _ => DnsError::ServFail,
    }
}

fn absence(code: ResponseCode) -> Result<Found, DnsError> {
    match code {
        ResponseCode::NoError => Ok(Found::NoData),
        ResponseCode::NXDomain => Ok(Found::NoName),
        _ => Err(DnsError::ServFail),
    }
}

/// RFC 2308 section 5: the lesser of the SOA record's TTL and its MINIMUM field; hickory leaves it to us when it
/// validates.
fn negative_ttl(none: &NoRecords) -> u32 {
    let soa = none.soa.as_ref().map(|soa| soa.ttl.min(soa.data.minimum));
    none.negative_ttl.or(soa).unwrap_or(0)
}

fn wire_kind(kind: RecordKind) -> rr::RecordType {
    match kind {
        RecordKind::A => rr::RecordType::A,
        RecordKind::Aaaa => rr::RecordType::AAAA,
        RecordKind::Cname => rr::RecordType::CNAME,
        RecordKind::Mx => rr::RecordType::MX,
        RecordKind::Ns => rr::RecordType::NS,
        RecordKind::Ptr => rr::RecordType::PTR,
        RecordKind::Txt => rr::RecordType::TXT,
        RecordKind::Tlsa => rr::RecordType::TLSA,
    }
}

/// Label by label, so that no octet of a label is taken for an escape.
fn to_wire(name: &Name) -> Result<rr::Name, DnsError> {
    let labels = name.labels().map(str::as_bytes);
    let mut wire = rr::Name::from_labels(labels).map_err(|_| DnsError::ServFail)?;
    // Without this hickory would try the search list.
    wire.set_fqdn(true);
    Ok(wire)
}

/// `None` for a name that [`Name`] cannot hold: labels with dots, or octets outside printable ASCII.
fn from_wire(wire: &rr::Name) -> Option<Name> {
    if wire.is_root() {
        return Some(Name::root());
    }
    let mut text = String::with_capacity(wire.len());
    for label in wire.iter() {
        if label.contains(&b'.') {
            return None;
        }
        text.push_str(std::str::from_utf8(label).ok()?);
        text.push('.');
    }
    text.parse().ok()
}

fn from_data(data: &rr::RData) -> Option<Record> {
    Some(match data {
        rr::RData::A(ip) => Record::A(ip.0),
        rr::RData::AAAA(ip) => Record::Aaaa(ip.0),
        rr::RData::CNAME(name) => Record::Cname(from_wire(&name.0)?),
        rr::RData::MX(mx) => Record::Mx { preference: mx.preference, exchange: from_wire(&mx.exchange)? },
        rr::RData::NS(name) => Record::Ns(from_wire(&name.0)?),
        rr::RData::PTR(name) => Record::Ptr(from_wire(&name.0)?),
        rr::RData::TXT(txt) => Record::Txt(txt.txt_data.to_vec()),
        rr::RData::TLSA(tlsa) => Record::Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone().into(),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_to_the_wire_and_back_octet_for_octet() {
        for text in [".", "example.org", "_25._tcp.mx.example.org", r"back\046slash.and blank.example"] {
            let name: Name = text.parse().unwrap();
            assert_eq!(from_wire(&to_wire(&name).unwrap()), Some(name), "{text}");
        }
        let dotted = rr::Name::from_labels([&b"a.b"[..], b"example"]).unwrap();
        assert_eq!(from_wire(&dotted), None);
    }

    #[test]
    fn servers_are_written_with_or_without_a_port() {
        assert_eq!(HickoryConfig::parse_server("192.0.2.1"), "192.0.2.1:53".parse().ok());
        assert_eq!(HickoryConfig::parse_server("2001:db8::1"), "[2001:db8::1]:53".parse().ok());
        assert_eq!(HickoryConfig::parse_server("127.0.0.1:5300"), "127.0.0.1:5300".parse().ok());
        assert_eq!(HickoryConfig::parse_server("localhost"), None);
    }
}

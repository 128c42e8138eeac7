//! Where mail leaves from: [`Source`]s in [`Pool`]s, and which of them are usable ([`Egress`]).
//!
//! Invariant: the candidates of a pool are its usable sources, each once, in an order that depends on the pool,
//! the mode, the given draw or key and nothing else. A source that is down is not offered, and its load moves to
//! the others by their weights.
//!
//! The usual layout has four pools, so that the reputation of one kind of mail does not hang on another's:
//! transactional, lifecycle, batch, and cold (sources that are being warmed up); see docs/shaping.md.
//!
//! Not here: binding sockets and talking to proxies (smtp-client).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use postwright_core::{Domain, Timestamp};

/// One way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name in rules and keys.
    pub name: Arc<str>,
    /// The address to bind to; `None` leaves it to the system.
    pub ip: Option<IpAddr>,
    /// The name to greet with.
    pub ehlo: Option<Domain>,
    /// The proxy to go through.
    pub proxy: Option<SocketAddr>,
}

impl Source {
    /// A source that is an address, by the address's name.
    pub fn of_ip(ip: IpAddr) -> Source {
        Source { name: ip.to_string().into(), ip: Some(ip), ehlo: None, proxy: None }
    }
}

/// How a pool chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// By chance, in proportion to the weights.
    Weighted,
    /// The same source for the same key (a tenant, a campaign), in proportion to the weights.
    Sticky,
    /// The first usable one.
    Failover,
}

/// Sources that serve one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name in rules and keys.
    pub name: Arc<str>,
    /// How it chooses.
    pub mode: Mode,
    /// Names of sources and their weights; weight 0 is used only when no other source is usable.
    pub members: Vec<(Arc<str>, u32)>,
}

/// A layout that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// A name is used twice.
    #[error("there are two {what} named {name:?}")]
    Twice {
        /// Sources or pools.
        what: &'static str,
        /// The name.
        name: Arc<str>,
    },
    /// A pool has no member.
    #[error("pool {0:?} has no source")]
    Empty(Arc<str>),
    /// A pool names a source that does not exist.
    #[error("pool {pool:?} names the source {source_name:?}, which does not exist")]
    Unknown {
        /// The pool.
        pool: Arc<str>,
        /// The missing source.
        source_name: Arc<str>,
    },
}

/// Why a source is not used at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// Until when.
    pub until: Timestamp,
    /// Not plumbed on this host, its proxy is down, an operator's words.
    pub cause: Arc<str>,
}

/// All sources and pools.
#[derive(Debug, Default)]
pub struct Egress {
    sources: BTreeMap<Arc<str>, Arc<Source>>,
    pools: BTreeMap<Arc<str>, Pool>,
    down: RwLock<BTreeMap<Arc<str>, Down>>,
}

impl Egress {
    /// A layout; checked.
    pub fn new(sources: Vec<Source>, pools: Vec<Pool>) -> Result<Egress, EgressError> {
        let mut egress = Egress::default();
        for source in sources {
            let name = Arc::clone(&source.name);
            if egress.sources.insert(Arc::clone(&name), Arc::new(source)).is_some() {
                return Err(EgressError::Twice { what: "sources", name });
            }
        }
        for pool in pools {
            if pool.members.is_empty() {
                return Err(EgressError::Empty(pool.name));
            }
            if let Some((missing, _)) =
                pool.members.iter().find(|(name, _)| !egress.sources.contains_key(name))
            {
                let source_name = Arc::clone(missing);
                return Err(EgressError::Unknown { pool: pool.name, source_name });
            }
            let name = Arc::clone(&pool.name);
            if egress.pools.insert(Arc::clone(&name), pool).is_some() {
                return Err(EgressError::Twice { what: "pools", name });
            }
        }
        Ok(egress)
    }

    /// A source by name.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.sources.get(name)
    }

    /// A pool by name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// A source cannot be used until a moment: its address is not plumbed here, or its proxy does not answer.
    pub fn take_down(&self, source: &str, until: Timestamp, cause: &str) {
        let mut down = self.down.write().unwrap_or_else(PoisonError::into_inner);
        down.insert(source.into(), Down { until, cause: cause.into() });
    }

    /// A source can be used again.
    pub fn bring_up(&self, source: &str) {
        self.down.write().unwrap_or_else(PoisonError::into_inner).remove(source);
    }

    /// Why a source is not used, if so.
    pub fn down(&self, source: &str, now: Timestamp) -> Option<Down> {
        let down = self.down.read().unwrap_or_else(PoisonError::into_inner);
        down.get(source).filter(|down| down.until > now).cloned()
    }

    /// The usable sources of a pool, the one to try first at the front. `key` is what sticks; `draw` is a random
    /// number. If none is usable, the moment at which the first of them may be.
    pub fn candidates(
        &self,
        pool: &Pool,
        key: &str,
        draw: u64,
        now: Timestamp,
    ) -> Result<Vec<Arc<Source>>, Down> {
        let mut usable = Vec::with_capacity(pool.members.len());
        let mut first_up: Option<Down> = None;
        for (place, (name, weight)) in pool.members.iter().enumerate() {
            match (self.down(name, now), self.sources.get(name)) {
                (Some(down), _) if first_up.as_ref().is_none_or(|other| down.until < other.until) => {
                    first_up = Some(down);
                }
                (None, Some(source)) => {
                    usable.push((score(pool.mode, place, *weight, name, key, draw), source))
                }
                _ => {}
            }
        }
        if let (true, Some(down)) = (usable.is_empty(), first_up) {
            return Err(down);
        }
        usable.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Ok(usable.into_iter().map(|(_, source)| Arc::clone(source)).collect())
    }
}

/// The smallest score goes first. An exponential variable of rate w is the smallest of several in w / sum of the
/// weights of all cases, so this is a weighted choice, and the rest of the order is the weighted choice among the
/// rest. With the key in place of chance it is rendezvous hashing: a source that goes down moves only its own keys.
fn score(mode: Mode, place: usize, weight: u32, name: &str, key: &str, draw: u64) -> f64 {
    let seed = match mode {
        Mode::Failover => return place as f64,
        Mode::Weighted => mix(draw ^ hash(name)),
        Mode::Sticky => mix(hash(key) ^ hash(name).rotate_left(32)),
    };
    // In (0, 1]: 53 bits, as many as a double has.
    let uniform = ((seed >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    if weight == 0 { f64::MAX } else { -uniform.ln() / f64::from(weight) }
}

/// FNV-1a: the same on every node and in every version.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

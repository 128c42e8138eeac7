//! What both sides are asked about: one zone, and the caches in which mail-auth knows it.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dmarc::Dmarc;
use mail_auth::hickory_resolver::proto::op::ResponseCode;
use mail_auth::spf::Spf;
use mail_auth::{DnsError, Error, ResolverCache, Txt};
use postwright_core::{MemoryZone, Record};

/// Records in the shape of large senders: nested includes of many networks.
pub const ZONE: &[(&str, &str)] = &[
    ("g.test", "v=spf1 include:_spf.g.test ~all"),
    ("_spf.g.test", "v=spf1 include:_nb1.g.test include:_nb2.g.test include:_nb3.g.test ~all"),
    (
        "_nb1.g.test",
        "v=spf1 ip4:35.190.247.0/24 ip4:64.233.160.0/19 ip4:66.102.0.0/20 ip4:66.249.80.0/20 ip4:72.14.192.0/18 ip4:74.125.0.0/16 ip4:108.177.8.0/21 ip4:173.194.0.0/16 ip4:209.85.128.0/17 ip4:216.58.192.0/19 ip4:216.239.32.0/19 ~all",
    ),
    (
        "_nb2.g.test",
        "v=spf1 ip6:2001:4860:4000::/36 ip6:2404:6800:4000::/36 ip6:2607:f8b0:4000::/36 ip6:2800:3f0:4000::/36 ip6:2a00:1450:4000::/36 ip6:2c0f:fb50:4000::/36 ~all",
    ),
    (
        "_nb3.g.test",
        "v=spf1 ip4:172.217.0.0/19 ip4:172.217.32.0/20 ip4:172.217.128.0/19 ip4:172.217.160.0/20 ip4:172.217.192.0/19 ip4:172.253.56.0/21 ip4:172.253.112.0/20 ip4:108.177.96.0/19 ip4:35.191.0.0/16 ip4:130.211.0.0/22 ~all",
    ),
    ("o.test", "v=spf1 include:spf.o.test -all"),
    (
        "spf.o.test",
        "v=spf1 ip4:40.92.0.0/15 ip4:40.107.0.0/16 ip4:52.100.0.0/15 ip4:52.102.0.0/16 ip4:52.103.0.0/17 ip4:104.47.0.0/17 ip6:2a01:111:f400::/48 ip6:2a01:111:f403::/49 ip6:2a01:111:f403:8000::/51 -all",
    ),
    ("_dmarc.g.test", "v=DMARC1; p=reject; sp=quarantine; rua=mailto:dmarc@g.test"),
];

/// The zone as ours is asked it.
pub fn zone(more: &[(String, String)]) -> MemoryZone {
    let zone = MemoryZone::new();
    for (owner, text) in texts(more) {
        zone.insert(owner.parse().expect("a name"), Record::txt(text));
    }
    zone
}

fn texts(more: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    ZONE.iter().copied().chain(more.iter().map(|(owner, text)| (&**owner, &**text)))
}

/// A cache of text that is parsed when asked, or of parsed records.
pub enum TxtCache {
    Text(HashMap<Box<str>, String>),
    Parsed(HashMap<Box<str>, Txt>),
}

impl TxtCache {
    /// Text, and records that were parsed beforehand.
    pub fn both(more: &[(String, String)]) -> [TxtCache; 2] {
        let dotted = |owner: &str| format!("{owner}.").into_boxed_str();
        let text = texts(more).map(|(owner, text)| (dotted(owner), text.to_owned()));
        let parsed = texts(more).map(|(owner, text)| (dotted(owner), parse(text)));
        [TxtCache::Text(text.collect()), TxtCache::Parsed(parsed.collect())]
    }
}

fn parse(text: &str) -> Txt {
    if text.starts_with("v=spf1") {
        Txt::Spf(Arc::new(Spf::parse(text.as_bytes()).expect("an SPF record")))
    } else if text.starts_with("v=DKIM1") {
        Txt::DomainKey(Arc::new(DomainKey::parse(text.as_bytes()).expect("a key")))
    } else {
        Txt::Dmarc(Arc::new(Dmarc::parse(text.as_bytes()).expect("a DMARC record")))
    }
}

impl ResolverCache<Box<str>, Txt> for TxtCache {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // What is not in the zone does not exist: without this it would ask the network.
        let missing = || Some(Txt::Error(Error::Dns(DnsError::RecordNotFound(ResponseCode::NXDomain))));
        match self {
            TxtCache::Parsed(all) => all.get(name).cloned().or_else(missing),
            TxtCache::Text(all) => all.get(name).map(|text| parse(text)).or_else(missing),
        }
    }
    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }
    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

/// No addresses are needed by these records.
pub struct Empty;

impl<K, V> ResolverCache<K, V> for Empty {
    fn get<Q>(&self, _: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }
    fn remove<Q>(&self, _: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }
    fn insert(&self, _: K, _: V, _: Instant) {}
}

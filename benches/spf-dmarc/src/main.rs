//! SPF and DMARC verdicts: ours and mail-auth 0.13.3, over the same zone in memory, answers asserted.
//!
//! mail-auth knows DNS in memory only through its caches of parsed records. So it runs twice: once with a cache that
//! holds text and parses it when asked, which is the work that a look-up really costs it, and ours each time
//! (`CASE`), and once with everything parsed beforehand (`CASE-remembered`), which is what it saves when it is asked
//! for the same domain again within the time to live.
//!
//! Prints `name<TAB>ours<TAB>peer<TAB>peer's name<TAB>unit`; everything else begins with `#`. `--quick` takes fewer
//! rounds, `--list` names what `--only NAME` runs alone, for callgrind.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "this is a stop-watch")]

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::dmarc::{Dmarc, verify::DmarcParameters};
use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::hickory_resolver::proto::op::ResponseCode;
use mail_auth::spf::{Spf, verify::SpfParameters};
use mail_auth::{
    AuthenticatedMessage, AuthenticationResults, DmarcResult, DnsError, Error, MX, MessageAuthenticator,
    Parameters, RecordSet, ResolverCache, SpfOutput, SpfResult, Txt,
};
use postwright_core::{MemoryZone, Record};
use postwright_spf_dmarc::auth_results::AuthResults;
use postwright_spf_dmarc::dmarc::{self, Authors, DmarcQuery};
use postwright_spf_dmarc::header;
use postwright_spf_dmarc::spf::{self, SpfQuery};

/// Records in the shape of large senders: nested includes of many networks.
const ZONE: &[(&str, &str)] = &[
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

/// A cache of text that is parsed when asked, or of parsed records.
enum TxtCache {
    Text(HashMap<Box<str>, &'static str>),
    Parsed(HashMap<Box<str>, Txt>),
}

fn parse(text: &str) -> Txt {
    if text.starts_with("v=spf1") {
        Txt::Spf(Arc::new(Spf::parse(text.as_bytes()).expect("an SPF record")))
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
struct Empty;

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

fn now<F: Future>(work: F) -> F::Output {
    match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a look-up left memory"),
    }
}

struct Bench {
    zone: MemoryZone,
    text: TxtCache,
    parsed: TxtCache,
    authenticator: MessageAuthenticator,
    /// What SPF says of the message.
    passed: spf::SpfResult,
}

type Theirs<'x, P> = Parameters<'x, P, TxtCache, Empty, Empty, Empty, Empty>;

fn with<P>(params: P, cache: &TxtCache) -> Theirs<'_, P>
where
    Empty: ResolverCache<Box<str>, RecordSet<MX>>
        + ResolverCache<Box<str>, RecordSet<Ipv4Addr>>
        + ResolverCache<Box<str>, RecordSet<Ipv6Addr>>
        + ResolverCache<IpAddr, RecordSet<Box<str>>>,
{
    Parameters {
        params,
        cache_txt: Some(cache),
        cache_mx: None,
        cache_ptr: None,
        cache_ipv4: None,
        cache_ipv6: None,
    }
}

const MESSAGE: &[u8] = b"From: Joe <joe@g.test>\r\nSubject: x\r\n\r\nx\r\n";

impl Bench {
    fn new() -> Bench {
        let zone = MemoryZone::new();
        for (owner, text) in ZONE {
            zone.insert(owner.parse().expect("a name"), Record::txt(text));
        }
        let dotted = |owner: &str| format!("{owner}.").into_boxed_str();
        let text = TxtCache::Text(ZONE.iter().map(|(owner, text)| (dotted(owner), *text)).collect());
        let parsed =
            TxtCache::Parsed(ZONE.iter().map(|(owner, text)| (dotted(owner), parse(text))).collect());
        let authenticator = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default())
            .expect("a resolver that is never asked");
        let query = SpfQuery::mail_from([130, 211, 1, 1].into(), "mx.test", "joe@g.test");
        let passed = now(spf::check(&query, &zone));
        Bench { zone, text, parsed, authenticator, passed }
    }

    fn spf(&self, who: Who, what: &str) -> Found {
        let (ip, sender): (IpAddr, &str) = match what {
            "spf-outlook" => (OUTLOOK.parse().expect("an address"), "joe@o.test"),
            // The last network of the last include.
            _ => ([130, 211, 1, 1].into(), "joe@g.test"),
        };
        match who {
            Who::Ours => {
                Found::Ours(now(spf::check(&SpfQuery::mail_from(ip, "mx.test", sender), &self.zone)))
            }
            _ => {
                let params = SpfParameters::verify_mail_from(ip, "mx.test", "host.test", sender);
                Found::Theirs(now(self.authenticator.verify_spf(with(params, self.cache(who)))))
            }
        }
    }

    fn cache(&self, who: Who) -> &TxtCache {
        if who == Who::Text { &self.text } else { &self.parsed }
    }

    fn dmarc(&self, who: Who, spf: Found, write: bool) {
        match spf {
            Found::Ours(spf) => {
                let from =
                    header::fields(MESSAGE).find(|field| field.is("From")).expect("a From field").text();
                let query = DmarcQuery::new(Authors::parse(&from)).spf(spf.authenticated());
                let result = now(dmarc::evaluate(&query, &self.zone));
                assert_eq!(result.verdict, dmarc::Verdict::Pass);
                if write {
                    let field = AuthResults::new("mx.test").with(&spf).with(&result).field();
                    black_box(field);
                }
            }
            Found::Theirs(spf) => {
                let message = AuthenticatedMessage::parse(MESSAGE).expect("a message");
                let params = DmarcParameters::new(&message, &[], "g.test", &spf);
                let result = now(self.authenticator.verify_dmarc(with(params, self.cache(who))));
                assert_eq!(*result.spf_result(), DmarcResult::Pass);
                if write {
                    let results = AuthenticationResults::new("mx.test");
                    let results = results
                        .with_spf_mailfrom_result(&spf, [130, 211, 1, 1].into(), "joe@g.test", "mx.test")
                        .with_dmarc_result(&result);
                    black_box(results.to_string());
                }
            }
        }
    }

    #[inline(never)]
    fn measured(&self, who: Who, what: &str) {
        match what {
            "dmarc" => {
                let spf = match who {
                    Who::Ours => Found::Ours(self.passed.clone()),
                    _ => Found::Theirs(SpfOutput::new("g.test".to_owned()).with_result(SpfResult::Pass)),
                };
                self.dmarc(who, spf, false);
            }
            "check" => {
                let spf = self.spf(who, "spf-google");
                self.dmarc(who, spf, true);
            }
            _ => match self.spf(who, what) {
                Found::Ours(result) => assert_eq!(result.verdict, spf::Verdict::Pass),
                Found::Theirs(output) => assert_eq!(output.result(), SpfResult::Pass),
            },
        }
    }

    /// Nanoseconds (the best of many rounds, by turns) of one verdict by each.
    fn times(&self, what: &str, rounds: u32) -> [f64; 3] {
        let mut best = [f64::MAX; 3];
        for _ in 0..rounds {
            for (who, best) in WHO.into_iter().zip(&mut best) {
                let start = Instant::now();
                (0..TIMES).for_each(|_| self.measured(black_box(who), black_box(what)));
                *best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
            }
        }
        best
    }

    fn allocations(&self, who: Who, what: &str) -> u64 {
        self.measured(who, what);
        allocation_counter::measure(|| self.measured(who, what)).count_total
    }
}

const OUTLOOK: &str = "2a01:111:f403:8000::1";
const CASES: [&str; 4] = ["spf-google", "spf-outlook", "dmarc", "check"];
const WHO: [Who; 3] = [Who::Ours, Who::Text, Who::Parsed];
const TIMES: u32 = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    /// mail-auth, which parses text.
    Text,
    /// mail-auth with its records parsed beforehand.
    Parsed,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Ours => "ours",
            Who::Text => "mail-auth",
            Who::Parsed => "mail-auth-remembered",
        }
    }
}

enum Found {
    Ours(spf::SpfResult),
    Theirs(SpfOutput),
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let bench = Bench::new();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match *words {
        ["--list"] => {
            for (case, who) in CASES.into_iter().flat_map(|case| WHO.map(|who| (case, who))) {
                println!("{case}:{}\t{TIMES}", who.name());
            }
        }
        ["--only", wanted] => {
            for (case, who) in CASES.into_iter().flat_map(|case| WHO.map(|who| (case, who))) {
                if wanted == format!("{case}:{}", who.name()) {
                    (0..TIMES).for_each(|_| bench.measured(who, case));
                }
            }
        }
        [] => table(&bench, 100),
        ["--quick"] => table(&bench, 10),
        _ => panic!("usage: [--quick | --list | --only CASE:WHO]"),
    }
}

fn table(bench: &Bench, rounds: u32) {
    for case in CASES {
        let [ours, text, parsed] = bench.times(case, rounds);
        println!("{case}\t{ours:.0}\t{text:.0}\tmail-auth 0.13.3\tns");
        println!("{case}-remembered\t{ours:.0}\t{parsed:.0}\tmail-auth 0.13.3\tns");
        let [ours, text, parsed] = WHO.map(|who| bench.allocations(who, case));
        println!("{case}\t{ours}\t{text}\tmail-auth 0.13.3\tallocations");
        println!("{case}-remembered\t{ours}\t{parsed}\tmail-auth 0.13.3\tallocations");
    }
}

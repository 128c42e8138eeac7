//! `HickoryResolver` against a name server on loopback, and the contract that it shares with `MemoryZone`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod dns_server;

use std::sync::atomic::Ordering;
use std::time::Duration;

use dns_server::{Server, Table};
use postwright_core::{
    Answer, DnsError, Found, HickoryConfig, HickoryResolver, MemoryZone, Name, Record, RecordKind, Resolver,
};

/// Read by our parser for `MemoryZone` and by hickory's for the server.
const ZONE: &str = r#"
$TTL 300
example.org.        IN MX    10 mx.example.org.
example.org.        IN MX    20 backup.example.net.
example.org.        IN NS    ns.example.org.
example.org.        IN TXT   "v=spf1 " "mx -all"
mx.example.org.     IN A     192.0.2.1
mx.example.org.     IN A     192.0.2.2
mx.example.org.     IN AAAA  2001:db8::1
1.2.0.192.in-addr.arpa. IN PTR mx.example.org.
_25._tcp.mx.example.org. IN TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
null.example.org.   IN MX    0 .
www.example.org.    IN CNAME web.example.org.
web.example.org.    IN CNAME mx.example.org.
out.example.org.    IN CNAME nowhere.example.net.
loop.example.org.   IN CNAME pool.example.org.
pool.example.org.   IN CNAME loop.example.org.
self.example.org.   IN CNAME self.example.org.
big.example.org.    IN TXT   "by TCP"
"#;

async fn ask(resolver: &dyn Resolver, name: &str, kind: RecordKind) -> Result<Answer, DnsError> {
    resolver.lookup(&name.parse().unwrap(), kind).await
}

fn with(change: impl FnOnce(&mut HickoryConfig)) -> HickoryConfig {
    let mut config = HickoryConfig::default();
    change(&mut config);
    config
}

fn resolver(server: &Server) -> HickoryResolver {
    let config = with(|config| {
        config.servers = vec![server.address];
        config.timeout = Duration::from_millis(400);
    });
    HickoryResolver::new(&config).unwrap()
}

/// What every resolver owes its callers, whatever is behind it.
async fn contract(dns: &dyn Resolver) {
    let name = |text: &str| -> Name { text.parse().unwrap() };
    let mut mx = ask(dns, "example.org", RecordKind::Mx).await.unwrap().records().to_vec();
    mx.sort_by_key(|record| format!("{record:?}"));
    assert_eq!(
        mx,
        [
            Record::Mx { preference: 10, exchange: name("mx.example.org") },
            Record::Mx { preference: 20, exchange: name("backup.example.net") },
        ]
    );
    let answer = ask(dns, "EXAMPLE.org.", RecordKind::Txt).await.unwrap();
    assert_eq!(answer.records(), [Record::Txt(vec![b"v=spf1 "[..].into(), b"mx -all"[..].into()])]);
    assert_eq!(answer.canonical, name("example.org"));
    assert!(!answer.secure);
    assert!((1..=300).contains(&answer.ttl));
    let addresses = ask(dns, "mx.example.org", RecordKind::A).await.unwrap();
    let mut addresses: Vec<_> = addresses.records().iter().filter_map(Record::address).collect();
    addresses.sort();
    assert_eq!(addresses, ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
    for (owner, kind, record) in [
        ("mx.example.org", RecordKind::Aaaa, Record::Aaaa("2001:db8::1".parse().unwrap())),
        ("example.org", RecordKind::Ns, Record::Ns(name("ns.example.org"))),
        ("1.2.0.192.in-addr.arpa", RecordKind::Ptr, Record::Ptr(name("mx.example.org"))),
        ("www.example.org", RecordKind::Cname, Record::Cname(name("web.example.org"))),
        ("null.example.org", RecordKind::Mx, Record::Mx { preference: 0, exchange: Name::root() }),
        (
            "_25._tcp.mx.example.org",
            RecordKind::Tlsa,
            Record::Tlsa {
                usage: 3,
                selector: 1,
                matching: 1,
                data: (0..32u8).map(|i| (i % 16) * 0x11).collect(),
            },
        ),
    ] {
        assert_eq!(ask(dns, owner, kind).await.unwrap().records(), [record], "{owner} {kind}");
    }
    let followed = ask(dns, "www.example.org", RecordKind::A).await.unwrap();
    assert_eq!(followed.records().len(), 2);
    assert_eq!(followed.canonical, name("mx.example.org"));
    absences(dns).await;
}

async fn absences(dns: &dyn Resolver) {
    for (owner, kind, found, canonical) in [
        ("mx.example.org", RecordKind::Mx, Found::NoData, "mx.example.org"),
        ("_tcp.mx.example.org", RecordKind::A, Found::NoData, "_tcp.mx.example.org"),
        ("nobody.example.org", RecordKind::A, Found::NoName, "nobody.example.org"),
        ("odd local@part.example.org", RecordKind::A, Found::NoName, "odd local@part.example.org"),
        ("www.example.org", RecordKind::Txt, Found::NoData, "mx.example.org"),
        ("out.example.org", RecordKind::A, Found::NoName, "nowhere.example.net"),
    ] {
        let answer = ask(dns, owner, kind).await.unwrap();
        assert_eq!((answer.found, answer.canonical.as_str()), (found, canonical), "{owner} {kind}");
    }
    for looped in ["loop.example.org", "self.example.org"] {
        assert_eq!(ask(dns, looped, RecordKind::A).await, Err(DnsError::ServFail), "{looped}");
    }
}

#[tokio::test]
async fn the_memory_zone_keeps_the_contract() {
    contract(&MemoryZone::parse(ZONE).unwrap()).await;
}

#[tokio::test]
async fn hickory_keeps_the_contract() {
    let server = Server::start(Table::parse(ZONE)).await;
    contract(&resolver(&server)).await;
    // Once more: what comes from the cache says the same.
    let cached = resolver(&server);
    for _ in 0..2 {
        contract(&cached).await;
    }
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_by_tcp() {
    let server = Server::start(Table::parse(ZONE)).await;
    let answer = ask(&resolver(&server), "big.example.org", RecordKind::Txt).await.unwrap();
    assert_eq!(answer.records(), [Record::txt("by TCP")]);
    assert!(server.udp.load(Ordering::SeqCst) >= 1);
    assert_eq!(server.tcp.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_answer_is_an_error_and_never_an_absence() {
    let server = Server::start(Table::parse(ZONE)).await;
    let dns = resolver(&server);
    assert_eq!(ask(&dns, "servfail.example.org", RecordKind::A).await, Err(DnsError::ServFail));
    assert_eq!(ask(&dns, "refused.example.org", RecordKind::A).await, Err(DnsError::ServFail));
    assert_eq!(ask(&dns, "silent.example.org", RecordKind::A).await, Err(DnsError::Timeout));
    let gone = Server { address: "127.0.0.1:1".parse().unwrap(), udp: server.udp, tcp: server.tcp };
    assert!(ask(&resolver(&gone), "example.org", RecordKind::A).await.is_err());
}

#[tokio::test]
async fn work_is_bounded() {
    let server = Server::start(Table::parse(ZONE)).await;
    let config = with(|config| {
        config.servers = vec![server.address];
        config.timeout = Duration::from_secs(60);
        config.deadline = Duration::from_millis(300);
        config.in_flight_max = 1;
        config.records_max = 1;
    });
    let dns = HickoryResolver::new(&config).unwrap();
    let answer = ask(&dns, "mx.example.org", RecordKind::A).await.unwrap();
    assert_eq!(answer.records().len(), 1, "two were sent");
    // The first takes the only turn until the deadline; the second's deadline runs while it waits.
    let (first, second) = tokio::join!(
        ask(&dns, "silent.example.org", RecordKind::A),
        ask(&dns, "silent.example.net", RecordKind::A)
    );
    assert_eq!((first, second), (Err(DnsError::Timeout), Err(DnsError::Timeout)));
    assert!(ask(&dns, "mx.example.org", RecordKind::Aaaa).await.is_ok(), "the turn came back");
}

#[tokio::test]
async fn one_server_of_two_is_enough() {
    let good = Server::start(Table::parse(ZONE)).await;
    // One that takes questions and says nothing, and one that is not there.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gone = {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    for bad in [silent.local_addr().unwrap(), gone] {
        for servers in [vec![bad, good.address], vec![good.address, bad]] {
            let config = with(|config| {
                config.servers = servers;
                config.timeout = std::time::Duration::from_millis(300);
            });
            let dns = HickoryResolver::new(&config).unwrap();
            let answer = ask(&dns, "example.org", RecordKind::Mx).await;
            assert!(answer.is_ok_and(|answer| !answer.records().is_empty()), "{config:?}");
        }
    }
    // With none left there is no answer, which is not the absence of one.
    let config = with(|config| {
        config.servers = vec![silent.local_addr().unwrap(), gone];
        config.timeout = std::time::Duration::from_millis(300);
    });
    let dns = HickoryResolver::new(&config).unwrap();
    assert!(ask(&dns, "example.org", RecordKind::Mx).await.is_err());
}

#[tokio::test]
async fn dnssec_is_validated_from_the_trust_anchor_down() {
    // One zone from the root down: an NS record would be a delegation, whose side of the cut proves no absence.
    let zone: String =
        ZONE.lines().filter(|line| !line.contains(" NS ")).map(|line| format!("{line}\n")).collect();
    let mut table = Table::parse(&format!("{zone}forged.test. IN A 192.0.2.66\n"));
    let anchor = table.sign("forged.test.");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), anchor).unwrap();
    let server = Server::start(table).await;
    let config = with(|config| {
        config.servers = vec![server.address];
        config.trust_anchors = Some(file.path().to_owned());
    });
    let dns = HickoryResolver::new(&config).unwrap();
    for (owner, kind) in [
        ("_25._tcp.mx.example.org", RecordKind::Tlsa),
        ("example.org", RecordKind::Mx),
        ("www.example.org", RecordKind::A),
    ] {
        let answer = ask(&dns, owner, kind).await.unwrap();
        assert!(answer.secure && !answer.records().is_empty(), "{owner}: {answer:?}");
    }
    let absent = ask(&dns, "mx.example.org", RecordKind::Mx).await.unwrap();
    assert_eq!((absent.found, absent.secure), (Found::NoData, true));
    let absent = ask(&dns, "nobody.example.org", RecordKind::A).await.unwrap();
    assert_eq!((absent.found, absent.secure), (Found::NoName, true));
    assert_eq!(ask(&dns, "forged.test", RecordKind::A).await, Err(DnsError::Bogus));
    let unsigned = Server::start(Table::parse(ZONE)).await;
    let mut config = config;
    config.servers = vec![unsigned.address];
    let stripped = HickoryResolver::new(&config).unwrap();
    let answer = ask(&stripped, "example.org", RecordKind::Mx).await;
    assert!(answer.is_err(), "signatures were stripped: {answer:?}");
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let config = with(|config| {
        config.trust_anchors = Some("/nonexistent/anchors".into());
        config.servers = vec!["127.0.0.1:53".parse().unwrap()];
    });
    let error = HickoryResolver::new(&config).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/anchors"), "{error}");
}

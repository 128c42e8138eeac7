//! `MemoryZone`: its text form, aliases, wildcards, negative answers and failures on demand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::task::{Context, Poll, Waker};

use postwright_core::{Answer, DnsError, Found, MemoryZone, Name, Record, RecordKind, Resolver};

fn ask(zone: &MemoryZone, name: &str, kind: RecordKind) -> Result<Answer, DnsError> {
    let name: Name = name.parse().unwrap();
    let mut lookup = zone.lookup(&name, kind);
    match lookup.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a memory zone answers at once"),
    }
}

const ZONE: &str = r#"
$ORIGIN example.org.
$TTL 1h
@       IN SOA ns hostmaster ( 1 ; serial
                               2h 1h 1w 1d )
        IN NS  ns
@  300  IN MX  10 mx
           MX  20 backup.example.net.
mx         A     192.0.2.1
           AAAA  2001:db8::1
@          TXT   "v=spf1 " "mx -all" ; two strings, joined without a blank
esc        TXT   "a\"b\\c\065;d" bare\ word
www        CNAME mx
loop       CNAME pool
pool       CNAME loop
slow       TIMEOUT
half       TXT   SERVFAIL
half       A     192.0.2.9
word       TXT   "TIMEOUT"
a.b.deep   A     192.0.2.3
*.wild     A     192.0.2.4
null       MX    0 .
$SECURE signed
signed     CNAME www
_25._tcp.signed TLSA 3 1 1 ( 0011 2233
                             AAFF )
inner.signed A   192.0.2.5
"#;

#[test]
fn zone_files_are_read() {
    let zone = MemoryZone::parse(ZONE).unwrap();
    let mx = ask(&zone, "example.org", RecordKind::Mx).unwrap();
    assert_eq!(mx.records().len(), 2);
    assert_eq!(mx.records()[0], Record::Mx { preference: 10, exchange: "mx.example.org".parse().unwrap() });
    let txt = ask(&zone, "EXAMPLE.org", RecordKind::Txt).unwrap();
    assert_eq!(txt.records()[0].text().unwrap(), &b"v=spf1 mx -all"[..]);
    let escaped = ask(&zone, "esc.example.org", RecordKind::Txt).unwrap();
    assert_eq!(escaped.records()[0], Record::Txt(vec![b"a\"b\\cA;d"[..].into(), b"bare word"[..].into()]));
    let null = ask(&zone, "null.example.org", RecordKind::Mx).unwrap();
    assert_eq!(null.records()[0], Record::Mx { preference: 0, exchange: Name::root() });
    let tlsa = ask(&zone, "_25._tcp.signed.example.org", RecordKind::Tlsa).unwrap();
    assert!(tlsa.secure);
    let data = [0x00, 0x11, 0x22, 0x33, 0xaa, 0xff][..].into();
    assert_eq!(tlsa.records()[0], Record::Tlsa { usage: 3, selector: 1, matching: 1, data });
}

#[test]
fn absence_has_two_shapes() {
    let zone = MemoryZone::parse(ZONE).unwrap();
    let found = |name: &str, kind| ask(&zone, name, kind).unwrap().found;
    assert_eq!(found("mx.example.org", RecordKind::Txt), Found::NoData);
    assert_eq!(found("nobody.example.org", RecordKind::A), Found::NoName);
    assert_eq!(found("deep.example.org", RecordKind::A), Found::NoData, "an empty non-terminal exists");
    assert_eq!(
        found("x.y.wild.example.org", RecordKind::A),
        Found::Records([Record::A("192.0.2.4".parse().unwrap())].into())
    );
    assert_eq!(found("x.wild.example.org", RecordKind::Mx), Found::NoData);
}

#[test]
fn aliases_are_followed_and_named() {
    let zone = MemoryZone::parse(ZONE).unwrap();
    let answer = ask(&zone, "www.example.org", RecordKind::A).unwrap();
    assert_eq!(answer.canonical.as_str(), "mx.example.org");
    assert_eq!(
        ask(&zone, "www.example.org", RecordKind::Cname).unwrap().canonical.as_str(),
        "www.example.org"
    );
    assert_eq!(ask(&zone, "loop.example.org", RecordKind::A), Err(DnsError::ServFail));
    let crossing = ask(&zone, "signed.example.org", RecordKind::A).unwrap();
    assert!(!crossing.secure, "an alias that leaves the signed zone is not secure");
    assert!(ask(&zone, "inner.signed.example.org", RecordKind::A).unwrap().secure);
}

#[test]
fn failures_come_on_demand_and_can_end() {
    let zone = MemoryZone::parse(ZONE).unwrap();
    assert_eq!(ask(&zone, "slow.example.org", RecordKind::Mx), Err(DnsError::Timeout));
    assert_eq!(ask(&zone, "half.example.org", RecordKind::Txt), Err(DnsError::ServFail));
    assert!(ask(&zone, "half.example.org", RecordKind::A).is_ok());
    assert!(ask(&zone, "word.example.org", RecordKind::Txt).is_ok(), "a quoted word is text");
    zone.remove(&"slow.example.org".parse().unwrap());
    assert_eq!(ask(&zone, "slow.example.org", RecordKind::Mx).unwrap().found, Found::NoName);
    assert_eq!(zone.lookups(), 5);
}

#[test]
fn errors_name_the_line() {
    for (text, line) in [
        ("a. A 192.0.2.1\nb. A x", 2),
        ("a. MX 10", 1),
        ("a. BOGUSTYPE x", 1),
        ("a. TXT \"open", 1),
        ("a. TXT (\n\"x\"", 1),
        (" A 192.0.2.1", 1),
        ("@ A 192.0.2.1", 1),
        ("$INCLUDE x", 1),
        ("a. TLSA 3 1 1 abc", 1),
        ("a. TXT \"\\999\"", 1),
        ("a..b. A 192.0.2.1", 1),
    ] {
        assert_eq!(MemoryZone::parse(text).unwrap_err().line, line, "{text:?}");
    }
}

//! DANE: OpenSSL's `danetest` vectors, and the look-up rules of RFC 7672.

use base64::Engine;
use postwright_core::{DnsError, MemoryZone, Record, SeededEntropy};
use postwright_smtp_client::dane::{Lookup, Mismatch, Tlsa, Usage, lookup, verify};
use postwright_smtp_client::route::{Route, Rules, plan, plan_host};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

fn vectors() -> Option<String> {
    let found = postwright_testkit::suites::dir("dane").map(|dir| dir.join("danetest.in"));
    let text = found.and_then(|path| std::fs::read_to_string(path).ok());
    if text.is_none() {
        postwright_testkit::announce("dane", "danetest.in was not found");
    }
    text
}

struct Case {
    number: usize,
    records: Vec<Record>,
    chain: Vec<CertificateDer<'static>>,
    result: i32,
}

fn hex(text: &str) -> Box<[u8]> {
    text.as_bytes()
        .chunks(2)
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect()
}

/// Each case: `<records> <certificates> <nonamechecks> <result> <depth>`, the records, the certificates in PEM.
fn cases(text: &str) -> Vec<Case> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut cases = Vec::new();
    while let Some(line) = lines.next() {
        let numbers: Vec<i32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [records, certificates, _, result, _] = numbers[..] else { panic!("{line}") };
        let record = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |i: usize| words[i].parse().unwrap();
            Record::Tlsa { usage: number(0), selector: number(1), matching: number(2), data: hex(words[3]) }
        };
        let records = (0..records).map(|_| record(lines.next().unwrap())).collect();
        let mut chain = Vec::new();
        for _ in 0..certificates {
            lines.by_ref().find(|line| line.starts_with("-----BEGIN")).unwrap();
            let body: String = lines.by_ref().take_while(|line| !line.starts_with("-----END")).collect();
            let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
            chain.push(CertificateDer::from(der));
        }
        cases.push(Case { number: cases.len() + 1, records, chain, result });
    }
    cases
}

#[test]
fn the_vectors_of_openssl_are_judged_as_rfc_7672_says() {
    let Some(text) = vectors() else { return };
    let provider = rustls::crypto::ring::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    // The certificates are valid until 3015.
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
    let name = ServerName::try_from("example.com").unwrap();
    let cases = cases(&text);
    assert_eq!(cases.len(), 54);
    let (mut matched, mut unusable) = (0, 0);
    for Case { number, records, chain, result } in &cases {
        let usable: Vec<Tlsa> = records.iter().filter_map(Tlsa::usable).collect();
        if usable.is_empty() {
            // RFC 7672 3.1.3: PKIX-TA(0) and PKIX-EE(1), which OpenSSL verifies, are unusable for SMTP.
            assert!(
                records.iter().all(|record| matches!(record, Record::Tlsa { usage: 0 | 1, .. })),
                "{number}"
            );
            unusable += 1;
            continue;
        }
        let ours = verify(&usable, chain, std::slice::from_ref(&name), algorithms, now);
        let expected = match (number, result) {
            // RFC 7672 3.1.1: with DANE-EE(3) the name is never checked; the vector asks OpenSSL to check it.
            (54, 62) => Ok(Usage::EndEntity),
            (_, 0) if usable[0].usage == Usage::EndEntity => Ok(Usage::EndEntity),
            (_, 0) => Ok(Usage::TrustAnchor),
            (_, 62) => Err(Mismatch::Name),
            (_, 65) => Err(Mismatch::NoMatch),
            other => panic!("{other:?}"),
        };
        assert_eq!(ours, expected, "case {number}: {usable:?}");
        matched += 1;
    }
    assert_eq!((matched, unusable), (34, 20));
    let why = "PKIX usages are unusable for SMTP (RFC 7672 3.1.3); DANE-EE checks no name (3.1.1)";
    postwright_testkit::cases("dane", matched + unusable, unusable + 1, why);
}

#[test]
fn a_trust_anchor_does_not_save_an_expired_or_broken_chain() {
    let Some(text) = vectors() else { return };
    let provider = rustls::crypto::ring::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let name = ServerName::try_from("example.com").unwrap();
    let case = cases(&text).swap_remove(15 - 1);
    let usable: Vec<Tlsa> = case.records.iter().filter_map(Tlsa::usable).collect();
    let at = |secs| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
    let check = |chain: &[CertificateDer<'_>], now| {
        verify(&usable, chain, std::slice::from_ref(&name), algorithms, now)
    };
    assert_eq!(check(&case.chain, at(1_800_000_000)), Ok(Usage::TrustAnchor));
    assert_eq!(
        check(&case.chain, at(1_000_000_000)),
        Err(Mismatch::Expired),
        "before the certificate is valid"
    );
    let mut forged = case.chain[0].to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = [CertificateDer::from(forged), case.chain[1].clone()];
    assert_eq!(check(&forged, at(1_800_000_000)), Err(Mismatch::Chain), "a changed signature");
    assert_eq!(
        check(&case.chain[..1], at(1_800_000_000)),
        Err(Mismatch::NoMatch),
        "the anchor was not shown"
    );
    assert_eq!(check(&[], at(1_800_000_000)), Err(Mismatch::NoMatch));
    let garbage =
        [CertificateDer::from(vec![0x30, 0x83, 0xff, 0xff, 0xff]), CertificateDer::from(vec![0x30])];
    assert_eq!(check(&garbage, at(1_800_000_000)), Err(Mismatch::NoMatch));
}

const ZONE: &str = "
$ORIGIN example.
$SECURE signed.example.
$SECURE far.example.
signed          MX 10 mx.signed
mx.signed       A 192.0.2.1
_25._tcp.mx.signed TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
none.signed     MX 10 h.none.signed
h.none.signed   A 192.0.2.2
odd.signed      MX 10 h.odd.signed
h.odd.signed    A 192.0.2.3
_25._tcp.h.odd.signed TLSA 1 1 1 0000000000000000000000000000000000000000000000000000000000000000
_25._tcp.h.odd.signed TLSA 3 1 1 00
bogus.signed    MX 10 h.bogus.signed
h.bogus.signed  A 192.0.2.4
_25._tcp.h.bogus.signed BOGUS
slow.signed     MX 10 h.slow.signed
h.slow.signed   A 192.0.2.5
_25._tcp.h.slow.signed TIMEOUT
alias.signed    MX 10 h.alias.signed
h.alias.signed  CNAME h.far
h.far           A 192.0.2.6
_25._tcp.h.far  TLSA 2 0 1 0000000000000000000000000000000000000000000000000000000000000000
_25._tcp.h.alias.signed TLSA 3 0 1 0000000000000000000000000000000000000000000000000000000000000000
agile.signed    MX 10 h.agile.signed
h.agile.signed  A 192.0.2.7
_25._tcp.h.agile.signed TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
_25._tcp.h.agile.signed TLSA 3 1 2 00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
half.signed     MX 10 h.half.signed
h.half.signed   A 192.0.2.9
h.half.signed   AAAA SERVFAIL
_25._tcp.h.half.signed TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
out.signed      MX 10 h.out.signed
h.out.signed    CNAME mx.plain
_25._tcp.h.out.signed TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
outer.signed    MX 10 h.outer.signed
h.outer.signed  CNAME mx.plain
in.plain        CNAME mx.signed
mixedin.signed  MX 10 in.plain
plain           MX 10 mx.plain
mx.plain        A 192.0.2.8
_25._tcp.mx.plain TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
mixed           MX 10 mx.signed
";

async fn look_up(domain: &str) -> Lookup {
    let zone = MemoryZone::parse(ZONE).unwrap();
    let Route::Hosts(hosts) =
        plan(&domain.parse().unwrap(), &zone, &SeededEntropy::new(1), &Rules::default()).await
    else {
        panic!("no route to {domain}");
    };
    lookup(&hosts[0], 25, &zone).await
}

#[tokio::test]
async fn only_secure_records_bind_and_failures_defer() {
    for (domain, expected) in [
        ("signed.example", "Usable mx.signed.example 1"),
        ("none.signed.example", "None"),
        ("odd.signed.example", "Unusable"),
        ("bogus.signed.example", "Deferred(Bogus)"),
        ("slow.signed.example", "Deferred(Timeout)"),
        // RFC 7672 2.2.2: the name behind the aliases comes first.
        ("alias.signed.example", "Usable h.far.example 1"),
        // RFC 7671 9: SHA2-512 outdoes SHA2-256.
        ("agile.signed.example", "Usable h.agile.signed.example 1"),
        // RFC 7672 2.1.2: what can be had of the addresses is secure. Whoever keeps the others from us does not switch
        // DANE off by it.
        ("half.signed.example", "Usable h.half.signed.example 1"),
        // RFC 7672 2.2.2: an alias in a signed zone that leads out of it: its own name is the only TLSA base domain.
        ("out.signed.example", "Usable h.out.signed.example 1"),
        ("outer.signed.example", "None"),
        // An insecure alias could lead anywhere.
        ("mixedin.signed.example", "None"),
        ("plain.example", "None"),
        // An insecure MX record could name any host, a well-protected one of the attacker's included.
        ("mixed.example", "None"),
    ] {
        let shown = match look_up(domain).await {
            Lookup::Usable { records, base } => format!("Usable {base} {}", records.len()),
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected, "{domain}");
    }
    assert_eq!(look_up("slow.signed.example").await, Lookup::Deferred(DnsError::Timeout));
}

#[tokio::test]
async fn a_host_that_an_operator_names_is_bound_as_well() {
    // RFC 7672 2.2.2: hosts that are not found by MX records.
    let zone = MemoryZone::parse(ZONE).unwrap();
    for (host, expected) in [("mx.signed.example", true), ("mx.plain.example", false)] {
        let name = host.parse().unwrap();
        let route = plan_host(&name, &zone, &SeededEntropy::new(1), &Rules::default()).await;
        let Route::Hosts(hosts) = route else { panic!("{route:?}") };
        let found = lookup(&hosts[0], 25, &zone).await;
        assert_eq!(matches!(found, Lookup::Usable { .. }), expected, "{host}: {found:?}");
    }
}

//! Hostile zones: whatever is published, the work is bounded by the numbers of the standard, and the verdict is exact.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::now;
use postwright_core::{MemoryZone, Name, Record};
use postwright_spf_dmarc::dmarc::{self, DmarcQuery};
use postwright_spf_dmarc::spf::{Problem, SpfQuery, SpfResult, TermError, Verdict, check};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Checks x@d0.test from 192.0.2.1; also returns the look-ups that the resolver saw.
fn verdict(zone: &MemoryZone) -> (SpfResult, usize) {
    let before = zone.lookups();
    let result =
        now(check(&SpfQuery::mail_from("192.0.2.1".parse().unwrap(), "helo.test", "x@d0.test"), zone));
    (result, zone.lookups() - before)
}

fn zone(records: &[(&str, &str)]) -> MemoryZone {
    let zone = MemoryZone::new();
    for (owner, text) in records {
        zone.insert(name(owner), Record::txt(text));
    }
    zone
}

#[test]
fn loops_end_at_the_eleventh_term() {
    for record in ["v=spf1 include:d0.test -all", "v=spf1 redirect=d0.test"] {
        let (result, asked) = verdict(&zone(&[("d0.test", record)]));
        assert_eq!(result.verdict, Verdict::PermError);
        assert!(
            matches!(result.problem, Some(Problem::TooManyLookups { limit: 10, .. })),
            "{:?}",
            result.problem
        );
        assert_eq!((result.lookups, asked), (11, 11), "the first record and ten more");
    }
    let two = zone(&[("d0.test", "v=spf1 include:d1.test"), ("d1.test", "v=spf1 include:d0.test")]);
    assert_eq!(verdict(&two).1, 11);
}

#[test]
fn a_ten_way_fan_out_costs_ten_terms() {
    let zone = MemoryZone::new();
    let fan: String = (0..10).map(|i| format!(" include:d{i}.test")).collect();
    for i in 0..10 {
        zone.insert(name(&format!("d{i}.test")), Record::txt(format!("v=spf1{fan} -all")));
    }
    let (result, asked) = verdict(&zone);
    assert_eq!((result.verdict, result.lookups, asked), (Verdict::PermError, 11, 11));
}

#[test]
fn a_hundred_exchanges_are_one_too_many_from_the_eleventh() {
    for (count, expected, most) in
        [(10, Verdict::Neutral, 12), (11, Verdict::PermError, 2), (100, Verdict::PermError, 2)]
    {
        let zone = zone(&[("d0.test", "v=spf1 mx ?all")]);
        for i in 0..count {
            zone.insert(name("d0.test"), Record::Mx { preference: i, exchange: name(&format!("h{i}.test")) });
            zone.insert(name(&format!("h{i}.test")), Record::A("198.51.100.1".parse().unwrap()));
        }
        let (result, asked) = verdict(&zone);
        assert_eq!((result.verdict, asked), (expected, most), "{count}");
    }
}

#[test]
fn a_hundred_names_of_a_client_cost_ten_look_ups() {
    let zone = zone(&[("d0.test", "v=spf1 ptr exists:%{p}.x.test ptr:d9.test ?all")]);
    for i in 0..100 {
        zone.insert(Name::reverse("192.0.2.1".parse().unwrap()), Record::Ptr(name(&format!("h{i}.d0.test"))));
    }
    let (result, asked) = verdict(&zone);
    assert_eq!((result.verdict, result.lookups), (Verdict::Neutral, 3));
    // The record, one PTR, ten addresses, and what exists asks: the names are looked up once for all three terms.
    assert_eq!(asked, 13);
}

#[test]
fn void_look_ups_stop_at_the_third() {
    let (result, asked) =
        verdict(&zone(&[("d0.test", "v=spf1 a:v1.test a:v2.test a:v3.test a:v4.test +all")]));
    assert_eq!((result.verdict, result.void_lookups, asked), (Verdict::PermError, 3, 4));
    assert!(matches!(result.problem, Some(Problem::TooManyVoidLookups { limit: 2, .. })));
}

#[test]
fn a_record_of_64_kib_is_read_and_its_last_term_counts() {
    let mut record = "v=spf1".to_owned();
    while record.len() < 65_000 {
        record.push_str(" ip4:198.51.100.1");
    }
    assert_eq!(verdict(&zone(&[("d0.test", &format!("{record} -all"))])).0.verdict, Verdict::Fail);
    assert_eq!(verdict(&zone(&[("d0.test", &format!("{record} -al"))])).0.verdict, Verdict::PermError);
    // A term of 64 KiB of macros expands to a name of 253 octets at most.
    let macros = "%{s}".repeat(16_000);
    let zone = zone(&[("d0.test", &format!("v=spf1 exists:{macros}.x.test -all"))]);
    let (result, asked) = verdict(&zone);
    assert_eq!((result.verdict, asked <= 2), (Verdict::Fail, true));
}

#[test]
fn an_explanation_that_explodes_is_left_out() {
    let bomb = "%{s}".repeat(10_000);
    let zone = zone(&[("d0.test", "v=spf1 -all exp=e.test"), ("e.test", &bomb)]);
    let (result, _) = verdict(&zone);
    assert_eq!((result.verdict, result.explanation), (Verdict::Fail, None));
}

#[test]
fn names_of_255_octets_are_cut_from_the_left_or_match_nothing() {
    let label = "a".repeat(50);
    let long = [label.as_str(); 5].join(".");
    assert_eq!(long.len(), 254);
    let cut = zone(&[("d0.test", &format!("v=spf1 exists:{long}.x.test -all"))]);
    // 254 octets and ".x.test" leave room for four of the five labels (RFC 7208 7.3).
    let kept = format!("{}.x.test", [label.as_str(); 4].join("."));
    cut.insert(name(&kept), Record::A("127.0.0.2".parse().unwrap()));
    assert_eq!(verdict(&cut).0.verdict, Verdict::Pass);
    let label = "a".repeat(64);
    let (result, asked) = verdict(&zone(&[("d0.test", &format!("v=spf1 a:{label}.test -all"))]));
    assert_eq!((result.verdict, asked), (Verdict::Fail, 1), "no such name can be asked for");
    let sender = format!("x@{}.test", "b.".repeat(200));
    let query = SpfQuery::mail_from("192.0.2.1".parse().unwrap(), "helo.test", &sender);
    assert_eq!(now(check(&query, &MemoryZone::new())).verdict, Verdict::None);
}

#[test]
fn invisible_characters_are_named() {
    for record in [
        "v=spf1 a:ex\u{200b}ample.com -all",
        "v=spf1 \u{200b}-all",
        "v=spf1 -all\u{feff}",
        "v=spf1 a\u{a0}-all",
    ] {
        let (result, asked) = verdict(&zone(&[("d0.test", record)]));
        assert_eq!((result.verdict, asked), (Verdict::PermError, 1));
        let Some(Problem::Syntax { error, .. }) = result.problem else { panic!("{record:?}") };
        assert_eq!(error.what, TermError::NotAscii);
    }
    // In front of or inside of the version it is no SPF record at all (RFC 7208 4.5).
    for record in ["\u{200b}v=spf1 -all", "v=spf1\u{200b} -all"] {
        assert_eq!(verdict(&zone(&[("d0.test", record)])).0.verdict, Verdict::None);
    }
}

#[test]
fn dmarc_asks_a_bounded_number_of_names_whatever_signs() {
    let zone = MemoryZone::parse("_dmarc.test. TXT \"v=DMARC1; p=reject\"").unwrap();
    let deep: String = "x.".repeat(120);
    let signers = (0..10).map(|i| name(&format!("{deep}s{i}.test")));
    let query = DmarcQuery::of(name(&format!("{deep}author.test"))).dkim(signers);
    let result = now(dmarc::evaluate(&query, &zone));
    assert_eq!(result.verdict, dmarc::Verdict::Pass);
    // Eight for the author. The first signer needs those of its eight that the author's walk has not asked.
    assert!(zone.lookups() <= 16, "{}", zone.lookups());
}

/// No more queries than the algorithm of RFC 7208 4 to 6 needs: it stops at the first match, and an address is asked for
/// only in the client's family.
#[test]
fn a_match_ends_the_queries() {
    let zone = zone(&[
        ("d0.test", "v=spf1 include:all.test ~all"),
        ("all.test", "v=spf1 include:n1.test include:n2.test include:n3.test ~all"),
        ("n1.test", "v=spf1 ip4:198.51.100.0/24 ~all"),
        ("n2.test", "v=spf1 ip6:2001:db8::/32 ~all"),
        ("n3.test", "v=spf1 ip4:203.0.113.0/24 a:never.test ~all"),
        ("m.test", "v=spf1 mx a:never.test -all"),
    ]);
    for (preference, host) in [(10, "h1.test"), (20, "h2.test")] {
        zone.insert(name("m.test"), Record::Mx { preference, exchange: name(host) });
        zone.insert(name(host), Record::A(format!("192.0.2.{preference}").parse().unwrap()));
        zone.insert(name(host), Record::Aaaa("2001:db8::1".parse().unwrap()));
    }
    for (ip, domain, expected, asked, lookups) in [
        ("198.51.100.9", "d0.test", Verdict::Pass, 3, 2),
        ("2001:db8::9", "d0.test", Verdict::Pass, 4, 3),
        ("203.0.113.9", "d0.test", Verdict::Pass, 5, 4),
        // never.test, which does not exist, is the fifth term.
        ("192.0.2.99", "d0.test", Verdict::SoftFail, 6, 5),
        ("192.0.2.10", "m.test", Verdict::Pass, 3, 1),
        ("192.0.2.20", "m.test", Verdict::Pass, 4, 1),
        ("2001:db8::1", "m.test", Verdict::Pass, 3, 1),
        ("192.0.2.99", "m.test", Verdict::Fail, 5, 2),
    ] {
        let before = zone.lookups();
        let query = SpfQuery::mail_from(ip.parse().unwrap(), "helo.test", domain);
        let result = now(check(&query, &zone));
        assert_eq!(
            (result.verdict, zone.lookups() - before, result.lookups),
            (expected, asked, lookups),
            "{ip} {domain}"
        );
    }
}

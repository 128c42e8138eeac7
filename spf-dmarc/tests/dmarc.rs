//! DMARC against the examples and rules of RFC 9989 and RFC 7489, and the public suffix list's own tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::now;
use postwright_core::{MemoryZone, Name};
use postwright_spf_dmarc::dmarc::{Authors, DmarcQuery, DmarcResult, Policy, Reason, Verdict, evaluate};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn zone(records: &[(&str, &str)]) -> MemoryZone {
    let text: String =
        records.iter().map(|(domain, record)| format!("_dmarc.{domain}. TXT \"{record}\"\n")).collect();
    MemoryZone::parse(&text).unwrap()
}

fn check(zone: &MemoryZone, author: &str, spf: &str, dkim: &[&str]) -> DmarcResult {
    let spf = (!spf.is_empty()).then(|| name(spf));
    let query = DmarcQuery::of(name(author)).spf(spf).dkim(dkim.iter().map(|d| name(d))).with_organization();
    now(evaluate(&query, zone))
}

fn organization(zone: &MemoryZone, author: &str) -> String {
    check(zone, author, "", &[]).organizational_domain.unwrap().to_string()
}

/// The examples that close RFC 9989 4.10.2, and its rules one by one.
#[test]
fn the_organizational_domain_is_found_as_in_4_10_2() {
    let plain = "v=DMARC1; p=none";
    let both = zone(&[("mail.example.com", plain), ("example.com", plain)]);
    assert_eq!(organization(&both, "a.mail.example.com"), "example.com");
    let cut = zone(&[("mail.example.com", "v=DMARC1; p=none; psd=n"), ("example.com", plain)]);
    assert_eq!(organization(&cut, "a.mail.example.com"), "mail.example.com");
    let suffix = zone(&[("com", "v=DMARC1; p=none; psd=y")]);
    assert_eq!(organization(&suffix, "a.mail.example.com"), "example.com");
    assert_eq!(organization(&suffix, "com"), "com", "psd=y where the walk starts does not count");
    let deep = zone(&[("example.com", "v=DMARC1; p=none; psd=y"), ("mail.example.com", plain)]);
    assert_eq!(organization(&deep, "a.mail.example.com"), "mail.example.com");
    assert_eq!(organization(&zone(&[]), "a.mail.example.com"), "a.mail.example.com");
    let two = MemoryZone::parse(
        "_dmarc.example.com. TXT \"v=DMARC1; p=none\"\n_dmarc.example.com. TXT \"v=DMARC1; p=reject\"",
    );
    assert_eq!(check(&two.unwrap(), "example.com", "", &[]).verdict, Verdict::None);
}

#[test]
fn a_long_name_costs_eight_queries() {
    let zone = zone(&[("example.com", "v=DMARC1; p=reject; sp=quarantine")]);
    let query = DmarcQuery::of(name("a.b.c.d.e.f.g.h.i.j.mail.example.com"));
    let result = now(evaluate(&query, &zone));
    assert_eq!((result.verdict, result.policy), (Verdict::Fail, Some(Policy::Quarantine)));
    // Eight of the tree walk; sp and np do not differ, so nobody asks whether the author exists.
    assert_eq!(zone.lookups(), 8);
}

#[test]
fn an_exact_match_costs_one_query() {
    let zone = zone(&[("mail.example.com", "v=DMARC1; p=reject")]);
    let author = name("mail.example.com");
    let query = DmarcQuery::of(author.clone()).spf(Some(author.clone())).dkim([author]);
    assert_eq!(now(evaluate(&query, &zone)).verdict, Verdict::Pass);
    assert_eq!(zone.lookups(), 1);
}

#[test]
fn alignment_is_relaxed_or_strict() {
    let relaxed = zone(&[("example.com", "v=DMARC1; p=reject")]);
    let strict = zone(&[("example.com", "v=DMARC1; p=reject; aspf=s; adkim=s")]);
    for (zone, author, spf, dkim, expected) in [
        (&relaxed, "example.com", "bounce.example.com", &[][..], (Verdict::Pass, true, false)),
        (&relaxed, "news.example.com", "", &["mail.example.com"][..], (Verdict::Pass, false, true)),
        (&relaxed, "example.com", "example.net", &["notexample.com", "com"], (Verdict::Fail, false, false)),
        (&strict, "example.com", "bounce.example.com", &["example.com"], (Verdict::Pass, false, true)),
        (&strict, "example.com", "bounce.example.com", &["mail.example.com"], (Verdict::Fail, false, false)),
    ] {
        let result = check(zone, author, spf, dkim);
        assert_eq!(
            (result.verdict, result.spf_aligned, result.dkim_aligned),
            expected,
            "{author} {spf} {dkim:?}"
        );
    }
    let cut = zone(&[("example.com", "v=DMARC1; p=reject"), ("b.example.com", "v=DMARC1; p=none; psd=n")]);
    assert_eq!(
        check(&cut, "example.com", "b.example.com", &[]).verdict,
        Verdict::Fail,
        "another organisation"
    );
}

#[test]
fn subdomains_have_sp_and_missing_ones_np() {
    let zone = zone(&[("example.com", "v=DMARC1; p=none; sp=quarantine; np=reject")]);
    zone.touch(name("here.example.com"));
    for (author, policy) in [
        ("example.com", Policy::None),
        ("here.example.com", Policy::Quarantine),
        ("gone.example.com", Policy::Reject),
    ] {
        let result = check(&zone, author, "", &[]);
        assert_eq!((result.verdict, result.disposition), (Verdict::Fail, policy), "{author}");
    }
    let gov = self::zone(&[("gov", "v=DMARC1; p=reject; np=quarantine; psd=y")]);
    let result = check(&gov, "missing.gov", "", &[]);
    assert_eq!(result.policy, Some(Policy::Quarantine), "the policy of a public suffix domain");
    assert_eq!(result.record_domain, Some(name("gov")));
    assert_eq!(result.organizational_domain, Some(name("missing.gov")));
}

#[test]
fn testing_weakens_by_one_level() {
    for (record, policy, disposition) in [
        ("v=DMARC1; p=reject; t=y", Policy::Reject, Policy::Quarantine),
        ("v=DMARC1; p=quarantine; t=y", Policy::Quarantine, Policy::None),
        ("v=DMARC1; p=none; t=y", Policy::None, Policy::None),
        ("v=DMARC1; p=reject; t=n; pct=0", Policy::Reject, Policy::Reject),
    ] {
        let result = check(&zone(&[("example.com", record)]), "example.com", "", &[]);
        assert_eq!((result.policy, result.disposition), (Some(policy), disposition), "{record}");
    }
}

#[test]
fn trouble_with_dns_is_temporary() {
    let broken = MemoryZone::parse("_dmarc.example.com. TIMEOUT").unwrap();
    let result = check(&broken, "a.example.com", "", &[]);
    assert_eq!((result.verdict, result.disposition), (Verdict::TempError, Policy::None));
    let zone = zone(&[("example.com", "v=DMARC1; p=reject")]);
    let query = DmarcQuery::of(name("example.com")).undecided([name("mail.example.com")]);
    let result = now(evaluate(&query, &zone));
    assert_eq!(result.verdict, Verdict::TempError);
    assert_eq!(result.reason, Reason::Undecided(name("mail.example.com")));
    let query = DmarcQuery::of(name("example.com")).undecided([name("mail.example.net")]);
    assert_eq!(now(evaluate(&query, &zone)).verdict, Verdict::Fail);
}

#[test]
fn of_several_authors_the_strictest_failure_counts() {
    let zone = zone(&[("a.example", "v=DMARC1; p=quarantine"), ("b.example", "v=DMARC1; p=reject")]);
    let verdict = |from: &str| {
        let query = DmarcQuery::new(Authors::parse(from)).spf(Some(name("b.example")));
        let result = now(evaluate(&query, &zone));
        (result.verdict, result.disposition, result.author.map(|author| author.to_string()))
    };
    let author = |text: &str| Some(text.to_owned());
    assert_eq!(verdict("x@b.example"), (Verdict::Pass, Policy::None, author("b.example")));
    assert_eq!(verdict("x@b.example, y@a.example"), (Verdict::Fail, Policy::Quarantine, author("a.example")));
    assert_eq!(verdict("x@b.example, CEO"), (Verdict::PermError, Policy::None, author("b.example")));
    assert_eq!(verdict("CEO"), (Verdict::PermError, Policy::None, None));
    let many = (0..5).map(|i| format!("a@x{i}.example,")).collect::<String>();
    assert_eq!(verdict(&many), (Verdict::PermError, Policy::None, None));
}

#[cfg(feature = "psl")]
mod rfc7489 {
    use postwright_core::Domain;
    use postwright_spf_dmarc::dmarc::Mode;
    use postwright_testkit::{skip, suites};

    use super::*;

    #[test]
    fn pct_samples_and_psd_and_t_mean_nothing() {
        let zone =
            zone(&[("example.co.uk", "v=DMARC1; p=reject; sp=quarantine; pct=50; t=y; np=none; psd=n")]);
        let check = |author: &str, sample| {
            let query = DmarcQuery::of(name(author)).mode(Mode::Rfc7489).sample(sample).with_organization();
            let result = now(evaluate(&query, &zone));
            (result.policy.unwrap(), result.disposition, result.organizational_domain.unwrap().to_string())
        };
        let org = "example.co.uk".to_owned();
        assert_eq!(check("example.co.uk", 49), (Policy::Reject, Policy::Reject, org.clone()));
        assert_eq!(check("example.co.uk", 50), (Policy::Reject, Policy::Quarantine, org.clone()));
        assert_eq!(check("x.y.example.co.uk", 99), (Policy::Quarantine, Policy::None, org));
    }

    /// The tests of the list itself: `checkPublicSuffix(domain, registrable domain or null)`.
    #[test]
    fn the_public_suffix_list_is_read_as_its_tests_say() {
        let Some(dir) = suites::dir("psl") else { skip!("psl", "no public suites") };
        let text = std::fs::read_to_string(dir.join("test_psl.txt")).unwrap();
        let (mut count, mut wrong) = (0, Vec::new());
        for line in text.lines().filter(|line| line.starts_with("checkPublicSuffix(")) {
            let mut words = line.split('\'').skip(1).step_by(2).map(a_label);
            let Some(Some(domain)) = words.next() else { continue };
            let expected = words.next().flatten().unwrap_or_else(|| domain.clone());
            let query = DmarcQuery::of(domain.clone()).mode(Mode::Rfc7489).with_organization();
            let found = now(evaluate(&query, &MemoryZone::new())).organizational_domain.unwrap();
            count += 1;
            if found != expected {
                wrong.push(format!("{domain}: {found}, not {expected}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
        assert!(count >= 60, "only {count} cases were read");
        postwright_testkit::cases("psl", count, 0, "");
    }

    /// `None` for what DNS cannot hold (a leading dot).
    fn a_label(text: &str) -> Option<Name> {
        if text.is_ascii() { text.parse().ok() } else { text.parse::<Domain>().ok().map(|d| Name::from(&d)) }
    }
}

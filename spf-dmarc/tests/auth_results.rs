//! `Authentication-Results`: the examples of RFC 8601 appendix B, round trips of hostile values, forged fields,
//! iprev, and what Python's authres makes of ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::io::Write;
use std::process::Stdio;

use common::now;
use postwright_core::MemoryZone;
use postwright_spf_dmarc::auth_results::{AuthResults, MethodResult, forged};
use postwright_spf_dmarc::spf::{SpfQuery, check};
use postwright_spf_dmarc::{Limits, iprev};
use postwright_testkit::{peers, skip};
use proptest::prelude::*;

/// RFC 8601 appendix B.1 to B.7: method, result, and one property each.
#[test]
fn the_examples_of_the_rfc_are_read() {
    type Expected<'e> = &'e [(&'e str, &'e str, &'e str, &'e str)];
    let cases: &[(&str, &str, Expected<'_>)] = &[
        ("example.org 1; none", "example.org", &[]),
        (
            "example.com;\r\n spf=pass smtp.mailfrom=example.net",
            "example.com",
            &[("spf", "pass", "smtp.mailfrom", "example.net")],
        ),
        (
            "example.com;\r\n          auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n          \
             spf=pass smtp.mailfrom=example.net",
            "example.com",
            &[
                ("auth", "pass", "smtp.auth", "sender@example.net"),
                ("spf", "pass", "smtp.mailfrom", "example.net"),
            ],
        ),
        (
            "example.com;\r\n          sender-id=fail header.from=example.com;\r\n          \
             dkim=pass (good signature) header.d=example.com",
            "example.com",
            &[
                ("sender-id", "fail", "header.from", "example.com"),
                ("dkim", "pass", "header.d", "example.com"),
            ],
        ),
        (
            "example.com;\r\n      dkim=pass reason=\"good signature\"\r\n        header.i=@mail-router.example.net;\r\n  \
             dkim=fail reason=\"bad signature\"\r\n        header.i=@newyork.example.com",
            "example.com",
            &[
                ("dkim", "pass", "header.i", "@mail-router.example.net"),
                ("dkim", "fail", "header.i", "@newyork.example.com"),
            ],
        ),
        (
            "foo.example.net (foobar) 1 (baz);\r\n    dkim (Because I like it) / 1 (One yay) = (wait for it) fail\r\n      \
             policy (A dot can go here) . (like that) expired\r\n      (this surprised me) = (as I wasn't expecting it) 1362471462",
            "foo.example.net",
            &[("dkim", "fail", "policy.expired", "1362471462")],
        ),
    ];
    for (value, id, expected) in cases {
        let parsed = AuthResults::parse(value).unwrap();
        assert_eq!(parsed.authserv_id, *id);
        let found: Vec<_> = parsed.results.iter().map(|r| (&*r.method, &*r.result)).collect();
        assert_eq!(found, expected.iter().map(|(method, result, ..)| (*method, *result)).collect::<Vec<_>>());
        for (result, (_, _, property, value)) in parsed.results.iter().zip(*expected) {
            let (ptype, name) = property.split_once('.').unwrap();
            assert_eq!(result.get(ptype, name), Some(*value));
        }
    }
    let reason = AuthResults::parse("a; dkim=fail reason=\"bad \\\"key\\\"\" header.d=b").unwrap();
    assert_eq!(reason.results[0].reason.as_deref(), Some("bad \"key\""));
}

#[test]
fn what_is_no_field_is_refused() {
    for value in [
        "",
        ";",
        "a; spf",
        "a; spf=",
        "a; =pass",
        "a; spf=pass smtp.mailfrom",
        "a; spf=pass x\"y",
        "a b; none",
    ] {
        assert!(AuthResults::parse(value).is_err(), "{value:?}");
    }
}

#[test]
fn forged_fields_are_found_whatever_they_look_like() {
    let message = b"Received: x\r\nAuthentication-Results: MX.example.org; spf=pass\r\n smtp.mailfrom=a\r\n\
        authentication-results : (comment) \"mx.example.org\" 1; none\r\nAuthentication-Results: other.example; none\r\n\
        Authentication-Results: \xff\"mx\r\nFrom: a@b\r\n\r\nAuthentication-Results: mx.example.org; none\r\n";
    let found: Vec<String> = forged(message, "mx.example.org")
        .into_iter()
        .map(|range| String::from_utf8_lossy(&message[range]).lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(
        found,
        [
            "Authentication-Results: MX.example.org; spf=pass",
            "authentication-results : (comment) \"mx.example.org\" 1; none",
            "Authentication-Results: \u{fffd}\"mx",
        ]
    );
}

#[test]
fn received_spf_holds_any_identity() {
    let zone = MemoryZone::parse("example.net. TXT \"v=spf1 -all\"").unwrap();
    for sender in ["joe@example.net", "a\r\nBcc: x@example.net", "\"a)(b\\\"@example.net", "é@example.net"] {
        let query = SpfQuery::mail_from("192.0.2.1".parse().unwrap(), "h\r\n\r\nbody", sender)
            .receiver("mx.example.org");
        let result = now(check(&query, &zone));
        let field = result.received_spf(&query);
        assert!(field.value().starts_with("fail\r\n\t(mx.example.org: "), "{field}");
        assert!(field.value().contains("client-ip=192.0.2.1;"), "{field}");
        assert!(field.value().split("\r\n").skip(1).all(|line| line.starts_with('\t')), "{field}");
    }
}

#[test]
fn iprev_goes_there_and_back() {
    let zone = MemoryZone::parse(
        "1.2.0.192.in-addr.arpa. PTR a.example.\n1.2.0.192.in-addr.arpa. PTR b.example.\nb.example. A 192.0.2.1\n\
         2.2.0.192.in-addr.arpa. PTR a.example.\n3.2.0.192.in-addr.arpa. TIMEOUT\n\
         4.2.0.192.in-addr.arpa. PTR c.example.\nc.example. SERVFAIL\na.example. A 192.0.2.9",
    )
    .unwrap();
    for (ip, verdict, name) in [
        ("192.0.2.1", "pass", Some("b.example")),
        ("::ffff:192.0.2.1", "pass", Some("b.example")),
        ("192.0.2.2", "fail", Some("a.example")),
        ("192.0.2.3", "temperror", None),
        ("192.0.2.4", "temperror", Some("c.example")),
        ("192.0.2.5", "permerror", None),
    ] {
        let result = now(iprev::check(ip.parse().unwrap(), &zone, &Limits::default()));
        assert_eq!(result.verdict.to_string(), verdict, "{ip}");
        assert_eq!(result.name.map(|name| name.to_string()).as_deref(), name, "{ip}");
    }
}

fn any_results() -> impl Strategy<Value = AuthResults> {
    let keyword = "[a-z][a-z0-9-]{0,8}";
    let text = prop_oneof!["[ -~]{1,40}", "[a-z.@\"\\\\()<>;=é ]{1,20}"];
    let property = (keyword, keyword, text.clone());
    let result =
        (keyword, keyword, proptest::option::of(text.clone()), proptest::collection::vec(property, 0..4));
    ("[a-z][a-z.]{0,20}", proptest::collection::vec(result, 0..4)).prop_map(|(id, results)| {
        let mut all = AuthResults::new(id);
        for (method, result, reason, properties) in results {
            let mut one = MethodResult::new(method, result);
            one.reason = reason;
            for (ptype, name, value) in properties {
                one = one.property(ptype, name, value);
            }
            all = all.with(one);
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_composed_parses_back(results in any_results()) {
        let field = results.field();
        prop_assert!(field.value().split("\r\n").all(|line| line.len() <= 998));
        prop_assert_eq!(AuthResults::parse(field.value()).unwrap(), results);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z;=./ \"()\\\\\r\n\u{200b}]{0,60}") {
        if let Ok(parsed) = AuthResults::parse(&text) {
            prop_assert_eq!(AuthResults::parse(&parsed.value()).map(|again| again.results.len()), Ok(parsed.results.len()));
        }
    }
}

/// Python's authres reads what we compose: the same methods, results and property values.
#[test]
fn authres_reads_ours() {
    let Some(python) = peers::python(&["authres"]) else { skip!("authres", "no Python with authres") };
    let ours = AuthResults::new("mx.example.org")
        .with(MethodResult::new("spf", "pass").property("smtp", "mailfrom", "joe@example.net"))
        .with(MethodResult::new("dkim", "fail").reason("bad signature; really").property(
            "header",
            "d",
            "example.net",
        ))
        .with(
            MethodResult::new("dmarc", "fail")
                .property("header", "from", "example.net")
                .property("policy", "dmarc", "reject"),
        )
        .with(MethodResult::smtp_auth("joe@example.org"))
        .with(MethodResult::new("iprev", "pass").property("policy", "iprev", "192.0.2.1"));
    let script = "import sys, authres\n\
        h = authres.AuthenticationResultsHeader.parse(sys.stdin.read())\n\
        print(h.authserv_id)\n\
        for r in h.results:\n    print(r.method, r.result, r.reason, *[f'{p.type}.{p.name}={p.value}' for p in r.properties], sep='|')";
    let mut child = std::process::Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&ours.field().as_bytes()[..ours.field().as_bytes().len() - 2])
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(
        lines,
        [
            "mx.example.org",
            "spf|pass|None|smtp.mailfrom=joe@example.net",
            "dkim|fail|bad signature; really|header.d=example.net",
            "dmarc|fail|None|header.from=example.net|policy.dmarc=reject",
            "auth|pass|None|smtp.auth=joe@example.org",
            "iprev|pass|None|policy.iprev=192.0.2.1",
        ]
    );
    postwright_testkit::cases("authres", 5, 0, "");
}

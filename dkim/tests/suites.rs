//! The public suites: Mail::DKIM's corpus, dkimpy's messages with the vectors of RFC 6376 and RFC 8463, and the
//! canonicalisation cases.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

pub(crate) mod common;

use common::{crlf, read, verify, zone};
use postwright_core::{DnsError, MemoryZone, Record, RecordKind};
use postwright_dkim::{
    BodyCanon, Canon, DkimResult, Limits, Reason, Verdict, Verifier, VerifyPolicy, relaxed_field,
};
use postwright_testkit::{cases, skip, suites};

fn legacy() -> Verifier {
    let mut policy = VerifyPolicy::default();
    policy.sha1 = true;
    Verifier::new(common::provider(), policy, Limits::default())
}

fn mail_dkim_zone(text: &str) -> MemoryZone {
    let zone = MemoryZone::new();
    let records: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
    for (name, value) in records {
        let name: postwright_core::Name = name.parse().unwrap();
        match value.as_str().unwrap() {
            "NXDOMAIN" => {}
            "~~Query timed out~~" => zone.fail(name, Some(RecordKind::Txt), DnsError::Timeout),
            "~~SERVFAIL~~" => zone.fail(name, Some(RecordKind::Txt), DnsError::ServFail),
            text => zone.insert(name, Record::txt(text)),
        }
    }
    zone
}

/// One verdict for a message: the best of its signatures.
fn overall(results: &[DkimResult]) -> Verdict {
    let order = [Verdict::Pass, Verdict::TempError, Verdict::Fail, Verdict::Policy, Verdict::PermError];
    let best = order.into_iter().find(|verdict| results.iter().any(|result| result.verdict == *verdict));
    best.expect("each message of the corpus is signed")
}

#[test]
fn mail_dkim_corpus() {
    let Some(dir) = suites::dir("dkim/mail-dkim") else { skip!("mail-dkim", "no public suites") };
    let zone = mail_dkim_zone(&String::from_utf8(read(&dir.join("dns.json"))).unwrap());
    let table = String::from_utf8(read(&dir.join("expected-rfc6376.tsv"))).unwrap();
    let (mut rows, mut wrong) = (0, Vec::new());
    for row in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = row.split('\t').collect();
        let (file, expected, switches) = (columns[0], columns[2], columns[5]);
        // All but one of the files (bad_1878954) have CRLF.
        let message = crlf(&read(&dir.join("corpus").join(file)));
        for (verifier, sha1) in [(legacy(), true), (common::verifier(), false)] {
            let verdict = overall(&verify(&verifier, &message, &zone));
            // What a switch would be needed for is `policy` without it; no switch makes short keys usable.
            let barred = switches.contains("key<1024") || (switches.contains("sha1") && !sha1);
            let right = if !barred {
                verdict.as_str() == expected
            } else if matches!(expected, "pass" | "fail") {
                verdict == Verdict::Policy
            } else {
                verdict.as_str() == expected || verdict == Verdict::Policy
            };
            rows += 1;
            if !right {
                wrong.push(format!("{file} (sha1 {sha1}): {verdict}, expected {expected} [{switches}]"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rows, 2 * 62);
    cases("mail-dkim", rows, 0, "");
}

#[test]
fn mail_dkim_domain_keys_are_no_dkim() {
    let Some(dir) = suites::dir("dkim/mail-dkim") else { skip!("mail-dkim", "no public suites") };
    let mut found = 0;
    for entry in std::fs::read_dir(dir.join("corpus")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().contains("_dk_") {
            let results = verify(&common::verifier(), &read(&path), &MemoryZone::new());
            assert!(results.iter().all(|result| !result.is_pass()), "{}", path.display());
            found += 1;
        }
    }
    assert_eq!(found, 14);
    cases("mail-dkim-domainkeys", found, 0, "");
}

/// The keys of RFC 6376 appendix C and RFC 8463 appendix A.2, which dkimpy's messages are signed with.
fn rfc_zone() -> MemoryZone {
    let zone = zone(
        "brisbane._domainkey.football.example.com",
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    );
    zone.insert(
        "test._domainkey.football.example.com".parse().unwrap(),
        Record::txt(
            "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2\
             jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2\
             EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
        ),
    );
    zone
}

#[test]
fn rfc_8463_appendix_a() {
    let Some(dir) = suites::dir("dkim/dkimpy") else { skip!("dkimpy", "no public suites") };
    for (file, expected) in [
        ("rfc6376.signed.msg", vec![("ed25519-sha256", 256), ("rsa-sha256", 1024)]),
        ("rfc6376.signed.rsa.msg", vec![("rsa-sha256", 1024)]),
    ] {
        let message = crlf(&read(&dir.join(file)));
        let results = verify(&common::verifier(), &message, &rfc_zone());
        assert!(!results.is_empty(), "{file}");
        for (result, (algorithm, bits)) in results.iter().zip(&expected) {
            assert_eq!(result.algorithm.unwrap().as_str(), *algorithm, "{file}");
            assert_eq!(result.key_bits, Some(*bits), "{file}");
        }
        assert!(results.iter().all(DkimResult::is_pass), "{file}: {results:?}");
    }
    // The same signature with its t= replaced by x=.
    let changed = crlf(&read(&dir.join("rfc6376.signed.no_t.msg")));
    let results = verify(&common::verifier(), &changed, &rfc_zone());
    assert_eq!(results.iter().map(|result| result.reason).collect::<Vec<_>>(), [Some(Reason::Signature)]);
    cases("rfc-8463-a", 3, 0, "");
}

/// Messages signed by others, with the record that goes with them.
#[test]
fn dkimpy_messages() {
    let Some(dir) = suites::dir("dkim/dkimpy") else { skip!("dkimpy", "no public suites") };
    let file = |name: &str| crlf(&read(&dir.join(name)));
    let record = |name: &str| String::from_utf8(read(&dir.join(name))).unwrap().replace('\n', "");
    // The unsigned messages have no results.
    for unsigned in ["test.message", "test_nofrom.message", "rfc6376.msg"] {
        assert!(verify(&common::verifier(), &file(unsigned), &MemoryZone::new()).is_empty(), "{unsigned}");
    }
    for (name, reason) in [("badversion.txt", Reason::KeyVersion), ("badk.txt", Reason::KeyType)] {
        let parsed = postwright_dkim::KeyRecord::parse(record(name).as_bytes(), &Limits::default());
        assert_eq!(parsed, Err(reason), "{name}");
    }
    let tls = postwright_dkim::KeyRecord::parse(record("test_tlsrpt.txt").as_bytes(), &Limits::default());
    assert_eq!(tls, Err(Reason::KeyService));
    for pkcs1 in ["1024_testkey_wo_markers.pub.rsa.txt", "2048_testkey_wo_markers.pub.rsa.txt"] {
        let bits = if pkcs1.starts_with("1024") { 1024 } else { 2048 };
        let key = postwright_dkim::KeyRecord::parse(record(pkcs1).as_bytes(), &Limits::default());
        assert_eq!(key.map(|key| key.bits()), Ok(bits), "{pkcs1}");
    }
    cases("dkimpy-files", 8, 0, "");
}

/// The fields of a header section, without their CRLF, and the body behind the empty line.
fn split(message: &[u8]) -> (Vec<&[u8]>, Option<&[u8]>) {
    let mut fields = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(end) = message[at..].windows(2).position(|pair| pair == b"\r\n").map(|found| at + found) {
        at = end + 2;
        if end == start {
            return (fields, Some(&message[at..]));
        }
        if !matches!(message.get(at), Some(b' ' | b'\t')) {
            fields.push(&message[start..end]);
            start = at;
        }
    }
    if start < message.len() {
        fields.push(&message[start..]);
    }
    (fields, None)
}

#[test]
fn canonicalization_cases() {
    let Some(dir) = suites::dir("dkim/canonicalization") else {
        skip!("canonicalization", "no public suites")
    };
    let mut compared = 0;
    for nth in 1..=25 {
        for canon in [Canon::Simple, Canon::Relaxed] {
            let expected = dir.join(format!("{}.expected.{nth:02}", canon.as_str()));
            // The source's own answer for 24 relaxed is wrong: it keeps blanks at the end of the last line.
            if !expected.exists() || (nth == 24 && canon == Canon::Relaxed) {
                continue;
            }
            let message = crlf(&read(&dir.join(format!("email.{nth:02}"))));
            let (fields, body) = split(&message);
            let mut out = Vec::new();
            for field in fields {
                match canon {
                    Canon::Simple => out.extend_from_slice(field),
                    Canon::Relaxed => relaxed_field(field, &mut out),
                }
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"\r\n");
            let mut hasher = BodyCanon::new(canon);
            hasher.feed(body.unwrap_or_default(), &mut |piece| out.extend_from_slice(piece));
            hasher.finish(&mut |piece| out.extend_from_slice(piece));
            let expected = read(&expected);
            assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&expected),
                "case {nth} {}",
                canon.as_str()
            );
            compared += 1;
        }
    }
    assert!(compared >= 40, "{compared} cases");
    cases("canonicalization", compared, 0, "");
}

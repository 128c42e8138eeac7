//! The ARC suites of RFC 8617's authors: every validation case, and every signing case.
//!
//! The signing cases come with a key of 1024 bits, which nobody may sign with any more (RFC 8301 3.2): what we
//! build is compared in all but the two signatures, and sealed with a key of our own that our validator then checks.

#![cfg(feature = "arc")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::{NOW, block_on, crlf, read};
use postwright_core::{MemoryZone, Message, Record, Timestamp};
use postwright_dkim::arc::{ArcResult, ChainValidation, Sealer, authentication_results};
use postwright_dkim::{KeyKind, SignedFields, SigningKey};
use postwright_testkit::{cases, skip, suites};
use saphyr::{LoadableYamlNode, Scalar, Yaml};

fn text(node: &Yaml<'_>) -> String {
    match node {
        Yaml::Value(Scalar::String(text)) => text.to_string(),
        Yaml::Value(Scalar::Integer(number)) => number.to_string(),
        Yaml::Value(Scalar::Null) => String::new(),
        other => panic!("not a text: {other:?}"),
    }
}

fn get(node: &Yaml<'_>, key: &str) -> String {
    node.as_mapping_get(key).map(text).unwrap_or_default()
}

/// The suite names one case twice, which YAML forbids: a number keeps the two apart.
fn unique_keys(suite: &str) -> String {
    let (mut out, mut seen) = (String::with_capacity(suite.len()), Vec::new());
    for line in suite.lines() {
        let is_case = line.starts_with("  ") && !line.starts_with("   ") && line.trim_end().ends_with(':');
        if is_case && seen.contains(&line) {
            out.push_str(&format!("{}_{}:\n", line.trim_end().trim_end_matches(':'), seen.len()));
        } else {
            out.push_str(line);
            out.push('\n');
        }
        if is_case {
            seen.push(line);
        }
    }
    out
}

fn zone(scenario: &Yaml<'_>) -> MemoryZone {
    let zone = MemoryZone::new();
    for (name, record) in scenario.as_mapping_get("txt-records").unwrap().as_mapping().unwrap() {
        // The suite folds its records.
        let record = text(record).replace('\n', "");
        zone.insert(text(name).parse().unwrap(), Record::txt(record.trim()));
    }
    zone
}

fn validate(message: &Message, zone: &MemoryZone) -> ArcResult {
    block_on(common::arc_verifier().verify(message, zone, NOW))
}

#[test]
fn validation_suite() {
    let Some(dir) = suites::dir("arc") else { skip!("arc-validation", "no public suites") };
    let suite = String::from_utf8(read(&dir.join("arc-draft-validation-tests.yml"))).unwrap();
    let (mut judged, mut wrong) = (0, Vec::new());
    for scenario in Yaml::load_from_str(&unique_keys(&suite)).unwrap() {
        let zone = zone(&scenario);
        for (name, case) in scenario.as_mapping_get("tests").unwrap().as_mapping().unwrap() {
            let message = Message::from_bytes(crlf(get(case, "message").as_bytes()));
            let result = validate(&message, &zone);
            // Three cases of chains that say themselves that they are broken have no result in the suite;
            // RFC 8617 5.2 step 2: "the Chain Validation Status is 'fail'".
            let expected = match get(case, "cv").as_str() {
                "" => "fail".to_owned(),
                other => other.to_lowercase(),
            };
            judged += 1;
            if result.cv.as_str() != expected {
                wrong.push(format!("{}: {result:?}, expected {expected}", text(name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // 171 names, of which four stand for two cases each.
    assert_eq!(judged, 175);
    cases("arc-validation", judged, 0, "");
}

/// The value of a tag in a field that was folded.
fn tag(value: &str, name: &str) -> Option<String> {
    let find = |tag: &str| {
        let (found, value) = tag.split_once('=')?;
        (found.trim() == name).then(|| value.split_whitespace().collect::<String>())
    };
    value.split(';').find_map(find)
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(';').to_owned()
}

#[test]
fn signing_suite() {
    let Some(dir) = suites::dir("arc") else { skip!("arc-signing", "no public suites") };
    let suite = String::from_utf8(read(&dir.join("arc-draft-sign-tests.yml"))).unwrap();
    let mut sealed_cases = 0;
    for scenario in Yaml::load_from_str(&suite).unwrap() {
        let zone = zone(&scenario);
        let (key, _) = SigningKey::generate(common::provider(), KeyKind::Ed25519).unwrap();
        zone.insert("ours._domainkey.example.org".parse().unwrap(), Record::txt(key.record()));
        for (name, case) in scenario.as_mapping_get("tests").unwrap().as_mapping().unwrap() {
            let name = text(name);
            let message = Message::from_bytes(crlf(get(case, "message").as_bytes()));
            let chain = validate(&message, &zone);
            let names = get(case, "sig-headers").split(':').map(str::to_owned).collect();
            let sealer = Sealer::new(
                key.clone(),
                "example.org".parse().unwrap(),
                "ours".parse().unwrap(),
                &get(case, "srv-id"),
            );
            let sealer = sealer.unwrap().with_fields(SignedFields::Exactly(names)).unwrap();
            let results = authentication_results(&message, &get(case, "srv-id"));
            let at = Timestamp::from_secs(get(case, "t").parse().unwrap());
            let set = sealer.seal(&message, &chain, &results, at).unwrap();
            let (aar, ams, seal) = (get(case, "AAR"), get(case, "AMS"), get(case, "AS"));
            sealed_cases += 1;
            let Some(set) = set else {
                assert!(seal.trim().is_empty(), "{name}: not sealed");
                continue;
            };
            assert!(!seal.trim().is_empty(), "{name}: sealed");
            assert_eq!(words(set[0].value()), words(&aar), "{name}");
            for tag_name in ["i", "bh", "h", "d", "t", "c"] {
                assert_eq!(tag(set[1].value(), tag_name), tag(&ams, tag_name), "{name}: AMS {tag_name}=");
            }
            for tag_name in ["i", "cv", "d", "t"] {
                assert_eq!(tag(set[2].value(), tag_name), tag(&seal, tag_name), "{name}: AS {tag_name}=");
            }
            let sealed = set.into_iter().fold(message, |message, field| message.prepend(field));
            let after = validate(&sealed, &zone);
            let holds = chain.cv != ChainValidation::Fail;
            assert_eq!(after.cv == ChainValidation::Pass, holds, "{name}: {after:?}");
            assert_eq!(after.instances, chain.instances + 1, "{name}");
        }
    }
    assert_eq!(sealed_cases, 17);
    cases("arc-signing", sealed_cases, 0, "");
}

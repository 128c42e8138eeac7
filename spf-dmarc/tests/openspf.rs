//! The OpenSPF test suite for RFC 7208: every case of every scenario, verdict and explanation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;
#[path = "common/ways.rs"]
mod ways;

use common::now;
use postwright_core::{DnsError, MemoryZone, Name, Record, RecordKind};
use postwright_spf_dmarc::spf::{Memory, SpfQuery, Verdict, check};
use postwright_testkit::{skip, suites};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use ways::same_untraced_and_remembered;

/// The suite writes octets as characters below 256.
fn octets(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn text(node: &Yaml<'_>) -> String {
    match node {
        Yaml::Value(Scalar::String(text)) => text.to_string(),
        Yaml::Value(Scalar::Integer(number)) => number.to_string(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.to_string(),
        Yaml::Value(Scalar::Null) => String::new(),
        other => panic!("not a text: {other:?}"),
    }
}

fn get<'n>(node: &'n Yaml<'n>, key: &str) -> Option<&'n Yaml<'n>> {
    node.as_mapping_get(key)
}

/// A zone as the suite means it: records of type SPF stand in for TXT where there are none of the latter.
fn zone(data: &Yaml<'_>) -> MemoryZone {
    let zone = MemoryZone::new();
    for (owner, records) in data.as_mapping().unwrap() {
        let Ok(name) = text(owner).parse::<Name>() else { continue };
        let records = records.as_vec().unwrap();
        let entries: Vec<_> = records.iter().filter_map(Yaml::as_mapping).flatten().collect();
        let times_out = records.iter().any(|record| record.as_str() == Some("TIMEOUT"));
        // A record of type SPF beside a TIMEOUT is one that TXT look-ups do not find.
        let has_txt = times_out || entries.iter().any(|(kind, _)| text(kind) == "TXT");
        for (kind, value) in entries {
            let kind = text(kind);
            if kind == "SPF" && has_txt || value.as_str() == Some("NONE") {
                zone.touch(name.clone());
                continue;
            }
            if value.as_str() == Some("TIMEOUT") {
                zone.fail(name.clone(), Some(RecordKind::Txt), DnsError::Timeout);
                continue;
            }
            zone.insert(name.clone(), record(&kind, value));
        }
        // A bare TIMEOUT stands for every type that has no records.
        if times_out {
            let entries = records.iter().filter_map(Yaml::as_mapping).flatten();
            let held: Vec<String> = entries
                .filter(|(_, value)| value.as_str() != Some("NONE"))
                .map(|(kind, _)| text(kind))
                .collect();
            for kind in RecordKind::ALL.into_iter().filter(|kind| !held.contains(&kind.to_string())) {
                zone.fail(name.clone(), Some(kind), DnsError::Timeout);
            }
        }
    }
    zone
}

fn record(kind: &str, value: &Yaml<'_>) -> Record {
    let name = |value: &Yaml<'_>| -> Name { text(value).parse().unwrap_or_else(|_| Name::root()) };
    match kind {
        "A" => Record::A(text(value).parse().unwrap()),
        "AAAA" => Record::Aaaa(text(value).parse().unwrap()),
        "CNAME" => Record::Cname(name(value)),
        "PTR" => Record::Ptr(name(value)),
        "MX" => {
            let pair = value.as_vec().unwrap();
            Record::Mx { preference: text(&pair[0]).parse().unwrap(), exchange: name(&pair[1]) }
        }
        "SPF" | "TXT" => {
            let strings = value.as_vec().map(|list| list.iter().map(text).collect::<Vec<_>>());
            let strings = strings.unwrap_or_else(|| vec![text(value)]);
            Record::Txt(
                strings
                    .iter()
                    .flat_map(|s| octets(s).chunks(255).map(Box::from).collect::<Vec<_>>())
                    .collect(),
            )
        }
        other => panic!("unknown record type {other}"),
    }
}

/// Runs one suite; returns how many cases it has and what was wrong.
fn run(yaml: &str) -> (usize, Vec<String>) {
    let (mut count, mut wrong) = (0, Vec::new());
    let memory = Memory::new(8);
    for scenario in Yaml::load_from_str(yaml).unwrap() {
        let Some(tests) = get(&scenario, "tests") else { continue };
        let zone = zone(get(&scenario, "zonedata").unwrap());
        for (case, test) in tests.as_mapping().unwrap() {
            count += 1;
            let case = text(case);
            let field = |key: &str| get(test, key).map(text).unwrap_or_default();
            let (helo, sender) = (field("helo"), field("mailfrom"));
            let query = SpfQuery::mail_from(field("host").parse().unwrap(), &helo, &sender);
            let query = query.receiver("unknown");
            let result = now(check(&query.clone().traced(), &zone));
            same_untraced_and_remembered(&query, &zone, &memory, &result);
            let expected = get(test, "result").unwrap();
            let expected =
                expected.as_vec().map_or_else(|| vec![text(expected)], |l| l.iter().map(text).collect());
            if !expected.contains(&result.verdict.to_string()) {
                wrong.push(format!("{case}: {} not {expected:?}; {:#?}", result.verdict, result));
                continue;
            }
            let explained = field("explanation");
            let same = match explained.as_str() {
                "" => true,
                "DEFAULT" => result.explanation.is_none(),
                text => result.explanation.as_deref() == Some(text),
            };
            if !same && result.verdict == Verdict::Fail {
                wrong.push(format!("{case}: explained {:?}, not {explained:?}", result.explanation));
            }
        }
    }
    (count, wrong)
}

#[test]
fn every_case_of_rfc_7208() {
    let Some(dir) = suites::dir("spf") else { skip!("spf-rfc7208", "no public suites") };
    let (count, wrong) = run(&std::fs::read_to_string(dir.join("rfc7208-tests.yml")).unwrap());
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(count, 203);
    postwright_testkit::cases("spf-rfc7208", count, 0, "");
}

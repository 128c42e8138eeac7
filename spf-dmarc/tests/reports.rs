//! Reports: every file of the public suite, Python's parsedmarc on the same files, round trips of what we write,
//! bombs, and who may be sent reports.

#![cfg(feature = "reports")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::now;
use postwright_core::{MemoryZone, Name, Timestamp};
use postwright_spf_dmarc::dmarc::{self, DmarcQuery, DmarcRecord, Mode, Policy};
use postwright_spf_dmarc::report::{
    AggregateReport, Day, Disposition, DkimAuth, MemoryRows, PublishedPolicy, Report, ReportLimits, RowStore,
    Sighting, Submitter, destinations, file_name, mail, parse, xml,
};
use postwright_spf_dmarc::spf::{self, SpfQuery};
use postwright_testkit::{peers, skip, suites};
use proptest::prelude::*;

fn files(dir: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn read(path: &std::path::Path) -> AggregateReport {
    match parse(&std::fs::read(path).unwrap(), &ReportLimits::default()) {
        Ok(Report::Aggregate(report)) => report,
        other => panic!("{path:?} is no aggregate report: {other:?}"),
    }
}

fn aggregate(octets: &[u8]) -> AggregateReport {
    match parse(octets, &ReportLimits::default()) {
        Ok(Report::Aggregate(report)) => report,
        other => panic!("no aggregate report: {other:?}"),
    }
}

#[test]
fn every_aggregate_report_of_the_suite_is_read() {
    let Some(dir) = suites::dir("dmarc-reports") else { skip!("dmarc-reports", "no public suites") };
    let mut count = 0;
    for folder in ["aggregate", "aggregate_invalid", "extract_report"] {
        for path in files(dir.join(folder)) {
            let report = read(&path);
            assert!(!report.rows.is_empty(), "{path:?}");
            assert_eq!(report.skipped, 0, "{path:?}");
            assert!(report.begin <= report.end && !report.report_id.is_empty(), "{path:?}");
            count += 1;
        }
    }
    assert_eq!(count, 24);
    postwright_testkit::cases("dmarc-reports/aggregate", count, 0, "");
    assert!(parse(&std::fs::read(dir.join("empty.xml")).unwrap(), &ReportLimits::default()).is_err());
}

#[test]
fn the_sample_of_rfc_9990_is_read_in_full() {
    let Some(dir) = suites::dir("dmarc-reports") else { skip!("dmarc-reports", "no public suites") };
    let report = aggregate(&std::fs::read(dir.join("aggregate/rfc9990-sample.xml")).unwrap());
    assert_eq!(report.namespace.as_deref(), Some("urn:ietf:params:xml:ns:dmarc-2.0"));
    assert_eq!((report.org_name.as_str(), report.begin.secs()), ("Sample Reporter", 302_832_000));
    assert_eq!(report.generator.as_deref(), Some("Example DMARC Aggregate Reporter v1.2"));
    assert_eq!(report.policy.np.as_deref(), Some("none"));
    assert_eq!(report.policy.discovery_method.as_deref(), Some("treewalk"));
    let [row] = report.rows.as_slice() else { panic!("one row") };
    assert_eq!((row.count, row.disposition), (123, Disposition::Pass));
    assert_eq!((row.dkim_aligned, row.spf_aligned), (true, false));
    assert_eq!((row.dkim[0].selector.as_deref(), row.dkim[0].result.as_str()), (Some("abc123"), "pass"));
    let source = report.by_source()[&"192.0.2.123".parse().unwrap()];
    assert_eq!((source.messages, source.passed, source.rejected), (123, 123, 0));
}

#[test]
fn every_failure_report_of_the_suite_is_read() {
    let Some(dir) = suites::dir("dmarc-reports") else { skip!("dmarc-reports", "no public suites") };
    let mut found = BTreeMap::new();
    for path in files(dir.join("failure")) {
        match parse(&std::fs::read(&path).unwrap(), &ReportLimits::default()) {
            Ok(Report::Failure(report)) => {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                found.insert(name, (report.reported_domain.unwrap(), report.source_ip.unwrap().to_string()));
            }
            other => panic!("{path:?}: {other:?}"),
        }
    }
    assert_eq!(found.len(), 5);
    postwright_testkit::cases("dmarc-reports/failure", found.len(), 0, "");
    for name in ["dmarc_ruf_report_linkedin.eml", "dmarc_ruf_report_linkedin.crlf.eml"] {
        assert_eq!(found[name], ("example.com".to_owned(), "10.10.10.10".to_owned()));
    }
    assert_eq!(found["exim_plain_text_only_no_arf_part.eml"].1, "203.0.113.68");
}

/// parsedmarc on the same files: ids, domains, periods, rows and counts.
#[test]
fn parsedmarc_agrees() {
    let Some(dir) = suites::dir("dmarc-reports") else { skip!("dmarc-reports", "no public suites") };
    let Some(python) = peers::python(&["parsedmarc"]) else {
        skip!("parsedmarc", "no Python with parsedmarc")
    };
    let paths = files(dir.join("aggregate"));
    let script = r#"
import sys, json, parsedmarc
for path in sys.argv[1:]:
    try:
        r = parsedmarc.parse_report_file(path, offline=True, always_use_local_files=True)["report"]
        rows = r["records"]
        print(json.dumps([path, r["report_metadata"]["report_id"], r["policy_published"]["domain"], len(rows),
            sum(x["count"] for x in rows), sum(x["count"] for x in rows if x["alignment"]["dmarc"])]))
    except Exception as e:
        print(json.dumps([path, "ERROR", str(e), 0, 0, 0]))
"#;
    let output =
        Command::new(python).args(["-c", script]).args(&paths).stderr(Stdio::null()).output().unwrap();
    let (mut agreed, mut wrong) = (0, Vec::new());
    for line in String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.starts_with('[')) {
        let theirs: serde_json::Value = serde_json::from_str(line).unwrap();
        if theirs[1] == "ERROR" {
            continue;
        }
        let report = read(theirs[0].as_str().unwrap().as_ref());
        let total: u64 = report.rows.iter().map(|row| row.count).sum();
        let passed: u64 = report.by_source().values().map(|source| source.passed).sum();
        let id = report.report_id.replace(['<', '>'], "");
        let ours = serde_json::json!([theirs[0], id, report.policy.domain, report.rows.len(), total, passed]);
        if ours == theirs {
            agreed += 1;
        } else {
            wrong.push(format!("{ours}\n  parsedmarc: {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(agreed >= 15, "parsedmarc read only {agreed}");
    postwright_testkit::cases("parsedmarc", agreed, 0, "");
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Evaluations become rows, rows a report, the report a mail, and the mail reads back to the same rows.
#[test]
fn from_evaluation_to_mail_and_back() {
    let zone = MemoryZone::parse(
        "_dmarc.example.com. TXT \"v=DMARC1; p=reject; t=y; rua=mailto:d@example.com\"\nexample.com. TXT \"v=spf1 -all\"",
    )
    .unwrap();
    let ip = "192.0.2.7".parse().unwrap();
    let spf = now(spf::check(&SpfQuery::mail_from(ip, "mx", "x@example.com"), &zone));
    let dmarc = now(dmarc::evaluate(&DmarcQuery::of(name("a.example.com")), &zone));
    let sighting = Sighting {
        ip,
        spf: &spf,
        dkim: vec![DkimAuth {
            domain: "<&>\"'".to_owned(),
            result: "fail".to_owned(),
            ..DkimAuth::default()
        }],
        dmarc: &dmarc,
        mode: Mode::Rfc9989,
        applied: dmarc.disposition,
        reasons: Vec::new(),
        envelope_from: Some(name("example.com")),
    };
    let (store, day) = (MemoryRows::new(2), Day(19_675));
    let (policy, row) = sighting.row().unwrap();
    for _ in 0..3 {
        now(store.add(day, &policy, row.clone())).unwrap();
    }
    now(store.add(Day(19_676), &policy, row.clone())).unwrap();
    assert!(now(store.add(Day(19_677), &policy, row)).is_err(), "it holds two rows");
    assert!(now(store.due(day)).unwrap().is_empty(), "the day is not over");
    let due = now(store.due(Day(19_676))).unwrap();
    assert_eq!(now(store.due(Day(19_676))).unwrap(), due, "nothing is lost before it is settled");
    let [batch] = &due[..] else { panic!("{due:?}") };
    now(store.settle(batch)).unwrap();
    assert_eq!((now(store.due(Day(19_676))).unwrap().len(), store.len()), (0, 1));
    let (policy, rows) = (batch.policy.clone(), batch.rows.clone());
    assert_eq!((rows.len(), rows[0].count), (1, 3));
    assert_eq!(rows[0].disposition, Disposition::Quarantine);
    assert_eq!(rows[0].reasons[0].kind, "policy_test_mode");
    let report = report(policy, rows);
    let submitter =
        Submitter { domain: name("mx.example.net"), from: "dmarc@mx.example.net".parse().unwrap() };
    assert_eq!(file_name(&report, &submitter), "mx.example.net!example.com!1700000000!1700086399!id1.xml.gz");
    let limits = ReportLimits::default();
    let to = ["d@example.com".parse().unwrap()];
    let message = mail(&report, &submitter, &to, 7, &limits, Timestamp::from_secs(1_700_090_000)).unwrap();
    let text = String::from_utf8(message.to_vec()).unwrap();
    assert!(text.contains(
        "Subject: Report Domain: example.com\r\n Submitter: mx.example.net\r\n Report-ID: <id1>\r\n"
    ));
    let back = aggregate(text.as_bytes());
    assert_eq!((&back.rows, &back.policy), (&report.rows, &report.policy));
    let mut tight = ReportLimits::default();
    tight.composed = 100;
    assert!(mail(&report, &submitter, &to, 7, &tight, Timestamp::from_secs(0)).is_err());
    assert_eq!(dmarc.policy, Some(Policy::Reject));
}

fn report(policy: PublishedPolicy, rows: Vec<postwright_spf_dmarc::report::Row>) -> AggregateReport {
    let mut report = aggregate(
        b"<feedback><report_metadata><org_name>o</org_name><report_id>id1</report_id><date_range><begin>1700000000</begin>\
          <end>1700086399</end></date_range></report_metadata><policy_published><domain>x</domain></policy_published></feedback>",
    );
    (report.policy, report.rows) = (policy, rows);
    report
}

#[test]
fn strangers_get_reports_only_if_they_agree() {
    let zone = MemoryZone::parse(
        "_dmarc.example.com. TXT \"v=DMARC1; p=none\"\nexample.com._report._dmarc.yes.example.net. TXT \"v=DMARC1\"\n\
         example.com._report._dmarc.odd.example.net. TXT \"v=spf1\"\n*._report._dmarc.all.example. TXT \"v=DMARC1;\"\n\
         example.com._report._dmarc.slow.example. TIMEOUT",
    )
    .unwrap();
    let record = DmarcRecord::parse(
        b"v=DMARC1; rua=mailto:a@example.com,mailto:b@mail.example.com,mailto:c@yes.example.net,mailto:d@odd.example.net,\
          mailto:e@no.example.net,mailto:f@all.example,mailto:g@slow.example,https://x.example/",
    )
    .unwrap();
    let found = now(destinations(&name("example.com"), &record.rua, &zone, Mode::Rfc9989));
    let allowed: Vec<_> = found.iter().map(|d| d.allowed.ok()).collect();
    assert_eq!(allowed, [Some(true), Some(true), Some(true), Some(false), Some(false), Some(true), None]);
}

/// RFC 9990 4, step 9 and the paragraph behind the example.
#[test]
fn a_host_that_agrees_may_name_another_mailbox_of_its_own() {
    let zone = MemoryZone::parse(
        "_dmarc.example.com. TXT \"v=DMARC1; p=none\"\n\
         example.com._report._dmarc.one.example. TXT \"v=DMARC1; rua=mailto:new@one.example!1k,mailto:b@one.example\"\n\
         example.com._report._dmarc.two.example. TXT \"v=DMARC1; rua=mailto:victim@three.example\"\n\
         example.com._report._dmarc.four.example. TXT \"v=DMARC1; rua=nonsense\"",
    )
    .unwrap();
    let record = b"v=DMARC1; rua=mailto:old@one.example!5m,mailto:a@two.example,mailto:a@four.example";
    let record = DmarcRecord::parse(record).unwrap();
    let found = now(destinations(&name("example.com"), &record.rua, &zone, Mode::Rfc9989));
    let found: Vec<_> =
        found.iter().map(|d| (d.mailbox.to_string(), d.max_size, d.allowed.unwrap())).collect();
    assert_eq!(
        found,
        [
            ("new@one.example".to_owned(), Some(1 << 10), true),
            ("b@one.example".to_owned(), None, true),
            ("a@two.example".to_owned(), None, false),
            ("a@four.example".to_owned(), None, true),
        ]
    );
}

/// RFC 9990 3.1, contents of "spf": only the MAIL FROM identity is used; a null reverse-path is one.
#[test]
fn the_scope_of_spf_is_always_mfrom() {
    let zone =
        MemoryZone::parse("_dmarc.example.com. TXT \"v=DMARC1; p=none; rua=mailto:d@example.com\"").unwrap();
    let ip = "192.0.2.7".parse().unwrap();
    let spf = now(spf::check(&SpfQuery::mail_from(ip, "mx.example.com", ""), &zone));
    let query = DmarcQuery::of(name("example.com")).dkim([name("example.com")]);
    let dmarc = now(dmarc::evaluate(&query, &zone));
    let (dkim, reasons) = (Vec::new(), Vec::new());
    let (mode, applied) = (Mode::Rfc9989, Policy::None);
    let sighting =
        Sighting { ip, spf: &spf, dkim, dmarc: &dmarc, mode, applied, reasons, envelope_from: None };
    let (_, row) = sighting.row().unwrap();
    assert_eq!(row.spf[0].scope.as_deref(), Some("mfrom"));
    // "pass" is for passing under an enforcing policy (appendix A).
    assert_eq!(row.disposition, Disposition::None);
}

#[test]
fn a_report_of_too_many_rows_is_refused() {
    let row = "<record><row><source_ip>192.0.2.1</source_ip><count>1</count></row></record>";
    let xml = format!(
        "<feedback><report_metadata><org_name>o</org_name><report_id>i</report_id><date_range><begin>1</begin><end>2</end>\
         </date_range></report_metadata><policy_published><domain>x</domain></policy_published>{}</feedback>",
        row.repeat(11)
    );
    let mut limits = ReportLimits::default();
    limits.rows = 10;
    assert!(parse(xml.as_bytes(), &limits).is_err());
    limits.rows = 11;
    assert!(parse(xml.as_bytes(), &limits).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_reads_back(texts in proptest::collection::vec("[ -~é]{0,20}", 6), count in 1u64..1_000_000) {
        let clean = |i: usize| texts[i].trim().to_owned();
        let some = |text: String| (!text.is_empty()).then_some(text);
        let mut original = report(PublishedPolicy { domain: "example.com".to_owned(), ..PublishedPolicy::default() }, Vec::new());
        original.org_name = format!("o{}", clean(0)).trim().to_owned();
        original.extra_contact_info = some(clean(1));
        let mut row = aggregate(
            b"<feedback><report_metadata><org_name>o</org_name><report_id>i</report_id><date_range><begin>1</begin><end>2</end>\
              </date_range></report_metadata><policy_published><domain>x</domain></policy_published>\
              <record><row><source_ip>2001:db8::1</source_ip><count>1</count></row></record></feedback>",
        ).rows.remove(0);
        row.count = count;
        row.header_from = clean(2);
        row.envelope_from = some(clean(3));
        row.dkim = vec![DkimAuth { domain: clean(4), selector: some(clean(5)), result: "pass".to_owned(), human_result: None }];
        original.rows = vec![row];
        let back = aggregate(xml(&original).as_bytes());
        prop_assert_eq!(back.rows, original.rows);
        prop_assert_eq!(back.org_name, original.org_name);
        prop_assert_eq!(back.extra_contact_info, original.extra_contact_info);
    }

    #[test]
    fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..200), head in 0usize..5) {
        let heads: [&[u8]; 5] = [b"", b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"<feedback>", b"Content-Type: multipart/mixed; boundary=a\n\n--a\n"];
        let _ = parse(&[heads[head], &octets].concat(), &ReportLimits::default());
    }
}

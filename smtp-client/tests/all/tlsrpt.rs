//! SMTP TLS reports: others' reports are read, ours are written and read back.

use base64::Engine;
use postwright_core::{Record, Timestamp};
use postwright_smtp_client::tlsrpt::{
    Day, Limits, PolicyInfo, PolicyType, Report, ReportError, ResultType, Seen, Tally, destinations,
};

fn policy(domain: &str) -> PolicyInfo {
    PolicyInfo {
        policy_type: PolicyType::Sts,
        policy_string: vec!["version: STSv1".into()],
        policy_domain: domain.into(),
        mx_host: vec!["*.x.example".into()],
    }
}

fn seen(domain: &str, failure: Option<ResultType>) -> Seen {
    let ip = |text: &str| Some(text.parse().unwrap());
    Seen {
        domain: domain.parse().unwrap(),
        policy: policy(domain),
        failure,
        sending_ip: ip("192.0.2.1"),
        host: Some("mx.x.example".into()),
        receiving_ip: ip("2001:db8::1"),
    }
}

fn day() -> Day {
    // 2026-11-20.
    Day { start: Timestamp::from_secs(1_795_132_800), end: Timestamp::from_secs(1_795_219_199) }
}

#[test]
fn reports_of_others_are_read() {
    let Some(dir) = postwright_testkit::suites::dir("dmarc-reports") else {
        return postwright_testkit::announce("dmarc-reports/smtp_tls", "the folder was not found");
    };
    let dir = dir.join("smtp_tls");
    // File, reporter, policies, failed sessions in details; read off the files.
    for (file, organization, policies, failed) in [
        ("rfc8460.json", "Company-X", 1, 303),
        ("smtp_tls.json", "Example Inc.", 1, 3),
        ("mail.ru.json", "Mail.ru", 1, 2),
    ] {
        let report = Report::parse(&std::fs::read(dir.join(file)).unwrap(), &Limits::default()).unwrap();
        let details = report.policies.iter().flat_map(|policy| &policy.failure_details);
        assert_eq!(
            (
                report.organization_name.as_str(),
                report.policies.len(),
                details.map(|d| d.failed_session_count).sum::<u64>()
            ),
            (organization, policies, failed),
            "{file}"
        );
        assert_eq!(Report::parse(&report.to_json(), &Limits::default()).unwrap(), report);
    }
    // A real mail: the gzip part, taken out by hand.
    let mail = std::fs::read_to_string(dir.join("google.com_smtp_tls_report.eml")).unwrap();
    let part = mail.replace("\r\n", "\n").split("application/tlsrpt+gzip").nth(1).unwrap().to_owned();
    let (_, body) = part.split_once("\n\n").unwrap();
    let data: String = body.split("\n--").next().unwrap().split_whitespace().collect();
    let gzip = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
    let report = Report::parse(&gzip, &Limits::default()).unwrap();
    assert_eq!(report.organization_name, "Google Inc.");
    postwright_testkit::cases("dmarc-reports/smtp_tls", 4, 0, "");
}

#[test]
fn a_days_sessions_become_one_report_a_domain() {
    let mut tally = Tally::new(Limits::default());
    for _ in 0..3 {
        tally.count(seen("x.example", None));
    }
    tally.count(seen("x.example", Some(ResultType::CertificateExpired)));
    tally.count(seen("x.example", Some(ResultType::CertificateExpired)));
    tally.count(seen("x.example", Some(ResultType::StarttlsNotSupported)));
    tally.count(seen("y.example", None));
    let reports = tally.take("Example", "tls@example.org", day());
    assert_eq!(reports.len(), 2);
    let (domain, report) = &reports[0];
    assert_eq!((domain.as_str(), report.report_id.as_str()), ("x.example", "2026-11-20T00:00:00Z_x.example"));
    let json: serde_json::Value = serde_json::from_slice(&report.to_json()).unwrap();
    // The names are those of RFC 8460 4.4 and appendix B.
    assert_eq!(json["date-range"]["end-datetime"], "2026-11-20T23:59:59Z");
    let policy = &json["policies"][0];
    assert_eq!(policy["policy"]["policy-type"], "sts");
    assert_eq!(policy["policy"]["mx-host"][0], "*.x.example");
    assert_eq!(policy["summary"]["total-successful-session-count"], 3);
    assert_eq!(policy["summary"]["total-failure-session-count"], 3);
    let details = policy["failure-details"].as_array().unwrap();
    let words: Vec<_> = details
        .iter()
        .map(|d| (d["result-type"].as_str().unwrap(), d["failed-session-count"].as_u64().unwrap()))
        .collect();
    assert_eq!(words, [("starttls-not-supported", 1), ("certificate-expired", 2)]);
    assert_eq!(details[0]["receiving-ip"], "2001:db8::1");
    assert!(tally.take("Example", "x", day()).is_empty(), "each session is reported once");
    assert_eq!(&Report::parse(&report.to_gzip(), &Limits::default()).unwrap(), report);
}

#[test]
fn numbers_are_kept_to() {
    let mut limits = Limits::default();
    (limits.domains, limits.failures, limits.report) = (1, 1, 100);
    let mut tally = Tally::new(limits);
    tally.count(seen("x.example", Some(ResultType::CertificateExpired)));
    tally.count(seen("x.example", Some(ResultType::ValidationFailure)));
    tally.count(seen("y.example", None));
    let reports = tally.take("Example", "x", day());
    assert_eq!(reports.len(), 1);
    let policy = &reports[0].1.policies[0];
    assert_eq!((policy.summary.total_failure_session_count, policy.failure_details.len()), (2, 1));
    for octets in [reports[0].1.to_json(), reports[0].1.to_gzip()] {
        assert!(matches!(Report::parse(&octets, &limits), Err(ReportError::TooLong(100))));
    }
    assert!(matches!(Report::parse(b"{}", &limits), Err(ReportError::Json(_))));
    assert!(matches!(Report::parse(&[0x1f, 0x8b, 0, 0], &limits), Err(ReportError::Gzip(_))));
}

#[test]
fn the_mail_is_that_of_rfc_8460() {
    let mut tally = Tally::new(Limits::default());
    tally.count(seen("x.example", None));
    let (domain, report) = tally.take("Example", "tls@example.org", day()).remove(0);
    let mail = report.to_mail(
        &domain,
        &"example.org".parse().unwrap(),
        "tls@example.org",
        "r@x.example\r\nBcc: y@z",
        day(),
    );
    let text = String::from_utf8(mail.to_vec()).unwrap();
    assert!(text.contains("\r\nTLS-Report-Domain: x.example\r\nTLS-Report-Submitter: example.org\r\n"));
    assert!(text.contains("filename=\"example.org!x.example!1795132800!1795219199!1.json.gz\""));
    assert!(!text.contains("\r\nBcc"));
    let body =
        text.split("json.gz\"\r\n\r\n").nth(1).unwrap().split("\r\n--").next().unwrap().replace("\r\n", "");
    let gzip = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
    assert_eq!(Report::parse(&gzip, &Limits::default()).unwrap(), report);
}

#[test]
fn destinations_come_from_exactly_one_record() {
    let read = |texts: &[&str]| destinations(&texts.iter().map(Record::txt).collect::<Vec<_>>());
    // RFC 8460 3: both examples.
    let mail: Box<str> = "mailto:reports@example.com".into();
    let web: Box<str> = "https://reporting.example.com/v1/tlsrpt".into();
    assert_eq!(read(&["v=TLSRPTv1;rua=mailto:reports@example.com"]), std::slice::from_ref(&mail));
    assert_eq!(
        read(&[
            "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt, mailto:reports@example.com,ftp://x"
        ]),
        [web, mail]
    );
    assert!(read(&["v=TLSRPTv1;rua=mailto:a@b", "v=TLSRPTv1;rua=mailto:a@b"]).is_empty());
    assert!(read(&["v=TLSRPTv1"]).is_empty() && read(&["v=TLSRPTv2;rua=mailto:a@b"]).is_empty());
}

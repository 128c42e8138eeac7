//! Daily aggregate reports by the real program: what it collects survives a kill, leaves when the day is over, is signed,
//! and an independent reader understands it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postwright::core::{Clock, SystemClock};
use postwright::reports::JournalRows;
use postwright::spf_dmarc::report::{Batch, Day, Report, ReportLimits, RowStore, parse};
use postwright_testkit::{at_once as now, peers, skip};
use support::load::Client;
use support::mta::Mta;
use support::receiver::{Mail, Receiver};
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

fn configure(folder: &Path, receiver: &Receiver) -> std::path::PathBuf {
    let at = |name: &str| folder.join(name);
    let zone = "asks.test. TXT \"v=spf1 -all\"\n\
                _dmarc.asks.test. TXT \"v=DMARC1; p=reject; sp=none; rua=mailto:rua@asks.test!10m\"\n";
    std::fs::write(at("zone"), zone).unwrap();
    let key = Command::new(env!("CARGO_BIN_EXE_postwright"))
        .args([
            "dkim",
            "keygen",
            "--algorithm",
            "ed25519",
            "--domain",
            "mta.test",
            "--selector",
            "s1",
            "--out",
        ])
        .arg(at("key.pem"))
        .output()
        .unwrap();
    assert!(key.status.success(), "{key:?}");
    let config = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [relay]\nfrom = [\"203.0.113.0/24\"]\ndomains = [\"ours.test\"]\n\
         [delivery]\nsmart_host = \"{}\"\n[dns]\nzone = {:?}\n\
         [reports]\nsend = true\npath = {:?}\nearliest = \"0s\"\nspread = \"0s\"\n\
         [[dkim]]\ndomain = \"mta.test\"\nselector = \"s1\"\nkey = {:?}\n",
        at("spool"),
        receiver.address,
        at("zone"),
        at("reports"),
        at("key.pem"),
    );
    let file = at("config.toml");
    std::fs::write(&file, config).unwrap();
    file
}

/// The batches as they lie on disk.
fn collected(journal: &JournalRows) -> Vec<Batch> {
    now(journal.due(Day(u32::MAX))).unwrap()
}

#[test]
fn what_a_killed_process_collected_is_reported_the_next_day() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let config = configure(folder.path(), &receiver);
    let mta = Mta::with_config(&config);
    let mut client = Client::connect(mta.address).unwrap();
    for _ in 0..3 {
        let body = b"From: <ceo@asks.test>\r\nSubject: x\r\n\r\nx\r\n";
        client.send("ceo@asks.test", &["joe@ours.test"], body).unwrap();
    }
    wait_until("the mail is delivered", PATIENCE, || receiver.count() == 3);
    mta.kill();

    // As if it had been collected yesterday.
    let today = Day::of(SystemClock::new().now());
    let journal = JournalRows::open(folder.path().join("reports/rows"), 100).unwrap();
    let [batch] = &collected(&journal)[..] else { panic!("{:?}", collected(&journal)) };
    assert_eq!((batch.rows.len(), batch.rows[0].count), (1, 3));
    now(journal.add(Day(today.0 - 1), &batch.policy, batch.rows[0].clone())).unwrap();
    now(journal.settle(batch)).unwrap();
    drop(journal);

    let mta = Mta::with_config(&config);
    wait_until("the report is delivered", PATIENCE, || receiver.count() == 4);
    let reports: Vec<Mail> =
        receiver.mails().into_iter().filter(|mail| mail.to == ["rua@asks.test"]).collect();
    let [mail] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(mail.from, "");
    assert!(mail.field("DKIM-Signature").is_some_and(|value| value.contains("d=mta.test")), "{mail:?}");
    let Ok(Report::Aggregate(report)) = parse(&mail.body, &ReportLimits::default()) else {
        panic!("{}", String::from_utf8_lossy(&mail.body))
    };
    let row = &report.rows[0];
    assert_eq!((row.source_ip.to_string().as_str(), row.count), ("127.0.0.1", 3));
    assert_eq!((report.begin, report.end), (Day(today.0 - 1).begin(), Day(today.0 - 1).end()));
    assert!(mta.terminate(PATIENCE).success());
    let journal = JournalRows::open(folder.path().join("reports/rows"), 100).unwrap();
    assert!(collected(&journal).is_empty(), "settled");
    parsedmarc_reads(folder.path(), &mail.body);
}

/// The same in the eyes of Python's parsedmarc.
fn parsedmarc_reads(folder: &Path, mail: &[u8]) {
    let Some(python) = peers::python(&["parsedmarc"]) else {
        skip!("parsedmarc", "no Python with parsedmarc")
    };
    let path = folder.join("report.eml");
    std::fs::write(&path, mail).unwrap();
    let script = "
import sys, json, parsedmarc
report = parsedmarc.parse_report_file(sys.argv[1], offline=True, always_use_local_files=True)['report']
row = report['records'][0]
print(json.dumps([report['xml_namespace'] if 'xml_namespace' in report else None,
    report['policy_published']['domain'], report['policy_published']['p'], report['policy_published']['sp'],
    row['source']['ip_address'], row['count'], row['policy_evaluated']['disposition'], row['alignment']['dmarc'],
    row['policy_evaluated']['policy_override_reasons'][0]['type'], row['auth_results']['spf'][0]['result']]))";
    let output = Command::new(python).args(["-c", script]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: serde_json::Value = serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said} {}", String::from_utf8_lossy(&output.stderr)));
    let expected = serde_json::json!([
        "asks.test",
        "reject",
        "none",
        "127.0.0.1",
        3,
        "none",
        false,
        "local_policy",
        "fail"
    ]);
    assert_eq!(said.as_array().unwrap()[1..], expected.as_array().unwrap()[..], "{said}");
}

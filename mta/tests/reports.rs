//! Aggregate reports through the real pipeline in virtual time: what sessions bring is evaluated and collected, the day
//! ends, and the mail lies in our own queue, once.
#![cfg(feature = "reports")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::time::Duration;

use postwright::authentication::{Authenticate, Enforcement};
use postwright::core::{
    Clock, DnsError, Domain, Entropy, MemoryZone, Name, Record, SeededEntropy, Timestamp, World,
};
use postwright::queue::{InjectedFault, Item, MemorySpool, Scan, Spool};
use postwright::reports::{JournalRows, ReportSettings, Reports};
use postwright::smtp_client::{Client, Trust};
use postwright::smtp_proto::server::Peer;
use postwright::smtp_server::{ServerConfig, serve_connection};
use postwright::spf_dmarc::report::{
    AggregateReport, Day, Disposition, MemoryRows, Report, ReportLimits, RowStore, parse,
};
use postwright::{Mta, Relay};
use postwright_testkit::PausedClock;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// 2026-11-20T22:00:00Z.
const START: u64 = 1_795_212_000;
const DAY: Duration = Duration::from_secs(86_400);

const ZONE: &str = "\
asks.example.                 TXT \"v=spf1 ip4:192.0.2.1 -all\"
_dmarc.asks.example.          TXT \"v=DMARC1; p=reject; rua=mailto:rua@asks.example,mailto:ext@agrees.example!10m,\\
mailto:small@asks.example!1k,mailto:victim@other.example\"
asks.example._report._dmarc.agrees.example. TXT \"v=DMARC1\"
_dmarc.slow.example.          TXT \"v=DMARC1; p=none; rua=mailto:rua@elsewhere.example\"
slow.example._report._dmarc.elsewhere.example. TIMEOUT
_dmarc.quiet.example.         TXT \"v=DMARC1; p=reject\"
";

struct System {
    mta: Mta,
    reports: Arc<Reports>,
    spool: Arc<MemorySpool>,
    zone: Arc<MemoryZone>,
    clock: Arc<dyn Clock>,
}

fn system(store: Arc<dyn RowStore>, enforcement: Enforcement) -> System {
    // A zone file has no line continuation inside of quotes.
    let zone = Arc::new(MemoryZone::parse(&ZONE.replace("\\\n", "")).unwrap());
    let clock: Arc<dyn Clock> = PausedClock::starting_at(Timestamp::from_secs(START));
    let world =
        World { clock: clock.clone(), entropy: Arc::new(SeededEntropy::new(1)), resolver: zone.clone() };
    let hostname: Domain = "mx.example.net".parse().unwrap();
    let settings = ReportSettings::new(hostname.clone(), "reports@mx.example.net".parse().unwrap());
    let reports = Arc::new(Reports::new(settings, store, world.clone()));
    let spool = Arc::new(MemorySpool::default());
    let client = Client::new(&Trust::Roots(Vec::new()), clock.clone()).unwrap();
    let policy = Authenticate::new(hostname.clone(), zone.clone(), clock.clone(), enforcement);
    let mta = Mta::builder(hostname, world, spool.clone(), client)
        .relay(Relay::nobody().accept_for(["mx.example.net".parse().unwrap()]))
        .policy(Arc::new(policy.with_reports(reports.clone())))
        .build();
    System { mta, reports, spool, zone, clock }
}

impl System {
    /// One message by SMTP from a stranger; the reply to its end.
    async fn receive(&self, ip: &str, from: &str, to: &str, subject: &str) -> String {
        let (ours, theirs) = tokio::io::duplex(65_536);
        let peer = Peer::new(
            format!("{ip}:4321").parse().unwrap(),
            "192.0.2.25:25".parse().unwrap(),
            self.clock.now(),
        );
        let config = Arc::new(ServerConfig::new("mx.example.net".parse::<Domain>().unwrap()));
        let (intake, clock) = (self.mta.intake(), self.clock.clone());
        let session =
            tokio::spawn(async move { serve_connection(theirs, peer, &intake, config, clock).await });
        let (reader, mut writer) = tokio::io::split(ours);
        let mut lines = BufReader::new(reader).lines();
        let text = format!("From: <{from}>\r\nSubject: {subject}\r\n\r\nx\r\n.");
        let mut last = String::new();
        for say in [
            None,
            Some("HELO client.example".to_owned()),
            Some(format!("MAIL FROM:<{from}>")),
            Some(format!("RCPT TO:<{to}>")),
            Some("DATA".to_owned()),
            Some(text),
        ] {
            if let Some(say) = say {
                writer.write_all(format!("{say}\r\n").as_bytes()).await.unwrap();
            }
            last = lines.next_line().await.unwrap().unwrap();
        }
        drop((lines, writer));
        session.await.unwrap();
        last
    }

    /// The reports in the queue: to whom, the sender, and what they say.
    async fn mailed(&self) -> Vec<(Vec<String>, String, AggregateReport, String)> {
        let page = self.spool.scan(Scan::Messages { after: None, limit: 1000 }).await.unwrap();
        let mut found = Vec::new();
        for item in page.items {
            let Item::Entry(entry) = item else { continue };
            let body = self.spool.load(entry.id).await.unwrap().body.to_vec();
            if let Ok(Report::Aggregate(report)) = parse(&body, &ReportLimits::default()) {
                let to = entry.envelope.recipients.iter().map(|to| to.mailbox.to_string()).collect();
                let text = String::from_utf8(body).unwrap();
                found.push((to, entry.envelope.reverse_path.to_string(), report, text));
            }
        }
        found
    }

    /// Lets reports run for a while.
    async fn pass(&self, time: Duration) {
        self.reports.run(&self.mta, tokio::time::sleep(time)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_of_mail_becomes_one_report_for_each_policy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    let store = || Arc::new(JournalRows::open(&path, 100).unwrap());
    let me = system(store(), Enforcement::Reject);
    let here = "joe@mx.example.net";
    for _ in 0..3 {
        let reply = me.receive("198.51.100.1", "a@asks.example", here, "forged").await;
        assert!(reply.starts_with("550 5.7.1"), "{reply}");
    }
    for from in ["a@asks.example", "a@quiet.example", "a@slow.example", "a@nothing.example"] {
        let ip = if from.contains("asks") { "192.0.2.1" } else { "198.51.100.1" };
        me.receive(ip, from, here, "mail").await;
    }
    // A report of theirs, and one that only says so.
    let subject = "Report Domain: mx.example.net Submitter: asks.example Report-ID: <1>";
    me.receive("192.0.2.1", "a@asks.example", here, subject).await;
    me.receive("198.51.100.9", "a@asks.example", here, subject).await;
    me.receive("192.0.2.1", "a@asks.example", "reports@mx.example.net", "answer to a report").await;

    me.pass(Duration::from_secs(2 * 3600)).await;
    assert!(me.mailed().await.is_empty(), "the day is hardly over");
    me.pass(Duration::from_secs(3 * 3600)).await;
    let mailed = me.mailed().await;
    let [(to, sender, report, text)] = &mailed[..] else { panic!("{mailed:?}") };
    assert_eq!(to[..], ["rua@asks.example", "ext@agrees.example"], "who agreed, and takes this size");
    assert_eq!(sender, "<>");
    assert!(
        text.contains("\r\nSubject: Report Domain: asks.example\r\n Submitter: mx.example.net\r\n"),
        "{text}"
    );
    assert!(text.contains("\r\nFrom: reports@mx.example.net\r\n"), "{text}");
    let today = Day::of(Timestamp::from_secs(START));
    assert_eq!((report.begin, report.end), (today.begin(), today.end()));
    assert_eq!((report.policy.domain.as_str(), report.policy.p.as_deref()), ("asks.example", Some("reject")));
    let rows: Vec<_> = report
        .rows
        .iter()
        .map(|row| (row.source_ip.to_string(), row.count, row.disposition, row.spf_aligned))
        .collect();
    let passed = ("192.0.2.1".to_owned(), 1, Disposition::Pass, true);
    let refused = |ip: &str, count| (ip.to_owned(), count, Disposition::Reject, false);
    assert_eq!(rows, [passed, refused("198.51.100.1", 3), refused("198.51.100.9", 1)]);

    // What could not be asked about waits, over a restart as well, and goes out when DNS answers.
    let me = system(store(), Enforcement::Reject);
    tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
    me.pass(Duration::from_secs(3600)).await;
    assert!(me.mailed().await.is_empty(), "still no answer; and the first report is not sent again");
    let consent: Name = "slow.example._report._dmarc.elsewhere.example".parse().unwrap();
    me.zone.remove(&consent);
    me.zone.insert(consent, Record::txt("v=DMARC1"));
    me.pass(Duration::from_secs(3600)).await;
    let mailed = me.mailed().await;
    assert_eq!(mailed.len(), 1);
    assert_eq!((&*mailed[0].0[0], mailed[0].2.rows[0].count), ("rua@elsewhere.example", 1));
    // Under p=none nothing was to be done, and nothing was.
    assert_eq!(mailed[0].2.rows[0].disposition, Disposition::None);
    me.pass(2 * DAY).await;
    assert_eq!(me.mailed().await.len(), 1, "once");
}

#[tokio::test(start_paused = true)]
async fn a_failing_queue_loses_no_rows_and_the_second_try_has_the_same_id() {
    let store = Arc::new(MemoryRows::new(100));
    let me = system(store.clone(), Enforcement::Observe);
    me.receive("198.51.100.1", "a@asks.example", "joe@mx.example.net", "forged").await;
    me.spool.inject(InjectedFault::Full);
    me.pass(Duration::from_secs(5 * 3600)).await;
    assert_eq!((me.mailed().await.len(), store.len()), (0, 1));
    me.spool.heal();
    me.pass(Duration::from_secs(3600)).await;
    let mailed = me.mailed().await;
    assert_eq!((mailed.len(), store.len()), (1, 0));
    let row = &mailed[0].2.rows[0];
    assert_eq!((row.disposition, row.reasons[0].kind.as_str()), (Disposition::None, "local_policy"));
    // As if the process had died between the queue and the store.
    let again = system(store.clone(), Enforcement::Observe);
    again.receive("198.51.100.1", "a@asks.example", "joe@mx.example.net", "forged").await;
    again.pass(Duration::from_secs(5 * 3600)).await;
    let second = again.mailed().await;
    assert_eq!(second[0].2.report_id, mailed[0].2.report_id);
    let name = |text: &str| text.lines().find(|line| line.contains("filename=")).unwrap().to_owned();
    assert_eq!(name(&second[0].3), name(&mailed[0].3));
}

#[tokio::test(start_paused = true)]
async fn what_never_can_be_sent_is_given_up_after_three_days() {
    let store = Arc::new(MemoryRows::new(100));
    let me = system(store.clone(), Enforcement::Observe);
    me.zone.fail("_dmarc.asks.example".parse().unwrap(), None, DnsError::ServFail);
    me.receive("198.51.100.1", "a@slow.example", "joe@mx.example.net", "x").await;
    me.pass(3 * DAY).await;
    assert_eq!(store.len(), 1);
    me.pass(DAY).await;
    assert_eq!((store.len(), me.mailed().await.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_large_report_comes_in_parts() {
    let store = Arc::new(MemoryRows::new(10_000));
    let me = system(store.clone(), Enforcement::Observe);
    me.receive("198.51.100.1", "a@asks.example", "joe@mx.example.net", "x").await;
    let yesterday = Day(Day::of(me.clock.now()).0 + 1);
    let batch = store.due(yesterday).await.unwrap().remove(0);
    let entropy = SeededEntropy::new(7);
    for i in 0..2000_u32 {
        let mut row = batch.rows[0].clone();
        row.source_ip = std::net::Ipv4Addr::from(0x0a00_0000 + i).into();
        row.header_from = format!("{:016x}.asks.example", entropy.next_u64());
        store.add(batch.day, &batch.policy, row).await.unwrap();
    }
    let mut settings =
        ReportSettings::new("mx.example.net".parse().unwrap(), "reports@mx.example.net".parse().unwrap());
    settings.limits.composed = 10_000;
    let world = World { clock: me.clock.clone(), entropy: Arc::new(entropy), resolver: me.zone.clone() };
    let reports = Reports::new(settings, store.clone(), world);
    tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
    let round = reports.send_due(&me.mta).await;
    let mailed = me.mailed().await;
    assert!(mailed.len() > 2 && round.sent == mailed.len(), "{round:?}");
    let rows: usize = mailed.iter().map(|mail| mail.2.rows.len()).sum();
    assert_eq!((rows, store.len()), (2001, 0));
    let mut ids: Vec<&String> = mailed.iter().map(|mail| &mail.2.report_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), mailed.len(), "each part has an id of its own");
}

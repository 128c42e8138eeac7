//! MTA-STS: records, policies, matching, and what is kept when DNS, web server or store fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright_core::{BoxFuture, Domain, MemoryZone, Record, Timestamp};
use postwright_smtp_client::sts::{
    Fetch, FetchError, Fetched, Finder, Found, Kept, MemoryStore, Mode, Policy, PolicyError, Store, Trouble,
    find, record_id,
};

/// The example of RFC 8461 3.2.
const RFC: &[u8] = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\n\
    mx: backupmx.example.com\r\nmax_age: 604800\r\n";

#[test]
fn policies_are_read_as_rfc_8461_says() {
    let policy = Policy::parse(RFC).unwrap();
    assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800));
    let host = |name: &str| policy.names(&name.parse().unwrap());
    for good in ["mail.example.com", "MAIL.example.com", "a.example.net", "backupmx.example.com"] {
        assert!(host(good), "{good}");
    }
    // RFC 8461 4.1: a wildcard is exactly one label.
    for bad in ["example.net", "a.b.example.net", "mail.example.org", "xmail.example.com", "[192.0.2.1]"] {
        assert!(!host(bad), "{bad}");
    }
    use PolicyError::{Form, MaxAge, Mx, Version};
    let huge = [RFC, &vec![b' '; 64 * 1024]].concat();
    for (text, error) in [
        (&b""[..], Version),
        (b"version: STSv2\nmode: none\nmax_age: 1\n", Version),
        (b"version: STSv1\nmode: strict\nmax_age: 1\nmx: a.b\n", PolicyError::Mode),
        (b"version: STSv1\nmode: enforce\nmx: a.b\n", MaxAge),
        (b"version: STSv1\nmode: enforce\nmx: a.b\nmax_age: 31557601\n", MaxAge),
        (b"version: STSv1\nmode: enforce\nmx: a.b\nmax_age: -1\n", MaxAge),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\n", Mx),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\nmx: a.*.b\n", Mx),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\nmx: *\n", Mx),
        (b"\xff", Form),
        (&huge, Form),
    ] {
        assert_eq!(
            Policy::parse(text),
            Err(error),
            "{:?}",
            String::from_utf8_lossy(&text[..text.len().min(60)])
        );
    }
    let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 86400\nunknown: x\n").unwrap();
    assert_eq!(none.mode, Mode::None);
}

#[test]
fn exactly_one_record_counts() {
    let id = |texts: &[&str]| record_id(&texts.iter().map(Record::txt).collect::<Vec<_>>());
    // RFC 8461 3.1 has this record.
    assert_eq!(id(&["v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
    assert_eq!(id(&["other", "v=STSv1;id=1"]).as_deref(), Some("1"));
    let long = format!("v=STSv1; id={}", "1".repeat(33));
    for texts in [
        &["v=STSv1; id=1", "v=STSv1; id=2"][..],
        &["v=STSv1;"],
        &["v=STSv1; id=;"],
        &["v=STSv1; id=a-b;"],
        &[long.as_str()],
        &["id=1; v=STSv1"],
        &["v=STSv10; id=1"],
        &[],
    ] {
        assert_eq!(id(texts), None, "{texts:?}");
    }
}

/// Answers as told and remembers what it was asked.
struct Web {
    answer: Mutex<Result<Fetched, FetchError>>,
    asked: Mutex<Vec<String>>,
}

impl Web {
    fn new(status: u16, content_type: &str, body: &[u8]) -> Web {
        let answer = Ok(Fetched { status, content_type: content_type.into(), body: body.to_vec() });
        Web { answer: Mutex::new(answer), asked: Mutex::default() }
    }

    fn down() -> Web {
        Web {
            answer: Mutex::new(Err(FetchError::Failed("connection refused".into()))),
            asked: Mutex::default(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Fetch for Web {
    fn get<'a>(
        &'a self,
        url: &'a str,
        limit: usize,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        assert_eq!((limit, timeout), (64 * 1024, Duration::from_secs(60)));
        self.asked.lock().unwrap().push(url.to_owned());
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async { answer })
    }
}

struct BrokenStore;

impl Store for BrokenStore {
    fn load<'a>(&'a self, _: &'a Domain) -> BoxFuture<'a, Result<Option<Kept>, String>> {
        Box::pin(async { Err("disk".into()) })
    }

    fn save<'a>(&'a self, _: &'a Domain, _: &'a Kept) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Err("disk".into()) })
    }

    fn domains(&self) -> BoxFuture<'_, Result<Vec<Domain>, String>> {
        Box::pin(async { Err("disk".into()) })
    }
}

fn zone(record: &str) -> MemoryZone {
    MemoryZone::parse(&format!("_mta-sts.example.com. {record}\n")).unwrap()
}

fn at(day: u64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + day * 86_400)
}

async fn mode(record: &str, web: &Web, store: &dyn Store, day: u64) -> String {
    let domain = "example.com".parse().unwrap();
    match find(&domain, &zone(record), web, store, at(day)).await.found {
        Found::Policy(policy) => format!("{:?}", policy.mode),
        Found::None => "no policy".to_owned(),
        Found::Unknown(why) => format!("unknown: {why}"),
    }
}

#[tokio::test]
async fn a_policy_is_fetched_once_and_stands_until_it_expires() {
    const ONE: &str = "TXT \"v=STSv1; id=1\"";
    const TWO: &str = "TXT \"v=STSv1; id=2\"";
    let (good, down, store) =
        (Web::new(200, "text/plain; charset=utf-8", RFC), Web::down(), MemoryStore::default());
    assert_eq!(mode(ONE, &good, &store, 0).await, "Enforce");
    assert_eq!(*good.asked.lock().unwrap(), ["https://mta-sts.example.com/.well-known/mta-sts.txt"]);
    assert_eq!(mode(ONE, &good, &store, 1).await, "Enforce");
    assert_eq!(good.asked(), 1, "the same id needs no fetch");
    // Neither a failing fetch, a missing record, a broken one nor a DNS failure lifts it.
    for record in [TWO, "TXT other", "TXT \"v=STSv1\"", "A 192.0.2.1", "TIMEOUT", "SERVFAIL", "BOGUS"] {
        assert_eq!(mode(record, &down, &store, 6).await, "Enforce", "{record}");
    }
    // max_age is a week.
    assert_eq!(mode(ONE, &down, &store, 8).await, "no policy");
    assert_eq!(mode("TIMEOUT", &good, &store, 8).await, "no policy");
    // A newer policy takes its place, and mode none takes it away.
    assert_eq!(mode(ONE, &good, &store, 9).await, "Enforce");
    let testing =
        Web::new(200, "TEXT/PLAIN", &String::from_utf8_lossy(RFC).replace("enforce", "testing").into_bytes());
    assert_eq!(mode(TWO, &testing, &store, 9).await, "Testing");
    let none = Web::new(200, "text/plain", b"version: STSv1\nmode: none\nmax_age: 86400\n");
    assert_eq!(mode("TXT \"v=STSv1; id=3\"", &none, &store, 9).await, "no policy");
}

#[tokio::test]
async fn odd_answers_are_no_policy_and_a_broken_store_never_fails_open() {
    const ONE: &str = "TXT \"v=STSv1; id=1\"";
    for web in [
        Web::new(301, "text/plain", RFC),
        Web::new(404, "text/plain", RFC),
        Web::new(200, "text/html", RFC),
        Web::new(200, "", RFC),
        Web::new(200, "text/plain", &[RFC, &vec![b'x'; 65_536]].concat()),
        Web::new(200, "text/plain", b"<html>"),
        Web::down(),
    ] {
        assert_eq!(mode(ONE, &web, &MemoryStore::default(), 0).await, "no policy");
        assert_eq!(web.asked(), 1);
    }
    let good = Web::new(200, "text/plain", RFC);
    assert_eq!(mode("TXT none", &good, &MemoryStore::default(), 0).await, "no policy");
    assert_eq!(good.asked(), 0, "nothing is fetched that DNS does not announce");
    let why = mode(ONE, &good, &BrokenStore, 0).await;
    assert_eq!(why, "unknown: the store of MTA-STS policies failed: disk");
}

#[tokio::test]
async fn a_fetch_that_failed_is_not_repeated_at_once_and_says_why() {
    let (down, store) = (Arc::new(Web::down()), Arc::new(MemoryStore::default()));
    let finder = Finder::new(down.clone(), store.clone());
    let domain: Domain = "example.com".parse().unwrap();
    let (one, two) = (zone("TXT \"v=STSv1; id=1\""), zone("TXT \"v=STSv1; id=2\""));
    for (seconds, zone, asked) in [(0, &one, 1), (1, &one, 1), (299, &one, 1), (301, &one, 2), (302, &two, 3)]
    {
        let finding = finder.find(&domain, zone, at(0) + Duration::from_secs(seconds)).await;
        assert_eq!(finding.found, Found::None);
        assert!(matches!(finding.trouble, Some(Trouble::Fetch(_))), "{finding:?}");
        assert_eq!(down.asked(), asked, "after {seconds} s");
    }
    // Once it works, the trouble is over.
    *down.answer.lock().unwrap() =
        Ok(Fetched { status: 200, content_type: "text/plain".into(), body: RFC.to_vec() });
    let finding = finder.find(&domain, &two, at(1)).await;
    assert!(matches!(finding.found, Found::Policy(_)) && finding.trouble.is_none(), "{finding:?}");
    for (answer, invalid) in [
        (Err(FetchError::Certificate("expired".into())), false),
        (Ok(Fetched { status: 200, content_type: "text/plain".into(), body: b"x".to_vec() }), true),
    ] {
        *down.answer.lock().unwrap() = answer;
        // The policy that is kept stands all the same.
        let finding = finder.find(&domain, &one, at(2 + u64::from(invalid))).await;
        assert!(matches!(finding.found, Found::Policy(_)), "{finding:?}");
        assert_eq!(matches!(finding.trouble, Some(Trouble::Invalid(_))), invalid, "{finding:?}");
        assert_eq!(matches!(finding.trouble, Some(Trouble::Certificate(_))), !invalid, "{finding:?}");
    }
}

#[tokio::test]
async fn kept_policies_are_fetched_again_each_day() {
    let (web, store) = (Arc::new(Web::new(200, "text/plain", RFC)), Arc::new(MemoryStore::default()));
    let finder = Finder::new(web.clone(), store.clone());
    let domain: Domain = "example.com".parse().unwrap();
    let zone = zone("TXT \"v=STSv1; id=1\"");
    finder.find(&domain, &zone, at(0)).await;
    assert_eq!(finder.refresh(at(0)).await, Ok(0));
    // max_age is a week: refreshed daily it never runs out, though DNS never announces anything new.
    for day in 1..20 {
        assert_eq!(finder.refresh(at(day)).await, Ok(1), "day {day}");
    }
    assert_eq!(web.asked(), 20);
    *web.answer.lock().unwrap() = Err(FetchError::Failed("down".into()));
    for day in 20..26 {
        assert_eq!(finder.refresh(at(day)).await, Ok(0));
        assert!(matches!(finder.find(&domain, &zone, at(day)).await.found, Found::Policy(_)), "day {day}");
    }
    assert_eq!(finder.find(&domain, &zone, at(26)).await.found, Found::None, "a week after the last success");
    assert!(Finder::new(web, Arc::new(BrokenStore)).refresh(at(26)).await.is_err());
}

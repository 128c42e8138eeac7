//! DNS that fails for ten minutes and comes back: nothing bounces, everything drains, and nobody is stormed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postwright::core::{Answer, BoxFuture, DnsError, MemoryZone, Name, RecordKind, Resolver};
use postwright::{DnsPace, PacedResolver};
use postwright_testkit::PausedClock;
use tokio::time::sleep;

use crate::network::{Network, Seen};
use crate::remote::Fault;
use crate::{Fates, HOUR, drain, submit, system};

const OUTAGE: Duration = Duration::from_secs(600);

/// DNS that is gone for [`OUTAGE`]: every look-up takes five seconds and has no answer. After that one takes 50 ms.
pub(crate) struct Outage {
    zone: MemoryZone,
    start: tokio::time::Instant,
    /// How many look-ups failed.
    asked: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
    /// When each look-up began.
    begun: Mutex<Vec<Duration>>,
}

impl Outage {
    /// So many domains, each with a host of its own.
    fn of(domains: usize, start: tokio::time::Instant) -> Arc<Outage> {
        let host = |i| format!("d{i}.test. MX 10 mx.d{i}.test.\nmx.d{i}.test. A 192.0.2.{}\n", i % 250 + 1);
        let zone: String = (0..domains).map(host).collect();
        let zone = MemoryZone::parse(&zone).unwrap();
        let (asked, open, most) = Default::default();
        Arc::new(Outage { zone, start, asked, open, most, begun: Mutex::default() })
    }

    fn begun(&self) -> Vec<Duration> {
        self.begun.lock().unwrap().clone()
    }
}

impl Resolver for Outage {
    fn lookup<'a>(&'a self, name: &'a Name, kind: RecordKind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            self.begun.lock().unwrap().push(self.start.elapsed());
            let down = self.start.elapsed() < OUTAGE;
            self.most.fetch_max(self.open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(if down { 5000 } else { 50 })).await;
            self.open.fetch_sub(1, Ordering::SeqCst);
            if down {
                self.asked.fetch_add(1, Ordering::SeqCst);
                return Err(DnsError::Timeout);
            }
            self.zone.lookup(name, kind).await
        })
    }
}

/// Sends a message to each of `domains` domains through the outage; says how long it took until all were delivered.
async fn ride_out(
    dns: &Arc<Outage>,
    resolver: Arc<dyn Resolver>,
    domains: usize,
    connections: usize,
) -> Duration {
    let (seen, fates) = (Arc::new(Seen::default()), Arc::new(Fates::default()));
    let mta = system(Network::new(Fault::None, seen.clone()), resolver)
        .settings(|settings| settings.connections = connections)
        .observer(fates.clone())
        .build();
    for number in 0..domains {
        submit(&mta, &format!("d{number}.test"), number, 1).await;
    }
    let drained = drain(&mta, &fates, domains, 4 * HOUR).await;
    assert!(fates.bounced.lock().unwrap().is_empty(), "no answer is no reason to bounce");
    assert_eq!(fates.delivered.lock().unwrap().len(), domains);
    assert_eq!(seen.bodies.lock().unwrap().len(), domains);
    assert_eq!(dns.open.load(Ordering::SeqCst), 0, "look-ups are left");
    drained
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_dns_bounce_nothing_and_end_without_a_storm() {
    const DOMAINS: usize = 300;
    const CONNECTIONS: usize = 20;
    let dns = Outage::of(DOMAINS, tokio::time::Instant::now());
    let drained = ride_out(&dns, dns.clone(), DOMAINS, CONNECTIONS).await;
    // The pauses are 5, 10 and 20 minutes and their jitter: the last comes back by its own schedule.
    assert!(drained < OUTAGE + Duration::from_secs(1500), "{drained:?}");
    // At most one look-up a slot at a time, of two kinds; and each message asked twice a try, for its route and its hosts.
    assert!(dns.most.load(Ordering::SeqCst) <= 2 * CONNECTIONS, "{:?}", dns.most);
    let asked = dns.asked.load(Ordering::SeqCst);
    assert!((DOMAINS..=DOMAINS * 6).contains(&asked), "{asked} look-ups in the outage");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_after_an_outage_asks_dns_no_faster_than_it_may() {
    const DOMAINS: usize = 500;
    let start = tokio::time::Instant::now();
    // With a slot for each and no pace, the crowd is there.
    let storm = Outage::of(DOMAINS, start);
    ride_out(&storm, storm.clone(), DOMAINS, DOMAINS).await;
    let crowd = densest_second(&storm.begun());
    assert!(crowd > 200, "{crowd} look-ups in a second make no storm to tame");

    let mut pace = DnsPace::default();
    (pace.per_second, pace.burst, pace.at_a_time) = (50, 50, 20);
    let dns = Outage::of(DOMAINS, tokio::time::Instant::now());
    let paced = PacedResolver::new(dns.clone(), PausedClock::start(), pace);
    let drained = ride_out(&dns, Arc::new(paced), DOMAINS, DOMAINS).await;
    assert!(drained < OUTAGE + HOUR, "{drained:?}");
    assert!(dns.most.load(Ordering::SeqCst) <= 20, "{:?} at a time", dns.most);
    keeps_to(&dns.begun(), 50, 50);
}

/// The most look-ups that began within a second.
fn densest_second(begun: &[Duration]) -> usize {
    let mut seconds = BTreeMap::<u64, usize>::new();
    begun.iter().for_each(|at| *seconds.entry(at.as_secs()).or_default() += 1);
    seconds.into_values().max().unwrap_or(0)
}

/// Whether every span holds at most `burst` and what the rate allows; starts are whole milliseconds here.
fn keeps_to(begun: &[Duration], per_second: u32, burst: usize) {
    let mut begun = begun.to_vec();
    begun.sort();
    // The naive reading of the promise, over all spans between two look-ups.
    for (i, from) in begun.iter().enumerate() {
        for (j, to) in begun.iter().enumerate().skip(i) {
            let span = *to - *from + Duration::from_millis(1);
            let most = burst as f64 + span.as_secs_f64() * f64::from(per_second);
            let seen = j - i + 1;
            assert!(seen as f64 <= most, "{seen} look-ups from {from:?} to {to:?}");
        }
    }
}

/// Ten names, one of them broken.
fn ten() -> MemoryZone {
    let zone: String = (0..10).map(|i| format!("n{i}.test. A 192.0.2.{i}\n")).collect();
    MemoryZone::parse(&format!("{zone}broken.test. SERVFAIL\n")).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn look_ups_keep_to_their_rate_and_use_it() {
    let dns = Outage::of(1, tokio::time::Instant::now());
    let mut pace = DnsPace::default();
    (pace.per_second, pace.burst, pace.at_a_time) = (40, 8, 1000);
    pace.patience = Duration::from_secs(60);
    let paced = Arc::new(PacedResolver::new(dns.clone(), PausedClock::start(), pace));
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..400 {
        let paced = paced.clone();
        tasks.spawn(async move { paced.lookup(&name(&format!("x{i}.test")), RecordKind::A).await });
    }
    while tasks.join_next().await.is_some() {}
    let begun = dns.begun();
    assert_eq!(begun.len(), 400);
    keeps_to(&begun, 40, 8);
    // 8 at once and the others 25 ms apart.
    let last = begun.iter().max().unwrap().as_millis();
    assert!((9_800..=9_900).contains(&last), "{last} ms");
}

#[tokio::test(start_paused = true)]
async fn places_and_turns_come_back_from_those_who_go_away() {
    let dns = Outage::of(1, tokio::time::Instant::now());
    let mut pace = DnsPace::default();
    (pace.per_second, pace.burst, pace.at_a_time) = (1000, 1000, 3);
    let paced = PacedResolver::new(dns.clone(), PausedClock::start(), pace);
    for i in 0..20 {
        // Each of them would take five seconds.
        let (one, two) = (name(&format!("a{i}.test")), name(&format!("b{i}.test")));
        let (three, four) = (name(&format!("c{i}.test")), name(&format!("d{i}.test")));
        let four_at_once = async {
            tokio::join!(
                paced.lookup(&one, RecordKind::A),
                paced.lookup(&two, RecordKind::A),
                paced.lookup(&three, RecordKind::A),
                paced.lookup(&four, RecordKind::A)
            )
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), four_at_once).await.is_err());
    }
    assert_eq!(dns.begun().len(), 60, "the fourth of each four never began");
    // Nobody stands in the way of one who comes now.
    sleep(OUTAGE).await;
    let before = dns.start.elapsed();
    assert!(paced.lookup(&name("d0.test"), RecordKind::Mx).await.is_ok());
    assert_eq!(dns.start.elapsed() - before, Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_for_too_long_is_told_so_and_costs_nothing() {
    let start = tokio::time::Instant::now();
    let zone = Arc::new(ten());
    let mut pace = DnsPace::default();
    (pace.per_second, pace.burst) = (1, 1);
    pace.patience = Duration::from_millis(1500);
    let paced = PacedResolver::new(zone.clone(), PausedClock::start(), pace);
    let names: Vec<Name> = (0..6).map(|i| name(&format!("n{i}.test"))).collect();
    let mut answers = Vec::new();
    let (a, b, c, d) = tokio::join!(
        paced.lookup(&names[0], RecordKind::A),
        paced.lookup(&names[1], RecordKind::A),
        paced.lookup(&names[2], RecordKind::A),
        paced.lookup(&names[3], RecordKind::A)
    );
    answers.extend([a, b, c, d]);
    // At once, after a second; two seconds are too long.
    let timeout = Err(DnsError::Timeout);
    assert!(answers[0].is_ok() && answers[1].is_ok(), "{answers:?}");
    assert_eq!((&answers[2], &answers[3]), (&timeout, &timeout));
    assert_eq!((zone.lookups(), start.elapsed().as_secs()), (2, 1));
    // Those two took no turn: the next one is at two seconds.
    assert!(paced.lookup(&names[4], RecordKind::A).await.is_ok());
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_costs_nothing_and_ends_with_its_time() {
    let zone = Arc::new(ten());
    let mut pace = DnsPace::default();
    pace.remembered = 4;
    let paced = PacedResolver::new(zone.clone(), PausedClock::start(), pace);
    let ask = |text: &str| {
        let (paced, name) = (&paced, name(text));
        async move { paced.lookup(&name, RecordKind::A).await }
    };
    // The zone's TTL is 300 s. Absences are answers; failures are none.
    assert_eq!(ask("n1.test").await.unwrap().ttl, 300);
    assert_eq!(ask("none.test").await.unwrap().records().len(), 0);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(ask("n1.test").await.unwrap().ttl, 200);
    assert_eq!(ask("none.test").await.unwrap().ttl, 200);
    assert_eq!(zone.lookups(), 2);
    assert_eq!(
        (ask("broken.test").await, ask("broken.test").await),
        (Err(DnsError::ServFail), Err(DnsError::ServFail))
    );
    assert_eq!(zone.lookups(), 4);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(ask("n1.test").await.unwrap().ttl, 300);
    assert_eq!(zone.lookups(), 5);
    // No more than four are remembered: of ten names the first are asked for again.
    for i in 0..10 {
        ask(&format!("n{i}.test")).await.unwrap();
    }
    let before = zone.lookups();
    for i in [9, 8, 0, 1, 2] {
        ask(&format!("n{i}.test")).await.unwrap();
    }
    assert_eq!(zone.lookups(), before + 3);
}

//! Warm-up over 56 simulated days with orderly and disorderly restarts; spikes of bounces and complaints.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postwright_core::{Entropy, SeededEntropy, Timestamp};
use postwright_shaping::{
    Admission, Ask, Change, Day, MemoryTokenStore, Path, Policy, Schedule, Shaper, Signal, TokenStore,
    WarmUp, Zone,
};

const DAY: u64 = 86_400;

fn start() -> (Day, Timestamp, Zone) {
    let zone: Zone = "-05:00".parse().unwrap();
    let day: Day = "2026-03-01".parse().unwrap();
    (day, zone.start(day), zone)
}

fn path() -> Path {
    Path::to("example.org".parse().unwrap()).from_source("192.0.2.9")
}

fn plan(schedule: &str) -> WarmUp {
    let (day, _, zone) = start();
    WarmUp { zone, ..WarmUp::of("192.0.2.9", schedule.parse::<Schedule>().unwrap(), day) }
}

fn shaper(plan: &WarmUp, store: Arc<MemoryTokenStore>, saved: &str, now: Timestamp) -> Shaper {
    let shaper = Shaper::new(Policy::new(), store);
    shaper.set_warmups(vec![plan.clone()], now);
    shaper.restore_warmups(saved);
    shaper
}

/// A process that writes down its state now and then, ends in order or is killed, and starts again.
struct Node {
    plan: WarmUp,
    store: Arc<MemoryTokenStore>,
    shaper: Shaper,
    /// What a crash leaves behind: counts and progress.
    disk: (String, String),
}

impl Node {
    fn start(plan: &WarmUp, disk: (String, String), crashed: bool, now: Timestamp) -> Node {
        let store = Arc::new(MemoryTokenStore::restore(&disk.0, crashed, now));
        let shaper = shaper(plan, Arc::clone(&store), &disk.1, now);
        let mut node = Node { plan: plan.clone(), store, shaper, disk };
        node.checkpoint();
        node
    }

    fn checkpoint(&mut self) {
        let checkpoint = self.store.checkpoint(20);
        self.disk = (checkpoint.text.clone(), self.shaper.save_warmups());
        checkpoint.written();
    }

    fn stop(self, now: Timestamp) -> Node {
        let disk = (self.store.snapshot(), self.shaper.save_warmups());
        Node::start(&self.plan, disk, false, now)
    }

    fn crash(self, now: Timestamp) -> Node {
        Node::start(&self.plan, self.disk, true, now)
    }
}

#[test]
fn fifty_six_days_with_restarts_never_exceed_a_cap_and_lose_nothing() {
    // The published table, a hundredth of it so that the run takes seconds.
    let table = "5*7, 20*7, 100*7, 250*7, 750*7, 1500*7, 3000*7, 6000*7";
    let plan = plan(table);
    let (first, begin, zone) = start();
    let entropy = SeededEntropy::new(3);
    let mut node = Node::start(&plan, Default::default(), false, begin);
    let mut sent: BTreeMap<u32, u32> = BTreeMap::new();
    let (mut queued, mut arrived, mut restarts) = (0_u32, 0_u32, 0);
    // Every ten minutes new mail, sometimes a restart; mail that may not go yet stays queued.
    for tick in 0..56 * 144_u64 {
        let now = begin + Duration::from_secs(tick * 600);
        let day = zone.day(now).since(first);
        let cap = plan.schedule.days()[day as usize];
        let new = u32::try_from(entropy.below(u64::from(cap) / 60 + 2)).unwrap();
        (queued, arrived) = (queued + new, arrived + new);
        match entropy.below(40) {
            0 => (node, restarts) = (node.stop(now), restarts + 1),
            1 => (node, restarts) = (node.crash(now), restarts + 1),
            2..10 => node.checkpoint(),
            _ => {}
        }
        while queued > 0 {
            match node.shaper.admit(&path(), Ask::message(1000), now) {
                Admission::Granted(permit) => {
                    drop(permit);
                    node.shaper.observe(&path(), Signal::Delivered, "", now);
                    queued -= 1;
                    *sent.entry(day).or_default() += 1;
                }
                // The ceiling of the last checkpoint, or the cap of the day.
                Admission::Later(later) if later.until.since(now) <= Duration::from_secs(1) => {
                    node.checkpoint()
                }
                Admission::Later(_) => break,
            }
        }
    }
    for (day, count) in &sent {
        let cap = plan.schedule.days()[*day as usize];
        assert!(*count <= cap, "day {day}: {count} of {cap}");
    }
    assert!(restarts > 200, "{restarts}");
    let total: u32 = sent.values().sum();
    eprintln!("{restarts} restarts, {total} of {arrived} sent, {queued} queued on the last evening");
    assert_eq!(total + queued, arrived, "nothing is lost");
    // On a day with a full queue the cap is used but for what crashes cost.
    assert!(sent[&55] >= 6000 * 9 / 10, "{}", sent[&55]);
    // A day on which a crash hid that mail was sent is taken again, so the schedule may end some days late; then
    // whatever waits leaves.
    for day in 56..80 {
        let now = begin + Duration::from_secs(day * DAY + 3600);
        node.checkpoint();
        while queued > 0 {
            match node.shaper.admit(&path(), Ask::message(1000), now) {
                Admission::Granted(_) => {
                    node.shaper.observe(&path(), Signal::Delivered, "", now);
                    queued -= 1;
                }
                Admission::Later(later) if later.until.since(now) <= Duration::from_secs(1) => {
                    node.checkpoint()
                }
                Admission::Later(_) => break,
            }
        }
    }
    assert_eq!(queued, 0, "everything was sent in the end");
}

#[test]
fn a_spike_of_bounces_pauses_to_midnight_and_goes_on_at_half() {
    let plan = plan("1000, 2000, 4000, 8000");
    let (_, begin, _) = start();
    let shaper = shaper(&plan, Arc::new(MemoryTokenStore::new()), "", begin);
    let hour = |hours: u64| begin + Duration::from_secs(hours * 3600);
    let send = |count: u32, now: Timestamp| {
        (0..count).filter(|_| shaper.admit(&path(), Ask::message(1), now).granted().is_some()).count()
    };
    assert_eq!(send(3000, hour(1)), 1000);
    shaper.observe(&path(), Signal::Delivered, "", hour(1));
    assert_eq!(send(3000, hour(25)), 2000);
    shaper.observe(&path(), Signal::Delivered, "", hour(25));
    assert_eq!(send(300, hour(49)), 300);
    for _ in 0..300 {
        shaper.observe(&path(), Signal::Delivered, "", hour(49));
    }
    // 2 % of 306 is 6.12.
    for _ in 0..6 {
        shaper.observe(&path(), Signal::Bounced, "550 5.1.1 no such user", hour(50));
        assert_eq!(send(1, hour(50)), 1);
    }
    shaper.observe(&path(), Signal::Bounced, "550 5.1.1 no such user", hour(50));
    let later = shaper.admit(&path(), Ask::message(1), hour(50)).later().unwrap();
    assert_eq!(later.until, hour(72), "midnight");
    let event = shaper.events().pop().unwrap();
    assert!(matches!(&event.change, Change::WarmUpPaused { plan } if &**plan == "192.0.2.9"));
    assert_eq!(event.cause, "7 of 307 bounced");
    assert_eq!(send(9000, hour(73)), 2000, "half of 4000");
    shaper.observe(&path(), Signal::Delivered, "", hour(73));
    assert_eq!(send(9000, hour(97)), 4000);
}

#[test]
fn complaints_pause_and_an_operator_can_undo_it() {
    let plan = plan("5000, 8000");
    let (_, begin, _) = start();
    let shaper = shaper(&plan, Arc::new(MemoryTokenStore::new()), "", begin);
    for _ in 0..1000 {
        assert!(shaper.admit(&path(), Ask::message(1), begin).granted().is_some());
        shaper.observe(&path(), Signal::Delivered, "", begin);
    }
    shaper.observe(&path(), Signal::Complained, "", begin);
    assert!(
        shaper.admit(&path(), Ask::message(1), begin).granted().is_some(),
        "1 of 1000 is not above 0.1 %"
    );
    shaper.observe(&path(), Signal::Complained, "", begin);
    assert!(shaper.admit(&path(), Ask::message(1), begin).later().is_some());
    let event = shaper.events().pop().unwrap();
    assert!(shaper.undo(event.id, begin));
    assert!(shaper.admit(&path(), Ask::message(1), begin).granted().is_some());
}

#[test]
fn a_plan_for_one_provider_leaves_the_others_alone() {
    let plan = WarmUp { provider: Some("gmail".into()), ..plan("3") };
    let (_, begin, _) = start();
    let shaper = shaper(&plan, Arc::new(MemoryTokenStore::new()), "", begin);
    let gmail = path().at_provider("gmail");
    let sent = |path: &Path| {
        (0..10).filter(|_| shaper.admit(path, Ask::message(1), begin).granted().is_some()).count()
    };
    assert_eq!(sent(&gmail), 3);
    assert_eq!(sent(&path()), 10);
}

#[test]
fn without_a_written_checkpoint_nothing_goes_beyond_the_last_one() {
    let plan = plan("1000");
    let (_, begin, _) = start();
    let store = Arc::new(MemoryTokenStore::new());
    let shaper = shaper(&plan, Arc::clone(&store), "", begin);
    store.checkpoint(10).written();
    let send =
        |now| (0..50).filter(|_| shaper.admit(&path(), Ask::message(1), now).granted().is_some()).count();
    // The cell is younger than the checkpoint: nothing is set aside for it yet.
    assert_eq!(send(begin), 0);
    let unwritten = store.checkpoint(10);
    assert_eq!(send(begin), 0);
    unwritten.written();
    assert_eq!(send(begin), 10);
    store.sweep(begin);
    assert_eq!(send(begin), 0);
}

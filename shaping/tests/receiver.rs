//! Simulated receivers in virtual time: how much they refuse, how fast we send, how soon we follow a change.
//!
//! The yardstick is Postfix: its SCHEDULER_README publishes 16.5 % deferred deliveries for a receiver that takes
//! 5 connections from a sender that may open 20, with a feedback of 1/N.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use postwright_core::{Entropy, SeededEntropy, Timestamp};
use postwright_shaping::{
    Admission, Ask, Because, Bound, Change, Dimension, Kind, Layer, MemoryTokenStore, Path, Permit, Policy,
    Shaper, Signal,
};

const START: u64 = 1_767_225_600_000;
const HOUR: u64 = 3_600_000;

/// What the receiver allows from a moment on.
#[derive(Clone, Copy)]
struct Allows {
    from: u64,
    connections: u32,
    a_minute: u32,
    /// One of this many hosts refuses every connection; 0 is none.
    bad_one_of: u64,
    up: bool,
}

const FINE: Allows = Allows { from: 0, connections: 5, a_minute: u32::MAX, bad_one_of: 0, up: true };

enum Next {
    Try,
    Arrive(Permit),
    Finish(Permit),
}

/// One message a connection, as in Postfix's measurement; the queue is never empty.
struct Simulation {
    shaper: Shaper,
    path: Path,
    allows: Vec<Allows>,
    entropy: SeededEntropy,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    what: Vec<Option<Next>>,
    open: u32,
    minute: (u64, u32),
    delivered: Vec<u64>,
    refused: Vec<u64>,
    attempts: Vec<u64>,
    open_over_time: u64,
    timer: u64,
}

impl Simulation {
    fn new(most: u32, allows: &[Allows]) -> Simulation {
        let layer = Layer::defaults().set(Kind::Concurrency, &[Bound::AtMost(most)]).unwrap();
        Simulation {
            shaper: Shaper::new(Policy::new().with(layer), Arc::new(MemoryTokenStore::new())),
            path: Path::to("example.org".parse().unwrap()).from_source("192.0.2.1"),
            allows: allows.to_vec(),
            entropy: SeededEntropy::new(11),
            events: BinaryHeap::new(),
            what: Vec::new(),
            open: 0,
            minute: (0, 0),
            delivered: Vec::new(),
            refused: Vec::new(),
            attempts: Vec::new(),
            open_over_time: 0,
            timer: 0,
        }
    }

    fn at(&mut self, time: u64, next: Next) {
        self.events.push(Reverse((time, self.what.len() as u64)));
        self.what.push(Some(next));
    }

    fn run(mut self, until: u64) -> Simulation {
        self.at(0, Next::Try);
        while let Some(Reverse((time, id))) = self.events.pop() {
            if time >= until {
                break;
            }
            let next = self.what[usize::try_from(id).unwrap()].take().unwrap();
            self.step(time, next);
        }
        self
    }

    fn observe(&self, signal: Signal, text: &str, time: u64) {
        self.shaper.observe(&self.path, signal, text, Timestamp::from_millis(START + time));
    }

    fn step(&mut self, time: u64, next: Next) {
        let now = Timestamp::from_millis(START + time);
        let allows = *self.allows.iter().rev().find(|allows| allows.from <= time).unwrap();
        match next {
            Next::Try => match self.shaper.admit(&self.path, Ask::first_message(10_000), now) {
                Admission::Granted(permit) => {
                    self.attempts.push(time);
                    self.at(time + 40, Next::Arrive(permit));
                    self.at(time, Next::Try);
                }
                Admission::Later(later) => {
                    // One of the timers is enough.
                    if self.timer <= time {
                        self.timer = later.until.millis() - START;
                        self.at(self.timer, Next::Try);
                    }
                }
            },
            Next::Arrive(permit) => {
                if !allows.up {
                    self.refused.push(time);
                    self.observe(Signal::Unreachable, "", time);
                } else if self.open >= allows.connections
                    || (allows.bad_one_of > 0 && self.entropy.below(allows.bad_one_of) == 0)
                {
                    self.refused.push(time);
                    self.observe(Signal::ConnectionThrottled, "421 too many connections", time);
                } else {
                    self.open += 1;
                    self.observe(Signal::Connected, "", time);
                    let service = 500 + self.entropy.below(1000);
                    self.open_over_time += service;
                    self.at(time + service, Next::Finish(permit));
                }
            }
            Next::Finish(permit) => {
                self.open -= 1;
                if self.minute.0 != time / 60_000 {
                    self.minute = (time / 60_000, 0);
                }
                if self.minute.1 < allows.a_minute {
                    self.minute.1 += 1;
                    self.delivered.push(time);
                    self.observe(Signal::Delivered, "", time);
                } else {
                    self.refused.push(time);
                    self.observe(Signal::Throttled, "421 slow down", time);
                }
                permit.release();
                // Whoever ends a connection knows that there is room for another one.
                self.at(time, Next::Try);
            }
        }
    }

    fn defer_rate(&self) -> f64 {
        self.refused.len() as f64 / (self.refused.len() + self.delivered.len()) as f64
    }

    fn between(times: &[u64], from: u64, to: u64) -> usize {
        times.iter().filter(|time| (from..to).contains(*time)).count()
    }
}

/// Postfix's rule, written down from its description: feedback of 1/N for each delivery and each refusal is summed
/// up, and the window moves by whole connections: up when the sum of successes reaches 1, down at the first
/// refusal after that.
fn postfix(receiver: usize, most: usize, until: u64) -> (f64, usize) {
    let entropy = SeededEntropy::new(11);
    let mut ends: BinaryHeap<Reverse<(u64, bool)>> = BinaryHeap::new();
    let (mut window, mut success, mut good, mut bad) = (5_usize, 0.0, 0_usize, 0_usize);
    let mut accepted = 0;
    for time in 0..until {
        while let Some(Reverse((_, fine))) = ends.peek().filter(|end| end.0.0 <= time).copied() {
            ends.pop();
            if fine {
                (accepted, good) = (accepted - 1, good + 1);
                success += 1.0 / window as f64;
                if success > 0.999 && window < most {
                    (window, success) = (window + 1, 0.0);
                }
            } else {
                bad += 1;
                (window, success) = ((window - 1).max(1), 0.0);
            }
        }
        while ends.len() < window {
            let fine = accepted < receiver;
            accepted += usize::from(fine);
            ends.push(Reverse((time + 40 + if fine { 500 + entropy.below(1000) } else { 0 }, fine)));
        }
    }
    (bad as f64 / (bad + good) as f64, good)
}

#[test]
fn five_connections_allowed_of_twenty_are_found_with_few_refusals() {
    let run = Simulation::new(20, &[FINE]).run(HOUR);
    let (postfix_rate, postfix_good) = postfix(5, 20, HOUR);
    let ideal = 5 * HOUR as usize / 1000;
    eprintln!(
        "deferred {:.3} % (Postfix published 16.5 %, modelled here {:.1} %); delivered {} of {ideal} (Postfix {postfix_good})",
        100.0 * run.defer_rate(),
        100.0 * postfix_rate,
        run.delivered.len(),
    );
    assert!(run.defer_rate() < 0.165 / 3.0);
    assert!(run.defer_rate() < postfix_rate / 3.0);
    // Both fill the receiver: what differs is the random lengths of the deliveries.
    assert!(run.delivered.len() * 1000 >= postfix_good * 995);
    assert!(run.delivered.len() * 100 >= ideal * 90);
}

#[test]
fn a_limit_a_minute_is_found_and_followed() {
    for a_minute in [20, 100, 200] {
        let run = Simulation::new(20, &[Allows { a_minute, ..FINE }]).run(3 * HOUR);
        let allowed = a_minute as usize * 180;
        eprintln!(
            "{a_minute} a minute: deferred {:.2} %, used {:.1} %",
            100.0 * run.defer_rate(),
            100.0 * run.delivered.len() as f64 / allowed as f64
        );
        assert!(run.defer_rate() < 0.165 / 3.0, "{a_minute}");
        assert!(
            run.delivered.len() * 100 >= allowed * 85,
            "{a_minute}: {} of {allowed}",
            run.delivered.len()
        );
    }
}

#[test]
fn after_a_step_the_new_rate_is_found() {
    for (before, after) in [(100, 50), (200, 20), (50, 100), (20, 200)] {
        let steps = [Allows { a_minute: before, ..FINE }, Allows { a_minute: after, from: 2 * HOUR, ..FINE }];
        let run = Simulation::new(20, &steps).run(6 * HOUR);
        let reached = (0..240).find(|minute| {
            // Five minutes within a tenth of what is allowed now (a quarter below, upwards).
            let from = 2 * HOUR + minute * 60_000;
            let sent = Simulation::between(&run.delivered, from, from + 300_000);
            sent * 100 >= after as usize * 5 * 80
        });
        let refused = Simulation::between(&run.refused, 2 * HOUR, 3 * HOUR);
        eprintln!(
            "{before} -> {after} a minute: 80 % used after {reached:?} min, {refused} refused in the hour after"
        );
        assert!(reached.is_some(), "{before} -> {after}");
        let last = Simulation::between(&run.delivered, 5 * HOUR, 6 * HOUR);
        assert!(last * 100 >= after as usize * 60 * 80, "{before} -> {after}: {last} in the last hour");
        let refused_late = Simulation::between(&run.refused, 5 * HOUR, 6 * HOUR);
        assert!(refused_late * 1000 <= (last + refused_late) * 55, "{before} -> {after}");
    }
}

#[test]
fn after_a_step_the_new_number_of_connections_is_found() {
    for (before, after) in [(20, 5), (5, 20), (10, 2), (2, 10)] {
        let steps =
            [Allows { connections: before, ..FINE }, Allows { connections: after, from: HOUR / 2, ..FINE }];
        let run = Simulation::new(30, &steps).run(2 * HOUR);
        let reached = (0..89).find(|minute| {
            let from = HOUR / 2 + minute * 60_000;
            Simulation::between(&run.delivered, from, from + 60_000) * 100 >= after as usize * 60 * 85
        });
        let refused = Simulation::between(&run.refused, HOUR / 2, 3 * HOUR / 2);
        eprintln!(
            "{before} -> {after} connections: 85 % used after {reached:?} min, {refused} refused in the hour after"
        );
        assert!(reached.is_some_and(|minute| minute <= 45), "{before} -> {after}: {reached:?}");
        assert!(refused < 60, "{before} -> {after}: {refused}");
    }
}

#[test]
fn one_bad_host_of_four_does_not_collapse_the_connections() {
    let run = Simulation::new(20, &[Allows { connections: 1000, bad_one_of: 4, ..FINE }]).run(HOUR);
    let average = run.open_over_time as f64 / HOUR as f64;
    eprintln!("average connections with 1 of 4 hosts bad: {average:.1} of 20");
    assert!(average >= 15.0, "{average}");
}

#[test]
fn a_dead_destination_gets_few_probes_and_is_back_within_an_interval() {
    let dead_for = 6 * HOUR;
    let steps = [
        Allows { connections: 20, ..FINE },
        Allows { up: false, from: HOUR, ..FINE },
        Allows { connections: 20, from: HOUR + dead_for, ..FINE },
    ];
    let run = Simulation::new(20, &steps).run(9 * HOUR);
    // In flight when it died, then 1, 2, 4, 8, 16 minutes and every half hour.
    let probes = Simulation::between(&run.attempts, HOUR + 60_000, HOUR + dead_for);
    assert!((8..=18).contains(&probes), "{probes} probes");
    let back = run.delivered.iter().find(|time| **time > HOUR + dead_for).unwrap();
    assert!(back - (HOUR + dead_for) <= HOUR / 2 + 60_000, "first delivery {back}");
    let full = Simulation::between(&run.delivered, back + 60_000, back + 120_000);
    assert!(full >= 900, "{full} in the second minute after the first");
    let changes: Vec<Change> = run.shaper.events().into_iter().map(|event| event.change).collect();
    assert!(changes.iter().any(|change| matches!(change, Change::BackOff { .. })));
    assert!(changes.contains(&Change::Recovered));
}

fn quiet_shaper() -> (Shaper, Path) {
    let shaper = Shaper::new(Policy::new(), Arc::new(MemoryTokenStore::new()));
    let path = Path::to("example.org".parse().unwrap()).from_source("192.0.2.1").for_tenant("acme");
    (shaper, path)
}

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

#[test]
fn back_off_is_entered_by_pattern_and_left_by_success() {
    let (shaper, path) = quiet_shaper();
    for n in 0..3 {
        assert!(shaper.admit(&path, Ask::message(1), ms(n)).granted().is_some());
        shaper.observe(&path, Signal::Blocked, "554 5.7.1 listed at bl.example", ms(n));
    }
    let later = shaper.admit(&path, Ask::first_message(1), ms(10)).later().unwrap();
    assert!(matches!(later.because, Because::BackOff));
    let event = shaper.events().pop().unwrap();
    assert_eq!(event.cause, "rule blocked: blocked 554 5.7.1 listed at bl.example");
    // The probe connects and sends one message, no more; greylisting is no success.
    let probe = shaper.admit(&path, Ask::CONNECTION, later.until).granted().unwrap();
    shaper.observe(&path, Signal::Connected, "", later.until);
    assert!(shaper.admit(&path, Ask::message(1), later.until).granted().is_some());
    assert!(shaper.admit(&path, Ask::message(1), later.until).later().is_some());
    shaper.observe(&path, Signal::Greylisted, "451 greylisted", later.until);
    assert!(shaper.admit(&path, Ask::first_message(1), later.until).later().is_some());
    drop(probe);
    shaper.observe(&path, Signal::Delivered, "", later.until);
    assert!(shaper.admit(&path, Ask::first_message(1), later.until).granted().is_some());
}

#[test]
fn every_action_is_an_event_and_can_be_undone() {
    let (shaper, path) = quiet_shaper();
    let other = Path { tenant: Some("other".into()), ..path.clone() };
    let event = shaper.suspend(&[(Dimension::Tenant, "acme")], ms(HOUR), "unpaid", ms(0));
    let later = shaper.admit(&path, Ask::message(1), ms(1)).later().unwrap();
    assert_eq!((later.until, later.because.to_string()), (ms(HOUR), String::from("suspended: unpaid")));
    assert!(shaper.admit(&other, Ask::message(1), ms(1)).granted().is_some());
    assert_eq!(shaper.suspensions(ms(1)).len(), 1);
    assert!(shaper.undo(event, ms(2)));
    assert!(!shaper.undo(event, ms(3)), "once is enough");
    assert!(shaper.admit(&path, Ask::message(1), ms(2)).granted().is_some());

    shaper.suspend(&[(Dimension::Source, "192.0.2.1")], ms(1000), "a while", ms(3));
    assert!(shaper.admit(&other, Ask::message(1), ms(999)).later().is_some());
    assert!(shaper.admit(&other, Ask::message(1), ms(1000)).granted().is_some(), "it ends by itself");

    shaper.observe(&path, Signal::Throttled, "421 slow down", ms(2000));
    let throttled = shaper.events().pop().unwrap();
    assert!(matches!(throttled.change, Change::Pace { .. }));
    assert_eq!(throttled.cause, "throttled: 421 slow down");
    assert!(shaper.admit(&path, Ask::message(1), ms(2001)).later().is_some());
    assert!(shaper.undo(throttled.id, ms(2002)));
    assert!(shaper.admit(&path, Ask::message(1), ms(2002)).granted().is_some());
}

#[test]
fn a_providers_code_suspends_the_provider_for_this_source_only() {
    let (shaper, path) = quiet_shaper();
    let yahoo = path.clone().at_provider("yahoo");
    for n in 0..3 {
        shaper.observe(&yahoo, Signal::Deferred, "421 4.7.0 [TSS04] Messages temporarily deferred", ms(n));
    }
    let aol = Path { domain: "aol.com".parse().unwrap(), ..yahoo.clone() };
    assert!(matches!(
        shaper.admit(&aol, Ask::message(1), ms(5)).later().unwrap().because,
        Because::Suspended(suspension) if suspension.when.len() == 2
    ));
    assert!(shaper.admit(&path, Ask::message(1), ms(5)).granted().is_some());
    assert!(
        shaper.admit(&yahoo.clone().from_source("192.0.2.2"), Ask::message(1), ms(5)).granted().is_some()
    );
    assert!(shaper.admit(&yahoo, Ask::message(1), ms(2 * HOUR + 5)).granted().is_some());
}

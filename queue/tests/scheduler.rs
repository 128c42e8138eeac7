//! The scheduler from outside: retries, lifetimes, warnings, partial results, settling, restarts, clocks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use postwright_core::SeededEntropy;
use postwright_queue::scheduler::{
    AttemptResult, Reason, ReportEvent, Scheduler, SchedulerConfig, Scope, Site, Task,
};
use postwright_queue::{Claim, Fate, SpoolError};
use support::{DAY, HOUR, MINUTE, START, World, exact_config, reply};

#[test]
fn a_delivered_message_leaves_nothing_behind() {
    let mut world = World::exact();
    let id = world.accept(&["a@one.example"]);
    let attempt = world.only_attempt();
    assert_eq!((attempt.id, &attempt.recipients[..], attempt.task), (id, &[0][..], Task::Deliver));
    assert_eq!(attempt.deadline, START + 5 * DAY);
    world.finish_with(attempt, 250);
    assert_eq!(world.events(id), [(0, ReportEvent::Delivered)]);
    assert!(world.stored.is_empty());
    world.assert_idle();
}

#[test]
fn retries_follow_the_schedule_until_the_lifetime_ends() {
    let mut world = World::exact();
    world.config.policies.default.warn_after = None;
    world.scheduler = Scheduler::new(world.config.clone(), Arc::new(SeededEntropy::new(1)));
    let id = world.accept(&["a@one.example"]);
    let mut waits = Vec::new();
    loop {
        let attempt = world.only_attempt();
        let started = world.now;
        if attempt.task == Task::Expire {
            world.finish(attempt, Vec::new());
            break;
        }
        world.finish_with(attempt, 452);
        world.now = world.waits_until().unwrap();
        waits.push(world.now.since(started));
    }
    assert_eq!(waits[..6], [5, 10, 20, 40, 80, 120].map(|minutes| minutes * MINUTE));
    assert!(waits[6..waits.len() - 1].iter().all(|wait| *wait == 2 * HOUR));
    assert_eq!(world.now, START + 5 * DAY, "to the second");
    assert_eq!(world.events(id), [(0, ReportEvent::Expired)]);
    world.assert_idle();
}

/// FAULTS R13: what is queued for five days goes by the three hours that an operator configures before a start.
#[test]
fn a_lifetime_that_is_lowered_between_two_starts_ends_what_is_queued() {
    let mut world = World::exact();
    world.config.policies.default.warn_after = None;
    world.scheduler = Scheduler::new(world.config.clone(), Arc::new(SeededEntropy::new(1)));
    let id = world.accept(&["a@one.example"]);
    let attempt = world.only_attempt();
    world.finish_with(attempt, 452);
    world.config.policies.default.lifetime = 3 * HOUR;
    world.now = START + HOUR;
    world.restart();
    let mut tries = 0;
    loop {
        let attempt = world.only_attempt();
        if attempt.task == Task::Expire {
            world.finish(attempt, Vec::new());
            break;
        }
        tries += 1;
        assert!(tries < 10);
        world.finish_with(attempt, 452);
        world.now = world.waits_until().unwrap();
    }
    assert_eq!(world.now, START + 4 * HOUR);
    assert_eq!(world.events(id), [(0, ReportEvent::Expired)]);
    world.assert_idle();
}

#[test]
fn a_refusal_bounces_and_is_not_tried_again() {
    let mut world = World::exact();
    let id = world.accept(&["a@one.example"]);
    let attempt = world.only_attempt();
    world.finish_with(attempt, 550);
    assert_eq!(world.events(id), [(0, ReportEvent::Failed)]);
    world.restart();
    assert!(world.attempts().is_empty());
    world.assert_idle();
}

#[test]
fn each_recipient_has_a_fate_of_its_own() {
    let mut world = World::exact();
    let id = world.accept(&["a@one.example", "b@one.example", "c@one.example", "d@two.example"]);
    let attempts = world.attempts();
    assert_eq!(attempts.len(), 2, "one for each destination");
    for attempt in attempts {
        let statuses = match attempt.recipients[..] {
            [0, 1, 2] => vec![reply(250), reply(452), reply(550)],
            [3] => vec![reply(250)],
            _ => panic!("{attempt:?}"),
        };
        world.finish(attempt, statuses);
    }
    let fates: Vec<Fate> = world.stored[&id].progress.iter().map(|progress| progress.fate).collect();
    assert_eq!(fates, [Fate::Delivered, Fate::Pending, Fate::Bounced, Fate::Delivered]);
    // Before and after a crash: only the one that is pending.
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        world.now = world.now + HOUR;
        let attempt = world.only_attempt();
        assert_eq!(attempt.recipients, [1]);
        world.finish_with(attempt, if restart { 250 } else { 452 });
    }
    world.assert_idle();
}

#[test]
fn only_one_settlement_of_a_message_is_under_way() {
    let mut world = World::exact();
    let id = world.accept(&["a@one.example", "b@two.example"]);
    let mut attempts = world.attempts();
    let (second, first) = (attempts.pop().unwrap(), attempts.pop().unwrap());
    let stale = Box::new(world.stored[&id].clone());
    let record = |world: &mut World, attempt, entry: Box<_>| {
        let result = AttemptResult::Finished { entry, statuses: vec![reply(250)] };
        world.scheduler.record(attempt, result, world.now)
    };
    let one = record(&mut world, first, stale.clone());
    assert_eq!(one.len(), 1);
    // The second was loaded before the first was recorded; its entry is stale and must not undo the first.
    assert!(record(&mut world, second, stale).is_empty(), "the first commit is still under way");
    world.perform(one);
    assert!(world.stored.is_empty(), "the second commit removed the message");
    assert_eq!(world.events(id).len(), 2);
    world.assert_idle();
}

#[test]
fn a_failed_commit_is_tried_again_and_nothing_is_attempted_meanwhile() {
    let mut world = World::exact();
    let id = world.accept(&["a@one.example"]);
    let attempt = world.only_attempt();
    world.fail_commits = true;
    world.finish_with(attempt, 250);
    for _ in 0..5 {
        assert!(world.attempts().is_empty(), "delivered is delivered");
        assert_eq!(world.scheduler.why(id, world.now)[0].reason, Reason::Settling);
        world.now = world.waits_until().unwrap();
    }
    world.fail_commits = false;
    assert!(world.attempts().is_empty());
    assert_eq!(world.events(id), [(0, ReportEvent::Delivered)], "reported once");
    world.assert_idle();
}

#[test]
fn a_message_that_another_node_has_is_forgotten() {
    let mut world = World::exact();
    world.accept(&["a@one.example", "b@two.example"]);
    let mut attempts = world.attempts();
    let (second, first) = (attempts.pop().unwrap(), attempts.pop().unwrap());
    let entry = Box::new(world.stored[&first.id].clone());
    let id = first.id;
    let finished = AttemptResult::Finished { entry, statuses: vec![reply(250)] };
    assert_eq!(world.scheduler.record(first, finished, world.now).len(), 1);
    assert!(world.scheduler.settled(id, Err(SpoolError::Fenced(id)), world.now).is_empty());
    assert!(world.scheduler.record(second, AttemptResult::Lost, world.now).is_empty());
    world.assert_idle();
}

#[test]
fn the_sender_is_warned_once() {
    let mut world = World::exact();
    let id = world.accept(&["a@one.example"]);
    let mut warned_at = Vec::new();
    while world.now < START + 2 * DAY {
        for attempt in world.attempts() {
            match attempt.task {
                Task::Deliver => world.finish_with(attempt, 452),
                _ => world.finish(attempt, Vec::new()),
            }
        }
        if world.events(id).len() > warned_at.len() {
            warned_at.push(world.now);
        }
        if world.now > START + DAY {
            world.restart();
        }
        world.now = world.waits_until().unwrap();
    }
    assert_eq!(warned_at, [START + 4 * HOUR]);
    assert_eq!(world.events(id), [(0, ReportEvent::Delayed)]);
}

#[test]
fn lifetimes_end_wherever_a_message_sits() {
    let mut world = World::exact();
    world.config.policies.default.lifetime = HOUR;
    world.config.policies.default.warn_after = None;
    world.config.max_in_flight_per_site = 1;
    world.scheduler = Scheduler::new(world.config.clone(), Arc::new(SeededEntropy::new(1)));
    // In flight, waiting for a full site, in a paused site, scheduled for later.
    let flying = world.accept(&["a@one.example"]);
    let ready = world.accept(&["b@one.example"]);
    let paused = world.accept(&["c@two.example"]);
    let later = world.accept(&["d@three.example"]);
    let mut attempts = world.attempts();
    attempts.sort_by_key(|attempt| attempt.id);
    let [first, second, third] = <[_; 3]>::try_from(attempts).unwrap();
    let mut in_flight = None;
    for attempt in [first, second, third] {
        if attempt.id == flying || attempt.id == ready {
            in_flight = Some(attempt);
        } else if attempt.id == paused {
            world.postpone(attempt, START + DAY, Scope::Site);
        } else {
            world.finish_with(attempt, 452);
        }
    }
    let flying_id = in_flight.as_ref().unwrap().id;
    world.now = START + HOUR;
    let expiring = world.attempts();
    assert_eq!(expiring.len(), 3);
    for attempt in expiring {
        assert_eq!(attempt.task, Task::Expire);
        world.finish(attempt, Vec::new());
    }
    // What is in flight ends with its attempt, which has the deadline.
    let last = in_flight.unwrap();
    assert_eq!(last.deadline, START + HOUR);
    world.finish_with(last, 452);
    for id in [flying, ready, paused, later] {
        assert_eq!(world.events(id), [(0, ReportEvent::Expired)], "{}", id == flying_id);
    }
    assert!(world.stored.is_empty());
}

#[test]
fn a_postponement_costs_no_try() {
    let mut world = World::exact();
    let id = world.accept(&["a@one.example"]);
    world.accept(&["b@one.example"]);
    for minute in 1..=10 {
        let mut attempts = world.attempts();
        assert_eq!(attempts.len(), 2);
        let until = START + minute * MINUTE;
        world.postpone(attempts.pop().unwrap(), until, Scope::Site);
        world.postpone(attempts.pop().unwrap(), until, Scope::Site);
        assert!(world.attempts().is_empty(), "the whole site waits");
        let why = &world.scheduler.why(id, world.now)[0];
        assert_eq!((why.reason.clone(), why.until), (Reason::SitePostponed("limit".into()), Some(until)));
        assert_eq!(world.waits_until(), Some(until));
        world.now = until;
    }
    for attempt in world.attempts() {
        world.finish_with(attempt, 452);
    }
    assert_eq!(world.stored[&id].progress[0].attempts, 1);
    assert_eq!(world.waits_until(), Some(world.now + 5 * MINUTE), "the first step of the schedule");
}

#[test]
fn a_slot_is_needed_and_comes_back() {
    let mut config = exact_config();
    config.max_messages = 2;
    let mut world = World::new(config);
    let slot = world.scheduler.reserve().unwrap();
    world.accept(&["a@one.example"]);
    let full = world.scheduler.reserve().unwrap_err();
    assert_eq!(full.to_string(), "the queue is full: it holds 2 messages");
    drop(slot);
    world.accept(&["b@one.example"]);
    assert!(world.scheduler.reserve().is_err());
    // A notification finds room in a queue that is full (FAULTS J6), and is delivered like anything else.
    let mut notice = world.entry(&["sender@two.example"]);
    notice.envelope.reverse_path = postwright_core::ReversePath::Null;
    let slot = world.scheduler.reserve_notice();
    world.scheduler.admit(slot, Claim { id: notice.id, epoch: 0 }, &notice, world.now);
    world.stored.insert(notice.id, notice);
    for attempt in world.attempts() {
        world.finish_with(attempt, 250);
    }
    assert!(world.scheduler.reserve().is_ok());
    world.assert_idle();
}

#[test]
fn a_clock_that_jumps_between_two_starts_expires_nothing_and_storms_nothing() {
    for jump in [HOUR, 366 * DAY] {
        for forward in [true, false] {
            let mut world = World::exact();
            for number in 0..50 {
                let id = world.accept(&[&format!("a@host{number}.example")]);
                let attempt = world.only_attempt();
                assert_eq!(attempt.id, id);
                world.finish_with(attempt, 452);
                world.now = world.now + Duration::from_secs(1);
            }
            world.now = if forward { world.now + jump } else { world.now - jump };
            let started = world.now;
            world.restart();
            let mut tried = 0;
            while let Some(until) = {
                world.next_attempts(&mut tried);
                world.waits_until()
            } {
                if until > started + 2 * HOUR {
                    break;
                }
                world.now = until;
            }
            assert!(tried >= 50, "all are tried within the longest retry: {tried} (forward {forward})");
            assert!(tried <= 50 * 6, "no storm: {tried}");
            assert!(
                world.reports.iter().all(|(_, report)| report.event != ReportEvent::Expired),
                "{forward}"
            );
        }
    }
}

#[test]
fn a_message_held_by_its_sender_waits_over_a_restart() {
    let mut world = World::exact();
    let mut entry = world.entry(&["a@one.example"]);
    let until = START + 20 * DAY;
    entry.envelope.options.hold_until = Some(until);
    let mut held = postwright_queue::Entry::new(entry.id, entry.envelope, 1, 5 * DAY, START);
    held.tenant = "acme".into();
    let id = world.accept_entry(held);
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        assert!(world.attempts().is_empty());
        assert_eq!(world.scheduler.why(id, world.now)[0].reason, Reason::NotYet);
        assert_eq!(world.scheduler.why(id, world.now)[0].until, Some(until));
    }
    // The warning counts from acceptance; it changes nothing about the hold.
    world.now = until;
    let tasks: Vec<Task> = world
        .attempts()
        .into_iter()
        .map(|attempt| {
            let task = attempt.task;
            match task {
                Task::Deliver => world.finish_with(attempt, 250),
                _ => world.finish(attempt, Vec::new()),
            }
            task
        })
        .collect();
    assert!(tasks.iter().all(|task| matches!(task, Task::Warn | Task::Deliver)), "{tasks:?}");
    if world.stored.contains_key(&id) {
        let attempt = world.only_attempt();
        world.finish_with(attempt, 250);
    }
    world.assert_idle();
}

#[test]
fn answers_to_old_questions_are_ignored() {
    let mut scheduler = Scheduler::new(SchedulerConfig::default(), Arc::new(SeededEntropy::new(1)));
    let mut world = World::exact();
    let entry = world.entry(&["a@one.example"]);
    let slot = scheduler.reserve().unwrap();
    scheduler.admit(slot, Claim { id: entry.id, epoch: 0 }, &entry, START);
    let postwright_queue::scheduler::Next::Route(query) = scheduler.poll(START) else { panic!("a question") };
    let site = || Site { pool: "p".into(), name: "s".into() };
    scheduler.routed(query.id, site(), START + HOUR);
    scheduler.routed(query.id, site(), START + HOUR);
    assert!(matches!(scheduler.poll(START), postwright_queue::scheduler::Next::Attempt(_)));
    assert!(matches!(scheduler.poll(START), postwright_queue::scheduler::Next::Wait { .. }));
}

impl World {
    /// Makes every attempt that is due fail for the time being.
    fn next_attempts(&mut self, tried: &mut usize) {
        loop {
            let attempts = self.attempts();
            if attempts.is_empty() {
                return;
            }
            for attempt in attempts {
                if attempt.task != Task::Deliver {
                    self.finish(attempt, Vec::new());
                    continue;
                }
                *tried += 1;
                // A message that is past its lifetime by this clock ends with its first attempt.
                let old = self.stored[&attempt.id].expires <= self.now;
                self.finish_with(attempt, if old { 250 } else { 452 });
            }
        }
    }
}

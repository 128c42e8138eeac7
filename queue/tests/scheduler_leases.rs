//! The scheduler on a spool that several nodes share: messages come, are lost, and come again under another epoch.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use postwright_queue::scheduler::{AttemptResult, Order, OrderKind, ReportEvent, Selector, Taken};
use postwright_queue::{Claim, Claimed, Entry, SpoolError, SpoolId};
use support::{DAY, HOUR, MINUTE, World, reply};

fn claimed(entry: &Entry, epoch: u64) -> Claimed {
    Claimed { claim: Claim { id: entry.id, epoch }, entry: entry.clone() }
}

/// A message that was claimed under epoch 3.
fn taken(world: &mut World, recipients: &[&str]) -> Entry {
    let entry = world.entry(recipients);
    world.stored.insert(entry.id, entry.clone());
    assert_eq!(world.scheduler.take(&claimed(&entry, 3), world.now), Taken::New);
    entry
}

fn claims(world: &World) -> Vec<Claim> {
    world.scheduler.claims(None, usize::MAX)
}

#[test]
fn what_is_claimed_again_under_its_epoch_is_known_and_under_another_starts_anew() {
    let mut world = World::exact();
    let entry = taken(&mut world, &["a@one.example", "b@two.example"]);
    assert_eq!(world.scheduler.take(&claimed(&entry, 3), world.now), Taken::Known);
    // Another node had it and delivered the first recipient.
    let mut later = entry.clone();
    later.progress[0].note(reply(250));
    world.stored.insert(entry.id, later.clone());
    assert_eq!(world.scheduler.take(&claimed(&later, 5), world.now), Taken::Again);
    assert_eq!(claims(&world), [Claim { id: entry.id, epoch: 5 }]);
    let attempt = world.only_attempt();
    assert_eq!(attempt.recipients, [1], "what the other node delivered is not delivered again");
    world.finish_with(attempt, 250);
    assert!(world.stored.is_empty());
    world.assert_idle();
}

#[test]
fn a_settlement_names_the_epoch_of_the_last_claim() {
    let mut world = World::exact();
    let entry = taken(&mut world, &["a@one.example"]);
    assert_eq!(world.scheduler.take(&claimed(&entry, 4), world.now), Taken::Again);
    let attempt = world.only_attempt();
    let finished = AttemptResult::Finished { entry: Box::new(entry.clone()), statuses: vec![reply(250)] };
    let effects = world.scheduler.record(attempt, finished, world.now);
    let text = format!("{effects:?}");
    assert!(text.contains("epoch: 4"), "{text}");
}

#[test]
fn what_is_lost_is_forgotten_and_a_late_result_changes_nothing() {
    let mut world = World::exact();
    let entry = taken(&mut world, &["a@one.example"]);
    let attempt = world.only_attempt();
    assert_eq!(world.scheduler.lose(&[Claim { id: entry.id, epoch: 2 }]), 0, "an older loss is no news");
    assert_eq!(world.scheduler.lose(&claims(&world)), 1);
    // I4: as long as the attempt is out, there is no second one, whoever hands the message out.
    assert_eq!(world.scheduler.take(&claimed(&entry, 7), world.now), Taken::Busy);
    assert!(world.attempts().is_empty());
    world.finish_with(attempt, 250);
    assert!(world.stored.contains_key(&entry.id), "nothing was settled under a lost epoch");
    assert_eq!(world.events(entry.id), []);
    assert_eq!(world.scheduler.take(&claimed(&entry, 7), world.now), Taken::New);
    let attempt = world.only_attempt();
    world.finish_with(attempt, 250);
    assert_eq!(world.events(entry.id), [(0, ReportEvent::Delivered)]);
    world.assert_idle();
}

#[test]
fn nothing_is_taken_while_a_commit_is_under_way() {
    let mut world = World::exact();
    let entry = taken(&mut world, &["a@one.example"]);
    let attempt = world.only_attempt();
    let finished = AttemptResult::Finished { entry: Box::new(entry.clone()), statuses: vec![reply(250)] };
    assert_eq!(world.scheduler.record(attempt, finished, world.now).len(), 1);
    assert_eq!(world.scheduler.take(&claimed(&entry, 4), world.now), Taken::Busy);
    // The commit came under the old epoch: another node has the message.
    world.scheduler.settled(entry.id, Err(SpoolError::Fenced(entry.id)), world.now);
    assert_eq!(world.scheduler.take(&claimed(&entry, 4), world.now), Taken::New);
}

#[test]
fn nothing_left_to_do_is_said() {
    let mut world = World::exact();
    let mut entry = world.entry(&["a@one.example"]);
    entry.progress[0].note(reply(250));
    assert_eq!(world.scheduler.take(&claimed(&entry, 1), world.now), Taken::Done);
    world.assert_idle();
}

#[test]
fn what_is_due_much_later_is_let_go_and_nothing_else() {
    let mut world = World::exact();
    let soon = taken(&mut world, &["a@one.example"]);
    let (attempt, until) = (world.only_attempt(), world.now + 2 * MINUTE);
    // In flight: not let go, though nothing of it is due.
    assert_eq!(world.scheduler.let_go(until), []);
    world.finish_with(attempt, 452);
    // Its retry comes in five minutes.
    assert_eq!(world.scheduler.let_go(world.now + 6 * MINUTE), []);
    let held = taken(&mut world, &["b@two.example"]);
    let order = Order {
        selector: Selector { message: Some(held.id), ..Selector::default() },
        kind: OrderKind::Suspend,
        until: world.now + HOUR,
        given: world.now,
        reason: "a look at it".into(),
    };
    world.scheduler.give(order, world.now);
    // One recipient waits, the other is being attempted.
    let half = taken(&mut world, &["c@three.example", "d@four.example"]);
    let mut attempts = world.attempts();
    assert_eq!(attempts.len(), 2);
    world.finish_with(attempts.remove(0), 452);
    assert_eq!(world.scheduler.let_go(until), [Claim { id: soon.id, epoch: 3 }]);
    world.finish_with(attempts.remove(0), 452);
    assert_eq!(world.scheduler.let_go(until), [Claim { id: half.id, epoch: 3 }]);
    let left: Vec<SpoolId> = claims(&world).iter().map(|claim| claim.id).collect();
    assert_eq!(left, [held.id], "what an operator holds is known here and perhaps nowhere else");
}

#[test]
fn a_lifetime_that_ends_soon_is_not_let_go() {
    let mut world = World::exact();
    let mut entry = world.entry(&["a@one.example"]);
    entry.expires = world.now + 20 * MINUTE;
    entry.progress[0].due = world.now + DAY;
    world.accept_entry(entry);
    assert_eq!(world.scheduler.let_go(world.now + 30 * MINUTE), []);
    assert_eq!(world.scheduler.let_go(world.now + 10 * MINUTE).len(), 1);
}

#[test]
fn claims_come_a_page_at_a_time() {
    let mut world = World::exact();
    let mut all: Vec<Claim> = (0..25)
        .map(|_| Claim { id: taken(&mut world, &["a@one.example", "b@two.example"]).id, epoch: 3 })
        .collect();
    all.sort();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = world.scheduler.claims(after, 10);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found.extend(page);
    }
    assert_eq!(found, all);
}

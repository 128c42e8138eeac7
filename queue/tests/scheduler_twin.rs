//! The scheduler against a naive twin: a list of messages, looked through from end to end at every question.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postwright_core::Timestamp;
use postwright_queue::SpoolId;
use postwright_queue::scheduler::{Attempt, Order, OrderKind, Scope, Selector, Task};
use proptest::prelude::*;
use support::{MINUTE, World, exact_config};

const LIFETIME: Duration = Duration::from_secs(6 * 3600);
const STEPS: [u64; 3] = [5, 15, 60];
const HOSTS: u8 = 4;

/// What the twin knows of a message.
#[derive(Debug, Clone, PartialEq)]
struct Naive {
    host: u8,
    due: Timestamp,
    expires: Timestamp,
    /// When its lifetime ends; `expires` is later for as long as it was not attempted since a restart.
    own_expires: Timestamp,
    steps: usize,
    in_flight: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Accept {
        host: u8,
    },
    /// Everything that is due is handed out; the numbers say what comes of it, in turn.
    Serve {
        outcomes: Vec<u8>,
    },
    /// As before, but the attempts stay out until the next `Return`.
    TakeOut,
    Return {
        code: u16,
    },
    Pass {
        minutes: u64,
    },
    Suspend {
        host: u8,
        minutes: u64,
    },
    Resume {
        host: u8,
    },
    Flush {
        host: u8,
    },
    Cancel {
        host: u8,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0..HOSTS;
    prop_oneof![
        4 => host.clone().prop_map(|host| Step::Accept { host }),
        4 => proptest::collection::vec(0u8..4, 1..6).prop_map(|outcomes| Step::Serve { outcomes }),
        1 => Just(Step::TakeOut),
        2 => proptest::sample::select(vec![250u16, 452, 550]).prop_map(|code| Step::Return { code }),
        4 => (1u64..90).prop_map(|minutes| Step::Pass { minutes }),
        1 => (host.clone(), 1u64..200).prop_map(|(host, minutes)| Step::Suspend { host, minutes }),
        1 => host.clone().prop_map(|host| Step::Resume { host }),
        1 => host.clone().prop_map(|host| Step::Flush { host }),
        1 => host.prop_map(|host| Step::Cancel { host }),
        1 => Just(Step::Restart),
    ]
}

fn selector(host: u8) -> Selector {
    Selector { domain: format!("host{host}.example").parse().ok(), ..Selector::default() }
}

struct Pair {
    world: World,
    twin: BTreeMap<SpoolId, Naive>,
    suspended: BTreeMap<u8, Timestamp>,
    out: Vec<Attempt>,
}

impl Pair {
    fn new() -> Pair {
        let mut config = exact_config();
        let policy = &mut config.policies.default;
        policy.schedule = postwright_queue::scheduler::Schedule::Table(
            STEPS.map(|minutes| Duration::from_secs(60 * minutes)).into(),
        );
        policy.lifetime = LIFETIME;
        policy.warn_after = None;
        config.max_in_flight_per_site = usize::MAX;
        config.max_housekeeping = usize::MAX;
        Pair { world: World::new(config), twin: BTreeMap::new(), suspended: BTreeMap::new(), out: Vec::new() }
    }

    fn suspended(&self, host: u8) -> bool {
        self.suspended.get(&host).is_some_and(|until| *until > self.world.now)
    }

    /// What the twin would hand out now, and what for.
    fn expected(&self) -> BTreeSet<(SpoolId, Task)> {
        let now = self.world.now;
        let task = |(id, message): (&SpoolId, &Naive)| match message {
            message if message.in_flight => None,
            message if message.expires <= now => Some((*id, Task::Expire)),
            message if message.due <= now && !self.suspended(message.host) => Some((*id, Task::Deliver)),
            _ => None,
        };
        self.twin.iter().filter_map(task).collect()
    }

    fn hand_out(&mut self) -> Vec<Attempt> {
        let expected = self.expected();
        let attempts = self.world.attempts();
        let found: BTreeSet<_> = attempts.iter().map(|attempt| (attempt.id, attempt.task)).collect();
        assert_eq!(found, expected, "at {}", self.world.now);
        assert_eq!(found.len(), attempts.len(), "each once");
        for attempt in &attempts {
            self.twin.get_mut(&attempt.id).unwrap().in_flight = true;
        }
        attempts
    }

    fn bring_back(&mut self, attempt: Attempt, code: u16) {
        let id = attempt.id;
        if attempt.task == Task::Expire {
            self.world.finish(attempt, Vec::new());
            self.twin.remove(&id);
            return;
        }
        self.world.finish_with(attempt, code);
        let now = self.world.now;
        let message = self.twin.get_mut(&id).unwrap();
        message.in_flight = false;
        message.expires = message.own_expires;
        if code != 452 || message.expires <= now {
            self.twin.remove(&id);
        } else {
            message.due = now + MINUTE * u32::try_from(STEPS[message.steps.min(2)]).unwrap();
            message.steps += 1;
        }
    }

    fn serve(&mut self, outcomes: &[u8]) {
        let attempts = self.hand_out();
        for (attempt, outcome) in attempts.into_iter().zip(outcomes.iter().cycle()) {
            match outcome {
                0 => self.bring_back(attempt, 250),
                1 => self.bring_back(attempt, 452),
                2 => self.bring_back(attempt, 550),
                _ if attempt.task == Task::Expire => self.bring_back(attempt, 250),
                _ => {
                    let until = self.world.now + 7 * MINUTE;
                    let message = self.twin.get_mut(&attempt.id).unwrap();
                    (message.in_flight, message.due) = (false, until);
                    self.world.postpone(attempt, until, Scope::Message);
                }
            }
        }
    }

    fn order(&self, host: u8, kind: OrderKind, until: Timestamp) -> Order {
        Order { selector: selector(host), kind, until, given: self.world.now, reason: "test".into() }
    }

    fn cancel(&mut self, host: u8) {
        // The order ends at once, so that it does not reach what comes later in the same millisecond.
        let order =
            self.order(host, OrderKind::Cancel { bounce: false }, self.world.now + Duration::from_millis(1));
        let effects = self.world.scheduler.give(order, self.world.now);
        self.world.perform(effects);
        let now = self.world.now;
        for attempt in self.world.attempts() {
            if attempt.task == Task::Cancel {
                self.twin.remove(&attempt.id).unwrap();
                self.world.finish(attempt, Vec::new());
            } else {
                self.twin.get_mut(&attempt.id).unwrap().in_flight = true;
                self.out.push(attempt);
            }
        }
        assert!(self.twin.values().all(|message| message.host != host || message.in_flight), "at {now}");
        // What was in flight ends with its attempt.
        for attempt in std::mem::take(&mut self.out) {
            if self.twin[&attempt.id].host == host {
                self.bring_back(attempt, 250);
            } else {
                self.out.push(attempt);
            }
        }
        // A restart in the same millisecond could not tell what came before the order from what came after it.
        self.world.now = now + Duration::from_secs(1);
    }

    fn restart(&mut self) {
        // Whatever is in flight was not recorded: it is tried again.
        self.out.clear();
        self.world.restart();
        let now = self.world.now;
        let longest = 60 * MINUTE;
        for (id, message) in &mut self.twin {
            let stored = &self.world.stored[id].progress[0];
            message.in_flight = false;
            message.due = if message.expires <= now { now } else { stored.due.min(now + longest) };
            // Nothing expires before one attempt, or one longest retry, since the start.
            message.expires = message.expires.max(now + longest);
        }
    }

    fn take(&mut self, step: &Step) {
        let now = self.world.now;
        match step {
            Step::Accept { host } => {
                let id = self.world.accept(&[&format!("a@host{host}.example")]);
                let expires = now + LIFETIME;
                let (due, own_expires) = (now, expires);
                let naive = Naive { host: *host, due, expires, own_expires, steps: 0, in_flight: false };
                self.twin.insert(id, naive);
            }
            Step::Serve { outcomes } => self.serve(outcomes),
            Step::TakeOut => {
                let mut attempts = self.hand_out();
                self.out.append(&mut attempts);
            }
            Step::Return { code } => {
                for attempt in std::mem::take(&mut self.out) {
                    self.bring_back(attempt, *code);
                }
            }
            Step::Pass { minutes } => self.world.now = now + Duration::from_secs(60 * minutes),
            Step::Suspend { host, minutes } => {
                let until = now + Duration::from_secs(60 * minutes);
                let order = self.order(*host, OrderKind::Suspend, until);
                let effects = self.world.scheduler.give(order, now);
                self.world.perform(effects);
                self.suspended.insert(*host, until);
            }
            Step::Resume { host } => {
                let key = self.order(*host, OrderKind::Suspend, now).key();
                let effects = self.world.scheduler.take_back(&key, now);
                self.world.perform(effects);
                self.suspended.remove(host);
            }
            Step::Flush { host } => {
                self.world.scheduler.flush(&selector(*host), now);
                for message in self.twin.values_mut() {
                    if message.host == *host && !message.in_flight {
                        message.due = message.due.min(now);
                    }
                }
            }
            Step::Cancel { host } => self.cancel(*host),
            Step::Restart => self.restart(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_scheduler_does_what_its_naive_twin_does(steps in proptest::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.take(step);
        }
        // Faults stop: everything drains, and every permit is back.
        pair.suspended.clear();
        for host in 0..HOSTS {
            pair.take(&Step::Resume { host });
        }
        pair.take(&Step::Return { code: 250 });
        pair.world.now = pair.world.now + 400 * MINUTE;
        pair.serve(&[0]);
        prop_assert!(pair.twin.is_empty());
        prop_assert!(pair.world.stored.is_empty());
        pair.world.assert_idle();
    }
}

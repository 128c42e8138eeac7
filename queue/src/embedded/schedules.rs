//! The hand-over between those who commit, the writer and those who claim, under orders of the threads that `shuttle` draws: a
//! lost wake-up is a deadlock that it reports, with the order that led to it.
//!
//! Real here: the oneshot and the inbox (their files, compiled over shuttle's locks), the ledger and the walk of a claim. A
//! model: the store, a map behind a lock, since fjall has threads of its own; and with it the order in which the writer
//! notes a put, stores it and answers (`Writer::validate`, `write`, `acknowledge`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use super::claiming::{Shelf, claim};
use super::ledger::Ledger;
use crate::contract::sample;
use crate::error::SpoolError;
use crate::spool::{Item, Page};
use crate::{Entry, SpoolId};
use inbox::{Next, Unsent, Weigh};
use sync::{Arc, Mutex};

mod sync {
    pub(super) use shuttle::sync::{Arc, Mutex, MutexGuard, mpsc};
    pub(super) use std::sync::PoisonError;
}

#[expect(clippy::duplicate_mod, reason = "the same code over other locks")]
#[path = "inbox.rs"]
mod inbox;
#[expect(clippy::duplicate_mod, reason = "the same code over other locks")]
#[path = "../oneshot.rs"]
mod oneshot;

/// Orders drawn for each test, half of them at random and half with few, well-placed changes of thread.
const DRAWN: usize = 2000;

fn under_many_orders(test: impl Fn() + Clone + Send + Sync + 'static) {
    shuttle::check_random(test.clone(), DRAWN / 2);
    shuttle::check_pct(test, DRAWN / 2, 3);
}

/// A commit as the writer sees it: a number, and where its answer goes.
struct Job {
    number: u64,
    octets: usize,
    reply: oneshot::Sender<u64>,
}

impl Weigh for Job {
    fn octets(&self) -> usize {
        self.octets
    }
}

/// Takes batches until nobody commits any more, and answers each job by its number. Returns how many it answered.
fn write(inbox: &inbox::Inbox<Job>) -> usize {
    let mut answered = 0;
    loop {
        match inbox.next(Duration::from_secs(1)) {
            Next::Batch(jobs) => {
                answered += jobs.len();
                jobs.into_iter().for_each(|job| job.reply.send(job.number));
            }
            Next::Nothing => {}
            Next::Closed => return answered,
        }
    }
}

#[test]
fn an_answer_wakes_whoever_waits_for_it() {
    under_many_orders(|| {
        let (sender, receiver) = oneshot::channel();
        let thread = thread::spawn(move || sender.send(7));
        assert_eq!(block_on(receiver), Some(7));
        thread.join().unwrap();
    });
}

#[test]
fn whoever_waits_learns_that_nobody_answers() {
    under_many_orders(|| {
        let (sender, receiver) = oneshot::channel::<u8>();
        let thread = thread::spawn(move || drop(sender));
        assert_eq!(block_on(receiver), None);
        thread.join().unwrap();
    });
}

/// Some of the jobs are as large as a batch may be, and fewer may wait than there are.
#[test]
fn each_commit_is_answered_once_with_its_own_answer_or_refused_as_busy() {
    under_many_orders(|| {
        let (outbox, inbox) = inbox::channel(2);
        let outbox = Arc::new(outbox);
        let committers: Vec<_> = (0..3)
            .map(|committer| {
                let outbox = outbox.clone();
                thread::spawn(move || {
                    let mut put = 0;
                    for number in [committer * 2, committer * 2 + 1] {
                        let (reply, answer) = oneshot::channel();
                        let octets = if number % 2 == 0 { inbox::BATCH_OCTETS } else { 1 };
                        match outbox.put(Job { number, octets, reply }) {
                            Ok(()) => {
                                assert_eq!(block_on(answer), Some(number));
                                put += 1;
                            }
                            Err(Unsent::Busy) => assert_eq!(block_on(answer), None),
                            Err(Unsent::Closed) => panic!("the writer is there"),
                        }
                    }
                    put
                })
            })
            .collect();
        drop(outbox);
        let answered = write(&inbox);
        let put: usize = committers.into_iter().map(|committer| committer.join().unwrap()).sum();
        assert_eq!(answered, put);
    });
}

/// The spool is dropped while commits wait: they are answered first.
#[test]
fn what_waits_when_the_spool_is_closed_is_answered() {
    under_many_orders(|| {
        let (outbox, inbox) = inbox::channel(8);
        let writer = thread::spawn(move || write(&inbox));
        let answers: Vec<_> = (0..3)
            .map(|number| {
                let (reply, answer) = oneshot::channel();
                assert_eq!(outbox.put(Job { number, octets: 1, reply }), Ok(()));
                answer
            })
            .collect();
        drop(outbox);
        for (answer, number) in answers.into_iter().zip(0..) {
            assert_eq!(block_on(answer), Some(number));
        }
        assert_eq!(writer.join().unwrap(), 3);
    });
}

/// The model of the store.
#[derive(Default)]
struct Model(Mutex<BTreeMap<SpoolId, Entry>>);

impl Shelf for Model {
    fn entry(&self, id: SpoolId) -> Result<Entry, SpoolError> {
        self.0.lock().unwrap().get(&id).cloned().ok_or(SpoolError::NotFound(id))
    }

    fn page(&self, after: Option<SpoolId>, limit: usize) -> Result<Page, SpoolError> {
        let stored = self.0.lock().unwrap();
        let behind = stored.values().filter(|entry| after.is_none_or(|after| entry.id > after));
        let entries: Vec<Entry> = behind.take(limit).cloned().collect();
        let next = if entries.len() == limit { entries.last().map(|entry| entry.id) } else { None };
        Ok(Page { items: entries.into_iter().map(|entry| Item::Entry(Box::new(entry))).collect(), next })
    }
}

/// Two walk over what an earlier process left while new mail is stored and a message is released: what was there is handed
/// out once, what is released once more, what is new to nobody.
#[test]
fn what_was_stored_before_is_handed_out_once_and_what_came_since_to_nobody() {
    under_many_orders(|| {
        let (model, ledger) = (Arc::new(Model::default()), Arc::new(Mutex::new(Ledger::new(false))));
        let entries: Vec<Entry> = (0..6).map(|number| sample(number).0).collect();
        // Between each other in the order of the walk.
        let (old, new): (Vec<_>, Vec<_>) =
            entries.into_iter().zip(0..).partition(|(_, number)| number % 2 == 0);
        for (entry, _) in &old {
            model.0.lock().unwrap().insert(entry.id, entry.clone());
        }
        let claimers: Vec<_> = (0..2)
            .map(|_| {
                let (model, ledger) = (model.clone(), ledger.clone());
                thread::spawn(move || {
                    let mut found = Vec::new();
                    loop {
                        let (claimed, damaged) = claim(&mut ledger.lock().unwrap(), &*model, 2).unwrap();
                        assert!(damaged.is_empty());
                        if claimed.is_empty() && ledger.lock().unwrap().cursor().is_none() {
                            return found;
                        }
                        found.extend(claimed.into_iter().map(|claimed| claimed.claim.id));
                    }
                })
            })
            .collect();
        // As the writer does it: noted, then stored.
        for (entry, _) in &new {
            ledger.lock().unwrap().put(entry.id);
            model.0.lock().unwrap().insert(entry.id, entry.clone());
        }
        let found: Vec<_> = claimers.into_iter().flat_map(|claimer| claimer.join().unwrap()).collect();
        let wanted: BTreeSet<_> = old.iter().map(|(entry, _)| entry.id).collect();
        assert_eq!((found.len(), found.into_iter().collect::<BTreeSet<_>>()), (wanted.len(), wanted));
        let mut ledger = ledger.lock().unwrap();
        assert!(new.iter().chain(&old).all(|(entry, _)| ledger.owns(entry.id)));
        ledger.release(new[0].0.id);
        let (again, _) = claim(&mut ledger, &*model, 10).unwrap();
        assert_eq!(again.iter().map(|claimed| claimed.claim.id).collect::<Vec<_>>(), [new[0].0.id]);
    });
}

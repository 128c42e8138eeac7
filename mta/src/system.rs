//! The parts that every message passes, in one struct: built once, shared by all tasks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postwright_bounce::dsn::Composer;
use postwright_core::{Domain, World};
use postwright_queue::scheduler::{Scheduler, Slot};
use postwright_queue::{Claim, Entry, Spool, SpoolError};
use tokio::sync::Notify;

use crate::bodies::Bodies;
use crate::class::Classes;
use crate::delivery::Delivery;
use crate::event::Observers;
use crate::feedback::Feedback;
use crate::leases::Leases;
use crate::storm::Storm;
use crate::{Event, MessagePolicy, Pace, Settings};

pub(crate) struct System {
    pub(crate) hostname: Domain,
    pub(crate) world: World,
    pub(crate) spool: Arc<dyn Spool>,
    /// Used through [`System::scheduler`].
    pub(crate) scheduler: Mutex<Scheduler>,
    /// Something may be due earlier than the dispatcher thinks.
    pub(crate) wake: Notify,
    pub(crate) bodies: Bodies,
    pub(crate) delivery: Delivery,
    pub(crate) composer: Composer,
    pub(crate) observers: Observers,
    pub(crate) policies: Vec<Arc<dyn MessagePolicy>>,
    pub(crate) classes: Classes,
    pub(crate) pace: Option<Arc<dyn Pace>>,
    pub(crate) feedback: Option<Arc<Feedback>>,
    pub(crate) settings: Settings,
    pub(crate) leases: Leases,
    pub(crate) storm: Storm,
}

impl System {
    /// The scheduler, for a moment: never hold it over an await.
    pub(crate) fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        // The scheduler is pure; after a panic in it the best that is left is to go on with what it knows.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a stored message to the scheduler.
    pub(crate) fn admit(&self, slot: Slot, claim: Claim, entry: &Entry) {
        if self.leases.are_shared() && claim.epoch == 0 {
            // It was stored before, and another node has it.
            return;
        }
        let now = self.world.clock.now();
        self.scheduler().admit(slot, claim, entry, now);
        self.wake.notify_one();
    }

    pub(crate) fn spool_failed(&self, doing: &'static str, error: &SpoolError) {
        self.observers.tell(Event::SpoolFailed { doing, error: &error.to_string() });
    }
}

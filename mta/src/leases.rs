//! Keeping what we hold of a spool that several nodes share: claims are leases that end.
//!
//! Three habits: every third of a lease, everything in the scheduler is renewed, and what another node has by now is
//! forgotten; what is due soon is claimed, a bounded number of messages ahead; what is due much later is released for
//! whichever node is there then.
//!
//! Invariant (I4): nothing is attempted, and no attempt runs on, when our leases may have ended: a node that cannot
//! reach the database stops *before* another one may take over. What was delivered but not settled by then goes on
//! trying to be settled, under the epoch that it was delivered under; if another node has the message by then, that
//! is the duplicate that I2 allows.
//!
//! Not here: an exclusive spool, whose claims hold as long as the process.

use std::time::Duration;

use postwright_core::Instant;
use postwright_queue::{Change, SpoolError, Want};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use crate::dispatch;
use crate::system::System;

/// Claims that are renewed in one go.
const RENEW: usize = 2000;
/// Messages that are claimed, or released, in one go.
const CLAIM: usize = 500;
/// How often something new is looked for even if nobody says that there is.
const LOOK: Duration = Duration::from_secs(1);

/// Until when what we hold is ours.
pub(crate) struct Leases {
    /// How long a claim holds; `None` on an exclusive spool.
    length: Option<Duration>,
    /// Everything in the scheduler is leased until then at least.
    good_until: watch::Sender<Instant>,
}

impl Leases {
    pub(crate) fn new(length: Option<Duration>, now: Instant) -> Leases {
        let good_until = now + length.unwrap_or_default();
        Leases { length, good_until: watch::Sender::new(good_until) }
    }

    pub(crate) fn are_shared(&self) -> bool {
        self.length.is_some()
    }

    /// Whether what we hold may be worked on.
    pub(crate) fn are_good(&self, now: Instant) -> bool {
        self.length.is_none() || now < *self.good_until.borrow()
    }

    /// All leases were asked for at `start` or later. A sixth of their length is left as a margin: for answers that
    /// were slow to come, and for clocks that do not run alike.
    fn extend(&self, start: Instant) {
        if let Some(length) = self.length {
            self.good_until.send_replace(start + (length - length / 6));
        }
    }

    /// Resolves when what we hold may be another's.
    pub(crate) async fn ended(&self, system: &System) {
        if self.length.is_none() {
            return std::future::pending().await;
        }
        let mut extended = self.good_until.subscribe();
        loop {
            let until = *extended.borrow_and_update();
            let left = until.since(system.world.clock.mono());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                // The sender lives as long as we do.
                _ = extended.changed() => {}
            }
        }
    }
}

/// Renews, claims and lets go, for ever.
pub(crate) async fn keep(system: &System) {
    let Some(length) = system.leases.length else { return };
    tokio::join!(renew_in_time(system, length), claim_what_comes(system));
}

async fn renew_in_time(system: &System, length: Duration) {
    let mut round = interval((length / 3).max(Duration::from_millis(1)));
    // After a failure that is soon; a lease does not wait.
    let again = (length / 20).min(LOOK).max(Duration::from_millis(1));
    loop {
        round.tick().await;
        while let Err(error) = renew(system).await {
            system.spool_failed("renewing leases", &error);
            sleep(again).await;
        }
        // What an operator told another node.
        if let Err(error) = dispatch::read_orders(system).await {
            system.spool_failed("reading the operator's orders", &error);
        }
        let_go(system).await;
    }
}

/// Renews all that is in the scheduler, and forgets what is another node's.
async fn renew(system: &System) -> Result<(), SpoolError> {
    let start = system.world.clock.mono();
    let (mut after, mut lost) = (None, 0);
    loop {
        let claims = system.scheduler().claims(after, RENEW);
        let Some(last) = claims.last() else { break };
        after = Some(last.id);
        let gone = system.spool.renew(&claims).await?;
        lost += system.scheduler().lose(&gone);
    }
    if lost > 0 {
        tracing::warn!(lost, "leases were lost: another node works on these messages now");
    }
    system.leases.extend(start);
    system.wake.notify_one();
    Ok(())
}

/// Releases what has to wait long. A release that fails makes no difference but that the message waits for the end
/// of its lease.
async fn let_go(system: &System) {
    // Twice the horizon, so that nothing is let go and claimed again at once.
    let until = system.world.clock.now() + system.settings.claim_horizon * 2;
    let claims = system.scheduler().let_go(until);
    for some in claims.chunks(CLAIM) {
        let changes = some.iter().map(|claim| Change::Release { claim: *claim }).collect();
        if let Err(error) = system.spool.commit(changes).await {
            system.spool_failed("releasing messages", &error);
        }
    }
}

async fn claim_what_comes(system: &System) {
    let mut look = interval(LOOK);
    loop {
        // News that come while we claim may be missed; the next look finds what they were about.
        tokio::select! {
            _ = look.tick() => {}
            () = system.spool.changed() => {}
        }
        if let Err(error) = claim(system).await {
            system.spool_failed("claiming messages", &error);
        }
    }
}

/// Claims what is due soon, as long as there is room.
async fn claim(system: &System) -> Result<(), SpoolError> {
    while system.leases.are_good(system.world.clock.mono()) {
        let room = system.settings.claim_ahead.saturating_sub(system.scheduler().held());
        let want = Want { limit: room.min(CLAIM), horizon: system.settings.claim_horizon };
        if want.limit == 0 || dispatch::claim(system, want).await? < want.limit {
            break;
        }
    }
    Ok(())
}

//! Who may run a TLS handshake now: [`Handshakes`].
//!
//! Invariant: at most `total` handshakes run at a time, at most `per_address` for one address, and a peer that says
//! nothing holds none of them: a slot is asked for only when the whole ClientHello has come. A slot that is wanted
//! by somebody else is taken back from the oldest handshake once that had its grace, so that whoever begins a
//! handshake and falls silent can hold up an honest one for as long as the grace and no longer.
//!
//! Standards: none; RFC 5321 7.8 leaves resistance to attacks to us.
//!
//! Not here: the handshake itself and its deadline (connection.rs), connections ([`admission`](crate::admission)).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::{Clock, Instant};
use tokio::sync::Notify;

use crate::admission::one_host;

/// The slots of a server.
#[derive(Debug)]
pub(crate) struct Handshakes {
    total: usize,
    per_address: usize,
    grace: Duration,
    state: Mutex<State>,
    /// Told when a slot comes back.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the order of their beginning: the first is the oldest.
    running: BTreeMap<u64, Running>,
    next: u64,
}

#[derive(Debug)]
struct Running {
    address: IpAddr,
    since: Instant,
    cut: Arc<Notify>,
}

/// The right to run one handshake.
#[derive(Debug)]
pub(crate) struct Slot {
    handshakes: Arc<Handshakes>,
    id: u64,
    cut: Arc<Notify>,
}

/// What an attempt to enter came to.
enum Entry {
    In(u64, Arc<Notify>),
    /// Come again when a slot is freed, or after this at the latest.
    Wait(Duration),
}

impl Handshakes {
    pub(crate) fn new(total: usize, per_address: usize, grace: Duration) -> Handshakes {
        Handshakes {
            total: total.max(1),
            per_address: per_address.max(1),
            grace,
            state: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// A slot for `ip`, as soon as there is one. The caller bounds the wait.
    pub(crate) async fn enter(self: &Arc<Self>, ip: IpAddr, clock: &dyn Clock) -> Slot {
        let address = one_host(ip);
        loop {
            // Asked for before looking, so that a slot that is freed in between is not missed.
            let freed = self.freed.notified();
            match self.try_enter(address, clock.mono()) {
                Entry::In(id, cut) => return Slot { handshakes: self.clone(), id, cut },
                // Either way it is looked at again.
                Entry::Wait(longest) => drop(tokio::time::timeout(longest, freed).await),
            }
        }
    }

    fn try_enter(&self, address: IpAddr, now: Instant) -> Entry {
        let mut state = self.state();
        let own = state.running.values().filter(|running| running.address == address).count();
        // Whoever has all that one address may have competes with itself only.
        let rivals = |running: &Running| own < self.per_address || running.address == address;
        if own >= self.per_address || state.running.len() >= self.total {
            let oldest = state.running.iter().find(|(_, running)| rivals(running));
            let Some((id, running)) = oldest.map(|(id, running)| (*id, running)) else {
                return Entry::Wait(self.grace);
            };
            let left = self.grace.saturating_sub(now.since(running.since));
            if !left.is_zero() {
                return Entry::Wait(left);
            }
            running.cut.notify_one();
            state.running.remove(&id);
        }
        let (id, cut) = (state.next, Arc::new(Notify::new()));
        state.next = state.next.wrapping_add(1);
        state.running.insert(id, Running { address, since: now, cut: cut.clone() });
        Entry::In(id, cut)
    }

    #[cfg(test)]
    fn running(&self) -> usize {
        self.state().running.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one insertion or removal, so a poisoned lock guards a whole map.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Runs a handshake; `None` if its slot was wanted by another before it ended.
    pub(crate) async fn run<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = handshake => Some(done),
            () = self.cut.notified() => None,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // One that was cut is gone already, and its slot is another's.
        if self.handshakes.state().running.remove(&self.id).is_some() {
            self.handshakes.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postwright_testkit::PausedClock;

    const GRACE: Duration = Duration::from_secs(3);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn start(total: usize, per_address: usize) -> (Arc<Handshakes>, Arc<PausedClock>) {
        (Arc::new(Handshakes::new(total, per_address, GRACE)), PausedClock::start())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_falls_silent_holds_others_up_for_the_grace_only() {
        let (handshakes, clock) = start(4, 4);
        let mut silent = Vec::new();
        for host in 1..=4 {
            silent.push(handshakes.enter(ip(&format!("192.0.2.{host}")), &*clock).await);
        }
        // Ten honest ones, one after the other, each done at once.
        for host in 1..=10 {
            let slot = handshakes.enter(ip(&format!("198.51.100.{host}")), &*clock).await;
            assert_eq!(slot.run(async { "done" }).await, Some("done"));
            assert!(handshakes.running() <= 4);
        }
        assert_eq!(clock.elapsed(), GRACE, "the first waited; it freed a slot for all the others");
        // The oldest of the silent ones was cut, and only that one.
        assert_eq!(silent[0].run(std::future::pending::<()>()).await, None);
        for slot in &silent[1..] {
            let waiting =
                tokio::time::timeout(Duration::from_secs(60), slot.run(std::future::pending::<()>()));
            assert!(waiting.await.is_err(), "nobody wants its slot");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_one_address_competes_with_itself() {
        let (handshakes, clock) = start(10, 3);
        let flooder = ip("2001:db8::1");
        let mut stalled = Vec::new();
        for _ in 0..3 {
            stalled.push(handshakes.enter(flooder, &*clock).await);
        }
        // Neighbours in its /64 are the same address.
        let again =
            tokio::time::timeout(Duration::from_secs(1), handshakes.enter(ip("2001:db8::2"), &*clock));
        assert!(again.await.is_err(), "its own handshakes are in the way");
        for host in 1..=20 {
            let slot = handshakes.enter(ip(&format!("192.0.2.{host}")), &*clock).await;
            assert_eq!(slot.run(async {}).await, Some(()));
        }
        assert_eq!(clock.elapsed(), Duration::from_secs(1), "nobody else waited");
        let fourth = handshakes.enter(ip("2001:db8::3"), &*clock).await;
        assert_eq!(clock.elapsed(), GRACE);
        assert_eq!(stalled[0].run(std::future::pending::<()>()).await, None, "its oldest made room");
        drop((fourth, stalled));
        assert_eq!(handshakes.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_come_back_at_once_when_a_handshake_ends() {
        let (handshakes, clock) = start(1, 1);
        let first = handshakes.enter(ip("192.0.2.1"), &*clock).await;
        let (other, theirs) = (handshakes.clone(), clock.clone());
        let waiting = tokio::spawn(async move { drop(other.enter(ip("192.0.2.2"), &*theirs).await) });
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(first);
        waiting.await.unwrap();
        assert_eq!(clock.elapsed(), Duration::from_secs(1));
        assert_eq!(handshakes.running(), 0);
    }
}

//! Who may connect: caps in total, for an address and for a network, and a rate for an address.
//!
//! Invariant: a place taken is given back when its [`Place`] is dropped; memory is bounded by the connections that
//! are open and by the addresses seen in the last minute.
//!
//! Not here: who is wanted (the embedder's [`Acceptor`](crate::Acceptor)).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Instant;

use crate::server::ServerConfig;

/// The doorkeeper of a server.
#[derive(Debug)]
pub(crate) struct Admission {
    total: usize,
    per_ip: usize,
    per_network: usize,
    rate: u32,
    state: Mutex<State>,
    active: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    ips: BTreeMap<IpAddr, usize>,
    networks: BTreeMap<IpAddr, usize>,
    window: Window,
}

/// Connections of each address in the present minute.
#[derive(Debug, Default)]
struct Window {
    began: Instant,
    seen: BTreeMap<IpAddr, u32>,
}

/// Addresses that are remembered for the rate; beyond it a new address is not rated until the minute is over.
const RATED_MAX: usize = 100_000;

/// The right to be connected.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Admission {
    pub(crate) fn new(config: &ServerConfig) -> Admission {
        Admission {
            total: config.connections,
            per_ip: config.connections_per_ip,
            per_network: config.connections_per_network,
            rate: config.rate_per_ip,
            state: Mutex::default(),
            active: AtomicUsize::new(0),
        }
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// A place for `ip`, or the reason why there is none.
    pub(crate) fn enter(self: &Arc<Self>, ip: IpAddr, now: Instant) -> Result<Place, &'static str> {
        let ip = one_host(ip);
        let mut state = self.state();
        if self.active() >= self.total {
            return Err("Too many connections");
        }
        if !state.window.admit(ip, self.rate, now) {
            return Err("Too many connections from your address in a minute");
        }
        if state.ips.get(&ip).is_some_and(|open| *open >= self.per_ip) {
            return Err("Too many connections from your address");
        }
        if state.networks.get(&network(ip)).is_some_and(|open| *open >= self.per_network) {
            return Err("Too many connections from your network");
        }
        *state.ips.entry(ip).or_insert(0) += 1;
        *state.networks.entry(network(ip)).or_insert(0) += 1;
        self.active.fetch_add(1, Ordering::Relaxed);
        Ok(Place { admission: self.clone(), ip })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The maps are consistent between any two statements that can panic: there are none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn admit(&mut self, ip: IpAddr, rate: u32, now: Instant) -> bool {
        if now.since(self.began) >= Duration::from_secs(60) {
            self.began = now;
            self.seen.clear();
        }
        if self.seen.len() >= RATED_MAX && !self.seen.contains_key(&ip) {
            return true;
        }
        let seen = self.seen.entry(ip).or_insert(0);
        *seen = seen.saturating_add(1);
        *seen <= rate
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        leave(&mut state.ips, self.ip);
        leave(&mut state.networks, network(self.ip));
        self.admission.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn leave(open: &mut BTreeMap<IpAddr, usize>, ip: IpAddr) {
    if let Some(count) = open.get_mut(&ip) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            open.remove(&ip);
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 host can roam in.
pub(crate) fn one_host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The network of an address: IPv4 /24, IPv6 /48.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !0xff).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postwright_core::Domain;

    fn admission(change: impl FnOnce(&mut ServerConfig)) -> Arc<Admission> {
        let mut config = ServerConfig::new("mx.example.org".parse::<Domain>().unwrap());
        change(&mut config);
        Arc::new(Admission::new(&config))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn caps_hold_and_places_come_back() {
        let door =
            admission(|s| (s.connections, s.connections_per_ip, s.connections_per_network) = (4, 2, 3));
        let enter = |text| door.enter(ip(text), Instant::ZERO);
        let a = enter("192.0.2.1").unwrap();
        let _b = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").unwrap_err().contains("address"));
        let _c = enter("192.0.2.2").unwrap();
        assert!(enter("192.0.2.3").unwrap_err().contains("network"));
        let _d = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8:1::1").unwrap_err().contains("Too many connections"));
        drop(a);
        assert_eq!(door.active(), 3);
        let _e = enter("192.0.2.1").unwrap();
    }

    #[test]
    fn the_rate_is_for_a_minute() {
        let door = admission(|s| s.rate_per_ip = 2);
        let at = |secs| Instant::from_start(Duration::from_secs(secs));
        for (secs, fine) in [(0, true), (1, true), (2, false), (59, false), (60, true)] {
            assert_eq!(door.enter(ip("192.0.2.1"), at(secs)).is_ok(), fine, "{secs}");
        }
        assert!(door.enter(ip("192.0.2.9"), at(2)).is_ok());
    }
}

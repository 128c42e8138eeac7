//! Ready lanes: the sites that mail goes to, and who is served next.
//!
//! Each site has flows, one for each tenant, stream and priority that has due messages for it; a flow holds its
//! scheduled lanes in a ring. Flows are served by start-time fair queueing: each has a tag of virtual time, the lowest
//! goes first and moves on by the cost of a message, and a flow that comes back starts at the present. So a flow
//! that sends little is served at once, one that sends much gets its weight's share, and nobody starves.
//!
//! Invariant: `order` holds exactly the sites that have a flow, are not paused and are not full.
//!
//! Model: start-time fair queueing (Goyal, Vin, Cheng 1996).
//!
//! Not here: rate limits (shaping says "postponed" through the attempt).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use postwright_core::Timestamp;

use super::slab::Slab;

/// Where mail goes to: a pool of source addresses and the group of hosts that share limits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// The pool that sends.
    pub pool: Arc<str>,
    /// The site, such as the domain or a common suffix of its mail hosts.
    pub name: Arc<str>,
}

/// Tag of virtual time, priority (the higher one wins a tie), number of the flow or site.
type Turn = (u64, Reverse<i8>, u32);
/// What a flow is known by: tenant, stream, priority.
pub(super) type FlowKey = (Arc<str>, Arc<str>, i8);

struct Flow {
    site: u32,
    key: FlowKey,
    tag: u64,
    lanes: VecDeque<u32>,
}

impl Flow {
    fn turn(&self, number: u32) -> Turn {
        (self.tag, Reverse(self.key.2), number)
    }
}

pub(super) struct SiteState {
    pub(super) site: Arc<Site>,
    flows: BTreeSet<Turn>,
    by_key: BTreeMap<FlowKey, u32>,
    pub(super) in_flight: usize,
    pub(super) paused_until: Option<Timestamp>,
    /// Why it is paused.
    pub(super) because: Box<str>,
    /// Lanes whose route leads here.
    routes: usize,
    /// Its place in the global order, if it is there.
    turn: Option<Turn>,
}

pub(super) struct Ready {
    sites: Slab<SiteState>,
    flows: Slab<Flow>,
    names: BTreeMap<Arc<Site>, u32>,
    order: BTreeSet<Turn>,
    /// Virtual time: the tag of the flow that was served last.
    clock: u64,
    limit_per_site: usize,
}

impl Ready {
    pub(super) fn new(limit_per_site: usize) -> Ready {
        Ready {
            sites: Slab::new(),
            flows: Slab::new(),
            names: BTreeMap::new(),
            order: BTreeSet::new(),
            clock: 0,
            limit_per_site: limit_per_site.max(1),
        }
    }

    pub(super) fn site(&self, number: u32) -> Option<&SiteState> {
        self.sites.get(number)
    }

    pub(super) fn sites(&self) -> impl Iterator<Item = &SiteState> {
        self.sites.iter().map(|(_, site)| site)
    }

    /// The number of a site that is known, and until when it is paused.
    pub(super) fn find(&self, pool: &str, name: &str) -> Option<(u32, Option<Timestamp>)> {
        let site = Site { pool: pool.into(), name: name.into() };
        let number = *self.names.get(&site)?;
        Some((number, self.sites.get(number)?.paused_until))
    }

    /// The number of a site, which is made if it is new; it stays for as long as a route leads to it.
    pub(super) fn route_to(&mut self, site: Site) -> u32 {
        let number = match self.names.get(&site) {
            Some(number) => *number,
            None => {
                let site = Arc::new(site);
                let number = self.sites.insert(SiteState {
                    site: site.clone(),
                    flows: BTreeSet::new(),
                    by_key: BTreeMap::new(),
                    in_flight: 0,
                    paused_until: None,
                    because: "".into(),
                    routes: 0,
                    turn: None,
                });
                self.names.insert(site, number);
                number
            }
        };
        if let Some(site) = self.sites.get_mut(number) {
            site.routes += 1;
        }
        number
    }

    /// A route to the site ended.
    pub(super) fn unroute(&mut self, number: u32) {
        if let Some(site) = self.sites.get_mut(number) {
            site.routes = site.routes.saturating_sub(1);
        }
        self.drop_if_unused(number);
    }

    fn drop_if_unused(&mut self, number: u32) {
        let unused = |site: &SiteState| {
            site.routes == 0 && site.in_flight == 0 && site.flows.is_empty() && site.paused_until.is_none()
        };
        if self.sites.get(number).is_some_and(unused)
            && let Some(site) = self.sites.remove(number)
        {
            self.names.remove(&site.site);
        }
    }

    /// A lane has due messages for the site.
    pub(super) fn enqueue(&mut self, site_number: u32, key: FlowKey, lane: u32) {
        let Some(site) = self.sites.get_mut(site_number) else { return };
        match site.by_key.get(&key) {
            Some(number) => {
                if let Some(flow) = self.flows.get_mut(*number) {
                    flow.lanes.push_back(lane);
                }
            }
            None => {
                let lanes = VecDeque::from([lane]);
                let flow = Flow { site: site_number, key: key.clone(), tag: self.clock, lanes };
                let number = self.flows.insert(flow);
                site.by_key.insert(key.clone(), number);
                site.flows.insert((self.clock, Reverse(key.2), number));
            }
        }
        self.reorder(site_number);
    }

    /// Puts the site where it belongs in the global order, or takes it out.
    fn reorder(&mut self, number: u32) {
        let Some(site) = self.sites.get_mut(number) else { return };
        let open = site.paused_until.is_none() && site.in_flight < self.limit_per_site;
        let turn = site.flows.first().filter(|_| open).map(|(tag, priority, _)| (*tag, *priority, number));
        if site.turn != turn {
            if let Some(old) = site.turn.take() {
                self.order.remove(&old);
            }
            self.order.extend(turn);
            site.turn = turn;
        }
    }

    /// The lane whose turn it is. The caller says with [`Ready::served`] what came of it.
    pub(super) fn next(&self) -> Option<(u32, u32)> {
        let (_, _, site) = self.order.first()?;
        let (_, _, flow) = self.sites.get(*site)?.flows.first()?;
        Some((*flow, *self.flows.get(*flow)?.lanes.front()?))
    }

    /// The lane at the head of a flow had its turn: it cost so much (0 if nothing was attempted after all), and it
    /// has more that is due, or not.
    pub(super) fn served(&mut self, flow_number: u32, cost: u64, more: bool) {
        let Some(flow) = self.flows.get_mut(flow_number) else { return };
        let site_number = flow.site;
        let before = flow.turn(flow_number);
        let lane = flow.lanes.pop_front();
        if more {
            flow.lanes.extend(lane);
        }
        if cost > 0 {
            self.clock = self.clock.max(flow.tag);
            flow.tag = flow.tag.saturating_add(cost);
        }
        let after = (!flow.lanes.is_empty()).then(|| flow.turn(flow_number));
        let Some(site) = self.sites.get_mut(site_number) else { return };
        site.flows.remove(&before);
        match after {
            Some(after) => drop(site.flows.insert(after)),
            None => {
                if let Some(flow) = self.flows.remove(flow_number) {
                    site.by_key.remove(&flow.key);
                }
            }
        }
        if cost > 0 {
            site.in_flight += 1;
        }
        self.reorder(site_number);
        self.drop_if_unused(site_number);
    }

    /// An attempt at the site is over.
    pub(super) fn finished(&mut self, number: u32) {
        if let Some(site) = self.sites.get_mut(number) {
            site.in_flight = site.in_flight.saturating_sub(1);
        }
        self.reorder(number);
        self.drop_if_unused(number);
    }

    /// Nothing is attempted at the site before `until`; `None` ends a pause.
    pub(super) fn pause(&mut self, number: u32, until: Option<Timestamp>, because: &str) {
        if let Some(site) = self.sites.get_mut(number) {
            site.paused_until = until;
            site.because = because.into();
        }
        self.reorder(number);
        self.drop_if_unused(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stream: &str, priority: i8) -> FlowKey {
        ("".into(), stream.into(), priority)
    }

    fn site(name: &str) -> Site {
        Site { pool: "default".into(), name: name.into() }
    }

    fn serve(ready: &mut Ready, cost: impl Fn(u32) -> u64) -> Option<u32> {
        let (flow, lane) = ready.next()?;
        ready.served(flow, cost(lane), true);
        Some(lane)
    }

    #[test]
    fn weights_share_a_site() {
        let mut ready = Ready::new(usize::MAX);
        let number = ready.route_to(site("a"));
        ready.enqueue(number, key("light", 0), 1);
        ready.enqueue(number, key("heavy", 0), 2);
        let served: Vec<u32> =
            (0..400).filter_map(|_| serve(&mut ready, |lane| if lane == 1 { 300 } else { 100 })).collect();
        let heavy = served.iter().filter(|lane| **lane == 2).count();
        assert!((299..=301).contains(&heavy), "{heavy} of 400");
    }

    #[test]
    fn a_newcomer_is_served_at_once_and_a_tie_goes_to_the_higher_priority() {
        let mut ready = Ready::new(usize::MAX);
        let number = ready.route_to(site("a"));
        for flow in 0..50 {
            ready.enqueue(number, key(&format!("bulk{flow}"), 0), flow);
        }
        assert_eq!((0..500).filter_map(|_| serve(&mut ready, |_| 100)).count(), 500);
        ready.enqueue(number, key("reset", 5), 99);
        assert_eq!(serve(&mut ready, |_| 100), Some(99));
    }

    #[test]
    fn full_and_paused_sites_are_passed_over_and_forgotten_in_the_end() {
        let mut ready = Ready::new(1);
        let (a, b) = (ready.route_to(site("a")), ready.route_to(site("b")));
        ready.enqueue(a, key("x", 0), 1);
        ready.enqueue(b, key("x", 0), 2);
        assert_eq!(serve(&mut ready, |_| 1), Some(1));
        assert_eq!(serve(&mut ready, |_| 1), Some(2));
        assert_eq!(ready.next(), None, "one attempt each is the limit");
        ready.finished(a);
        ready.pause(a, Some(Timestamp::from_secs(9)), "limit");
        assert_eq!(ready.next(), None);
        ready.pause(a, None, "");
        let (flow, lane) = ready.next().unwrap();
        assert_eq!(lane, 1);
        ready.served(flow, 0, false);
        ready.unroute(a);
        assert_eq!(ready.sites().count(), 1, "the site without routes is gone");
        assert_eq!(ready.route_to(site("b")), b);
    }
}

//! Counts in Redis or Valkey (feature `redis`): one set of limits for many nodes.
//!
//! Invariant: all limits of a decision are taken in one script, so in one round trip and all or none, by the
//! server's clock. A node may take a batch of decisions at once and spend it within [`RedisSettings::hold`]; the
//! sum of all nodes then exceeds a window's limit by at most the decisions already taken and not yet spent
//! (nodes x batch). With a batch of 1 it never exceeds it.
//!
//! While the server is away, each node keeps to its share, 1/nodes, of each rate and each concurrency, starting as
//! if the share had just been used; daily caps let nothing through, since nobody knows the count. When the server
//! is back, a rate that was used meanwhile starts there as if its burst had just been used.
//!
//! A lease of a connection ends in the store no earlier than at the moment that the permit names, and the key
//! that holds it lives a minute longer.
//!
//! The calls block for one round trip (a time-out at worst): call them where blocking is allowed.
//!
//! Not here: a client for everything (`wire.rs` runs scripts and nothing else).

mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright_core::Timestamp;

pub use wire::{Address, RedisLink, ScriptLink};

use crate::cell::Cell;
use crate::limit::{Bound, Limit, Limits};
use crate::memory::{give_back, take_all};
use crate::path::Key;
use crate::rate::Rate;
use crate::store::{Ask, LIMITS_PER_PATH, Receipt, Refused, TokenStore};

const TAKE: &str = include_str!("take.lua");
const LEASE: &str = include_str!("lease.lua");
/// Ticks (2^-20 ms) in a microsecond, times 1000.
const TICKS_PER_1000_MICROS: u64 = 1 << 20;
/// While a connection limit is full, ask again after at most this long.
const LEASE_POLL: Duration = Duration::from_millis(250);

/// How the store works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisSettings {
    /// Put before every key.
    pub prefix: Box<str>,
    /// How many nodes share the limits.
    pub nodes: u32,
    /// Which of them this is, from 0.
    pub node: u32,
    /// Decisions that a node takes at once.
    pub batch: u32,
    /// How long the decisions of a batch may be spent.
    pub hold: Duration,
    /// How long to wait before trying a server again that did not answer.
    pub retry: Duration,
    /// By whose clock: the server's, or (for simulations) the moments that callers give.
    pub server_time: bool,
}

impl RedisSettings {
    /// For one of so many nodes.
    pub fn for_node(node: u32, nodes: u32) -> RedisSettings {
        RedisSettings {
            prefix: "postwright:".into(),
            nodes: nodes.max(1),
            node,
            batch: 1,
            hold: Duration::from_secs(1),
            retry: Duration::from_secs(1),
            server_time: true,
        }
    }
}

/// Counts on a server, with a share of them at hand.
pub struct RedisTokenStore {
    settings: RedisSettings,
    inner: Mutex<Inner>,
}

struct Inner {
    link: Box<dyn ScriptLink>,
    local: HashMap<Key, Local>,
    leases: u64,
    /// The server did not answer; not before this moment is it tried again.
    away_until: Option<Timestamp>,
    /// How many times the server went away.
    outages: u32,
}

/// What this node has at hand of one limit.
struct Local {
    /// Units taken on the server and not yet spent, and until when they may be.
    units: u64,
    until: Timestamp,
    /// The outage up to which the server knows what was used.
    outages: u32,
    /// Counts this node's share while the server is away.
    share: Arc<Cell>,
    share_outage: u32,
}

impl RedisTokenStore {
    /// A store over a link.
    pub fn new(link: impl ScriptLink + 'static, settings: RedisSettings) -> RedisTokenStore {
        let link = Box::new(link);
        let inner = Inner { link, local: HashMap::new(), leases: 0, away_until: None, outages: 0 };
        RedisTokenStore { settings, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.settings.prefix)
    }

    fn time(&self, now: Timestamp) -> String {
        if self.settings.server_time {
            String::from("0")
        } else {
            (now.millis().saturating_mul(1000)).to_string()
        }
    }

    fn member(&self, lease: u64) -> String {
        format!("{}:{lease}", self.settings.node)
    }

    /// The seven arguments of one limit.
    fn arguments(
        &self,
        limit: &Limit,
        cost: u64,
        spent_unseen: bool,
        ttl: Duration,
        member: &str,
    ) -> [String; 7] {
        let batch = self.settings.batch.max(1).to_string();
        let text = |number: u64| number.to_string();
        let [kind, one, two, three, four, five] = match &limit.bound {
            Bound::Rate(rate) => {
                let (ticks, tolerance) = (rate.ticks(cost), rate.tolerance(rate.ticks(cost)));
                let room =
                    rate.tolerance(0).saturating_add(if rate.burst().is_some() { 0 } else { rate.ticks(1) });
                [
                    "r".into(),
                    text(micros_up(ticks)),
                    text(micros_down(tolerance)),
                    batch,
                    text(spent_unseen.into()),
                    text(micros_up(room)),
                ]
            }
            Bound::Daily { cap, zone } => [
                "d".into(),
                text((*cap).into()),
                (i64::from(zone.minutes()) * 60).to_string(),
                batch,
                text(cost),
                text(0),
            ],
            Bound::AtMost(most) => {
                ["l".into(), text((*most).into()), ttl.as_micros().to_string(), text(0), text(0), text(0)]
            }
        };
        [kind, one, two, three, four, five, member.to_owned()]
    }

    fn take_remotely(&self, inner: &mut Inner, want: &Want<'_>) -> std::io::Result<Result<(), Refused>> {
        let member = self.member(want.lease);
        let outages = inner.outages;
        let mut names = Vec::new();
        let mut arguments = vec![self.time(want.now)];
        for (_, limit, cost) in &want.remote {
            let unseen = inner.local.get(&limit.key).is_some_and(|local| local.outages != outages);
            names.push(self.name(&limit.key));
            arguments.extend(self.arguments(limit, *cost, unseen, want.ttl, &member));
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let answer = inner.link.run(TAKE, &names, &arguments)?;
        let number =
            |place: usize| answer.get(place).and_then(|value| u64::try_from(*value).ok()).unwrap_or(0);
        for (_, limit, _) in &want.remote {
            if let Some(local) = inner.local.get_mut(&limit.key) {
                local.outages = outages;
            }
        }
        if number(0) == 0 {
            let place = usize::try_from(number(1)).unwrap_or(0).checked_sub(1);
            let bound = place.and_then(|place| want.remote.get(place));
            let mut wait = Duration::from_millis(number(2).div_ceil(1000).max(1));
            if bound.is_some_and(|(_, limit, _)| matches!(limit.bound, Bound::AtMost(_))) {
                wait = wait.min(LEASE_POLL);
            }
            return Ok(Err(Refused { limit: bound.map(|(index, ..)| *index), until: want.now + wait }));
        }
        for ((_, limit, cost), place) in want.remote.iter().zip(1..) {
            let spare = number(place).saturating_sub(1).saturating_mul(*cost);
            let local =
                inner.local.entry(limit.key.clone()).or_insert_with(|| Local::new(&limit.key, outages));
            if !matches!(limit.bound, Bound::AtMost(_)) && spare > 0 {
                local.units = spare;
                local.until = want.now + self.settings.hold;
            }
        }
        Ok(Ok(()))
    }

    /// The server is away: this node's share, in memory.
    fn take_share(
        &self,
        inner: &mut Inner,
        limits: &Limits,
        want: &Want<'_>,
        ask: Ask,
    ) -> Result<Receipt, Refused> {
        let outages = inner.outages;
        let mut shares = Vec::with_capacity(limits.len());
        for (index, limit) in limits.iter().enumerate() {
            let bound = match share_of(&limit.bound, &self.settings) {
                Some(bound) => bound,
                // What is at hand was taken from, below; beyond it nobody knows the count.
                None if ask.cost(limit.kind) == 0 => limit.bound,
                None => return Err(Refused { limit: Some(index), until: want.now + self.settings.retry }),
            };
            let local =
                inner.local.entry(limit.key.clone()).or_insert_with(|| Local::new(&limit.key, outages));
            if let (Bound::Rate(rate), true) = (&bound, local.share_outage != outages) {
                local.share_outage = outages;
                local.share.start_at(rate.spent_at(want.now));
            }
            shares.push(Limit { bound, cell: Arc::clone(&local.share), ..limit.clone() });
        }
        take_all(&Limits::of(shares), ask, want.lease, want.ttl, want.now)
    }
}

/// One decision on its way.
struct Want<'a> {
    /// Place, limit and cost of what has to be asked of the server.
    remote: Vec<(usize, &'a Limit, u64)>,
    lease: u64,
    ttl: Duration,
    now: Timestamp,
}

impl Local {
    fn new(key: &Key, outages: u32) -> Local {
        let share = Arc::new(Cell::new(key.clone()));
        Local { units: 0, until: Timestamp::default(), outages, share, share_outage: 0 }
    }

    fn has(&self, cost: u64, now: Timestamp) -> bool {
        self.units >= cost && now < self.until
    }
}

impl TokenStore for RedisTokenStore {
    fn cell(&self, key: &Key, _: u64, _: &Bound) -> Arc<Cell> {
        // Holds the queue of waiting lanes of this node; the count is elsewhere.
        Arc::new(Cell::new(key.clone()))
    }

    fn take(&self, limits: &Limits, ask: Ask, ttl: Duration, now: Timestamp) -> Result<Receipt, Refused> {
        let mut inner = self.lock();
        // Unlike those of an earlier life of this node, since time has passed.
        inner.leases = inner.leases.max(now.millis() << 8) + 1;
        let lease = inner.leases;
        let wanted = limits.iter().enumerate().map(|(index, limit)| (index, limit, ask.cost(limit.kind)));
        let wanted: Vec<(usize, &Limit, u64)> = wanted.filter(|(.., cost)| *cost > 0).collect();
        let at_hand = |inner: &Inner, limit: &Limit, cost| {
            !matches!(limit.bound, Bound::AtMost(_))
                && inner.local.get(&limit.key).is_some_and(|local| local.has(cost, now))
        };
        let remote: Vec<_> =
            wanted.iter().filter(|(_, limit, cost)| !at_hand(&inner, limit, *cost)).copied().collect();
        let want = Want { remote, lease, ttl, now };
        if !want.remote.is_empty() {
            if inner.away_until.is_some_and(|until| now < until) {
                return self.take_share(&mut inner, limits, &want, ask);
            }
            match self.take_remotely(&mut inner, &want) {
                Ok(verdict) => {
                    inner.away_until = None;
                    verdict?;
                }
                Err(_) => {
                    if inner.away_until.is_none() {
                        inner.outages += 1;
                    }
                    inner.away_until = Some(now + self.settings.retry);
                    return self.take_share(&mut inner, limits, &want, ask);
                }
            }
        }
        for (index, limit, cost) in &wanted {
            if !want.remote.iter().any(|(other, ..)| other == index)
                && let Some(local) = inner.local.get_mut(&limit.key)
            {
                local.units = local.units.saturating_sub(*cost);
            }
        }
        Ok(Receipt { ask, lease, lease_until: now + ttl, marks: [REMOTE; LIMITS_PER_PATH] })
    }

    fn lease(&self, limits: &Limits, receipt: &mut Receipt, ttl: Duration, now: Timestamp) -> bool {
        let mut inner = self.lock();
        if !is_remote(receipt) {
            // Taken from this node's share: it ends by itself, and the connection with it.
            return now < receipt.lease_until;
        }
        let names = self.leased(limits, receipt);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let arguments = [self.time(now), self.member(receipt.lease), ttl.as_micros().to_string()];
        match inner.link.run(LEASE, &names, &arguments) {
            Ok(answer) if answer == [i64::try_from(names.len()).unwrap_or(-1)] => {
                receipt.lease_until = now + ttl;
                true
            }
            Ok(_) => false,
            // Nobody said that it is lost; it holds as long as it was promised.
            Err(_) => now < receipt.lease_until,
        }
    }

    fn release(&self, limits: &Limits, receipt: &Receipt, refund: bool) {
        let mut inner = self.lock();
        if !is_remote(receipt) {
            let shares: Vec<Limit> = limits
                .iter()
                .filter_map(|limit| {
                    let bound = share_of(&limit.bound, &self.settings).unwrap_or(limit.bound);
                    let cell = Arc::clone(&inner.local.get(&limit.key)?.share);
                    Some(Limit { bound, cell, ..limit.clone() })
                })
                .collect();
            if shares.len() == limits.len() {
                give_back(&Limits::of(shares), receipt, refund);
            }
            return;
        }
        let names = self.leased(limits, receipt);
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let arguments = [self.time(Timestamp::default()), self.member(receipt.lease), String::from("0")];
            // If it does not arrive, the lease ends by itself.
            let _ = inner.link.run(LEASE, &names, &arguments);
        }
        if refund {
            // Back to what is at hand, for the rest of its time; nothing was held longer than it may be.
            for limit in limits.iter().filter(|limit| !matches!(limit.bound, Bound::AtMost(_))) {
                if let Some(local) = inner.local.get_mut(&limit.key) {
                    local.units = local.units.saturating_add(receipt.ask.cost(limit.kind));
                }
            }
        }
    }

    fn sweep(&self, now: Timestamp) {
        let mut inner = self.lock();
        let outages = inner.outages;
        inner.local.retain(|_, local| {
            let used = now < local.until || local.share.leases() > 0;
            used || local.outages != outages || (outages > 0 && local.share_outage == outages)
        });
    }
}

/// Marks of a receipt that the server gave.
const REMOTE: u64 = u64::MAX;

fn is_remote(receipt: &Receipt) -> bool {
    receipt.marks.first() == Some(&REMOTE)
}

impl RedisTokenStore {
    fn leased(&self, limits: &Limits, receipt: &Receipt) -> Vec<String> {
        let leased = limits
            .iter()
            .filter(|limit| matches!(limit.bound, Bound::AtMost(_)) && receipt.ask.cost(limit.kind) > 0);
        leased.map(|limit| self.name(&limit.key)).collect()
    }
}

impl fmt::Debug for RedisTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTokenStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// This node's share of a limit; `None` where a share would not be safe.
fn share_of(bound: &Bound, settings: &RedisSettings) -> Option<Bound> {
    let nodes = settings.nodes.max(1);
    match bound {
        Bound::Rate(rate) => share_of_rate(rate, nodes).map(Bound::Rate),
        Bound::AtMost(most) => Some(Bound::AtMost(most / nodes + u32::from(settings.node < most % nodes))),
        Bound::Daily { .. } => None,
    }
}

fn share_of_rate(rate: &Rate, nodes: u32) -> Option<Rate> {
    let shared = match u32::try_from(rate.period().as_secs()).ok() {
        // The same count in a longer period is exact; dividing the count would round.
        Some(_) => Rate::per(rate.count(), rate.period().checked_mul(nodes)?),
        None => return None,
    };
    let shared =
        shared.or_else(|_| Rate::per((rate.count() / u64::from(nodes)).max(1), rate.period())).ok()?;
    Some(match rate.burst() {
        Some(burst) => shared.with_burst(burst / u64::from(nodes)),
        None => shared,
    })
}

fn micros_up(ticks: u64) -> u64 {
    u64::try_from((u128::from(ticks) * 1000).div_ceil(u128::from(TICKS_PER_1000_MICROS))).unwrap_or(u64::MAX)
}

fn micros_down(ticks: u64) -> u64 {
    u64::try_from(u128::from(ticks) * 1000 / u128::from(TICKS_PER_1000_MICROS)).unwrap_or(u64::MAX)
}

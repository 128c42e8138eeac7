//! Orders of an operator that last: suspensions, bindings to a route, cancellations. They are kept in the spool as
//! controls, so that they survive a restart.
//!
//! Invariant: an order that has ended has no effect; one kind and selector have one order at most.
//!
//! Not here: what is done to the messages (mod).

use bytes::Bytes;
use postwright_core::Timestamp;

use super::jobs::Jobs;
use super::lane::Lane;
use super::policy::Selector;
use crate::codec::DecodeError;
use crate::codec::wire::{Reader, Writer};
use crate::{Change, SpoolId};

/// All keys of ours begin with this.
const PREFIX: &str = "order/";
const VERSION: u8 = 2;
/// Without jobs.
const FIRST_VERSION: u8 = 1;

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderKind {
    /// Attempt nothing. What is in flight is finished; lifetimes run on.
    Suspend,
    /// Send by this route, whatever the look-up says.
    Bind(Box<str>),
    /// Remove what is queued now; what comes later is not touched.
    Cancel {
        /// Whether the sender is told.
        bounce: bool,
    },
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which messages it applies to.
    pub selector: Selector,
    /// What is to be done.
    pub kind: OrderKind,
    /// When it ends.
    pub until: Timestamp,
    /// When it was given; a cancellation applies to what was accepted before.
    pub given: Timestamp,
    /// Why, for whoever asks.
    pub reason: Box<str>,
}

impl Order {
    /// The key of its control.
    pub fn key(&self) -> String {
        let kind = match self.kind {
            OrderKind::Suspend => "suspend",
            OrderKind::Bind(_) => "bind",
            OrderKind::Cancel { .. } => "cancel",
        };
        format!("{PREFIX}{kind}/{}", self.selector)
    }

    /// The change that keeps it in a spool.
    pub(super) fn to_change(&self) -> Change {
        let mut w = Writer::default();
        w.byte(VERSION);
        match &self.kind {
            OrderKind::Suspend => w.byte(0),
            OrderKind::Bind(route) => {
                w.byte(1);
                w.str(route);
            }
            OrderKind::Cancel { bounce } => {
                w.byte(2);
                w.bool(*bounce);
            }
        }
        w.option(self.selector.message, |w, id| w.raw(id.as_bytes()));
        w.option(self.selector.job.as_deref(), Writer::str);
        w.option(self.selector.tenant.as_deref(), Writer::str);
        w.option(self.selector.stream.as_deref(), Writer::str);
        w.option(self.selector.domain.as_ref(), |w, domain| w.str(domain.as_str()));
        w.time(self.until);
        w.time(self.given);
        w.str(&self.reason);
        Change::Control { key: self.key().into(), value: Some(w.into_inner().into()) }
    }

    /// The change that forgets it.
    pub(super) fn forget(&self) -> Change {
        Change::Control { key: self.key().into(), value: None }
    }

    fn decode(value: &[u8]) -> Result<Order, DecodeError> {
        let mut r = Reader::new(value);
        let version = r.byte()?;
        if version != VERSION && version != FIRST_VERSION {
            return Err(DecodeError::Version(version));
        }
        let kind = match r.byte()? {
            0 => OrderKind::Suspend,
            1 => OrderKind::Bind(r.str()?.into()),
            2 => OrderKind::Cancel { bounce: r.bool()? },
            _ => return Err(DecodeError::Malformed("an order")),
        };
        let message = r.option(|r| {
            let bytes = r.take(16)?.try_into().map_err(|_| DecodeError::Truncated)?;
            Ok(SpoolId::from_bytes(bytes))
        })?;
        let job = if version == FIRST_VERSION { None } else { r.option(|r| r.str().map(Into::into))? };
        let tenant = r.option(|r| r.str().map(Into::into))?;
        let stream = r.option(|r| r.str().map(Into::into))?;
        let domain = r.option(|r| r.parse("a domain"))?;
        let selector = Selector { message, job, tenant, stream, domain };
        let order = Order { selector, kind, until: r.time()?, given: r.time()?, reason: r.str()?.into() };
        r.end()?;
        Ok(order)
    }
}

/// The orders in force.
#[derive(Default)]
pub(super) struct Orders {
    orders: Vec<Order>,
}

impl Orders {
    /// Reads an order back; `None` if the control is not one.
    pub(super) fn read(key: &str, value: &Bytes) -> Option<Result<Order, DecodeError>> {
        key.starts_with(PREFIX).then(|| Order::decode(value))
    }

    pub(super) fn give(&mut self, order: Order) {
        self.orders.retain(|old| old.key() != order.key());
        self.orders.push(order);
    }

    /// Takes an order back and returns it.
    pub(super) fn take_back(&mut self, key: &str) -> Option<Order> {
        let at = self.orders.iter().position(|order| order.key() == key)?;
        Some(self.orders.remove(at))
    }

    /// Takes out the orders that have ended.
    pub(super) fn ended(&mut self, now: Timestamp) -> Vec<Order> {
        let ended = self.orders.iter().filter(|order| order.until <= now).cloned().collect();
        self.orders.retain(|order| order.until > now);
        ended
    }

    /// When the next order ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.orders.iter().map(|order| order.until).min()
    }

    /// Whether exactly this order is in force, by its control.
    pub(super) fn knows(&self, key: &str, value: &Bytes) -> bool {
        let same = |order: &&Order| matches!(order.to_change(), Change::Control { value: Some(known), .. } if known == *value);
        self.orders.iter().filter(|order| order.key() == key).any(|order| same(&order))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Order> {
        self.orders.iter()
    }

    /// The suspension of a lane that lasts longest.
    pub(super) fn suspension(&self, lane: &Lane, now: Timestamp) -> Option<&Order> {
        let suspends = |order: &&Order| {
            order.kind == OrderKind::Suspend && order.until > now && order.selector.matches_lane(lane)
        };
        self.orders.iter().filter(suspends).max_by_key(|order| order.until)
    }

    /// The suspension of one message, by its id or its job, that lasts longest.
    pub(super) fn hold(&self, id: SpoolId, jobs: &Jobs, lane: &Lane, now: Timestamp) -> Option<&Order> {
        let holds = |order: &&Order| {
            order.kind == OrderKind::Suspend
                && order.until > now
                && order.selector.is_of_messages()
                && order.selector.matches_message(id, jobs, lane)
        };
        self.orders.iter().filter(holds).max_by_key(|order| order.until)
    }

    /// The route that a lane is bound to; the latest order counts.
    pub(super) fn binding(&self, lane: &Lane, now: Timestamp) -> Option<Box<str>> {
        self.orders.iter().rev().find_map(|order| match &order.kind {
            OrderKind::Bind(route) if order.until > now && order.selector.matches_lane(lane) => {
                Some(route.clone())
            }
            _ => None,
        })
    }

    /// The cancellation that applies to a message accepted at `created`: whether its sender is told.
    pub(super) fn cancellation(
        &self,
        id: SpoolId,
        jobs: &Jobs,
        lane: &Lane,
        created: Timestamp,
        now: Timestamp,
    ) -> Option<bool> {
        self.orders.iter().find_map(|order| match order.kind {
            OrderKind::Cancel { bounce }
                if order.until > now
                    && created <= order.given
                    && order.selector.matches_message(id, jobs, lane) =>
            {
                Some(bounce)
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(kind: OrderKind) -> Order {
        Order {
            selector: Selector {
                message: Some(SpoolId::from_bytes([7; 16])),
                job: Some("newsletter 7".into()),
                tenant: Some("a \"b\"".into()),
                stream: None,
                domain: "example.org".parse().ok(),
            },
            kind,
            until: Timestamp::from_secs(9),
            given: Timestamp::from_secs(5),
            reason: "why".into(),
        }
    }

    #[test]
    fn orders_come_back_from_their_control() {
        for kind in [
            OrderKind::Suspend,
            OrderKind::Bind("smart-host".into()),
            OrderKind::Cancel { bounce: true },
            OrderKind::Cancel { bounce: false },
        ] {
            let order = order(kind);
            let Change::Control { key, value: Some(value) } = order.to_change() else { panic!("a control") };
            assert_eq!(Orders::read(&key, &value), Some(Ok(order)));
            assert_eq!(Orders::read("else", &value), None);
            for len in 0..value.len() {
                assert!(Order::decode(&value[..len]).is_err(), "cut to {len}");
            }
        }
    }

    /// As version 1 wrote it, by hand: a cancellation without notification of tenant "t", until 9 s, given at 5 s.
    #[test]
    fn orders_of_the_first_version_are_read() {
        let Change::Control { value: Some(value), .. } = (Order {
            selector: Selector { tenant: Some("t".into()), ..Selector::default() },
            ..order(OrderKind::Cancel { bounce: false })
        })
        .to_change() else {
            panic!("a control")
        };
        // Version, kind, whether to tell, no message; then version 2 has the job, which version 1 does not.
        let mut first = value.to_vec();
        assert_eq!(first[..5], [2, 2, 0, 0, 0]);
        first.remove(4);
        first[0] = 1;
        let read = Order::decode(&first).unwrap();
        assert_eq!((read.selector.tenant.as_deref(), read.selector.job), (Some("t"), None));
    }

    #[test]
    fn one_order_a_kind_and_selector() {
        let mut orders = Orders::default();
        orders.give(order(OrderKind::Suspend));
        orders.give(Order { until: Timestamp::from_secs(20), ..order(OrderKind::Suspend) });
        orders.give(order(OrderKind::Cancel { bounce: true }));
        assert_eq!(orders.iter().count(), 2);
        assert_eq!(orders.ended(Timestamp::from_secs(10)).len(), 1);
        assert!(orders.take_back(&order(OrderKind::Suspend).key()).is_some());
        assert_eq!(orders.iter().count(), 0);
    }
}

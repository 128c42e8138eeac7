//! What can be limited, and by what: [`Kind`], [`Dimension`], [`Scope`], [`Bound`] and the resolved [`Limits`].
//!
//! Invariant: a [`Limit`] is of a kind that its [`Bound`] fits, and its key names exactly the dimensions of its scope.
//!
//! Not here: which limits apply to which path (`policy.rs`).

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use crate::cell::Cell;
use crate::latch::Latches;
use crate::path::Key;
use crate::rate::Meter;
use crate::{Rate, Zone};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Messages a period, or messages a calendar day.
    Messages,
    /// Octets a period.
    Bytes,
    /// New connections a period.
    Connections,
    /// Connections open at the same time.
    Concurrency,
    /// Messages on one connection before it is closed.
    MessagesPerConnection,
    /// Recipients in one transaction.
    RecipientsPerMessage,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 6] = [
        Kind::Messages,
        Kind::Bytes,
        Kind::Connections,
        Kind::Concurrency,
        Kind::MessagesPerConnection,
        Kind::RecipientsPerMessage,
    ];

    /// The name in rules files and explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Messages => "messages",
            Kind::Bytes => "bytes",
            Kind::Connections => "connections",
            Kind::Concurrency => "concurrency",
            Kind::MessagesPerConnection => "messages-per-connection",
            Kind::RecipientsPerMessage => "recipients-per-message",
        }
    }

    /// Whether a bound makes sense for this kind.
    pub fn takes(self, bound: &Bound) -> bool {
        match bound {
            Bound::Rate(_) => matches!(self, Kind::Messages | Kind::Bytes | Kind::Connections),
            Bound::Daily { .. } => self == Kind::Messages,
            Bound::AtMost(_) => {
                matches!(self, Kind::Concurrency | Kind::MessagesPerConnection | Kind::RecipientsPerMessage)
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// By what a limit is shared or kept apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dimension {
    /// The egress source (one IP address and EHLO name).
    Source,
    /// The pool that the source was chosen from.
    Pool,
    /// Whose mail it is.
    Tenant,
    /// What kind of mail it is.
    Stream,
    /// The recipient's domain.
    Domain,
    /// The set of mail hosts that serve the domain.
    Site,
    /// The mailbox provider behind the site.
    Provider,
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Dimension {
    /// All dimensions, in the order in which keys and scopes are written.
    pub const ALL: [Dimension; 7] = [
        Dimension::Source,
        Dimension::Pool,
        Dimension::Tenant,
        Dimension::Stream,
        Dimension::Domain,
        Dimension::Site,
        Dimension::Provider,
    ];

    /// The name in rules files and explanations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dimension::Source => "source",
            Dimension::Pool => "pool",
            Dimension::Tenant => "tenant",
            Dimension::Stream => "stream",
            Dimension::Domain => "domain",
            Dimension::Site => "site",
            Dimension::Provider => "provider",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of dimensions: paths that agree in all of them share the limit. The empty scope is shared by all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Scope(u8);

impl Scope {
    /// One limit for everything.
    pub const GLOBAL: Scope = Scope(0);
    /// What most limits of a receiver are kept by.
    pub const SOURCE_SITE: Scope = Scope::of(&[Dimension::Source, Dimension::Site]);

    /// The scope of these dimensions.
    pub const fn of(dimensions: &[Dimension]) -> Scope {
        let (mut bits, mut rest) = (0, dimensions);
        while let [first, tail @ ..] = rest {
            bits |= first.bit();
            rest = tail;
        }
        Scope(bits)
    }

    /// Whether paths that differ in this dimension have a limit each.
    pub fn has(self, dimension: Dimension) -> bool {
        self.0 & dimension.bit() != 0
    }

    /// What two scopes have in common: paths that share a limit by either of them agree in these dimensions.
    #[must_use]
    pub const fn and(self, other: Scope) -> Scope {
        Scope(self.0 & other.0)
    }

    /// The dimensions in their order.
    pub fn dimensions(self) -> impl Iterator<Item = Dimension> {
        Dimension::ALL.into_iter().filter(move |dimension| self.has(*dimension))
    }
}

/// `source+site`, or `global`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Scope::GLOBAL {
            return f.write_str("global");
        }
        for (index, dimension) in self.dimensions().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { "+" }, dimension.as_str())?;
        }
        Ok(())
    }
}

/// A word of a scope is not a dimension.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of source, pool, tenant, stream, domain, site, provider (joined by +), or global")]
pub struct ScopeError(pub Box<str>);

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Scope, ScopeError> {
        if text == "global" {
            return Ok(Scope::GLOBAL);
        }
        text.split('+').map(str::trim).try_fold(Scope::GLOBAL, |scope, word| {
            let found = Dimension::ALL.into_iter().find(|dimension| dimension.as_str() == word);
            found.map(|dimension| Scope(scope.0 | dimension.bit())).ok_or_else(|| ScopeError(word.into()))
        })
    }
}

/// How much.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bound {
    /// So many a period.
    Rate(Rate),
    /// So many a calendar day.
    Daily {
        /// How many; 0 stops the path for the day.
        cap: u32,
        /// Whose midnight.
        zone: Zone,
    },
    /// So many at a time (or on one connection, or in one transaction).
    AtMost(u32),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Rate(rate) => rate.fmt(f),
            Bound::Daily { cap, zone } => write!(f, "{cap} a calendar day ({zone})"),
            Bound::AtMost(count) => count.fmt(f),
        }
    }
}

/// A limit on a path, with the cell in which it is counted.
#[derive(Clone, Debug)]
pub struct Limit {
    /// What is counted.
    pub kind: Kind,
    /// Who shares it.
    pub scope: Scope,
    /// How much.
    pub bound: Bound,
    /// The name under which every node and every restart finds the same count.
    pub key: Key,
    /// Which layer of the policy set it, such as `provider gmail`.
    pub origin: Arc<str>,
    pub(crate) cell: Arc<Cell>,
}

impl Limit {
    /// The cell in which the limit is counted.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }
}

/// What a decision needs of one bound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Rate(Meter),
    Daily { cap: u32, zone: Zone },
    Leases(u32),
}

/// What a decision reads of one limit, without what it takes to explain it.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    pub(crate) kind: Kind,
    pub(crate) count: Count,
    pub(crate) cell: Arc<Cell>,
}

/// The limits on a path, resolved: a decision about them looks nothing up.
///
/// Invariant: counters and latches are those of the limits, in their order.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    list: Vec<Limit>,
    pub(crate) counters: Box<[Counter]>,
    pub(crate) latches: Latches,
}

impl Limits {
    /// These limits.
    pub fn of(list: Vec<Limit>) -> Limits {
        let counter = |limit: &Limit| {
            let count = match limit.bound {
                Bound::Rate(rate) => Count::Rate(rate.meter()),
                Bound::Daily { cap, zone } => Count::Daily { cap, zone },
                Bound::AtMost(most) => Count::Leases(most),
            };
            Counter { kind: limit.kind, count, cell: Arc::clone(&limit.cell) }
        };
        let latches = Latches::of(list.iter().map(|limit| limit.cell.latch()));
        Limits { counters: list.iter().map(counter).collect(), latches, list }
    }

    /// Whether somebody waits in line for one of them.
    #[inline]
    pub(crate) fn have_waiters(&self) -> bool {
        self.counters.iter().any(|counter| counter.cell.has_waiters())
    }
}

impl Deref for Limits {
    type Target = [Limit];

    fn deref(&self) -> &[Limit] {
        &self.list
    }
}

/// `messages 100/min by source+site (provider gmail)`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} by {} ({})", self.kind, self.bound, self.scope, self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sets_with_one_spelling() {
        let scope: Scope = "site + source".parse().unwrap();
        assert_eq!(scope, Scope::SOURCE_SITE);
        assert_eq!(scope.to_string(), "source+site");
        assert_eq!("global".parse::<Scope>().unwrap().to_string(), "global");
        assert_eq!("source+town".parse::<Scope>(), Err(ScopeError("town".into())));
    }
}

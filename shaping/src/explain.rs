//! Why: [`Explanation`] lists every limit on a path, where it was set, and which of them can never bind.
//!
//! Invariant: a limit is called idle only if whatever another limit on the path lets through, it lets through
//! too: the other one counts at least the same items (same kind, a scope that is no finer) and is no looser over
//! any window. The converse is not promised: some limits that never bind are not recognised.
//!
//! Not here: deciding (`shaper.rs`).

use std::fmt;

use crate::limit::{Bound, Limit, Scope};
use crate::path::Path;

const DAY_MILLIS: u64 = 86_400_000;

/// One limit of a path.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The limit.
    pub limit: Limit,
    /// The place (in [`Explanation::limits`]) of a limit because of which this one can never bind.
    pub idle_because_of: Option<usize>,
}

/// All limits of a path.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The path.
    pub path: Path,
    /// The limits, ordered by kind.
    pub limits: Vec<Explained>,
    /// Most messages on a connection, if limited.
    pub messages_per_connection: Option<u32>,
    /// Most recipients in a transaction, if limited.
    pub recipients_per_message: Option<u32>,
}

impl Explanation {
    pub(crate) fn of(path: Path, limits: &[Limit], per_connection: [Option<u32>; 2]) -> Explanation {
        let [messages_per_connection, recipients_per_message] = per_connection;
        let explained = limits.iter().enumerate().map(|(index, limit)| {
            let mut others = limits.iter().enumerate();
            let stricter = others.find(|(other_index, other)| {
                *other_index != index
                    && implies(other, limit)
                    // Of two that imply each other the first one is the one that binds.
                    && (*other_index < index || !implies(limit, other))
            });
            Explained { limit: limit.clone(), idle_because_of: stricter.map(|(place, _)| place) }
        });
        Explanation { path, limits: explained.collect(), messages_per_connection, recipients_per_message }
    }
}

/// Whether everything that `strict` lets through is let through by `loose`.
fn implies(strict: &Limit, loose: &Limit) -> bool {
    strict.kind == loose.kind && covers(strict.scope, loose.scope) && is_stricter(&strict.bound, &loose.bound)
}

/// Whether all that share a count by `fine` share one by `coarse`.
fn covers(coarse: Scope, fine: Scope) -> bool {
    coarse.dimensions().all(|dimension| fine.has(dimension))
}

fn is_stricter(strict: &Bound, loose: &Bound) -> bool {
    match (strict, loose) {
        (Bound::AtMost(strict), Bound::AtMost(loose)) => strict <= loose,
        (Bound::Rate(strict), Bound::Rate(loose)) => {
            let (slow, fast) = (strict.ticks(1), loose.ticks(1));
            slow >= fast && strict.tolerance(slow) <= loose.tolerance(fast)
        }
        (Bound::Rate(strict), Bound::Daily { cap, .. }) => {
            // At most this many items in any day, by the bound on windows.
            let unit = strict.ticks(1);
            let day = DAY_MILLIS << 20;
            day.saturating_add(strict.tolerance(unit)).div_ceil(unit.max(1)) <= u64::from(*cap)
        }
        (Bound::Daily { cap: strict, zone }, Bound::Daily { cap: loose, zone: other }) => {
            strict <= loose && zone == other
        }
        (Bound::Daily { .. } | Bound::AtMost(_), _) | (Bound::Rate(_), Bound::AtMost(_)) => false,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, explained) in self.limits.iter().enumerate() {
            write!(f, "{}. {}", index + 1, explained.limit)?;
            match explained.idle_because_of {
                Some(other) => writeln!(f, ": never binds because of {}", other + 1)?,
                None => writeln!(f)?,
            }
        }
        if let Some(most) = self.messages_per_connection {
            writeln!(f, "messages a connection: {most}")?;
        }
        if let Some(most) = self.recipients_per_message {
            writeln!(f, "recipients a message: {most}")?;
        }
        Ok(())
    }
}

//! The outside world in one struct: no globals, so that two systems with different worlds live in one process.

use std::sync::Arc;

use crate::{Clock, Entropy, Resolver};

/// Time, randomness and DNS, as plugged in by the embedder.
#[derive(Clone)]
pub struct World {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub entropy: Arc<dyn Entropy>,
    /// Who answers DNS questions.
    pub resolver: Arc<dyn Resolver>,
}

impl World {
    /// A world that repeats itself: a manual clock, seeded randomness and the given zone.
    pub fn simulated(seed: u64, zone: crate::MemoryZone) -> World {
        World {
            clock: Arc::new(crate::ManualClock::default()),
            entropy: Arc::new(crate::SeededEntropy::new(seed)),
            resolver: Arc::new(zone),
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

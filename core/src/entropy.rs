//! Randomness: the seam [`Entropy`], the operating system's and a seeded one.
//!
//! Invariant: two [`SeededEntropy`] of one seed give the same octets in the same order, on every platform.
//!
//! Not here: key generation (dkim asks its crypto provider).

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random octets.
pub trait Entropy: Send + Sync {
    /// Fills `out` with random octets.
    fn fill(&self, out: &mut [u8]);

    /// A random number of 64 bits.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number below `bound`, or 0 if `bound` is 0. The bias is below `bound` / 2^64.
    fn below(&self, bound: u64) -> u64 {
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

/// The operating system's generator; fit for keys, nonces and ids.
#[cfg(feature = "system")]
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

#[cfg(feature = "system")]
impl Entropy for SystemEntropy {
    /// # Panics
    /// If the operating system has no randomness: there is no safe way on.
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives randomness");
    }
}

/// A deterministic stream for tests and simulation (SplitMix64). Never for secrets.
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

impl SeededEntropy {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> SeededEntropy {
        SeededEntropy { state: AtomicU64::new(seed) }
    }

    /// A stream of its own for a subsystem: one subsystem's draws never move another's.
    pub fn fork(&self, label: &str) -> SeededEntropy {
        let mut hash = self.state.load(Ordering::Relaxed) ^ 0xcbf2_9ce4_8422_2325;
        for byte in label.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        SeededEntropy::new(hash)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        for piece in out.chunks_mut(8) {
            let mut z = self.state.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            piece.copy_from_slice(&z.to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream() {
        // The first outputs of SplitMix64 for seed 1234567, from its reference implementation (Vigna).
        let entropy = SeededEntropy::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| entropy.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn forks_differ_by_label_and_below_is_below() {
        let root = SeededEntropy::new(1);
        assert_ne!(root.fork("mx").next_u64(), root.fork("retry").next_u64());
        assert_eq!(root.fork("mx").next_u64(), root.fork("mx").next_u64());
        assert!((0..1000).all(|_| root.below(7) < 7));
        assert_eq!(root.below(0), 0);
    }
}

//! A lock for a few words: [`Latch`], and [`Held`], several of them at once.
//!
//! Invariant: whoever holds several took them in the order of their numbers, so two never wait for each other; what
//! is held is given back by `Drop`, also when a panic passes by.
//!
//! Why not a `Mutex`: what it protects takes some tens of nanoseconds, allocates nothing and calls nobody, so that
//! waiting is shorter than going to sleep would be; one word taken by one exchange and given back by one store costs
//! half of a mutex, and a decision is not much more than that. Whoever waits for long (the holder lost its
//! processor) yields.
//!
//! Not here: what is counted (`cell.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Looks at the latch so many times before giving the processor away.
const SPINS: u32 = 100;

/// Alone on its cache lines, since all threads write to it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Latch {
    held: AtomicBool,
    number: usize,
}

impl Latch {
    pub(crate) fn new(number: usize) -> Latch {
        Latch { held: AtomicBool::new(false), number }
    }

    /// The place in the order of taking.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    #[inline]
    fn take(&self) {
        if self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        loop {
            while self.held.load(Ordering::Relaxed) {
                looks += 1;
                if looks < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
            if self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    #[inline]
    fn give(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// Takes this one alone.
    #[inline]
    pub(crate) fn hold(&self) -> HeldOne<'_> {
        self.take();
        HeldOne(self)
    }
}

/// Given back when this is dropped.
#[must_use]
pub(crate) struct HeldOne<'a>(&'a Latch);

impl Drop for HeldOne<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.give();
    }
}

/// Latches in the order of their numbers, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latches(Box<[Arc<Latch>]>);

impl Latches {
    /// All of these; doubles count once.
    pub(crate) fn of<'a>(latches: impl Iterator<Item = &'a Arc<Latch>>) -> Latches {
        let mut all: Vec<Arc<Latch>> = latches.cloned().collect();
        all.sort_by_key(|latch| latch.number());
        all.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Latches(all.into())
    }

    /// Takes all of them, until the answer is dropped.
    #[inline]
    pub(crate) fn hold(&self) -> Held<'_> {
        for latch in &self.0 {
            latch.take();
        }
        Held(&self.0)
    }
}

/// Given back when this is dropped.
#[must_use]
pub(crate) struct Held<'a>(&'a [Arc<Latch>]);

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        for latch in self.0 {
            latch.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn what_two_threads_add_under_a_latch_is_all_there() {
        let latches: Vec<Arc<Latch>> = (0..2).map(|number| Arc::new(Latch::new(number))).collect();
        let words = [AtomicU64::new(0), AtomicU64::new(0)];
        std::thread::scope(|scope| {
            for turned in [false, true] {
                let (latches, words) = (&latches, &words);
                scope.spawn(move || {
                    let order: Vec<_> =
                        if turned { latches.iter().rev().collect() } else { latches.iter().collect() };
                    let both = Latches::of(order.into_iter().chain(latches.first()));
                    for _ in 0..20_000 {
                        let _held = both.hold();
                        for word in words {
                            // Not one operation: only the latch keeps the other thread out.
                            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(words.map(AtomicU64::into_inner), [40_000; 2]);
    }

    #[test]
    fn a_panic_gives_it_back() {
        let latches = Latches::of([Arc::new(Latch::new(0))].iter());
        let caught = std::panic::catch_unwind(|| {
            let _held = latches.hold();
            panic!("on purpose");
        });
        assert!(caught.is_err());
        drop(latches.hold());
    }
}

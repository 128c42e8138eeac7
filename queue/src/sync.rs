//! What threads meet at, by one name: the files that say `super::sync` are compiled once more by the tests, over a
//! library that chooses the order in which threads run.
//!
//! Not here: locks of files that take no part in that.

#[cfg(feature = "embedded")]
pub(crate) use std::sync::mpsc;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

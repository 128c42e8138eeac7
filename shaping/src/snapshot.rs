//! Counts that survive: what a [`MemoryTokenStore`] writes down for its successor.
//!
//! Invariant: with checkpoints, no daily count ever exceeds what the latest checkpoint says, so a successor that
//! starts from it never lets more through on a day than the cap, even if the process was killed. What a crash
//! costs is the part of the day's cap that was set aside and not used.
//!
//! The format is one line a cell: the word, a tab, the key. Unknown or damaged lines are skipped.
//!
//! Not here: writing to a disk; the embedder keeps the text where it keeps its own state, synced before
//! [`Checkpoint::written`] is called.

use std::fmt::Write as _;
use std::sync::Arc;

use postwright_core::Timestamp;

use crate::cell::Cell;
use crate::memory::MemoryTokenStore;
use crate::path::Key;

/// Counts in text, and the promise not to exceed them.
#[derive(Debug)]
pub struct Checkpoint {
    /// What to keep.
    pub text: String,
    raised: Vec<(Arc<Cell>, u64)>,
}

impl Checkpoint {
    /// The text is where a crash cannot reach it: counting may go on up to what it says.
    pub fn written(self) {
        for (cell, ceiling) in self.raised {
            cell.raise_ceiling(ceiling);
        }
    }
}

impl MemoryTokenStore {
    /// All counts as they are: for an orderly end.
    pub fn snapshot(&self) -> String {
        let mut text = String::new();
        for cell in self.cells() {
            if let Some(word) = cell.saved_word(0) {
                line(&mut text, word, &cell);
            }
        }
        text
    }

    /// All counts, with each daily count raised by `ahead`. From the first checkpoint on, daily caps count only as
    /// far as the latest written one says, so take a checkpoint every few seconds, and set aside what may be sent
    /// in that time.
    pub fn checkpoint(&self, ahead: u32) -> Checkpoint {
        self.keep_to_checkpoints();
        let (mut text, mut raised) = (String::new(), Vec::new());
        for cell in self.cells() {
            if let Some(word) = cell.saved_word(ahead) {
                line(&mut text, word, &cell);
                if cell.is_daily() {
                    raised.push((cell, word));
                }
            }
        }
        Checkpoint { text, raised }
    }

    /// A store that goes on where a snapshot or a checkpoint left off. After a crash (`crashed`), rates start as
    /// if their burst had just been used.
    pub fn restore(text: &str, crashed: bool, now: Timestamp) -> MemoryTokenStore {
        let store = if crashed { MemoryTokenStore::after_crash(now) } else { MemoryTokenStore::new() };
        for (word, key) in text.lines().filter_map(|line| line.split_once('\t')) {
            let key = Key::named(key);
            // After a crash a rate is taken as used up, which is at least what was written down.
            if let (Ok(word), true) = (word.parse(), !crashed || Cell::new(key.clone()).is_daily()) {
                store.put_word(&key, word);
            }
        }
        store
    }
}

fn line(text: &mut String, word: u64, cell: &Cell) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{word}\t{}", cell.key());
}

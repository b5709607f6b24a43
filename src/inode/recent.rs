//! Where were the bytes that were looked for last?
//!
//! One run of a file, kept beside its inode so that a file in large extents is read and overwritten without a lock of
//! the inode or a look at its tree. A sequence lock over plain words: a reader that meets a change gives up and asks
//! the tree.
//!
//! Invariants:
//! 1. [`Recent::get`] returns only a run that one [`Recent::put`] put, whole.
//! 2. A run counts only as long as the mapping has the number it had when the run was read, under the inode's lock.
//!    Who holds bytes of the file in its `io` lock may use what it says of them: their mapping can not change
//!    meanwhile, even if others' does.

use crate::sync::atomic::{AtomicU64, Ordering, fence};
use crate::units::{Block, FileBlock, Run};

/// The run that was looked for last.
#[derive(Debug)]
pub struct Recent {
    /// Grows by two with each run that is kept; odd while the words below change.
    sequence: AtomicU64,
    /// The mapping's number when the run was read.
    mapping: AtomicU64,
    file: AtomicU64,
    pool: AtomicU64,
    /// Blocks; the lowest bit says whether they hold data.
    len: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        // No block lies in a run of no blocks.
        Self { sequence: zero(), mapping: zero(), file: zero(), pool: zero(), len: zero() }
    }
}

impl Recent {
    /// The pool blocks of file block `block` and on, as far as the kept run goes, and whether they hold data; if the
    /// block lies in it and the mapping's number is still `mapping`.
    #[must_use]
    #[inline]
    pub fn get(&self, mapping: u64, block: FileBlock) -> Option<(Run, bool)> {
        let sequence = self.sequence.load(Ordering::Acquire);
        if !sequence.is_multiple_of(2) || self.mapping.load(Ordering::Relaxed) != mapping {
            return None;
        }
        let (file, pool) = (self.file.load(Ordering::Relaxed), self.pool.load(Ordering::Relaxed));
        let word = self.len.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if self.sequence.load(Ordering::Relaxed) != sequence {
            return None;
        }
        let into = block.0.checked_sub(file)?;
        let left = (word >> 1).checked_sub(into).filter(|left| *left > 0)?;
        Some((Run::new(Block(pool + into), left), word & 1 == 1))
    }

    /// Keeps what was found under the inode's lock, while the mapping's number was `mapping`: the pool blocks of file
    /// block `file` and on, and whether they hold data. Where somebody else is at it, theirs is kept.
    pub fn put(&self, mapping: u64, file: FileBlock, run: Run, written: bool) {
        let before = self.sequence.load(Ordering::Relaxed);
        let (busy, after) = (before.wrapping_add(1), before.wrapping_add(2));
        if !before.is_multiple_of(2)
            || self.sequence.compare_exchange(before, busy, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        // Whoever reads one of the words below sees that they change when it looks at the sequence again.
        fence(Ordering::Release);
        self.mapping.store(mapping, Ordering::Relaxed);
        self.file.store(file.0, Ordering::Relaxed);
        self.pool.store(run.start.0, Ordering::Relaxed);
        self.len.store((run.len << 1) | u64::from(written), Ordering::Relaxed);
        self.sequence.store(after, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_from_any_of_its_blocks_as_long_as_the_mapping_stands() {
        let recent = Recent::default();
        assert_eq!(recent.get(0, FileBlock(0)), None, "nothing is kept at first");
        recent.put(7, FileBlock(10), Run::new(Block(100), 5), true);
        assert_eq!(recent.get(7, FileBlock(12)), Some((Run::new(Block(102), 3), true)));
        assert_eq!(recent.get(7, FileBlock(10)), Some((Run::new(Block(100), 5), true)));
        for outside in [0, 9, 15, 1 << 40] {
            assert_eq!(recent.get(7, FileBlock(outside)), None, "{outside}");
        }
        assert_eq!(recent.get(8, FileBlock(12)), None, "the mapping moved on");
        recent.put(8, FileBlock(1), Run::new(Block(3), 1), false);
        assert_eq!(recent.get(8, FileBlock(1)), Some((Run::new(Block(3), 1), false)));
    }
}

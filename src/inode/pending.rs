//! What of a file is written, and not yet the file's on the media?
//!
//! Writes at the level `ordered` fill blocks that no record names yet. What they give a file waits here, beside its
//! inode, until the pool's one [`Group`](super::Group) is committed: then it becomes the file's, with all that waits in other files,
//! in one record. Readers are shown the runs that wait in place of what the tree says.
//!
//! Invariants:
//! 1. What waits in a file grows under the group's lock and the shared `state` of the file, and goes under the group's
//!    lock and the exclusive `state`, in which the tree gets it: who holds `state` sees each write in one of the two.
//! 2. The blocks of a new run are the group's alone. They become a file's with its record, or are given back: they were
//!    never on the media.
//! 3. Bytes of blocks that wait are stored to under the group's lock, or before they wait: no commit is under way then.
//! 4. [`Pending::any`] is set before a write returns, and cleared after the mapping's number has moved on: who finds it
//!    clear may trust [`Recent`](super::Recent), of bytes that it holds in `io`.

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::units::{Block, FileBlock, Run};
use std::collections::BTreeMap;

/// Blocks that wait to hold a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRun {
    /// The first file block.
    pub file: FileBlock,
    /// Where they are.
    pub run: Run,
    /// They are new to the file, not unwritten space that it had.
    pub new: bool,
}

impl PendingRun {
    /// The file block after the last.
    #[must_use]
    pub const fn end(&self) -> FileBlock {
        FileBlock(self.file.0 + self.run.len)
    }

    fn clip(&self, from: FileBlock, to: FileBlock) -> Option<Self> {
        let (from, to) = (from.max(self.file), to.min(self.end()));
        let len = to.0.checked_sub(from.0).filter(|len| *len > 0)?;
        let start = Block(self.run.start.0 + (from.0 - self.file.0));
        Some(Self { file: from, run: Run::new(start, len), new: self.new })
    }

    fn continues_in(&self, next: &Self) -> bool {
        let one_group = self.run.start.chunk().group() == next.run.start.chunk().group();
        self.end() == next.file && self.run.end() == next.run.start && self.new == next.new && one_group
    }
}

/// What waits in one file.
#[derive(Debug, Default)]
pub struct Waiting {
    /// By first file block; no two overlap, or continue each other.
    runs: BTreeMap<FileBlock, PendingRun>,
    /// Bytes of the file, where it has grown.
    pub size: Option<u64>,
    /// When it was written last, nanoseconds since 1970.
    pub time: i64,
}

impl Waiting {
    /// The run that holds `block`, from it on.
    #[must_use]
    pub fn at(&self, block: FileBlock) -> Option<PendingRun> {
        let (_, run) = self.runs.range(..=block).next_back()?;
        run.clip(block, run.end())
    }

    /// The first block after `block` that waits.
    #[must_use]
    pub fn after(&self, block: FileBlock) -> Option<FileBlock> {
        self.runs.range(FileBlock(block.0 + 1)..).next().map(|(file, _)| *file)
    }

    /// All runs, ascending.
    pub fn runs(&self) -> impl Iterator<Item = &PendingRun> {
        self.runs.values()
    }

    /// Blocks that wait and are new to the file.
    #[must_use]
    pub fn new_runs(&self) -> Vec<Run> {
        self.runs().filter(|run| run.new).map(|run| run.run).collect()
    }

    /// How many blocks wait that are new to the file.
    #[must_use]
    pub fn new_blocks(&self) -> u64 {
        self.runs().filter(|run| run.new).map(|run| run.run.len).sum()
    }

    /// Lets `run` wait, in place of what waits at its blocks: returns the new blocks of that, which are nobody's now, and
    /// whether the run went on where another ended.
    pub fn put(&mut self, run: PendingRun) -> (Vec<Run>, bool) {
        let (from, to) = (run.file, run.end());
        let first = self.at(from).map_or(from, |_| self.start_of(from));
        let met: Vec<_> = self.runs.range(first..to).map(|(_, run)| *run).collect();
        let mut gone = Vec::new();
        for old in met {
            self.runs.remove(&old.file);
            for rest in [old.clip(old.file, from), old.clip(to, old.end())].into_iter().flatten() {
                self.runs.insert(rest.file, rest);
            }
            gone.extend(old.clip(from, to).filter(|old| old.new).map(|old| old.run));
        }
        if let Some((_, before)) = self.runs.range_mut(..from).next_back()
            && before.continues_in(&run)
        {
            before.run.len += run.run.len;
            return (gone, true);
        }
        self.runs.insert(from, run);
        (gone, false)
    }

    fn start_of(&self, block: FileBlock) -> FileBlock {
        self.runs.range(..=block).next_back().map_or(block, |(file, _)| *file)
    }
}

/// What waits in one file, and whether anything does.
#[derive(Debug, Default)]
pub struct Pending {
    any: AtomicBool,
    waiting: RwLock<Waiting>,
}

impl Pending {
    /// Whether anything waits.
    #[must_use]
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// What waits. The caller holds the file's `state`.
    pub fn read(&self) -> RwLockReadGuard<'_, Waiting> {
        self.waiting.read()
    }

    /// What waits, to be added to. The caller holds the group's lock, and the file's `state`.
    pub fn add(&self) -> RwLockWriteGuard<'_, Waiting> {
        let waiting = self.waiting.write();
        self.any.store(true, Ordering::Release);
        waiting
    }

    /// Nothing waits any more: the tree has it. The caller holds the group's lock and the file's exclusive `state`, and
    /// calls [`Self::settled`] after it published that.
    pub fn clear(&self) {
        *self.waiting.write() = Waiting::default();
    }

    /// What was cleared is published.
    pub fn settled(&self) {
        self.any.store(false, Ordering::Release);
    }

    /// The size that waits, or 0. The caller holds the file's `state`.
    #[must_use]
    pub fn size(&self) -> u64 {
        if self.any() { self.waiting.read().size.unwrap_or(0) } else { 0 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    fn run(file: u64, pool: u64, len: u64) -> PendingRun {
        PendingRun { file: FileBlock(file), run: Run::new(Block(pool), len), new: true }
    }

    #[test]
    fn what_waits_is_shown_and_what_it_covers_is_given_back() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.put(run(10, 1000, 4)), (vec![], false));
        assert_eq!(waiting.put(run(14, 1004, 2)), (vec![], true), "an append goes on where the last ended");
        assert_eq!(waiting.new_blocks(), 6);
        let back = waiting.put(run(12, 2000, 1)).0;
        assert_eq!(back, [Run::new(Block(1002), 1)]);
        let starts: Vec<_> = waiting.runs().map(|run| (run.file.0, run.run.start.0, run.run.len)).collect();
        assert_eq!(starts, [(10, 1000, 2), (12, 2000, 1), (13, 1003, 3)]);
        assert_eq!(waiting.at(FileBlock(13)).map(|run| run.run), Some(Run::new(Block(1003), 3)));
        assert_eq!((waiting.after(FileBlock(0)), waiting.at(FileBlock(16))), (Some(FileBlock(10)), None));
        let all = waiting.put(run(0, 5000, 100)).0;
        assert_eq!(all.iter().map(|run| run.len).sum::<u64>(), 6);
        assert_eq!(waiting.runs().count(), 1);
    }
}

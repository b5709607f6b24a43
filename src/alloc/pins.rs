//! Which freed blocks may nobody have yet?
//!
//! Memory that a device or another thread still writes to can be unmapped and its blocks freed; they must not become
//! somebody else's before the last write. Who needs that pins the blocks: freed on the media as ever, they stay taken
//! in DRAM until they are unpinned as often as they were pinned. After the pages that Linux keeps for whoever pinned them
//! (`pin_user_pages`), of which a store in user space knows nothing.
//!
//! Invariants:
//! 1. A freed block is either available or withheld; a withheld one is pinned.
//! 2. A block is pinned only while it is in use, by who keeps it from being freed meanwhile (the turn of its bytes); so
//!    a commit that frees it sees the pin.
//! 3. Which blocks are pinned and which are withheld change under one lock: a commit that frees a block and the
//!    last unpin of it agree who makes it available.

use super::Space;
use super::bits::{both, is_zero, minus, run, union};
use super::footprint::{Footprint, pieces};
use crate::error::{Damage, Result, Structure};
use crate::layout::Bits;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::units::{Block, Chunk, Run};
use std::collections::BTreeMap;

/// The blocks that are pinned, and those of them that were freed.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// Whether anything is pinned.
    any: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    pinned: Counts,
    /// Freed and not available, by chunk.
    withheld: BTreeMap<Chunk, Bits>,
}

/// How often each block is pinned: runs that do not overlap, by first block, with their end and a count above 0.
/// Neighbours have different counts.
#[derive(Debug, Default)]
struct Counts(BTreeMap<u64, (u64, u64)>);

impl Counts {
    /// Makes `at` the start of a run if it is in the middle of one.
    fn split(&mut self, at: u64) {
        if let Some((_, (end, count))) = self.0.range_mut(..at).next_back()
            && *end > at
        {
            let rest = (std::mem::replace(end, at), *count);
            self.0.insert(at, rest);
        }
    }

    /// Makes the runs that meet at `at` one if they have the same count.
    fn join(&mut self, at: u64) {
        let Some((end, count)) = self.0.get(&at).copied() else { return };
        if let Some((_, before)) = self.0.range_mut(..at).next_back()
            && *before == (at, count)
        {
            before.0 = end;
            self.0.remove(&at);
        }
    }

    fn joined(&mut self, starts: impl Iterator<Item = u64>) {
        starts.for_each(|at| self.join(at));
    }

    /// The starts of the runs in `run`, and the block after it.
    fn starts(&self, run: Run) -> Vec<u64> {
        self.0.range(run.start.0..=run.end().0).map(|(at, _)| *at).collect()
    }

    fn add(&mut self, run: Run) {
        self.split(run.start.0);
        self.split(run.end().0);
        let mut gaps = Vec::new();
        let mut at = run.start.0;
        for (start, (end, count)) in self.0.range_mut(run.start.0..run.end().0) {
            gaps.extend((at < *start).then_some((at, *start)));
            *count += 1;
            at = *end;
        }
        gaps.extend((at < run.end().0).then_some((at, run.end().0)));
        self.0.extend(gaps.into_iter().map(|(start, end)| (start, (end, 1))));
        let starts = self.starts(run);
        self.joined(starts.into_iter());
    }

    /// Takes one off; returns the runs that are not pinned any more.
    fn subtract(&mut self, run: Run) -> Vec<Run> {
        self.split(run.start.0);
        self.split(run.end().0);
        let mut gone = Vec::new();
        for (start, (end, count)) in self.0.range_mut(run.start.0..run.end().0) {
            *count -= 1;
            gone.extend((*count == 0).then_some(Run::new(Block(*start), *end - *start)));
        }
        gone.iter().for_each(|run| _ = self.0.remove(&run.start.0));
        let starts = self.starts(run);
        self.joined(starts.into_iter());
        gone
    }

    /// The pinned blocks of `chunk`.
    fn of(&self, chunk: Chunk) -> Bits {
        let (first, end) = (chunk.first_block().0, Chunk(chunk.0 + 1).first_block().0);
        let before = self.0.range(..first).next_back().filter(|(_, (to, _))| *to > first);
        let mut bits = Bits::default();
        for (start, (to, _)) in before.into_iter().chain(self.0.range(first..end)) {
            let from = (*start).max(first);
            bits.set_run(from - first, (*to).min(end) - from);
        }
        bits
    }
}

impl Pins {
    /// Whether a commit has to look here. Whoever frees a pinned block came after the pin (invariant 2), so it needs
    /// no order of its own.
    fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// How many runs of different counts there are.
    #[cfg(all(test, feature = "sim"))]
    pub fn pinned_runs(&self) -> usize {
        self.table.lock().pinned.0.len()
    }

    fn add(&self, runs: &[Run]) {
        let mut table = self.table.lock();
        runs.iter().filter(|run| run.len > 0).for_each(|run| table.pinned.add(*run));
        self.any.store(!table.pinned.0.is_empty(), Ordering::Relaxed);
    }

    /// Takes one pin off; returns the withheld blocks that are available now.
    fn subtract(&self, runs: &[Run]) -> Vec<(Chunk, Bits)> {
        let mut table = self.table.lock();
        let mut back = Vec::new();
        if mutation::is(Mutation::UnpinInTwoSteps) {
            back = table.end_withholding(runs);
            drop(table);
            table = self.table.lock();
        }
        let gone: Vec<_> = runs.iter().flat_map(|run| table.pinned.subtract(*run)).collect();
        self.any.store(!table.pinned.0.is_empty(), Ordering::Relaxed);
        if !mutation::is(Mutation::UnpinInTwoSteps) {
            back = table.end_withholding(&gone);
        }
        back
    }

    /// Notes that `freed` was freed; returns what of it is available now.
    fn withhold(&self, freed: impl Iterator<Item = (Chunk, Bits)>) -> Vec<(Chunk, Bits)> {
        let mut table = self.table.lock();
        let split = |(chunk, bits): (Chunk, Bits)| {
            let kept = both(&bits, &table.pinned.of(chunk));
            if !is_zero(&kept) {
                let withheld = table.withheld.entry(chunk).or_default();
                *withheld = union(withheld, &kept);
            }
            (chunk, minus(&bits, &kept))
        };
        freed.map(split).collect()
    }
}

impl Table {
    fn end_withholding(&mut self, runs: &[Run]) -> Vec<(Chunk, Bits)> {
        let mut back = Vec::new();
        for (chunk, from, len) in runs.iter().flat_map(|run| pieces(*run)) {
            let Some(withheld) = self.withheld.get_mut(&chunk) else { continue };
            let bits = both(withheld, &run(from, len));
            *withheld = minus(withheld, &bits);
            if is_zero(withheld) {
                self.withheld.remove(&chunk);
            }
            back.push((chunk, bits));
        }
        back
    }
}

impl Space {
    /// Keeps the blocks of `runs` from being given to anybody, freed or not, until they are unpinned as often as they
    /// are pinned. Nothing of it is on the media: when the pool is opened again, nothing is pinned. They are in use, and
    /// the caller keeps them from being freed in this moment.
    ///
    /// # Errors
    /// Damage where a run is not one that can be in use; nothing is pinned then.
    pub fn pin(&self, runs: &[Run]) -> Result<()> {
        let geometry = self.geometry();
        if let Some(bad) = runs.iter().find(|run| run.len > 0 && !geometry.is_allocatable(run.start, run.len))
        {
            let at = bad.start.offset();
            return Err(
                Damage::new(Structure::Extent, at, "pinned blocks outside the pool", 0, bad.len).into()
            );
        }
        self.pins.add(runs);
        Ok(())
    }

    /// Takes one [`Self::pin`] of each of `runs` back: those freed meanwhile, and pinned by nobody else, can be had.
    pub fn unpin(&self, runs: &[Run]) {
        let back = self.pins.subtract(runs);
        self.free(back);
    }

    /// Whether a block of `runs` is pinned. The caller keeps them from being pinned in this moment, as from being freed.
    pub fn is_pinned(&self, mut runs: impl Iterator<Item = Run>) -> bool {
        self.pins.any() && {
            let table = self.pins.table.lock();
            runs.any(|run| pieces(run).any(|(chunk, from, len)| table.pinned.of(chunk).any(from, len)))
        }
    }

    /// Makes what a commit freed available, but for what is pinned.
    pub(super) fn publish_freed(&self, footprint: &Footprint) {
        if !footprint.frees() {
            return;
        }
        if self.pins.any() && !mutation::is(Mutation::IgnorePins) {
            self.free(self.pins.withhold(footprint.freed()));
        } else {
            self.make_available(footprint.freed());
            self.taken.fetch_sub(footprint.freed_blocks() as i64, Ordering::AcqRel);
        }
    }

    fn free(&self, blocks: Vec<(Chunk, Bits)>) {
        let count: u64 = blocks.iter().map(|(_, bits)| bits.count()).sum();
        self.make_available(blocks.into_iter());
        self.taken.fetch_sub(count as i64, Ordering::AcqRel);
    }
}

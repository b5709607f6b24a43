//! Which free blocks are given to nobody, because the medium has lost them?
//!
//! A bad block that is free is *withheld*: it counts as taken, and no search finds it. It is available again once the
//! medium takes it again ([`Space::mend`]).
//!
//! Invariants:
//! 1. A withheld block is free on the media, durably, and reserved by no operation: only [`Space::mend`] touches it.
//! 2. A free chunk with a bad block is no free chunk: what is good of it is given out as of a broken one.

use super::Space;
use super::bits::{is_zero, minus, run_at, union};
use super::group::{GroupState, Piece};
use crate::error::{Error, Result};
use crate::layout::Bits;
use crate::pmem::Region;
use crate::units::{BLOCK_BYTES, Block, CHUNK_BLOCKS, CHUNK_BYTES, Chunk, GROUP_BYTES, Group, PoolOff};
use std::collections::BTreeMap;

/// The bad blocks of a chunk.
#[derive(Clone, Copy, Debug, Default)]
struct BadChunk {
    bad: Bits,
    withheld: Bits,
}

/// The bad blocks of a group, by chunk in the group.
#[derive(Debug, Default)]
pub(super) struct BadBlocks {
    chunks: BTreeMap<u64, BadChunk>,
    /// Withheld blocks, and as many as the pool's count has.
    withheld: i64,
    shown: i64,
}

/// What became of a group's blocks, by chunk in the group.
pub(super) struct Changed {
    /// Blocks that were good before.
    lost: Vec<(u64, Bits)>,
    /// Blocks that were withheld, and are good again.
    found: Vec<(u64, Bits)>,
}

/// The runs of set bits, ascending.
fn runs(bits: &Bits) -> Vec<(u64, u64)> {
    let free = minus(&Bits::ALL, bits);
    let (mut runs, mut at) = (Vec::new(), bits.next_set(0));
    while at < CHUNK_BLOCKS {
        let len = run_at(&free, at);
        runs.push((at, len));
        at = bits.next_set(at + len);
    }
    runs
}

fn both(a: &Bits, b: &Bits) -> Bits {
    minus(a, &minus(a, b))
}

/// What the region knows to be bad of `group`, by chunk in the group.
fn of_group(region: &Region, group: Group) -> BTreeMap<u64, Bits> {
    let mut chunks: BTreeMap<u64, Bits> = BTreeMap::new();
    let (mut at, end) = (group.offset(), group.offset().plus(GROUP_BYTES));
    while let Some((start, len)) = region.bad(at, end.0 - at.0) {
        for block in start.block().0..start.plus(len).block().0 {
            let block = Block(block);
            chunks.entry(block.chunk().in_group()).or_default().set_run(block.in_chunk(), 1);
        }
        at = start.plus(len);
    }
    chunks
}

impl BadBlocks {
    /// What is bad of `group`; nothing is withheld yet.
    pub fn load(region: &Region, group: Group) -> Self {
        let chunks = of_group(region, group).into_iter();
        let chunks = chunks.map(|(i, bad)| (i, BadChunk { bad, withheld: Bits::default() }));
        Self { chunks: chunks.collect(), ..Self::default() }
    }

    /// Takes in what is bad of `group` now.
    pub fn refresh(&mut self, region: &Region, group: Group) -> Changed {
        let now = of_group(region, group);
        let (mut lost, mut found) = (Vec::new(), Vec::new());
        for (i, bad) in &now {
            let chunk = self.chunks.entry(*i).or_default();
            lost.push((*i, minus(bad, &chunk.bad)));
            chunk.bad = union(bad, &chunk.bad);
        }
        for (i, chunk) in &mut self.chunks {
            let good = minus(&chunk.bad, now.get(i).unwrap_or(&Bits::default()));
            chunk.bad = minus(&chunk.bad, &good);
            // The good part of a chunk that could not be broken was withheld with the bad.
            let back = if is_zero(&chunk.bad) { chunk.withheld } else { both(&chunk.withheld, &good) };
            chunk.withheld = minus(&chunk.withheld, &back);
            self.withheld -= back.count() as i64;
            found.push((*i, back));
        }
        self.chunks.retain(|_, chunk| !is_zero(&chunk.bad));
        lost.retain(|(_, bits)| !is_zero(bits));
        found.retain(|(_, bits)| !is_zero(bits));
        Changed { lost, found }
    }

    /// The chunks with bad blocks.
    pub fn chunks(&self) -> Vec<u64> {
        self.chunks.keys().copied().collect()
    }

    /// What is bad of chunk `i`.
    pub fn of(&self, i: u64) -> Bits {
        self.chunks.get(&i).map_or(Bits::default(), |chunk| chunk.bad)
    }

    /// What is withheld of chunk `i`.
    pub fn withheld(&self, i: u64) -> Bits {
        self.chunks.get(&i).map_or(Bits::default(), |chunk| chunk.withheld)
    }

    /// Withholds what of the free blocks `bits` of chunk `i` is bad; returns the others.
    pub fn withhold(&mut self, i: u64, bits: &Bits) -> Bits {
        if self.chunks.is_empty() {
            return *bits;
        }
        let bad = both(bits, &self.of(i));
        self.withhold_all(i, &bad);
        minus(bits, &bad)
    }

    /// Withholds the free blocks `bits` of chunk `i`, which has a bad one.
    pub fn withhold_all(&mut self, i: u64, bits: &Bits) {
        if let Some(chunk) = self.chunks.get_mut(&i) {
            let before = chunk.withheld.count();
            chunk.withheld = union(&chunk.withheld, bits);
            self.withheld += chunk.withheld.count() as i64 - before as i64;
        }
    }

    /// By how much the withheld blocks have become more since this was asked last.
    pub fn show(&mut self) -> i64 {
        let before = std::mem::replace(&mut self.shown, self.withheld);
        self.withheld - before
    }
}

impl Space {
    /// Notes that the medium has lost the blocks of `len` bytes from `at`: nobody gets them any more.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn mark_bad(&self, at: PoolOff, len: u64) -> Result<()> {
        self.journal.region().mark_bad(at, len)?;
        self.refresh_bad(at, len)
    }

    fn refresh_bad(&self, at: PoolOff, len: u64) -> Result<()> {
        let chunks = self.geometry().chunks();
        if len == 0 || chunks == 0 {
            return Ok(());
        }
        let last = Chunk(at.plus(len - 1).block().chunk().0.min(chunks - 1)).group();
        for group in (at.block().chunk().group().0..=last.0).map(Group) {
            match self.with_group(group, |state, journal| {
                state.refresh_bad(journal.region());
                Ok(())
            }) {
                // A damaged group gives nothing away.
                Ok(()) | Err(Error::Corrupt(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has the medium take the bad blocks again that are nobody's: how many it did. What a file holds stays lost.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], errors of the medium.
    pub fn mend(&self) -> Result<u64> {
        // One at a time: a block that one has mended may be a file's by when another comes to it.
        let _alone = self.mending.lock();
        let mut mended = 0;
        for (at, len) in self.journal.region().bad_ranges() {
            for chunk in at.block().chunk().0..at.plus(len).0.div_ceil(CHUNK_BYTES) {
                mended += self.mend_chunk(Chunk(chunk))?;
            }
        }
        Ok(mended)
    }

    fn mend_chunk(&self, chunk: Chunk) -> Result<u64> {
        if chunk.0 >= self.geometry().chunks() {
            return Ok(0);
        }
        let (group, i) = (chunk.group(), chunk.in_group());
        let found = self.with_group(group, |state, journal| {
            state.read_chunk(journal, i)?;
            Ok(both(&state.bad.withheld(i), &state.bad.of(i)))
        });
        let withheld = match found {
            Ok(withheld) => withheld,
            Err(Error::Corrupt(_)) => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut mended = 0;
        for (from, len) in runs(&withheld) {
            let at = Block(chunk.first_block().0 + from).offset();
            if self.journal.region().mend(at, len * BLOCK_BYTES)? {
                self.refresh_bad(at, len * BLOCK_BYTES)?;
                mended += len;
            }
        }
        Ok(mended)
    }
}

impl GroupState {
    /// Withholds the bad blocks of the free chunks, and breaks those chunks.
    pub fn withhold_free(&mut self, region: &Region) {
        for i in self.bad.chunks() {
            self.break_flawed(region, i);
        }
    }

    /// Makes the free chunk `i`, which has bad blocks, a broken one. Where the host does not provide it, none of it is
    /// given away.
    fn break_flawed(&mut self, region: &Region, i: u64) {
        if !self.take_free(i) {
            return;
        }
        let at = self.run(Piece { chunk: i, from: 0, len: CHUNK_BLOCKS }).start.offset();
        // A group that was never used may not have its tables yet.
        if self.is_fresh() || region.provision(at, CHUNK_BYTES).is_err() {
            self.bad.withhold_all(i, &Bits::ALL);
            return;
        }
        self.set_provided(i, 1);
        self.give(i, &Bits::ALL);
    }

    /// Takes in what is bad now.
    pub fn refresh_bad(&mut self, region: &Region) {
        let group = self.group();
        let Changed { lost, found } = self.bad.refresh(region, group);
        for (i, bits) in lost {
            self.break_flawed(region, i);
            if let Some(taken) = self.broken(i).map(|broken| broken.taken) {
                let free = minus(&bits, &taken);
                self.bad.withhold_all(i, &free);
                self.take_bits(i, &free);
            }
        }
        for (i, bits) in found {
            self.give(i, &bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits::run;
    use super::*;

    #[test]
    fn runs_of_bits_are_found() {
        let bits = union(&union(&run(0, 1), &run(5, 60)), &run(511, 1));
        assert_eq!(runs(&bits), [(0, 1), (5, 60), (511, 1)]);
        assert_eq!(runs(&Bits::ALL), [(0, 512)]);
        assert_eq!(runs(&Bits::default()), []);
    }
}

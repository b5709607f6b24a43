//! When may a lane's ring space be used again?
//!
//! A lane is a ring of records and the list of home lines they dirtied. Invariant J6: the space of a record is
//! used again only after it was applied, every home line it touched was flushed, and a fence by the same thread
//! returned. Usually that fence is the commit fence of a later record: once half the ring is in use, a commit
//! flushes the homes of all earlier records before its own fence, and their space is free after it. A record that
//! finds no room all the same waits for one fence of its own.

use super::known::Known;
use super::record::{self, Origin};
use super::tx::{Draft, version};
use crate::error::Result;
use crate::layout::Counters;
use crate::pmem::Region;
use crate::pmem::mutation::{self, Mutation};
use crate::units::PoolOff;

/// The volatile state of one lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) index: u32,
    ring: PoolOff,
    ring_bytes: u64,
    /// Where the next record starts, unless it must wrap.
    head: u64,
    sequence: u64,
    /// Where the oldest record starts whose homes are not known to be durable; from there to `head`, around the
    /// end of the ring, nothing may be overwritten.
    tail: Option<u64>,
    live_bytes: u64,
    /// Home ranges that those records dirtied.
    dirty: Vec<(u64, u64)>,
    /// The lane's counters as committed.
    pub(super) counters: Counters,
}

impl Lane {
    pub(super) fn new(index: u32, ring: PoolOff, ring_bytes: u64, counters: Counters) -> Self {
        Self {
            index,
            ring,
            ring_bytes,
            head: 0,
            sequence: 0,
            tail: None,
            live_bytes: 0,
            dirty: Vec::new(),
            counters,
        }
    }

    /// Writes the record of `draft`, whose images are sealed, waits for it, and applies it.
    ///
    /// An error of the fence leaves unknown whether the record is durable: the caller poisons the journal.
    pub(super) fn commit(
        &mut self,
        region: &Region,
        origin: Origin,
        draft: &mut Draft,
        known: &Known,
    ) -> Result<()> {
        self.sequence += 1;
        let partial = mutation::is(Mutation::PartialImage).then(|| record::only_first_lines(draft));
        let count = draft.entries.len();
        record::finish(&mut draft.bytes, origin, self.sequence, count);
        let partial = partial.map(|mut partial| {
            record::finish(&mut partial.bytes, origin, self.sequence, count);
            partial
        });
        let record = partial.as_ref().map_or(&draft.bytes, |partial| &partial.bytes);
        let len = (record.len() as u64).next_multiple_of(64);
        let start = self.make_room(region, len)?;
        let covers = self.live_bytes > self.ring_bytes / 2;
        if covers {
            self.flush_homes(region)?;
        }
        if mutation::is(Mutation::Steal) {
            self.apply(region, draft, known)?;
        }
        region.copy_nt(self.ring.plus(start), record)?;
        if !mutation::is(Mutation::NoCommitFence) {
            region.fence()?;
        }
        if covers {
            self.forget();
        }
        self.tail = self.tail.or(Some(start));
        self.live_bytes += len;
        self.head = start + len;
        self.apply(region, draft, known)
    }

    fn apply(&mut self, region: &Region, draft: &Draft, known: &Known) -> Result<()> {
        for entry in &draft.entries {
            let image = draft.image(*entry);
            region.store(entry.home, image)?;
            known.note(entry.home, version(image));
            self.dirty.push((entry.home.0, entry.home.0 + entry.len as u64));
        }
        Ok(())
    }

    /// The start of `len` free bytes of the ring, which are there after at most one checkpoint.
    fn make_room(&mut self, region: &Region, len: u64) -> Result<u64> {
        let start = if self.head + len > self.ring_bytes { 0 } else { self.head };
        let taken = match self.tail {
            None => false,
            Some(tail) if tail < self.head => start == 0 && len > tail,
            Some(tail) => start < self.head || start + len > tail,
        };
        if taken && mutation::is(Mutation::NoCover) {
            self.forget();
        } else if taken {
            self.checkpoint(region)?;
        }
        Ok(start)
    }

    /// Makes the homes of every record durable, so that the whole ring is free.
    pub(super) fn checkpoint(&mut self, region: &Region) -> Result<()> {
        if self.tail.is_some() {
            self.flush_homes(region)?;
            region.fence()?;
            self.forget();
        }
        Ok(())
    }

    /// Flushes every dirtied home line once.
    fn flush_homes(&mut self, region: &Region) -> Result<()> {
        if mutation::is(Mutation::NoCover) {
            return Ok(());
        }
        self.dirty.sort_unstable();
        let mut lines = self.dirty.iter().map(|(from, to)| (from / 64, to.div_ceil(64)));
        let Some(mut run) = lines.next() else { return Ok(()) };
        for (from, to) in lines {
            if from <= run.1 {
                run.1 = run.1.max(to);
            } else {
                region.flush(PoolOff(run.0 * 64), (run.1 - run.0) * 64)?;
                run = (from, to);
            }
        }
        region.flush(PoolOff(run.0 * 64), (run.1 - run.0) * 64)
    }

    /// Every record so far is covered: its homes are durable.
    fn forget(&mut self) {
        self.tail = None;
        self.live_bytes = 0;
        self.dirty.clear();
    }
}

//! How does what was stored through mappings become durable?
//!
//! A block gives no notice of a store, so each that can be stored to counts as stored to since it was installed. On a medium of
//! cache lines a sync takes the translations away first, as the kernel's DAX write-protects, so that what it flushed is clean
//! until it is touched again; where the system writes pages back, it knows itself which were stored to.
//!
//! Rules:
//! 1. Take away, flush, fence, forget, in this order and in one turn: a store after the taking away faults, and counts
//!    as new (R7); who syncs meanwhile finds what is not durable yet, and waits for the turn (R8).
//! 2. What an invalidation took away is in `lost` and flushed by the next sync, whatever range that has: its bytes
//!    may have moved in the file since.

use crate::entries::{Entry, What};
use crate::mutation::{self, Mutation};
use crate::space::FileSpace;
use crate::stats::Count;
use crate::turns::Kind;
use crate::view::{View, clip, slot_of};
use daxstore::Result;
use daxstore::iomap::{FaultOps, FileRange};
use daxstore::sync::Arc;
use daxstore::units::{BLOCK_BYTES, CHUNK_BYTES, PoolOff};

/// Bytes of the file that one turn of a sync covers.
const GROUP: u64 = 64 << 20;

impl Entry {
    /// Where in the pool it is.
    pub(crate) fn place(self) -> Option<(PoolOff, u64)> {
        match self.what {
            What::Block(at) => Some((at, self.range.len)),
            _ => None,
        }
    }
}

impl FileSpace {
    /// Makes what was stored to `range` through any mapping before the call durable: how many bytes were flushed. `file` is the
    /// file, by any handle.
    ///
    /// # Errors
    /// The system's; what was not flushed is flushed by the next call.
    pub fn sync(self: &Arc<Self>, file: &dyn FaultOps, range: FileRange) -> Result<u64> {
        self.note_sync();
        let range = self.whole(range);
        let (mut at, mut flushed) = (0, 0);
        while let Some(group) = self.next_group(at, range) {
            flushed += self.sync_group(file, group, clip(group, range))?;
            at = group.end();
        }
        Ok(flushed)
    }

    /// The next slots from `at` on in which something may not be durable.
    fn next_group(&self, at: u64, range: FileRange) -> Option<FileRange> {
        let rest = clip(range, FileRange { offset: at, len: u64::MAX - at });
        let dirty = self.views(rest).iter().filter_map(|view| view.next_dirty(rest)).min();
        let lost = self.next_lost(at);
        let first = match (dirty, lost) {
            (Some(dirty), Some(lost)) => dirty.min(lost),
            (one, other) => one.or(other)?,
        };
        let offset = slot_of(first).offset.max(at);
        let last = range.end().checked_next_multiple_of(CHUNK_BYTES).filter(|last| *last > first);
        let len = GROUP.min(last.map_or(GROUP, |last| last - offset)).min(u64::MAX - offset);
        Some(FileRange { offset, len })
    }

    fn sync_group(self: &Arc<Self>, file: &dyn FaultOps, group: FileRange, own: FileRange) -> Result<u64> {
        // Not an allocating one, even where nothing is taken away: the store would take such a turn of the same range for its own.
        let _turn = self.turn(group, Kind::Invalidate);
        let end = file.size().checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
        self.found(clip(FileRange { offset: end, len: u64::MAX - end }, group));
        let early = if mutation::is(Mutation::FlushFirst) { self.flush(file, &self.mapped(own))? } else { 0 };
        let mut places = if self.by_pages { self.mapped(own) } else { self.give_up(own)? };
        places.extend(self.lost(group));
        if mutation::is(Mutation::FlushFirst) {
            places.clear();
        }
        if mutation::is(Mutation::ClearFirst) {
            self.found(group);
        }
        let flushed = self.flush(file, &places)?;
        self.found(group);
        Ok(flushed + early)
    }

    /// Flushes and fences.
    fn flush(&self, file: &dyn FaultOps, places: &[(PoolOff, u64)]) -> Result<u64> {
        for (at, len) in places {
            file.flush(*at, *len)?;
        }
        if !places.is_empty() {
            file.fence()?;
        }
        Ok(places.iter().map(|(_, len)| len).sum())
    }

    fn writable(&self, range: FileRange) -> Vec<Arc<View>> {
        let mut views = self.views(range);
        views.retain(|view| view.is_tracked());
        views
    }

    /// What can be stored to in `range`.
    fn mapped(&self, range: FileRange) -> Vec<(PoolOff, u64)> {
        self.writable(range).iter().flat_map(|view| view.places(range)).collect()
    }

    /// Takes what can be stored to in `range` away, so that it is lost. Without a fault handler it stays: those places.
    fn give_up(&self, range: FileRange) -> Result<Vec<(PoolOff, u64)>> {
        let mut kept = Vec::new();
        for view in self.writable(range) {
            if view.table().mode() == crate::table::Mode::Eager {
                kept.extend(view.places(range));
            } else {
                view.forget(range, None)?;
            }
        }
        Ok(kept)
    }
}

impl View {
    /// The first byte in `range` that may have been stored to.
    fn next_dirty(&self, range: FileRange) -> Option<u64> {
        if !self.is_tracked() {
            return None;
        }
        let block = |entry: &Entry| entry.place().is_some();
        self.look(|inside| inside.entries.within(range).find(block).map(|entry| entry.range.offset))
    }

    fn places(&self, range: FileRange) -> Vec<(PoolOff, u64)> {
        self.look(|inside| inside.entries.within(range).filter_map(Entry::place).collect())
    }

    /// [`FileSpace::sync`] of the view's file.
    ///
    /// # Errors
    /// Those of [`FileSpace::sync`].
    pub fn sync(&self, range: FileRange) -> Result<u64> {
        let flushed = self.space().sync(&**self.file(), range)?;
        self.counters().add_range(Count::Flushes, Count::FlushedBytes, flushed);
        Ok(flushed)
    }
}

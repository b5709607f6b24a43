//! Which slabs and runs of records were there when the database was opened?
//!
//! The maps of pages say so, one in each chunk: an open reads none of them. They are read one after another, in order, when space is first wanted
//! (`pages`) and while free slots are looked for (`sweep`); what a chunk had is kept here from then on.
//!
//! Invariants:
//! 1. Chunks are read in ascending order, each before anybody is given space in it: so all that lies in a chunk which was not read was there at open.
//! 2. The frontier passes a chunk when what it had is known here.

use crate::chunks::{ChunkKind, Run};
use crate::heap::{CLASSES, SLAB};
use crate::layout::CHUNK;
use crate::pages::{PageKind, PageRun};
use daxstore::sync::RwLock;
use daxstore::sync::atomic::{AtomicU64, Ordering};

/// What was there.
#[derive(Debug)]
pub struct Inherited {
    /// Bits of the chunks that runs of records, or of pages for them, began with at open.
    chunks: Vec<u64>,
    /// The first that was not read, in bytes; the greatest number: all were.
    frontier: AtomicU64,
    /// Where slabs begin in chunks that were read, by class (the last: runs of one record), ascending.
    classes: RwLock<Box<[Vec<u64>]>>,
}

/// Whether a run of chunks is one for records.
pub const fn is_of_records(run: &Run) -> bool {
    matches!(run.kind, ChunkKind::Pages | ChunkKind::Record)
}

impl Inherited {
    /// Of a database with these runs of chunks, ascending.
    #[must_use]
    pub fn of(runs: &[Run]) -> Self {
        let mut chunks = Vec::new();
        for run in runs.iter().filter(|run| is_of_records(run)) {
            let word = (run.first / 64) as usize;
            chunks.resize(chunks.len().max(word + 1), 0);
            chunks[word] |= 1 << (run.first % 64);
        }
        let first = runs.iter().find(|run| is_of_records(run)).map_or(u64::MAX, Run::at);
        let classes = RwLock::new((0..=CLASSES).map(|_| Vec::new()).collect());
        Self { chunks, frontier: AtomicU64::new(first), classes }
    }

    /// Adds what a chunk had: the first that was not read. `next` is the one after it, the greatest number where there is none.
    pub fn add(&self, runs: &[PageRun], next: u64) {
        let mut classes = self.classes.write();
        for run in runs {
            match run.kind {
                PageKind::Slab(class) if usize::from(class) < CLASSES => {
                    classes[usize::from(class)].push(run.at)
                }
                PageKind::Record(_) => classes[CLASSES].push(run.at),
                _ => {}
            }
        }
        self.frontier.store(next, Ordering::Release);
    }

    /// The first chunk that was not read, in bytes; the greatest number: there is none.
    #[inline]
    pub fn frontier(&self) -> u64 {
        self.frontier.load(Ordering::Acquire)
    }

    /// Where the `n`-th slab of a class begins, if so many are known.
    pub fn slab(&self, class: usize, n: usize) -> Option<u64> {
        self.classes.read()[class].get(n).copied()
    }

    /// Whether the record at `at`, which the caller found, is of a slab or run of this class that was there at open.
    #[cold]
    pub fn holds(&self, at: u64, class: usize) -> bool {
        let chunk = at / CHUNK;
        let had_chunk =
            self.chunks.get((chunk / 64) as usize).is_some_and(|word| word >> (chunk % 64) & 1 == 1);
        // Who was given a slot in a chunk had it read before, so whoever finds the record there sees the frontier behind it.
        if !had_chunk || at >= self.frontier() {
            return had_chunk;
        }
        let classes = self.classes.read();
        let before = classes[class].partition_point(|slab| *slab <= at);
        let bytes = if class == CLASSES { 1 } else { SLAB };
        before > 0 && at < classes[class][before - 1] + bytes
    }
}

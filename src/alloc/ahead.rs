//! Which free chunks hold zeros already?
//!
//! A store into a hole of a mapped file wants 2 MiB of zeros at once, and zeroing them is most of what it costs. So
//! some chunks are zeroed before they are wanted, by who has time. On the media, and in what is reported, they are free as
//! ever; only in DRAM nobody else has them.
//!
//! Invariants:
//! 1. A chunk that is ready is free on the media, taken in its group and not counted as taken; its zeros are durable.
//! 2. Chunks are set aside while there are plenty: at most an eighth of what can be had, and none of a group's last
//!    eight, since whole free chunks are what the policy conserves, and small wants would break one sooner.
//! 3. "No space" is never said because of them: before that, and before a want of whole chunks gets pieces, they are
//!    available again.

use super::policy::{NEARLY_FULL_BLOCKS, nothing_if_damaged};
use super::{Space, shortage};
use crate::error::Result;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::units::{BLOCK_BYTES, CHUNK_BLOCKS, Chunk, Run};
use std::collections::VecDeque;

/// One chunk of so many that can be had is set aside at most.
const SHARE: u64 = 8;
/// Free chunks that a group keeps.
pub(super) const KEPT_CHUNKS: u64 = 8;
/// Groups that are asked for one.
const CANDIDATES: usize = 4;

/// Chunks zeroed ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// How many are set aside, the one that is being zeroed included.
    count: AtomicUsize,
    /// Held while one is zeroed.
    work: Mutex<()>,
    ready: Mutex<VecDeque<Run>>,
}

impl Ahead {
    /// Those that are ready.
    #[cfg(all(test, feature = "sim"))]
    pub fn ready(&self) -> Vec<Run> {
        self.ready.lock().iter().copied().collect()
    }

    fn pop(&self) -> Option<Run> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let run = self.ready.lock().pop_front()?;
        self.count.fetch_sub(1, Ordering::AcqRel);
        Some(run)
    }
}

impl Space {
    /// Zeroes one free chunk ahead of its use, unless `enough` are ready, somebody is at it, or there are not plenty
    /// (`alloc/ahead.rs`): whether it did. The zeros are durable when it returns, and the chunk is free on the media as
    /// before.
    ///
    /// # Errors
    /// Errors of the medium, or the host's where it can not provide memory; the chunk is available again.
    pub fn zero_ahead(&self, enough: usize) -> Result<bool> {
        if self.ahead.count.load(Ordering::Relaxed) >= enough {
            return Ok(false);
        }
        self.journal.writable()?;
        let Some(_work) = self.ahead.work.try_lock() else { return Ok(false) };
        let ready = self.ahead.ready.lock().len();
        if ready >= enough || !self.has_plenty(ready as u64) {
            return Ok(false);
        }
        // Counted first: who finds no free chunk because of this one sees that there is one to come back.
        self.ahead.count.fetch_add(1, Ordering::AcqRel);
        let run = self.zeroed_chunk();
        match run {
            Ok(Some(run)) => self.ahead.ready.lock().push_back(run),
            _ => _ = self.ahead.count.fetch_sub(1, Ordering::AcqRel),
        }
        Ok(run?.is_some())
    }

    fn has_plenty(&self, ready: u64) -> bool {
        self.spare_blocks() >= (ready + 1) * CHUNK_BLOCKS * SHARE + NEARLY_FULL_BLOCKS
    }

    /// A free chunk that is nobody else's, zeroed.
    fn zeroed_chunk(&self) -> Result<Option<Run>> {
        let Some(run) = self.chunk_to_spare()? else { return Ok(None) };
        let run = self.provisioned(run)?;
        let mut data = self.journal.region().data_writer();
        let zeroed = data.zero(run.start.offset(), run.len * BLOCK_BYTES).and_then(|()| data.fence());
        if zeroed.is_err() {
            self.give_run(run);
        }
        zeroed.map(|_zeros| Some(run))
    }

    /// A free chunk of a group that has plenty; the one after the last one set aside if it can be, so that faults in
    /// order get one run.
    fn chunk_to_spare(&self) -> Result<Option<Run>> {
        let last = self.ahead.ready.lock().back().copied();
        let next: Option<Chunk> = last.map(|run| run.end().chunk());
        let mut near = next.map_or_else(|| self.shard().lock().group, |chunk| chunk.group().0);
        for _ in 0..CANDIDATES {
            let group = self.index.lock().free(near);
            let Some(group) = group else {
                if !self.load_next()? {
                    break;
                }
                continue;
            };
            let at = next.filter(|chunk| chunk.group() == group).map(Chunk::in_group);
            let taken =
                self.with_group(group, |state, _| Ok(state.take_spare(at).map(|piece| state.run(piece))));
            if let Some(run) = nothing_if_damaged(taken)? {
                return Ok(Some(run));
            }
            near = group.0 + 1;
        }
        Ok(None)
    }

    /// Makes the chunks zeroed ahead available to everybody; whether there were any.
    pub(super) fn give_ahead_back(&self) -> bool {
        if self.ahead.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        // The one that is being zeroed, too.
        let _work = self.ahead.work.lock();
        let ready = std::mem::take(&mut *self.ahead.ready.lock());
        self.ahead.count.fetch_sub(ready.len(), Ordering::AcqRel);
        ready.iter().for_each(|run| self.give_run(*run));
        !ready.is_empty()
    }

    /// One whole free chunk that nobody else has, counted as taken, and whether it holds zeros; `None` where there is
    /// none.
    ///
    /// # Errors
    /// Errors of the host providing memory.
    pub(super) fn reserve_whole(&self) -> Result<Option<(Run, bool)>> {
        if shortage::strikes() {
            return Ok(None);
        }
        self.look_around(CHUNK_BLOCKS)?;
        if let Some(run) = self.ahead.pop() {
            return Ok(self.keep_whole(run).map(|run| (run, true)));
        }
        if self.spare_blocks() < CHUNK_BLOCKS {
            return Ok(None);
        }
        let run = self.whole_chunks(1, None)?;
        Ok(run.and_then(|run| self.keep_whole(run)).map(|run| (run, false)))
    }

    /// `run`, counted as taken as a whole or not at all.
    fn keep_whole(&self, run: Run) -> Option<Run> {
        let kept = self.keep(run)?;
        if kept == run {
            return Some(run);
        }
        self.give_run(kept);
        self.taken.fetch_sub(kept.len as i64, Ordering::AcqRel);
        None
    }
}

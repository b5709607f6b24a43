//! Who has blocks between two operations?
//!
//! A write that waits to be made durable has its blocks reserved, and no operation under way. They are kept: taken in
//! DRAM, free on the media, until the operation of the commit holds them, or they are given back.
//!
//! Invariant: while a block is kept, the floor holds 128 bytes more for nodes ([`Space::floor`] knows 64 for an
//! unwritten block): a block that takes another's place in the middle of an extent adds at most two records, which is
//! twice what converting one does. So the commit finds its nodes on a full pool too.

use super::{Space, Want};
use crate::error::Result;
use crate::sync::atomic::Ordering;
use crate::units::Run;

/// How many unwritten blocks a kept one stands for.
const NODES: u64 = 2;

impl Space {
    /// One run of 1 to `want.blocks` blocks, for the caller alone; it lies in one group. An operation takes it over
    /// ([`Op::hold`](super::Op::hold)) and then [`Self::end_keeping`] is called, or [`Self::give_kept`] gives it back.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`]; what the host says where it can not provide memory.
    pub fn keep_run(&self, want: &Want) -> Result<Run> {
        // Before the blocks are taken: nobody else may have what is to be left for their nodes.
        self.count_kept(want.blocks as i64);
        let kept = self.reserve(want);
        let short = kept.as_ref().map_or(want.blocks, |run| want.blocks - run.len);
        self.count_kept(-(short as i64));
        kept
    }

    /// Gives blocks back that were kept and are not needed.
    pub fn give_kept(&self, run: Run) {
        if run.len == 0 {
            return;
        }
        let mut back = super::Footprint::default();
        back.take(run);
        self.give_back(&back);
        self.end_keeping(run.len);
    }

    /// So many blocks that were kept are a file's, or an operation's.
    pub fn end_keeping(&self, blocks: u64) {
        self.count_kept(-(blocks as i64));
    }

    fn count_kept(&self, blocks: i64) {
        self.unwritten.fetch_add(blocks * NODES as i64, Ordering::AcqRel);
    }
}

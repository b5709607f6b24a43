//! How do all extents from a file block on move, when blocks are taken out before them or put in?
//!
//! Their keys change and nothing else: no data move, and what is one extent stays one. Where blocks are taken out, the
//! two extents that meet become one if they can; where blocks are put in, the extent that is there becomes two.

use super::change::ExtentMapMut;
use super::record::Extent;
use crate::error::Result;
use crate::pmem::mutation::{self, Mutation};
use crate::tree::{self, WriteNodes};
use crate::units::FileBlock;
use std::ops::Range;

impl<N: WriteNodes + ?Sized> ExtentMapMut<'_, N> {
    /// Moves the extents from the end of `gap`, which is a hole, down by its length, lowest first, while `more` says so;
    /// at least one node of them. Returns the first that has not moved; `None` where all have.
    ///
    /// # Errors
    /// Damage.
    pub fn close(
        &mut self,
        gap: Range<FileBlock>,
        more: impl FnMut(&N) -> bool,
    ) -> Result<Option<FileBlock>> {
        let by = gap.end.0 - gap.start.0;
        let stopped = tree::shift_down(self.nodes, self.root, self.owner, gap.end.0, by, more)?;
        if !mutation::is(Mutation::ShiftWithoutJoin) {
            self.join_at(gap.start)?;
        }
        let Some(stopped) = stopped else { return Ok(None) };
        // Not just a bound of it: no block of those that moved lies from there on.
        Ok(self.map().at_or_after(FileBlock(stopped))?.map(|next| next.file))
    }

    /// Moves the extents that begin in `range` up by `by` blocks, highest first, while `more` says so; at least one node
    /// of them. Returns where those that moved begin; `None` where all have.
    ///
    /// # Errors
    /// Damage.
    pub fn open(
        &mut self,
        range: Range<FileBlock>,
        by: u64,
        more: impl FnMut(&N) -> bool,
    ) -> Result<Option<FileBlock>> {
        let keys = range.start.0..range.end.0;
        Ok(tree::shift_up(self.nodes, self.root, self.owner, keys, by, more)?.map(FileBlock))
    }

    /// Makes the extent that goes on across the start of `block` two, the second of which begins there.
    ///
    /// # Errors
    /// Damage, no space for nodes.
    pub fn split_at(&mut self, block: FileBlock) -> Result<()> {
        let Some(extent) = self.map().at_or_before(block)? else { return Ok(()) };
        let (front, back) = (extent.clip(&(extent.file..block)), extent.clip(&(block..extent.end())));
        match (front, back) {
            (Some(front), Some(back)) => self.exchange(&[extent], &[front, back]),
            _ => Ok(()),
        }
    }

    /// Makes the extents that meet at `block` one, if they continue each other.
    fn join_at(&mut self, block: FileBlock) -> Result<()> {
        let Some(right) = self.map().at_or_after(block)?.filter(|right| right.file == block) else {
            return Ok(());
        };
        let left = self.map().before(&right)?;
        let one: Option<Extent> = left.and_then(|left| left.joined(&right));
        match (left, one) {
            (Some(left), Some(one)) => self.exchange(&[left, right], &[one]),
            _ => Ok(()),
        }
    }
}

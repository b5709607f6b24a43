//! What does a file hold at a block, and how far?

use super::record::{Content, Extent, FileRun, Found, MAX_FILE_BLOCKS};
use crate::error::{Damage, Result, Structure};
use crate::layout::{Geometry, RootArea};
use crate::tree::{self, Near, ReadNodes};
use crate::units::{Block, FileBlock, Ino};
use std::ops::{ControlFlow, Range};

/// What was seen beside a run that has blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// The block before the run is one of a hole.
    pub hole_before: bool,
    /// The block after it is.
    pub hole_after: bool,
}

/// A file's extents, to be read under the file's extent lock.
pub struct ExtentMap<'a, N: ?Sized> {
    nodes: &'a N,
    root: &'a RootArea,
    owner: Ino,
    geometry: Geometry,
}

impl<'a, N: ReadNodes + ?Sized> ExtentMap<'a, N> {
    /// The extents that inode `owner` keeps in `root`, in a pool of this geometry.
    #[must_use]
    pub const fn new(nodes: &'a N, root: &'a RootArea, owner: Ino, geometry: Geometry) -> Self {
        Self { nodes, root, owner, geometry }
    }

    /// What is at `block`.
    ///
    /// # Errors
    /// Damage.
    pub fn lookup(&self, block: FileBlock) -> Result<Found> {
        match self.at_or_before(block)? {
            Some(extent) if extent.covers(block) => Ok(Found::Extent(extent)),
            _ => Ok(Found::Hole { until: self.at_or_after(block)?.map(|extent| extent.file) }),
        }
    }

    /// The maximal run of one state that starts at `block`, clipped to `max_len` blocks (not 0). Past the
    /// last extent all is hole.
    ///
    /// # Errors
    /// Damage.
    pub fn run_at(&self, block: FileBlock, max_len: u64) -> Result<FileRun> {
        let limit = FileBlock(block.0.saturating_add(max_len));
        let Near { at, after, .. } = self.near(block, false)?;
        let Some(extent) = at.filter(|extent| extent.covers(block)) else {
            let end = after.map_or(limit, |after| after.file.min(limit));
            return Ok(FileRun { file: block, len: end.0 - block.0, content: Content::Hole });
        };
        let skipped = block.0 - extent.file.0;
        let (whole, _) = self.glued_after(extent, after, limit)?;
        let (len, pool) = (whole.len - skipped, Block(whole.pool.0 + skipped));
        Ok(Extent { file: block, pool, len: len.min(max_len), ..whole }.into())
    }

    /// The maximal run of one state around `block`, not clipped, and what is beside it; a hole at the end reaches to the
    /// largest file's end.
    ///
    /// # Errors
    /// Damage.
    pub fn run_around(&self, block: FileBlock) -> Result<(FileRun, Beside)> {
        let Near { before, at, after } = self.near(block, true)?;
        let Some(extent) = at.filter(|extent| extent.covers(block)) else {
            let from = at.map_or(FileBlock(0), |before| before.end());
            let until = after.map_or(FileBlock(MAX_FILE_BLOCKS), |after| after.file);
            let run = FileRun { file: from, len: until.0 - from.0, content: Content::Hole };
            return Ok((run, Beside::default()));
        };
        let (whole, before) = self.glued_before(extent, before)?;
        let (rest, after) = self.glued_after(extent, after, FileBlock(MAX_FILE_BLOCKS))?;
        let whole = Extent { len: whole.len - extent.len + rest.len, ..whole };
        let beside = Beside {
            hole_before: before.map_or(whole.file.0 > 0, |before| before.end() < whole.file),
            hole_after: after.is_none_or(|after| whole.end() < after.file),
        };
        Ok((whole.into(), beside))
    }

    /// The records around `block`, in order.
    fn near(&self, block: FileBlock, before: bool) -> Result<Near<Extent>> {
        let decode = |key, payload: &[u8]| Extent::decode(key, payload, self.owner, &self.geometry);
        let near = tree::near(self.nodes, self.root, self.owner, block.0, before, decode)?;
        let near = Near {
            before: near.before.transpose()?,
            at: near.at.transpose()?,
            after: near.after.transpose()?,
        };
        for (one, next) in [(near.before, near.at), (near.at, near.after)] {
            if let (Some(one), Some(next)) = (one, next) {
                self.in_order(one.end(), &next)?;
            }
        }
        Ok(near)
    }

    /// Shows `f` each record that ends after `from`, ascending and whole, until it breaks.
    ///
    /// # Errors
    /// Damage, also where records overlap, and what `f` returns.
    pub fn for_each(
        &self,
        from: FileBlock,
        mut f: impl FnMut(Extent) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let covering = self.at_or_before(from)?.filter(|extent| extent.covers(from));
        let from = covering.map_or(from, |extent| extent.file);
        let mut end = from;
        tree::scan(self.nodes, self.root, self.owner, from.0, |key, payload| {
            let extent = Extent::decode(key, payload, self.owner, &self.geometry)?;
            self.in_order(end, &extent)?;
            end = extent.end();
            f(extent)
        })
    }

    /// The record with the highest file blocks.
    ///
    /// # Errors
    /// Damage.
    pub fn last(&self) -> Result<Option<Extent>> {
        self.at_or_before(FileBlock(u64::MAX))
    }

    /// The first record with a block in `range`, whole.
    ///
    /// # Errors
    /// Damage.
    pub fn first_in(&self, range: &Range<FileBlock>) -> Result<Option<Extent>> {
        if range.is_empty() {
            return Ok(None);
        }
        match self.at_or_before(range.start)? {
            Some(extent) if extent.covers(range.start) => Ok(Some(extent)),
            _ => Ok(self.at_or_after(range.start)?.filter(|extent| extent.file < range.end)),
        }
    }

    pub(super) fn at_or_before(&self, block: FileBlock) -> Result<Option<Extent>> {
        let decode = |key, payload: &[u8]| Extent::decode(key, payload, self.owner, &self.geometry);
        tree::with_floor(self.nodes, self.root, self.owner, block.0, decode)?.transpose()
    }

    pub(super) fn at_or_after(&self, block: FileBlock) -> Result<Option<Extent>> {
        let decode = |key, payload: &[u8]| Extent::decode(key, payload, self.owner, &self.geometry);
        tree::with_ceil(self.nodes, self.root, self.owner, block.0, decode)?.transpose()
    }

    /// The record before `extent`.
    pub(super) fn before(&self, extent: &Extent) -> Result<Option<Extent>> {
        let Some(key) = extent.file.0.checked_sub(1) else { return Ok(None) };
        let before = self.at_or_before(FileBlock(key))?;
        if let Some(before) = &before {
            self.in_order(before.end(), extent)?;
        }
        Ok(before)
    }

    /// The record after `extent`.
    pub(super) fn after(&self, extent: &Extent) -> Result<Option<Extent>> {
        let after = self.at_or_after(FileBlock(extent.file.0 + 1))?;
        if let Some(after) = &after {
            self.in_order(extent.end(), after)?;
        }
        Ok(after)
    }

    /// Whether `next` begins at or after `end`, where the one before it ends.
    pub(super) fn in_order(&self, end: FileBlock, next: &Extent) -> Result<()> {
        if next.file >= end {
            return Ok(());
        }
        Err(Damage::new(Structure::Extent, self.owner.offset(), "overlap", end.0, next.file.0).into())
    }

    /// The record `extent` with those that continue it, the first of which can be `next`, as far as `limit`; and the
    /// record after them.
    fn glued_after(
        &self,
        extent: Extent,
        mut next: Option<Extent>,
        limit: FileBlock,
    ) -> Result<(Extent, Option<Extent>)> {
        let mut whole = extent;
        let mut last = extent;
        while whole.end() < limit
            && let Some(found) = next
            && last.continues_in(&found)
        {
            whole.len += found.len;
            last = found;
            next = self.after(&last)?;
        }
        Ok((whole, next))
    }

    /// The record `extent` with those it continues, the last of which can be `before`; and the record before them.
    fn glued_before(&self, extent: Extent, mut before: Option<Extent>) -> Result<(Extent, Option<Extent>)> {
        let mut whole = extent;
        while let Some(found) = before
            && found.continues_in(&whole)
        {
            whole = Extent { len: found.len + whole.len, ..found };
            before = self.before(&whole)?;
        }
        Ok((whole, before))
    }
}

//! How do a file's extents change?
//!
//! Every change looks at the records it touches and their neighbours, builds the list of records that shall
//! stand there instead, joining what can be one, and writes the difference. So records stay maximal whatever
//! was done.

use super::map::ExtentMap;
use super::record::Extent;
use crate::error::Result;
use crate::layout::{Geometry, RootArea};
use crate::tree::{self, WriteNodes};
use crate::units::{Block, FileBlock, Ino};
use std::ops::{ControlFlow, Range};

/// Slots of nodes (written, new or freed) that changing `pieces` extents of the tree in `root` can touch at most;
/// of them, at most one a level and two more are new. For room in a journal record and for reserving space.
#[must_use]
pub fn worst_case_nodes(root: &RootArea, pieces: u64) -> u64 {
    // A level: two from a cut, the neighbour's leaf or branch, and what that is joined with.
    (u64::from(root.level) + 1).saturating_mul(4).saturating_add(1).saturating_mul(pieces)
}

/// Up to three records as they are, or up to five as they shall be, ascending.
struct Few {
    items: [Extent; 5],
    len: usize,
}

impl Few {
    const fn new() -> Self {
        let none = Extent { file: FileBlock(0), pool: Block(0), len: 0, written: false, shared: false };
        Self { items: [none; 5], len: 0 }
    }

    fn as_slice(&self) -> &[Extent] {
        &self.items[..self.len]
    }

    /// Adds a record as it is.
    fn keep(&mut self, extent: Option<Extent>) {
        if let (Some(extent), Some(place)) = (extent, self.items.get_mut(self.len)) {
            *place = extent;
            self.len += 1;
        }
    }

    /// Adds a record, joined to the one before where that can be.
    fn join(&mut self, extent: Option<Extent>) {
        let Some(extent) = extent else { return };
        match self.items[..self.len].last_mut() {
            Some(last) if last.joined(&extent).is_some() => last.len += extent.len,
            _ => self.keep(Some(extent)),
        }
    }
}

/// A file's extents, to be changed under the file's exclusive extent lock, as part of the change that `nodes`
/// is. After an error that change must be dropped.
pub struct ExtentMapMut<'a, N: ?Sized> {
    pub(super) nodes: &'a mut N,
    pub(super) root: &'a mut RootArea,
    pub(super) owner: Ino,
    geometry: Geometry,
}

impl<'a, N: WriteNodes + ?Sized> ExtentMapMut<'a, N> {
    /// The extents that inode `owner` keeps in `root`, in a pool of this geometry.
    #[must_use]
    pub const fn new(nodes: &'a mut N, root: &'a mut RootArea, owner: Ino, geometry: Geometry) -> Self {
        Self { nodes, root, owner, geometry }
    }

    /// The same extents, to be read.
    #[must_use]
    pub const fn map(&self) -> ExtentMap<'_, N> {
        ExtentMap::new(self.nodes, self.root, self.owner, self.geometry)
    }

    /// Fills a hole: the blocks of `extent` hold nothing yet.
    ///
    /// # Errors
    /// Damage, also where the blocks hold something or can not be a file's; no space for nodes.
    pub fn insert(&mut self, extent: Extent) -> Result<()> {
        extent.check(self.owner, &self.geometry)?;
        let map = self.map();
        let (left, right) = (map.at_or_before(extent.file)?, map.after(&extent)?);
        if let Some(left) = &left {
            map.in_order(left.end(), &extent)?;
        }
        let (mut old, mut new) = (Few::new(), Few::new());
        old.keep(left);
        old.keep(right);
        new.join(left);
        new.join(Some(extent));
        new.join(right);
        self.exchange(old.as_slice(), new.as_slice())
    }

    /// Makes `range` a hole: shows `f` each piece taken out, ascending, until it breaks. Returns where it
    /// stopped: the end of the range, or of the piece at which `f` broke.
    ///
    /// # Errors
    /// Damage, no space for nodes (an extent can become two), and what `f` returns.
    pub fn remove(
        &mut self,
        range: Range<FileBlock>,
        mut f: impl FnMut(&mut N, Extent) -> Result<ControlFlow<()>>,
    ) -> Result<FileBlock> {
        let mut rest = range;
        while let Some(extent) = self.map().first_in(&rest)? {
            let Some(piece) = extent.clip(&rest) else { break };
            let mut new = Few::new();
            new.keep(extent.clip(&(extent.file..piece.file)));
            new.keep(extent.clip(&(piece.end()..extent.end())));
            self.exchange(&[extent], new.as_slice())?;
            rest.start = piece.end();
            if f(self.nodes, piece)?.is_break() {
                return Ok(rest.start);
            }
        }
        Ok(rest.end)
    }

    /// Makes what is unwritten in `range` written; holes and written blocks stay. Returns the blocks that
    /// changed.
    ///
    /// # Errors
    /// Damage, no space for nodes.
    pub fn convert(&mut self, range: Range<FileBlock>) -> Result<u64> {
        self.alter(range, |extent| (!extent.written).then_some(Extent { written: true, ..extent }))
    }

    /// Makes what is written in `range`, which is not shared, unwritten; holes and unwritten blocks stay. Returns the
    /// blocks that changed.
    ///
    /// # Errors
    /// Damage, no space for nodes.
    pub fn unconvert(&mut self, range: Range<FileBlock>) -> Result<u64> {
        let unwrite = |extent| Extent { written: false, shared: false, ..extent };
        self.alter(range, |extent| (extent.written && !extent.shared).then_some(unwrite(extent)))
    }

    /// Makes what is written in `range` shared, or not shared any more; holes and unwritten blocks stay. Returns the
    /// blocks that changed.
    ///
    /// # Errors
    /// Damage, no space for nodes.
    pub fn set_shared(&mut self, range: Range<FileBlock>, shared: bool) -> Result<u64> {
        self.alter(range, |extent| {
            (extent.written && extent.shared != shared).then_some(Extent { shared, ..extent })
        })
    }

    /// Puts what `f` makes of each piece in `range` in its place: the blocks of those it changes.
    fn alter(&mut self, range: Range<FileBlock>, f: impl Fn(Extent) -> Option<Extent>) -> Result<u64> {
        let (mut rest, mut changed) = (range, 0);
        while let Some(extent) = self.map().first_in(&rest)? {
            let Some(piece) = extent.clip(&rest) else { break };
            if let Some(altered) = f(piece) {
                self.set_piece(extent, altered)?;
                changed += piece.len;
            }
            rest.start = piece.end();
        }
        Ok(changed)
    }

    /// Puts `piece` in place of the same blocks of `extent`.
    fn set_piece(&mut self, extent: Extent, piece: Extent) -> Result<()> {
        let map = self.map();
        let left = if piece.file == extent.file { map.before(&extent)? } else { None };
        let right = if piece.end() == extent.end() { map.after(&extent)? } else { None };
        let (mut old, mut new) = (Few::new(), Few::new());
        for record in [left, Some(extent), right] {
            old.keep(record);
        }
        let front = extent.clip(&(extent.file..piece.file));
        let back = extent.clip(&(piece.end()..extent.end()));
        for record in [left, front, Some(piece), back, right] {
            new.join(record);
        }
        self.exchange(old.as_slice(), new.as_slice())
    }

    /// Writes how `new` differs from `old`, which stand at the same place.
    pub(super) fn exchange(&mut self, old: &[Extent], new: &[Extent]) -> Result<()> {
        let mut gone = old.iter().filter(|o| new.iter().all(|n| n.file != o.file));
        for extent in new {
            if old.contains(extent) {
                continue;
            }
            let is_new = old.iter().all(|o| o.file != extent.file);
            let payload = extent.encode();
            match if is_new { gone.next() } else { None } {
                Some(from) => {
                    tree::rekey(self.nodes, self.root, self.owner, from.file.0, extent.file.0, &payload)?;
                }
                None => tree::insert(self.nodes, self.root, self.owner, extent.file.0, &payload)?,
            }
        }
        for extent in gone {
            tree::remove(self.nodes, self.root, self.owner, extent.file.0)?;
        }
        Ok(())
    }
}

//! How do blocks of a file become others, in one record?
//!
//! A write that must not be seen in part goes to new blocks. [`Replacement`] reserves them, and publishes them in
//! place of what the file had there: extents are exchanged, the old blocks freed and the size set by one record.
//!
//! Invariants:
//! 1. The old blocks are the file's until the record is durable, and nobody's only after it was applied (J3): a crash
//!    shows the old bytes or the new ones.
//! 2. The record's room is looked at before the first byte is stored.

use super::FileMap;
use crate::alloc::{Op, Want};
use crate::error::{Error, Result};
use crate::extent::{Content, Extent, ExtentMapMut};
use crate::inode::{Draft, Fs, InodeCore, Places, now};
use crate::iomap::FileRange;
use crate::pmem::Durable;
use crate::units::{BLOCK_BYTES, Block, FileBlock, PoolOff, Run};
use std::ops::{ControlFlow, Range};

/// Bytes of record kept free: the tree's nodes, the inode, the lane's counters.
const ROOM_LEFT: u64 = 3000;
/// Bytes of record that an extent that comes or goes can need in the tree's nodes.
const EXTENT_BYTES: u64 = 48;
/// Bytes of record by which a shorter write can need more than a part of a longer one: it may get other places.
const SPARE: u64 = 4 * (EXTENT_BYTES + 160);

/// New blocks for a range of a file.
#[derive(Debug)]
pub struct Replacement<'f> {
    fs: &'f Fs,
    core: &'f InodeCore,
    op: Op<'f>,
    runs: Vec<(FileBlock, Run)>,
}

impl<'f> Replacement<'f> {
    /// New blocks for all blocks that `range` touches, which the caller holds in `io` and has announced.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; [`Error::NotAtOnce`] where the exchange does not fit one record; damage.
    pub fn new(fs: &'f Fs, core: &'f InodeCore, range: FileRange) -> Result<Self> {
        let mut op = fs.space.begin().for_conversion();
        let (mut at, end) = (FileBlock::of(range.offset), FileBlock::ceil(range.end()));
        op.ensure(end.0 - at.0)?;
        let (mut runs, mut places, mut extents) = (Vec::new(), Places::default(), 0);
        let (mut goal, mut fits, capacity) = (None, 0, fs.journal().capacity());
        while at < end {
            let run = op.reserve(&Want { blocks: end.0 - at.0, file_block: at, goal })?;
            let next = FileBlock(at.0 + run.len);
            places.add(run);
            let comes = (at, Run::new(run.start, 0));
            for (file, old) in std::iter::once(comes).chain(runs_of(fs, core, at..next)?) {
                places.add(old);
                extents += 1;
                let needed = ROOM_LEFT + extents * EXTENT_BYTES + places.bytes();
                if needed + SPARE <= capacity {
                    fits = file.offset().saturating_sub(range.offset);
                } else if needed > capacity {
                    return Err(Error::NotAtOnce { len: range.len, fits });
                }
            }
            runs.push((at, run));
            (at, goal) = (next, Some(run.end()));
        }
        Ok(Self { fs, core, op, runs })
    }

    /// The places, ascending: file bytes, and where they go.
    pub fn places(&self) -> impl Iterator<Item = (FileRange, PoolOff)> {
        let place = |(file, run): &(FileBlock, Run)| {
            (FileRange { offset: file.offset(), len: run.len * BLOCK_BYTES }, run.start.offset())
        };
        self.runs.iter().map(place)
    }

    /// Where byte `offset` goes, which is of the range's blocks.
    #[must_use]
    pub fn place_of(&self, offset: u64) -> Option<PoolOff> {
        let (range, at) = self.places().find(|(range, _)| range.offset <= offset && offset < range.end())?;
        Some(at.plus(offset - range.offset))
    }

    /// Makes the blocks the file's in place of those it had, and the file at least `end` bytes long.
    ///
    /// # Errors
    /// No space for tree nodes, damage, errors of the medium; the file is as before then.
    pub fn publish(mut self, data: Durable, end: u64) -> Result<()> {
        let mut draft = Draft::lock(self.core);
        for (file, run) in &self.runs {
            replace(self.fs, &mut self.op, &mut draft, *file, *run)?;
        }
        draft.inode.size = draft.inode.size.max(end);
        draft.touch(now());
        draft.stage(&mut self.op)?;
        self.op.commit(data)?;
        draft.publish(self.fs.region())
    }
}

/// The pool runs that the file has in `blocks`, and where in the file.
fn runs_of(fs: &Fs, core: &InodeCore, blocks: Range<FileBlock>) -> Result<Vec<(FileBlock, Run)>> {
    let (map, mut runs, mut at) = (FileMap::new(fs, core), Vec::new(), blocks.start);
    while at < blocks.end {
        let run = map.run(at, blocks.end.0 - at.0)?.0;
        if let Content::Unwritten(start) | Content::Mapped(start) | Content::Shared(start) = run.content {
            runs.push((run.file, Run::new(start, run.len)));
        }
        at = run.end();
    }
    Ok(runs)
}

/// Makes `run` the data of the file from block `file` on, in place of what it has there, which is freed with `op`: no
/// block of that is shared.
///
/// # Errors
/// Damage, no space for nodes.
pub fn replace(fs: &Fs, op: &mut Op<'_>, draft: &mut Draft<'_>, file: FileBlock, run: Run) -> Result<()> {
    let (ino, geometry) = (draft.ino(), fs.journal().geometry());
    let (mut freed, end) = (0, FileBlock(file.0 + run.len));
    let mut map = ExtentMapMut::new(op, draft.root(), ino, geometry);
    map.remove(file..end, |op, old| {
        if old.shared {
            return Err(Error::InvalidArgument("shared blocks are copied before they are replaced"));
        }
        op.release(Run::new(old.pool, old.len))?;
        op.count_unwritten(if old.written { 0 } else { -(old.len as i64) });
        freed += old.len;
        Ok(ControlFlow::Continue(()))
    })?;
    map.insert(Extent { file, pool: run.start, len: run.len, written: true, shared: false })?;
    draft.inode.blocks = (draft.inode.blocks + run.len).saturating_sub(freed);
    Ok(())
}

/// The pool block after the one that holds the file block before `from`, where a write at `from` goes on best.
///
/// # Errors
/// Damage.
pub fn blocks_beside(fs: &Fs, core: &InodeCore, from: FileBlock) -> Result<Option<Block>> {
    let Some(before) = from.0.checked_sub(1) else { return Ok(None) };
    Ok(match FileMap::new(fs, core).run(FileBlock(before), 1)?.0.content {
        Content::Hole => None,
        Content::Unwritten(block) | Content::Mapped(block) | Content::Shared(block) => {
            Some(Block(block.0 + 1))
        }
    })
}

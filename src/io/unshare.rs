//! How does a file get blocks of its own where it shares them?
//!
//! What is shared is copied to new blocks and fenced, then extents are exchanged: one record for each step, in which the
//! file's share of the old blocks goes too. Content, size and times stay.
//!
//! Invariants:
//! 1. Shared blocks are never stored to. Who zeroes bytes in place (the rest of a last block, the edges of a punch) makes
//!    their blocks private before.
//! 2. The bytes are held in `io` and in a turn that invalidates, or in the turn of a fault: no translation of the old
//!    blocks is left when the new ones are the file's, but those that the fault's own handler sees to.
//! 3. Space for all that is copied in a step is there before its first store.

use super::Handle;
use super::group;
use super::read::{check_medium, check_regular};
use crate::alloc::{Op, Want};
use crate::error::{Error, Result};
use crate::extent::{Content, Extent, ExtentMap, ExtentMapMut};
use crate::inode::{Draft, Fs, InodeCore, Intents, shares};
use crate::iomap::{self, FileRange, Intent, Iomap};
use crate::layout::Feature;
use crate::mapper::FileMap;
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::{DataWriter, Durable};
use crate::tree::ReadNodes;
use crate::units::{BLOCK_BYTES, Block, FileBlock, PoolOff, Run};
use std::ops::{ControlFlow, Range};

/// Bytes of record kept free before a further piece is copied: nodes of both trees, the inode, the chunk's descriptor.
const ROOM_LEFT: u64 = 4500;
/// Bytes of record that a copied piece may need.
const PIECE_BYTES: u64 = 1500;
/// Bytes copied at a time.
const COPY_BYTES: u64 = 64 << 10;
/// Blocks that one step copies at most: what is copied and then not committed is lost work.
const STEP_BLOCKS: u64 = 16 << 10;

/// Copies what of `range` is shared, as `fallocate(2)` with `FALLOC_FL_UNSHARE_RANGE`.
///
/// # Errors
/// [`Error::NoSpace`] before anything changed, damage; [`Error::BadMedium`] where the medium has lost what is to be copied.
pub(super) fn unshare(handle: &Handle, range: FileRange) -> Result<()> {
    check_regular(handle)?;
    let (fs, core) = (handle.fs(), handle.core());
    let blocks = FileBlock::of(range.offset)..FileBlock::ceil(range.end());
    let _io = core.io.exclusive(blocks.start.offset(), blocks.end.offset());
    group::settle(fs)?;
    let (mut needed, mut at) = (0, blocks.start);
    while let Some(extent) = first_shared(&*fs.space, fs, core, &core.state.read().root, &(at..blocks.end))? {
        (needed, at) = (needed + extent.len, extent.end());
    }
    fs.space.begin().ensure(needed)?;
    copy_out(fs, core, blocks)
}

/// Gives the file blocks of its own where those of the last block of `size` bytes, or of any other in the bytes from there
/// to `to`, are shared: they are about to be zeroed in place. The caller holds them in `io`.
///
/// # Errors
/// As [`unshare`].
pub(super) fn tail(fs: &Fs, core: &InodeCore, size: u64, to: u64) -> Result<()> {
    if to <= size {
        return Ok(());
    }
    copy_out(fs, core, FileBlock::of(size)..FileBlock::ceil(to))
}

/// As [`tail`], for the blocks that `range` touches and does not cover.
///
/// # Errors
/// As [`unshare`].
pub(super) fn edges(fs: &Fs, core: &InodeCore, range: FileRange) -> Result<()> {
    for end in [range.offset, range.end()] {
        if !is_block_start(end) {
            copy_out(fs, core, FileBlock::of(end)..FileBlock::ceil(end))?;
        }
    }
    Ok(())
}

/// Whether any block that a write of `range` touches, or that it brings to light, may be another file's too.
pub(super) fn any(fs: &Fs, core: &InodeCore, range: FileRange, size: u64) -> Result<bool> {
    if !fs.journal().has(Feature::Shares) {
        return Ok(false);
    }
    let (from, to) = (FileBlock::of(range.offset.min(size)).offset(), FileBlock::ceil(range.end()).offset());
    let mut shared = false;
    iomap::walk(&FileMap::new(fs, core), FileRange { offset: from, len: to - from }, Intent::Read, |map| {
        shared |= map.shared;
        Ok(if shared { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(shared)
}

const fn is_block_start(offset: u64) -> bool {
    offset.is_multiple_of(BLOCK_BYTES)
}

/// Fails for a run that others may own too, of which bytes are about to be zeroed in place (invariant 1).
pub(super) fn check(map: &Iomap) -> Result<()> {
    if map.shared { Err(Error::InvalidArgument("shared bytes are not stored to in place")) } else { Ok(()) }
}

/// Copies what of `blocks` is shared, in a turn of its own.
fn copy_out(fs: &Fs, core: &InodeCore, blocks: Range<FileBlock>) -> Result<()> {
    let shared = first_shared(&*fs.space, fs, core, &core.state.read().root, &blocks)?;
    let Some(first) = shared else { return Ok(()) };
    let rest = first.file..blocks.end;
    let range = FileRange { offset: rest.start.offset(), len: rest.end.offset() - rest.start.offset() };
    let _turn = core.space.invalidate(range, false)?;
    copy_all(fs, core, rest)
}

/// Copies what of `range` (whole blocks of the file) is shared. The caller has the turn of the range: nobody else changes
/// these bytes, and translations of the old blocks are its affair.
///
/// # Errors
/// [`Error::NoSpace`]: what was not copied is as it was. Not a regular file, damage, errors of the medium.
pub fn make_private(handle: &Handle, range: FileRange) -> Result<()> {
    check_regular(handle)?;
    let (fs, core) = (handle.fs(), handle.core());
    fs.journal().writable()?;
    group::settle(fs)?;
    fs.with_room(|| copy_all(fs, core, FileBlock::of(range.offset)..FileBlock::ceil(range.end())))
}

fn copy_all(fs: &Fs, core: &InodeCore, blocks: Range<FileBlock>) -> Result<()> {
    let mut rest = blocks;
    while rest.start < rest.end {
        rest.start = step(fs, core, &rest)?;
    }
    Ok(())
}

/// The first extent with shared blocks in `blocks`, clipped to it.
fn first_shared<N: ReadNodes + ?Sized>(
    nodes: &N,
    fs: &Fs,
    core: &InodeCore,
    root: &crate::layout::RootArea,
    blocks: &Range<FileBlock>,
) -> Result<Option<Extent>> {
    let map = ExtentMap::new(nodes, root, core.ino, fs.journal().geometry());
    let mut found = None;
    map.for_each(blocks.start, |extent| {
        found = extent.clip(blocks).filter(|piece| piece.shared);
        let ends = found.is_some() || extent.end() >= blocks.end;
        Ok(if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// Blocks that are copied: those of the file, and where they go.
#[derive(Clone, Copy)]
struct Piece {
    old: Extent,
    new: Run,
}

/// Copies as much of what is shared in `blocks` as fits one record: where it ended.
fn step(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<FileBlock> {
    let mut op = fs.space.begin().for_conversion();
    let mut data = fs.region().data_writer();
    let (pieces, reached) = copy_some(fs, core, &mut op, &mut data, blocks)?;
    if pieces.is_empty() {
        return Ok(reached);
    }
    let durable = if mutation::is(Mutation::NoCopyFence) { Durable::no_data() } else { data.fence()? };
    let mut draft = Draft::lock(core);
    let mut intents = None;
    for piece in pieces {
        exchange(fs, &mut op, &mut draft, &mut intents, piece)?;
    }
    draft.stage(&mut op)?;
    op.commit(durable)?;
    draft.publish(fs.region())?;
    super::remove::publish_intents(fs, intents)?;
    Ok(reached)
}

fn copy_some(
    fs: &Fs,
    core: &InodeCore,
    op: &mut Op<'_>,
    data: &mut DataWriter<'_>,
    blocks: &Range<FileBlock>,
) -> Result<(Vec<Piece>, FileBlock)> {
    let (mut pieces, mut at, mut copied) = (Vec::new(), blocks.start, 0);
    let found = |at| first_shared(&*fs.space, fs, core, &core.state.read().root, &(at..blocks.end));
    while let Some(extent) = found(at)? {
        let room = op.room() >= ROOM_LEFT + pieces.len() as u64 * PIECE_BYTES && copied < STEP_BLOCKS;
        if !pieces.is_empty() && !room {
            return Ok((pieces, extent.file));
        }
        let len = shares::reach(fs, op, None, extent.run())?.len.min(STEP_BLOCKS);
        if pieces.is_empty() {
            op.ensure(len)?;
        }
        let goal = goal(fs, core, extent.file)?;
        let new = op.reserve(&Want { blocks: len, file_block: extent.file, goal })?;
        let old = Extent { len: new.len, ..extent };
        copy(fs, core, data, &old, new)?;
        pieces.push(Piece { old, new });
        (at, copied) = (old.end(), copied + new.len);
    }
    Ok((pieces, blocks.end))
}

/// The pool block after that of the file block before `file`.
fn goal(fs: &Fs, core: &InodeCore, file: FileBlock) -> Result<Option<Block>> {
    let Some(before) = file.0.checked_sub(1) else { return Ok(None) };
    let state = core.state.read();
    let map = ExtentMap::new(&*fs.space, &state.root, core.ino, fs.journal().geometry());
    Ok(match map.run_at(FileBlock(before), 1)?.content {
        Content::Hole => None,
        Content::Unwritten(block) | Content::Mapped(block) | Content::Shared(block) => {
            Some(Block(block.0 + 1))
        }
    })
}

/// Copies what `old` holds of the file to `new`; zeros where that lies beyond the end.
fn copy(fs: &Fs, core: &InodeCore, data: &mut DataWriter<'_>, old: &Extent, new: Run) -> Result<()> {
    let (from, to, len) = (old.pool.offset(), new.start.offset(), new.len * BLOCK_BYTES);
    let offset = old.file.offset();
    check_medium(fs, core.ino, FileRange { offset, len }, from)?;
    let kept = len.min(core.size().saturating_sub(offset));
    let mut buffer = vec![0; kept.min(COPY_BYTES) as usize];
    let mut done = 0;
    while done < kept {
        let part = &mut buffer[..(kept - done).min(COPY_BYTES) as usize];
        fs.region().read(PoolOff(from.0 + done), part)?;
        data.copy(PoolOff(to.0 + done), part)?;
        done += part.len() as u64;
    }
    data.zero(PoolOff(to.0 + kept), len - kept)
}

/// Puts the new blocks of `piece` in place of the old ones, which are the file's still.
fn exchange<'f>(
    fs: &'f Fs,
    op: &mut Op<'_>,
    draft: &mut Draft<'_>,
    intents: &mut Option<Intents<'f>>,
    Piece { old, new }: Piece,
) -> Result<()> {
    let (ino, geometry) = (draft.ino(), fs.journal().geometry());
    let range = old.file..old.end();
    let map = ExtentMap::new(op, &draft.inode.root, ino, geometry);
    let found = map.first_in(&range)?.and_then(|extent| extent.clip(&range));
    // A hint may have gone meanwhile: then the file has them alone, and gives them up all the same.
    let Some(found) = found.filter(|found| found.pool == old.pool && found.len == old.len) else {
        return Err(Error::InvalidArgument("shared blocks changed under their turn"));
    };
    let mut map = ExtentMapMut::new(op, draft.root(), ino, geometry);
    map.remove(range, |_, _| Ok(ControlFlow::Continue(())))?;
    map.insert(Extent { pool: new.start, shared: false, ..old })?;
    shares::release(fs, op, intents, found.run(), found.shared)
}

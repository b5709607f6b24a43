//! What does a fault handler ask of a file, and how do holes become blocks under it?
//!
//! The file's side of [`crate::iomap::FaultOps`]. A fault takes no `io`, touches no memory of the caller and writes to no
//! log: it may come in the middle of a call on the same file, and in a signal handler of the thread that makes it.
//!
//! Invariants:
//! 1. A block that a fault gives a file is zeroed without `state` held (it is the operation's own, or unwritten under
//!    the caller's turn), then fenced, then made the file's by one record. So a crash shows zeros or what was there
//!    before, which reads as zeros, and never what the block held for somebody else.
//! 2. What was found before the zeroing is looked at again under `state`, if the inode changed meanwhile: a caller
//!    without the turn of the range gets an error, and nobody's data are zeroed or lost.

use super::Handle;
use super::group;
use super::read::check_regular;
use super::remove;
use super::sequential;
use super::write::clean_last_block;
use crate::alloc::{Op, Want};
use crate::error::{Error, Result};
use crate::extent::{Content, Extent, ExtentMap, ExtentMapMut, FileRun};
use crate::inode::{Draft, Fs, InodeCore, coarse_now, now};
use crate::iomap::{AddressSpace, FileRange, Memory, Placement};
use crate::layout::RootArea;
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::{DataWriter, Durable, Medium, Region};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::tree::ReadNodes;
use crate::units::{BLOCK_BYTES, Block, CHUNK_BLOCKS, CHUNK_BYTES, FileBlock, PoolOff, Run};
use std::ops::Range;

/// Bytes of record kept free while pieces are added: the tree's nodes, the inode.
const ROOM_LEFT: u64 = 3000;
/// Bytes of record that a further piece can need in the tree's nodes.
const PIECE_BYTES: u64 = 48;

const CHANGED: Error = Error::InvalidArgument("a range that is populated changed under its turn");

/// What the pool's memory is.
///
/// # Errors
/// [`Error::Unsupported`] for simulated memory.
pub fn memory(region: &Region) -> Result<Memory> {
    let info = region.info();
    let Some(file) = region.file() else {
        return Err(Error::Unsupported {
            backend: info.backend,
            why: "the pool has no file that could be mapped",
        });
    };
    let (unit, huge) = match info.medium {
        // A device maps in its own unit, and in nothing larger.
        Medium::Devdax { align } => (align, align),
        _ => (BLOCK_BYTES, CHUNK_BYTES),
    };
    let (sync, by_pages) = (info.medium == Medium::Fsdax, info.medium == Medium::PlainFile);
    Ok(Memory { file: file.clone(), sync, unit, huge, by_pages })
}

/// The file's address space, made by `make` if it has none. Nothing is under way on the file at that moment, and what
/// its last block holds beyond the end is zeros, durably.
///
/// # Errors
/// Not a regular file, damage, errors of the medium.
pub fn attach(
    handle: &Handle,
    make: &mut dyn FnMut() -> Arc<dyn AddressSpace>,
) -> Result<Arc<dyn AddressSpace>> {
    check_regular(handle)?;
    let core = handle.core();
    let _io = core.io.exclusive(0, u64::MAX);
    group::settle(handle.fs())?;
    clean_last_block(handle.fs(), core, core.size())?;
    Ok(core.space.attach(make))
}

/// Notes that the file is stored to through a mapping: durable with the next fence of this thread.
///
/// # Errors
/// Errors of the medium.
pub fn touch(handle: &Handle) -> Result<()> {
    handle.core().touch_lazily(handle.fs().region(), coarse_now())
}

/// Gives what of `range` (whole blocks within the file, of one 2 MiB slot) is hole or unwritten blocks of zeros, durably,
/// in as many records as it takes. With [`Placement::Whole`] the range is a slot, which gets one congruent chunk in one
/// record; `false`, and nothing changed, where there is none for it or the slot holds data. The caller has the turn of
/// the range: nobody else writes, allocates or removes these bytes.
///
/// # Errors
/// [`Error::NoSpace`]: what remains to be populated is as it was. [`Error::InvalidArgument`] for another range, or one
/// that changed meanwhile. Damage, errors of the medium.
pub fn populate(handle: &Handle, range: FileRange, placement: Placement) -> Result<bool> {
    check_regular(handle)?;
    let (fs, core) = (handle.fs(), handle.core());
    fs.journal().writable()?;
    sequential::refuse(core, range.offset)?;
    group::settle(fs)?;
    let blocks = FileBlock::of(range.offset)..FileBlock::of(range.end());
    let slot = blocks.start.0 / CHUNK_BLOCKS;
    let is_whole = range.offset.is_multiple_of(BLOCK_BYTES) && range.len.is_multiple_of(BLOCK_BYTES);
    if blocks.is_empty() || !is_whole || (blocks.end.0 - 1) / CHUNK_BLOCKS != slot {
        return Err(Error::InvalidArgument("what is populated is whole blocks of one 2 MiB slot"));
    }
    if blocks.end > FileBlock::ceil(core.size()) {
        return Err(Error::InvalidArgument("what is populated lies within the file"));
    }
    match placement {
        Placement::Any => {
            while !fs.with_room(|| fill_some(fs, core, &blocks))? {}
            Ok(true)
        }
        Placement::Whole if blocks.end.0 - blocks.start.0 != CHUNK_BLOCKS => Ok(false),
        Placement::Whole => fs.with_room(|| fill_slot(fs, core, &blocks)),
    }
}

/// A part of a range without data, as it was found.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Gap {
    run: FileRun,
    /// The pool block after the one that holds the file block before.
    goal: Option<Block>,
}

/// What a range held when it was looked at.
struct Survey {
    gaps: Vec<Gap>,
    /// Blocks with data.
    mapped: u64,
    /// The mapping's number.
    mapping: u64,
}

impl Survey {
    fn take(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<Self> {
        let state = core.state.read();
        let (gaps, mapped) = look(&*fs.space, &state.root, fs, core, blocks)?;
        Ok(Self { gaps, mapped, mapping: core.mapping.load(Ordering::Acquire) })
    }

    /// Whether all is as it was found, now that the inode is locked for `draft`; and within the file.
    fn stands(&self, fs: &Fs, op: &Op<'_>, draft: &Draft<'_>, blocks: &Range<FileBlock>) -> Result<bool> {
        let core = draft.core();
        if blocks.end > FileBlock::ceil(draft.inode.size) {
            return Ok(false);
        }
        if core.mapping.load(Ordering::Acquire) == self.mapping {
            return Ok(true);
        }
        let (gaps, mapped) = look(op, &draft.inode.root, fs, core, blocks)?;
        let same = |(a, b): (&Gap, &Gap)| a.run == b.run;
        Ok(mapped == self.mapped && gaps.len() == self.gaps.len() && gaps.iter().zip(&self.gaps).all(same))
    }
}

/// The parts of `blocks` without data, and how many blocks have data.
fn look<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    fs: &Fs,
    core: &InodeCore,
    blocks: &Range<FileBlock>,
) -> Result<(Vec<Gap>, u64)> {
    let map = ExtentMap::new(nodes, root, core.ino, fs.journal().geometry());
    let mut goal = match blocks.start.0.checked_sub(1) {
        Some(before) => after(&map.run_at(FileBlock(before), 1)?),
        None => None,
    };
    let (mut gaps, mut mapped, mut at) = (Vec::new(), 0, blocks.start);
    while at < blocks.end {
        let run = map.run_at(at, blocks.end.0 - at.0)?;
        match run.content {
            Content::Mapped(_) | Content::Shared(_) => mapped += run.len,
            Content::Hole | Content::Unwritten(_) => gaps.push(Gap { run, goal }),
        }
        (goal, at) = (after(&run), run.end());
    }
    Ok((gaps, mapped))
}

/// The pool block after those of `run`.
fn after(run: &FileRun) -> Option<Block> {
    match run.content {
        Content::Hole => None,
        Content::Unwritten(block) | Content::Mapped(block) | Content::Shared(block) => {
            Some(Block(block.0 + run.len))
        }
    }
}

/// Blocks that are zeroed and become the file's data.
#[derive(Clone, Copy)]
struct Piece {
    file: FileBlock,
    run: Run,
    /// The blocks are new to the file, not unwritten space that it had.
    new: bool,
}

/// Populates as much of `blocks` as fits a record: whether that was all there was to do.
fn fill_some(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<bool> {
    let survey = Survey::take(fs, core, blocks)?;
    if survey.gaps.is_empty() {
        return Ok(true);
    }
    let mut op = fs.space.begin().for_conversion();
    let mut data = fs.region().data_writer();
    let (pieces, all) = zero_pieces(&mut op, &mut data, &survey.gaps)?;
    let durable = fence(data)?;
    let mut draft = Draft::lock(core);
    if !survey.stands(fs, &op, &draft, blocks)? {
        return Err(CHANGED);
    }
    for piece in pieces {
        place(fs, &mut op, &mut draft, piece)?;
    }
    commit(fs, op, draft, durable)?;
    Ok(all)
}

/// Reserves and zeroes blocks for `gaps` while the record has room: what it did, and whether that is all of them. The
/// gaps' space is there before the first of them is zeroed.
fn zero_pieces(op: &mut Op<'_>, data: &mut DataWriter<'_>, gaps: &[Gap]) -> Result<(Vec<Piece>, bool)> {
    let holes = gaps.iter().filter(|gap| gap.run.content == Content::Hole);
    let needed: u64 = holes.map(|gap| gap.run.len).sum();
    if needed > 0 {
        op.ensure(needed)?;
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for Gap { run, mut goal } in gaps.iter().copied() {
        let mut at = run.file;
        while at < run.end() {
            let room = op.room() >= ROOM_LEFT + pieces.len() as u64 * PIECE_BYTES;
            if !pieces.is_empty() && !room {
                return Ok((pieces, false));
            }
            let blocks = run.end().0 - at.0;
            let (place, new) = match run.content {
                Content::Unwritten(start) => (Run::new(start, run.len), false),
                Content::Mapped(_) | Content::Shared(_) => return Err(CHANGED),
                Content::Hole => (op.reserve(&Want { blocks, file_block: at, goal })?, true),
            };
            data.zero(place.start.offset(), place.len * BLOCK_BYTES)?;
            pieces.push(Piece { file: at, run: place, new });
            at = FileBlock(at.0 + place.len);
            goal = Some(place.end());
        }
    }
    Ok((pieces, true))
}

/// Waits until the zeros are durable.
fn fence(data: DataWriter<'_>) -> Result<Durable> {
    if mutation::is(Mutation::NoZeroFence) { Ok(Durable::no_data()) } else { data.fence() }
}

/// Makes `piece` data of the file.
fn place(fs: &Fs, op: &mut Op<'_>, draft: &mut Draft<'_>, piece: Piece) -> Result<()> {
    let Piece { file, run, new } = piece;
    let (ino, geometry) = (draft.ino(), fs.journal().geometry());
    let mut map = ExtentMapMut::new(op, draft.root(), ino, geometry);
    if new {
        map.insert(Extent { file, pool: run.start, len: run.len, written: true, shared: false })?;
        draft.inode.blocks += run.len;
    } else {
        let converted = map.convert(file..FileBlock(file.0 + run.len))?;
        op.count_unwritten(-(converted as i64));
    }
    Ok(())
}

fn commit(fs: &Fs, mut op: Op<'_>, mut draft: Draft<'_>, durable: Durable) -> Result<()> {
    draft.touch(now());
    draft.stage(&mut op)?;
    op.commit(durable)?;
    draft.publish(fs.region())
}

/// Gives the slot `blocks` one congruent chunk of zeros, in place of the unwritten blocks it may have; `false` where
/// there is none, or more to give back than fits the record.
fn fill_slot(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<bool> {
    let survey = Survey::take(fs, core, blocks)?;
    if survey.mapped > 0 {
        return Ok(false);
    }
    if is_one_chunk(&survey.gaps) {
        return fill_some(fs, core, blocks);
    }
    let mut op = fs.space.begin().for_conversion();
    let Some((run, zeroed)) = op.reserve_whole(blocks.start)? else { return Ok(false) };
    let durable = if zeroed {
        Durable::no_data()
    } else {
        let mut data = fs.region().data_writer();
        data.zero(run.start.offset(), CHUNK_BYTES)?;
        fence(data)?
    };
    let mut draft = Draft::lock(core);
    if !survey.stands(fs, &op, &draft, blocks)? {
        return Err(CHANGED);
    }
    // What goes is unwritten, and so nobody else's.
    if remove::free_range(fs, &mut op, &mut draft, &mut None, blocks.clone())? < blocks.end {
        return Ok(false);
    }
    place(fs, &mut op, &mut draft, Piece { file: blocks.start, run, new: true })?;
    commit(fs, op, draft, durable)?;
    Ok(true)
}

/// Whether the gaps, which make up a slot, are one chunk that is unwritten.
fn is_one_chunk(gaps: &[Gap]) -> bool {
    match gaps {
        [Gap { run: FileRun { content: Content::Unwritten(start), len: CHUNK_BLOCKS, .. }, .. }] => {
            start.in_chunk() == 0
        }
        _ => false,
    }
}

/// The pool's runs of these places, each whole blocks.
///
/// # Errors
/// [`Error::OutOfPool`] for part of a block.
pub fn runs(places: &[(PoolOff, u64)], pool: u64) -> Result<Vec<Run>> {
    let run = |&(at, len): &(PoolOff, u64)| {
        let is_whole = at.0.is_multiple_of(BLOCK_BYTES) && len.is_multiple_of(BLOCK_BYTES);
        let run = Run::new(at.block(), len / BLOCK_BYTES);
        if is_whole { Ok(run) } else { Err(Error::OutOfPool { at, len, size: pool }) }
    };
    places.iter().map(run).collect()
}

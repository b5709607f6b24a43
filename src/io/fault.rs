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
//! 3. What an extent-size hint adds lies in holes of the same slot, whose turn the fault has, within the file, and is
//!    unwritten: nobody sees it before it is zeroed.

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
/// Bytes of record that a further extent can need in the tree's nodes.
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
/// the slot: nobody else writes, allocates or removes bytes of it. Holes get the pieces that the file's extent-size hint
/// asks for, as far as they lie in the slot and the file; what is not of the range is unwritten.
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
    /// Of a hole, as much as the file's hint asks to be given with it.
    piece: FileRun,
    /// The pool block after the one that holds the file block before `piece`.
    goal: Option<Block>,
}

/// What a range held when it was looked at.
struct Survey {
    gaps: Vec<Gap>,
    /// Blocks with data.
    mapped: u64,
    /// The mapping's number.
    mapping: u64,
    /// The range, and what the file's hint adds to it.
    wide: Range<FileBlock>,
}

impl Survey {
    fn take(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Result<Self> {
        let wide = hinted(fs, core, blocks);
        let state = core.state.read();
        let (gaps, mapped) = look(&*fs.space, &state.root, fs, core, blocks, &wide)?;
        Ok(Self { gaps, mapped, mapping: core.mapping.load(Ordering::Acquire), wide })
    }

    /// Whether all is as it was found, now that the inode is locked for `draft`; and within the file.
    fn stands(&self, fs: &Fs, op: &Op<'_>, draft: &Draft<'_>, blocks: &Range<FileBlock>) -> Result<bool> {
        let core = draft.core();
        if blocks.end.max(self.wide.end) > FileBlock::ceil(draft.inode.size) {
            return Ok(false);
        }
        if core.mapping.load(Ordering::Acquire) == self.mapping {
            return Ok(true);
        }
        let (gaps, mapped) = look(op, &draft.inode.root, fs, core, blocks, &self.wide)?;
        let same = |(a, b): (&Gap, &Gap)| a.run == b.run && a.piece == b.piece;
        Ok(mapped == self.mapped && gaps.len() == self.gaps.len() && gaps.iter().zip(&self.gaps).all(same))
    }
}

/// `blocks`, of one slot of the file, rounded outwards to what its extent-size hint says, within the slot and the file; as
/// they are where there is no hint, or little room.
fn hinted(fs: &Fs, core: &InodeCore, blocks: &Range<FileBlock>) -> Range<FileBlock> {
    let hint = core.hint();
    let spare = fs.journal().geometry().usable_blocks() / 16;
    if hint <= 1
        || fs.space.free_blocks() < spare + CHUNK_BLOCKS.min(2 * hint + blocks.end.0 - blocks.start.0)
    {
        return blocks.clone();
    }
    let slot = blocks.start.0 - blocks.start.0 % CHUNK_BLOCKS;
    let start = (blocks.start.0 - blocks.start.0 % hint).max(slot);
    let end =
        blocks.end.0.next_multiple_of(hint).min(slot + CHUNK_BLOCKS).min(FileBlock::ceil(core.size()).0);
    FileBlock(start)..FileBlock(end.max(blocks.end.0))
}

/// The parts of `blocks` without data, holes with what of them lies in `wide`, and how many blocks have data.
fn look<N: ReadNodes + ?Sized>(
    nodes: &N,
    root: &RootArea,
    fs: &Fs,
    core: &InodeCore,
    blocks: &Range<FileBlock>,
    wide: &Range<FileBlock>,
) -> Result<(Vec<Gap>, u64)> {
    let map = ExtentMap::new(nodes, root, core.ino, fs.journal().geometry());
    let mut goal = match wide.start.0.checked_sub(1) {
        Some(before) => after(&map.run_at(FileBlock(before), 1)?),
        None => None,
    };
    let (mut gaps, mut mapped, mut at) = (Vec::new(), 0, wide.start);
    while at < wide.end {
        let piece = map.run_at(at, wide.end.0 - at.0)?;
        if let Some(run) = within(&piece, blocks) {
            match run.content {
                Content::Mapped(_) | Content::Shared(_) => mapped += run.len,
                Content::Hole | Content::Unwritten(_) => gaps.push(Gap { run, piece, goal }),
            }
        }
        (goal, at) = (after(&piece), piece.end());
    }
    Ok((gaps, mapped))
}

/// What of `run` lies in `blocks`.
fn within(run: &FileRun, blocks: &Range<FileBlock>) -> Option<FileRun> {
    let (file, end) = (run.file.max(blocks.start), run.end().min(blocks.end));
    (file < end).then(|| {
        let (len, into) = (end.0 - file.0, file.0 - run.file.0);
        let at = |block: Block| Block(block.0 + into);
        let content = match run.content {
            Content::Hole => Content::Hole,
            Content::Unwritten(block) => Content::Unwritten(at(block)),
            Content::Mapped(block) => Content::Mapped(at(block)),
            Content::Shared(block) => Content::Shared(at(block)),
        };
        FileRun { file, len, content }
    })
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
    /// How many blocks before and after those, for the sake of a hint, become unwritten space.
    around: (u64, u64),
}

impl Piece {
    /// Bytes of record that the piece can need in the tree's nodes.
    fn record_bytes(&self) -> u64 {
        let (before, after) = self.around;
        PIECE_BYTES * (1 + u64::from(before > 0) + u64::from(after > 0))
    }
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
    for Gap { run, piece, mut goal } in gaps.iter().copied() {
        let mut at = run.file;
        while at < run.end() {
            let needed = pieces.iter().map(Piece::record_bytes).sum::<u64>();
            if !pieces.is_empty() && op.room() < ROOM_LEFT + needed {
                return Ok((pieces, false));
            }
            let piece = match run.content {
                Content::Unwritten(start) => {
                    Piece { file: at, run: Run::new(start, run.len), new: false, around: (0, 0) }
                }
                Content::Mapped(_) | Content::Shared(_) => return Err(CHANGED),
                // What is around the hole goes with its first blocks.
                Content::Hole if at == run.file => reserve(op, at, run.end(), &piece, goal)?,
                Content::Hole => {
                    let rest = FileRun { file: at, len: run.end().0 - at.0, ..run };
                    reserve(op, at, run.end(), &rest, goal)?
                }
            };
            data.zero(piece.run.start.offset(), piece.run.len * BLOCK_BYTES)?;
            pieces.push(piece);
            at = FileBlock(at.0 + piece.run.len);
            goal = Some(piece.run.end());
        }
    }
    Ok((pieces, true))
}

/// Reserves blocks for file blocks `from` to `to` (exclusive) of a hole, perhaps fewer, and with them for as much of `piece`
/// as can be had together.
fn reserve(
    op: &mut Op<'_>,
    from: FileBlock,
    to: FileBlock,
    piece: &FileRun,
    goal: Option<Block>,
) -> Result<Piece> {
    let needed = to.0 - from.0;
    let (lead, all) = (from.0 - piece.file.0, piece.len);
    if all > needed {
        let run = op.reserve(&Want { blocks: all, file_block: piece.file, goal })?;
        if run.len > lead {
            let filled = needed.min(run.len - lead);
            let own = Run::new(Block(run.start.0 + lead), filled);
            return Ok(Piece { file: from, run: own, new: true, around: (lead, run.len - lead - filled) });
        }
        op.give_back(run);
    }
    let run = op.reserve(&Want { blocks: needed, file_block: from, goal })?;
    Ok(Piece { file: from, run, new: true, around: (0, 0) })
}

/// Waits until the zeros are durable.
fn fence(data: DataWriter<'_>) -> Result<Durable> {
    if mutation::is(Mutation::NoZeroFence) { Ok(Durable::no_data()) } else { data.fence() }
}

/// Makes `piece` data of the file.
fn place(fs: &Fs, op: &mut Op<'_>, draft: &mut Draft<'_>, piece: Piece) -> Result<()> {
    let Piece { file, run, new, around: (before, after) } = piece;
    let (ino, geometry) = (draft.ino(), fs.journal().geometry());
    let mut map = ExtentMapMut::new(op, draft.root(), ino, geometry);
    if new {
        let unwritten = mutation::is(Mutation::HintedAsData);
        let parts = [
            (file.0 - before, run.start.0 - before, before, unwritten),
            (file.0, run.start.0, run.len, true),
            (file.0 + run.len, run.end().0, after, unwritten),
        ];
        for (file, pool, len, written) in parts.into_iter().filter(|part| part.2 > 0) {
            let (file, pool) = (FileBlock(file), Block(pool));
            map.insert(Extent { file, pool, len, written, shared: false })?;
        }
        op.count_unwritten((before + after) as i64);
        draft.inode.blocks += before + run.len + after;
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
    place(fs, &mut op, &mut draft, Piece { file: blocks.start, run, new: true, around: (0, 0) })?;
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

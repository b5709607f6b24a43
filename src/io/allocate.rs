//! How is space given to a file, or taken from its middle, without writing?
//!
//! `fallocate(2)`'s modes. The bytes of partial blocks are zeroed in place (an overwrite); whole blocks change in one
//! record, or in a chain of records under an intent that says what is to be reached. Space is reserved for the
//! whole chain before its first record.

use super::Handle;
use super::group;
use super::read::{check_medium, check_regular};
use super::remove::{self, publish_intents};
use super::resize::hold_from;
use super::write::{hinted, zero_tail};
use super::{sequential, shift, turn, unshare};
use crate::alloc::{Op, Want};
use crate::error::{Error, Result};
use crate::extent::{Content, Extent, ExtentMap, ExtentMapMut};
use crate::inode::{Draft, Fs, InodeCore, Intent, Intents, RangeChange, ShiftChange, now};
use crate::iomap::{self, FileRange, Intent as Purpose, State};
use crate::layout::INODE_KEEP_BEYOND_END;
use crate::mapper::FileMap;
use crate::pmem::Durable;
use crate::units::{FileBlock, PoolOff, Run};
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

/// What is done to a range of a file; each is a mode of `fallocate(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocateMode {
    /// Holes get space that reads as zeros; the file becomes as long as the range's end.
    Allocate,
    /// As `Allocate`, but the size stays; space beyond the end stays too.
    KeepSize,
    /// The range becomes a hole; the size stays.
    Punch,
    /// The range reads as zeros and has space; the file becomes as long as the range's end.
    Zero,
    /// The range, whole blocks before the end, is taken out: what follows begins where it began, without being copied.
    Collapse,
    /// A hole as long as the range, whole blocks, is put in where the range begins, before the end: what was there
    /// follows it, without being copied.
    Insert,
    /// What other files may own too is copied to blocks of the file's own; content and size stay.
    Unshare,
}

/// Does `mode` to `len` bytes from `offset`.
///
/// # Errors
/// Not a regular file, an empty range, offsets past 2^62, no space (before anything changed), damage; of a sequential
/// file everything but [`AllocateMode::KeepSize`].
pub fn allocate(handle: &Handle, offset: u64, len: u64, mode: AllocateMode) -> Result<()> {
    check_regular(handle)?;
    handle.fs().journal().writable()?;
    let range = FileRange::new(offset, len)?;
    if len == 0 {
        return Err(Error::InvalidArgument("the length of a range is not 0"));
    }
    if !matches!(mode, AllocateMode::KeepSize | AllocateMode::Unshare) {
        sequential::refuse(handle.core(), offset)?;
    }
    let change = match mode {
        AllocateMode::Collapse => return shift::shift(handle, range, ShiftChange::Collapse),
        AllocateMode::Insert => return shift::shift(handle, range, ShiftChange::Insert),
        AllocateMode::Unshare => return unshare::unshare(handle, range),
        AllocateMode::Allocate | AllocateMode::KeepSize => RangeChange::Allocate,
        AllocateMode::Punch => RangeChange::Punch,
        AllocateMode::Zero => RangeChange::Zero,
    };
    let (fs, core) = (handle.fs(), handle.core());
    let gives = change == RangeChange::Allocate;
    let wide = if gives { hinted(core, range) } else { range };
    let (_guard, size) = hold_from(handle, wide.offset);
    // A hint gives no space beyond what is asked for and what the file has.
    let end = wide.end().min(FileBlock::ceil(range.end().max(size)).offset()).max(range.end());
    let wide = FileRange { len: end - wide.offset, ..wide };
    group::settle(fs)?;
    let inner = FileBlock::ceil(offset)..FileBlock::of(range.end());
    let outer = FileBlock::of(offset)..FileBlock::ceil(range.end());
    let grows = matches!(mode, AllocateMode::Allocate | AllocateMode::Zero) && range.end() > size;
    let grown = if grows { range.end() } else { 0 };
    let replaces = matches!(mode, AllocateMode::Punch | AllocateMode::Zero);
    // What is zeroed in place is the file's own.
    if replaces {
        unshare::edges(fs, core, range)?;
    }
    unshare::tail(fs, core, size, grown)?;
    let turn = match replaces {
        true => turn::replace(core, range, size, grows),
        false => turn::allocate(fs, core, wide, size, grows)?,
    };
    let blocks =
        if replaces { inner.clone() } else { FileBlock::of(wide.offset)..FileBlock::ceil(wide.end()) };
    let mut chain = Chain::new(fs, core, change, blocks, grown);
    if mode == AllocateMode::Zero {
        chain.edges = edges(&inner, &outer);
    }
    match chain.reserve() {
        // There is no room for what a hint adds.
        Err(Error::NoSpace { .. }) if wide != range => {
            chain = Chain::new(fs, core, change, outer, grown);
            chain.reserve()?;
        }
        reserved => reserved?,
    }
    chain.keep = mode == AllocateMode::KeepSize && range.end() > size;
    if replaces {
        chain.zeros = edges_to_zero(fs, core, range, &inner)?;
    }
    let data = zero_before_growth(fs, core, size, grown)?;
    if replaces || grows {
        turn.invalidate()?;
    }
    chain.run(data)
}

/// Takes up a change that an earlier run began; nobody else uses the file.
///
/// # Errors
/// No space, damage, errors of the medium.
pub fn resume(
    fs: &Fs,
    core: &InodeCore,
    change: RangeChange,
    blocks: Range<FileBlock>,
    size: u64,
) -> Result<()> {
    let mut chain = Chain::new(fs, core, change, blocks, size);
    chain.has_intent = true;
    unshare::tail(fs, core, core.size(), size)?;
    chain.reserve()?;
    // The file may have been cut since the change began, if this was tried before and did not end.
    let data = zero_before_growth(fs, core, core.size(), size)?;
    chain.run(data)
}

/// The blocks of `outer` that are not in `inner`, at most two.
fn edges(inner: &Range<FileBlock>, outer: &Range<FileBlock>) -> Vec<FileBlock> {
    let last = FileBlock(outer.end.0 - 1);
    let mut edges = vec![outer.start, last];
    edges.dedup();
    edges.retain(|edge| !inner.contains(edge));
    edges
}

/// Where the mapped bytes of `range` lie that are outside the whole blocks `inner`, and how many they are.
///
/// # Errors
/// [`Error::BadMedium`] where the medium has lost some of them; damage.
fn edges_to_zero(
    fs: &Fs,
    core: &InodeCore,
    range: FileRange,
    inner: &Range<FileBlock>,
) -> Result<Vec<(PoolOff, u64)>> {
    let mut places = Vec::new();
    let mut find = |from: u64, to: u64| {
        let part = FileRange { offset: from, len: to.saturating_sub(from) };
        iomap::walk(&FileMap::new(fs, core), part, Purpose::Read, |map| {
            if let State::Mapped(at) = map.state {
                check_medium(fs, core.ino, map.range, at)?;
                unshare::check(map)?;
                places.push((at, map.range.len));
            }
            Ok(ControlFlow::Continue(()))
        })
    };
    if inner.is_empty() {
        find(range.offset, range.end())?;
    } else {
        find(range.offset, inner.start.offset())?;
        find(inner.end.offset(), range.end())?;
    }
    Ok(places)
}

fn zero_before_growth(fs: &Fs, core: &InodeCore, size: u64, grown: u64) -> Result<Durable> {
    let mut data = fs.region().data_writer();
    if grown > size && zero_tail(fs, core, &mut data, size, grown)? {
        data.fence()
    } else {
        Ok(Durable::no_data())
    }
}

/// Bytes of record kept free in a step: the tree's nodes, the inode, an intent.
const ROOM_LEFT: u64 = 3000;

/// A change of a range of blocks, in as many records as it takes.
struct Chain<'f> {
    fs: &'f Fs,
    core: &'f InodeCore,
    change: RangeChange,
    blocks: Range<FileBlock>,
    /// Blocks outside `blocks` that get space with the first record.
    edges: Vec<FileBlock>,
    /// Bytes of partial blocks to be zeroed in place, once nothing can fail for want of space; the fence of the
    /// first record makes them durable.
    zeros: Vec<(PoolOff, u64)>,
    /// The size to be reached at least, with the last record.
    size: u64,
    /// Blocks beyond the end stay.
    keep: bool,
    /// The intent is on the media.
    has_intent: bool,
    /// Holds the space of the whole chain until its records take it over.
    holder: Op<'f>,
    held: VecDeque<(FileBlock, Run)>,
}

impl<'f> Chain<'f> {
    fn new(
        fs: &'f Fs,
        core: &'f InodeCore,
        change: RangeChange,
        blocks: Range<FileBlock>,
        size: u64,
    ) -> Self {
        let holder = fs.space.begin().for_conversion();
        let (edges, zeros, held) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { fs, core, change, blocks, edges, zeros, size, keep: false, has_intent: false, holder, held }
    }

    /// Reserves space for every hole of the range.
    fn reserve(&mut self) -> Result<()> {
        if self.change == RangeChange::Punch {
            return Ok(());
        }
        let holes = self.holes()?;
        self.holder.ensure(holes.iter().map(|(_, len)| len).sum())?;
        for (file, len) in holes {
            let mut done = 0;
            while done < len {
                let file_block = FileBlock(file.0 + done);
                let goal = self.held.back().map(|(_, run)| run.end());
                let run = self.holder.reserve(&Want { blocks: len - done, file_block, goal })?;
                self.held.push_back((file_block, run));
                done += run.len;
            }
        }
        Ok(())
    }

    /// The holes of the range and its edges, ascending: the first block and how many. Shared blocks that are zeroed are given
    /// up: holes, too.
    fn holes(&self) -> Result<Vec<(FileBlock, u64)>> {
        let state = self.core.state.read();
        let geometry = self.fs.journal().geometry();
        let map = ExtentMap::new(&*self.fs.space, &state.root, self.core.ino, geometry);
        let edge = |block: &FileBlock| *block..FileBlock(block.0 + 1);
        let mut ranges: Vec<_> = self.edges.iter().map(edge).chain([self.blocks.clone()]).collect();
        ranges.sort_by_key(|range| range.start);
        let mut holes = Vec::new();
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let run = map.run_at(at, range.end.0 - at.0)?;
                let given_up = self.change == RangeChange::Zero && matches!(run.content, Content::Shared(_));
                if run.content == Content::Hole || given_up {
                    holes.push((at, run.len));
                }
                at = run.end();
            }
        }
        Ok(holes)
    }

    fn run(mut self, data: Durable) -> Result<()> {
        let mut data = Some(data);
        let mut at = self.blocks.start;
        loop {
            let mut draft = Draft::lock(self.core);
            let mut op = self.fs.space.begin().for_conversion();
            let mut intents = None;
            if data.is_some() {
                self.place_edges(&mut op, &mut draft)?;
            }
            at = self.step(&mut op, &mut draft, &mut intents, at)?;
            let done = at >= self.blocks.end;
            if done {
                draft.inode.size = draft.inode.size.max(self.size);
            }
            if self.keep {
                draft.inode.flags |= INODE_KEEP_BEYOND_END;
            }
            draft.touch(now());
            draft.stage(&mut op)?;
            self.note(&mut op, &mut intents, at, done)?;
            for (at, len) in std::mem::take(&mut self.zeros) {
                self.fs.region().zero_nt(at, len)?;
            }
            op.commit(data.take().unwrap_or_else(Durable::no_data))?;
            draft.publish(self.fs.region())?;
            publish_intents(self.fs, intents)?;
            if done {
                return Ok(());
            }
        }
    }

    /// Writes the intent with the first record of several, and removes it with the last.
    fn note(
        &mut self,
        op: &mut Op<'f>,
        intents: &mut Option<Intents<'f>>,
        at: FileBlock,
        done: bool,
    ) -> Result<()> {
        let ino = self.core.ino;
        let rest = at.min(self.blocks.end);
        let intent =
            Intent::Range { change: self.change, start: rest, end: self.blocks.end, size: self.size };
        if done != self.has_intent {
            return Ok(());
        }
        let intents = intents.get_or_insert_with(|| Intents::lock(&self.fs.intents));
        if done {
            intents.remove(op, ino, intent)?;
        } else {
            intents.put(op, ino, intent)?;
            self.has_intent = true;
        }
        Ok(())
    }

    /// Where the space held for `at` ends.
    fn held_at(&self, at: FileBlock) -> FileBlock {
        let held = self.held.front().filter(|(file, _)| *file == at);
        held.map_or(at, |(_, run)| FileBlock(at.0 + run.len))
    }

    /// Gives the hole at `at` the space held for it: the blocks it got.
    fn place(&mut self, op: &mut Op<'f>, draft: &mut Draft<'_>, at: FileBlock) -> Result<u64> {
        let Some((file, run)) = self.held.pop_front().filter(|(file, _)| *file == at) else {
            return Err(Error::InvalidArgument("a hole moved under its lock"));
        };
        self.holder.hand_over(run, op);
        let (ino, geometry) = (draft.ino(), self.fs.journal().geometry());
        let extent = Extent { file, pool: run.start, len: run.len, written: false, shared: false };
        ExtentMapMut::new(op, draft.root(), ino, geometry).insert(extent)?;
        op.count_unwritten(run.len as i64);
        draft.inode.blocks += run.len;
        Ok(run.len)
    }

    fn place_edges(&mut self, op: &mut Op<'f>, draft: &mut Draft<'_>) -> Result<()> {
        for edge in std::mem::take(&mut self.edges) {
            if let Some(index) = self.held.iter().position(|(file, _)| *file == edge) {
                let rest = self.held.split_off(index);
                let before = std::mem::replace(&mut self.held, rest);
                self.place(op, draft, edge)?;
                for piece in before.into_iter().rev() {
                    self.held.push_front(piece);
                }
            }
        }
        Ok(())
    }

    /// Changes blocks from `at` on until the end or the record is full; returns the block that was reached.
    fn step(
        &mut self,
        op: &mut Op<'f>,
        draft: &mut Draft<'_>,
        intents: &mut Option<Intents<'f>>,
        mut at: FileBlock,
    ) -> Result<FileBlock> {
        let (ino, geometry, end) = (draft.ino(), self.fs.journal().geometry(), self.blocks.end);
        if self.change == RangeChange::Punch && at < end {
            return remove::free_range(self.fs, op, draft, intents, at..end);
        }
        while at < end && op.room() >= ROOM_LEFT {
            let run = ExtentMap::new(op, &draft.inode.root, ino, geometry).run_at(at, end.0 - at.0)?;
            at = match run.content {
                Content::Hole | Content::Shared(_) if self.change == RangeChange::Zero => {
                    let held = self.held_at(at);
                    if remove::free_range(self.fs, op, draft, intents, at..held)? < held {
                        return Ok(at);
                    }
                    FileBlock(at.0 + self.place(op, draft, at)?)
                }
                Content::Hole => FileBlock(at.0 + self.place(op, draft, at)?),
                Content::Mapped(_) if self.change == RangeChange::Zero => {
                    let blocks =
                        ExtentMapMut::new(op, draft.root(), ino, geometry).unconvert(at..run.end())?;
                    op.count_unwritten(blocks as i64);
                    run.end()
                }
                Content::Mapped(_) | Content::Unwritten(_) | Content::Shared(_) => run.end(),
            };
        }
        Ok(at)
    }
}

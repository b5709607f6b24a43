//! Where does a write go, and how does it become the file's?
//!
//! Places are found and reserved while the data are copied; the tree is changed only in [`Writer::publish`], after
//! the data's fence: extents, conversions and size are one record.

mod planned;

pub use planned::Planned;

use super::{FileMap, Met, Old, WriterMap, blocks_of, clip, hints, state_of};
use crate::alloc::{Op, Want};
use crate::error::Result;
use crate::extent::{Content, Extent, ExtentMapMut};
use crate::inode::{Draft, Fs, InodeCore, Intent, Intents, now, shares};
use crate::iomap::{Before, FileRange, Intent as Purpose, State, WriteMap, WriteOps};
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::atomic::Ordering;
use crate::units::{Block, CHUNK_BLOCKS, FileBlock, Run};
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

/// Bytes of record kept free while places are given out: the tree's nodes, the inode, an intent.
const ROOM_LEFT: u64 = 3000;
/// Bytes of record that a further piece can need in the tree's nodes.
const PIECE_BYTES: u64 = 64;
/// Bytes of record that a piece needs more where it replaces bad blocks: what is left of their extent, and the descriptor
/// of their chunk.
const REPLACED_BYTES: u64 = 256;
/// Bytes of record that a piece needs beyond those where it replaces shared blocks: two nodes of the tree of shares.
const SHARED_BYTES: u64 = 1100;

/// Nodes of the tree of shares that taking a share from one run can add: both its ends can cut a leaf and the level above.
const SHARE_NODES: u64 = 4;

/// Blocks that a write filled or will fill.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// The first block that holds data.
    file: FileBlock,
    run: Run,
    /// How many of the run's blocks come before it, for the sake of a hint.
    lead: u64,
    /// How many of the run's blocks hold data; the rest was reserved ahead.
    filled: u64,
    /// The run is new to the file, not unwritten space that it had.
    new: bool,
    /// The file has blocks there, which the run replaces.
    replaces: Option<Old>,
}

/// A place that was given out: its blocks, and what of the file it replaces.
#[derive(Clone, Copy, Debug)]
struct Open {
    place: Place,
    replaces: Option<Old>,
}

/// Blocks that are reserved for a hole, with `lead` more in front.
#[derive(Clone, Copy, Debug)]
struct Place {
    run: Run,
    lead: u64,
}

/// A file's mapping, for one write.
#[derive(Debug)]
pub struct Writer<'f> {
    fs: &'f Fs,
    core: &'f InodeCore,
    map: FileMap<'f>,
    view: WriterMap<'f>,
    op: Op<'f>,
    pieces: Vec<Piece>,
    /// The file's size before the write.
    size: u64,
    /// What is held beyond the range that is written, so that a hint can be followed there.
    window: FileRange,
    /// Blocks of places given out and not yet ended.
    open: Option<Open>,
    /// Pieces that replace bad blocks, and shared ones.
    bad: u64,
    shared: u64,
    /// Blocks reserved for holes that the write has not come to yet.
    ready: VecDeque<(FileBlock, Run)>,
}

/// What a write will meet, as the mapping says before it begins.
#[derive(Default)]
struct Survey {
    /// Holes: the first block and how many.
    holes: Vec<(FileBlock, u64)>,
    /// Runs of unwritten blocks.
    unwritten: u64,
    /// Bytes that everybody sees are overwritten.
    overwrites: bool,
    /// Runs that other files may own too.
    shared: u64,
}

impl Survey {
    fn of(map: &WriterMap<'_>) -> Result<Self> {
        let WriterMap { range, size, .. } = *map;
        let mut survey = Self::default();
        crate::iomap::walk(map, range, Purpose::Read, |run| {
            survey.shared += u64::from(run.shared);
            match run.state {
                State::Hole | State::Reserved => survey.holes.push(blocks_of(run.range)),
                State::Unwritten(_) => survey.unwritten += 1,
                State::Mapped(_) => survey.overwrites |= run.range.offset < size,
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(survey)
    }
}

impl<'f> Writer<'f> {
    /// A mapping for a write into `range` of a file of `size` bytes. A write that overwrites bytes in place has all
    /// it can need set aside here: it can not fail for want of space once it began to store.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`] where the holes of the range do not fit the pool; [`crate::Error::BadMedium`] where the
    /// medium has lost bytes of a block that is not replaced as a whole.
    pub fn new(fs: &'f Fs, core: &'f InodeCore, range: FileRange, size: u64) -> Result<Self> {
        let map = FileMap::new(fs, core);
        let view = WriterMap { map, range, size };
        let mut survey = Survey::of(&view)?;
        let (from, len) = blocks_of(range);
        if survey.shared > 0 && hints::clear(fs, core, &(from..FileBlock(from.0 + len)))? {
            survey = Survey::of(&view)?;
        }
        let op = fs.space.begin().for_conversion();
        let holes = survey.holes.iter().map(|(_, len)| len).sum();
        if holes > 0 {
            op.ensure(holes)?;
        }
        let (pieces, ready) = (Vec::new(), VecDeque::new());
        let (window, open, bad, shared) = (range, None, 0, 0);
        let mut writer = Self { fs, core, map, view, op, pieces, size, window, open, bad, shared, ready };
        if survey.overwrites {
            writer.set_aside(&survey)?;
        }
        Ok(writer)
    }

    /// Lets space be given to all of `window`, which holds the range that is written and is held as that is, where the
    /// file's extent-size hint says so.
    #[must_use]
    pub fn within(mut self, window: FileRange) -> Self {
        self.window = window;
        self
    }

    fn set_aside(&mut self, survey: &Survey) -> Result<()> {
        for (from, len) in &survey.holes {
            let end = FileBlock(from.0 + len);
            let mut at = *from;
            while at < end {
                let run = self.reserve(at, end)?;
                self.ready.push_back((at, run));
                at = FileBlock(at.0 + run.len);
            }
        }
        let pieces = self.ready.len() as u64 + survey.unwritten;
        if pieces > 0 {
            // Each piece can cut each level of the tree, and raise it; the intent's tree is another one.
            let level = self.core.state.read().root.level.max(self.fs.intents.state.read().root.level);
            let shares = if survey.shared > 0 { survey.shared * SHARE_NODES + 2 } else { 0 };
            self.op.prepare_nodes((pieces + 1) * (u64::from(level) + 2) + shares)?;
        }
        Ok(())
    }

    /// Whether the record has room for a further piece.
    fn has_room(&self) -> bool {
        let replaced = (self.bad + self.shared) * REPLACED_BYTES + self.shared * SHARED_BYTES;
        let pieces = self.pieces.len() as u64 * PIECE_BYTES + replaced;
        self.op.room() >= ROOM_LEFT + pieces
    }

    /// Whether the write replaces blocks that the medium has lost.
    #[must_use]
    pub fn replaces_bad(&self) -> bool {
        self.bad > 0
    }

    /// Whether the write replaces blocks that other files may own too.
    #[must_use]
    pub fn replaces_shared(&self) -> bool {
        self.shared > 0
    }

    /// Whether the write gave the file anything that a record must say.
    #[must_use]
    pub fn needs_record(&self, end: u64) -> bool {
        !self.pieces.is_empty() || end > self.size
    }

    /// How many blocks to reserve beyond `needed` at `from`, at the end of the file: as many as the file has, at
    /// most to the end of the 2 MiB slot; none where the pool is nearly full.
    fn ahead(&self, from: FileBlock, needed: u64) -> u64 {
        let blocks = FileBlock::ceil(self.size).0;
        let geometry = self.fs.journal().geometry();
        let scarce = self.fs.space.free_blocks() < geometry.usable_blocks() / 16 + needed;
        if blocks == 0 || scarce {
            return 0;
        }
        let slot_end = (from.0 + needed).next_multiple_of(CHUNK_BLOCKS) - from.0 - needed;
        let most = self
            .core
            .capacity
            .map_or(u64::MAX, |capacity| FileBlock::ceil(capacity).0.saturating_sub(from.0 + needed));
        if from.0 >= CHUNK_BLOCKS { slot_end.min(most) } else { slot_end.min(blocks).min(most) }
    }

    /// The pool block after the one that holds the file block before `from`.
    fn goal(&self, from: FileBlock) -> Result<Option<Block>> {
        let Some(before) = from.0.checked_sub(1) else { return Ok(None) };
        Ok(match self.map.run(FileBlock(before), 1)?.0.content {
            Content::Hole => None,
            Content::Unwritten(block) | Content::Mapped(block) | Content::Shared(block) => {
                Some(Block(block.0 + 1))
            }
        })
    }

    /// Reserves blocks for file blocks `from` to `to` (exclusive) of a hole, as many as the file's hint says, as far as there
    /// is room: `None` where there is no hint, or none that helps.
    fn reserve_hinted(&mut self, from: FileBlock, to: FileBlock) -> Result<Option<Place>> {
        let hint = self.core.hint();
        let (_, all) = blocks_of(self.window);
        let spare = self.fs.journal().geometry().usable_blocks() / 16;
        // What a hint takes is nothing that the write, or anybody else, will miss.
        if hint <= 1 || self.fs.space.free_blocks() < spare + all.min(2 * hint + self.view.range.len) {
            return Ok(None);
        }
        let hole = self.map.around(from.offset(), self.window)?;
        // The pieces so far are not in the tree yet.
        let given =
            self.pieces.last().map_or(FileBlock(0), |last| FileBlock(last.file.0 + last.run.len - last.lead));
        let start = FileBlock(from.0 - from.0 % hint).max(FileBlock::ceil(hole.range.offset)).max(given);
        let end = FileBlock(to.0.next_multiple_of(hint)).min(FileBlock::of(hole.range.end())).max(to);
        let lead = from.0 - start.0;
        let run =
            self.op.reserve(&Want { blocks: end.0 - start.0, file_block: start, goal: self.goal(start)? })?;
        if run.len <= lead {
            self.op.give_back(run);
            return Ok(None);
        }
        Ok(Some(Place { run, lead }))
    }

    /// Reserves a run for file blocks `from` to `to` (exclusive), perhaps shorter, perhaps with more ahead.
    fn reserve(&mut self, from: FileBlock, to: FileBlock) -> Result<Run> {
        let needed = to.0 - from.0;
        let mut ahead = 0;
        // Only who makes the file longer holds what lies beyond the end: another may be writing there.
        let grows = self.view.range.end() > self.size || mutation::is(Mutation::AheadUnheld);
        if grows && to.offset() >= self.size.max(self.view.range.end()) {
            let after = self.map.run(to, CHUNK_BLOCKS)?.0;
            let free = if after.content == Content::Hole { after.len } else { 0 };
            ahead = self.ahead(from, needed).min(free);
        }
        let blocks = needed + ahead;
        self.op.reserve(&Want { blocks, file_block: from, goal: self.goal(from)? })
    }

    /// Makes the write the file's: extents, conversions and the size, at least `end` bytes, in one record.
    ///
    /// # Errors
    /// No space for tree nodes, damage, errors of the medium; the file is as before then.
    pub fn publish(mut self, data: Durable, end: u64) -> Result<()> {
        for (_, run) in std::mem::take(&mut self.ready) {
            self.op.give_back(run);
        }
        let mut draft = Draft::lock(self.core);
        let (mut beyond, mut intents) = (false, None);
        for piece in std::mem::take(&mut self.pieces) {
            self.place(&mut draft, &mut intents, piece)?;
            let last = FileBlock(piece.file.0 + piece.run.len - piece.lead);
            beyond |= piece.run.len > piece.filled && last > FileBlock::ceil(draft.inode.size.max(end));
        }
        draft.inode.size = draft.inode.size.max(end);
        draft.touch(now());
        draft.stage(&mut self.op)?;
        if beyond && !self.core.has_intent.load(Ordering::Acquire) {
            intents.get_or_insert_with(|| Intents::lock(&self.fs.intents)).put(
                &mut self.op,
                self.core.ino,
                Intent::CleanUp,
            )?;
        }
        self.op.commit(data)?;
        if beyond {
            self.core.has_intent.store(true, Ordering::Release);
        }
        draft.publish(self.fs.region())?;
        intents.map_or(Ok(()), |intents| intents.publish(&self.fs.space))
    }

    fn place(
        &mut self,
        draft: &mut Draft<'_>,
        intents: &mut Option<Intents<'f>>,
        piece: Piece,
    ) -> Result<()> {
        let Piece { file, run, lead, filled, new, replaces } = piece;
        let ino = draft.ino();
        let geometry = self.fs.journal().geometry();
        if replaces.is_some() {
            self.remove_old(draft, intents, file..FileBlock(file.0 + filled))?;
        }
        let mut map = ExtentMapMut::new(&mut self.op, draft.root(), ino, geometry);
        if !new {
            let converted = map.convert(file..FileBlock(file.0 + filled))?;
            self.op.count_unwritten(-(converted as i64));
            return Ok(());
        }
        let ahead = run.len - lead - filled;
        let first = FileBlock(file.0 - lead);
        for (from, len, written) in [(0, lead, false), (lead, filled, true), (lead + filled, ahead, false)] {
            if len > 0 {
                let (file, pool) = (FileBlock(first.0 + from), Block(run.start.0 + from));
                map.insert(Extent { file, pool, len, written, shared: false })?;
            }
        }
        if lead + ahead > 0 {
            self.op.count_unwritten((lead + ahead) as i64);
        }
        draft.inode.blocks += run.len;
        Ok(())
    }
}

impl<'f> Writer<'f> {
    /// A place for file blocks `from` to `to` (exclusive) of a hole, or of blocks that are to be replaced (`old`).
    fn place_for(&mut self, from: FileBlock, to: FileBlock, old: bool) -> Result<Place> {
        let hinted = if old { None } else { self.reserve_hinted(from, to)? };
        match hinted {
            Some(place) => Ok(place),
            None => Ok(Place { run: self.reserve(from, to)?, lead: 0 }),
        }
    }

    /// Takes the blocks of `range` from the file, to be freed with its record unless others own them.
    fn remove_old(
        &mut self,
        draft: &mut Draft<'_>,
        intents: &mut Option<Intents<'f>>,
        range: Range<FileBlock>,
    ) -> Result<()> {
        let (fs, ino, geometry) = (self.fs, draft.ino(), self.fs.journal().geometry());
        let mut freed = 0;
        ExtentMapMut::new(&mut self.op, draft.root(), ino, geometry).remove(range, |op, extent| {
            shares::release(fs, op, intents, extent.run(), extent.shared)?;
            op.count_unwritten(if extent.written { 0 } else { -(extent.len as i64) });
            freed += extent.len;
            Ok(ControlFlow::Continue(()))
        })?;
        draft.inode.blocks = draft.inode.blocks.saturating_sub(freed);
        Ok(())
    }
}

impl WriteOps for Writer<'_> {
    fn begin(&mut self, range: FileRange) -> Result<Option<WriteMap>> {
        if !self.pieces.is_empty() && !self.has_room() {
            return Ok(None);
        }
        let (from, len) = blocks_of(range);
        let Met { mut run, cookie, old } = self.view.run(from, len)?;
        if let Some(Old::Shared(block)) = old {
            run.len = shares::reach(self.fs, &self.op, None, Run::new(block, run.len))?.len;
        }
        let mut covered = clip(&run, range);
        let (at, before) = match state_of(&run, range.offset) {
            State::Mapped(at) => (at, Before::Data),
            State::Unwritten(at) => (at, Before::Unwritten),
            State::Hole | State::Reserved => {
                let is_ready = self.ready.front().is_some_and(|(file, _)| *file == from);
                let place = match if is_ready { self.ready.pop_front() } else { None } {
                    Some((_, run)) => Place { run, lead: 0 },
                    None => self.place_for(from, FileBlock::ceil(covered.end()), old.is_some())?,
                };
                self.open = Some(Open { place, replaces: old });
                let Place { run, lead } = place;
                covered.len = covered.len.min(FileBlock(from.0 + run.len - lead).offset() - range.offset);
                let first = Block(run.start.0 + lead).offset();
                let into = range.offset % crate::units::BLOCK_BYTES;
                let before = match old {
                    Some(Old::Shared(block)) => Before::Shared(block.offset().plus(into)),
                    _ => Before::New,
                };
                (first.plus(into), before)
            }
        };
        Ok(Some(WriteMap { range: covered, at, before, cookie }))
    }

    fn end(&mut self, map: &WriteMap, written: u64) -> Result<()> {
        let file = FileBlock::of(map.range.offset);
        let filled = if written == 0 { 0 } else { FileBlock::ceil(map.range.offset + written).0 - file.0 };
        match (self.open.take(), map.before) {
            (Some(Open { place, .. }), _) if filled == 0 => self.op.give_back(place.run),
            (Some(Open { place: Place { run, lead }, replaces }), _) => {
                // What lies ahead is kept only where the write went to the end of the place.
                let kept = if written == map.range.len { run.len } else { lead + filled };
                if kept < run.len {
                    self.op.give_back(Run::new(Block(run.start.0 + kept), run.len - kept));
                }
                match replaces {
                    Some(Old::Bad) => self.bad += 1,
                    Some(Old::Shared(_)) => self.shared += 1,
                    None => {}
                }
                let run = Run::new(run.start, kept);
                self.pieces.push(Piece { file, run, lead, filled, new: true, replaces });
            }
            (None, Before::Unwritten) if filled > 0 => {
                let run = Run::new(map.at.block(), filled);
                self.pieces.push(Piece { file, run, lead: 0, filled, new: false, replaces: None });
            }
            (None, _) => {}
        }
        Ok(())
    }
}

//! How does a file get 2 MiB translations where it has none?
//!
//! A 2 MiB slot of a file can be one translation where its blocks are one chunk of the pool. A slot that is not, and has
//! no hole, is moved: its data are copied into a free chunk and fenced, then extents are exchanged. The old
//! blocks are free after the record that takes them from the file; where what goes does not fit one record, blocks move
//! in several, each of which leaves the file whole.
//!
//! Invariants:
//! 1. The bytes of the file are the same at each moment and after any crash, and so are size and times.
//! 2. The slot is held in `io`, and a [`Transition`](crate::iomap::Transition) keeps mappings away: between the copy
//!    and the last record nobody stores to the old blocks. Blocks that are pinned stay where they are.
//! 3. Slots with shared blocks stay: a copy for one file would take space that sharing saves.
//! 4. What is unwritten is not copied and stays unwritten.

use super::Handle;
use super::group;
use super::read::check_regular;
use crate::alloc::{Op, Want};
use crate::error::{Error, Result};
use crate::extent::{Content, Extent, ExtentMap, ExtentMapMut, FileRun};
use crate::inode::{Draft, Fs, InodeCore};
use crate::iomap::FileRange;
use crate::pmem::Durable;
use crate::units::{BLOCK_BYTES, Block, CHUNK_BLOCKS, CHUNK_BYTES, FileBlock, PoolOff, Run};
use std::ops::{AddAssign, ControlFlow};

/// Bytes of record kept free before a further extent moves: the tree's nodes, the inode, the chunk's descriptor.
const ROOM_LEFT: u64 = 3000;
/// Bytes copied at a time.
const COPY_BYTES: u64 = 64 << 10;

/// What defragmentation found: whole 2 MiB slots of files, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defragmented {
    /// All that lie within the files.
    pub slots: u64,
    /// One congruent chunk before.
    pub already: u64,
    /// One congruent chunk now.
    pub moved: u64,
    /// Left, since a part is a hole: a chunk would take space that the file does not.
    pub with_holes: u64,
    /// Left, since other files may own some of the blocks too.
    pub shared: u64,
    /// Left, since no chunk was free.
    pub no_chunk: u64,
    /// Left, since blocks are pinned: somebody may store to them without a translation.
    pub pinned: u64,
    /// Left, since a mapping can not let go of them: it was made eagerly.
    pub mapped: u64,
}

impl Defragmented {
    /// The slots that one translation of 2 MiB can serve now.
    #[must_use]
    pub const fn huge(&self) -> u64 {
        self.already + self.moved
    }
}

impl AddAssign for Defragmented {
    fn add_assign(&mut self, more: Self) {
        self.slots += more.slots;
        self.already += more.already;
        self.moved += more.moved;
        self.with_holes += more.with_holes;
        self.shared += more.shared;
        self.no_chunk += more.no_chunk;
        self.pinned += more.pinned;
        self.mapped += more.mapped;
    }
}

/// Moves the 2 MiB slots of `range` that lie within the file and are not one congruent chunk into one each. Other changes
/// of the file wait for one slot at a time.
///
/// # Errors
/// Not a regular file, damage, errors of the medium, no space for tree nodes. The file's content is as before, and what
/// was moved stays so.
pub fn defrag(handle: &Handle, range: FileRange) -> Result<Defragmented> {
    check_regular(handle)?;
    handle.fs().journal().writable()?;
    let mut found = Defragmented::default();
    let mut goal = None;
    let mut start = FileBlock::of(range.offset.next_multiple_of(CHUNK_BYTES));
    while start.0 + CHUNK_BLOCKS <= FileBlock::ceil(range.end()).0 {
        let slot = Slot { fs: handle.fs(), core: handle.core(), start };
        let Some(fate) = slot.defrag(&mut goal)? else { break };
        found += fate.count();
        start = slot.end();
    }
    Ok(found)
}

/// What became of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Already,
    Moved,
    WithHoles,
    Shared,
    NoChunk,
    Pinned,
    Mapped,
}

impl Fate {
    fn count(self) -> Defragmented {
        let mut one = Defragmented { slots: 1, ..Defragmented::default() };
        match self {
            Self::Already => one.already = 1,
            Self::Moved => one.moved = 1,
            Self::WithHoles => one.with_holes = 1,
            Self::Shared => one.shared = 1,
            Self::NoChunk => one.no_chunk = 1,
            Self::Pinned => one.pinned = 1,
            Self::Mapped => one.mapped = 1,
        }
        one
    }
}

/// A run of the slot and where it is.
#[derive(Clone, Copy, Debug)]
struct Piece {
    file: FileBlock,
    run: Run,
    written: bool,
}

/// 2 MiB of a file.
struct Slot<'f> {
    fs: &'f Fs,
    core: &'f InodeCore,
    start: FileBlock,
}

impl<'f> Slot<'f> {
    fn end(&self) -> FileBlock {
        FileBlock(self.start.0 + CHUNK_BLOCKS)
    }

    /// Moves the slot if it can and has to; `None` where it is not wholly within the file. `goal` is where the slot
    /// before ends, and then where this one does.
    fn defrag(&self, goal: &mut Option<Block>) -> Result<Option<Fate>> {
        let range = FileRange { offset: self.start.offset(), len: CHUNK_BYTES };
        let _io = self.core.io.exclusive(range.offset, range.end());
        group::settle(self.fs)?;
        if FileBlock::ceil(self.core.size()) < self.end() {
            return Ok(None);
        }
        if let Some(fate) = self.look(goal)?.1 {
            return Ok(Some(fate));
        }
        let turn = match self.core.space.invalidate(range, false) {
            Ok(turn) => turn,
            Err(Error::Unsupported { .. }) => return Ok(Some(Fate::Mapped)),
            Err(error) => return Err(error),
        };
        // Faults may have given space to the slot until then.
        let (pieces, fate) = self.look(goal)?;
        let fate = match fate {
            Some(fate) => fate,
            None if self.fs.space.is_pinned(pieces.iter().map(|piece| piece.run)) => Fate::Pinned,
            None => self.relocate(&pieces, goal)?,
        };
        drop(turn);
        Ok(Some(fate))
    }

    /// The runs of the slot, and what becomes of it if nothing has to be done.
    fn look(&self, goal: &mut Option<Block>) -> Result<(Vec<Piece>, Option<Fate>)> {
        let state = self.core.state.read();
        let geometry = self.fs.journal().geometry();
        let map = ExtentMap::new(&*self.fs.space, &state.root, self.core.ino, geometry);
        let (mut pieces, mut at) = (Vec::new(), self.start);
        while at < self.end() {
            let run = map.run_at(at, self.end().0 - at.0)?;
            match Piece::of(&run) {
                Ok(piece) => pieces.push(piece),
                Err(fate) => {
                    *goal = None;
                    return Ok((Vec::new(), Some(fate)));
                }
            }
            at = run.end();
        }
        let first = pieces.first().map_or(Block(0), |piece| piece.run.start);
        let is_one = pieces.windows(2).all(|w| matches!(w, [a, b] if a.run.end() == b.run.start));
        if is_one && first.in_chunk() == 0 {
            *goal = Some(Block(first.0 + CHUNK_BLOCKS));
            return Ok((pieces, Some(Fate::Already)));
        }
        Ok((pieces, None))
    }

    fn relocate(&self, pieces: &[Piece], goal: &mut Option<Block>) -> Result<Fate> {
        let mut holder = self.fs.space.begin();
        let want = Want { blocks: CHUNK_BLOCKS, file_block: self.start, goal: *goal };
        let chunk = match holder.reserve(&want) {
            Ok(run) if run.len == CHUNK_BLOCKS && run.start.in_chunk() == 0 => run,
            Ok(_) | Err(Error::NoSpace { .. }) => return Ok(Fate::NoChunk),
            Err(error) => return Err(error),
        };
        let mut data = Some(self.copy(pieces, chunk.start)?);
        let mut rest = pieces;
        while !rest.is_empty() {
            rest = self.exchange(&mut holder, rest, chunk, data.take().unwrap_or_else(Durable::no_data))?;
        }
        *goal = Some(chunk.end());
        Ok(Fate::Moved)
    }

    /// Where `file` goes.
    fn new_place(&self, chunk: Run, file: FileBlock) -> Block {
        Block(chunk.start.0 + (file.0 - self.start.0))
    }

    /// Copies what is written to its new place.
    fn copy(&self, pieces: &[Piece], to: Block) -> Result<Durable> {
        let mut data = self.fs.region().data_writer();
        let mut buffer = vec![0; COPY_BYTES as usize];
        for piece in pieces.iter().filter(|piece| piece.written) {
            let (from, len) = (piece.run.start.offset(), piece.run.len * BLOCK_BYTES);
            let to = Block(to.0 + (piece.file.0 - self.start.0)).offset();
            let mut done = 0;
            while done < len {
                let part = &mut buffer[..(len - done).min(COPY_BYTES) as usize];
                self.fs.region().read(PoolOff(from.0 + done), part)?;
                data.copy(PoolOff(to.0 + done), part)?;
                done += part.len() as u64;
            }
        }
        data.fence()
    }

    /// Puts as many of `pieces` as one record has room for, at least one, to their places in `chunk`, which `holder`
    /// reserved; returns the others.
    fn exchange<'p>(
        &self,
        holder: &mut Op<'f>,
        pieces: &'p [Piece],
        chunk: Run,
        data: Durable,
    ) -> Result<&'p [Piece]> {
        let mut draft = Draft::lock(self.core);
        let mut op = self.fs.space.begin().for_conversion();
        let mut moved = 0;
        while let Some(piece) = pieces.get(moved)
            && (moved == 0 || op.room() >= ROOM_LEFT)
        {
            self.exchange_one(&mut op, &mut draft, piece, chunk)?;
            moved += 1;
        }
        let (done, rest) = pieces.split_at(moved);
        let blocks = done.iter().map(|piece| piece.run.len).sum();
        if let Some(first) = done.first() {
            holder.hand_over(Run::new(self.new_place(chunk, first.file), blocks), &mut op);
        }
        draft.stage(&mut op)?;
        op.commit(data)?;
        draft.publish(self.fs.region())?;
        Ok(rest)
    }

    fn exchange_one(&self, op: &mut Op<'_>, draft: &mut Draft<'_>, piece: &Piece, chunk: Run) -> Result<()> {
        let (ino, geometry) = (draft.ino(), self.fs.journal().geometry());
        let mut map = ExtentMapMut::new(op, draft.root(), ino, geometry);
        let end = FileBlock(piece.file.0 + piece.run.len);
        map.remove(piece.file..end, |op, old| {
            op.release(Run::new(old.pool, old.len))?;
            Ok(ControlFlow::Continue(()))
        })?;
        let pool = self.new_place(chunk, piece.file);
        map.insert(Extent {
            file: piece.file,
            pool,
            len: piece.run.len,
            written: piece.written,
            shared: false,
        })
    }
}

impl Piece {
    /// What can be moved, or why the slot is left.
    fn of(run: &FileRun) -> Result<Self, Fate> {
        let (start, written) = match run.content {
            Content::Hole => return Err(Fate::WithHoles),
            Content::Shared(_) => return Err(Fate::Shared),
            Content::Unwritten(block) => (block, false),
            Content::Mapped(block) => (block, true),
        };
        Ok(Self { file: run.file, run: Run::new(start, run.len), written })
    }
}

//! What is one extent, and when is it believed?

use crate::error::{Damage, Result, Structure};
use crate::layout::Geometry;
use crate::units::{BLOCK_BYTES, Block, FileBlock, GROUP_BLOCKS, Ino, MAX_FILE_BYTES, Run};
use std::ops::Range;

/// Blocks of the largest file: the exclusive bound of file blocks.
pub const MAX_FILE_BLOCKS: u64 = MAX_FILE_BYTES / BLOCK_BYTES;
const POOL_BITS: u32 = 36;
const LEN_BITS: u32 = 26;
const WRITTEN_AT: u32 = POOL_BITS + LEN_BITS;
const SHARED_AT: u32 = WRITTEN_AT + 1;

/// Blocks of a file that lie together in the pool, in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block in the file.
    pub file: FileBlock,
    /// The first block in the pool.
    pub pool: Block,
    /// How many blocks, not 0.
    pub len: u64,
    /// Whether the blocks hold data; else they read as zeros.
    pub written: bool,
    /// Whether other files may own some of the blocks too: nothing is stored to them then. Only of written blocks.
    pub shared: bool,
}

impl Extent {
    /// The first file block after the extent.
    #[must_use]
    pub const fn end(&self) -> FileBlock {
        FileBlock(self.file.0 + self.len)
    }

    /// The pool blocks.
    #[must_use]
    pub const fn run(&self) -> Run {
        Run::new(self.pool, self.len)
    }

    /// Whether `block` is in the extent.
    #[must_use]
    pub const fn covers(&self, block: FileBlock) -> bool {
        self.file.0 <= block.0 && block.0 < self.file.0 + self.len
    }

    /// The part of the extent in `range`; `None` where they do not meet.
    #[must_use]
    pub fn clip(&self, range: &Range<FileBlock>) -> Option<Self> {
        let (from, to) = (self.file.max(range.start), self.end().min(range.end));
        let len = to.0.checked_sub(from.0).filter(|len| *len > 0)?;
        Some(Self { file: from, pool: Block(self.pool.0 + (from.0 - self.file.0)), len, ..*self })
    }

    /// Whether `next` goes on where this ends, in file and pool, in the same state.
    #[must_use]
    pub const fn continues_in(&self, next: &Self) -> bool {
        self.file.0 + self.len == next.file.0
            && self.pool.0 + self.len == next.pool.0
            && self.written == next.written
            && self.shared == next.shared
    }

    /// This and `next` as one record, where they may be one.
    pub(super) fn joined(&self, next: &Self) -> Option<Self> {
        let len = self.len + next.len;
        let one_group = self.pool.0 / GROUP_BLOCKS == next.pool.0 / GROUP_BLOCKS;
        (self.continues_in(next) && one_group && len < 1 << LEN_BITS).then_some(Self { len, ..*self })
    }

    /// The payload of the extent's record; its key is `file`.
    #[must_use]
    pub const fn encode(&self) -> [u8; 8] {
        let flags = (self.written as u64) << WRITTEN_AT | (self.shared as u64) << SHARED_AT;
        (self.pool.0 | self.len << POOL_BITS | flags).to_le_bytes()
    }

    /// The extent in a record of the tree of `owner`.
    ///
    /// # Errors
    /// [`Damage`] of [`Structure::Extent`], placed at the owner's inode, for a payload that can not be an
    /// extent of this pool.
    pub fn decode(key: u64, payload: &[u8], owner: Ino, geometry: &Geometry) -> Result<Self> {
        let damage =
            |what, expected, found| Damage::new(Structure::Extent, owner.offset(), what, expected, found);
        let Ok(bytes) = <[u8; 8]>::try_from(payload) else {
            return Err(damage("record size", 8, payload.len() as u64).into());
        };
        let raw = u64::from_le_bytes(bytes);
        let (written, shared) = (raw >> WRITTEN_AT & 1 == 1, raw >> SHARED_AT == 1);
        if shared && !written {
            return Err(damage("state", 1, raw >> WRITTEN_AT).into());
        }
        let extent = Self {
            file: FileBlock(key),
            pool: Block(raw & ((1 << POOL_BITS) - 1)),
            len: raw >> POOL_BITS & ((1 << LEN_BITS) - 1),
            written,
            shared,
        };
        extent.check(owner, geometry)?;
        Ok(extent)
    }

    /// Whether an extent of `owner` can be: in the pool outside every header, and in a file.
    pub(super) fn check(&self, owner: Ino, geometry: &Geometry) -> Result<()> {
        let damage = |what, expected, found| {
            Err(Damage::new(Structure::Extent, owner.offset(), what, expected, found).into())
        };
        if self.len == 0 || self.len >> LEN_BITS != 0 {
            return damage("length", 1, self.len);
        }
        if !geometry.is_allocatable(self.pool, self.len) {
            return damage("pool blocks", geometry.blocks(), self.pool.0);
        }
        match self.file.0.checked_add(self.len) {
            Some(end) if end <= MAX_FILE_BLOCKS => Ok(()),
            _ => damage("file blocks", MAX_FILE_BLOCKS, self.file.0),
        }
    }
}

/// What is at a file block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The record that covers the block.
    Extent(Extent),
    /// Nothing, up to the next extent.
    Hole {
        /// Where the next extent begins, if there is one.
        until: Option<FileBlock>,
    },
}

/// What a run of file blocks holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// No blocks.
    Hole,
    /// Blocks from this one on that read as zeros.
    Unwritten(Block),
    /// Blocks from this one on with data.
    Mapped(Block),
    /// Blocks from this one on with data, which other files may own too: to be read, never to be stored to.
    Shared(Block),
}

/// A run of file blocks of one state; where they have pool blocks, these are contiguous too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRun {
    /// The first file block.
    pub file: FileBlock,
    /// How many blocks.
    pub len: u64,
    /// What they hold.
    pub content: Content,
}

impl FileRun {
    /// The first file block after the run.
    #[must_use]
    pub const fn end(&self) -> FileBlock {
        FileBlock(self.file.0 + self.len)
    }
}

impl FileRun {
    /// Whether `next`, which follows in the file, is of one run with it.
    #[must_use]
    pub fn continues_in(&self, next: &Self) -> bool {
        let follows =
            |at: Block, then: Block| at.0 + self.len == then.0 && at.chunk().group() == then.chunk().group();
        match (self.content, next.content) {
            (Content::Hole, Content::Hole) => true,
            (Content::Unwritten(at), Content::Unwritten(then)) => follows(at, then),
            (Content::Mapped(at), Content::Mapped(then)) => follows(at, then),
            _ => false,
        }
    }
}

impl From<Extent> for FileRun {
    fn from(extent: Extent) -> Self {
        let content = match (extent.written, extent.shared) {
            (false, _) => Content::Unwritten(extent.pool),
            (true, false) => Content::Mapped(extent.pool),
            (true, true) => Content::Shared(extent.pool),
        };
        Self { file: extent.file, len: extent.len, content }
    }
}

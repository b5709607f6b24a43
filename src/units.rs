//! What is a number measured in?
//!
//! Every integer with a meaning has its own type here, so that a block can not be passed where a byte is
//! meant. Conversions between units are named; none is implicit.

use std::fmt;

/// Bytes in a block, the unit of allocation (one PTE).
pub const BLOCK_BYTES: u64 = 4096;
/// Blocks in a chunk (one PMD).
pub const CHUNK_BLOCKS: u64 = 512;
/// Bytes in a chunk: 2 MiB.
pub const CHUNK_BYTES: u64 = BLOCK_BYTES * CHUNK_BLOCKS;
/// Chunks in an allocation group.
pub const GROUP_CHUNKS: u64 = 512;
/// Blocks in an allocation group.
pub const GROUP_BLOCKS: u64 = GROUP_CHUNKS * CHUNK_BLOCKS;
/// Bytes in an allocation group: 1 GiB.
pub const GROUP_BYTES: u64 = GROUP_CHUNKS * CHUNK_BYTES;
/// Bytes in a cache line, the unit of flushing.
pub const LINE_BYTES: u64 = 64;
/// The smallest pool, in bytes (8 MiB).
pub const MIN_POOL_BYTES: u64 = 8 << 20;
/// The largest pool, in bytes (16 TiB).
pub const MAX_POOL_BYTES: u64 = 16 << 40;
/// The largest file, in bytes (exclusive bound of every file offset): 2^62.
pub const MAX_FILE_BYTES: u64 = 1 << 62;
/// The longest name in a directory, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest symbolic link target, in bytes.
pub const MAX_SYMLINK_BYTES: usize = 4095;
/// The longest extended attribute value, in bytes.
pub const MAX_XATTR_BYTES: usize = 64 << 10;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

unit! {
    /// A byte offset from the start of the pool. Persistent memory is named by this, never by address.
    PoolOff
}
unit! {
    /// A block number from the start of the pool.
    Block
}
unit! {
    /// A block number from the start of a file.
    FileBlock
}
unit! {
    /// A chunk number from the start of the pool.
    Chunk
}
unit! {
    /// An allocation group number.
    Group
}
unit! {
    /// An inode number: the pool offset of the inode's slot divided by 256. 0 is never an inode.
    Ino
}

impl PoolOff {
    /// This offset plus `bytes`; saturates, so that a hostile sum fails the bounds check instead of wrapping.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The block that holds this byte.
    #[must_use]
    pub const fn block(self) -> Block {
        Block(self.0 / BLOCK_BYTES)
    }
}

impl Block {
    /// The offset of the block's first byte.
    #[must_use]
    pub const fn offset(self) -> PoolOff {
        PoolOff(self.0.saturating_mul(BLOCK_BYTES))
    }

    /// The chunk that holds this block.
    #[must_use]
    pub const fn chunk(self) -> Chunk {
        Chunk(self.0 / CHUNK_BLOCKS)
    }

    /// The block's position in its chunk, 0 to 511.
    #[must_use]
    pub const fn in_chunk(self) -> u64 {
        self.0 % CHUNK_BLOCKS
    }
}

impl FileBlock {
    /// The block that holds byte `offset` of a file.
    #[must_use]
    pub const fn of(offset: u64) -> Self {
        Self(offset / BLOCK_BYTES)
    }

    /// The first block at or after byte `offset` of a file.
    #[must_use]
    pub const fn ceil(offset: u64) -> Self {
        Self(offset.div_ceil(BLOCK_BYTES))
    }

    /// The file offset of the block's first byte; saturates.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0.saturating_mul(BLOCK_BYTES)
    }
}

impl Chunk {
    /// The chunk's first block.
    #[must_use]
    pub const fn first_block(self) -> Block {
        Block(self.0 * CHUNK_BLOCKS)
    }

    /// The allocation group that holds the chunk.
    #[must_use]
    pub const fn group(self) -> Group {
        Group(self.0 / GROUP_CHUNKS)
    }

    /// The chunk's position in its group, 0 to 511.
    #[must_use]
    pub const fn in_group(self) -> u64 {
        self.0 % GROUP_CHUNKS
    }
}

impl Group {
    /// The offset of the group's first byte.
    #[must_use]
    pub const fn offset(self) -> PoolOff {
        PoolOff(self.0 * GROUP_BYTES)
    }

    /// The group's first chunk.
    #[must_use]
    pub const fn first_chunk(self) -> Chunk {
        Chunk(self.0 * GROUP_CHUNKS)
    }
}

impl Ino {
    /// Bytes in an inode slot; an inode number counts these from the start of the pool.
    pub const SLOT_BYTES: u64 = 256;

    /// The offset of the inode's slot.
    #[must_use]
    pub const fn offset(self) -> PoolOff {
        PoolOff(self.0.saturating_mul(Self::SLOT_BYTES))
    }

    /// The inode whose slot starts at `at`, a multiple of 256.
    #[must_use]
    pub const fn at(at: PoolOff) -> Self {
        Self(at.0 / Self::SLOT_BYTES)
    }
}

/// A run of pool blocks: `len` blocks from `start`; never empty where it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Run {
    /// The first block.
    pub start: Block,
    /// How many blocks.
    pub len: u64,
}

impl Run {
    /// `len` blocks from `start`.
    #[must_use]
    pub const fn new(start: Block, len: u64) -> Self {
        Self { start, len }
    }

    /// The first block after the run.
    #[must_use]
    pub const fn end(self) -> Block {
        Block(self.start.0 + self.len)
    }
}

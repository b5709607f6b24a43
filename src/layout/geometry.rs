//! How large is everything, and where does it start?
//!
//! Each allocation group of 1 GiB starts with its own tables, so a pool grows by zeros and mkfs writes almost
//! nothing:
//!
//! | block of the group | what |
//! | ---: | --- |
//! | 0 | group 0: superblock A; else reserved |
//! | 1 | the group object |
//! | 2 to 25 | 512 chunk descriptors of 192 bytes |
//! | 26 | group 0: superblock B; else reserved |
//! | 27 and on | group 0: the lanes; else data |
//!
//! These header blocks are used whatever the descriptors say, and a group's first chunk is always broken.

use crate::units::{
    BLOCK_BYTES, Block, CHUNK_BLOCKS, CHUNK_BYTES, Chunk, GROUP_BYTES, GROUP_CHUNKS, Group, PoolOff,
};

/// Blocks at the start of every group that are never allocated.
pub const GROUP_HEADER_BLOCKS: u64 = 27;
/// Bytes of a descriptor slot (group object and chunk descriptor alike).
pub const DESCRIPTOR_BYTES: u64 = 192;
/// Bytes at the start of a lane for its counters; the ring follows.
pub const LANE_COUNTER_BYTES: u64 = 64;

/// Sizes chosen at mkfs; only `size` ever changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the pool that are used; whatever is past the last whole chunk is not.
    pub size: u64,
    /// How many journal lanes.
    pub lanes: u32,
    /// Bytes of a lane: 64 of counters, then the ring. A multiple of 4096.
    pub lane_bytes: u32,
    /// Blocks of an arena (a run of slots opened at once): 1, 2, 4, 8 or 16.
    pub arena_blocks: u32,
}

impl Geometry {
    /// The geometry mkfs chooses for a pool of `size` bytes.
    #[must_use]
    pub const fn for_size(size: u64) -> Self {
        let size = size - size % CHUNK_BYTES;
        if size < 64 << 20 {
            Self { size, lanes: 4, lane_bytes: 32 << 10, arena_blocks: 4 }
        } else {
            Self { size, lanes: 16, lane_bytes: 64 << 10, arena_blocks: 16 }
        }
    }

    /// Checks the fields against each other: `Err((rule, limit, value))`.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, u64, u64)> {
        let lanes = u64::from(self.lanes);
        if self.lanes == 0 || self.lanes > 256 {
            return Err(("lanes", 256, lanes));
        }
        if self.lane_bytes < 4096 || !u64::from(self.lane_bytes).is_multiple_of(BLOCK_BYTES) {
            return Err(("lane size", 4096, u64::from(self.lane_bytes)));
        }
        if !matches!(self.arena_blocks, 1 | 2 | 4 | 8 | 16) {
            return Err(("arena size", 16, u64::from(self.arena_blocks)));
        }
        let header = GROUP_HEADER_BLOCKS + lanes * u64::from(self.lane_bytes) / BLOCK_BYTES;
        if header > CHUNK_BLOCKS {
            return Err(("header blocks", CHUNK_BLOCKS, header));
        }
        Ok(())
    }

    /// Whole chunks in the pool.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        self.size / CHUNK_BYTES
    }

    /// Blocks in whole chunks of the pool.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.chunks() * CHUNK_BLOCKS
    }

    /// Groups, the last one perhaps partial.
    #[must_use]
    pub const fn groups(&self) -> u64 {
        self.size.div_ceil(GROUP_BYTES)
    }

    /// Chunks of group `g`: 512, fewer in the last one, 0 past it.
    #[must_use]
    pub const fn group_chunks(&self, g: Group) -> u64 {
        let left = self.chunks().saturating_sub(g.0 * GROUP_CHUNKS);
        if left < GROUP_CHUNKS { left } else { GROUP_CHUNKS }
    }

    /// Blocks at the start of group `g` that are never allocated.
    #[must_use]
    pub const fn header_blocks(&self, g: Group) -> u64 {
        if g.0 == 0 {
            GROUP_HEADER_BLOCKS + self.lanes as u64 * self.lane_bytes as u64 / BLOCK_BYTES
        } else {
            GROUP_HEADER_BLOCKS
        }
    }

    /// Blocks that files and arenas can have in an empty pool.
    #[must_use]
    pub const fn usable_blocks(&self) -> u64 {
        let headers =
            self.groups() * GROUP_HEADER_BLOCKS + self.lanes as u64 * self.lane_bytes as u64 / BLOCK_BYTES;
        self.blocks().saturating_sub(headers)
    }

    /// Where the object of group `g` lies.
    #[must_use]
    pub const fn group_object(&self, g: Group) -> PoolOff {
        PoolOff(g.0 * GROUP_BYTES + BLOCK_BYTES)
    }

    /// Where the descriptor of chunk `c` lies.
    #[must_use]
    pub const fn chunk_descriptor(&self, c: Chunk) -> PoolOff {
        PoolOff(c.group().0 * GROUP_BYTES + 2 * BLOCK_BYTES + c.in_group() * DESCRIPTOR_BYTES)
    }

    /// Where lane `lane` starts (its counters).
    #[must_use]
    pub const fn lane(&self, lane: u32) -> PoolOff {
        PoolOff(GROUP_HEADER_BLOCKS * BLOCK_BYTES + lane as u64 * self.lane_bytes as u64)
    }

    /// Where the ring of lane `lane` starts.
    #[must_use]
    pub const fn ring(&self, lane: u32) -> PoolOff {
        PoolOff(self.lane(lane).0 + LANE_COUNTER_BYTES)
    }

    /// Bytes of a lane's ring.
    #[must_use]
    pub const fn ring_bytes(&self) -> u64 {
        self.lane_bytes as u64 - LANE_COUNTER_BYTES
    }

    /// Whether `len` blocks from `start` lie in the pool and outside every group header.
    #[must_use]
    pub fn is_allocatable(&self, start: Block, len: u64) -> bool {
        let Some(end) = start.0.checked_add(len) else { return false };
        if len == 0 || end > self.blocks() {
            return false;
        }
        let group = start.chunk().group();
        let past_own_header = start.0 - group.first_chunk().first_block().0 >= self.header_blocks(group);
        // A run that reaches the next group would cross that group's header.
        past_own_header && (end - 1) / (GROUP_CHUNKS * CHUNK_BLOCKS) == group.0
    }
}

//! How is the space used?
//!
//! Whole-pool scans for people, straight from the media: nothing of them stays in memory, and while operations are
//! under way the figures are of slightly different moments.

use super::Space;
use super::footprint::ChunkState;
use crate::error::{Damage, Error, Result};
use crate::layout::{GroupObject, Kind, SlotClass};
use crate::units::{CHUNK_BLOCKS, Chunk, Group};
use std::ops::Range;

/// How a chunk is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkUse {
    /// Not at all.
    Free,
    /// As a whole, by one or more files.
    Whole,
    /// In part.
    Broken {
        /// Blocks in use, 0 to 512, a group's header blocks included.
        used: u64,
        /// Blocks of those that are arenas.
        arena_blocks: u64,
        /// What the arenas hold.
        class: Option<SlotClass>,
    },
    /// Its descriptor is damaged.
    Damaged,
}

/// How the pool is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceReport {
    /// Blocks that files and arenas could have in an empty pool.
    pub usable_blocks: u64,
    /// Blocks neither used nor reserved.
    pub free_blocks: u64,
    /// Blocks of those that only removals and conversions may use.
    pub reserve_blocks: u64,
    /// Blocks of unwritten extents.
    pub unwritten_blocks: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Chunks of the pool.
    pub chunks: u64,
    /// Chunks that are entirely free.
    pub free_chunks: u64,
    /// Chunks used as a whole.
    pub whole_chunks: u64,
    /// Chunks used in part; the first of each group is always one.
    pub broken_chunks: u64,
    /// Free blocks in chunks used in part.
    pub free_in_broken: u64,
    /// Blocks of arenas of inodes.
    pub inode_arena_blocks: u64,
    /// Blocks of arenas of tree nodes.
    pub node_arena_blocks: u64,
    /// Chunks that are not counted above because their group object or descriptor is damaged.
    pub damaged_chunks: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

impl SpaceReport {
    fn add(&mut self, chunk: ChunkUse) {
        match chunk {
            ChunkUse::Free => self.free_chunks += 1,
            ChunkUse::Whole => self.whole_chunks += 1,
            ChunkUse::Damaged => self.damaged_chunks += 1,
            ChunkUse::Broken { used, arena_blocks, class } => {
                self.broken_chunks += 1;
                self.free_in_broken += CHUNK_BLOCKS.saturating_sub(used);
                match class {
                    Some(SlotClass::Inode) => self.inode_arena_blocks += arena_blocks,
                    Some(SlotClass::Node) => self.node_arena_blocks += arena_blocks,
                    None => {}
                }
            }
        }
    }
}

impl Space {
    /// Counts the whole pool: one object for each GiB and one for each chunk used in part. Damage is part of the
    /// report.
    ///
    /// # Errors
    /// Errors of the medium.
    pub fn report(&self) -> Result<SpaceReport> {
        let (geometry, totals) = (self.geometry(), self.journal.totals());
        let mut report = SpaceReport {
            usable_blocks: geometry.usable_blocks(),
            free_blocks: self.free_blocks(),
            reserve_blocks: self.floor().min(self.free_blocks()),
            unwritten_blocks: totals.unwritten.max(0) as u64,
            inodes: totals.inodes.max(0) as u64,
            chunks: geometry.chunks(),
            ..SpaceReport::default()
        };
        let mut damage = Vec::new();
        self.each_chunk(0..geometry.chunks(), &mut damage, |chunk| report.add(chunk))?;
        Ok(SpaceReport { damage, ..report })
    }

    /// How `count` chunks from `first` are used; fewer where the pool ends.
    ///
    /// # Errors
    /// Errors of the medium.
    pub fn chunk_map(&self, first: Chunk, count: u64) -> Result<Vec<ChunkUse>> {
        let end = first.0.saturating_add(count).min(self.geometry().chunks());
        let mut map = Vec::new();
        self.each_chunk(first.0..end, &mut Vec::new(), |chunk| map.push(chunk))?;
        Ok(map)
    }

    fn each_chunk(
        &self,
        chunks: Range<u64>,
        damage: &mut Vec<Damage>,
        mut f: impl FnMut(ChunkUse),
    ) -> Result<()> {
        let mut current = None;
        for chunk in chunks.map(Chunk) {
            let group = chunk.group();
            let object = match current {
                Some((of, object)) if of == group => object,
                _ => sound(self.read_group(group), damage)?,
            };
            current = Some((group, object));
            let state = match object {
                None => None,
                Some(object) => sound(self.read_chunk(chunk, &object), damage)?,
            };
            f(state.map_or(ChunkUse::Damaged, |state| self.chunk_use(chunk, &state)));
        }
        Ok(())
    }

    fn read_group(&self, group: Group) -> Result<GroupObject> {
        let _stripe = self.lock_groups(std::iter::once(group));
        let geometry = self.geometry();
        let at = geometry.group_object(group);
        let image = self.journal.read(at, Kind::Group)?;
        Ok(GroupObject::decode(at, &image, geometry.group_chunks(group))?)
    }

    fn read_chunk(&self, chunk: Chunk, group: &GroupObject) -> Result<ChunkState> {
        let i = chunk.in_group();
        match (group.used.get(i), group.broken.get(i)) {
            (false, _) if i > 0 => Ok(ChunkState::Free),
            (true, false) if i > 0 => Ok(ChunkState::Whole),
            _ => {
                let _stripe = self.lock_chunk(chunk);
                self.media_state(chunk)
            }
        }
    }

    fn chunk_use(&self, chunk: Chunk, state: &ChunkState) -> ChunkUse {
        match state {
            ChunkState::Free => ChunkUse::Free,
            ChunkState::Whole => ChunkUse::Whole,
            ChunkState::Broken(object) => {
                let is_first = chunk.in_group() == 0;
                let header = if is_first { self.geometry().header_blocks(chunk.group()) } else { 0 };
                ChunkUse::Broken {
                    used: object.used.count() + header,
                    arena_blocks: object.meta.count(),
                    class: object.class,
                }
            }
        }
    }
}

/// What was read, or `None` where it is damaged, which is noted.
fn sound<T>(result: Result<T>, damage: &mut Vec<Damage>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Corrupt(found)) => {
            damage.push(found);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

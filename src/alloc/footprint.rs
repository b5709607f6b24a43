//! What does one operation change in which chunks, and what do the chunks become?
//!
//! A [`Footprint`] notes blocks by chunk: whole chunks as one bit in their group, so that a terabyte is noted in a
//! thousand entries, and parts of chunks as bits. What a chunk becomes is one pure function, [`ChunkState::after`].

use super::bits::{is_zero, minus, overlap, run, union};
use crate::error::{Damage, Structure};
use crate::layout::{Bits, ChunkObject, Geometry, SlotClass};
use crate::units::{CHUNK_BLOCKS, Chunk, Group, PoolOff, Run};

/// Blocks of one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub take: Bits,
    pub free: Bits,
}

/// The blocks an operation takes and frees.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    /// Chunks in part, in order.
    parts: Vec<(Chunk, Part)>,
    /// Whole chunks by group, in order.
    whole: Vec<(Group, Part)>,
}

/// The chunks of `run` with what it has of each: first block, how many.
pub(super) fn pieces(run: Run) -> impl Iterator<Item = (Chunk, u64, u64)> {
    let mut at = run.start;
    std::iter::from_fn(move || {
        let len = (run.end().0 - at.0).min(CHUNK_BLOCKS - at.in_chunk());
        let piece = (at.chunk(), at.in_chunk(), len);
        at.0 += len;
        (len > 0).then_some(piece)
    })
}

fn entry<K: Ord + Copy>(list: &mut Vec<(K, Part)>, key: K) -> &mut Part {
    let i = match list.binary_search_by_key(&key, |e| e.0) {
        Ok(i) => i,
        Err(i) => {
            list.insert(i, (key, Part::default()));
            i
        }
    };
    &mut list[i].1
}

fn get<K: Ord + Copy>(list: &[(K, Part)], key: K) -> Part {
    list.binary_search_by_key(&key, |e| e.0).map_or(Part::default(), |i| list[i].1)
}

impl Footprint {
    /// Notes that `run` is taken.
    pub fn take(&mut self, run: Run) {
        for (chunk, from, len) in pieces(run) {
            if len == CHUNK_BLOCKS {
                entry(&mut self.whole, chunk.group()).take.set(chunk.in_group());
            } else {
                entry(&mut self.parts, chunk).take.set_run(from, len);
            }
        }
    }

    /// Notes that what `other` takes is taken here.
    pub fn take_over(&mut self, other: &Self) {
        for (chunk, part) in &other.parts {
            let own = entry(&mut self.parts, *chunk);
            own.take = union(&own.take, &part.take);
        }
        for (group, part) in &other.whole {
            let own = entry(&mut self.whole, *group);
            own.take = union(&own.take, &part.take);
        }
    }

    /// Notes that `run` is freed; `Err` with the first chunk where a block of it is freed already.
    pub fn free(&mut self, run: Run) -> Result<(), Chunk> {
        for (chunk, from, len) in pieces(run) {
            if self.part(chunk).free.any(from, len) {
                return Err(chunk);
            }
        }
        for (chunk, from, len) in pieces(run) {
            if len == CHUNK_BLOCKS {
                entry(&mut self.whole, chunk.group()).free.set(chunk.in_group());
            } else {
                entry(&mut self.parts, chunk).free.set_run(from, len);
            }
        }
        Ok(())
    }

    /// Takes those blocks of `run` that are taken here out, and returns them.
    pub fn untake(&mut self, back: Run) -> Footprint {
        let mut out = Footprint::default();
        for (chunk, from, len) in pieces(back) {
            let held = self.part(chunk).take;
            let gone = minus(&run(from, len), &minus(&Bits::ALL, &held));
            if is_zero(&gone) {
                continue;
            }
            if get(&self.whole, chunk.group()).take.get(chunk.in_group()) {
                entry(&mut self.whole, chunk.group()).take.clear(chunk.in_group());
            }
            entry(&mut self.parts, chunk).take = minus(&held, &gone);
            entry(&mut out.parts, chunk).take = gone;
        }
        out
    }

    /// What is noted of `chunk`.
    pub fn part(&self, chunk: Chunk) -> Part {
        let whole = get(&self.whole, chunk.group());
        let mut part = get(&self.parts, chunk);
        if whole.take.get(chunk.in_group()) {
            part.take = Bits::ALL;
        }
        if whole.free.get(chunk.in_group()) {
            part.free = Bits::ALL;
        }
        part
    }

    fn whole_chunks(&self) -> impl Iterator<Item = Chunk> {
        self.whole.iter().flat_map(|(group, part)| {
            let both = union(&part.take, &part.free);
            (0..CHUNK_BLOCKS).filter(move |i| both.get(*i)).map(|i| Chunk(group.first_chunk().0 + i))
        })
    }

    /// Every chunk that is touched, some perhaps twice.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> {
        self.parts.iter().map(|(chunk, _)| *chunk).chain(self.whole_chunks())
    }

    /// Every chunk that is touched, once and in order.
    pub fn touched(&self) -> Vec<Chunk> {
        let mut all: Vec<_> = self.chunks().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.whole.is_empty()
    }

    /// The blocks taken, by chunk.
    pub fn taken(&self) -> impl Iterator<Item = (Chunk, Bits)> {
        self.touched().into_iter().map(|chunk| (chunk, self.part(chunk).take))
    }

    /// The blocks freed, by chunk.
    pub fn freed(&self) -> impl Iterator<Item = (Chunk, Bits)> {
        self.touched().into_iter().map(|chunk| (chunk, self.part(chunk).free))
    }

    fn count(&self, of: impl Fn(&Part) -> Bits) -> u64 {
        let parts: u64 = self.parts.iter().map(|(_, part)| of(part).count()).sum();
        let whole: u64 = self.whole.iter().map(|(_, part)| of(part).count()).sum();
        parts + whole * CHUNK_BLOCKS
    }

    /// How many blocks are taken.
    pub fn taken_blocks(&self) -> u64 {
        self.count(|part| part.take)
    }

    /// Whether a block is freed.
    pub fn frees(&self) -> bool {
        let is_free = |part: &Part| !is_zero(&part.free);
        self.parts.iter().any(|(_, part)| is_free(part)) || self.whole.iter().any(|(_, part)| is_free(part))
    }

    /// How many blocks are freed.
    pub fn freed_blocks(&self) -> u64 {
        self.count(|part| part.free)
    }

    /// Bytes of record that the descriptors and group objects can take at most.
    pub fn record_bytes(&self) -> u64 {
        // A descriptor is 152 bytes, a group object 144, and an image has 8 bytes before it.
        let mut groups: Vec<_> = self.parts.iter().map(|(chunk, _)| chunk.group()).collect();
        groups.extend(self.whole.iter().map(|(group, _)| *group));
        groups.sort_unstable();
        groups.dedup();
        // A chunk noted as a whole becomes free or whole, which writes no descriptor.
        self.parts.len() as u64 * 160 + groups.len() as u64 * 152
    }
}

/// What the media say of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkState {
    /// Nothing is used.
    Free,
    /// Everything is used, by files.
    Whole,
    /// The descriptor tells.
    Broken(ChunkObject),
}

impl ChunkState {
    /// The blocks in use.
    pub fn used(&self) -> Bits {
        match self {
            Self::Free => Bits::default(),
            Self::Whole => Bits::ALL,
            Self::Broken(object) => object.used,
        }
    }

    /// What `chunk` becomes by `part`. With a class the blocks are arenas of that class.
    ///
    /// # Errors
    /// Damage where a block to be taken is used, one to be freed is not, or an arena's block is not treated as one.
    pub fn after(
        &self,
        geometry: &Geometry,
        chunk: Chunk,
        part: &Part,
        arena: Option<SlotClass>,
    ) -> Result<Self, Damage> {
        let at: PoolOff = geometry.chunk_descriptor(chunk);
        let damage = |what, bits: Bits| Damage::new(Structure::Chunk, at, what, 0, bits.next_set(0));
        let used = self.used();
        let (mut meta, mut class) = match self {
            Self::Broken(object) => (object.meta, object.class),
            _ => (Bits::default(), None),
        };
        if overlap(&part.take, &used) {
            return Err(damage("a free block that is used, first in chunk", part.take));
        }
        let not_used = minus(&part.free, &used);
        if !is_zero(&not_used) {
            return Err(damage("a block to be freed that is not used", not_used));
        }
        match arena {
            None if overlap(&part.free, &meta) => {
                return Err(damage("a file's block that is an arena's, first in chunk", part.free));
            }
            None => {}
            Some(wanted) => {
                if class.is_some_and(|class| class != wanted) || !is_zero(&minus(&part.free, &meta)) {
                    return Err(damage("an arena in a chunk of another class, first in chunk", part.free));
                }
                meta = union(&minus(&meta, &part.free), &part.take);
                class = (!is_zero(&meta)).then_some(wanted);
            }
        }
        let used = union(&minus(&used, &part.free), &part.take);
        Ok(match self {
            _ if is_zero(&used) && chunk.in_group() > 0 => Self::Free,
            Self::Free | Self::Whole if used == Bits::ALL && arena.is_none() => Self::Whole,
            _ => Self::Broken(ChunkObject { used, meta, class }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Block;

    fn part(take: (u64, u64), free: (u64, u64)) -> Part {
        Part { take: run(take.0, take.1), free: run(free.0, free.1) }
    }

    fn after(state: ChunkState, part: Part) -> Result<ChunkState, Damage> {
        state.after(&Geometry::for_size(8 << 20), Chunk(2), &part, None)
    }

    #[test]
    fn chunks_change_as_their_bits_do() {
        let object = |used| ChunkState::Broken(ChunkObject { used, ..ChunkObject::default() });
        let none = (0, 0);
        assert_eq!(after(ChunkState::Free, part((0, 512), none)).unwrap(), ChunkState::Whole);
        assert_eq!(after(ChunkState::Free, part((3, 5), none)).unwrap(), object(run(3, 5)));
        assert_eq!(after(ChunkState::Whole, part(none, (0, 512))).unwrap(), ChunkState::Free);
        assert_eq!(after(ChunkState::Whole, part(none, (8, 504))).unwrap(), object(run(0, 8)));
        assert_eq!(after(object(run(3, 5)), part(none, (3, 5))).unwrap(), ChunkState::Free);
        assert_eq!(after(object(run(0, 8)), part((8, 504), none)).unwrap(), object(Bits::ALL));
    }

    #[test]
    fn what_can_not_be_is_damage() {
        assert!(after(ChunkState::Free, part((0, 0), (1, 1))).is_err(), "not used");
        assert!(after(ChunkState::Whole, part((1, 1), (0, 0))).is_err(), "used");
        let arena = ChunkObject { used: run(0, 4), meta: run(0, 4), class: Some(SlotClass::Node) };
        assert!(after(ChunkState::Broken(arena), part((0, 0), (1, 1))).is_err(), "an arena's");
        let other = ChunkState::Broken(arena).after(
            &Geometry::for_size(8 << 20),
            Chunk(2),
            &part((8, 4), (0, 0)),
            Some(SlotClass::Inode),
        );
        assert!(other.is_err(), "another class");
    }

    #[test]
    fn the_first_chunk_of_a_group_stays_broken() {
        let used = ChunkState::Broken(ChunkObject { used: run(100, 1), ..ChunkObject::default() });
        let state =
            used.after(&Geometry::for_size(8 << 20), Chunk(0), &part((0, 0), (100, 1)), None).unwrap();
        assert_eq!(state, ChunkState::Broken(ChunkObject::default()));
    }

    #[test]
    fn a_part_of_a_taken_chunk_goes_back() {
        let mut footprint = Footprint::default();
        footprint.take(Run::new(Block(512), 1024));
        let back = footprint.untake(Run::new(Block(600), 24));
        assert_eq!((footprint.taken_blocks(), back.taken_blocks()), (1000, 24));
        assert_eq!(footprint.part(Chunk(1)).take, minus(&Bits::ALL, &run(88, 24)));
        assert!(footprint.untake(Run::new(Block(600), 24)).is_empty(), "not held any more");
        footprint.free(Run::new(Block(0), 10)).unwrap();
        assert_eq!(footprint.free(Run::new(Block(9), 1)), Err(Chunk(0)));
    }
}

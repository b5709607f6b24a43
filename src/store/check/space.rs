//! Which blocks do the media mark as used, and who owns them?
//!
//! The marks are read first: group objects, and the descriptors of broken chunks. Then every owner claims its blocks,
//! and at the end both are compared. Work and memory are proportional to the chunks in use, and to one object a GiB.
//!
//! Where a group object or a descriptor can not be read, its marks are unknown: arenas are then found by the sound
//! objects in them, whose checks are salted with their place.

use super::media::{Media, kind_byte};
use super::remedy::Remedy;
use super::report::{FaultKind, Faults};
use crate::layout::{Bits, ChunkObject, GroupObject, Kind, SlotClass};
use crate::units::{BLOCK_BYTES, Block, CHUNK_BLOCKS, Chunk, Group, PoolOff, Run};
use std::collections::BTreeMap;

/// A group with something in it.
#[derive(Debug)]
pub(super) struct GroupMarks {
    pub group: Group,
    pub object: GroupObject,
    /// The object could be read.
    pub known: bool,
    /// Chunks that one owner claimed as a whole.
    pub whole: Bits,
}

/// A chunk whose descriptor tells what is used.
#[derive(Debug)]
pub(super) struct BrokenChunk {
    pub chunk: Chunk,
    pub object: ChunkObject,
    /// The descriptor and the group object could be read.
    pub known: bool,
    pub owned: Bits,
}

/// The marks and the claims.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    pub groups: Vec<GroupMarks>,
    pub broken: Vec<BrokenChunk>,
    /// Claims of parts of chunks that are not broken.
    pub parts: BTreeMap<u64, Bits>,
}

fn runs_of(bits: &Bits) -> impl Iterator<Item = (u64, u64)> {
    let mut at = bits.next_set(0);
    let bits = *bits;
    std::iter::from_fn(move || {
        if at >= CHUNK_BLOCKS {
            return None;
        }
        let (from, end) = (at, bits.next_clear(at));
        at = bits.next_set(end);
        Some((from, end - from))
    })
}

/// The bits of `a` that are not in `b`.
pub(super) fn minus(a: &Bits, b: &Bits) -> Bits {
    Bits(std::array::from_fn(|i| a.0[i] & !b.0[i]))
}

pub(super) fn union(a: &Bits, b: &Bits) -> Bits {
    Bits(std::array::from_fn(|i| a.0[i] | b.0[i]))
}

/// The bits as runs of the pool's blocks.
pub(super) fn block_runs(chunk: Chunk, bits: &Bits) -> impl Iterator<Item = Run> {
    runs_of(bits).map(move |(from, len)| Run::new(Block(chunk.first_block().0 + from), len))
}

fn is_zero(media: &Media<'_>, at: PoolOff) -> bool {
    matches!(media.header(at), Ok([0, 0]))
}

impl Chunks {
    /// Reads the marks of every group, and claims the arenas.
    pub fn load(media: &Media<'_>, faults: &mut Faults) -> Self {
        let mut chunks = Self::default();
        for group in (0..media.geometry.groups()).map(Group) {
            let (at, first) =
                (media.geometry.group_object(group), media.geometry.chunk_descriptor(group.first_chunk()));
            // Most groups of a large pool were never touched.
            if group.0 == 0 || !is_zero(media, at) || !is_zero(media, first) {
                chunks.load_group(media, group, faults);
            }
        }
        chunks
    }

    fn load_group(&mut self, media: &Media<'_>, group: Group, faults: &mut Faults) {
        let count = media.geometry.group_chunks(group);
        let at = media.geometry.group_object(group);
        let found = media.read(at, Kind::Group).and_then(|image| GroupObject::decode(at, &image, count));
        let (mut object, known) = match found {
            Ok(object) => (object, true),
            Err(damage) => {
                faults.damage(FaultKind::Group, &damage, None).by(Remedy::Marks);
                (GroupObject::default(), false)
            }
        };
        object.used.set(0);
        object.broken.set(0);
        self.groups.push(GroupMarks { group, object, known, whole: Bits::default() });
        if !known {
            object.broken.set_run(0, count);
        }
        let mut i = object.broken.next_set(0);
        while i < count {
            self.load_chunk(media, Chunk(group.first_chunk().0 + i), known, faults);
            i = object.broken.next_set(i + 1);
        }
    }

    fn load_chunk(&mut self, media: &Media<'_>, chunk: Chunk, group_known: bool, faults: &mut Faults) {
        let at = media.geometry.chunk_descriptor(chunk);
        let found = media.read(at, Kind::Chunk).and_then(|image| ChunkObject::decode(at, &image));
        let headers = header_blocks(media, chunk);
        let (mut object, known) = match found {
            Ok(object) if group_known => (object, true),
            // The chunk may be free, and the descriptor out of date: only what is in its arenas counts.
            Ok(object) if object.meta == Bits::default() => return,
            Ok(object) => (salvage(media, chunk, &object.meta), false),
            Err(damage) => {
                faults.damage(FaultKind::Chunk, &damage, None).by(Remedy::Marks);
                (salvage(media, chunk, &minus(&Bits::ALL, &headers)), false)
            }
        };
        if object.used.any(0, headers.count()) {
            let found = object.used.next_set(0);
            faults
                .number(FaultKind::HeaderBlocks, at, None, "no header block among the used", found)
                .by(Remedy::Marks);
            (object.used, object.meta) = (minus(&object.used, &headers), minus(&object.meta, &headers));
        }
        if known && object.used == Bits::default() && chunk.in_group() > 0 {
            faults.number(FaultKind::Chunk, at, None, "a used block in a broken chunk", 0).by(Remedy::Marks);
        }
        self.broken.push(BrokenChunk { chunk, object, known, owned: object.meta });
    }

    fn find_broken(&mut self, chunk: Chunk) -> Option<&mut BrokenChunk> {
        let i = match &*self.broken {
            [only] if only.chunk == chunk => 0,
            all => all.binary_search_by_key(&chunk, |b| b.chunk).ok()?,
        };
        self.broken.get_mut(i)
    }

    fn group(&mut self, group: Group) -> &mut GroupMarks {
        let i = match self.groups.binary_search_by_key(&group, |g| g.group) {
            Ok(i) => i,
            Err(i) => {
                let object = GroupObject::default();
                self.groups.insert(i, GroupMarks { group, object, known: true, whole: Bits::default() });
                i
            }
        };
        &mut self.groups[i]
    }

    /// Gives `run`, which lies in the pool, an owner; shows `shared` the parts that have one already.
    pub fn claim(&mut self, run: Run, mut shared: impl FnMut(Run)) {
        let mut at = run.start;
        while at < run.end() {
            let len = (run.end().0 - at.0).min(CHUNK_BLOCKS - at.in_chunk());
            let mut bits = Bits::default();
            bits.set_run(at.in_chunk(), len);
            let twice = self.claim_in(at.chunk(), &bits);
            if twice != Bits::default() {
                block_runs(at.chunk(), &twice).for_each(&mut shared);
            }
            at.0 += len;
        }
    }

    /// Claims blocks of one chunk; those that were claimed before.
    fn claim_in(&mut self, chunk: Chunk, bits: &Bits) -> Bits {
        let both = |a: &Bits| Bits(std::array::from_fn(|i| a.0[i] & bits.0[i]));
        if let Some(broken) = self.find_broken(chunk) {
            let twice = both(&broken.owned);
            broken.owned = union(&broken.owned, bits);
            return twice;
        }
        if self.group(chunk.group()).whole.get(chunk.in_group()) {
            return *bits;
        }
        let before = self.parts.get(&chunk.0).copied().unwrap_or_default();
        let after = union(&before, bits);
        if after == Bits::ALL {
            self.parts.remove(&chunk.0);
            self.group(chunk.group()).whole.set(chunk.in_group());
        } else {
            self.parts.insert(chunk.0, after);
        }
        both(&before)
    }

    /// The blocks of `chunk` that have an owner, if it is not a broken one.
    pub fn claimed(&self, marks: &GroupMarks, i: u64) -> Bits {
        if marks.whole.get(i) {
            return Bits::ALL;
        }
        self.parts.get(&(marks.group.first_chunk().0 + i)).copied().unwrap_or_default()
    }

    /// Compares marks and claims of what could be read; the blocks marked used.
    pub fn compare(&self, media: &Media<'_>, faults: &mut Faults) -> u64 {
        let mut used = 0;
        for broken in self.broken.iter().filter(|broken| broken.known) {
            used += broken.object.used.count();
            differ(media, broken.chunk, &broken.object.used, &broken.owned, faults);
        }
        for marks in self.groups.iter().filter(|marks| marks.known) {
            let whole = minus(&marks.object.used, &marks.object.broken);
            used += whole.count() * CHUNK_BLOCKS;
            let odd = union(&minus(&whole, &marks.whole), &minus(&marks.whole, &whole));
            for (from, len) in runs_of(&odd) {
                for i in from..from + len {
                    let marked = if whole.get(i) { Bits::ALL } else { Bits::default() };
                    let chunk = Chunk(marks.group.first_chunk().0 + i);
                    differ(media, chunk, &marked, &self.claimed(marks, i), faults);
                }
            }
        }
        for (chunk, owned) in &self.parts {
            self.compare_part(media, Chunk(*chunk), owned, faults);
        }
        used
    }

    /// Claims of a part of a chunk that is marked free.
    fn compare_part(&self, media: &Media<'_>, chunk: Chunk, owned: &Bits, faults: &mut Faults) {
        let found = self.groups.binary_search_by_key(&chunk.group(), |g| g.group);
        let Some(marks) = found.ok().and_then(|i| self.groups.get(i)) else { return };
        if marks.known && !marks.object.used.get(chunk.in_group()) {
            differ(media, chunk, &Bits::default(), owned, faults);
        }
    }

    /// Whether every group object and descriptor could be read.
    pub fn all_known(&self) -> bool {
        self.broken.iter().all(|b| b.known) && self.groups.iter().all(|g| g.known)
    }
}

fn header_blocks(media: &Media<'_>, chunk: Chunk) -> Bits {
    let mut headers = Bits::default();
    if chunk.in_group() == 0 {
        headers.set_run(0, media.geometry.header_blocks(chunk.group()));
    }
    headers
}

fn differ(media: &Media<'_>, chunk: Chunk, marked: &Bits, owned: &Bits, faults: &mut Faults) {
    if marked == owned {
        return;
    }
    let at = media.geometry.chunk_descriptor(chunk);
    for run in block_runs(chunk, &minus(marked, owned)) {
        let found = format_args!("{} used blocks from block {} on that nobody owns", run.len, run.start);
        faults.number(FaultKind::BlockLeaked, at, None, "an owner", found).by(Remedy::Leaks);
    }
    for run in block_runs(chunk, &minus(owned, marked)) {
        let found = format_args!("{} owned blocks from block {} on marked free", run.len, run.start);
        faults.number(FaultKind::BlockNotMarked, at, None, "used marks", found).by(Remedy::Marks);
    }
}

/// The arenas of a chunk whose marks are not known: blocks of `among` with a sound object in use.
fn salvage(media: &Media<'_>, chunk: Chunk, among: &Bits) -> ChunkObject {
    let mut object = ChunkObject::default();
    for i in (0..CHUNK_BLOCKS).filter(|i| among.get(*i)) {
        let block = Block(chunk.first_block().0 + i);
        let mut classes = SlotClass::ALL.into_iter();
        let Some(class) = classes.find(|class| holds_object(media, block, *class)) else { continue };
        if *object.class.get_or_insert(class) == class {
            object.used.set(i);
            object.meta.set(i);
        }
    }
    object
}

fn holds_object(media: &Media<'_>, block: Block, class: SlotClass) -> bool {
    (0..BLOCK_BYTES / class.bytes()).any(|slot| {
        let at = block.offset().plus(slot * class.bytes());
        let in_use = media.header(at).is_ok_and(|[_, word]| kind_byte(word) == class.kind() as u8);
        in_use && media.read(at, class.kind()).is_ok_and(|image| image.kind() == class.kind())
    })
}

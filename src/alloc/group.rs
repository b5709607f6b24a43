//! Which blocks of a group could be given away now?
//!
//! The volatile state of one allocation group, loaded when the group is first touched. A block is *available*
//! where the media say free and no operation under way has reserved it. Invariants:
//! 1. A chunk is in exactly one of `free` (every block available), `unread` (broken, descriptor not read yet),
//!    `broken` (which blocks are available is known), or none of them (no block available).
//! 2. A broken chunk stands in the bucket of its longest available run, and in no other; one without an available
//!    block stands in none.
//! 3. The group's objects change only after the group was loaded, and a chunk's descriptor only after it was read
//!    here, so reading them needs no further lock.

use super::ahead::KEPT_CHUNKS;
use super::bad::BadBlocks;
use super::bits::{floor_log2, is_zero, longest_class, longest_run, minus, overlap, run_at, runs_of, union};
use crate::error::{Damage, Error, Result, Structure};
use crate::journal::Journal;
use crate::layout::{Bits, ChunkObject, GroupObject, Kind, SlotClass};
use crate::pmem::Region;
use crate::units::{Block, CHUNK_BLOCKS, Chunk, Group, Run};
use std::collections::BTreeMap;

/// Buckets of broken chunks: bucket `k` has those whose longest available run is 2^k to 2^(k+1)-1 blocks.
pub(super) const BUCKETS: usize = 10;
/// While a group has this many free chunks, threads do not share a broken chunk: breaking one more costs less
/// than waiting for each other's commits.
const PLENTY_CHUNKS: u64 = 64;
/// How many chunks one search looks at where looking is not sure to find.
const PROBES: usize = 16;

/// Which thread's chunk a broken chunk is: 0 nobody's, else the shard's number plus one.
pub(super) type Owner = u8;

/// A broken chunk.
#[derive(Debug)]
pub(super) struct Broken {
    /// Blocks that are used, reserved, or headers.
    pub taken: Bits,
    /// Blocks of arenas whose opening was committed.
    pub meta: Bits,
    /// The class of arenas that are or may be opened here.
    pub class: Option<SlotClass>,
    pub owner: Owner,
    bucket: Option<u8>,
    /// What of `inode_free` is this chunk's.
    inode_free: i64,
}

/// What the index over groups knows of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// There is a free chunk.
    pub free: bool,
    /// There is a broken chunk whose descriptor was not read yet.
    pub unread: bool,
    /// The highest bucket that is not empty.
    pub best: Option<u8>,
}

/// The volatile state of a group.
#[derive(Debug)]
pub(super) struct GroupState {
    group: Group,
    header_blocks: u64,
    chunks: u64,
    free: Bits,
    unread: Bits,
    broken: BTreeMap<u64, Broken>,
    buckets: [Bits; BUCKETS],
    /// Which buckets have a chunk.
    nonempty: u16,
    /// What the index was told last.
    shown: Summary,
    /// Available blocks in chunks with arenas of inodes: no node can be there.
    inode_free: i64,
    /// As the pool's sum has it.
    shown_inode_free: i64,
    /// Chunks that the host has provided: in use since, or asked for in this session.
    provided: Bits,
    /// Nothing was ever written to the group. The host may not have provided its first chunk, so that one gives
    /// nothing before another chunk of the group is taken: looking for room does not use up the host's.
    fresh: bool,
    /// What a descriptor turned out to be; from then on the group gives nothing.
    damage: Option<Damage>,
    pub(super) bad: BadBlocks,
}

/// Blocks of one chunk of a group: chunk in the group, first block in the chunk, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub chunk: u64,
    pub from: u64,
    pub len: u64,
}

impl GroupState {
    /// Reads the group object.
    pub fn load(journal: &Journal, group: Group) -> Result<Self> {
        let geometry = journal.geometry();
        let chunks = geometry.group_chunks(group);
        let at = geometry.group_object(group);
        let image = journal.read(at, Kind::Group)?;
        let mut object = GroupObject::decode(at, &image, chunks)?;
        object.used.set(0);
        object.broken.set(0);
        let mut all = Bits::default();
        all.set_run(0, chunks);
        let fresh = image.version() == 0 && group.0 > 0;
        if fresh {
            object.broken.clear(0);
        }
        let mut state = Self {
            group,
            header_blocks: geometry.header_blocks(group),
            chunks,
            free: minus(&all, &object.used),
            unread: object.broken,
            provided: object.used,
            broken: BTreeMap::new(),
            buckets: [Bits::default(); BUCKETS],
            nonempty: 0,
            shown: Summary::default(),
            inode_free: 0,
            shown_inode_free: 0,
            fresh,
            damage: None,
            bad: BadBlocks::load(journal.region(), group),
        };
        state.withhold_free(journal.region());
        Ok(state)
    }

    /// Takes in the chunks that growth added.
    pub fn grow(&mut self, chunks: u64, region: &Region) {
        if chunks > self.chunks {
            self.free.set_run(self.chunks, chunks - self.chunks);
            self.chunks = chunks;
            self.withhold_free(region);
        }
    }

    /// Which group it is.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Makes the free chunk `i` one without available blocks; `false` where it is not free.
    pub fn take_free(&mut self, i: u64) -> bool {
        let is_free = self.free.get(i);
        self.free.clear(i);
        is_free
    }

    /// Makes the blocks `bits` of the broken chunk `i` unavailable.
    pub fn take_bits(&mut self, i: u64, bits: &Bits) {
        self.update(i, |broken| broken.taken = union(&broken.taken, bits));
    }

    /// Whether the host may not have provided the first chunk.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether there is nothing but the first chunk.
    pub fn is_single(&self) -> bool {
        self.chunks == 1
    }

    /// Notes that the host has provided the first chunk.
    pub fn begin_use(&mut self) {
        if std::mem::take(&mut self.fresh) {
            self.unread.set(0);
        }
    }

    /// Whether the host has provided `count` chunks from `first`.
    pub fn is_provided(&self, first: u64, count: u64) -> bool {
        self.provided.all(first, count)
    }

    /// Notes that it has.
    pub fn set_provided(&mut self, first: u64, count: u64) {
        self.provided.set_run(first, count);
    }

    /// What the index knows, and what it is to know now where that differs.
    pub fn show(&mut self) -> Option<(Summary, Summary)> {
        let now = self.summary();
        let before = std::mem::replace(&mut self.shown, now);
        (before != now).then_some((before, now))
    }

    /// By how much the available blocks in chunks of inodes have changed since this was asked last.
    pub fn show_inode_free(&mut self) -> i64 {
        let before = std::mem::replace(&mut self.shown_inode_free, self.inode_free);
        self.inode_free - before
    }

    fn summary(&self) -> Summary {
        if self.damage.is_some() {
            return Summary::default();
        }
        Summary {
            free: !is_zero(&self.free),
            unread: !is_zero(&self.unread),
            best: self.nonempty.checked_ilog2().map(|b| b as u8),
        }
    }

    /// `Err` with what was found where the group is damaged.
    pub fn sound(&self) -> Result<()> {
        self.damage.clone().map_or(Ok(()), |damage| Err(damage.into()))
    }

    fn chunk(&self, i: u64) -> Chunk {
        Chunk(self.group.first_chunk().0 + i)
    }

    /// The pool's run for `piece`.
    pub fn run(&self, piece: Piece) -> Run {
        Run::new(Block(self.chunk(piece.chunk).first_block().0 + piece.from), piece.len)
    }

    /// Reads the descriptor of chunk `i` if it was not read yet.
    pub fn read_chunk(&mut self, journal: &Journal, i: u64) -> Result<()> {
        self.sound()?;
        if !self.unread.get(i) {
            return Ok(());
        }
        match self.read_descriptor(journal, i) {
            Ok(object) => {
                self.unread.clear(i);
                let mut taken = object.used;
                if i == 0 {
                    taken.set_run(0, self.header_blocks);
                }
                let bad = minus(&self.bad.of(i), &taken);
                self.bad.withhold_all(i, &bad);
                taken = union(&taken, &bad);
                self.insert(i, taken, object.meta, object.class);
                Ok(())
            }
            Err(error) => {
                if let Error::Corrupt(damage) = &error {
                    self.damage = Some(damage.clone());
                }
                Err(error)
            }
        }
    }

    fn read_descriptor(&self, journal: &Journal, i: u64) -> Result<ChunkObject> {
        let at = journal.geometry().chunk_descriptor(self.chunk(i));
        let object = ChunkObject::decode(at, &journal.read(at, Kind::Chunk)?)?;
        if i == 0 && object.used.any(0, self.header_blocks) {
            let first = object.used.next_set(0);
            return Err(
                Damage::new(Structure::Chunk, at, "used header block", self.header_blocks, first).into()
            );
        }
        Ok(object)
    }

    /// Reads every descriptor that was not read yet.
    pub fn read_all(&mut self, journal: &Journal) -> Result<()> {
        while self.unread.next_set(0) < CHUNK_BLOCKS {
            self.read_chunk(journal, self.unread.next_set(0))?;
        }
        self.sound()
    }

    fn insert(&mut self, i: u64, taken: Bits, meta: Bits, class: Option<SlotClass>) {
        self.broken.insert(i, Broken { taken, meta, class, owner: 0, bucket: None, inode_free: 0 });
        self.update(i, |_| ());
    }

    /// Changes what is known of broken chunk `i`, and puts it into its bucket.
    fn update(&mut self, i: u64, change: impl FnOnce(&mut Broken)) {
        let Some(broken) = self.broken.get_mut(&i) else { return };
        change(broken);
        let is_inodes = broken.class == Some(SlotClass::Inode);
        let inode_free = if is_inodes { (CHUNK_BLOCKS - broken.taken.count()) as i64 } else { 0 };
        self.inode_free += inode_free - broken.inode_free;
        broken.inode_free = inode_free;
        let bucket = longest_class(&broken.taken);
        if bucket == broken.bucket {
            return;
        }
        if let Some(old) = broken.bucket {
            let bucket = &mut self.buckets[usize::from(old)];
            bucket.clear(i);
            if is_zero(bucket) {
                self.nonempty &= !(1 << old);
            }
        }
        if let Some(new) = bucket {
            self.buckets[usize::from(new)].set(i);
            self.nonempty |= 1 << new;
        }
        broken.bucket = bucket;
    }

    fn take(&mut self, piece: Piece) -> Piece {
        self.update(piece.chunk, |broken| broken.taken.set_run(piece.from, piece.len));
        piece
    }

    /// Makes `bits` of chunk `i` available, but for bad ones.
    pub fn give(&mut self, i: u64, bits: &Bits) {
        if self.free.get(i) || self.unread.get(i) || is_zero(bits) {
            return;
        }
        if !self.broken.contains_key(&i) {
            self.insert(i, Bits::ALL, Bits::default(), None);
        }
        let good = self.bad.withhold(i, bits);
        self.update(i, |broken| {
            broken.taken = minus(&broken.taken, &good);
            if overlap(&broken.meta, bits) {
                broken.meta = minus(&broken.meta, bits);
                broken.class = broken.class.filter(|_| !is_zero(&broken.meta));
            }
        });
        if self.broken.get(&i).is_some_and(|b| is_zero(&b.taken)) {
            self.update(i, |broken| broken.taken = Bits::ALL);
            self.broken.remove(&i);
            self.free.set(i);
        }
    }

    /// Notes that the arena blocks `bits` of chunk `i` are there now.
    pub fn opened(&mut self, i: u64, bits: &Bits) {
        self.update(i, |broken| broken.meta = union(&broken.meta, bits));
    }

    /// The broken chunk `i`, if it is one that was read.
    pub fn broken(&self, i: u64) -> Option<&Broken> {
        self.broken.get(&i)
    }

    /// Whether chunk `i` is one for arenas of inodes.
    pub fn has_inodes(&self, i: u64) -> bool {
        self.broken.get(&i).is_some_and(|b| b.class == Some(SlotClass::Inode))
    }

    /// The chunks at or after `from` that have arenas of `class`.
    pub fn arena_chunks(&self, class: SlotClass, from: u64) -> impl Iterator<Item = (u64, &Broken)> {
        self.broken
            .range(from..)
            .filter(move |(_, b)| b.class == Some(class) && !is_zero(&b.meta))
            .map(|(i, b)| (*i, b))
    }

    /// Says whose chunk `i` is.
    pub fn set_owner(&mut self, i: u64, from: Option<Owner>, to: Owner) {
        if let Some(broken) = self.broken.get_mut(&i)
            && from.is_none_or(|from| broken.owner == from)
        {
            broken.owner = to;
        }
    }

    /// Takes up to `want` whole chunks: from `at` on if that one is free, else from the first run that is long
    /// enough, else from the longest. They are neither free nor broken then.
    pub fn take_chunks(&mut self, want: u64, at: Option<u64>) -> Option<Piece> {
        self.sound().ok()?;
        let used = minus(&Bits::ALL, &self.free);
        let (from, len) = match at.filter(|at| self.free.get(*at)) {
            Some(at) => (at, run_at(&used, at)),
            None => runs_of(&used, want.min(CHUNK_BLOCKS)).or_else(|| longest_run(&used))?,
        };
        let len = len.min(want);
        self.free.clear_run(from, len);
        Some(Piece { chunk: from, from: 0, len: len * CHUNK_BLOCKS })
    }

    /// Takes one whole chunk, the free one `at` if it is, where the group has plenty.
    pub fn take_spare(&mut self, at: Option<u64>) -> Option<Piece> {
        if self.free.count() > KEPT_CHUNKS { self.take_chunks(1, at) } else { None }
    }

    /// Takes up to `len` blocks from block `from` of the broken chunk `i`.
    pub fn take_at(&mut self, i: u64, from: u64, len: u64) -> Option<Piece> {
        self.sound().ok()?;
        let free = run_at(&self.broken.get(&i)?.taken, from);
        (free > 0).then(|| self.take(Piece { chunk: i, from, len: len.min(free) }))
    }

    /// Takes exactly `len` blocks from block `from` of the broken chunk `i`.
    pub fn take_exactly(&mut self, i: u64, from: u64, len: u64) -> Option<Piece> {
        let free = run_at(&self.broken.get(&i)?.taken, from);
        if free >= len { self.take_at(i, from, len) } else { None }
    }

    fn may_use(&self, i: u64, owner: Owner, share: bool) -> bool {
        share || self.broken.get(&i).is_some_and(|b| b.owner == 0 || b.owner == owner)
    }

    /// Whether threads have to share broken chunks here.
    fn must_share(&self) -> bool {
        self.free.count() < PLENTY_CHUNKS
    }

    /// Chunks of `bucket` in order.
    fn in_bucket(&self, bucket: usize) -> impl Iterator<Item = u64> + use<> {
        let bits = self.buckets.get(bucket).copied().unwrap_or_default();
        std::iter::successors(Some(bits.next_set(0)), move |i| Some(bits.next_set(i + 1)))
            .take_while(|i| *i < CHUNK_BLOCKS)
    }

    /// Takes `len` blocks from block `from` of any broken chunk where they are available: a bounded search.
    pub fn take_congruent(&mut self, from: u64, len: u64, owner: Owner) -> Option<Piece> {
        self.sound().ok()?;
        let share = self.must_share();
        let found = (floor_log2(len)..BUCKETS)
            .flat_map(|bucket| self.in_bucket(bucket))
            .filter(|i| self.may_use(*i, owner, share))
            .take(PROBES)
            .find(|i| self.broken.get(i).is_some_and(|b| run_at(&b.taken, from) >= len))?;
        self.take_exactly(found, from, len)
    }

    /// Takes `len` blocks in a row from the broken chunk `i`.
    pub fn take_run_in(&mut self, i: u64, len: u64) -> Option<Piece> {
        self.sound().ok()?;
        let (from, _) = runs_of(&self.broken.get(&i)?.taken, len)?;
        Some(self.take(Piece { chunk: i, from, len }))
    }

    /// Takes `len` blocks in a row from any broken chunk, from the shortest runs that are sure to hold them.
    pub fn take_run(&mut self, len: u64, owner: Owner) -> Option<Piece> {
        self.sound().ok()?;
        let share = self.must_share();
        let maybe = floor_log2(len);
        let sure = if len.is_power_of_two() { maybe } else { maybe + 1 };
        let mut near = self.in_bucket(maybe).filter(|i| self.may_use(*i, owner, share)).take(PROBES);
        let fits = |i: &u64| self.broken.get(i).is_some_and(|b| runs_of(&b.taken, len).is_some());
        let found = near.find(fits).or_else(|| {
            (sure..BUCKETS).flat_map(|bucket| self.in_bucket(bucket)).find(|i| self.may_use(*i, owner, share))
        })?;
        self.take_run_in(found, len)
    }

    /// Takes up to `len` blocks from the longest run of a chunk of the highest bucket, if that run has at least
    /// `least` blocks.
    pub fn take_longest(&mut self, len: u64, least: u64) -> Option<Piece> {
        self.sound().ok()?;
        let best = self.summary().best?;
        let chunk = self.in_bucket(usize::from(best)).next()?;
        let (from, free) = longest_run(&self.broken.get(&chunk)?.taken)?;
        (free >= least).then(|| self.take(Piece { chunk, from, len: len.min(free) }))
    }

    /// Takes up to `len` blocks in a row from a chunk with arenas of inodes.
    pub fn take_beside_inodes(&mut self, len: u64) -> Option<Piece> {
        self.sound().ok()?;
        let is_one = |b: &Broken| b.class == Some(SlotClass::Inode) && b.bucket.is_some();
        let (chunk, broken) = self.broken.iter().find(|(_, b)| is_one(b))?;
        let (chunk, (from, free)) = (*chunk, longest_run(&broken.taken)?);
        Some(self.take(Piece { chunk, from, len: len.min(free) }))
    }

    /// Takes `len` aligned blocks for an arena of `class`: in a chunk that has such arenas, else in one that has
    /// none and at most `most` available blocks. The chunk is of that class from now on.
    pub fn take_arena(&mut self, class: SlotClass, len: u64, most: u64) -> Option<Piece> {
        self.sound().ok()?;
        let place =
            |b: &Broken| (0..CHUNK_BLOCKS / len).map(|n| n * len).find(|from| !b.taken.any(*from, len));
        let find = |wanted: Option<SlotClass>, most: u64| {
            let mut chunks = self.broken.iter().filter(|(_, b)| b.class == wanted && b.bucket.is_some());
            chunks.find_map(|(i, b)| {
                let fits = CHUNK_BLOCKS - b.taken.count() <= most;
                place(b).filter(|_| fits).map(|from| Piece { chunk: *i, from, len })
            })
        };
        let piece = find(Some(class), CHUNK_BLOCKS).or_else(|| find(None, most))?;
        self.claim(piece.chunk, class).then(|| self.take(piece))
    }

    /// Makes the broken chunk `i` one of `class`; `false` where it is one of another.
    pub fn claim(&mut self, i: u64, class: SlotClass) -> bool {
        let mut is_ours = false;
        self.update(i, |broken| is_ours = *broken.class.get_or_insert(class) == class);
        is_ours
    }

    /// Whether all of `bits` of chunk `i` are available.
    #[cfg(all(test, feature = "sim"))]
    pub fn is_available(&self, i: u64, bits: &Bits) -> bool {
        self.free.get(i) || self.broken.get(&i).is_some_and(|b| !overlap(&b.taken, bits))
    }
}

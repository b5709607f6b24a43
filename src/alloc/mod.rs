//! Which blocks belong to whom, and which may be given away?
//!
//! The media's truth is a bit a chunk in the group objects and a bit a block in the descriptors of broken chunks.
//! Nothing of it is read at open: a group is loaded when it is first touched, a descriptor when its blocks are.
//! [`Space`] keeps what is volatile, an [`Op`] is a transaction that can take and give back space.
//!
//! Invariants:
//! 1. A block is given to at most one operation: it is reserved in DRAM first (`group`), used on the media by that
//!    operation's commit, and available again only after the commit that frees it was applied (J3).
//! 2. A chunk's bits on the media change only under its chunk stripe; a group object only under its group stripe.
//!    Stripes are taken in ascending order, chunks before groups, and held across the commit.
//! 3. Whole free chunks are a conserved resource (`policy`).
//! 4. `taken` is what the media use plus what operations have reserved and what is bad (`bad`); a normal reservation leaves
//!    [`Space::floor`] blocks where an arena of nodes can be.
//!
//! Lock order: mending, chunk stripes, group stripes, a thread's slots, the slots of a class, the loading cursor, one group,
//! the index. No two of a kind but stripes.

mod ahead;
mod bad;
mod bits;
mod footprint;
mod gate;
mod group;
mod index;
mod kept;
mod op;
mod pins;
mod policy;
mod report;
pub mod shortage;
mod slots;
#[cfg(test)]
mod tests;

pub use op::{Op, Reservation};
pub use policy::Want;
pub use report::{ChunkUse, SpaceReport};

use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::layout::Geometry;
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::thread_number;
use crate::sync::atomic::{AtomicI64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, RwLock};
use crate::units::{CHUNK_BLOCKS, CHUNK_BYTES, Chunk, Group, Run};
use ahead::Ahead;
use crossbeam::utils::CachePadded;
use footprint::Footprint;
use gate::Gate;
use group::{GroupState, Owner};
use index::Index;
use pins::Pins;
use slots::Slots;
use std::collections::HashMap;

/// How many threads can work without meeting each other's volatile state.
const SHARDS: usize = 16;
const CHUNK_STRIPES: usize = 64;
const GROUP_STRIPES: usize = 16;

/// What one thread prefers.
#[derive(Debug, Default)]
struct Shard {
    /// The broken chunk that small wants are served from.
    current: Option<Chunk>,
    /// The group that whole chunks are taken from.
    group: u64,
}

#[derive(Debug)]
enum Cell {
    Unloaded,
    Loaded(Box<GroupState>),
    Damaged(crate::error::Damage),
}

/// The space of an open pool. Shared by reference; everything in it is behind locks of its own.
#[derive(Debug)]
pub struct Space {
    journal: Arc<Journal>,
    groups: RwLock<HashMap<u64, Arc<Mutex<Cell>>>>,
    index: Mutex<Index>,
    /// Chunks below were all shown to the index.
    cursor: Mutex<Chunk>,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    chunk_stripes: Box<[Mutex<()>]>,
    group_stripes: Box<[Mutex<()>]>,
    slots: Slots,
    ahead: Ahead,
    pins: Pins,
    gate: Gate,
    /// Held while bad blocks are mended.
    mending: Mutex<()>,
    taken: AtomicI64,
    unwritten: AtomicI64,
    /// Available blocks in loaded chunks with arenas of inodes, where no node can be.
    inode_free: AtomicI64,
}

impl Space {
    /// The space of the pool that `journal` is of. Reads the counters only.
    ///
    /// # Errors
    /// None now; damage is found when a group is touched.
    pub fn new(journal: Arc<Journal>) -> Result<Self> {
        let totals = journal.totals();
        let locks = |n| std::iter::repeat_with(Mutex::default).take(n).collect();
        Ok(Self {
            slots: Slots::new(journal.geometry().arena_blocks),
            journal,
            groups: RwLock::default(),
            index: Mutex::default(),
            cursor: Mutex::default(),
            shards: std::iter::repeat_with(CachePadded::default).take(SHARDS).collect(),
            chunk_stripes: locks(CHUNK_STRIPES),
            group_stripes: locks(GROUP_STRIPES),
            ahead: Ahead::default(),
            pins: Pins::default(),
            gate: Gate::default(),
            mending: Mutex::default(),
            taken: AtomicI64::new(totals.used),
            unwritten: AtomicI64::new(totals.unwritten),
            inode_free: AtomicI64::new(0),
        })
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Starts a change. Waits while [`Self::try_reclaim`] is at work.
    pub fn begin(&self) -> Op<'_> {
        Op::new(self, Some(self.gate.enter()))
    }

    /// Gives the blocks of arenas all of whose slots are free back to files: how many blocks, or `None` where a change
    /// is under way, the caller's own included. Costs an epoch, and a look at every arena, if a slot was freed since it
    /// was done last.
    ///
    /// # Errors
    /// Damage, errors of the journal. What was given back before the error stays so.
    pub fn try_reclaim(&self) -> Result<Option<u64>> {
        if !self.slots.may_have_free_arenas() {
            return Ok(Some(0));
        }
        let Some(_closed) = self.gate.close() else { return Ok(None) };
        if !mutation::is(Mutation::NoEpochForArenas) {
            self.journal.quiesce()?;
        }
        self.reclaim_arenas().map(Some)
    }

    /// Blocks that are neither used nor reserved, those set aside included.
    #[must_use]
    pub fn free_blocks(&self) -> u64 {
        let usable = self.geometry().usable_blocks() as i64;
        (usable - self.taken.load(Ordering::Acquire)).max(0) as u64
    }

    /// Blocks that a normal reservation must leave, so that a full pool can still remove files, and convert every
    /// unwritten block it has given.
    ///
    /// Converting a block splits at most one record off, so it adds at most one record net. A node holds at least
    /// 13 records where it is half full (480 bytes, 18 a record), and nodes above them add a thirteenth: 512 / 13 *
    /// 13 / 12, about 43 bytes a block. A 64th of a block is 64 bytes, and pays for rounding to arenas too. The
    /// constant part is for removals: the nodes that a truncate in the middle of an extent splits, and intents.
    #[must_use]
    pub fn floor(&self) -> u64 {
        let unwritten = self.unwritten.load(Ordering::Acquire).max(0) as u64;
        (self.geometry().usable_blocks() / 64).min(64) + unwritten.div_ceil(64)
    }

    /// Free blocks where a node's arena could be.
    fn node_blocks(&self) -> u64 {
        self.free_blocks().saturating_sub(self.inode_free.load(Ordering::Acquire).max(0) as u64)
    }

    /// Blocks that normal reservations can still have: the floor is left where nodes can be.
    fn spare_blocks(&self) -> u64 {
        let (free, nodes) = (self.free_blocks(), self.node_blocks());
        free - nodes.min(self.floor())
    }

    fn geometry(&self) -> Geometry {
        self.journal.geometry()
    }

    fn no_space(&self, needed: u64) -> Error {
        Error::NoSpace { needed, free: self.spare_blocks() }
    }

    fn shard(&self) -> &Mutex<Shard> {
        &self.shards[thread_number() % SHARDS]
    }

    /// This thread's name in broken chunks.
    fn owner() -> Owner {
        (thread_number() % SHARDS) as Owner + 1
    }

    fn cell(&self, group: Group) -> Result<Arc<Mutex<Cell>>> {
        if let Some(cell) = self.groups.read().get(&group.0) {
            return Ok(cell.clone());
        }
        let geometry = self.geometry();
        if geometry.group_chunks(group) == 0 {
            return Err(Error::OutOfPool { at: group.offset(), len: CHUNK_BYTES, size: geometry.size });
        }
        let mut groups = self.groups.write();
        Ok(groups.entry(group.0).or_insert_with(|| Arc::new(Mutex::new(Cell::Unloaded))).clone())
    }

    /// Runs `f` on the state of `group`, loaded before if need be, and tells the index what became of it.
    ///
    /// # Errors
    /// Damage of the group, now or found before; errors of `f`.
    fn with_group<R>(
        &self,
        group: Group,
        f: impl FnOnce(&mut GroupState, &Journal) -> Result<R>,
    ) -> Result<R> {
        let cell = self.cell(group)?;
        let mut cell = cell.lock();
        if let Cell::Unloaded = *cell {
            *cell = self.load(group)?;
        }
        match &mut *cell {
            Cell::Loaded(state) => {
                state.grow(self.geometry().group_chunks(group), self.journal.region());
                let result = f(state, &self.journal);
                let change = state.show_inode_free();
                if change != 0 {
                    self.inode_free.fetch_add(change, Ordering::AcqRel);
                }
                let withheld = state.bad.show();
                if withheld != 0 {
                    self.taken.fetch_add(withheld, Ordering::AcqRel);
                }
                if let Some((before, after)) = state.show() {
                    self.index.lock().update(group, before, after);
                }
                result
            }
            Cell::Damaged(damage) => Err(damage.clone().into()),
            Cell::Unloaded => {
                Err(Error::OutOfPool { at: group.offset(), len: 0, size: self.geometry().size })
            }
        }
    }

    fn load(&self, group: Group) -> Result<Cell> {
        match GroupState::load(&self.journal, group) {
            Ok(state) => Ok(Cell::Loaded(Box::new(state))),
            Err(Error::Corrupt(damage)) => Ok(Cell::Damaged(damage)),
            Err(error) => Err(error),
        }
    }

    /// Loads the next group that nobody asked for room yet, or shows the index what growth added to the last one;
    /// `false` where there is nothing more. A damaged group is skipped.
    fn load_next(&self) -> Result<bool> {
        let mut cursor = self.cursor.lock();
        let chunks = self.geometry().chunks();
        if cursor.0 >= chunks {
            return Ok(false);
        }
        let group = cursor.group();
        let is_single = self.with_group(group, |state, _| Ok(state.is_fresh() && state.is_single()));
        if matches!(is_single, Ok(true)) {
            // No other chunk of it will ever be taken.
            self.begin_group(group)?;
        }
        match is_single {
            Ok(_) | Err(Error::Corrupt(_)) => *cursor = Group(group.0 + 1).first_chunk().min(Chunk(chunks)),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Asks the host for the chunks that `run` touches before anything is stored there, so that a full host is an
    /// error and not a signal.
    fn provision(&self, run: Run) -> Result<()> {
        let first = run.start.chunk().0;
        let end = run.end().0.div_ceil(CHUNK_BLOCKS);
        self.journal.region().provision(Chunk(first).first_block().offset(), (end - first) * CHUNK_BYTES)
    }

    /// Has the host provide the first chunk of a group that is used for the first time: its tables are there.
    fn begin_group(&self, group: Group) -> Result<()> {
        self.provision(Run::new(group.first_chunk().first_block(), 1))?;
        self.with_group(group, |state, _| {
            state.begin_use();
            Ok(())
        })
    }

    /// Makes blocks that were reserved and not used available again.
    fn give_back(&self, take: &Footprint) {
        self.make_available(take.taken());
        self.taken.fetch_sub(take.taken_blocks() as i64, Ordering::AcqRel);
    }

    /// Makes blocks available. A group that turned out damaged meanwhile gives nothing any more, so it needs not
    /// be told.
    fn make_available(&self, blocks: impl Iterator<Item = (Chunk, crate::layout::Bits)>) {
        let mut blocks = blocks.peekable();
        while let Some((first, _)) = blocks.peek() {
            let group = first.group();
            let _damaged = self.with_group(group, |state, _| {
                while let Some((chunk, bits)) = blocks.next_if(|(chunk, _)| chunk.group() == group) {
                    state.give(chunk.in_group(), &bits);
                }
                Ok(())
            });
            while blocks.next_if(|(chunk, _)| chunk.group() == group).is_some() {}
        }
    }

    fn lock_chunks(&self, footprint: &Footprint) -> Vec<MutexGuard<'_, ()>> {
        let wanted = footprint.chunks().fold(0u64, |set, chunk| set | 1 << (chunk.0 % CHUNK_STRIPES as u64));
        lock_each(&self.chunk_stripes, wanted)
    }

    fn lock_chunk(&self, chunk: Chunk) -> MutexGuard<'_, ()> {
        self.chunk_stripes[chunk.0 as usize % CHUNK_STRIPES].lock()
    }

    fn lock_groups(&self, groups: impl Iterator<Item = Group>) -> Vec<MutexGuard<'_, ()>> {
        let wanted = groups.fold(0u64, |set, group| set | 1 << (group.0 % GROUP_STRIPES as u64));
        lock_each(&self.group_stripes, wanted)
    }
}

/// Locks the stripes whose bits are set in `wanted`, in ascending order.
fn lock_each(stripes: &[Mutex<()>], mut wanted: u64) -> Vec<MutexGuard<'_, ()>> {
    let mut guards = Vec::new();
    while wanted != 0 {
        guards.push(stripes[wanted.trailing_zeros() as usize].lock());
        wanted &= wanted - 1;
    }
    guards
}

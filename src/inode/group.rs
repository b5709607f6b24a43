//! Which writes does the next record make durable, and will it have room for them?
//!
//! One [`Group`] a pool. Its files and what is not fenced of them; blocks reserved for where files go on; and a bound of
//! what its record takes.
//!
//! Invariants:
//! 1. The record of a group never exceeds [`Group::record_bytes`], which never exceeds what a lane can take: who adds
//!    a write looks at [`Group::bytes_with`] first.
//! 2. Who holds the group waits for no byte range, no turn and no directory, and touches no memory of a caller.

use super::InodeCore;
use crate::alloc::Space;
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use crate::sync::rank::{Held, Rank};
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::units::{CHUNK_BLOCKS, Chunk, FileBlock, Group as PoolGroup, Ino, PoolOff, Run};
use std::collections::{BTreeMap, BTreeSet};

/// What a change of extents takes of a record at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Places of the tree that are changed: runs of file blocks that do not touch.
    pub places: u64,
    /// Extents that come or go.
    pub extents: u64,
    /// The level of the tree's root before.
    pub level: u8,
}

/// Bytes that a node takes of a record.
const NODE_BYTES: u64 = 520;
/// Bytes that an inode takes of a record.
const INODE_BYTES: u64 = 264;
/// Bytes of the record's header and the lane's counters, and some to spare.
const RECORD_BYTES: u64 = 512;
/// Bytes of a chunk's descriptor and of a group's object, each with what names it.
const CHUNK_BYTES: u64 = 160;
const GROUP_BYTES: u64 = 152;

impl Changes {
    /// Bytes of record for the inode and the nodes of its tree.
    ///
    /// A change at one place touches at most four nodes a level (two of a split, the neighbour, what that is joined
    /// with), of a tree that may have become a level higher meanwhile. A tree of level 0 has no nodes, one of level 1 has
    /// at most those that its root has room for, and each node of either has those below it, too: no more than there are
    /// can be touched. Extents that are added fill nodes to the half, which holds 13.
    const fn bytes(self) -> u64 {
        let there = match self.level {
            0 => 0,
            1 => 8,
            2 => 8 + 8 * 30,
            _ => u64::MAX,
        };
        let by_places = self.places * (4 * (self.level as u64 + 2) + 1);
        let nodes = if by_places < there { by_places } else { there };
        INODE_BYTES + (nodes + self.extents.div_ceil(6) + 4) * NODE_BYTES
    }
}

/// Parts of the pool whose objects a record changes.
#[derive(Clone, Debug, Default)]
pub struct Places {
    chunks: BTreeSet<Chunk>,
    groups: BTreeSet<PoolGroup>,
}

impl Places {
    /// Notes that blocks of `run` are taken or freed.
    pub fn add(&mut self, run: Run) {
        each_chunk(run, |chunk, whole| {
            if !whole {
                self.chunks.insert(chunk);
            }
            self.groups.insert(chunk.group());
        });
    }

    /// Bytes of record that noting `run` would add, at most.
    fn bytes_more(&self, run: Run) -> u64 {
        let (mut bytes, mut group) = (0, None);
        each_chunk(run, |chunk, whole| {
            if !whole && !self.chunks.contains(&chunk) {
                bytes += CHUNK_BYTES;
            }
            let before = group.replace(chunk.group());
            if before != group && !self.groups.contains(&chunk.group()) {
                bytes += GROUP_BYTES;
            }
        });
        bytes
    }

    /// Bytes of record for them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES + self.groups.len() as u64 * GROUP_BYTES
    }
}

/// Gives each chunk with blocks of `run`, and whether all of its blocks are of it.
fn each_chunk(run: Run, mut f: impl FnMut(Chunk, bool)) {
    let mut at = run.start;
    while at < run.end() {
        let chunk = at.chunk();
        let end = Chunk(chunk.0 + 1).first_block().min(run.end());
        f(chunk, end.0 - at.0 == CHUNK_BLOCKS);
        at = end;
    }
}

/// A file in which something waits.
#[derive(Debug)]
pub struct Member {
    /// The file.
    pub core: Arc<InodeCore>,
    /// What its part of the record is.
    pub changes: Changes,
}

/// Bytes that a thread stored and did not fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub at: PoolOff,
    /// How many.
    pub len: u64,
    /// The number of the thread.
    pub thread: usize,
}

/// The writes that one record will make durable.
#[derive(Debug, Default)]
pub struct Group {
    /// The files, by number: in the order in which they are locked.
    pub files: BTreeMap<Ino, Member>,
    /// Bytes that are not fenced, by who stored them.
    pub stored: Vec<Stored>,
    /// Bytes that were written.
    pub bytes: u64,
    /// When the first of them was, nanoseconds since 1970.
    pub began: i64,
    /// What of the pool the record changes.
    pub places: Places,
    /// A commit failed after the blocks were given away: there will be none.
    pub stuck: bool,
    /// Blocks reserved for where files go on: the file block they are for.
    ahead: BTreeMap<Ino, (FileBlock, Run)>,
}

impl Group {
    /// Bytes of record that the group takes at most.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        self.files.values().map(|member| member.changes.bytes()).sum::<u64>()
            + self.places.bytes()
            + RECORD_BYTES
    }

    /// Bytes of record that the group takes at most once `changes` of file `ino` are added, which take or free the blocks of
    /// `runs`.
    #[must_use]
    pub fn bytes_with<'r>(&self, ino: Ino, changes: Changes, runs: impl Iterator<Item = &'r Run>) -> u64 {
        let before = self.files.get(&ino).map(|member| member.changes);
        let after = before.map_or(changes, |before| before.plus(changes));
        // What two runs name is counted twice.
        let more: u64 = runs.map(|run| self.places.bytes_more(*run)).sum();
        self.record_bytes() - before.map_or(0, Changes::bytes) + after.bytes() + more
    }

    /// Notes that thread `thread` stored `len` bytes at `at`.
    pub fn note_stored(&mut self, at: PoolOff, len: u64, thread: usize) {
        match self.stored.last_mut() {
            Some(last) if last.thread == thread && last.at.plus(last.len) == at => last.len += len,
            _ => self.stored.push(Stored { at, len, thread }),
        }
    }

    /// Up to `len` of the blocks reserved ahead for file block `file` of `ino`.
    pub fn take_ahead(&mut self, ino: Ino, file: FileBlock, len: u64) -> Option<Run> {
        let (next, run) = self.ahead.get_mut(&ino).filter(|(next, _)| *next == file)?;
        let taken = Run::new(run.start, len.min(run.len));
        (*next, *run) = (FileBlock(next.0 + taken.len), Run::new(taken.end(), run.len - taken.len));
        if run.len == 0 {
            self.ahead.remove(&ino);
        }
        Some(taken)
    }

    /// Keeps `run` for file block `file` of `ino`, instead of what was kept for the file.
    pub fn put_ahead(&mut self, space: &Space, ino: Ino, file: FileBlock, run: Run) {
        if let Some((_, old)) = self.ahead.insert(ino, (file, run)) {
            space.give_kept(old);
        }
    }

    /// Gives back what is reserved ahead for `ino`, or for all files: how many blocks.
    pub fn give_ahead_back(&mut self, space: &Space, ino: Option<Ino>) -> u64 {
        let mut back = 0;
        self.ahead.retain(|of, (_, run)| {
            let stays = ino.is_some_and(|ino| ino != *of);
            if !stays {
                space.give_kept(*run);
                back += run.len;
            }
            stays
        });
        back
    }
}

impl Changes {
    /// Both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            places: self.places + other.places,
            extents: self.extents + other.extents,
            level: if self.level > other.level { self.level } else { other.level },
        }
    }
}

/// The group of a pool, and when it must be committed.
#[derive(Debug)]
pub struct Ordered {
    /// Something waits in some file.
    waiting: AtomicBool,
    /// Blocks are reserved ahead for some file.
    ahead: AtomicBool,
    group: Mutex<Group>,
    most_bytes: AtomicU64,
    most_nanos: AtomicI64,
}

impl Default for Ordered {
    /// 8 MiB, or 100 ms.
    fn default() -> Self {
        Self {
            waiting: AtomicBool::new(false),
            ahead: AtomicBool::new(false),
            group: Mutex::default(),
            most_bytes: AtomicU64::new(8 << 20),
            most_nanos: AtomicI64::new(100_000_000),
        }
    }
}

/// The group, locked.
#[derive(Debug)]
pub struct GroupGuard<'o> {
    ordered: &'o Ordered,
    group: MutexGuard<'o, Group>,
    _rank: Held,
}

impl std::ops::Deref for GroupGuard<'_> {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.group
    }
}

impl std::ops::DerefMut for GroupGuard<'_> {
    fn deref_mut(&mut self) -> &mut Group {
        &mut self.group
    }
}

impl Drop for GroupGuard<'_> {
    fn drop(&mut self) {
        self.ordered.waiting.store(!self.group.files.is_empty(), Ordering::Release);
        self.ordered.ahead.store(!self.group.ahead.is_empty(), Ordering::Release);
    }
}

impl Ordered {
    /// Whether any write waits to be made durable.
    #[must_use]
    #[inline]
    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    /// Whether blocks are reserved ahead.
    #[must_use]
    #[inline]
    pub fn has_ahead(&self) -> bool {
        self.ahead.load(Ordering::Acquire)
    }

    /// Locks the group. No memory of a caller is touched under it, and no byte range or turn is waited for.
    pub fn lock(&self) -> GroupGuard<'_> {
        let rank = Held::new(Rank::Group);
        GroupGuard { ordered: self, group: self.group.lock(), _rank: rank }
    }

    /// Sets after how many bytes, or how many nanoseconds from the first write on, a write commits the group.
    pub fn set_bounds(&self, bytes: u64, nanos: i64) {
        self.most_bytes.store(bytes, Ordering::Relaxed);
        self.most_nanos.store(nanos, Ordering::Relaxed);
    }

    /// Whether a group of so many bytes and of that age is to be committed.
    #[must_use]
    pub fn is_due(&self, bytes: u64, age: i64) -> bool {
        bytes >= self.most_bytes.load(Ordering::Relaxed) || self.left(age) == 0
    }

    /// In how many nanoseconds a group of that age is to be committed: 0 if it is due, or begun in the future, as the clock
    /// was set back since.
    #[must_use]
    pub fn left(&self, age: i64) -> i64 {
        if age < 0 { 0 } else { self.most_nanos.load(Ordering::Relaxed).saturating_sub(age).max(0) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::units::Block;

    #[test]
    fn the_bound_of_a_record_grows_with_what_is_added() {
        let mut group = Group::default();
        let changes = Changes { places: 1, extents: 2, level: 0 };
        let run = Run::new(Block(3 * CHUNK_BLOCKS - 1), CHUNK_BLOCKS + 2);
        let first = group.bytes_with(Ino(1), changes, [run].iter());
        assert!(first > group.record_bytes());
        group.places.add(run);
        assert_eq!(group.places.bytes(), 2 * CHUNK_BYTES + GROUP_BYTES, "a whole chunk has no descriptor");
        let again = group.bytes_with(Ino(1), changes, [run].iter());
        assert_eq!(again, first, "what is noted is not counted again, and was counted before");
        assert!(Changes { level: 3, ..changes }.bytes() > changes.bytes());
        assert_eq!(changes.plus(changes).extents, 4);
    }
}

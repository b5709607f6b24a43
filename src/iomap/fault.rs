//! What do a file and the memory mappings of it ask of each other?
//!
//! A fault handler asks the file through [`FaultOps`]; the store tells the mappings what it is about to do to the
//! file's blocks through [`AddressSpace`]. Neither knows more of the other, as in Linux, where a file system and the
//! memory management meet in `iomap_ops` and `address_space`.
//!
//! Rules:
//! 1. A fault never takes `io`: it may come while the thread itself holds bytes of the same file. So what it changes (a
//!    hole or unwritten space gets blocks of zeros) must not meet a write, a truncate or a punch of the same bytes:
//!    those announce themselves by a [`Transition`], and wait in it for the faults that are under way there.
//! 2. User memory is touched under `io`, and under a transition that only allocates: loads from the mappings go on
//!    in it. It is not touched under one that invalidates, nor under `state`.
//! 3. A transition begins under `io` and before `state`; a fault takes `state` inside of its own turn.

use super::{Access, FileRange, Iomap};
use crate::error::Result;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::rank::{Held, Rank};
use crate::sync::{Arc, Mutex};
use crate::units::PoolOff;
use std::any::Any;
use std::fmt::Debug;
use std::fs::File;

/// The memory of a pool, as a fault handler maps it.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The file or device: a pool offset is an offset in it.
    pub file: Arc<File>,
    /// Whether it is mapped with `MAP_SYNC`.
    pub sync: bool,
    /// Bytes of the smallest translation, a power of two: 4 KiB, or the alignment that a devdax device prescribes.
    pub unit: u64,
    /// Bytes of the largest translation worth an attempt: 2 MiB, or `unit` where the medium has only that.
    pub huge: u64,
    /// Whether the bytes become durable by writing pages back (a plain file), not by flushing cache lines.
    pub by_pages: bool,
}

/// Whether blocks that a fault asks for must be one whole chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// One chunk of 2 MiB, congruent to the file offset, or nothing.
    Whole,
    /// Any blocks.
    Any,
}

/// A file, as a fault handler sees it. No call takes the file's `io` or touches memory of the caller, and none writes
/// to a log.
pub trait FaultOps: Debug + Send + Sync {
    /// What the pool's memory is.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for a pool that has no file to map (a simulated one).
    fn memory(&self) -> Result<Memory>;

    /// `len` bytes at `base` as memory of the file's pool.
    ///
    /// # Safety
    /// `base` is a multiple of 4096, and `len` bytes from it are mapped as long as the answer lives, so that a load is
    /// served (or answered by a signal); so is a store, if anything is stored through it. Nobody has a Rust reference
    /// to them but to atomics.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for a file that has no such memory.
    unsafe fn access_at(&self, base: *mut u8, len: u64) -> Result<Box<dyn Access>> {
        let _without_memory = (base, len);
        Err(crate::Error::Unsupported {
            backend: "mapping",
            why: "the file lies in no memory of the system's",
        })
    }

    /// Whether the file may be read, and whether it may be written, through this handle.
    fn access(&self) -> (bool, bool);

    /// The file's inode number, for errors.
    fn ino(&self) -> u64;

    /// The file's size in bytes, as committed.
    fn size(&self) -> u64;

    /// The maximal run of one state that holds byte `offset`, clipped to `within`, which holds it too. It stays true
    /// for those bytes while the caller has their turn, but for holes and unwritten space under a transition that
    /// allocates.
    ///
    /// # Errors
    /// Damage of the file's extents.
    fn run_at(&self, offset: u64, within: FileRange) -> Result<Iomap>;

    /// As [`Self::run_at`], and whether a hole of `within` was seen beside the run. One that was not seen may be there all
    /// the same.
    ///
    /// # Errors
    /// Those of [`Self::run_at`].
    fn look_at(&self, offset: u64, within: FileRange) -> Result<(Iomap, bool)> {
        Ok((self.run_at(offset, within)?, false))
    }

    /// Gives the holes and unwritten parts of `range` (whole blocks within the file, of one 2 MiB slot) written blocks
    /// that hold zeros: durable, with everything that makes them reachable, when it returns. With
    /// [`Placement::Whole`], `range` is a whole slot without data, and `false` says that there was no chunk for it and
    /// nothing changed. The caller has the turn of the slot: nobody else writes, allocates or removes bytes of it. Holes of the
    /// slot beside the range may get unwritten blocks with it.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`] before anything changed, damage, errors of the medium.
    fn populate(&self, range: FileRange, placement: Placement) -> Result<bool>;

    /// Gives the data of `range` (whole blocks within the file) that other files may own too blocks of the file's own, with a
    /// copy: durable, with everything that makes them reachable, when it returns. The caller has the turn of these bytes, and
    /// sees to it that no mapping shows the old blocks when one can store to the new ones.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`]: what was not copied is as it was. Damage, errors of the medium.
    fn make_private(&self, range: FileRange) -> Result<()>;

    /// Zeroes one free chunk ahead, for a later [`Placement::Whole`], unless `enough` are ready: whether it did.
    ///
    /// # Errors
    /// Errors of the medium.
    fn zero_ahead(&self, enough: usize) -> Result<bool>;

    /// Notes that the file is stored to through a mapping: its times move, durably with the next fence.
    ///
    /// # Errors
    /// Errors of the medium.
    fn touch(&self) -> Result<()>;

    /// Lets the pool's own mapping have the chunks of `len` bytes from `at` before another mapping has parts of them,
    /// where that decides how large translations of them can ever be (files with DAX). Cheap the second time.
    ///
    /// # Errors
    /// [`crate::Error::OutOfPool`].
    fn prime(&self, at: PoolOff, len: u64) -> Result<()> {
        let _nothing_to_do = (at, len);
        Ok(())
    }

    /// Copies `buf.len()` bytes of the pool from `at`.
    ///
    /// # Errors
    /// A bad place of the medium, [`crate::Error::OutOfPool`].
    fn read(&self, at: PoolOff, buf: &mut [u8]) -> Result<()>;

    /// Starts writing `len` bytes of the pool from `at` back: durable after the next [`Self::fence`] of this thread.
    ///
    /// # Errors
    /// [`crate::Error::OutOfPool`].
    fn flush(&self, at: PoolOff, len: u64) -> Result<()>;

    /// Waits until what this thread flushed is durable.
    ///
    /// # Errors
    /// [`crate::Error::Io`] where the system could not write.
    fn fence(&self) -> Result<()>;

    /// The first bad range of the medium in `len` bytes from `at`: where, and how many bytes.
    fn bad(&self, at: PoolOff, len: u64) -> Option<(PoolOff, u64)>;

    /// Keeps the blocks of these runs (place, bytes) from being given to anybody else, freed or not, until they are
    /// unpinned as often. The caller has the turn of the bytes they hold.
    ///
    /// # Errors
    /// Damage.
    fn pin(&self, runs: &[(PoolOff, u64)]) -> Result<()>;

    /// Takes one [`Self::pin`] of these runs back.
    fn unpin(&self, runs: &[(PoolOff, u64)]);

    /// The file's address space, made by `make` if it has none. Nothing is under way on the file at that moment, and
    /// what its last block holds beyond the end is zeroed. Each call is answered by one of [`Self::detach`].
    ///
    /// # Errors
    /// Not a regular file, errors of the medium.
    fn attach(&self, make: &mut dyn FnMut() -> Arc<dyn AddressSpace>) -> Result<Arc<dyn AddressSpace>>;

    /// Takes one [`Self::attach`] back; the last one lets the address space go.
    fn detach(&self);
}

/// Makes what lies at these places of the pool (each with its bytes) durable.
pub type MakeDurable<'d> = dyn FnMut(&[(PoolOff, u64)]) -> Result<()> + 'd;

/// The mappings of a file, as the store sees them. Begun and ended through [`Transition`] only.
pub trait AddressSpace: Debug + Send + Sync + Any {
    /// Waits for the faults and transitions that are under way in `range` and keeps new ones out, but for loads, until
    /// [`Self::end`].
    fn allocate(&self, range: FileRange);

    /// As [`Self::allocate`], also for loads; when it returns, no translation of `range` is left in any mapping. What
    /// private mappings have copied goes only where `cut` (the bytes go beyond the end of the file). If `range` was
    /// given to [`Self::allocate`] by the same caller before, that turn becomes this one.
    ///
    /// # Errors
    /// The system's, and mappings that can not let go of blocks (made eagerly, without a fault handler); the turn is
    /// the caller's all the same, to be ended.
    fn invalidate(&self, range: FileRange, cut: bool) -> Result<()>;

    /// Makes what was stored to `range` through mappings before the call durable: how many bytes were flushed.
    ///
    /// # Errors
    /// The system's; the next call makes up for it.
    fn sync(self: Arc<Self>, file: &dyn FaultOps, range: FileRange) -> Result<u64>;

    /// Has `durable` make what was stored to `range` through mappings durable, at these places of the pool, and keeps no
    /// note of it then: what is stored there is about to be elsewhere in the file. `range` was invalidated by the same
    /// caller, and not ended.
    ///
    /// # Errors
    /// Those of `durable`; the next sync makes up for it.
    fn write_back(&self, range: FileRange, durable: &mut MakeDurable<'_>) -> Result<()> {
        let _nothing_noted = (range, durable);
        Ok(())
    }

    /// Ends the turn of `range`, whatever came of it: faults that were kept out are taken again, and see the file as it is
    /// now.
    fn end(&self, range: FileRange);
}

/// Where a file keeps its address space.
#[derive(Debug, Default)]
pub struct SpaceSlot {
    /// Whether there is one: read without a lock by whoever holds any bytes in `io`, and set only by who holds all.
    used: AtomicBool,
    space: Mutex<Option<(Arc<dyn AddressSpace>, u64)>>,
}

impl SpaceSlot {
    /// The address space, made by `make` if there is none; counts its users. The caller holds all bytes in `io`.
    pub fn attach(&self, make: &mut dyn FnMut() -> Arc<dyn AddressSpace>) -> Arc<dyn AddressSpace> {
        let mut slot = self.space.lock();
        let (space, users) = slot.get_or_insert_with(|| (make(), 0));
        *users += 1;
        let space = space.clone();
        self.used.store(true, Ordering::Release);
        space
    }

    /// Lets one user go, and with the last one the address space.
    pub fn detach(&self) {
        let mut slot = self.space.lock();
        let Some((_, users)) = slot.as_mut() else { return };
        *users -= 1;
        if *users == 0 {
            self.used.store(false, Ordering::Release);
            let last = slot.take();
            // It may hold the file, whose last handle does more than fits under this lock.
            drop(slot);
            drop(last);
        }
    }

    /// Whether the file is mapped. Whoever holds bytes of the file in `io` knows that it is not mapped meanwhile if it is not.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// The address space, if the file is mapped. Whoever holds bytes of the file in `io` knows that none comes meanwhile.
    #[inline]
    pub fn get(&self) -> Option<Arc<dyn AddressSpace>> {
        if !self.is_used() {
            return None;
        }
        self.space.lock().as_ref().map(|(space, _)| space.clone())
    }

    /// Begins a turn that allocates in `range`; nothing where the file is not mapped.
    pub fn allocate(&self, range: FileRange) -> Transition {
        let turn = self.begin(range);
        if let Some(space) = &turn.space {
            space.allocate(range);
        }
        turn
    }

    /// Begins a turn that changes what `range` is: no translation of it is left; nothing where the file is not mapped.
    ///
    /// # Errors
    /// Those of [`AddressSpace::invalidate`]; the turn is over then.
    pub fn invalidate(&self, range: FileRange, cut: bool) -> Result<Transition> {
        let turn = self.begin(range);
        if let Some(space) = &turn.space {
            space.invalidate(range, cut)?;
        }
        Ok(turn)
    }

    fn begin(&self, range: FileRange) -> Transition {
        let space = self.get().filter(|_| range.len > 0);
        let rank = space.as_ref().map(|_| Held::new(Rank::Transition));
        Transition { space, range, _rank: rank }
    }
}

/// A turn of a range of a file in which the store changes it; ends when dropped.
#[derive(Debug)]
#[must_use = "a transition ends when it is dropped"]
pub struct Transition {
    space: Option<Arc<dyn AddressSpace>>,
    range: FileRange,
    _rank: Option<Held>,
}

impl Transition {
    /// The turn of nothing: of a file that is not mapped, or of a change that no mapping can see.
    pub const fn none() -> Self {
        Self { space: None, range: FileRange { offset: 0, len: 0 }, _rank: None }
    }

    /// Makes a turn that allocates one in which no translation is left: before what was allocated is published.
    ///
    /// # Errors
    /// Those of [`AddressSpace::invalidate`].
    pub fn invalidate(&self) -> Result<()> {
        self.space.as_ref().map_or(Ok(()), |space| space.invalidate(self.range, false))
    }

    /// Has `durable` make durable what was stored through mappings to the bytes of a turn that invalidates, which are about
    /// to move in the file.
    ///
    /// # Errors
    /// Those of `durable`.
    pub fn write_back(&self, durable: &mut MakeDurable<'_>) -> Result<()> {
        self.space.as_ref().map_or(Ok(()), |space| space.write_back(self.range, durable))
    }
}

impl Transition {
    /// The turn, to be gone on with in another thread.
    pub fn detach(mut self) -> DetachedTransition {
        drop(self._rank.take());
        DetachedTransition(self.space.take().map(|space| (space, self.range)))
    }
}

/// A turn of a range of a file that no thread has; it ends when dropped.
#[derive(Debug)]
#[must_use = "a transition ends when it is dropped"]
pub struct DetachedTransition(Option<(Arc<dyn AddressSpace>, FileRange)>);

impl DetachedTransition {
    /// As [`Transition::invalidate`].
    ///
    /// # Errors
    /// Those of [`AddressSpace::invalidate`].
    pub fn invalidate(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |(space, range)| space.invalidate(*range, false))
    }
}

impl Drop for DetachedTransition {
    fn drop(&mut self) {
        if let Some((space, range)) = &self.0 {
            space.end(*range);
        }
    }
}

impl Drop for Transition {
    fn drop(&mut self) {
        if let Some(space) = &self.space {
            space.end(self.range);
        }
    }
}

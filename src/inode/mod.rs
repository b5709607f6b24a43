//! What is a file to the store while it runs?
//!
//! The inode in memory ([`InodeCore`]), the table of them, the lock of byte ranges, and how an inode changes
//! ([`Draft`]). [`Fs`] is what every layer above works on.

mod core;
mod draft;
mod group;
mod intents;
mod pending;
mod range_lock;
mod recent;
pub mod shares;
mod table;

pub use self::core::InodeCore;
pub use draft::Draft;
pub use group::{Changes, Group, GroupGuard, Member, Ordered, Places};
pub use intents::{Intent, Intents, RangeChange, Shift, ShiftChange, list as list_intents};
pub use pending::{Pending, PendingRun, Waiting};
pub use range_lock::{DetachedRange, RangeGuard, RangeLock};
pub use recent::Recent;
pub use table::InodeTable;

use crate::alloc::Space;
use crate::error::{Damage, Error, Result, Structure};
use crate::journal::Journal;
use crate::layout::{Durability, FileKind};
use crate::pmem::Region;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Arc, Mutex, thread};
use crate::units::Ino;
#[cfg(not(loom))]
use std::time::{SystemTime, UNIX_EPOCH};

/// How often a moment without changes is looked for before space is given up.
const RECLAIM_TRIES: usize = 64;

/// One open store, below its public face.
#[derive(Debug)]
pub struct Fs {
    /// Blocks and slots.
    pub space: Arc<Space>,
    /// Inodes in memory.
    pub table: InodeTable,
    /// Held by a rename between two directories.
    pub rename: Mutex<()>,
    /// The root directory's number.
    pub root: Ino,
    /// The hidden inode of the intents.
    pub intents: Arc<InodeCore>,
    /// Writes that wait to be made durable.
    pub ordered: Ordered,
    /// The bits of the pool's level of durability, which the intents' inode keeps in its flags.
    level: AtomicU32,
}

impl Fs {
    /// The store over `space`, whose journal was recovered.
    ///
    /// # Errors
    /// Damage of the root directory or the intents.
    pub fn new(space: Arc<Space>) -> Result<Self> {
        let superblock = space.journal().superblock();
        let table = InodeTable::new(space.clone());
        let intents = table.hide(superblock.intents)?;
        let root = table.get(superblock.root)?;
        let kinds = (root.state.read().kind, intents.state.read().kind);
        if kinds != (FileKind::Directory, FileKind::Regular) {
            let at = superblock.root.offset();
            let found = u64::from(kinds.0.type_bits());
            return Err(Damage::new(
                Structure::Inode,
                at,
                "kinds of the root and the intents",
                0o040_000,
                found,
            )
            .into());
        }
        let (rename, ordered) = (Mutex::new(()), Ordered::default());
        let level = AtomicU32::new(intents.state.read().flags);
        Ok(Self { space, table, rename, root: superblock.root, intents, ordered, level })
    }

    /// The level of durability of files that name none.
    #[must_use]
    pub fn durability(&self) -> Durability {
        Durability::of_flags(self.level.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Notes another level, after the commit that set it.
    pub fn set_durability(&self, level: Durability) {
        self.level.store(Durability::bits(Some(level)), Ordering::Relaxed);
    }

    /// The level of durability of `core`. It stands still while any byte of the file is held in `io`.
    #[must_use]
    #[inline]
    pub fn durability_of(&self, core: &InodeCore) -> Durability {
        core.durability().unwrap_or_else(|| self.durability())
    }

    /// The pool.
    #[must_use]
    pub fn region(&self) -> &Region {
        self.space.journal().region()
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        self.space.journal()
    }

    /// Gives the space of metadata that is no longer needed back to files: blocks given back, 0 too where others'
    /// changes left no moment for it; and free blocks that the medium had lost, where it takes them again.
    ///
    /// # Errors
    /// A store that takes no changes, damage, errors of the medium.
    pub fn reclaim(&self) -> Result<u64> {
        let mut mended = if self.region().has_bad() { self.mend() } else { 0 };
        if self.ordered.has_ahead() {
            mended += self.ordered.lock().give_ahead_back(&self.space, None);
        }
        for _ in 0..RECLAIM_TRIES {
            if let Some(blocks) = self.space.try_reclaim()? {
                return Ok(mended + blocks);
            }
            thread::yield_now();
        }
        Ok(mended)
    }

    /// Has the medium take bad blocks again that are nobody's: how many it did. Nothing waits for them, so that trouble with
    /// it is only logged.
    pub fn mend(&self) -> u64 {
        self.space.mend().unwrap_or_else(|error| {
            tracing::warn!(%error, "bad blocks that no file uses stay out of use");
            0
        })
    }

    /// Does `change`, and once again where there was no space and reclaiming found some. The caller holds no lock and
    /// has no operation under way.
    ///
    /// # Errors
    /// Those of `change`, and of [`Self::reclaim`].
    #[inline]
    pub fn with_room<R>(&self, mut change: impl FnMut() -> Result<R>) -> Result<R> {
        match change() {
            Err(Error::NoSpace { .. }) if self.reclaim()? > 0 => change(),
            done => done,
        }
    }
}

impl Drop for Fs {
    /// Leaves the pool clean when its last handle goes; a pool that could not be is recovered at the next open.
    fn drop(&mut self) {
        if self.journal().writable().is_ok()
            && let Err(error) = self.journal().quiesce()
        {
            tracing::warn!(%error, "the pool is left for recovery");
        }
    }
}

/// The time as the kernel kept it at its last tick, a few milliseconds ago at most: what overwrites in place take, which
/// have not the time to ask for more.
#[must_use]
pub fn coarse_now() -> i64 {
    if cfg!(loom) {
        return now();
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// The time, nanoseconds since 1970: stands still in a model, each run of which must be like the others.
#[cfg(loom)]
#[must_use]
pub fn now() -> i64 {
    1_000_000_000
}

/// The time, nanoseconds since 1970.
#[cfg(not(loom))]
#[must_use]
pub fn now() -> i64 {
    let nanos = |d: std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

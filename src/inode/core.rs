//! What does the store keep in memory of an open inode?
//!
//! The inode's content as last committed, its locks, and how many handles pin it. Everything else is read where it
//! lies. Lock order, outermost first: directories' `state` (ancestors before descendants, else by number; two
//! unrelated ones only under the rename lock), `io` of a file, files' `state` by number, the intents' `state`.
//!
//! Invariants:
//! 1. `state` is what the home holds: it changes only under the exclusive lock, after the commit (J3).
//! 2. `pins` grows from 0 only under the shared lock of a directory that names the inode, so whoever holds that
//!    directory exclusively and sees 0 after removing the last name may free the inode.
//! 3. The lazy time is stored under the shared lock of `state`, tagged with the version it belongs to.

use super::{Pending, RangeLock, Recent};
use crate::error::Result;
use crate::iomap::SpaceSlot;
use crate::layout::{Durability, FileKind, INODE_SEQUENTIAL, Inode, LAZY_MTIME_AT};
use crate::pmem::Region;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use crate::tree;
use crate::units::{Ino, MAX_FILE_BYTES};

/// How far apart two stored lazy times are at least, in nanoseconds: the resolution of file times.
const LAZY_STEP_NANOS: i64 = 4_000_000;
const LAZY_TAG_BITS: u64 = (1 << 10) - 1;

/// An inode in memory.
#[derive(Debug)]
pub struct InodeCore {
    /// Its number.
    pub ino: Ino,
    /// What it is, which never changes.
    pub kind: FileKind,
    /// The `io_lock`: which bytes are being read and written.
    pub io: RangeLock,
    /// The content as committed: the extent lock of a file, the namespace lock of a directory.
    pub state: RwLock<Inode>,
    /// Handles that keep the inode alive without a name.
    pub pins: AtomicU32,
    /// Whether an intent to clean up (delete or trim) is on the media.
    pub has_intent: AtomicBool,
    /// Whether the inode was freed; set under the exclusive lock of `state`.
    pub gone: AtomicBool,
    /// Moves on with each change of the mapping of bytes to blocks.
    pub mapping: AtomicU64,
    /// The run of the file that was looked for last.
    pub recent: Recent,
    /// The memory mappings of the file.
    pub space: SpaceSlot,
    /// How many bytes a sequential file may have; `None` for any other file. Never changes.
    pub capacity: Option<u64>,
    /// The extent-size hint in `state`, in blocks, to be read without its lock: a wrong one costs contiguity alone.
    hint: AtomicU32,
    /// What is written and waits to be made durable.
    pub pending: Pending,
    /// The size in `state`, to be read without its lock: moved after the mapping (R13), under the exclusive lock.
    size: AtomicU64,
    /// The flags in `state`, to be read without its lock.
    flags: AtomicU32,
    lazy_mtime: AtomicI64,
}

impl InodeCore {
    /// An inode with its committed content.
    #[must_use]
    pub fn new(ino: Ino, mut inode: Inode) -> Self {
        tree::vouch_root(&mut inode.root, ino);
        Self {
            ino,
            kind: inode.kind,
            capacity: capacity(&inode),
            hint: AtomicU32::new(inode.hint),
            size: AtomicU64::new(inode.size),
            flags: AtomicU32::new(inode.flags),
            io: RangeLock::default(),
            state: RwLock::new(inode),
            pins: AtomicU32::new(0),
            has_intent: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            mapping: AtomicU64::new(1),
            recent: Recent::default(),
            space: SpaceSlot::default(),
            pending: Pending::default(),
            lazy_mtime: AtomicI64::new(0),
        }
    }

    /// Sets `inode`'s times from the lazy word that lies beside its home, if that belongs to this version.
    pub(super) fn join_lazy_word(inode: &mut Inode, word: u64) {
        let time = (word & !LAZY_TAG_BITS) as i64;
        if word & LAZY_TAG_BITS == inode.version & LAZY_TAG_BITS && time != 0 && time > inode.mtime {
            (inode.mtime, inode.ctime) = (time, time);
        }
    }

    /// Notes that data were overwritten at `now`: in memory, and (at most once in 4 ms) beside the inode's home,
    /// flushed but not fenced: the fence of the overwritten data covers it.
    ///
    /// # Errors
    /// Errors of the medium.
    #[inline]
    pub fn touch_lazily(&self, region: &Region, now: i64) -> Result<()> {
        if now - self.lazy_mtime.load(Ordering::Relaxed) < LAZY_STEP_NANOS {
            return Ok(());
        }
        self.store_lazily(region, now)
    }

    #[cold]
    fn store_lazily(&self, region: &Region, now: i64) -> Result<()> {
        let state = self.state.read();
        let time = now as u64 & !LAZY_TAG_BITS;
        let word = (time | (state.version & LAZY_TAG_BITS)).to_le_bytes();
        let home = self.ino.offset();
        let at = home.plus(if mutation::is(Mutation::StoreInObject) { 56 } else { LAZY_MTIME_AT });
        region.store(at, &word)?;
        region.flush(at, 8)?;
        self.lazy_mtime.store(time as i64, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets the lazy time, after a commit that set another one. From that commit on the word belongs to no version;
    /// it is zeroed all the same, durably, since its tag would come again with the 1024th version from its own.
    ///
    /// # Errors
    /// Errors of the medium.
    pub(super) fn forget_lazy(&self, region: &Region) -> Result<()> {
        self.lazy_mtime.store(0, Ordering::Relaxed);
        clear_lazy_word(region, self.ino)
    }

    /// Whether `word`, which lies beside the home of `inode`, is left of an earlier version and would be believed when
    /// its tag comes again: a crash came between the record that set a time and the clearing of the word.
    pub(super) fn is_left_over(inode: &Inode, word: u64) -> bool {
        (word & !LAZY_TAG_BITS) as i64 > inode.mtime && word & LAZY_TAG_BITS != inode.version & LAZY_TAG_BITS
    }

    /// `inode` with the time of the last overwrite in it.
    #[must_use]
    pub fn with_lazy(&self, inode: &Inode) -> Inode {
        let mut inode = inode.clone();
        let lazy = self.lazy_mtime.load(Ordering::Relaxed);
        if lazy != 0 && lazy > inode.mtime {
            (inode.mtime, inode.ctime) = (lazy, lazy);
        }
        inode
    }

    /// The size in bytes, as committed or as it waits to be (of a directory: entries). It stands still for whoever holds
    /// the file's end in `io`.
    #[must_use]
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// The extent-size hint in blocks, 0 for none.
    #[must_use]
    pub fn hint(&self) -> u64 {
        u64::from(self.hint.load(Ordering::Relaxed))
    }

    pub(super) fn set_hint(&self, hint: u32) {
        self.hint.store(hint, Ordering::Relaxed);
    }

    /// Shows another size: the caller holds `state`, exclusively or with the file's end in `io`.
    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    pub(super) fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// The level of durability that the inode names, if it names one.
    #[must_use]
    #[inline]
    pub fn durability(&self) -> Option<Durability> {
        Durability::of_flags(self.flags.load(Ordering::Relaxed))
    }

    /// Whether some handle pins the inode.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }
}

/// How many bytes `inode` may have if it is a sequential file.
fn capacity(inode: &Inode) -> Option<u64> {
    let is_sequential = inode.kind == FileKind::Regular && inode.flags & INODE_SEQUENTIAL != 0;
    let most = if inode.capacity == 0 { MAX_FILE_BYTES } else { inode.capacity };
    is_sequential.then_some(most)
}

/// Zeroes the lazy word of `ino`, durably, unless it is zero.
///
/// # Errors
/// Errors of the medium.
pub(super) fn clear_lazy_word(region: &Region, ino: Ino) -> Result<()> {
    let at = ino.offset().plus(LAZY_MTIME_AT);
    if region.load(at)? == 0 {
        return Ok(());
    }
    region.store(at, &[0; 8])?;
    region.flush(at, 8)?;
    region.fence()
}

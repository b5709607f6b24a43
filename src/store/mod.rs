//! What does a user see?
//!
//! [`Store`], [`Dir`], [`File`] and [`Node`]: handles that keep the pool open as long as any of them lives.

pub mod check;
mod dir;
mod durability;
mod file;
mod mapped;
mod node;
mod open;
mod options;
mod queue;
mod reflink;
mod snapshot;
#[cfg(test)]
mod tests;

pub use dir::{Dir, DirEntry, ReadDir};
pub use file::File;
pub use node::Node;
pub use options::{OpenOptions, StoreOptions};
pub use queue::{IoQueue, IoQueueOptions, IoRequest};
pub use snapshot::{SNAPSHOT_PREFIX, Snapshot};

use crate::alloc::{ChunkUse, SpaceReport};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::inode::{Fs, shares};
use crate::journal::Recovery;
use crate::layout::{Durability, FORMAT_VERSION, Geometry};
use crate::namespace;
use crate::pmem::{Counts, Region, RegionInfo};
use crate::sync::Arc;
use crate::units::{BLOCK_BYTES, CHUNK_BYTES, Chunk, MAX_NAME_BYTES, PoolOff};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

#[derive(Debug)]
struct Inner {
    root: Dir,
    fs: Arc<Fs>,
    recovery: Recovery,
}

/// An open pool, used as its root directory. Clones share it; it is closed when the last of them, and of the handles
/// made through them, is gone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Deref for Store {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.inner.root
    }
}

/// How full a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statfs {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks that files and their metadata can have.
    pub blocks: u64,
    /// Blocks that are free.
    pub free: u64,
    /// Inodes in use, the root directory included.
    pub files: u64,
    /// Bytes of the longest name.
    pub name_max: u64,
}

/// What a pool is and lies on.
#[derive(Clone, Debug)]
pub struct PoolInfo {
    /// The medium, the backend and what a fence is worth.
    pub region: RegionInfo,
    /// The format's version.
    pub version: u32,
    /// compat, ro_compat and incompat feature bits.
    pub features: [u64; 3],
    /// The pool's identity.
    pub uuid: uuid::Uuid,
    /// The label, as far as it is UTF-8.
    pub label: String,
    /// Sizes.
    pub geometry: Geometry,
    /// How often the pool was opened or quiesced.
    pub epoch: u64,
    /// When it was made, nanoseconds since 1970.
    pub created: i64,
    /// How its space is used.
    pub space: SpaceReport,
    /// Blocks that several files own, and how many more there would be if each had its own.
    pub shared: (u64, u64),
    /// What the last open found.
    pub recovery: Recovery,
    /// The level of durability of files that name none.
    pub durability: Durability,
    /// What the medium has lost, as far as is known, ascending: pool offset and length in bytes, whole blocks.
    pub bad: Vec<(PoolOff, u64)>,
}

impl Store {
    /// Makes a pool of `size` bytes (8 MiB to 16 TiB, rounded down to 2 MiB) at `path` and opens it. A file is made
    /// sparse and with mode 0600.
    ///
    /// # Errors
    /// [`Error::PoolExists`] without `force`, [`Error::PoolSize`], [`Error::Held`], errors of the system.
    pub fn create(path: impl AsRef<Path>, size: u64, options: &StoreOptions) -> Result<Self> {
        let path = path.as_ref();
        let region = Region::create_file(path, size, &options.region)?;
        let is_new = region.info().zeroed && !options.region.force;
        let created = Self::create_in(region, size, options);
        if created.is_err() && is_new {
            // What failed first is what the caller must hear of.
            let _ = std::fs::remove_file(path);
        }
        created
    }

    /// Opens the pool at `path`.
    ///
    /// # Errors
    /// [`Error::NotAPool`], [`Error::Held`] with the holder, [`Error::Truncated`], [`Error::FutureVersion`] and other
    /// formats that are not known, [`Error::NeedsRecovery`], damage, errors of the system.
    pub fn open(path: impl AsRef<Path>, options: &StoreOptions) -> Result<Self> {
        Self::open_in(Region::open_file(path, &options.region)?)
    }

    /// Makes a pool in simulated memory and opens it.
    ///
    /// # Errors
    /// As [`Self::create`].
    #[cfg(feature = "sim")]
    pub fn create_sim(sim: Arc<crate::pmem::sim::Sim>, options: &StoreOptions) -> Result<Self> {
        let size = sim.len();
        Self::create_in(Region::sim(sim), size, options)
    }

    /// Opens the pool in simulated memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[cfg(feature = "sim")]
    pub fn open_sim(sim: Arc<crate::pmem::sim::Sim>) -> Result<Self> {
        Self::open_in(Region::sim(sim))
    }

    fn create_in(region: Region, size: u64, options: &StoreOptions) -> Result<Self> {
        let region = Arc::new(region);
        open::format(&region, size, options)?;
        Self::open_region(region)
    }

    fn open_in(region: Region) -> Result<Self> {
        Self::open_region(Arc::new(region))
    }

    fn open_region(region: Arc<Region>) -> Result<Self> {
        let (fs, recovery) = open::open(region)?;
        let root = Dir::new(namespace::root(&fs)?);
        Ok(Self { inner: Arc::new(Inner { root, fs, recovery }) })
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &Dir {
        &self.inner.root
    }

    /// How full the store is.
    #[must_use]
    pub fn statfs(&self) -> Statfs {
        let journal = self.inner.fs.journal();
        Statfs {
            block_bytes: BLOCK_BYTES,
            blocks: journal.geometry().usable_blocks(),
            free: self.inner.fs.space.free_blocks(),
            // The hidden inode of the intents is nobody's file.
            files: (journal.totals().inodes - 1).max(0) as u64,
            name_max: MAX_NAME_BYTES as u64,
        }
    }

    /// What the pool is, what it lies on, and how its space is used (which looks at every group).
    ///
    /// # Errors
    /// Damage of a group.
    pub fn info(&self) -> Result<PoolInfo> {
        let fs = &self.inner.fs;
        let superblock = fs.journal().superblock();
        let label: Vec<u8> = superblock.label.iter().copied().take_while(|b| *b != 0).collect();
        Ok(PoolInfo {
            region: fs.region().info().clone(),
            version: FORMAT_VERSION,
            features: [superblock.compat, superblock.ro_compat, superblock.incompat],
            uuid: uuid::Uuid::from_bytes(superblock.uuid),
            label: String::from_utf8_lossy(&label).into_owned(),
            geometry: superblock.geometry,
            epoch: superblock.epoch,
            created: superblock.created,
            space: fs.space.report()?,
            shared: shares::shared_blocks(fs)?,
            recovery: self.inner.recovery,
            durability: fs.durability(),
            bad: fs.region().bad_ranges(),
        })
    }

    /// Notes, until the pool is closed, that the medium has lost the blocks of `len` bytes of the pool from `at`, as the
    /// kernel's list says at open of those that it knows. They are not touched any more: reads of them are errors, nothing
    /// is put there, and whole blocks that are overwritten move elsewhere.
    ///
    /// # Errors
    /// [`Error::OutOfPool`].
    pub fn mark_bad(&self, at: PoolOff, len: u64) -> Result<()> {
        self.inner.fs.space.mark_bad(at, len)
    }

    /// Has the medium take blocks again that it has lost and that no file uses: how many it did. An overwrite of lost
    /// blocks, and a call that finds no space, do this by themselves.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], errors of the system.
    pub fn mend(&self) -> Result<u64> {
        self.inner.fs.space.mend()
    }

    /// How `count` chunks of 2 MiB from number `first` on are used; fewer at the pool's end.
    ///
    /// # Errors
    /// Damage of a group.
    pub fn chunk_map(&self, first: u64, count: u64) -> Result<Vec<ChunkUse>> {
        self.inner.fs.space.chunk_map(Chunk(first), count)
    }

    /// Blocks of 4 KiB that several files own, and how many more there would be if each had its own. Looks at every record of
    /// them.
    ///
    /// # Errors
    /// Damage.
    pub fn shared_blocks(&self) -> Result<(u64, u64)> {
        shares::shared_blocks(&self.inner.fs)
    }

    /// Fences, flushed lines and bytes since the pool was opened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.fs.region().counts()
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// Makes the pool `size` bytes long, while it is in use; durable on return. A device does not grow, but a pool that
    /// is smaller than its device does.
    ///
    /// # Errors
    /// [`Error::CanNotShrink`], [`Error::PoolSize`], errors of the system.
    pub fn grow(&self, size: u64) -> Result<()> {
        crate::io::settle(&self.inner.fs)?;
        open::grow(self.inner.fs.journal(), size - size % CHUNK_BYTES)
    }

    /// Gives the space of metadata that is no longer needed back to files: blocks given back, 0 too where others'
    /// changes left no moment for it. Stops all changes while it looks. A call that finds no space does this by itself.
    ///
    /// # Errors
    /// A store that takes no changes, damage, errors of the medium.
    pub fn reclaim(&self) -> Result<u64> {
        crate::io::settle(&self.inner.fs)?;
        self.inner.fs.reclaim()
    }

    /// Leaves the pool clean, so that the next open finds nothing to recover. Handles that still live keep it open.
    ///
    /// # Errors
    /// Errors of the medium.
    pub fn close(self) -> Result<()> {
        if self.inner.fs.journal().is_read_only() {
            return Ok(());
        }
        crate::io::settle(&self.inner.fs)?;
        self.inner.fs.journal().quiesce()
    }
}

/// The effective user and group of this process.
fn process_owner() -> (u32, u32) {
    static OWNER: OnceLock<(u32, u32)> = OnceLock::new();
    *OWNER.get_or_init(|| std::fs::metadata("/proc/self").map_or((0, 0), |me| (me.uid(), me.gid())))
}

//! How is a pool made, opened, and a file in it?

use crate::layout::{Durability, Geometry};
use crate::pmem::RegionOptions;

/// How to make or open a pool.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    pub(super) region: RegionOptions,
    pub(super) label: String,
    pub(super) geometry: Option<Geometry>,
    pub(super) durability: Durability,
    #[cfg(feature = "sim")]
    pub(super) seed: Option<u64>,
}

impl StoreOptions {
    /// For reading and writing, with what the pool's medium is found to be.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes no changes; a pool that was not closed cleanly must be opened once for writing before.
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.region.read_only = yes;
        self
    }

    /// Treats a plain file's memory as persistent: right for a tmpfs that stands for persistent memory, a lie for a
    /// file on a disk.
    #[must_use]
    pub fn assume_persistent(mut self, yes: bool) -> Self {
        self.region.assume_persistent = yes;
        self
    }

    /// Lets [`super::Store::create`] destroy what is there.
    #[must_use]
    pub fn force(mut self, yes: bool) -> Self {
        self.region.force = yes;
        self
    }

    /// Uses PMDK's libpmem, where the crate was built with the feature `libpmem`.
    #[must_use]
    pub fn libpmem(mut self, yes: bool) -> Self {
        self.region.libpmem = yes;
        self
    }

    /// The label of a new pool: at most 64 bytes.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        label.clone_into(&mut self.label);
        self
    }

    /// The level of durability of a new pool's files that name none: strict unless said.
    #[must_use]
    pub fn durability(mut self, level: Durability) -> Self {
        self.durability = level;
        self
    }

    /// The geometry of a new pool, instead of the one that suits its size. For tests, which want lanes that wrap.
    #[must_use]
    pub fn geometry(mut self, geometry: Geometry) -> Self {
        self.geometry = Some(geometry);
        self
    }

    /// The salt of a new pool, and its identity made of it, instead of random ones: a test that failed fails again.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// How to open a file; as `std::fs::OpenOptions`.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) append: bool,
    pub(super) truncate: bool,
    pub(super) create: bool,
    pub(super) create_new: bool,
    pub(super) follow: bool,
    pub(super) sync: bool,
    pub(super) mode: u32,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) sequential: bool,
    pub(super) capacity: u64,
    pub(super) durability: Option<Durability>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! flag {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, yes: bool) -> Self {
            self.$name = yes;
            self
        }
    };
}

impl OpenOptions {
    /// Nothing allowed, nothing made.
    #[must_use]
    pub fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            follow: true,
            sync: false,
            mode: 0o644,
            owner: None,
            sequential: false,
            capacity: 0,
            durability: None,
        }
    }

    flag! {
        /// Allows reading.
        read
    }
    flag! {
        /// Allows writing.
        write
    }
    flag! {
        /// Allows writing, and [`super::File::write_at`] goes to the end wherever it is told to go.
        append
    }
    flag! {
        /// Cuts the file to 0 bytes; needs `write`.
        truncate
    }
    flag! {
        /// Makes the file where there is none; needs `write` or `append`.
        create
    }
    flag! {
        /// Makes the file and fails where there is one; needs `write` or `append`.
        create_new
    }
    flag! {
        /// Makes every write through this handle write-through ([`crate::WriteFlags::DSYNC`]), as `O_DSYNC` and `O_SYNC`,
        /// which are the same here: data, extents, size and times come in one record.
        sync
    }
    flag! {
        /// Follows a symbolic link at the end of the path (the default).
        follow
    }

    /// Permission bits of a file that is made: 0o644 unless said.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Owner and group of a file that is made: those of the process unless said.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    flag! {
        /// A file that is made is a sequential one: written at its end alone ([`super::File::append`]), and emptied as a whole
        /// ([`super::File::reset`]). One that is there must be sequential.
        sequential
    }

    /// How many bytes a sequential file that is made can hold: any number, unless said.
    #[must_use]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Level of durability of a file that is made: its directory's, or else the pool's, unless said.
    #[must_use]
    pub fn durability(mut self, level: Durability) -> Self {
        self.durability = Some(level);
        self
    }

    pub(super) fn writes(&self) -> bool {
        self.write || self.append
    }
}

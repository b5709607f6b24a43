//! daxstore: ordinary files, directories and memory mappings on persistent memory, with no kernel file system in
//! the path.
//!
//! A [`Store`] is a pool: a `/dev/dax` device, a file on a DAX-mounted file system, or any plain file. It is used as
//! its root directory ([`Dir`]), through which files ([`File`]) and everything else are reached by path. Every call
//! that changes something is durable and atomic when it returns; `docs/crash-consistency.md` says how, and
//! `docs/architecture.md` how the modules below stand on each other.

pub mod error;
pub mod sync;
pub mod units;

pub mod iomap;
pub mod pmem;

pub mod layout;

pub mod journal;
pub mod tree;

pub mod alloc;

pub mod extent;
pub mod inode;

pub mod mapper;

pub mod io;

pub mod namespace;

pub mod store;

pub use error::{Error, Result};
pub use io::queue::{Completed, Queued};
pub use io::{AllocateMode, Defragmented, FileExtent, Metadata, SetAttributes, WriteFlags, XattrMode};
pub use iomap::{FileRange, State};
pub use layout::{Durability, FileKind};
pub use namespace::{Follow, RenameMode};
pub use store::check::{CheckReport, Fault, FaultKind, Phase, Progress, Repair, check_path};
pub use store::{
    Dir, DirEntry, File, IoQueue, IoQueueOptions, IoRequest, Node, OpenOptions, PoolInfo, ReadDir,
    SNAPSHOT_PREFIX, Snapshot, Statfs, Store, StoreOptions,
};

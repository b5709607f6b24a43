//! What can go wrong, and what does it mean to a caller?
//!
//! One variant a cause, grouped in classes ([`Error::class`]), turned into an errno in one function
//! ([`Error::errno`]). Damage names the structure, the pool offset, what was expected and what was found.

use crate::sync::Arc;
use crate::units::PoolOff;
use std::io;
use std::path::PathBuf;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who holds a pool that could not be locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process id, where the kernel tells.
    pub pid: Option<u32>,
    /// The process's command name, where it can be read.
    pub command: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => write!(f, "process {pid} ({command})"),
            (Some(pid), None) => write!(f, "process {pid}"),
            _ => f.write_str("another process"),
        }
    }
}

/// A persistent structure, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Structure {
    /// One of the two superblocks.
    Superblock,
    /// An allocation group's object.
    Group,
    /// A chunk descriptor.
    Chunk,
    /// A lane's counters.
    Lane,
    /// An inode.
    Inode,
    /// A tree node.
    Node,
    /// A directory entry.
    Entry,
    /// An extent record.
    Extent,
    /// An extended attribute.
    Xattr,
    /// A record of work that recovery finishes.
    Intent,
    /// A record of blocks with several owners.
    Share,
    /// A journal record.
    Record,
    /// Any bytes that the medium can not give back.
    Medium,
}

impl std::fmt::Display for Structure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Superblock => "superblock",
            Self::Group => "group object",
            Self::Chunk => "chunk descriptor",
            Self::Lane => "lane counters",
            Self::Inode => "inode",
            Self::Node => "tree node",
            Self::Entry => "directory entry",
            Self::Extent => "extent",
            Self::Xattr => "extended attribute",
            Self::Intent => "intent",
            Self::Share => "share",
            Self::Record => "journal record",
            Self::Medium => "medium",
        })
    }
}

/// Damage found on the media: where, and how what was found differs from what must be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{structure} at pool offset {at:#x}: {what}: expected {expected:#x}, found {found:#x}", at = .at.0)]
pub struct Damage {
    /// The kind of structure.
    pub structure: Structure,
    /// The pool offset of the structure, in bytes.
    pub at: PoolOff,
    /// The rule that does not hold.
    pub what: &'static str,
    /// The value the rule asks for (a bound, a checksum, a kind).
    pub expected: u64,
    /// The value found.
    pub found: u64,
}

impl Damage {
    /// Damage to `structure` at `at`.
    #[must_use]
    pub const fn new(
        structure: Structure,
        at: PoolOff,
        what: &'static str,
        expected: u64,
        found: u64,
    ) -> Self {
        Self { structure, at, what, expected, found }
    }
}

/// Every way in which a call of this crate fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// The name exists already.
    #[error("the name exists already")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Something other than a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// Something other than a regular file was given where one was needed.
    #[error("not a regular file")]
    NotRegular,
    /// Not a symbolic link.
    #[error("not a symbolic link")]
    NotSymlink,
    /// The directory still has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A name is longer than 255 bytes.
    #[error("the name has {len} bytes; a name has at most 255")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A symbolic link target is longer than 4095 bytes.
    #[error("the link target has {len} bytes; a target has at most 4095")]
    TargetTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A name is empty, `.`, `..`, or holds `/` or NUL.
    #[error("not a usable name: a name is not empty, not `.` or `..`, and holds neither `/` nor NUL")]
    InvalidName,
    /// An argument is outside what the call takes.
    #[error("invalid argument: {0}")]
    InvalidArgument(&'static str),
    /// An offset or length runs past the largest file (2^62 bytes).
    #[error("offset {offset} plus length {len} runs past the largest file, 2^62 bytes")]
    FileTooLarge {
        /// The file offset in bytes.
        offset: u64,
        /// The length in bytes.
        len: u64,
    },
    /// A sequential file is changed at its end alone, and only by writing.
    #[error(
        "a sequential file is written at its write pointer, byte {pointer}, alone; byte {offset} is elsewhere, or \
             to be changed otherwise"
    )]
    NotSequential {
        /// Where the next byte is to be written: the file's size.
        pointer: u64,
        /// Where the call would have begun, in bytes.
        offset: u64,
    },
    /// A sequential file can not hold what is written to it. Nothing was changed.
    #[error(
        "the sequential file holds {capacity} bytes, {pointer} are written: {len} more do not fit; reset it"
    )]
    SequentialFull {
        /// Bytes it can hold.
        capacity: u64,
        /// Bytes that are written.
        pointer: u64,
        /// Bytes that were to be.
        len: u64,
    },
    /// The pool is full. Nothing was changed.
    #[error("the pool is full: {needed} blocks of 4 KiB needed, {free} free; remove files or grow the pool")]
    NoSpace {
        /// Blocks the call needed.
        needed: u64,
        /// Blocks that could be given.
        free: u64,
    },
    /// One call would need more journal space than a lane has. Nothing was changed.
    #[error("the change needs {needed} bytes of journal, a lane has {capacity}; split the call")]
    TooBig {
        /// Bytes of record the change needs.
        needed: u64,
        /// Bytes a lane holds.
        capacity: u64,
    },
    /// A write that is to be old or new as a whole does not fit one record. Nothing was changed.
    #[error("{len} bytes can not be written as a whole: {fits} from the first on can; write less at a time")]
    NotAtOnce {
        /// Bytes of the write.
        len: u64,
        /// Bytes from its start on that can be written as a whole.
        fits: u64,
    },
    /// A directory has one name only.
    #[error("a directory can not have a second name")]
    LinkToDirectory,
    /// More links to one file than can be counted.
    #[error("too many links to one file")]
    TooManyLinks,
    /// Too many symbolic links on the way (40), or a rename of a directory into itself.
    #[error("too many levels of symbolic links")]
    SymlinkLoop,
    /// A directory can not be moved below itself.
    #[error("a directory can not be moved into itself")]
    IntoItself,
    /// The extended attribute does not exist.
    #[error("no such extended attribute")]
    NoAttribute,
    /// An extended attribute's value is larger than 64 KiB.
    #[error("the value has {len} bytes; an extended attribute has at most 65536")]
    ValueTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Seek for data or a hole at or past the end of the file.
    #[error("no data or hole at or after that offset")]
    NoSuchOffset,
    /// The file ends before the bytes asked for.
    #[error("{wanted} bytes wanted, the file has {found} there")]
    UnexpectedEnd {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes there.
        found: usize,
    },
    /// The handle does not allow this (opened without read, or without write).
    #[error("the handle was not opened for {0}")]
    NotOpenedFor(&'static str),
    /// A time is outside the years 1677 to 2262, which 64-bit nanoseconds reach.
    #[error("the time is outside the years 1677 to 2262")]
    TimeOutOfRange,
    /// The call joins two stores.
    #[error("the two names are in different pools")]
    CrossPool,
    /// The store was opened read-only.
    #[error("the store is open read-only")]
    ReadOnly,
    /// The last run did not close the pool, and a read-only open can not recover it.
    #[error("the pool was not closed cleanly and needs recovery; open it once for writing")]
    NeedsRecovery,
    /// The root directory can not be removed or renamed.
    #[error("the root directory can not be removed or renamed")]
    RootDirectory,
    /// Somebody else has the pool open.
    #[error("the pool is in use by {0}; close it there first")]
    Held(Holder),
    /// The file or device is not a pool.
    #[error("not a daxstore pool (no superblock found); make one with `daxstore mkfs`")]
    NotAPool,
    /// The pool was made by a later version.
    #[error("the pool has format version {found}, this program knows up to {known}; use a later daxstore")]
    FutureVersion {
        /// The pool's version.
        found: u32,
        /// The last version known here.
        known: u32,
    },
    /// The pool uses features this program does not know.
    #[error("the pool uses unknown incompatible features {0:#x}; use a later daxstore")]
    UnknownFeatures(u64),
    /// The pool uses features that this program can read but not write.
    #[error("the pool uses features {0:#x} that can only be read here; open it read-only")]
    ReadOnlyFeatures(u64),
    /// The file is shorter than the pool in it.
    #[error("the pool is truncated: its superblock says {expected} bytes, the file has {found}")]
    Truncated {
        /// Bytes the superblock tells.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A size is outside 8 MiB to 16 TiB.
    #[error("a pool has 8 MiB to 16 TiB, not {0} bytes")]
    PoolSize(u64),
    /// The file holds a pool already.
    #[error("there is a pool already; use --force to destroy it")]
    PoolExists,
    /// A pool can only grow.
    #[error("the pool has {current} bytes and can not shrink to {asked}")]
    CanNotShrink {
        /// Bytes now.
        current: u64,
        /// Bytes asked for.
        asked: u64,
    },
    /// A pool on a device ends where the device does, at the latest.
    #[error(
        "the device has {size} bytes: a pool on it can take all of them and no more, and not {asked}; make the device larger, \
         or ask for what it has"
    )]
    DeviceEnds {
        /// Bytes of the device.
        size: u64,
        /// Bytes asked for.
        asked: u64,
    },
    /// The backend does not work on this machine or pool.
    #[error("{backend}: {why}")]
    Unsupported {
        /// The backend or feature.
        backend: &'static str,
        /// Why, and what to do instead.
        why: &'static str,
    },
    /// A translation of 2 MiB was required and can not be.
    #[error("the 2 MiB of the file from byte {offset} can not be one translation: {why}")]
    NotHuge {
        /// The first byte of the 2 MiB, in the file.
        offset: u64,
        /// The reason.
        why: &'static str,
    },
    /// An access outside a mapping.
    #[error("{len} bytes at {offset} lie outside the mapping of {mapped} bytes, or are not aligned")]
    OutOfMapping {
        /// The first byte, from the mapping's start.
        offset: u64,
        /// How many.
        len: u64,
        /// Bytes of the mapping.
        mapped: u64,
    },
    /// The medium lost bytes of a file.
    #[error(
        "the medium is bad at pool offset {at:#x}: {len} bytes of the file with inode {ino} from byte {offset} are lost; \
         overwrite whole blocks of them to repair it", at = .at.0
    )]
    BadMedium {
        /// Pool offset of the first bad byte.
        at: PoolOff,
        /// The file's inode number.
        ino: u64,
        /// The first bad byte, in the file.
        offset: u64,
        /// How many bytes in a row.
        len: u64,
    },
    /// The media hold something that can not be.
    #[error("damaged: {0}; run `daxstore check`")]
    Corrupt(#[from] Damage),
    /// An access outside the pool was asked for, which only damage can cause.
    #[error("damaged: {len} bytes at pool offset {at:#x} lie outside the pool of {size} bytes", at = .at.0)]
    OutOfPool {
        /// Pool offset in bytes.
        at: PoolOff,
        /// Length in bytes.
        len: u64,
        /// The pool's size in bytes.
        size: u64,
    },
    /// An earlier change could not be finished; the store reads but does not write any more.
    #[error("the store takes no more changes, because {0}; reopen it")]
    Poisoned(&'static str),
    /// A change that was committed together with others, all of which failed for one cause.
    #[error("{0}")]
    Together(Arc<Error>),
    /// Queued I/O that nobody is left to do.
    #[error("the thread that did this I/O is gone; whether it was done is not known")]
    Abandoned,
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The operating system refused something on a path.
    #[error("{what} {}: {source}", .path.display())]
    Path {
        /// What was being done.
        what: &'static str,
        /// To which path of the host.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What kind of trouble an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The caller asked for something that can not be.
    Caller,
    /// There is no room.
    Space,
    /// The pool is damaged, truncated, or not a pool.
    Damage,
    /// The environment (another holder, the machine, the operating system) is in the way.
    Environment,
}

impl Error {
    /// Wraps an answer of the operating system.
    #[must_use]
    pub fn io(what: &'static str, source: io::Error) -> Self {
        Self::Io { what, source }
    }

    /// The group this error belongs to.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Together(cause) => cause.class(),
            Self::NoSpace { .. } | Self::TooBig { .. } | Self::NotAtOnce { .. } => Class::Space,
            Self::Corrupt(_)
            | Self::BadMedium { .. }
            | Self::OutOfPool { .. }
            | Self::NotAPool
            | Self::Truncated { .. } => Class::Damage,
            Self::FutureVersion { .. }
            | Self::UnknownFeatures(_)
            | Self::ReadOnlyFeatures(_)
            | Self::Held(_)
            | Self::NeedsRecovery
            | Self::Unsupported { .. }
            | Self::Poisoned(_)
            | Self::Abandoned
            | Self::Io { .. }
            | Self::Path { .. } => Class::Environment,
            _ => Class::Caller,
        }
    }

    /// The errno a POSIX caller would expect, positive.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            Self::Exists | Self::PoolExists => libc::EEXIST,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NameTooLong { .. } | Self::TargetTooLong { .. } => libc::ENAMETOOLONG,
            Self::InvalidName
            | Self::InvalidArgument(_)
            | Self::NotRegular
            | Self::NotSequential { .. }
            | Self::NotHuge { .. }
            | Self::OutOfMapping { .. }
            | Self::NotSymlink
            | Self::IntoItself
            | Self::PoolSize(_)
            | Self::CanNotShrink { .. }
            | Self::DeviceEnds { .. }
            | Self::NotAPool => libc::EINVAL,
            Self::FileTooLarge { .. }
            | Self::TooBig { .. }
            | Self::NotAtOnce { .. }
            | Self::SequentialFull { .. } => libc::EFBIG,
            Self::NoSpace { .. } => libc::ENOSPC,
            Self::LinkToDirectory => libc::EPERM,
            Self::TooManyLinks => libc::EMLINK,
            Self::SymlinkLoop => libc::ELOOP,
            Self::NoAttribute => libc::ENODATA,
            Self::ValueTooLong { .. } => libc::E2BIG,
            Self::NoSuchOffset => libc::ENXIO,
            Self::UnexpectedEnd { .. } => libc::EIO,
            Self::NotOpenedFor(_) => libc::EBADF,
            Self::TimeOutOfRange => libc::EOVERFLOW,
            Self::CrossPool => libc::EXDEV,
            Self::ReadOnly | Self::NeedsRecovery | Self::ReadOnlyFeatures(_) | Self::Poisoned(_) => {
                libc::EROFS
            }
            Self::RootDirectory | Self::Held(_) => libc::EBUSY,
            Self::Together(cause) => cause.errno(),
            Self::Abandoned => libc::ECANCELED,
            Self::FutureVersion { .. } | Self::UnknownFeatures(_) | Self::Unsupported { .. } => {
                libc::EOPNOTSUPP
            }
            Self::Truncated { .. } | Self::Corrupt(_) | Self::BadMedium { .. } | Self::OutOfPool { .. } => {
                libc::EIO
            }
            Self::Io { source, .. } | Self::Path { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = io::Error::from_raw_os_error(error.errno()).kind();
        Self::new(kind, error)
    }
}

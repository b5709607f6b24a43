//! What does a check say?
//!
//! Each [`Fault`] names a rule that does not hold, the place, and what was expected and found there; after a repair
//! also what became of it.

use super::remedy::Remedy;
use crate::error::{Damage, Error};
use crate::units::{Ino, PoolOff};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The rules of the media, one variant each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum FaultKind {
            $($(#[$doc])* $name,)*
        }

        impl fmt::Display for FaultKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

kinds! {
    /// Both superblocks are valid and equal.
    Superblock = "superblock",
    /// Lane counters can be read.
    LaneCounters = "lane counters",
    /// A group object can be read and fits itself.
    Group = "group object",
    /// A chunk descriptor can be read and fits itself.
    Chunk = "chunk descriptor",
    /// The descriptor does not claim header blocks.
    HeaderBlocks = "header blocks",
    /// A slot of an arena is free or holds a sound object of the arena's class.
    Slot = "arena slot",
    /// An inode can be read.
    Inode = "inode",
    /// Mode bits are known ones.
    Mode = "mode",
    /// Generations start at 1.
    Generation = "generation",
    /// Flags are known and fit the kind.
    Flags = "flags",
    /// The capacity is one that a sequential file of this size can have.
    Capacity = "capacity",
    /// The extent-size hint is one that can be.
    Hint = "extent-size hint",
    /// The root area of an inode's tree is well formed.
    RootArea = "root area",
    /// A tree node can be read, and is what its parent says.
    Node = "tree node",
    /// A node belongs to one tree, once.
    NodeShared = "doubly used node",
    /// A node in use belongs to a tree.
    NodeLeaked = "leaked node",
    /// An extent can be, and follows the one before it.
    Extent = "extent",
    /// A block has one owner.
    BlockShared = "doubly used blocks",
    /// Shared blocks have as many owners as is noted.
    Share = "owners of shared blocks",
    /// An owned block is marked used.
    BlockNotMarked = "unmarked blocks",
    /// A used block has an owner.
    BlockLeaked = "leaked blocks",
    /// Blocks beyond a file's end were asked for, or are about to be trimmed.
    BeyondEnd = "blocks beyond the end",
    /// An inode's block count is that of its extents and attribute values.
    BlockCount = "block count",
    /// A directory entry can be read, and its key is that of its name.
    Entry = "directory entry",
    /// A name is in a directory once.
    EntryTwice = "name twice in a directory",
    /// An entry leads to an inode.
    EntryDangling = "entry without inode",
    /// An entry says what its inode is.
    EntryKind = "entry kind",
    /// A directory has one name.
    SecondParent = "directory with two names",
    /// A directory knows its parent.
    ParentField = "parent",
    /// A directory can be reached from the root.
    Unreachable = "unreachable directory",
    /// An inode without a name waits for its deletion.
    Orphan = "inode without a name",
    /// Links are counted.
    LinkCount = "link count",
    /// A directory's size is the number of its entries.
    DirectorySize = "directory size",
    /// A symbolic link's target is whole.
    LinkTarget = "link target",
    /// An attribute can be read, and its key is that of its name.
    Xattr = "extended attribute",
    /// An intent can be read.
    Intent = "intent",
    /// An intent is about an inode.
    IntentDangling = "intent without inode",
    /// The hidden inode of the intents is there.
    IntentsInode = "inode of the intents",
    /// The root directory is there.
    RootDirectory = "root directory",
    /// The medium has the bytes of files and attributes.
    LostBytes = "lost bytes",
    /// The lanes' counters sum up to the used blocks.
    UsedTotal = "total of used blocks",
    /// The lanes' counters sum up to the unwritten blocks.
    UnwrittenTotal = "total of unwritten blocks",
    /// The lanes' counters sum up to the inodes.
    InodeTotal = "total of inodes",
}

/// What a repair did about a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It is mended and nothing is lost.
    Mended,
    /// It is mended; this is what is gone.
    Lost(String),
    /// It could not be mended, for this reason.
    Left(String),
}

/// A rule of the media that does not hold.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The rule.
    pub kind: FaultKind,
    /// The pool offset in bytes of the structure that is wrong.
    pub at: PoolOff,
    /// The inode it is about.
    pub ino: Option<Ino>,
    /// That inode's path, where it is known: bytes, absolute.
    pub path: Option<Vec<u8>>,
    /// What was expected and what was found.
    pub what: String,
    /// What a repair did about it; `None` if none was asked for.
    pub outcome: Option<Repair>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at pool offset {:#x}", self.kind, self.at.0)?;
        match (self.ino, &self.path) {
            (Some(ino), Some(path)) => write!(f, " (inode {ino}, {:?})", OsStr::from_bytes(path))?,
            (Some(ino), None) => write!(f, " (inode {ino})")?,
            _ => {}
        }
        write!(f, ": {}", self.what)?;
        match &self.outcome {
            None => Ok(()),
            Some(Repair::Mended) => f.write_str("; mended"),
            Some(Repair::Lost(what)) => write!(f, "; mended, lost: {what}"),
            Some(Repair::Left(why)) => write!(f, "; left as it is: {why}"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Every rule that does not hold, by place of discovery; empty for a sound pool.
    pub faults: Vec<Fault>,
    /// Regular files, those without a name included.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Extent records.
    pub extents: u64,
    /// Extended attributes.
    pub xattrs: u64,
    /// Tree nodes.
    pub nodes: u64,
    /// Blocks marked used, headers not counted.
    pub blocks_used: u64,
    /// Blocks of arenas.
    pub blocks_arena: u64,
    /// Blocks of unwritten extents.
    pub blocks_unwritten: u64,
    /// Blocks that several files own.
    pub blocks_shared: u64,
    /// Unfinished operations noted on the media.
    pub intents: u64,
    /// Repairs were asked for, and rounds of them were needed.
    pub repair_rounds: u32,
}

impl CheckReport {
    /// Whether every rule holds.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// What a repair could not keep, one text an item.
    pub fn lost(&self) -> impl Iterator<Item = &str> {
        self.faults.iter().filter_map(|fault| match &fault.outcome {
            Some(Repair::Lost(what)) => Some(what.as_str()),
            _ => None,
        })
    }
}

/// What a check is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading group objects, descriptors and arenas.
    Space,
    /// Reading files and links.
    Files,
    /// Reading directories.
    Directories,
    /// Mending.
    Repair,
}

/// How far a check has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Steps done of it.
    pub done: u64,
    /// Steps it has.
    pub total: u64,
}

/// A fault, and what would mend it.
#[derive(Debug)]
pub(super) struct Found {
    pub fault: Fault,
    pub remedy: Remedy,
}

impl Found {
    /// Notes what would mend the fault.
    pub fn by(&mut self, remedy: Remedy) {
        self.remedy = remedy;
    }
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(pub Vec<Found>);

impl Faults {
    /// Notes that `kind` does not hold at `at`.
    #[cold]
    pub fn add(
        &mut self,
        kind: FaultKind,
        at: PoolOff,
        ino: Option<Ino>,
        what: impl fmt::Display,
    ) -> &mut Found {
        let fault = Fault { kind, at, ino, path: None, what: what.to_string(), outcome: None };
        self.0.push(Found { fault, remedy: Remedy::Nothing });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Notes that something is not what it must be.
    #[cold]
    pub fn number(
        &mut self,
        kind: FaultKind,
        at: PoolOff,
        ino: Option<Ino>,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> &mut Found {
        self.add(kind, at, ino, format_args!("expected {expected}, found {found}"))
    }

    /// Notes damage that reading came upon.
    #[cold]
    pub fn damage(&mut self, kind: FaultKind, damage: &Damage, ino: Option<Ino>) -> &mut Found {
        let Damage { what, expected, found, .. } = damage;
        self.add(kind, damage.at, ino, format_args!("{what}: expected {expected:#x}, found {found:#x}"))
    }

    /// Notes an error that reading at `at` came upon.
    #[cold]
    pub fn error(&mut self, kind: FaultKind, at: PoolOff, ino: Option<Ino>, error: &Error) -> &mut Found {
        match error {
            Error::Corrupt(Damage { what, expected, found, .. }) => {
                self.add(kind, at, ino, format_args!("{what}: expected {expected:#x}, found {found:#x}"))
            }
            other => self.add(kind, at, ino, other),
        }
    }
}

//! What can go wrong with a database, and where?

use std::fmt;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A persistent structure of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Structure {
    /// The first bytes of the file.
    Superblock,
    /// A word of the table of chunks.
    Chunk,
    /// A word or a note of a session's ring.
    Ring,
    /// The map of the pages of a chunk.
    PageMap,
    /// A word of the hash index's directory.
    Directory,
    /// An entry of the hash index.
    Entry,
    /// A record.
    Record,
    /// An entry of the catalog of trees.
    Tree,
    /// A page of the ordered index.
    Ordered,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superblock => "superblock",
            Self::Chunk => "chunk word",
            Self::Ring => "ring",
            Self::PageMap => "page map",
            Self::Directory => "directory word",
            Self::Entry => "hash entry",
            Self::Record => "record",
            Self::Tree => "tree entry",
            Self::Ordered => "page of the ordered index",
        })
    }
}

/// Damage: what differs from what must be there, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{structure} at offset {at:#x} of the file: {what}: expected {expected:#x}, found {found:#x}")]
pub struct Damage {
    /// The kind of structure.
    pub structure: Structure,
    /// Bytes from the start of the database's file.
    pub at: u64,
    /// The rule that does not hold.
    pub what: &'static str,
    /// The value that the rule asks for: a bound, a checksum, a kind.
    pub expected: u64,
    /// The value found.
    pub found: u64,
}

impl Damage {
    /// Damage to `structure` at `at`.
    #[must_use]
    pub const fn new(structure: Structure, at: u64, what: &'static str, expected: u64, found: u64) -> Self {
        Self { structure, at, what, expected, found }
    }
}

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Key { "the key" } else { "the value" })
    }
}

/// Every way in which a call of this crate fails. Two words long, so that a result fits in registers: what an answer that no caller looks at
/// costs is copied with every call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file store's answer.
    #[error(transparent)]
    Store(Box<daxstore::Error>),
    /// Nothing was changed.
    #[error(
        "the database is full: {needed} bytes needed; delete something, or give it more with `max_bytes` or a larger pool"
    )]
    NoSpace {
        /// Bytes that were asked for.
        needed: u64,
    },
    /// A key that is empty or too long.
    #[error("the key has {0} bytes; a key has 1 to 4096")]
    KeyLength(usize),
    /// A value that is too long.
    #[error("the value has {0} bytes; a value has at most 2^30")]
    ValueLength(usize),
    /// A tree's name that is empty or too long.
    #[error("the tree's name has {0} bytes; a name has 1 to 200")]
    NameLength(usize),
    /// There is no more room for trees.
    #[error("there are {0} trees; a database has no more")]
    TooManyTrees(usize),
    /// The tree was dropped.
    #[error("the tree was dropped")]
    TreeDropped,
    /// The database is open to be read only.
    #[error("the database is open read-only")]
    ReadOnly,
    /// A read-only open of a database that was not closed.
    #[error("the database was not closed cleanly and needs recovery; open it once for writing")]
    NeedsRecovery,
    /// No database where one was expected.
    #[error("there is no database at that path")]
    NotFound,
    /// The file is something else.
    #[error("the file is not a database of this program")]
    NotADatabase,
    /// The database is of a later format.
    #[error("the database has format version {found}, this program knows {known}; use a later daxstore")]
    FutureVersion {
        /// The version found; the greatest number, if it is greater.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// The database is of an earlier format, which was never released.
    #[error(
        "the database has format version {found}, this program knows only {known}; dump it with the daxstore that made it, and load it here"
    )]
    PastVersion {
        /// The version found; the greatest number, if it is greater.
        found: u32,
        /// The version known.
        known: u32,
    },
    /// A key or a value of a typed tree that is not of its type, or can not be written as one.
    #[error("{0} can not be read or written as its type in the program")]
    Codec(Part),
    /// A backup would overwrite a file.
    #[error("a backup is a new file; there is one at that path")]
    BackupExists,
    /// An earlier failure left unknown what is durable: the database reads, and takes no changes.
    #[error("an earlier change could not be made durable; close the database and open it again")]
    Poisoned,
    /// Damage of the database.
    #[error(transparent)]
    Damage(Box<Damage>),
    /// Damage of a record that a key led to.
    #[error(transparent)]
    Record(Box<RecordDamage>),
}

/// Damage of a record that a key led to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of key {key:?} in tree {tree}: {damage}")]
pub struct RecordDamage {
    /// The number of the tree.
    pub tree: u32,
    /// The first bytes of the key.
    pub key: String,
    /// What is damaged.
    pub damage: Damage,
}

impl From<daxstore::Error> for Error {
    fn from(error: daxstore::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::Damage(Box::new(damage))
    }
}

const _: () = assert!(size_of::<Result<()>>() == 16);

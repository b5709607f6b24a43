//! What must something do to be measured?
//!
//! Invariant: `put`, `batch` and `delete` return when what they did is durable, and a batch is all or nothing.

use crate::draw::{KEY_BYTES, Key};
use crate::engines;
use crate::error::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Called with each record of a scan.
pub type Each<'f> = dyn FnMut(&[u8], &[u8]) + 'f;

/// A key-value store under measurement.
pub trait Engine: Send + Sync {
    /// Stores a value, new or in place of another.
    ///
    /// # Errors
    /// What the engine says.
    fn put(&self, key: &Key, value: &[u8]) -> Result<()>;

    /// Stores all of `records`, or none.
    ///
    /// # Errors
    /// What the engine says.
    fn batch(&self, records: &[(Key, Vec<u8>)]) -> Result<()>;

    /// Copies the value of `key` into `value`, which is emptied first, and tells whether there is one.
    ///
    /// # Errors
    /// What the engine says.
    fn get(&self, key: &Key, value: &mut Vec<u8>) -> Result<bool>;

    /// Removes a record; removing one that is not there is no error.
    ///
    /// # Errors
    /// What the engine says.
    fn delete(&self, key: &Key) -> Result<()>;

    /// Shows `each` up to `limit` records from `from` on, in the order of their keys, and tells how many.
    ///
    /// # Errors
    /// What the engine says; an engine without order refuses.
    fn scan(&self, from: &Key, limit: usize, each: &mut Each<'_>) -> Result<usize>;

    /// How it is set up, in a line.
    fn configuration(&self) -> &'static str;

    /// Waits until what the engine does behind the caller's back after a load is done, for a bounded time.
    fn settle(&self) {}

    /// Counts that the engine keeps since it was opened: name and number.
    fn counters(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Fails where some 2 MiB of it are not translated by one translation. Engines that can not tell do not.
    ///
    /// # Errors
    /// Which are not.
    fn require_huge(&self) -> Result<()> {
        Ok(())
    }

    /// Bytes of the medium that it takes; `None` where the files of its directory tell.
    fn media_bytes(&self) -> Option<u64> {
        None
    }
}

/// The engines.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The key-value store of this workspace.
    Daxstore,
    /// LMDB, writing its file with `pwrite` and `fdatasync`.
    Lmdb,
    /// LMDB over a writable mapping (`MDB_WRITEMAP`), with `msync`.
    LmdbWritemap,
    /// redb.
    Redb,
    /// fjall, a log-structured tree.
    Fjall,
    /// RocksDB, with its log synced.
    Rocksdb,
}

/// What an engine is told beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Records that there may be at most.
    pub records: u64,
    /// Bytes of each value.
    pub value_bytes: usize,
}

impl Size {
    /// Room that no engine needs more of: what is stored, eight times, and 1 GiB.
    pub const fn room(&self) -> u64 {
        self.records.saturating_mul(self.value_bytes as u64 + 64).saturating_mul(8).saturating_add(1 << 30)
    }

    /// Bytes of keys and values of `records` records.
    pub const fn logical(&self, records: u64) -> u64 {
        records.saturating_mul((KEY_BYTES + self.value_bytes) as u64)
    }
}

impl Kind {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Those that this program was built with.
    pub fn built() -> impl Iterator<Item = Self> {
        Self::all().iter().copied().filter(|kind| kind.is_built())
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Daxstore => "daxstore",
            Self::Lmdb => "lmdb",
            Self::LmdbWritemap => "lmdb-writemap",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Rocksdb => "rocksdb",
        }
    }

    /// Whether this program was built with it.
    pub const fn is_built(self) -> bool {
        match self {
            Self::Daxstore => true,
            Self::Lmdb | Self::LmdbWritemap => cfg!(feature = "lmdb"),
            Self::Redb => cfg!(feature = "redb"),
            Self::Fjall => cfg!(feature = "fjall"),
            Self::Rocksdb => cfg!(feature = "rocksdb"),
        }
    }

    /// Whether it keeps its keys in order, so that it can scan.
    pub const fn is_ordered(self) -> bool {
        true
    }

    /// Opens the database in `dir`, or makes it.
    ///
    /// # Errors
    /// What the engine says, and that this program was built without it.
    pub fn open(self, dir: &Path, size: Size) -> Result<Box<dyn Engine>> {
        engines::open(self, dir, size)
    }
}

//! How is the key-value store of this workspace measured?
//!
//! In a pool of its own on the same file system, used as persistent memory: cache lines are flushed, `msync` is not called.
//! A tmpfs does not survive a power cut whichever way it is written; what is done is what persistent memory would need.

use crate::draw::Key;
use crate::engine::{Each, Engine, Size};
use crate::error::{Context, Result};
use daxstore::units::BLOCK_BYTES;
use daxstore::{Store, StoreOptions};
use daxstore_fault::{Count, Fallback};
use daxstore_kv::{Batch, Db, Options};
use std::ops::Bound;
use std::path::Path;

/// The pool's file in the directory of the run.
pub const POOL: &str = "pool";
/// The database's file in the pool.
pub const DATABASE: &str = "/records";

/// What the caches of others have.
const SCAN_MEMORY: u64 = 4 << 30;

struct Daxstore {
    store: Store,
    db: Db,
}

/// Opens the database in `dir`.
pub fn open(dir: &Path, size: Size) -> Result<Box<dyn Engine>> {
    let path = dir.join(POOL);
    let options = StoreOptions::new().assume_persistent(true);
    let store = if path.exists() {
        Store::open(&path, &options).context("open the pool")?
    } else {
        Store::create(&path, size.room(), &options).context("make the pool")?
    };
    let options = Options::new().create(true).max_bytes(size.room()).scan_memory(SCAN_MEMORY);
    let db = Db::open(&store, DATABASE, options).context("open the database")?;
    Ok(Box::new(Daxstore { store, db }))
}

impl Engine for Daxstore {
    fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.db.put(key, value).context("put")
    }

    fn batch(&self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = Batch::new();
        for (key, value) in records {
            batch.put(key, value);
        }
        self.db.write(batch).context("batch")
    }

    fn get(&self, key: &Key, value: &mut Vec<u8>) -> Result<bool> {
        self.db.get_into(key, value).context("get")
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.db.delete(key).map(drop).context("delete")
    }

    fn scan(&self, from: &Key, limit: usize, each: &mut Each<'_>) -> Result<usize> {
        let mut seen = 0;
        let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
        let mut records = self.db.scan(range).limit(limit);
        let scanned = records.for_each_while(|key, value| {
            each(key, value);
            seen += 1;
            true
        });
        scanned.context("scan")?;
        Ok(seen)
    }

    fn configuration(&self) -> &'static str {
        "pool used as persistent memory, 4 GiB for copies of scanned records, other defaults; one fence a write"
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let (counts, faults) = (self.store.counts(), self.db.faults());
        let media = [
            ("fences", counts.fences),
            ("flushed_lines", counts.flushed_lines),
            ("streamed_bytes", counts.nt_bytes),
        ];
        let huge = ("faults_pmd", faults.get(Count::Pmd));
        let small = ("faults_pte", faults.all_fallbacks(Fallback::Pte));
        media.into_iter().chain([huge, small]).map(|(name, count)| (name.to_owned(), count)).collect()
    }

    fn require_huge(&self) -> Result<()> {
        self.db.require_huge().context("have translations of 2 MiB")
    }

    /// What the database's file takes of the pool, with what it was given ahead of need.
    fn media_bytes(&self) -> Option<u64> {
        let metadata = self.store.metadata(DATABASE).ok()?;
        Some(metadata.blocks * BLOCK_BYTES)
    }
}

impl Drop for Daxstore {
    fn drop(&mut self) {
        // What closing can not do is found by who opens the database next.
        let _ = self.db.clone().close();
        let _ = self.store.clone().close();
    }
}

//! How is RocksDB measured?
//!
//! Its log is synced by each write.

use crate::draw::Key;
use crate::engine::{Each, Engine, Size};
use crate::error::{Context, Result};
use rocksdb::{BlockBasedOptions, Cache, DB, Direction, IteratorMode, Options, WriteBatch, WriteOptions};
use std::path::Path;
use std::time::{Duration, Instant};

/// Its cache: all that is stored fits.
const CACHE_BYTES: usize = 4 << 30;
/// How long flushes and compactions are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

struct RocksDb(DB);

/// Opens the database in `dir`.
pub fn open(dir: &Path, _: Size) -> Result<Box<dyn Engine>> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    Ok(Box::new(RocksDb(DB::open(&options, dir.join("rocksdb")).context("open RocksDB")?)))
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

impl Engine for RocksDb {
    fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.0.put_opt(key, value, &synced()).context("put")
    }

    fn batch(&self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in records {
            batch.put(key, value);
        }
        self.0.write_opt(batch, &synced()).context("batch")
    }

    fn get(&self, key: &Key, value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        let found = self.0.get_pinned(key).context("get")?;
        value.extend_from_slice(found.as_deref().unwrap_or_default());
        Ok(found.is_some())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete_opt(key, &synced()).context("delete")
    }

    fn scan(&self, from: &Key, limit: usize, each: &mut Each<'_>) -> Result<usize> {
        let mut seen = 0;
        for record in self.0.iterator(IteratorMode::From(from, Direction::Forward)).take(limit) {
            let (key, value) = record.context("scan")?;
            each(&key, &value);
            seen += 1;
        }
        Ok(seen)
    }

    fn configuration(&self) -> &'static str {
        "WAL synced by each write, block cache of 4 GiB, bloom filters of 10 bits, no compression, other defaults"
    }

    fn settle(&self) {
        let begun = Instant::now();
        let number = |name: &str| self.0.property_int_value(name).ok().flatten().unwrap_or(0);
        let busy = || {
            number("rocksdb.num-running-compactions")
                + number("rocksdb.num-running-flushes")
                + number("rocksdb.compaction-pending")
                > 0
        };
        while busy() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

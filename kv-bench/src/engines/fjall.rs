//! How is fjall measured?
//!
//! Each write is followed by `persist(SyncAll)`; a batch commits with that durability.

use crate::draw::Key;
use crate::engine::{Each, Engine, Size};
use crate::error::{Context, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::time::{Duration, Instant};

/// Its cache: all that is stored fits.
const CACHE_BYTES: u64 = 4 << 30;
/// How long flushes and compactions are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

struct Fjall {
    database: Database,
    records: Keyspace,
}

/// Opens the database in `dir`.
pub fn open(dir: &Path, _: Size) -> Result<Box<dyn Engine>> {
    let database =
        Database::builder(dir.join("fjall")).cache_size(CACHE_BYTES).open().context("open fjall")?;
    let records =
        database.keyspace("records", KeyspaceCreateOptions::default).context("make the keyspace")?;
    Ok(Box::new(Fjall { database, records }))
}

impl Fjall {
    fn persist(&self) -> Result<()> {
        self.database.persist(PersistMode::SyncAll).context("persist")
    }
}

impl Engine for Fjall {
    fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        self.records.insert(key, value).context("put")?;
        self.persist()
    }

    fn batch(&self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in records {
            batch.insert(&self.records, key, value.as_slice());
        }
        batch.commit().context("commit")
    }

    fn get(&self, key: &Key, value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        let found = self.records.get(key).context("get")?;
        value.extend_from_slice(found.as_deref().unwrap_or_default());
        Ok(found.is_some())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.records.remove(key).context("delete")?;
        self.persist()
    }

    fn scan(&self, from: &Key, limit: usize, each: &mut Each<'_>) -> Result<usize> {
        let mut seen = 0;
        for record in self.records.range(&from[..]..).take(limit) {
            let (key, value) = record.into_inner().context("scan")?;
            each(&key, &value);
            seen += 1;
        }
        Ok(seen)
    }

    fn configuration(&self) -> &'static str {
        "persist(SyncAll) after each write, cache of 4 GiB, other defaults"
    }

    fn settle(&self) {
        let begun = Instant::now();
        let busy = || self.database.outstanding_flushes() + self.database.active_compactions() > 0;
        while busy() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

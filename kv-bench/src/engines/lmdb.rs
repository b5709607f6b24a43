//! How is LMDB measured?
//!
//! One transaction an operation, committed with the sync that its default asks for: `fdatasync`, or `msync` of a
//! writable mapping. Readers keep their slot with the thread, which is LMDB's default and its fastest way.

use crate::draw::Key;
use crate::engine::{Each, Engine, Size};
use crate::error::{Context, Result};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use std::ops::Bound;
use std::path::Path;

struct Lmdb {
    env: Env,
    records: Database<Bytes, Bytes>,
    write_map: bool,
}

/// Opens the environment in `dir`.
pub fn open(dir: &Path, size: Size, write_map: bool) -> Result<Box<dyn Engine>> {
    let mut options = EnvOpenOptions::new();
    options.map_size((size.room() as usize).next_multiple_of(1 << 21)).max_readers(126);
    if write_map {
        // SAFETY: the mapping is written by LMDB alone; no reference to it outlives a transaction here.
        unsafe { options.flags(EnvFlags::WRITE_MAP) };
    }
    // SAFETY: the files are in a directory of this run's own, and opened once in this process.
    let env = unsafe { options.open(dir) }.context("open LMDB")?;
    let mut txn = env.write_txn().context("begin")?;
    let records = env.create_database(&mut txn, None).context("make the database")?;
    txn.commit().context("commit")?;
    Ok(Box::new(Lmdb { env, records, write_map }))
}

impl Engine for Lmdb {
    fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        let mut txn = self.env.write_txn().context("begin")?;
        self.records.put(&mut txn, key, value).context("put")?;
        txn.commit().context("commit")
    }

    fn batch(&self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let mut txn = self.env.write_txn().context("begin")?;
        for (key, value) in records {
            self.records.put(&mut txn, key, value).context("put")?;
        }
        txn.commit().context("commit")
    }

    fn get(&self, key: &Key, value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        let txn = self.env.read_txn().context("begin reading")?;
        let found = self.records.get(&txn, key).context("get")?;
        value.extend_from_slice(found.unwrap_or_default());
        Ok(found.is_some())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let mut txn = self.env.write_txn().context("begin")?;
        self.records.delete(&mut txn, key).context("delete")?;
        txn.commit().context("commit")
    }

    fn scan(&self, from: &Key, limit: usize, each: &mut Each<'_>) -> Result<usize> {
        let txn = self.env.read_txn().context("begin reading")?;
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(from), Bound::Unbounded);
        let mut seen = 0;
        for record in self.records.range(&txn, &range).context("scan")?.take(limit) {
            let (key, value) = record.context("scan")?;
            each(key, value);
            seen += 1;
        }
        Ok(seen)
    }

    fn configuration(&self) -> &'static str {
        if self.write_map {
            "MDB_WRITEMAP, msync at each commit; one transaction an operation"
        } else {
            "defaults: pwrite and fdatasync at each commit; one transaction an operation"
        }
    }
}

//! How is redb measured?
//!
//! One transaction an operation, with `Durability::Immediate`, its default.

use crate::draw::Key;
use crate::engine::{Each, Engine, Size};
use crate::error::{Context, Result};
use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};
use std::path::Path;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Its cache: all that is stored fits.
const CACHE_BYTES: usize = 4 << 30;

struct Redb(Database);

/// Opens the database in `dir`.
pub fn open(dir: &Path, _: Size) -> Result<Box<dyn Engine>> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let redb = Redb(builder.create(dir.join("redb")).context("open redb")?);
    let txn = redb.begin()?;
    txn.open_table(RECORDS).context("make the table")?;
    txn.commit().context("commit")?;
    Ok(Box::new(redb))
}

impl Redb {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut txn = self.0.begin_write().context("begin")?;
        txn.set_durability(Durability::Immediate).context("begin")?;
        Ok(txn)
    }
}

impl Engine for Redb {
    fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        let txn = self.begin()?;
        let mut table = txn.open_table(RECORDS).context("open the table")?;
        table.insert(&key[..], value).context("put")?;
        drop(table);
        txn.commit().context("commit")
    }

    fn batch(&self, records: &[(Key, Vec<u8>)]) -> Result<()> {
        let txn = self.begin()?;
        let mut table = txn.open_table(RECORDS).context("open the table")?;
        for (key, value) in records {
            table.insert(&key[..], &value[..]).context("put")?;
        }
        drop(table);
        txn.commit().context("commit")
    }

    fn get(&self, key: &Key, value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        let txn = self.0.begin_read().context("begin reading")?;
        let table = txn.open_table(RECORDS).context("open the table")?;
        let found = table.get(&key[..]).context("get")?;
        value.extend_from_slice(found.as_ref().map(|found| found.value()).unwrap_or_default());
        Ok(found.is_some())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let txn = self.begin()?;
        let mut table = txn.open_table(RECORDS).context("open the table")?;
        table.remove(&key[..]).context("delete")?;
        drop(table);
        txn.commit().context("commit")
    }

    fn scan(&self, from: &Key, limit: usize, each: &mut Each<'_>) -> Result<usize> {
        let txn = self.0.begin_read().context("begin reading")?;
        let table = txn.open_table(RECORDS).context("open the table")?;
        let mut seen = 0;
        for record in table.range(&from[..]..).context("scan")?.take(limit) {
            let (key, value) = record.context("scan")?;
            each(key.value(), value.value());
            seen += 1;
        }
        Ok(seen)
    }

    fn configuration(&self) -> &'static str {
        "Durability::Immediate, cache of 4 GiB; one transaction an operation"
    }
}

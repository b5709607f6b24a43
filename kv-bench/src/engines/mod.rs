//! Where is the code of each engine?

pub mod daxstore;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use crate::engine::{Engine, Kind, Size};
use crate::error::{Failure, Result};
use std::path::Path;

/// Opens the database of `kind` in `dir`, or makes it.
pub fn open(kind: Kind, dir: &Path, size: Size) -> Result<Box<dyn Engine>> {
    match kind {
        Kind::Daxstore => daxstore::open(dir, size),
        #[cfg(feature = "lmdb")]
        Kind::Lmdb => lmdb::open(dir, size, false),
        #[cfg(feature = "lmdb")]
        Kind::LmdbWritemap => lmdb::open(dir, size, true),
        #[cfg(feature = "redb")]
        Kind::Redb => redb::open(dir, size),
        #[cfg(feature = "fjall")]
        Kind::Fjall => fjall::open(dir, size),
        #[cfg(feature = "rocksdb")]
        Kind::Rocksdb => rocksdb::open(dir, size),
        #[allow(unreachable_patterns, reason = "with all features every kind is named above")]
        kind => Err(Failure::new(
            kind.name(),
            format!(
                "not built in; build with `cargo build --release -p daxstore-kv-bench --features {}`",
                kind.name()
            ),
        )),
    }
}

//! Which pool does a command work on, and how is it opened?
//!
//! Invariant: a command that changes nothing opens the pool read-only.

use crate::failure::{Context, Result};
use crate::names::shown;
use daxstore::{Store, StoreOptions};
use std::path::Path;

/// Opens pools as the global options say.
#[derive(Clone, Copy, Debug)]
pub struct Opener {
    /// `--assume-persistent`.
    pub assume_persistent: bool,
}

impl Opener {
    /// The store's options.
    pub fn options(self) -> StoreOptions {
        StoreOptions::new().assume_persistent(self.assume_persistent)
    }

    /// Opens `pool` for looking.
    pub fn read(self, pool: &Path) -> Result<Store> {
        Store::open(pool, &self.options().read_only(true)).context(|| format!("open {}", shown(pool)))
    }

    /// Opens `pool` for changes.
    pub fn write(self, pool: &Path) -> Result<Store> {
        Store::open(pool, &self.options()).context(|| format!("open {}", shown(pool)))
    }
}

/// Closes a pool that was changed: what closing can not do is the command's failure.
pub fn close(store: Store, pool: &Path) -> Result<()> {
    store.close().context(|| format!("close {}", shown(pool)))
}

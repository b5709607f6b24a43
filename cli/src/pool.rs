//! Which pool does a command work on, and how is it opened?
//!
//! Invariant: a command that changes nothing opens the pool read-only; only a pool that was not closed cleanly is
//! recovered first.

use crate::failure::{Context, Result};
use crate::names::shown;
use daxstore::{Error, Store, StoreOptions};
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
        let opened = match Store::open(pool, &self.options().read_only(true)) {
            Err(Error::NeedsRecovery) => self.recover(pool),
            opened => opened,
        };
        opened.context(|| format!("open {}", shown(pool)))
    }

    /// Opens `pool` for writing and leaves it clean, so that the next reader need not.
    fn recover(self, pool: &Path) -> daxstore::Result<Store> {
        let store = Store::open(pool, &self.options())?;
        store.clone().close()?;
        Ok(store)
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

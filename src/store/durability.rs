//! What of a write survives a crash, and when: how is that chosen?
//!
//! A level for the pool, for a directory (of the files that will be made in it), for a file; and for one write.

use super::{File, Node, Store};
use crate::error::Result;
use crate::io;
use crate::layout::Durability;
use std::io::IoSlice;
use std::time::Duration;

impl Store {
    /// The level of files that name none: strict, unless it was set.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.inner.fs.durability()
    }

    /// Sets the level of files that name none. Durable when it returns, and so is all that was written before.
    ///
    /// # Errors
    /// A store that takes no changes, errors of the medium.
    pub fn set_durability(&self, level: Durability) -> Result<()> {
        self.inner.fs.journal().writable()?;
        io::set_pool_durability(&self.inner.fs, level)
    }

    /// Makes every write durable that has returned: at most two fences, however many there are; none where nothing waits,
    /// as is always so without the level `ordered`.
    ///
    /// # Errors
    /// Errors of the medium, damage.
    pub fn sync(&self) -> Result<()> {
        self.inner.fs.journal().healthy()?;
        io::settle(&self.inner.fs)
    }

    /// Until the pool is closed: ordered writes become durable by themselves once `bytes` of them wait, or with the first one
    /// `time` after the first that waits (8 MiB and 100 ms unless set). No thread looks at the clock: who stops
    /// writing calls [`Self::sync`], or has [`Self::sync_when_due`] called.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn set_ordered_bounds(&self, bytes: u64, time: Duration) -> Result<()> {
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        io::set_bounds(&self.inner.fs, bytes, nanos)
    }

    /// Makes every write durable that has returned if the first that waits has waited for the bound in time: in how long it
    /// will have, or `None` where nothing waits now. For a timer of the caller's, which so keeps the bound without further
    /// writes; 2 fences where something is due, none else.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use std::sync::atomic::{AtomicBool, Ordering};
    /// # fn tick(store: &daxstore::Store, bound: Duration, stop: &AtomicBool) -> daxstore::Result<()> {
    /// while !stop.load(Ordering::Relaxed) {
    ///     // A write that comes while nothing waits is due a bound later, or after that.
    ///     std::thread::sleep(store.sync_when_due()?.unwrap_or(bound));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn sync_when_due(&self) -> Result<Option<Duration>> {
        self.inner.fs.journal().healthy()?;
        let left = io::settle_when_due(&self.inner.fs)?;
        Ok(left.map(|nanos| Duration::from_nanos(nanos.unsigned_abs())))
    }
}

impl Node {
    /// The level of durability that the inode names, if it names one.
    #[must_use]
    pub fn named_durability(&self) -> Option<Durability> {
        self.handle.core().durability()
    }

    /// Names the level of a file's writes, or of a directory: of the files that will be made in it, and the directories.
    /// With `None` it is the pool's. Durable when it returns, and so is all that was written before.
    ///
    /// # Errors
    /// A store that takes no changes, [`crate::Error::NotRegular`] for a symbolic link, errors of the medium.
    pub fn set_durability(&self, level: Option<Durability>) -> Result<()> {
        self.handle.fs().journal().writable()?;
        io::set_durability(&self.handle, level)
    }
}

impl File {
    /// The level of durability of its writes.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.node.handle.fs().durability_of(self.node.handle.core())
    }

    /// Writes all of `buf` at byte `offset`, at any level: durable when it returns, and old or new as a whole after a
    /// crash, overwritten bytes too. Readers see it as a whole too. 2 fences where a file of one extent is
    /// overwritten, as for an append.
    ///
    /// # Errors
    /// As [`Self::write_at`]; [`crate::Error::NotAtOnce`] where the change does not fit one journal record, with how much
    /// would; [`crate::Error::Unsupported`] where bytes that would move are pinned, or mapped by a mapping without faults.
    /// Nothing has changed then.
    pub fn write_atomic(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.writes()?;
        let handle = &self.node.handle;
        handle.fs().with_room(|| io::write_atomic(handle, &[IoSlice::new(buf)], offset)).map(drop)
    }
}

//! How does an inode change?
//!
//! A [`Draft`] holds the inode's exclusive lock and a copy to work on. It is staged into a change; after the commit
//! it is published. Dropped before, it leaves the inode as it was.

use super::InodeCore;
use crate::alloc::Op;
use crate::error::Result;
use crate::layout::{FileKind, Inode, RootArea};
use crate::pmem::Region;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::RwLockWriteGuard;
use crate::sync::atomic::Ordering;
use crate::sync::rank::{Held, Rank};
use crate::units::Ino;

/// An inode being changed, under its exclusive lock.
#[derive(Debug)]
#[must_use = "a draft that is not published changes nothing"]
pub struct Draft<'c> {
    core: &'c InodeCore,
    committed: RwLockWriteGuard<'c, Inode>,
    /// The content to be.
    pub inode: Inode,
    _rank: Held,
}

impl<'c> Draft<'c> {
    /// Locks `core` for a change.
    pub fn lock(core: &'c InodeCore) -> Self {
        let committed = core.state.write();
        let is_dir = committed.kind == FileKind::Directory;
        Self::new(core, committed, if is_dir { Rank::Directory } else { Rank::File })
    }

    /// Locks the hidden inode of the intents for a change.
    pub(super) fn lock_intents(core: &'c InodeCore) -> Self {
        Self::new(core, core.state.write(), Rank::Intents)
    }

    fn new(core: &'c InodeCore, committed: RwLockWriteGuard<'c, Inode>, rank: Rank) -> Self {
        let inode = core.with_lazy(&committed);
        Self { core, committed, inode, _rank: Held::new(rank) }
    }

    /// The inode's number.
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.core.ino
    }

    /// The inode in memory.
    #[must_use]
    pub fn core(&self) -> &'c InodeCore {
        self.core
    }

    /// The inode's tree, to be changed.
    pub fn root(&mut self) -> &mut RootArea {
        &mut self.inode.root
    }

    /// Sets mtime and ctime.
    pub fn touch(&mut self, now: i64) {
        (self.inode.mtime, self.inode.ctime) = (now, now);
    }

    /// Makes the draft part of `op`.
    ///
    /// # Errors
    /// [`crate::Error::TooBig`].
    pub fn stage(&self, op: &mut Op<'_>) -> Result<()> {
        op.write_inode(self.core.ino, &self.inode)
    }

    /// Forgets the time of the last overwrite, after the commit of a draft that set another one.
    ///
    /// # Errors
    /// Errors of the medium.
    pub fn forget_lazy(&self, region: &Region) -> Result<()> {
        self.core.forget_lazy(region)
    }

    /// Makes the draft what everybody sees, after the commit, and lets the lock go.
    ///
    /// # Errors
    /// Errors of the medium.
    pub fn publish(mut self, region: &Region) -> Result<()> {
        self.inode.version = region.load(self.core.ino.offset())?;
        // Nodes below the root may have changed although the root did not: the number moves with every change.
        self.core.mapping.fetch_add(1, Ordering::Release);
        let hint = self.inode.hint;
        // What waits in the file stays shown: only its own commit takes it away before.
        let waits = if mutation::is(Mutation::LosePending) { 0 } else { self.core.pending.size() };
        let size = self.inode.size.max(waits);
        self.core.set_flags(self.inode.flags);
        *self.committed = self.inode;
        self.core.set_hint(hint);
        self.core.set_size(size);
        Ok(())
    }
}

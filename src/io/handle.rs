//! What keeps an inode alive without a name?
//!
//! A [`Handle`] pins its inode. When the last handle goes, what was left for that moment is done: an inode without
//! a name is deleted, blocks beyond the end are trimmed. An intent on the media makes recovery do it otherwise.

use super::remove;
use crate::error::Result;
use crate::inode::{Fs, InodeCore};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::units::Ino;

/// A pinned inode.
#[derive(Debug)]
pub struct Handle {
    fs: Arc<Fs>,
    core: Arc<InodeCore>,
    /// False once [`Self::close`] gave the pin back.
    pinned: bool,
}

impl Handle {
    /// Pins `core`. The caller holds another handle to it, or (shared or exclusively) the lock of a directory that
    /// names it, or nobody else knows of it.
    pub fn pin(fs: &Arc<Fs>, core: Arc<InodeCore>) -> Self {
        core.pins.fetch_add(1, Ordering::AcqRel);
        Self { fs: fs.clone(), core, pinned: true }
    }

    /// The store.
    #[must_use]
    pub fn fs(&self) -> &Arc<Fs> {
        &self.fs
    }

    /// The inode.
    #[must_use]
    pub fn core(&self) -> &InodeCore {
        &self.core
    }

    /// The inode, to be kept in memory.
    #[must_use]
    pub fn shared_core(&self) -> &Arc<InodeCore> {
        &self.core
    }

    /// The inode's number.
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.core.ino
    }

    /// Lets the inode go unless this is its last handle, which is returned then: what is left to the last one waits for
    /// locks, and not everybody may.
    #[must_use]
    pub(super) fn release_unless_last(mut self) -> Option<Self> {
        let pins = &self.core.pins;
        let mut before = pins.load(Ordering::Acquire);
        while before > 1 {
            match pins.compare_exchange_weak(before, before - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.pinned = false;
                    return None;
                }
                Err(now) => before = now,
            }
        }
        Some(self)
    }

    /// Lets the inode go and says what became of the work left for the last handle.
    ///
    /// # Errors
    /// Errors of the medium; recovery does the work then.
    pub fn close(mut self) -> Result<()> {
        self.pinned = false;
        unpin(&self.fs, &self.core)
    }
}

fn unpin(fs: &Arc<Fs>, core: &Arc<InodeCore>) -> Result<()> {
    if core.pins.fetch_sub(1, Ordering::AcqRel) == 1 { remove::after_last_handle(fs, core) } else { Ok(()) }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::pin(&self.fs, self.core.clone())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.pinned {
            return;
        }
        if let Err(error) = unpin(&self.fs, &self.core) {
            tracing::warn!(ino = self.core.ino.0, %error, "left for recovery: clean-up after the last close");
        }
    }
}

//! How do files become copies without a byte being copied?
//!
//! A file's copy is made without a name and named when it is complete.

use super::dir::Dir;
use super::file::File;
use super::options::OpenOptions;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::io::{self, Reflink};
use std::path::Path;

impl File {
    /// Makes this file what `source` is, content and size, by sharing its blocks: a write to either gets blocks of its own.
    /// One record where the extents fit one, however long the file is; else the size comes with the last.
    ///
    /// # Errors
    /// [`Error::NotOpenedFor`], [`Error::CrossPool`], the same file; blocks that are pinned, or mapped by a mapping that can
    /// not let go of them; no space for metadata, damage. The file may hold a prefix then.
    pub fn reflink(&self, source: &Self) -> Result<()> {
        self.share(source, Reflink::Whole).map(drop)
    }

    /// Makes the `len` bytes from `to` the same as the `len` bytes of `source` from `from`, by sharing blocks, as
    /// `FICLONERANGE`. Offsets are multiples of 4096; `len` is too, unless the range ends with the source, and not before
    /// the end of this file. Holes stay holes. Beyond the end the file grows. One record where the extents fit one; after a
    /// crash a prefix otherwise.
    ///
    /// # Errors
    /// As [`Self::reflink`]; [`Error::InvalidArgument`] for other ranges, and those of one file that overlap.
    pub fn reflink_range(&self, source: &Self, from: u64, to: u64, len: u64) -> Result<()> {
        self.share(source, Reflink::Range { from, to, len }).map(drop)
    }

    /// Shares the blocks of two ranges if they hold the same bytes, and says whether they do; nothing changes otherwise. They
    /// are compared while nobody can change them. Content, size and times stay. As `FIDEDUPERANGE`.
    ///
    /// # Errors
    /// As [`Self::reflink_range`]; ranges beyond either end; [`Error::BadMedium`].
    pub fn dedupe_range(&self, source: &Self, from: u64, to: u64, len: u64) -> Result<bool> {
        self.share(source, Reflink::Same { from, to, len })
    }

    fn share(&self, source: &Self, what: Reflink) -> Result<bool> {
        source.reads()?;
        self.writes()?;
        let handle = &self.node.handle;
        handle.fs().with_room(|| io::reflink(&source.node.handle, handle, what))
    }
}

impl Dir {
    /// Makes `to` a copy of the file `from`, with its permissions, that shares its blocks. It appears complete or not at all.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], not a regular file, those of [`File::reflink`].
    pub fn reflink(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let source = self.open(from, &OpenOptions::new().read(true))?;
        let copy = self.unnamed_copy(&source)?;
        self.link_file(&copy, to)
    }

    /// A file without a name that shares the blocks of `source`.
    pub(super) fn unnamed_copy(&self, source: &File) -> Result<File> {
        let mode = source.metadata().mode;
        let copy = self.open_unnamed(&OpenOptions::new().read(true).write(true).mode(mode))?;
        copy.reflink(source)?;
        Ok(copy)
    }
}

//! How do files, and trees of them, become copies without a byte being copied?
//!
//! A file's copy is made without a name and named when it is complete. A tree's copy is made under a temporary name beside
//! its place, [`SNAPSHOT_PREFIX`] and 32 digits, and renamed when it is complete: under its own name it is whole or not there.
//! A crash meanwhile leaves the temporary tree, whose files are whole, to be removed like any other.

use super::dir::Dir;
use super::file::File;
use super::node::Node;
use super::options::OpenOptions;
use crate::error::{Error, Result};
use crate::io::{self, Reflink, SetAttributes};
use crate::layout::FileKind;
use crate::namespace::{Follow, RenameMode};
use crate::units::Ino;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the temporary name of a snapshot in the making begins with.
pub const SNAPSHOT_PREFIX: &str = ".snapshot-";

/// What a snapshot has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Regular files.
    pub files: u64,
    /// Directories, the top one included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

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

    fn unnamed_copy(&self, source: &File) -> Result<File> {
        let mode = source.metadata().mode;
        let copy = self.open_unnamed(&OpenOptions::new().read(true).write(true).mode(mode))?;
        copy.reflink(source)?;
        Ok(copy)
    }

    /// Makes `to` a copy of the directory `from` and all that is below it, with attributes, links and holes, that shares the
    /// files' blocks: time and space are those of the names and extents. Each file is a copy of one moment; different files are of
    /// different moments where somebody writes meanwhile. What appears at `to` is complete.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::Exists`], those of [`File::reflink`] and of making names. What was
    /// made is removed then.
    pub fn snapshot(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Snapshot> {
        let (source, to) = (self.open_dir(from)?, to.as_ref());
        if self.exists(to)? {
            return Err(Error::Exists);
        }
        let name = format!("{SNAPSHOT_PREFIX}{}", uuid::Uuid::new_v4().simple());
        let draft = to.parent().map_or_else(|| PathBuf::from(&name), |parent| parent.join(&name));
        self.create_dir(&draft, 0o700)?;
        let made = self.open_dir(&draft).and_then(|top| Copier::new(top).run(&source)).and_then(|made| {
            self.rename_to(&draft, self, to, RenameMode::NoReplace)?;
            Ok(made)
        });
        if made.is_err()
            && let Err(error) = self.remove_dir_all(&draft)
        {
            tracing::warn!(path = ?draft, %error, "a part of a snapshot stays");
        }
        made
    }
}

/// A tree that is being copied.
struct Copier {
    top: Dir,
    /// The first name, from the top on, of each file that has several.
    first: HashMap<Ino, PathBuf>,
    made: Snapshot,
}

/// A directory and its copy.
struct Pair {
    source: Dir,
    copy: Dir,
    /// From the top on.
    path: PathBuf,
}

impl Copier {
    fn new(top: Dir) -> Self {
        Self { top, first: HashMap::new(), made: Snapshot::default() }
    }

    fn run(mut self, source: &Dir) -> Result<Snapshot> {
        // No recursion: depth is the user's to choose. What a directory says of itself comes last, since its content changes that.
        let mut pairs = vec![Pair { source: source.clone(), copy: self.top.clone(), path: PathBuf::new() }];
        let mut next = 0;
        while let Some(Pair { source, copy, path }) = pairs.get(next) {
            let mut found = Vec::new();
            for entry in source.read_dir() {
                let entry = entry?;
                if entry.ino != self.top.node.metadata().ino {
                    found.push((entry.name, entry.kind));
                }
            }
            let (source, copy, path) = (source.clone(), copy.clone(), path.clone());
            for (name, kind) in found {
                match self.entry(&source, &copy, &path, &name, kind) {
                    Ok(below) => pairs.extend(below),
                    // It went meanwhile.
                    Err(Error::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            next += 1;
        }
        for pair in pairs.iter().rev() {
            copy_attributes(&pair.source, &pair.copy)?;
        }
        self.made.directories = pairs.len() as u64;
        Ok(self.made)
    }

    fn entry(
        &mut self,
        source: &Dir,
        copy: &Dir,
        path: &Path,
        name: &OsString,
        kind: FileKind,
    ) -> Result<Option<Pair>> {
        match kind {
            FileKind::Directory => {
                let source = source.open_dir(name)?;
                copy.create_dir(name, 0o700)?;
                return Ok(Some(Pair { source, copy: copy.open_dir(name)?, path: path.join(name) }));
            }
            FileKind::Symlink => {
                let node = source.open_node(name, Follow::No)?;
                copy.symlink(source.read_link(name)?, name)?;
                copy_attributes(&node, &copy.open_node(name, Follow::No)?)?;
                self.made.symlinks += 1;
            }
            FileKind::Regular => self.file(source, copy, path, name)?,
        }
        Ok(None)
    }

    fn file(&mut self, source: &Dir, copy: &Dir, path: &Path, name: &OsString) -> Result<()> {
        let file = source.open(name, &OpenOptions::new().read(true).follow(false))?;
        let metadata = file.metadata();
        if let Some(first) = self.first.get(&metadata.ino) {
            let node = self.top.open(first, &OpenOptions::new().read(true))?;
            copy.link_file(&node, name)?;
            self.made.links += 1;
            return Ok(());
        }
        let made = copy.unnamed_copy(&file)?;
        copy_attributes(&file, &made)?;
        copy.link_file(&made, name)?;
        if metadata.links > 1 {
            self.first.insert(metadata.ino, path.join(name));
        }
        self.made.files += 1;
        self.made.bytes += made.len();
        Ok(())
    }
}

/// Gives `to` the attributes of `from`.
fn copy_attributes(from: &Node, to: &Node) -> Result<()> {
    for name in from.list_xattrs()? {
        let name = OsStr::from_bytes(&name);
        to.set_xattr(name, &from.get_xattr(name)?, io::XattrMode::Either)?;
    }
    let found = from.metadata();
    to.set_attributes(&SetAttributes {
        mode: Some(found.mode),
        uid: Some(found.uid),
        gid: Some(found.gid),
        atime: Some(found.atime),
        mtime: Some(found.mtime),
    })
}

//! How do trees become copies without a byte being copied?
//!
//! A tree's copy is made under a temporary name beside its place, [`SNAPSHOT_PREFIX`] and 32 digits, and renamed when it is
//! complete: under its own name it is whole or not there.
//!
//! Invariant: from the record that makes the temporary directory to the one that renames or removes it, an intent names
//! it. So what a crash leaves of a copy is removed by who opens the pool next for writing, and never what is complete, or
//! what somebody gave another name.

use super::dir::Dir;
use super::node::Node;
use super::options::OpenOptions;
use crate::alloc::Op;
use crate::error::{Damage, Error, Result, Structure};
use crate::inode::{Draft, Fs};
use crate::io::remove::{forget_snapshots, publish_intents};
use crate::io::{self, Handle, SetAttributes};
use crate::layout::FileKind;
use crate::namespace::{Follow, RenameMode};
use crate::pmem::Durable;
use crate::sync::Arc;
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

impl Dir {
    /// Makes `to` a copy of the directory `from` and all that is below it, with attributes, links and holes, that shares the
    /// files' blocks: time and space are those of the names and extents. Each file is a copy of one moment; different files are of
    /// different moments where somebody writes meanwhile. What appears at `to` is complete; of a snapshot that a crash cut short the
    /// next open for writing leaves nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::Exists`], those of [`File::reflink`](crate::File::reflink) and of making names. What was
    /// made is removed then.
    pub fn snapshot(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Snapshot> {
        let (source, to) = (self.open_dir(from)?, to.as_ref());
        if self.exists(to)? {
            return Err(Error::Exists);
        }
        let name = format!("{SNAPSHOT_PREFIX}{}", uuid::Uuid::new_v4().simple());
        let draft = to.parent().map_or_else(|| PathBuf::from(&name), |parent| parent.join(&name));
        let top = self.create_snapshot_dir(&draft)?;
        let made = Copier::new(top).run(&source).and_then(|made| {
            self.rename_to(&draft, self, to, RenameMode::NoReplace)?;
            Ok(made)
        });
        if made.is_err()
            && let Err(error) = self.remove_dir_all(&draft)
        {
            tracing::warn!(path = ?draft, %error, "a part of a snapshot stays until the pool is opened next");
        }
        made
    }
}

/// Removes what a run before made of the snapshot `ino`, and with it the intent to do so. One that has no temporary name
/// any more, as a repair can leave it, is a directory like others from now on.
///
/// # Errors
/// Damage, errors of the medium; the intent stays then.
pub(super) fn discard(fs: &Arc<Fs>, ino: Ino) -> Result<()> {
    let core = fs.table.get(ino)?;
    let (kind, parent) = {
        let state = core.state.read();
        (state.kind, state.parent)
    };
    if kind != FileKind::Directory {
        let at = ino.offset();
        return Err(Damage::new(Structure::Intent, at, "a snapshot that is no directory", 0, ino.0).into());
    }
    let parent = Dir::new(Handle::pin(fs, fs.table.get(parent)?));
    for entry in parent.read_dir() {
        let entry = entry?;
        if entry.ino == ino && entry.name.as_bytes().starts_with(SNAPSHOT_PREFIX.as_bytes()) {
            return parent.remove_dir_all(entry.name);
        }
    }
    let draft = Draft::lock(&core);
    let (mut op, mut intents): (Op<'_>, _) = (fs.space.begin().for_removal(), None);
    forget_snapshots(fs, &mut op, &[ino], &mut intents)?;
    op.commit(Durable::no_data())?;
    drop(draft);
    publish_intents(fs, intents)
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

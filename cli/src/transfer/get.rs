//! How does a tree of a pool get out to the host?
//!
//! Directories still to be copied wait on a stack, so the depth of a tree is no limit; the pool's names are
//! checked before the host sees them.

use super::PIECE_BYTES;
use super::host::{self, Attributes, HostTree};
use super::report::Reporter;
use crate::failure::{Context, Failure, Result};
use crate::names::shown;
use daxstore::{DirEntry, Error, FileKind, Follow, Metadata, Node, OpenOptions, Store};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A transfer from a pool to one directory of the host.
pub struct Get<'a, 'o> {
    store: &'a Store,
    tree: HostTree,
    /// What the user called the directory, for messages.
    root: PathBuf,
    reporter: &'a mut Reporter<'o>,
    /// The first name on the host of each file that has several, by inode number.
    links: HashMap<u64, PathBuf>,
    piece: Vec<u8>,
}

/// A directory whose content is, or will be, copied.
struct Pair {
    pool: PathBuf,
    below: PathBuf,
}

impl<'a, 'o> Get<'a, 'o> {
    /// A transfer from `store` to below the host's directory `root`.
    pub fn new(store: &'a Store, root: &Path, reporter: &'a mut Reporter<'o>) -> Result<Self> {
        let tree = HostTree::open(root).context(|| format!("open {}", shown(root)))?;
        let (root, links) = (root.to_path_buf(), HashMap::new());
        Ok(Self { store, tree, root, reporter, links, piece: vec![0; PIECE_BYTES] })
    }

    /// Copies the file or tree at `pool` to `below`, relative to the root.
    pub fn run(&mut self, pool: &Path, below: &Path) -> Result<()> {
        let mut directories = Vec::new();
        self.one(Pair { pool: pool.to_path_buf(), below: below.to_path_buf() }, &mut directories)?;
        let mut next = 0;
        while let Some(pair) = directories.get(next) {
            let (pool, below) = (pair.pool.clone(), pair.below.clone());
            next += 1;
            if let Err(failure) = self.directory_content(&pool, &below, &mut directories) {
                self.reporter.failed(failure)?;
            }
        }
        for pair in directories.iter().rev() {
            if let Err(failure) = self.finish_directory(pair) {
                self.reporter.failed(failure)?;
            }
        }
        Ok(())
    }

    fn directory_content(&mut self, pool: &Path, below: &Path, directories: &mut Vec<Pair>) -> Result<()> {
        let what = || format!("list {}", shown(pool));
        let dir = self.store.open_dir(pool).context(what)?;
        for entry in dir.read_dir() {
            let DirEntry { name, .. } = entry.context(what)?;
            if !host::is_plain_name(&name) {
                let damage = Failure::store(format!("get {}", shown(pool.join(&name))), &Error::InvalidName);
                self.reporter.failed(damage)?;
                continue;
            }
            self.one(Pair { pool: pool.join(&name), below: below.join(&name) }, directories)?;
        }
        Ok(())
    }

    /// Copies one file, or makes one directory and leaves its content for later.
    fn one(&mut self, pair: Pair, directories: &mut Vec<Pair>) -> Result<()> {
        match self.copy(&pair) {
            Ok(FileKind::Directory) => directories.push(pair),
            Ok(_) => self.reporter.complete(&self.host(&pair.below))?,
            Err(failure) => self.reporter.failed(failure)?,
        }
        Ok(())
    }

    fn copy(&mut self, pair: &Pair) -> Result<FileKind> {
        let metadata =
            self.store.symlink_metadata(&pair.pool).context(|| format!("read {}", shown(&pair.pool)))?;
        match metadata.kind {
            FileKind::Directory => self.directory(pair)?,
            FileKind::Symlink => self.symlink(pair, &metadata)?,
            FileKind::Regular => self.file_or_link(pair, &metadata)?,
        }
        self.reporter.progress.advance(1);
        self.reporter.tally.operations += 1;
        Ok(metadata.kind)
    }

    /// The path of `below` as the user would write it.
    fn host(&self, below: &Path) -> PathBuf {
        if self.root == Path::new(".") { below.to_path_buf() } else { self.root.join(below) }
    }

    fn host_path(&self, below: &Path) -> String {
        shown(self.host(below))
    }

    fn directory(&mut self, pair: &Pair) -> Result<()> {
        let made = self.tree.make_dir(&pair.below);
        made.context(|| format!("make directory {}", self.host_path(&pair.below)))?;
        self.reporter.tally.directories += 1;
        Ok(())
    }

    fn finish_directory(&mut self, pair: &Pair) -> Result<()> {
        let read = || format!("read {}", shown(&pair.pool));
        let node = self.store.open_node(&pair.pool, Follow::No).context(read)?;
        let attributes = Attributes::of_pool(&node.metadata());
        let xattrs = xattrs(&node).context(read)?;
        let what = format!("set attributes of {}", self.host_path(&pair.below));
        let dir = self.tree.dir(&pair.below).and_then(|dir| dir.try_clone_to_owned());
        let dir = File::from(dir.context(|| what.clone())?);
        attributes.own(&dir).context(|| what.clone())?;
        self.set_xattrs(&dir, &xattrs, &what)?;
        attributes.finish(&dir).context(|| what)
    }

    fn symlink(&mut self, pair: &Pair, metadata: &Metadata) -> Result<()> {
        let read = || format!("read {}", shown(&pair.pool));
        let target = self.store.read_link(&pair.pool).context(read)?;
        let xattrs = xattrs(&self.store.open_node(&pair.pool, Follow::No).context(read)?).context(read)?;
        let what = format!("make symbolic link {}", self.host_path(&pair.below));
        let attributes = Attributes::of_pool(metadata);
        self.tree.make_symlink(&pair.below, &target, &attributes).context(|| what.clone())?;
        for (name, value) in &xattrs {
            let set = self.tree.set_link_xattr(&pair.below, name, value);
            self.judge_xattr(set, name, &what)?;
        }
        self.reporter.tally.symlinks += 1;
        Ok(())
    }

    fn file_or_link(&mut self, pair: &Pair, metadata: &Metadata) -> Result<()> {
        if metadata.links > 1
            && let Some(first) = self.links.get(&metadata.ino.0).cloned()
        {
            let made = self.tree.make_link(&first, &pair.below);
            made.context(|| format!("link {}", self.host_path(&pair.below)))?;
            self.reporter.tally.hard_links += 1;
            return Ok(());
        }
        self.file(pair, metadata)?;
        if metadata.links > 1 {
            self.links.insert(metadata.ino.0, pair.below.clone());
        }
        Ok(())
    }

    fn file(&mut self, pair: &Pair, metadata: &Metadata) -> Result<()> {
        let read = || format!("read {}", shown(&pair.pool));
        let options = OpenOptions::new().read(true).follow(false);
        let source = self.store.open(&pair.pool, &options).context(read)?;
        let what = format!("write {}", self.host_path(&pair.below));
        let new = self.tree.make_file(&pair.below).context(|| what.clone())?;
        if let Err(failure) = self.fill(&source, metadata, pair, &new.file, &what) {
            // The first failure is the one to tell; a leftover temporary file is the lesser evil.
            let _ = self.tree.abandon(&pair.below, new);
            return Err(failure);
        }
        self.tree.publish(&pair.below, new).context(|| what)?;
        self.reporter.tally.files += 1;
        Ok(())
    }

    fn fill(
        &mut self,
        source: &daxstore::File,
        metadata: &Metadata,
        pair: &Pair,
        new: &File,
        what: &str,
    ) -> Result<()> {
        let read = || format!("read {}", shown(&pair.pool));
        let mut at = 0;
        while let Some((start, end)) = next_data(source, at, metadata.size).context(read)? {
            self.run_of_data(source, new, pair, (start, end), what)?;
            at = end;
        }
        new.set_len(metadata.size).context(|| String::from(what))?;
        let attributes = Attributes::of_pool(metadata);
        attributes.own(new).context(|| String::from(what))?;
        let xattrs = xattrs(source).context(read)?;
        self.set_xattrs(new, &xattrs, what)?;
        attributes.finish(new).context(|| String::from(what))
    }

    fn run_of_data(
        &mut self,
        source: &daxstore::File,
        new: &File,
        pair: &Pair,
        (mut at, end): (u64, u64),
        what: &str,
    ) -> Result<()> {
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = self.piece.get_mut(..want).unwrap_or_default();
            let got = source.read_at(piece, at).context(|| format!("read {}", shown(&pair.pool)))?;
            if got == 0 {
                break;
            }
            new.write_all_at(piece.get(..got).unwrap_or_default(), at).context(|| String::from(what))?;
            at += got as u64;
            self.reporter.tally.bytes += got as u64;
        }
        Ok(())
    }

    fn set_xattrs(&mut self, file: &File, xattrs: &[(OsString, Vec<u8>)], what: &str) -> Result<()> {
        use xattr::FileExt;
        for (name, value) in xattrs {
            self.judge_xattr(file.set_xattr(name, value), name, what)?;
        }
        Ok(())
    }

    /// An attribute that the host does not take is left out with a warning.
    fn judge_xattr(&mut self, set: io::Result<()>, name: &OsStr, what: &str) -> Result<()> {
        match set {
            Err(error) if host::is_unsupported(&error) => {
                self.reporter.tally.xattrs_skipped += 1;
                let name = shown(name);
                self.reporter.warn(format!("extended attribute {name} is left out: the host says: {error}"));
                Ok(())
            }
            Err(error) => Err(Failure::host(format!("{what}: extended attribute {}", shown(name)), &error)),
            Ok(()) => {
                self.reporter.tally.xattrs += 1;
                Ok(())
            }
        }
    }
}

/// The next data of `file` at or after `offset`, as start and end, clipped to `len`.
fn next_data(file: &daxstore::File, offset: u64, len: u64) -> daxstore::Result<Option<(u64, u64)>> {
    let start = match file.seek_data(offset) {
        Ok(start) => start,
        Err(Error::NoSuchOffset) => return Ok(None),
        Err(error) => return Err(error),
    };
    let end = file.seek_hole(start)?.min(len);
    Ok((start < end).then_some((start, end)))
}

fn xattrs(node: &Node) -> daxstore::Result<Vec<(OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in node.list_xattrs()? {
        let name = OsString::from_vec(name);
        let value = node.get_xattr(&name)?;
        found.push((name, value));
    }
    Ok(found)
}

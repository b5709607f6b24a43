//! How does a tree of the host get into a pool?
//!
//! Each regular file is written without a name and linked when it is complete, so a `put` that is killed or
//! meets a power failure leaves whole files only; what it named on standard output is durable.

use super::PIECE_BYTES;
use super::host::{self, Attributes};
use super::plan::{Entry, HostId, HostKind, Plan};
use super::report::Reporter;
use crate::failure::{Context, Failure, Result};
use crate::names::shown;
use daxstore::units::CHUNK_BYTES;
use daxstore::{AllocateMode, Error, FileKind, Follow, Node, OpenOptions, SetAttributes, Store, XattrMode};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A transfer from the host to a pool.
pub struct Put<'a, 'o> {
    store: &'a Store,
    reporter: &'a mut Reporter<'o>,
    /// The first name in the pool of each file that has several.
    links: HashMap<HostId, PathBuf>,
    /// Directories that could not be made: what is below them is not tried.
    missing: HashSet<PathBuf>,
    piece: Vec<u8>,
}

impl<'a, 'o> Put<'a, 'o> {
    /// A transfer into `store`.
    pub fn new(store: &'a Store, reporter: &'a mut Reporter<'o>) -> Self {
        let (links, missing) = (HashMap::new(), HashSet::new());
        Self { store, reporter, links, missing, piece: vec![0; PIECE_BYTES] }
    }

    /// Copies everything in the plan.
    pub fn run(&mut self, plan: &Plan) -> Result<()> {
        for entry in &plan.entries {
            if entry.dest.parent().is_some_and(|parent| self.missing.contains(parent)) {
                self.missing.insert(entry.dest.clone());
                continue;
            }
            let before = self.reporter.tally.bytes;
            match self.copy(entry) {
                Ok(()) => self.reporter.complete(&entry.dest)?,
                Err(failure) => {
                    self.missing.insert(entry.dest.clone());
                    self.reporter.failed(failure)?;
                }
            }
            // The data were shown as they went; holes and what was not copied follow at once.
            let shown = self.reporter.tally.bytes - before;
            self.reporter.progress.advance(entry.size.saturating_sub(shown));
        }
        self.finish_directories(plan)
    }

    fn copy(&mut self, entry: &Entry) -> Result<()> {
        match entry.kind {
            HostKind::Directory => self.directory(entry),
            HostKind::Symlink => self.symlink(entry),
            HostKind::File { link: None } => self.file(entry),
            HostKind::File { link: Some(id) } => match self.links.get(&id).cloned() {
                Some(first) => self.link(&first, entry),
                None => {
                    self.file(entry)?;
                    self.links.insert(id, entry.dest.clone());
                    Ok(())
                }
            },
        }
    }

    fn directory(&mut self, entry: &Entry) -> Result<()> {
        let what = || format!("make directory {}", shown(&entry.dest));
        match self.store.create_dir(&entry.dest, 0o700) {
            Ok(()) => self.reporter.tally.operations += 1,
            Err(Error::Exists | Error::RootDirectory) => {
                if self.store.symlink_metadata(&entry.dest).context(what)?.kind != FileKind::Directory {
                    return Err(Failure::store(what(), &Error::Exists));
                }
            }
            Err(error) => return Err(Failure::store(what(), &error)),
        }
        self.reporter.tally.directories += 1;
        Ok(())
    }

    /// Directories get their own attributes when nothing below them changes any more, the deepest first.
    fn finish_directories(&mut self, plan: &Plan) -> Result<()> {
        for entry in plan.entries.iter().rev() {
            if entry.kind == HostKind::Directory
                && !self.missing.contains(&entry.dest)
                && let Err(failure) = self.finish_directory(entry)
            {
                self.reporter.failed(failure)?;
            }
        }
        Ok(())
    }

    fn finish_directory(&mut self, entry: &Entry) -> Result<()> {
        let read = || format!("read {}", shown(&entry.host));
        let attributes = Attributes::of_host(&std::fs::symlink_metadata(&entry.host).context(read)?);
        let xattrs = host::xattrs_at(&entry.host).context(read)?;
        let what = || format!("set attributes of {}", shown(&entry.dest));
        let node = self.store.open_node(&entry.dest, Follow::No).context(what)?;
        self.attributes(&node, Some(attributes.mode), &attributes, &xattrs).context(what)
    }

    fn symlink(&mut self, entry: &Entry) -> Result<()> {
        let read = || format!("read {}", shown(&entry.host));
        let target = std::fs::read_link(&entry.host).context(read)?;
        let attributes = Attributes::of_host(&std::fs::symlink_metadata(&entry.host).context(read)?);
        let xattrs = host::xattrs_at(&entry.host).context(read)?;
        let what = || format!("make symbolic link {}", shown(&entry.dest));
        self.replacing(&entry.dest, |store| store.symlink(&target, &entry.dest)).context(what)?;
        let node = self.store.open_node(&entry.dest, Follow::No).context(what)?;
        self.attributes(&node, None, &attributes, &xattrs).context(what)?;
        self.reporter.tally.symlinks += 1;
        Ok(())
    }

    fn link(&mut self, first: &Path, entry: &Entry) -> Result<()> {
        let what = || format!("link {} to {}", shown(&entry.dest), shown(first));
        self.replacing(&entry.dest, |store| store.hard_link(first, &entry.dest)).context(what)?;
        self.reporter.tally.hard_links += 1;
        Ok(())
    }

    fn file(&mut self, entry: &Entry) -> Result<()> {
        let read = || format!("read {}", shown(&entry.host));
        let source = host::open_source(&entry.host).context(read)?;
        let metadata = source.metadata().context(read)?;
        let attributes = Attributes::of_host(&metadata);
        let xattrs = host::xattrs_of(&source).context(read)?;
        let what = || format!("write {}", shown(&entry.dest));
        let new =
            self.store.open_unnamed(&OpenOptions::new().read(true).write(true).mode(0o600)).context(what)?;
        self.reporter.tally.operations += 1;
        self.content(entry, &source, &metadata, &new)?;
        self.attributes(&new, Some(attributes.mode), &attributes, &xattrs).context(what)?;
        self.publish(&new, &entry.dest).context(what)?;
        self.reporter.tally.files += 1;
        new.close().context(what)
    }

    /// Copies the data of `source`, not its holes.
    fn content(
        &mut self,
        entry: &Entry,
        source: &File,
        metadata: &std::fs::Metadata,
        new: &daxstore::File,
    ) -> Result<()> {
        let read = || format!("read {}", shown(&entry.host));
        let (mut at, len, sparse) = (0, metadata.len(), host::may_have_holes(metadata));
        let mut written = 0;
        while at < len {
            let data = if sparse { host::next_data(source, at, len).context(read)? } else { Some((at, len)) };
            let Some((start, end)) = data else { break };
            self.claim(entry, new, start, end)?;
            let reached = self.run_of_data(entry, source, new, start, end)?;
            if reached < end {
                // A file that shrinks while it is read ends where it ended.
                return self.set_len(entry, new, reached);
            }
            (at, written) = (end, end);
        }
        if written < len { self.set_len(entry, new, len) } else { Ok(()) }
    }

    /// Asks for the space of a large run at once, so that it gets whole chunks.
    fn claim(&mut self, entry: &Entry, new: &daxstore::File, start: u64, end: u64) -> Result<()> {
        if end - start < CHUNK_BYTES {
            return Ok(());
        }
        self.reporter.tally.operations += 1;
        let what = || format!("write {}", shown(&entry.dest));
        new.allocate(start, end - start, AllocateMode::Allocate).context(what)
    }

    fn set_len(&mut self, entry: &Entry, new: &daxstore::File, len: u64) -> Result<()> {
        self.reporter.tally.operations += 1;
        new.set_len(len).context(|| format!("write {}", shown(&entry.dest)))
    }

    /// Copies the bytes from `start` to `end`; returns where the copy ends.
    fn run_of_data(
        &mut self,
        entry: &Entry,
        source: &File,
        new: &daxstore::File,
        start: u64,
        end: u64,
    ) -> Result<u64> {
        let mut at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = self.piece.get_mut(..want).unwrap_or_default();
            let got = source.read_at(piece, at).context(|| format!("read {}", shown(&entry.host)))?;
            if got == 0 {
                break;
            }
            let data = piece.get(..got).unwrap_or_default();
            new.write_all_at(data, at).context(|| format!("write {}", shown(&entry.dest)))?;
            at += got as u64;
            self.reporter.tally.bytes += got as u64;
            self.reporter.progress.advance(got as u64);
            self.reporter.tally.operations += 1;
        }
        Ok(at)
    }

    fn attributes(
        &mut self,
        node: &Node,
        mode: Option<u32>,
        attributes: &Attributes,
        xattrs: &[(OsString, Vec<u8>)],
    ) -> daxstore::Result<()> {
        for (name, value) in xattrs {
            node.set_xattr(name, value, XattrMode::Either)?;
            self.reporter.tally.xattrs += 1;
            self.reporter.tally.operations += 1;
        }
        self.reporter.tally.operations += 1;
        node.set_attributes(&SetAttributes {
            mode,
            uid: Some(attributes.uid),
            gid: Some(attributes.gid),
            atime: Some(attributes.atime),
            mtime: Some(attributes.mtime),
        })
    }

    /// Gives a complete file its name, in place of what is no directory, in one step.
    fn publish(&mut self, new: &daxstore::File, dest: &Path) -> daxstore::Result<()> {
        self.reporter.tally.operations += 1;
        match self.store.link_file(new, dest) {
            Err(Error::Exists) => {}
            other => return other,
        }
        self.refuse_directory(dest)?;
        let temporary = dest.with_file_name(host::temporary_name());
        self.store.link_file(new, &temporary)?;
        self.reporter.tally.operations += 1;
        self.store.rename(&temporary, dest)
    }

    /// Runs `make`; where the name exists and is no directory, removes it and tries once more.
    fn replacing(
        &mut self,
        dest: &Path,
        make: impl Fn(&Store) -> daxstore::Result<()>,
    ) -> daxstore::Result<()> {
        self.reporter.tally.operations += 1;
        match make(self.store) {
            Err(Error::Exists) => {}
            other => return other,
        }
        self.refuse_directory(dest)?;
        self.store.remove_file(dest)?;
        self.reporter.tally.operations += 1;
        make(self.store)
    }

    fn refuse_directory(&self, dest: &Path) -> daxstore::Result<()> {
        match self.store.symlink_metadata(dest)?.kind {
            FileKind::Directory => Err(Error::IsDirectory),
            _ => Ok(()),
        }
    }
}

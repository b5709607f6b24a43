//! How does a name move?
//!
//! One record whatever the kind: entries of one or two directories, the moved inode's parent and times, a replaced
//! inode's end. Between two directories the rename lock is held, so that ancestry stands still: it decides the order
//! of the locks, and that no directory moves into itself.

use super::create::check_dir;
use super::entry::{self, Entry, Probe};
use crate::alloc::Op;
use crate::error::{Error, Result};
use crate::inode::{Draft, Fs, InodeCore, Intents, now};
use crate::io::remove::{self, Fate};
use crate::io::{self, Handle};
use crate::layout::FileKind;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::Arc;
use crate::units::Ino;

/// What a rename does with a name that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails with [`Error::Exists`].
    NoReplace,
    /// Exchanges the two.
    Exchange,
}

/// The longest chain of directories that is followed upwards; a longer one is damage.
const MAX_DEPTH: usize = 1 << 20;

/// `dir` and its ancestors up to the root. The rename lock is held, and no directory's lock.
fn ancestry(fs: &Fs, dir: Ino) -> Result<Vec<Ino>> {
    let mut chain = vec![dir];
    let mut at = fs.table.get(dir)?;
    while at.ino != fs.root {
        let state = at.state.read();
        if state.links == 0 {
            break;
        }
        if chain.len() > MAX_DEPTH {
            return Err(super::loops(at.ino));
        }
        // Under the child's lock: the child can not be removed, so its parent is no empty directory and stays.
        let parent = fs.table.get(state.parent)?;
        drop(state);
        chain.push(parent.ino);
        at = parent;
    }
    Ok(chain)
}

/// One side of a rename.
#[derive(Clone, Copy)]
struct Side<'a> {
    dir: &'a Handle,
    name: &'a [u8],
}

/// The two directories, locked; the second is `None` where they are one.
struct Parents<'c> {
    from: Draft<'c>,
    to: Option<Draft<'c>>,
}

impl<'c> Parents<'c> {
    fn lock(from: &'c InodeCore, to: &'c InodeCore, to_first: bool) -> Self {
        if from.ino == to.ino {
            return Self { from: Draft::lock(from), to: None };
        }
        if to_first {
            let to = Draft::lock(to);
            return Self { from: Draft::lock(from), to: Some(to) };
        }
        let from = Draft::lock(from);
        Self { from, to: Some(Draft::lock(to)) }
    }

    fn to(&mut self) -> &mut Draft<'c> {
        self.to.as_mut().unwrap_or(&mut self.from)
    }

    fn probe(&mut self, fs: &Fs, from: &[u8], to: &[u8]) -> Result<(Entry, Probe)> {
        let seed = fs.journal().seed();
        check_dir(&self.from.inode)?;
        let source = entry::probe(&*fs.space, seed, self.from.ino(), &self.from.inode.root, from)?;
        let to_dir = self.to();
        check_dir(&to_dir.inode)?;
        let target = entry::probe(&*fs.space, seed, to_dir.ino(), &to_dir.inode.root, to)?;
        Ok((source.found.ok_or(Error::NotFound)?, target))
    }
}

/// Renames `from_name` in `from` to `to_name` in `to`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Exists`], [`Error::IntoItself`], kinds that do not fit, a directory to be replaced
/// that is not empty, unusable names, no space, damage.
pub fn rename(from: &Handle, from_name: &[u8], to: &Handle, to_name: &[u8], mode: RenameMode) -> Result<()> {
    entry::check_name(from_name)?;
    entry::check_name(to_name)?;
    let fs = from.fs();
    io::settle(fs)?;
    let (from, to) = (Side { dir: from, name: from_name }, Side { dir: to, name: to_name });
    check_dir(&from.dir.core().state.read())?;
    check_dir(&to.dir.core().state.read())?;
    let across = from.dir.ino() != to.dir.ino();
    let _lock = (across && !mutation::is(Mutation::NoRenameLock)).then(|| fs.rename.lock());
    let (mut above_from, mut above_to) = (Vec::new(), Vec::new());
    if across {
        above_from = ancestry(fs, from.dir.ino())?;
        above_to = ancestry(fs, to.dir.ino())?;
    }
    let to_first = above_from.contains(&to.dir.ino())
        || (!above_to.contains(&from.dir.ino()) && to.dir.ino() < from.dir.ino());
    let mut parents = Parents::lock(from.dir.core(), to.dir.core(), to_first);
    let (source, target) = parents.probe(fs, from.name, to.name)?;
    // A sound directory names neither itself nor an ancestor, whose lock would be asked for a second time.
    if source.ino == from.dir.ino() || target.found.is_some_and(|found| found.ino == to.dir.ino()) {
        return Err(super::loops(source.ino));
    }
    check_move(source, target.found, mode, &above_from, &above_to)?;
    let same = target.found.is_some_and(|found| found.ino == source.ino);
    if same || (!across && from.name == to.name) {
        return Ok(());
    }
    let moved = fs.table.get(source.ino)?;
    let other = target.found.map(|found| fs.table.get(found.ino)).transpose()?;
    Change { fs, parents, from, to, source, target, mode }.apply(&moved, other.as_ref())
}

/// Whether what is found may be moved and replaced.
fn check_move(
    source: Entry,
    found: Option<Entry>,
    mode: RenameMode,
    above_from: &[Ino],
    above_to: &[Ino],
) -> Result<()> {
    if above_to.contains(&source.ino) {
        return Err(Error::IntoItself);
    }
    let Some(found) = found else {
        return if mode == RenameMode::Exchange { Err(Error::NotFound) } else { Ok(()) };
    };
    match mode {
        RenameMode::NoReplace => Err(Error::Exists),
        RenameMode::Exchange if above_from.contains(&found.ino) => Err(Error::IntoItself),
        RenameMode::Exchange => Ok(()),
        RenameMode::Replace if found.ino == source.ino => Ok(()),
        RenameMode::Replace => match (source.kind, found.kind) {
            (FileKind::Directory, FileKind::Directory) if above_from.contains(&found.ino) => {
                Err(Error::NotEmpty)
            }
            (FileKind::Directory, FileKind::Directory) => Ok(()),
            (FileKind::Directory, _) => Err(Error::NotDirectory),
            (_, FileKind::Directory) => Err(Error::IsDirectory),
            _ => Ok(()),
        },
    }
}

/// Locks two inodes below the locked directories: directories before files, then by number.
fn lock_children<'c>(
    moved: &'c InodeCore,
    moved_kind: FileKind,
    other: Option<(&'c InodeCore, FileKind)>,
) -> (Draft<'c>, Option<Draft<'c>>) {
    let rank = |core: &InodeCore, kind| (kind != FileKind::Directory, core.ino);
    match other {
        Some((other, kind)) if rank(other, kind) < rank(moved, moved_kind) => {
            let other = Draft::lock(other);
            (Draft::lock(moved), Some(other))
        }
        _ => {
            let moved = Draft::lock(moved);
            (moved, other.map(|(other, _)| Draft::lock(other)))
        }
    }
}

/// A rename whose directories are locked and whose names were found.
struct Change<'a> {
    fs: &'a Fs,
    parents: Parents<'a>,
    from: Side<'a>,
    to: Side<'a>,
    source: Entry,
    target: Probe,
    mode: RenameMode,
}

impl<'a> Change<'a> {
    fn apply(mut self, moved: &Arc<InodeCore>, replaced_core: Option<&Arc<InodeCore>>) -> Result<()> {
        let fs = self.fs;
        let replaced = replaced_core.zip(self.target.found).map(|(core, found)| (&**core, found.kind));
        let (mut moved, mut other) = lock_children(moved, self.source.kind, replaced);
        let mut op = fs.space.begin().for_removal();
        self.move_entries(&mut op)?;
        let mut intents = None;
        let mut fate = None;
        if !mutation::is(Mutation::SnapshotStaysNoted) {
            remove::forget_snapshots(fs, &mut op, &self.renamed_dirs(), &mut intents)?;
        }
        let time = now();
        (moved.inode.ctime, moved.inode.parent) = (time, self.parent_of(self.source.kind, &self.to));
        moved.stage(&mut op)?;
        if let Some(other) = &mut other {
            other.inode.ctime = time;
            fate = self.settle_other(&mut op, other, &mut intents)?;
        }
        self.parents.from.touch(time);
        self.parents.from.stage(&mut op)?;
        if let Some(to) = &mut self.parents.to {
            to.touch(time);
            to.stage(&mut op)?;
        }
        remove::commit(fs, op, replaced_core.filter(|_| fate == Some(Fate::Gone)))?;
        self.publish(moved, other, fate, intents, replaced_core)
    }

    /// The directories that get another name.
    fn renamed_dirs(&self) -> Vec<Ino> {
        let other = self.target.found.filter(|_| self.mode == RenameMode::Exchange);
        let dirs = [Some(self.source), other].into_iter().flatten();
        dirs.filter(|entry| entry.kind == FileKind::Directory).map(|entry| entry.ino).collect()
    }

    /// The parent that an inode of `kind` names once it is in the directory of `side`.
    fn parent_of(&self, kind: FileKind, side: &Side<'_>) -> Ino {
        if kind == FileKind::Directory { side.dir.ino() } else { Ino(0) }
    }

    /// Changes the entries, and the directories' counts and links.
    fn move_entries(&mut self, op: &mut Op<'_>) -> Result<()> {
        let seed = self.fs.journal().seed();
        let source_is_dir = u32::from(self.source.kind == FileKind::Directory);
        let target_key = self.target.found.map_or(self.target.free, |found| found.key);
        let to_name = self.to.name;
        entry::put(op, self.parents.to(), seed, to_name, Entry { key: target_key, ..self.source })?;
        let found_is_dir = match self.target.found {
            Some(found) if self.mode == RenameMode::Exchange => {
                let back = Entry { key: self.source.key, ..found };
                entry::put(op, &mut self.parents.from, seed, self.from.name, back)?;
                let is_dir = u32::from(found.kind == FileKind::Directory);
                self.parents.from.inode.links += is_dir;
                is_dir
            }
            found => {
                entry::take(op, &mut self.parents.from, self.source.key)?;
                self.parents.from.inode.size = self.parents.from.inode.size.saturating_sub(1);
                let to = self.parents.to();
                to.inode.size += u64::from(found.is_none());
                u32::from(found.is_some_and(|found| found.kind == FileKind::Directory))
            }
        };
        let from = &mut self.parents.from.inode;
        from.links = from.links.saturating_sub(source_is_dir);
        let to = &mut self.parents.to().inode;
        to.links = to.links.saturating_add(source_is_dir).saturating_sub(found_is_dir);
        Ok(())
    }

    /// What becomes of the inode whose name was taken: it moves the other way, or loses a link.
    fn settle_other(
        &self,
        op: &mut Op<'_>,
        other: &mut Draft<'_>,
        intents: &mut Option<Intents<'a>>,
    ) -> Result<Option<Fate>> {
        let is_dir = other.inode.kind == FileKind::Directory;
        if self.mode == RenameMode::Exchange {
            other.inode.parent = self.parent_of(other.inode.kind, &self.from);
            other.stage(op)?;
            return Ok(None);
        }
        if is_dir && other.inode.size > 0 {
            return Err(Error::NotEmpty);
        }
        other.inode.links = if is_dir { 0 } else { other.inode.links.saturating_sub(1) };
        if other.inode.links > 0 {
            other.stage(op)?;
            return Ok(None);
        }
        remove::drop_inode(self.fs, op, other, intents).map(Some)
    }

    fn publish(
        self,
        moved: Draft<'_>,
        other: Option<Draft<'_>>,
        fate: Option<Fate>,
        intents: Option<Intents<'_>>,
        replaced_core: Option<&Arc<InodeCore>>,
    ) -> Result<()> {
        let fs = self.fs;
        let unfinished = replaced_core.filter(|_| fate == Some(Fate::Unfinished));
        moved.publish(fs.region())?;
        match (other, fate) {
            (Some(other), Some(fate)) => remove::publish(fs, other, fate)?,
            (Some(other), None) => other.publish(fs.region())?,
            (None, _) => {}
        }
        self.parents.from.publish(fs.region())?;
        if let Some(to) = self.parents.to {
            to.publish(fs.region())?;
        }
        remove::publish_intents(fs, intents)?;
        unfinished.map_or(Ok(()), |core| remove::delete(fs, core))
    }
}

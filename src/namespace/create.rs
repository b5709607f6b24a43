//! How does a name come to be?
//!
//! A new inode, its entry and the directory's new count and times are one record: one fence.

use super::entry::{self, Entry};
use crate::alloc::Op;
use crate::error::{Error, Result};
use crate::inode::{Draft, Fs, InodeCore, Intent, Intents, now};
use crate::io::remove::publish_intents;
use crate::io::{self, Handle};
use crate::layout::{Durability, Feature, FileKind, INODE_DURABILITY, INODE_SEQUENTIAL, Inode, RootArea};
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::tree;
use crate::units::{Ino, MAX_SYMLINK_BYTES, PoolOff};

/// What a new inode is.
#[derive(Clone, Copy, Debug)]
pub struct New<'t> {
    /// Its kind.
    pub kind: FileKind,
    /// Permission bits.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// A symbolic link's target.
    pub target: &'t [u8],
    /// `INODE_*` bits.
    pub flags: u32,
    /// How many bytes a sequential file may have; 0 for no bound.
    pub capacity: u64,
    /// The level of durability that it names; the directory's unless said.
    pub durability: Option<Durability>,
}

/// Bytes of a link target in one record of its tree.
const TARGET_PIECE: usize = 400;

fn new_inode(
    handle: &Handle,
    op: &mut Op<'_>,
    new: &New<'_>,
    links: u32,
    parent: Ino,
    (hint, inherited): (u32, u32),
) -> Result<(Ino, Inode)> {
    if new.flags & INODE_SEQUENTIAL != 0 {
        handle.fs().journal().announce(Feature::Sequential)?;
    }
    let ino = op.alloc_inode()?;
    let time = now();
    let flags = match new.kind {
        FileKind::Symlink => 0,
        _ => new.durability.map_or(inherited & INODE_DURABILITY, |level| Durability::bits(Some(level))),
    };
    let mut inode = Inode {
        version: 0,
        kind: new.kind,
        permissions: new.permissions & 0o7777,
        links,
        uid: new.uid,
        gid: new.gid,
        size: new.target.len() as u64,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        generation: generation(handle.fs(), ino)?,
        flags: flags | new.flags,
        xattrs: PoolOff(0),
        xattr_level: 0,
        parent,
        hint: if new.kind == FileKind::Symlink { 0 } else { hint },
        capacity: new.capacity,
        root: RootArea::default(),
    };
    for (i, piece) in new.target.chunks(TARGET_PIECE).enumerate() {
        tree::insert(op, &mut inode.root, ino, (i * TARGET_PIECE) as u64, piece)?;
    }
    op.write_inode(ino, &inode)?;
    Ok((ino, inode))
}

/// A number that tells the inode from those that had its slot before: versions tell them apart, and where an arena
/// was given back and opened again, so that they start anew, the epoch is another one.
fn generation(fs: &Fs, ino: Ino) -> Result<u32> {
    let version = fs.region().load(ino.offset())?.wrapping_add(1);
    Ok((fs.journal().epoch() as u32).wrapping_mul(0x9e37_79b1).wrapping_add(version as u32).max(1))
}

/// Whether something can be made in the directory.
///
/// # Errors
/// [`Error::NotDirectory`]; [`Error::NotFound`] where it was removed.
pub fn check_dir(inode: &Inode) -> Result<()> {
    if inode.kind != FileKind::Directory {
        return Err(Error::NotDirectory);
    }
    if inode.links == 0 { Err(Error::NotFound) } else { Ok(()) }
}

/// What [`create_or_find`] came upon.
#[derive(Debug)]
pub enum Made {
    /// The inode that was asked for.
    New(Handle),
    /// What had the name already.
    Found(Handle),
}

/// Makes the inode `new` under `name` in `dir`.
///
/// # Errors
/// [`Error::Exists`], unusable names, no space, damage.
pub fn create(dir: &Handle, name: &[u8], new: &New<'_>) -> Result<Handle> {
    match create_or_find(dir, name, new)? {
        Made::New(handle) => Ok(handle),
        Made::Found(_) => Err(Error::Exists),
    }
}

/// Makes the inode `new` under `name` in `dir`, unless the name is there: then what it leads to.
///
/// # Errors
/// Unusable names, no space, damage.
pub fn create_or_find(dir: &Handle, name: &[u8], new: &New<'_>) -> Result<Made> {
    make(dir, name, new, false)
}

/// Makes the directory `new` under `name` in `dir`, and notes that it is to be removed with all below it when the pool is
/// opened next, unless it is renamed before.
///
/// # Errors
/// As [`create`].
pub fn create_snapshot(dir: &Handle, name: &[u8], new: &New<'_>) -> Result<Handle> {
    dir.fs().journal().announce(Feature::Unfinished)?;
    match make(dir, name, new, true)? {
        Made::New(handle) => Ok(handle),
        Made::Found(_) => Err(Error::Exists),
    }
}

fn make(dir: &Handle, name: &[u8], new: &New<'_>, is_snapshot: bool) -> Result<Made> {
    entry::check_name(name)?;
    if new.target.len() > MAX_SYMLINK_BYTES {
        return Err(Error::TargetTooLong { len: new.target.len() });
    }
    let fs = dir.fs();
    let seed = fs.journal().seed();
    let mut parent = Draft::lock(dir.core());
    check_dir(&parent.inode)?;
    let probe = entry::probe(&*fs.space, seed, parent.ino(), &parent.inode.root, name)?;
    if let Some(found) = probe.found {
        return Ok(Made::Found(Handle::pin(fs, fs.table.get(found.ino)?)));
    }
    io::settle(fs)?;
    let is_dir = new.kind == FileKind::Directory;
    let mut op = fs.space.begin();
    let up = if is_dir { dir.ino() } else { Ino(0) };
    let inherited = (parent.inode.hint, parent.inode.flags);
    let (ino, inode) = new_inode(dir, &mut op, new, 1 + u32::from(is_dir), up, inherited)?;
    entry::put(&mut op, &mut parent, seed, name, Entry { key: probe.free, ino, kind: new.kind })?;
    parent.inode.size += 1;
    if is_dir {
        parent.inode.links = parent.inode.links.checked_add(1).ok_or(Error::TooManyLinks)?;
    }
    parent.touch(inode.mtime);
    parent.stage(&mut op)?;
    let is_noted = is_snapshot && !mutation::is(Mutation::SnapshotUnnoted);
    let mut intents = is_noted.then(|| Intents::lock(&fs.intents));
    if let Some(intents) = &mut intents {
        intents.put(&mut op, ino, Intent::Snapshot)?;
    }
    op.commit(Durable::no_data())?;
    publish_intents(fs, intents)?;
    if mutation::is(Mutation::IntroduceLate) {
        parent.publish(fs.region())?;
        return introduce(dir, ino, inode).map(Made::New);
    }
    // While nobody can find the name: who did would load a second core, or free the inode.
    let handle = introduce(dir, ino, inode)?;
    parent.publish(fs.region())?;
    Ok(Made::New(handle))
}

/// Puts the core of a new inode into the table and pins it.
fn introduce(handle: &Handle, ino: Ino, mut inode: Inode) -> Result<Handle> {
    let fs = handle.fs();
    inode.version = fs.region().load(ino.offset())?;
    let core = Arc::new(InodeCore::new(ino, inode));
    fs.table.put(core.clone());
    Ok(Handle::pin(fs, core))
}

/// Makes a file without a name: it lives as long as its handles, unless it is given one.
///
/// # Errors
/// No space, damage.
pub fn create_unnamed(dir: &Handle, new: &New<'_>) -> Result<Handle> {
    let fs = dir.fs();
    io::settle(fs)?;
    let inherited = {
        let state = dir.core().state.read();
        check_dir(&state)?;
        (state.hint, state.flags)
    };
    let mut op = fs.space.begin();
    let (ino, inode) = new_inode(dir, &mut op, new, 0, Ino(0), inherited)?;
    let mut intents = Intents::lock(&fs.intents);
    intents.put(&mut op, ino, Intent::CleanUp)?;
    op.commit(Durable::no_data())?;
    intents.publish(&fs.space)?;
    let handle = introduce(dir, ino, inode)?;
    handle.core().has_intent.store(true, Ordering::Release);
    Ok(handle)
}

//! What does a file say of itself, and how is that changed?

use super::Handle;
use super::group;
use crate::error::{Error, Result};
use crate::inode::{Draft, Fs, Intents, now};
use crate::layout::{Durability, FileKind, INODE_DURABILITY, MAX_HINT_BLOCKS};
use crate::pmem::Durable;
use crate::units::{BLOCK_BYTES, Ino};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What `stat(2)` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The inode number.
    pub ino: Ino,
    /// Differs between inodes that had the same number one after the other.
    pub generation: u32,
    /// File, directory or symbolic link.
    pub kind: FileKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file or link target, entries of a directory.
    pub size: u64,
    /// Blocks of 4 KiB that are allocated.
    pub blocks: u64,
    /// Last access, nanoseconds since 1970: set when made and by [`set`], not by reads.
    pub atime: i64,
    /// Last change of content, nanoseconds since 1970.
    pub mtime: i64,
    /// Last change of anything, nanoseconds since 1970.
    pub ctime: i64,
    /// When it was made, nanoseconds since 1970.
    pub btime: i64,
    /// How many bytes a sequential file may have (2^62 where nothing was said); `None` for anything else.
    pub capacity: Option<u64>,
    /// The extent-size hint in bytes, 0 for none.
    pub extent_hint: u64,
    /// The level of durability that it names: of its writes, or of a directory, of those of the files made in it.
    pub durability: Option<Durability>,
}

impl Metadata {
    /// Last change of content.
    #[must_use]
    pub fn modified(&self) -> SystemTime {
        let distance = Duration::from_nanos(self.mtime.unsigned_abs());
        if self.mtime < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::Regular
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }
}

/// The attributes to set; the others stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits, 0 to 0o7777.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access, nanoseconds since 1970.
    pub atime: Option<i64>,
    /// Last change of content, nanoseconds since 1970.
    pub mtime: Option<i64>,
}

/// What the inode says of itself now.
#[must_use]
pub fn metadata(handle: &Handle) -> Metadata {
    let core = handle.core();
    let state = core.state.read();
    let mut inode = core.with_lazy(&state);
    if core.pending.any() {
        let waiting = core.pending.read();
        inode.size = inode.size.max(waiting.size.unwrap_or(0));
        inode.blocks += waiting.new_blocks();
        let time = inode.mtime.max(waiting.time);
        (inode.mtime, inode.ctime) = (time, inode.ctime.max(time));
    }
    Metadata {
        ino: core.ino,
        generation: inode.generation,
        kind: inode.kind,
        mode: inode.permissions,
        links: inode.links,
        uid: inode.uid,
        gid: inode.gid,
        size: inode.size,
        blocks: inode.blocks,
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        btime: inode.btime,
        capacity: core.capacity,
        extent_hint: u64::from(inode.hint) * BLOCK_BYTES,
        durability: Durability::of_flags(inode.flags),
    }
}

/// Sets attributes, all in one durable step.
///
/// # Errors
/// Errors of the medium.
pub fn set(handle: &Handle, attributes: &SetAttributes) -> Result<()> {
    let fs = handle.fs();
    group::settle(fs)?;
    let mut draft = Draft::lock(handle.core());
    let inode = &mut draft.inode;
    inode.permissions = attributes.mode.map_or(inode.permissions, |mode| mode & 0o7777);
    inode.uid = attributes.uid.unwrap_or(inode.uid);
    inode.gid = attributes.gid.unwrap_or(inode.gid);
    inode.atime = attributes.atime.unwrap_or(inode.atime);
    inode.ctime = now();
    if let Some(mtime) = attributes.mtime {
        inode.mtime = mtime;
    }
    let mut op = fs.space.begin().for_removal();
    draft.stage(&mut op)?;
    op.commit(Durable::no_data())?;
    let forgotten = if attributes.mtime.is_some() { draft.forget_lazy(fs.region()) } else { Ok(()) };
    draft.publish(fs.region())?;
    forgotten
}

/// Sets the extent-size hint of a file, or of a directory, whose new files and directories inherit it: a multiple of 4096
/// bytes up to 1 GiB, 0 for none. Durable on return.
///
/// # Errors
/// [`Error::InvalidArgument`] for another size, and for symbolic links; errors of the medium.
pub fn set_extent_hint(handle: &Handle, bytes: u64) -> Result<()> {
    let blocks = u32::try_from(bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
    if !bytes.is_multiple_of(BLOCK_BYTES) || blocks > MAX_HINT_BLOCKS {
        return Err(Error::InvalidArgument("an extent-size hint is a multiple of 4096 bytes, up to 1 GiB"));
    }
    if handle.core().kind == FileKind::Symlink {
        return Err(Error::InvalidArgument("a symbolic link has no extent-size hint"));
    }
    let fs = handle.fs();
    group::settle(fs)?;
    let mut draft = Draft::lock(handle.core());
    draft.inode.hint = blocks;
    keep(fs, draft)
}

/// Makes `draft` durable, with the time of the change.
fn keep(fs: &Fs, mut draft: Draft<'_>) -> Result<()> {
    draft.inode.ctime = now();
    let mut op = fs.space.begin().for_removal();
    draft.stage(&mut op)?;
    op.commit(Durable::no_data())?;
    draft.publish(fs.region())
}

/// Names the level of durability of a file, or of files that will be made in a directory; `None` names none, so that
/// it is the pool's. Durable when it returns, as everything that was written before.
///
/// # Errors
/// [`Error::NotRegular`] for a symbolic link, errors of the medium.
pub fn set_durability(handle: &Handle, level: Option<Durability>) -> Result<()> {
    let (fs, core) = (handle.fs(), handle.core());
    if core.kind == FileKind::Symlink {
        return Err(Error::NotRegular);
    }
    // No write is under way at the level that was.
    let _io = (core.kind == FileKind::Regular).then(|| core.io.exclusive(0, u64::MAX));
    group::settle(fs)?;
    let mut draft = Draft::lock(core);
    draft.inode.flags = draft.inode.flags & !INODE_DURABILITY | Durability::bits(level);
    keep(fs, draft)
}

/// Sets the level of durability of files that name none. Durable when it returns, as everything that was written before.
///
/// # Errors
/// Errors of the medium.
pub fn set_pool_durability(fs: &Fs, level: Durability) -> Result<()> {
    group::settle(fs)?;
    let mut intents = Intents::lock(&fs.intents);
    let mut op = fs.space.begin().for_removal();
    intents.set_durability(&mut op, level)?;
    op.commit(Durable::no_data())?;
    intents.publish(&fs.space)?;
    fs.set_durability(level);
    Ok(())
}

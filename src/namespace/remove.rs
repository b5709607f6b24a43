//! How does a name go away?
//!
//! The entry, the directory's count and times, the inode's links, and (for the last name of an inode that nobody
//! holds) the inode and its blocks are one record: one fence. What does not fit follows under an intent.

use super::create::check_dir;
use super::entry;
use crate::error::{Error, Result};
use crate::inode::{Draft, now};
use crate::io::remove::{self, Fate};
use crate::io::{self, Handle};
use crate::layout::FileKind;

/// What kind of thing is to be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Anything but a directory.
    File,
    /// An empty directory.
    Directory,
}

/// Removes `name` from `dir`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::NotDirectory`], [`Error::NotEmpty`], damage.
pub fn remove(dir: &Handle, name: &[u8], what: What) -> Result<()> {
    entry::check_name(name)?;
    let fs = dir.fs();
    io::settle(fs)?;
    let mut parent = Draft::lock(dir.core());
    check_dir(&parent.inode)?;
    let probe = entry::probe(&*fs.space, fs.journal().seed(), parent.ino(), &parent.inode.root, name)?;
    let found = probe.found.ok_or(Error::NotFound)?;
    match (what, found.kind) {
        (What::File, FileKind::Directory) => return Err(Error::IsDirectory),
        (What::Directory, FileKind::Regular | FileKind::Symlink) => return Err(Error::NotDirectory),
        _ => {}
    }
    if found.ino == dir.ino() {
        return Err(super::loops(found.ino));
    }
    let core = fs.table.get(found.ino)?;
    let mut child = Draft::lock(&core);
    let is_dir = child.inode.kind == FileKind::Directory;
    if is_dir && child.inode.size > 0 {
        return Err(Error::NotEmpty);
    }
    let mut op = fs.space.begin().for_removal();
    entry::take(&mut op, &mut parent, found.key)?;
    parent.inode.size = parent.inode.size.saturating_sub(1);
    parent.inode.links -= u32::from(is_dir && parent.inode.links > 2);
    parent.touch(now());
    parent.stage(&mut op)?;
    child.inode.links = if is_dir { 0 } else { child.inode.links.saturating_sub(1) };
    child.inode.ctime = parent.inode.ctime;
    let mut intents = None;
    let fate = if child.inode.links == 0 {
        Some(remove::drop_inode(fs, &mut op, &mut child, &mut intents)?)
    } else {
        child.stage(&mut op)?;
        None
    };
    remove::commit(fs, op, (fate == Some(Fate::Gone)).then_some(&core))?;
    parent.publish(fs.region())?;
    match fate {
        Some(fate) => remove::publish(fs, child, fate)?,
        None => child.publish(fs.region())?,
    }
    remove::publish_intents(fs, intents)?;
    if fate == Some(Fate::Unfinished) { remove::delete(fs, &core) } else { Ok(()) }
}

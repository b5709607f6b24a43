//! How does an inode get one more name, and where does a symbolic link point?

use super::create::check_dir;
use super::entry::{self, Entry};
use crate::error::{Damage, Error, Result, Structure};
use crate::inode::{Draft, now};
use crate::io::{self, Handle};
use crate::layout::FileKind;
use crate::pmem::Durable;
use crate::tree;
use crate::units::MAX_SYMLINK_BYTES;
use std::ops::ControlFlow;

/// Gives `file` the name `name` in `dir`; a file without a name gets its first.
///
/// # Errors
/// [`Error::LinkToDirectory`], [`Error::Exists`], unusable names, no space, damage.
pub fn link(file: &Handle, dir: &Handle, name: &[u8]) -> Result<()> {
    entry::check_name(name)?;
    let fs = dir.fs();
    io::settle(fs)?;
    let seed = fs.journal().seed();
    // A directory's lock must not be asked for twice, nor after a file's.
    if file.core().kind == FileKind::Directory {
        return Err(Error::LinkToDirectory);
    }
    let mut parent = Draft::lock(dir.core());
    check_dir(&parent.inode)?;
    let probe = entry::probe(&*fs.space, seed, parent.ino(), &parent.inode.root, name)?;
    if probe.found.is_some() {
        return Err(Error::Exists);
    }
    let mut child = Draft::lock(file.core());
    child.inode.links = child.inode.links.checked_add(1).ok_or(Error::TooManyLinks)?;
    child.inode.ctime = now();
    let mut op = fs.space.begin();
    let kind = child.inode.kind;
    entry::put(&mut op, &mut parent, seed, name, Entry { key: probe.free, ino: file.ino(), kind })?;
    parent.inode.size += 1;
    parent.touch(child.inode.ctime);
    parent.stage(&mut op)?;
    child.stage(&mut op)?;
    op.commit(Durable::no_data())?;
    parent.publish(fs.region())?;
    child.publish(fs.region())
}

/// The target of a symbolic link.
///
/// # Errors
/// [`Error::NotSymlink`], damage.
pub fn target(link: &Handle) -> Result<Vec<u8>> {
    let state = link.core().state.read();
    if state.kind != FileKind::Symlink {
        return Err(Error::NotSymlink);
    }
    let mut target = Vec::new();
    let mut fits = true;
    tree::scan(&*link.fs().space, &state.root, link.ino(), 0, |key, piece| {
        fits &= key == target.len() as u64 && target.len() + piece.len() <= MAX_SYMLINK_BYTES;
        target.extend_from_slice(piece);
        Ok(if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if !fits || target.len() as u64 != state.size {
        let (at, found) = (link.ino().offset(), target.len() as u64);
        return Err(Damage::new(Structure::Inode, at, "link target", state.size, found).into());
    }
    Ok(target)
}

//! Where does a path lead?
//!
//! One component after the other, each under the shared lock of its directory, which also pins what is found.
//! Symbolic links are followed up to 40 times; `..` goes to the parent the directory names, and stays in the root.

use super::entry;
use super::link::target;
use crate::error::{Error, Result};
use crate::inode::Fs;
use crate::io::Handle;
use crate::layout::FileKind;
use crate::sync::Arc;

const MAX_SYMLINKS: u32 = 40;

/// The last component of a path, not yet looked up.
#[derive(Debug)]
pub struct Last {
    /// The directory it is in.
    pub dir: Handle,
    /// The name: not empty; may be `.` or `..`.
    pub name: Vec<u8>,
    /// A slash follows: it must be a directory.
    pub must_be_dir: bool,
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// It is.
    Yes,
    /// The link itself is meant.
    No,
}

/// The root directory.
///
/// # Errors
/// Damage.
pub fn root(fs: &Arc<Fs>) -> Result<Handle> {
    Ok(Handle::pin(fs, fs.table.get(fs.root)?))
}

/// What `name` is in `dir`; `.` and `..` too.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotDirectory`], damage.
pub fn lookup(dir: &Handle, name: &[u8]) -> Result<Handle> {
    if name.len() > crate::units::MAX_NAME_BYTES {
        return Err(Error::NameTooLong { len: name.len() });
    }
    let fs = dir.fs();
    let state = dir.core().state.read();
    if state.kind != FileKind::Directory {
        return Err(Error::NotDirectory);
    }
    let ino = match name {
        b"." => return Ok(dir.clone()),
        _ if state.links == 0 => return Err(Error::NotFound),
        b".." => state.parent,
        _ => {
            let probe = entry::probe(&*fs.space, fs.journal().seed(), dir.ino(), &state.root, name)?;
            probe.found.ok_or(Error::NotFound)?.ino
        }
    };
    Ok(Handle::pin(fs, fs.table.get(ino)?))
}

/// Splits the first component off `path`: the component and what follows its slashes.
fn split(path: &[u8]) -> (&[u8], &[u8], bool) {
    let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    let slashes = rest.iter().take_while(|b| **b == b'/').count();
    (name, &rest[slashes..], slashes > 0)
}

struct Walk {
    at: Handle,
    /// What is left of the path. A copy: the caller's may lie in a mapping, whose faults must find no directory locked.
    left: Vec<u8>,
    symlinks: u32,
}

impl Walk {
    fn start(base: &Handle, path: &[u8]) -> Result<Self> {
        let mut walk = Self { at: base.clone(), left: path.to_vec(), symlinks: 0 };
        if walk.left.is_empty() {
            return Err(Error::NotFound);
        }
        if walk.left.contains(&0) {
            return Err(Error::InvalidName);
        }
        walk.enter_root()?;
        Ok(walk)
    }

    /// Goes to the root where what is left begins with a slash.
    fn enter_root(&mut self) -> Result<()> {
        let slashes = self.left.iter().take_while(|b| **b == b'/').count();
        if slashes > 0 {
            self.at = root(self.at.fs())?;
            self.left.drain(..slashes);
        }
        Ok(())
    }

    /// Puts the target of the symbolic link `link` in front of what is left.
    fn follow(&mut self, link: &Handle, rest: &[u8], slash: bool) -> Result<()> {
        self.symlinks += 1;
        if self.symlinks > MAX_SYMLINKS {
            return Err(Error::SymlinkLoop);
        }
        let mut path = target(link)?;
        if slash {
            path.push(b'/');
        }
        path.extend_from_slice(rest);
        self.left = path;
        self.enter_root()
    }

    /// Walks until one component is left.
    fn walk_to_last(&mut self) -> Result<(Vec<u8>, bool)> {
        loop {
            let mut left = std::mem::take(&mut self.left);
            let (name, rest, slash) = split(&left);
            if name.is_empty() {
                return Ok((b".".to_vec(), slash));
            }
            if rest.is_empty() {
                return Ok((name.to_vec(), slash));
            }
            let next = lookup(&self.at, name)?;
            if is_symlink(&next) {
                self.follow(&next, rest, slash)?;
            } else {
                self.at = next;
                let used = left.len() - rest.len();
                left.drain(..used);
                self.left = left;
            }
        }
    }
}

fn is_symlink(handle: &Handle) -> bool {
    handle.core().kind == FileKind::Symlink
}

/// The directory and name that `path`, from `base`, ends in; a symbolic link at the end is not followed.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::SymlinkLoop`], damage.
pub fn to_last(base: &Handle, path: &[u8]) -> Result<Last> {
    let mut walk = Walk::start(base, path)?;
    let (name, must_be_dir) = walk.walk_to_last()?;
    Ok(Last { dir: walk.at, name, must_be_dir })
}

/// As [`to_last`], and follows symbolic links at the end as long as there are any: where a file would be made
/// by opening the path.
///
/// # Errors
/// As [`to_last`].
pub fn to_last_followed(base: &Handle, path: &[u8]) -> Result<(Last, Option<Handle>)> {
    let mut walk = Walk::start(base, path)?;
    loop {
        let (name, must_be_dir) = walk.walk_to_last()?;
        match lookup(&walk.at, &name) {
            Ok(found) if is_symlink(&found) => walk.follow(&found, b"", must_be_dir)?,
            Ok(found) => return Ok((Last { dir: walk.at, name, must_be_dir }, Some(found))),
            Err(Error::NotFound) => return Ok((Last { dir: walk.at, name, must_be_dir }, None)),
            Err(error) => return Err(error),
        }
    }
}

/// The inode at the end of `path`, from `base`.
///
/// # Errors
/// As [`to_last`].
pub fn resolve(base: &Handle, path: &[u8], follow: Follow) -> Result<Handle> {
    let last = to_last(base, path)?;
    let found = lookup(&last.dir, &last.name)?;
    if is_symlink(&found) && (follow == Follow::Yes || last.must_be_dir) {
        let (last, found) = to_last_followed(base, path)?;
        return finish(found.ok_or(Error::NotFound)?, last.must_be_dir);
    }
    finish(found, last.must_be_dir)
}

fn finish(found: Handle, must_be_dir: bool) -> Result<Handle> {
    if must_be_dir && found.core().kind != FileKind::Directory {
        return Err(Error::NotDirectory);
    }
    Ok(found)
}

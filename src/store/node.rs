//! What can be done with any inode?

use crate::error::{Error, Result};
use crate::io::{self, Handle, Metadata, SetAttributes, XattrMode, xattr};
use crate::units::MAX_NAME_BYTES;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A handle to a file, directory or symbolic link, as `open(2)` with `O_PATH` gives: it keeps the inode alive and
/// knows its attributes.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) handle: Handle,
}

/// A copy of an attribute's name: the caller's may lie in a mapping, whose faults must not find the inode locked.
fn own(name: &OsStr) -> Result<Vec<u8>> {
    let name = name.as_bytes();
    if name.len() > MAX_NAME_BYTES { Err(Error::NameTooLong { len: name.len() }) } else { Ok(name.to_vec()) }
}

impl Node {
    /// What the inode says of itself.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        io::metadata(&self.handle)
    }

    /// Sets attributes, all in one durable step.
    ///
    /// # Errors
    /// A store that takes no changes, errors of the medium.
    pub fn set_attributes(&self, attributes: &SetAttributes) -> Result<()> {
        io::set_attributes(&self.handle, attributes)
    }

    /// Says in which pieces space is best given to a file, or to what will be made in a directory: a multiple of 4096
    /// bytes up to 1 GiB, 0 for none. Where there is room, space given to a file from now on is aligned to it, in the file and
    /// as far as that is possible in the pool, and rounded up to it; where there is none, it is given as it fits. Durable on
    /// return. (XFS calls this the extent size.)
    ///
    /// # Errors
    /// Another size, a symbolic link; a store that takes no changes, errors of the medium.
    pub fn set_extent_hint(&self, bytes: u64) -> Result<()> {
        self.handle.fs().journal().writable()?;
        io::set_extent_hint(&self.handle, bytes)
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`crate::Error::NoAttribute`], damage.
    pub fn get_xattr(&self, name: impl AsRef<OsStr>) -> Result<Vec<u8>> {
        xattr::get(&self.handle, &own(name.as_ref())?)
    }

    /// Sets an extended attribute (name of 1 to 255 bytes, value of up to 64 KiB), in one durable step.
    ///
    /// # Errors
    /// [`crate::Error::Exists`] and [`crate::Error::NoAttribute`] as `mode` asks; names and values too long; no space.
    pub fn set_xattr(&self, name: impl AsRef<OsStr>, value: &[u8], mode: XattrMode) -> Result<()> {
        let name = own(name.as_ref())?;
        self.handle.fs().with_room(|| xattr::set(&self.handle, &name, value, mode))
    }

    /// Removes an extended attribute, in one durable step.
    ///
    /// # Errors
    /// [`crate::Error::NoAttribute`], damage.
    pub fn remove_xattr(&self, name: impl AsRef<OsStr>) -> Result<()> {
        xattr::remove(&self.handle, &own(name.as_ref())?)
    }

    /// The names of all extended attributes, sorted.
    ///
    /// # Errors
    /// Damage.
    pub fn list_xattrs(&self) -> Result<Vec<Vec<u8>>> {
        xattr::list(&self.handle)
    }

    /// Lets the inode go and reports what `drop` could only log: trouble with the work left for the last handle
    /// (deleting an inode without a name, trimming). Recovery does that work then.
    ///
    /// # Errors
    /// Errors of the medium, damage.
    pub fn close(self) -> Result<()> {
        self.handle.close()
    }
}

//! What is a file that is written at its end alone?
//!
//! The zone of a zoned device as a file: bytes are added where the write pointer is, which is the end of the file, up to the
//! capacity; nothing that was written changes until all of it goes by [`reset`]. What is shorter than what was written is
//! never seen, and after a crash the file is what some number of whole writes, in the order in which they were made, left:
//! each is durable, with its size, when it returns, and the next one begins after that.
//!
//! Concurrent appends queue for the bytes from the end on, as those of any file do: each gets an offset of its own, and
//! none is torn.

use super::Handle;
use super::group;
use super::read::check_regular;
use super::resize::{hold_from, shorten};
use super::turn;
use crate::error::{Error, Result};
use crate::inode::InodeCore;
use crate::iomap::FileRange;

/// Fails where `core` is a sequential file: what is to be done at `offset` is no write at its end.
///
/// # Errors
/// [`Error::NotSequential`].
pub(super) fn refuse(core: &InodeCore, offset: u64) -> Result<()> {
    match core.capacity {
        None => Ok(()),
        Some(_) => Err(Error::NotSequential { pointer: core.size(), offset }),
    }
}

/// Fails where `core` is a sequential file that does not take a write of `range`. The caller holds its end, `size`.
///
/// # Errors
/// [`Error::NotSequential`] anywhere but at the end; [`Error::SequentialFull`].
pub(super) fn admit(core: &InodeCore, range: FileRange, size: u64) -> Result<()> {
    let Some(capacity) = core.capacity else { return Ok(()) };
    if range.offset != size {
        return Err(Error::NotSequential { pointer: size, offset: range.offset });
    }
    if range.end() > capacity {
        return Err(Error::SequentialFull { capacity, pointer: size, len: range.len });
    }
    Ok(())
}

/// Takes everything out of a sequential file, in one step: it is empty, or as it was.
///
/// # Errors
/// [`Error::InvalidArgument`] for any other file; damage, errors of the medium.
pub fn reset(handle: &Handle) -> Result<()> {
    check_regular(handle)?;
    handle.fs().journal().writable()?;
    if handle.core().capacity.is_none() {
        return Err(Error::InvalidArgument("only a sequential file is reset; truncate this one"));
    }
    let (_guard, old) = hold_from(handle, 0);
    group::settle(handle.fs())?;
    let _turn = turn::resize(handle.core(), old, 0)?;
    shorten(handle, 0)
}

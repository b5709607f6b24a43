//! Where are a file's data and holes?
//!
//! Exact: unwritten space is a hole to `seek`, and the end of the file is one.

use super::Handle;
use super::read::check_regular;
use crate::error::{Error, Result};
use crate::iomap::{self, FileRange, Intent, State};
use crate::mapper::FileMap;
use crate::units::CHUNK_BYTES;
use std::ops::ControlFlow;

/// What a seek looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekFor {
    /// Bytes that were written.
    Data,
    /// Bytes that read as zeros because nothing was written, or the end of the file.
    Hole,
}

/// The first byte at or after `offset` that is what is looked for.
///
/// # Errors
/// [`Error::NoSuchOffset`] at or past the end of the file, or where no data follow; damage.
pub fn seek(handle: &Handle, offset: u64, target: SeekFor) -> Result<u64> {
    check_regular(handle)?;
    let core = handle.core();
    let _range = core.io.shared(offset, u64::MAX);
    let size = core.size();
    if offset >= size {
        return Err(Error::NoSuchOffset);
    }
    let mut found = None;
    let range = FileRange { offset, len: size - offset };
    iomap::walk(&FileMap::new(handle.fs(), core), range, Intent::Report, |map| {
        let is_data = matches!(map.state, State::Mapped(_));
        if is_data == (target == SeekFor::Data) {
            found = Some(map.range.offset);
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match (found, target) {
        (Some(at), _) => Ok(at),
        (None, SeekFor::Hole) => Ok(size),
        (None, SeekFor::Data) => Err(Error::NoSuchOffset),
    }
}

/// A run of a file, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileExtent {
    /// The bytes of the file.
    pub range: FileRange,
    /// Their state, with the pool offset where they have space.
    pub state: State,
    /// Whether other files may own some of the blocks too.
    pub shared: bool,
    /// Whether file and pool offset are congruent modulo 2 MiB and the run holds an aligned 2 MiB: whether a huge
    /// translation of some of it is possible.
    pub huge: bool,
}

/// The maximal runs of the `len` bytes from `offset`, ascending, clipped to the range; beyond the
/// end of the file, too.
///
/// # Errors
/// Not a regular file, offsets past 2^62, damage.
pub fn extents(handle: &Handle, offset: u64, len: u64) -> Result<Vec<FileExtent>> {
    check_regular(handle)?;
    let range = FileRange::new(offset, len)?;
    let core = handle.core();
    let _range = core.io.shared(range.offset, range.end());
    let mut extents = Vec::new();
    iomap::walk(&FileMap::new(handle.fs(), core), range, Intent::Report, |map| {
        extents.push(FileExtent {
            range: map.range,
            state: map.state,
            shared: map.shared,
            huge: is_huge(map.range, map.state),
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(extents)
}

fn is_huge(range: FileRange, state: State) -> bool {
    let Some(at) = state.address() else { return false };
    let congruent = at.0 % CHUNK_BYTES == range.offset % CHUNK_BYTES;
    congruent && range.offset.next_multiple_of(CHUNK_BYTES) + CHUNK_BYTES <= range.end()
}

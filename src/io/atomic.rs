//! How is a write old or new as a whole?
//!
//! A write into holes, unwritten space, shared blocks and past the end is: its record makes it visible. One that overwrites bytes that
//! can be seen goes to new blocks, which take the old ones' places in one record: two fences. What the write leaves of
//! its first and last block is copied.
//!
//! Invariants:
//! 1. What is copied of the edge blocks is read while all of the block is held in `io` and no translation of it is left,
//!    so nothing that is stored to it is lost.
//! 2. Blocks that are pinned are not exchanged: who pinned them may store to them without a translation.

use super::Handle;
use super::group;
use super::read::{check_medium, check_regular};
use super::write::{Held, Source, Take, block_start, hold, total, write_held};
use super::{sequential, turn, unshare};
use crate::error::{Error, Result};
use crate::inode::{Fs, InodeCore};
use crate::iomap::{self, FileRange, Intent, State};
use crate::mapper::{FileMap, Replacement};
use crate::pmem::DataWriter;
use crate::units::{BLOCK_BYTES, FileBlock, Run};
use std::io::IoSlice;
use std::ops::ControlFlow;

const PINNED: Error = Error::Unsupported {
    backend: "an atomic overwrite",
    why: "a mapping has blocks of the range pinned, and keeps storing to those; unpin them before",
};

/// Writes all of `buffers`, in order, from byte `offset` on, durably, in one step whatever it meets; how many bytes that
/// were.
///
/// # Errors
/// As [`super::write_vectored`]; [`Error::NotAtOnce`] where the change does not fit one record, [`Error::Unsupported`]
/// where blocks are pinned or mapped by a mapping without faults: before anything changed.
pub fn write_atomic(handle: &Handle, buffers: &[IoSlice<'_>], offset: u64) -> Result<usize> {
    check_regular(handle)?;
    handle.fs().journal().writable()?;
    let range = FileRange::new(offset, total(buffers))?;
    if range.len == 0 {
        return Ok(0);
    }
    let (_guard, size) = hold(handle.core(), range);
    sequential::admit(handle.core(), range, size)?;
    group::settle(handle.fs())?;
    write_whole(handle, buffers, range, size)
}

/// As [`write_atomic`], of bytes that are held in a file of `size` bytes in which nothing waits.
pub(super) fn write_whole(
    handle: &Handle,
    buffers: &[IoSlice<'_>],
    range: FileRange,
    size: u64,
) -> Result<usize> {
    let (fs, core) = (handle.fs(), handle.core());
    if !overwrites(fs, core, range, size)? {
        return write_held(handle, buffers, range, Held { window: range, size, take: Take::All });
    }
    // A record that takes shares of blocks is longer than one that frees them: they become the file's own before.
    unshare::tail(fs, core, range.offset, range.end())?;
    unshare::tail(fs, core, size, range.offset)?;
    let turn = turn::replace(core, range, size, range.end() > size);
    let new = Replacement::new(fs, core, range)?;
    let mut data = fs.region().data_writer();
    copy(&mut data, &new, buffers, range)?;
    turn.invalidate()?;
    if is_pinned(fs, core, range)? {
        return Err(PINNED);
    }
    copy_edges(&mut data, fs, core, &new, range, size)?;
    let durable = data.fence()?;
    new.publish(durable, range.end())?;
    if fs.region().has_bad() {
        fs.mend();
    }
    Ok(range.len as usize)
}

/// Whether a write of `range` changes bytes in place that can be seen.
fn overwrites(fs: &Fs, core: &InodeCore, range: FileRange, size: u64) -> Result<bool> {
    let seen = FileRange { offset: range.offset, len: range.end().min(size).saturating_sub(range.offset) };
    let mut found = false;
    iomap::walk(&FileMap::new(fs, core), seen, Intent::Read, |map| {
        found |= matches!(map.state, State::Mapped(_)) && !map.shared;
        Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// Copies the caller's bytes to their new places.
fn copy(
    data: &mut DataWriter<'_>,
    new: &Replacement<'_>,
    buffers: &[IoSlice<'_>],
    range: FileRange,
) -> Result<()> {
    let mut source = Source::new(buffers);
    for (place, at) in new.places() {
        let from = place.offset.max(range.offset);
        let len = place.end().min(range.end()) - from;
        source.copy_to(data, at.plus(from - place.offset), len)?;
    }
    Ok(())
}

/// Whether any block of `range` is pinned. The bytes are announced, so nobody pins them now.
fn is_pinned(fs: &Fs, core: &InodeCore, range: FileRange) -> Result<bool> {
    let mut runs = Vec::new();
    let offset = block_start(range.offset);
    let blocks = FileRange { offset, len: FileBlock::ceil(range.end()).offset() - offset };
    iomap::walk(&FileMap::new(fs, core), blocks, Intent::Report, |map| {
        runs.extend(map.state.address().map(|at| Run::new(at.block(), map.range.len / BLOCK_BYTES)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(fs.space.is_pinned(runs.into_iter()))
}

/// Fills what of the first and the last block is not written: with what the file has there, and zeros past its end.
fn copy_edges(
    data: &mut DataWriter<'_>,
    fs: &Fs,
    core: &InodeCore,
    new: &Replacement<'_>,
    range: FileRange,
    size: u64,
) -> Result<()> {
    let edges =
        [(block_start(range.offset), range.offset), (range.end(), FileBlock::ceil(range.end()).offset())];
    for (from, to) in edges.into_iter().filter(|(from, to)| from < to) {
        let Some(at) = new.place_of(from) else { continue };
        let old = read_edge(fs, core, FileRange { offset: from, len: to - from }, size)?;
        data.copy(at, &old)?;
    }
    Ok(())
}

/// What the file has in `range`, a part of one block; zeros past its end.
///
/// # Errors
/// [`Error::BadMedium`], damage.
pub(super) fn read_edge(fs: &Fs, core: &InodeCore, range: FileRange, size: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; range.len as usize];
    let seen = FileRange { len: range.end().min(size).saturating_sub(range.offset), ..range };
    iomap::walk(&FileMap::new(fs, core), seen, Intent::Read, |map| {
        if let State::Mapped(at) = map.state {
            check_medium(fs, core.ino, map.range, at)?;
            let from = (map.range.offset - range.offset) as usize;
            fs.region().read(at, &mut bytes[from..from + map.range.len as usize])?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(bytes)
}

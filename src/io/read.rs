//! How is a file read?
//!
//! Under the shared byte range: what is mapped is copied, holes and unwritten space are zeros. No fence. What the medium
//! has lost is not touched: a read ends before it, and is an error where it begins with it.

use super::Handle;
use crate::error::{Error, Result};
use crate::inode::Fs;
use crate::iomap::{self, FileRange, Intent, IomapOps, State};
use crate::layout::FileKind;
use crate::mapper::FileMap;
use crate::units::{Ino, PoolOff};
use std::io::IoSliceMut;
use std::ops::ControlFlow;

/// Fails unless `handle` is a regular file.
///
/// # Errors
/// [`Error::IsDirectory`], [`Error::NotRegular`].
pub fn check_regular(handle: &Handle) -> Result<()> {
    match handle.core().kind {
        FileKind::Regular => Ok(()),
        FileKind::Directory => Err(Error::IsDirectory),
        FileKind::Symlink => Err(Error::NotRegular),
    }
}

/// Buffers to be filled one after the other.
struct Sink<'s, 'b> {
    buffers: std::slice::IterMut<'s, IoSliceMut<'b>>,
    current: &'s mut [u8],
}

impl<'s, 'b> Sink<'s, 'b> {
    fn new(buffers: &'s mut [IoSliceMut<'b>]) -> Self {
        Self { buffers: buffers.iter_mut(), current: &mut [] }
    }

    /// Gives the next `len` bytes, buffer by buffer, to `f` with how many came before.
    fn fill(&mut self, len: u64, mut f: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<()> {
        let mut done = 0;
        while done < len {
            if self.current.is_empty() {
                let Some(next) = self.buffers.next() else { return Ok(()) };
                self.current = next;
            }
            let part = self.current.len().min((len - done) as usize);
            let (now, later) = std::mem::take(&mut self.current).split_at_mut(part);
            f(done, now)?;
            self.current = later;
            done += part as u64;
        }
        Ok(())
    }
}

/// Fills `buffer` where `range`, which is held, is one mapped run: the usual case, short enough that the processor
/// overlaps one such read with the next.
fn copy_one_run(handle: &Handle, buffer: &mut [u8], range: FileRange) -> Result<bool> {
    if range.len == 0 {
        return Ok(false);
    }
    let (fs, core) = (handle.fs(), handle.core());
    let map = FileMap::new(fs, core).begin(range, Intent::Read)?;
    match map.state {
        State::Mapped(at) if map.range == range => match fs.region().read(at, buffer) {
            Err(Error::Corrupt(_)) => Ok(false),
            read => read.map(|()| true),
        },
        _ => Ok(false),
    }
}

/// What is lost of a file where the medium has lost bytes of one of its runs, which is `range` of it and lies at `from`.
///
/// # Errors
/// [`Error::BadMedium`] with the first byte lost.
pub fn check_medium(fs: &Fs, ino: Ino, range: FileRange, from: PoolOff) -> Result<()> {
    match fs.region().bad(from, range.len) {
        None => Ok(()),
        Some((at, len)) => {
            Err(Error::BadMedium { at, ino: ino.0, offset: range.offset + (at.0 - from.0), len })
        }
    }
}

/// Fills `sink` from `range`, which is held, run by run: how many bytes came before one that the medium has lost.
///
/// # Errors
/// [`Error::BadMedium`] where none did; damage.
fn copy_runs(handle: &Handle, sink: &mut Sink<'_, '_>, range: FileRange) -> Result<u64> {
    let (fs, core) = (handle.fs(), handle.core());
    let mut copied = 0;
    iomap::walk(&FileMap::new(fs, core), range, Intent::Read, |map| {
        let (mut len, mut lost) = (map.range.len, Ok(()));
        if let State::Mapped(at) = map.state {
            lost = check_medium(fs, core.ino, map.range, at);
            if let Err(Error::BadMedium { offset, .. }) = &lost {
                len = offset - map.range.offset;
            }
        }
        sink.fill(len, |done, buffer| match map.state {
            State::Mapped(at) => fs.region().read(at.plus(done), buffer),
            State::Hole | State::Reserved | State::Unwritten(_) => {
                buffer.fill(0);
                Ok(())
            }
        })?;
        copied += len;
        match lost {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(_) if copied > 0 => Ok(ControlFlow::Break(())),
            Err(lost) => Err(lost),
        }
    })?;
    Ok(copied)
}

/// Reads from byte `offset` into `buffers`, in order: how many bytes there were, 0 at or past the end; fewer before bytes
/// that the medium has lost.
///
/// # Errors
/// Not a regular file, offsets past 2^62, damage; [`Error::BadMedium`] where the medium has lost the first byte.
pub fn read_vectored(handle: &Handle, buffers: &mut [IoSliceMut<'_>], offset: u64) -> Result<usize> {
    check_regular(handle)?;
    let len = buffers.iter().map(|b| b.len() as u64).sum();
    let asked = FileRange::new(offset, len)?;
    let _range = handle.core().io.shared(offset, asked.end());
    read_held(handle, buffers, asked)
}

/// As [`read_vectored`] of `asked`, which is as long as the buffers and held in `io`.
pub(super) fn read_held(handle: &Handle, buffers: &mut [IoSliceMut<'_>], asked: FileRange) -> Result<usize> {
    let size = handle.core().size();
    let range = FileRange { offset: asked.offset, len: asked.len.min(size.saturating_sub(asked.offset)) };
    if let [buffer] = buffers
        && copy_one_run(handle, &mut buffer[..range.len as usize], range)?
    {
        return Ok(range.len as usize);
    }
    copy_runs(handle, &mut Sink::new(buffers), range).map(|len| len as usize)
}

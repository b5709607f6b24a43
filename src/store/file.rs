//! What can be done with a file?

use super::node::Node;
use crate::error::{Error, Result};
use crate::io::{self, AllocateMode, Defragmented, FileExtent, SeekFor, WriteFlags};
use crate::iomap::FileRange;
use crate::units::MAX_FILE_BYTES;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Deref;

/// An open file. Reads and writes name their offset, as `std::os::unix::fs::FileExt` does; clones share nothing but
/// the file. Every call that changes the file is durable and atomic when it returns; the one exception are the
/// bytes of an overwrite in place, of which each aligned 8-byte word is old or new after a power cut. Other levels of
/// [durability](Self::durability) promise more of overwrites, or later durability.
#[derive(Clone, Debug)]
pub struct File {
    pub(super) node: Node,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) append: bool,
    /// What every write through this handle asks for.
    pub(super) flags: WriteFlags,
}

impl Deref for File {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl File {
    pub(super) fn reads(&self) -> Result<()> {
        if self.read { Ok(()) } else { Err(Error::NotOpenedFor("reading")) }
    }

    pub(super) fn writes(&self) -> Result<()> {
        if self.write { Ok(()) } else { Err(Error::NotOpenedFor("writing")) }
    }

    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.metadata().size
    }

    /// Whether the file has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads into `buf` from byte `offset`: how many bytes there were, 0 at or past the end; fewer before bytes that the
    /// medium has lost.
    ///
    /// # Errors
    /// [`Error::NotOpenedFor`], damage; [`Error::BadMedium`] where the medium has lost the first byte.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.read_vectored_at(&mut [IoSliceMut::new(buf)], offset)
    }

    /// Reads into the buffers, in order, from byte `offset`: how many bytes there were, as [`Self::read_at`].
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> Result<usize> {
        self.reads()?;
        io::read_vectored(&self.node.handle, bufs, offset)
    }

    /// Fills `buf` from byte `offset`.
    ///
    /// # Errors
    /// [`Error::UnexpectedEnd`] where the file ends before, [`Error::BadMedium`] where the medium has lost some of them;
    /// damage.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.reads()?;
        let (wanted, mut found) = (buf.len(), 0);
        while found < wanted {
            match self.read_at(&mut buf[found..], offset.saturating_add(found as u64))? {
                0 => return Err(Error::UnexpectedEnd { wanted, found }),
                more => found += more,
            }
        }
        Ok(())
    }

    /// Writes `buf` at byte `offset` (at the end, if opened to append): how many bytes were taken; all, unless the
    /// pool is so fragmented that the extents do not fit one journal record.
    ///
    /// # Errors
    /// [`Error::NoSpace`] (before anything changed), [`Error::NotOpenedFor`], damage. [`Error::BadMedium`] (before anything
    /// changed) where the medium has lost bytes of a block of 4 KiB, and the write covers only a part of what the file
    /// has in it: a write that covers all of it repairs it.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        self.write_vectored_at(&[IoSlice::new(buf)], offset)
    }

    /// Writes the buffers, in order, as [`Self::write_at`].
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        self.write_vectored_with(bufs, offset, WriteFlags::NONE)
    }

    /// As [`Self::write_at`], with more asked of this one call than of the others.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn write_at_with(&self, buf: &[u8], offset: u64, flags: WriteFlags) -> Result<usize> {
        self.write_vectored_with(&[IoSlice::new(buf)], offset, flags)
    }

    /// As [`Self::write_vectored_at`], with more asked of this one call than of the others, as `pwritev2(2)`.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn write_vectored_with(&self, bufs: &[IoSlice<'_>], offset: u64, flags: WriteFlags) -> Result<usize> {
        self.writes()?;
        let (handle, flags) = (&self.node.handle, self.flags.or(flags));
        if self.append {
            handle.fs().with_room(|| io::append_vectored(handle, bufs, flags))?;
            return Ok(bufs.iter().map(|buf| buf.len()).sum());
        }
        handle.fs().with_room(|| io::write_vectored(handle, bufs, offset, flags))
    }

    /// Writes all of `buf` at byte `offset`: one atomic step if [`Self::write_at`] takes it at once.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            done += self.write_at(&buf[done..], offset + done as u64)?;
        }
        Ok(())
    }

    /// Writes all of `buf` at the end of the file, wherever that is, in one atomic step: the offset it got.
    ///
    /// # Errors
    /// As [`Self::write_at`]; [`Error::TooBig`] where the pool is so fragmented that the extents do not fit one journal
    /// record: append less at a time.
    pub fn append(&self, buf: &[u8]) -> Result<u64> {
        self.writes()?;
        let handle = &self.node.handle;
        handle.fs().with_room(|| io::append_vectored(handle, &[IoSlice::new(buf)], self.flags))
    }

    /// Sets the size in bytes: cuts the file, or makes it longer by a hole.
    ///
    /// # Errors
    /// [`Error::NotOpenedFor`], sizes past 2^62, damage.
    pub fn set_len(&self, size: u64) -> Result<()> {
        self.writes()?;
        io::set_len(&self.node.handle, size)
    }

    /// Gives space to, takes it from, or zeroes the `len` bytes from `offset`, as `fallocate(2)`.
    ///
    /// # Errors
    /// [`Error::NoSpace`] (before anything changed), [`Error::NotOpenedFor`], an empty range, damage.
    pub fn allocate(&self, offset: u64, len: u64, mode: AllocateMode) -> Result<()> {
        self.writes()?;
        let handle = &self.node.handle;
        handle.fs().with_room(|| io::allocate(handle, offset, len, mode))
    }

    /// Where the next byte of a sequential file is to be written, its size; `None` for any other file. Others may write
    /// meanwhile: [`Self::append`] tells where its bytes are.
    #[must_use]
    pub fn write_pointer(&self) -> Option<u64> {
        self.node.handle.core().capacity.map(|_| self.len())
    }

    /// How many bytes a sequential file may have, 2^62 where nothing else was said; `None` for any other file.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        self.node.handle.core().capacity
    }

    /// Takes everything out of a sequential file: after a crash it is empty or as it was.
    ///
    /// # Errors
    /// [`Error::NotOpenedFor`], any other file, damage, errors of the medium.
    pub fn reset(&self) -> Result<()> {
        self.writes()?;
        io::reset(&self.node.handle)
    }

    /// Moves each 2 MiB slot of the file that has no hole and is not one chunk of the pool into one, so that one
    /// translation of 2 MiB can serve it. Content, size and times stay as they are, whatever happens meanwhile; each slot is
    /// durable when the call comes to the next. Readers and writers wait for one slot at a time, and mappings lose
    /// their translations of it until it has moved.
    ///
    /// # Errors
    /// [`Error::NotOpenedFor`], damage, errors of the medium. What was moved before stays so. No free chunk is no error:
    /// [`Defragmented`] says how many slots were left for want of one.
    pub fn defrag(&self) -> Result<Defragmented> {
        self.defrag_range(0, MAX_FILE_BYTES)
    }

    /// As [`Self::defrag`], for the 2 MiB slots that lie in the `len` bytes from `offset`.
    ///
    /// # Errors
    /// As [`Self::defrag`]; offsets past 2^62.
    pub fn defrag_range(&self, offset: u64, len: u64) -> Result<Defragmented> {
        self.writes()?;
        io::defrag(&self.node.handle, FileRange::new(offset, len)?)
    }

    /// The first byte of data at or after `offset`.
    ///
    /// # Errors
    /// [`Error::NoSuchOffset`] where none follows, damage.
    pub fn seek_data(&self, offset: u64) -> Result<u64> {
        io::seek(&self.node.handle, offset, SeekFor::Data)
    }

    /// The first byte at or after `offset` that was never written, or the end of the file.
    ///
    /// # Errors
    /// [`Error::NoSuchOffset`] at or past the end, damage.
    pub fn seek_hole(&self, offset: u64) -> Result<u64> {
        io::seek(&self.node.handle, offset, SeekFor::Hole)
    }

    /// The maximal runs of one state in the `len` bytes from `offset`, ascending.
    ///
    /// # Errors
    /// Offsets past 2^62, damage.
    pub fn extents(&self, offset: u64, len: u64) -> Result<Vec<FileExtent>> {
        io::extents(&self.node.handle, offset, len)
    }

    /// Makes everything about the file durable: what was stored to it through memory mappings before the call, and every
    /// ordered write that has returned, of other files too. Everything else is already, every call was when it
    /// returned; without mappings and ordered writes there is no fence.
    ///
    /// # Errors
    /// A store that takes no more changes because an earlier one failed; of flushing, those of the system.
    pub fn sync_all(&self) -> Result<()> {
        let handle = &self.node.handle;
        handle.fs().journal().healthy()?;
        io::settle(handle.fs())?;
        match handle.core().space.get() {
            Some(space) => space.sync(self, FileRange { offset: 0, len: MAX_FILE_BYTES }).map(|_| ()),
            None => Ok(()),
        }
    }

    /// As [`Self::sync_all`].
    ///
    /// # Errors
    /// As [`Self::sync_all`].
    pub fn sync_data(&self) -> Result<()> {
        self.sync_all()
    }

    /// Lets the file go, as [`Node::close`], after all reads and writes of it that are in flight, whoever began them.
    ///
    /// # Errors
    /// As [`Node::close`].
    pub fn close(self) -> Result<()> {
        io::drain(&self.node.handle);
        self.node.close()
    }
}

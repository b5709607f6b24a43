//! How is a file written?
//!
//! Under the exclusive byte range. Bytes of mapped blocks are overwritten in place: copy, fence, done. New and
//! unwritten blocks are filled, fenced, and become the file's with its size in one record: all or nothing. Space is
//! reserved before the first store. Blocks that the medium has lost are replaced by new ones where the write covers all
//! that the file has in them.

use super::group;
use super::ordered;
use super::read::{check_medium, check_regular};
use super::{Handle, WriteFlags, sequential, turn, unshare};
use crate::error::{Error, Result};
use crate::inode::{Fs, InodeCore, RangeGuard, coarse_now};
use crate::iomap::{self, Before, FileRange, Intent, IomapOps, State, WriteMap};
use crate::layout::Durability;
use crate::mapper::{FileMap, Writer};
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::{DataWriter, Durable};
use crate::units::{BLOCK_BYTES, FileBlock, MAX_FILE_BYTES, PoolOff};
use std::io::IoSlice;
use std::ops::ControlFlow;

/// Buffers to be written one after the other.
pub(super) struct Source<'s, 'b> {
    buffers: std::slice::Iter<'s, IoSlice<'b>>,
    current: &'s [u8],
}

impl<'s, 'b> Source<'s, 'b> {
    pub(super) fn new(buffers: &'s [IoSlice<'b>]) -> Self {
        Self { buffers: buffers.iter(), current: &[] }
    }

    /// Copies the next `len` bytes, or what there is, to `at`.
    pub(super) fn copy_to(&mut self, writer: &mut DataWriter<'_>, at: PoolOff, len: u64) -> Result<()> {
        self.take(len, |done, bytes| writer.copy(at.plus(done), bytes))
    }

    /// Gives the next `len` bytes, or what there is, piece by piece to `f` with how many came before.
    pub(super) fn take(&mut self, len: u64, mut f: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut done = 0;
        while done < len {
            if self.current.is_empty() {
                let Some(next) = self.buffers.next() else { return Ok(()) };
                self.current = next;
            }
            let part = self.current.len().min((len - done) as usize);
            let (now, later) = self.current.split_at(part);
            f(done, now)?;
            self.current = later;
            done += part as u64;
        }
        Ok(())
    }
}

/// Waits for everything that reads or writes bytes of the file now, queued or not.
pub fn drain(handle: &Handle) {
    if check_regular(handle).is_ok() {
        drop(handle.core().io.exclusive(0, u64::MAX));
    }
}

/// Holds what a write of `range` needs: its blocks, and everything from the end on if it makes the file longer.
/// Returns the file's size too, which stands still where the write goes past it.
#[inline]
pub(super) fn hold(core: &InodeCore, range: FileRange) -> (RangeGuard<'_>, u64) {
    loop {
        let size = core.size();
        let (start, end) = held_bytes(range, size);
        let guard = core.io.exclusive(start, end);
        if core.size() == size {
            return (guard, size);
        }
    }
}

/// The bytes that a write of `range` holds, of a file of `size` bytes.
#[inline]
pub(super) fn held_bytes(range: FileRange, size: u64) -> (u64, u64) {
    if range.end() > size {
        (block_start(range.offset.min(size)), u64::MAX)
    } else {
        (block_start(range.offset), FileBlock::ceil(range.end()).offset())
    }
}

pub(super) const fn block_start(offset: u64) -> u64 {
    offset - offset % BLOCK_BYTES
}

/// Writes `buffers`, in order, from byte `offset` on; how many bytes it took, all of them unless the pool is so
/// fragmented that the extents do not fit one record. In `strict` a write is durable when it returns and leaves no line
/// dirty, so that flags ask for nothing more; at `ordered`, [`WriteFlags::DSYNC`] makes all durable that waits.
///
/// # Errors
/// Not a regular file, offsets past 2^62, no space (before anything changed), damage; [`Error::BadMedium`] (before
/// anything changed) where the medium has lost bytes of a block that the write does not replace as a whole; of a
/// sequential file [`Error::NotSequential`] anywhere but at its end, [`Error::SequentialFull`].
pub fn write_vectored(
    handle: &Handle,
    buffers: &[IoSlice<'_>],
    offset: u64,
    flags: WriteFlags,
) -> Result<usize> {
    check_regular(handle)?;
    handle.fs().journal().writable()?;
    let range = FileRange::new(offset, total(buffers))?;
    if range.len == 0 {
        return Ok(0);
    }
    let (fs, core) = (handle.fs(), handle.core());
    let (guard, size) = hold(core, range);
    if let Some(at) = place_at_once(fs, core, range, size) {
        return store_in_place(fs, core, buffers, at).map(|()| range.len as usize);
    }
    write_in_turn(handle, buffers, range, guard, size, flags)
}

/// Where `range` of a file of `size` bytes, which is held, lies in the pool, if it can be overwritten there and nothing asks for
/// more than that: the file's run that was looked for last holds all of it, its level is `strict`, nothing waits to be
/// made durable, and nobody has the file mapped. `None` says nothing: whoever gets it asks the tree.
#[inline]
fn place_at_once(fs: &Fs, core: &InodeCore, range: FileRange, size: u64) -> Option<PoolOff> {
    if range.end() > size
        || core.capacity.is_some()
        || fs.durability_of(core) != Durability::Strict
        || fs.ordered.waits()
        || core.space.is_used()
    {
        return None;
    }
    let at = FileMap::new(fs, core).recent(range)?;
    fs.region().bad(at, range.len).is_none().then_some(at)
}

/// Writes `range`, which `guard` holds, of a file of `size` bytes, whatever has to be asked and done for it.
#[inline(never)]
fn write_in_turn(
    handle: &Handle,
    buffers: &[IoSlice<'_>],
    range: FileRange,
    guard: RangeGuard<'_>,
    size: u64,
    flags: WriteFlags,
) -> Result<usize> {
    let core = handle.core();
    sequential::admit(core, range, size)?;
    let window = hinted(core, range);
    if window == range {
        return write_as_asked(handle, buffers, range, Held { window, size, take: Take::Some }, flags);
    }
    if range.end() <= size && handle.fs().durability_of(core) == Durability::Strict {
        group::settle(handle.fs())?;
        if overwrite(handle, buffers, range)? {
            return Ok(range.len as usize);
        }
    }
    // Space may be given to more than is written: that is held too.
    drop(guard);
    let (_guard, size) = hold(core, window);
    sequential::admit(core, range, size)?;
    write_as_asked(handle, buffers, range, Held { window, size, take: Take::Some }, flags)
}

/// `range` rounded outwards to what the file's extent-size hint says.
pub(super) fn hinted(core: &InodeCore, range: FileRange) -> FileRange {
    let unit = core.hint() * BLOCK_BYTES;
    if unit <= BLOCK_BYTES {
        return range;
    }
    let offset = range.offset - range.offset % unit;
    let end = range.end().checked_next_multiple_of(unit).unwrap_or(MAX_FILE_BYTES).min(MAX_FILE_BYTES);
    FileRange { offset, len: end - offset }
}

/// Writes all of `buffers` at the end of the file, wherever that is; returns the offset they got.
///
/// # Errors
/// As [`write_vectored`]; [`Error::TooBig`] where the pool is so fragmented that the extents do not fit one record.
pub fn append_vectored(handle: &Handle, buffers: &[IoSlice<'_>], flags: WriteFlags) -> Result<u64> {
    check_regular(handle)?;
    handle.fs().journal().writable()?;
    let len = total(buffers);
    let core = handle.core();
    loop {
        let size = core.size();
        let range = FileRange::new(size, len)?;
        let _guard = core.io.exclusive(block_start(size), u64::MAX);
        if core.size() == size || mutation::is(Mutation::StaleEnd) {
            if len > 0 {
                sequential::admit(core, range, size)?;
                // From the end on all is held.
                let window = hinted(core, range);
                let window = FileRange { offset: block_start(size), len: window.end() - block_start(size) };
                write_as_asked(handle, buffers, range, Held { window, size, take: Take::All }, flags)?;
            }
            return Ok(size);
        }
    }
}

pub(super) fn total(buffers: &[IoSlice<'_>]) -> u64 {
    buffers.iter().map(|b| b.len() as u64).sum()
}

/// What is known of a write under its lock.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// What is held, the range that is written and perhaps more.
    pub window: FileRange,
    /// The file's size.
    pub size: u64,
    pub take: Take,
}

/// What of its bytes a write must take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// As many as fit one record.
    Some,
    /// All, or it fails.
    All,
}

/// Writes bytes that are held at the file's level of durability, or, if `flags` ask for it, so that they are durable.
fn write_as_asked(
    handle: &Handle,
    buffers: &[IoSlice<'_>],
    range: FileRange,
    held: Held,
    flags: WriteFlags,
) -> Result<usize> {
    let (fs, size) = (handle.fs(), held.size);
    let level = fs.durability_of(handle.core());
    if level == Durability::Ordered && ordered::write(handle, buffers, range, size)? {
        if flags.writes_through() {
            group::settle(fs)?;
        }
        return Ok(range.len as usize);
    }
    group::settle(fs)?;
    match level {
        Durability::Strict => write_held(handle, buffers, range, held),
        Durability::AtomicData | Durability::Ordered => {
            super::atomic::write_whole(handle, buffers, range, size)
        }
    }
}

pub(super) fn write_held(
    handle: &Handle,
    buffers: &[IoSlice<'_>],
    range: FileRange,
    Held { window, size, take }: Held,
) -> Result<usize> {
    let (fs, core) = (handle.fs(), handle.core());
    if range.end() <= size && overwrite(handle, buffers, range)? {
        return Ok(range.len as usize);
    }
    unshare::tail(fs, core, size, range.offset)?;
    let turn = turn::allocate(fs, core, window, size, range.end() > size)?;
    let mut map = Writer::new(fs, core, range, size)?.within(window);
    let mut data = fs.region().data_writer();
    if range.offset > size && !mutation::is(Mutation::NoTailZero) {
        zero_tail(fs, core, &mut data, size, range.offset)?;
    }
    let mut source = Source::new(buffers);
    let taken = iomap::walk_write(&mut map, range, |place| {
        fill(fs, &mut data, place, size, &mut source)?;
        Ok(place.range.len)
    })?;
    if taken < range.len && take == Take::All {
        return Err(Error::TooBig { needed: range.len, capacity: fs.journal().capacity() });
    }
    let end = range.offset + taken;
    let (mends, copies) = (map.replaces_bad(), map.replaces_shared());
    if map.needs_record(end) {
        let durable =
            if copies && mutation::is(Mutation::NoCopyFence) { Durable::no_data() } else { data.fence()? };
        turn.invalidate()?;
        map.publish(durable, end)?;
    } else {
        core.touch_lazily(fs.region(), coarse_now())?;
        let _overwritten = data.fence()?;
    }
    if mends {
        fs.mend();
    }
    Ok(taken as usize)
}

/// Overwrites `range` in place where it is one mapped run of the file's own: the usual case of a file that was written before, and the
/// one that takes no transaction.
fn overwrite(handle: &Handle, buffers: &[IoSlice<'_>], range: FileRange) -> Result<bool> {
    let (fs, core) = (handle.fs(), handle.core());
    let map = FileMap::new(fs, core).begin(range, Intent::Read)?;
    let State::Mapped(at) = map.state else { return Ok(false) };
    if map.shared || map.range != range || fs.region().bad(at, range.len).is_some() {
        return Ok(false);
    }
    turn::settle(core, range);
    store_in_place(fs, core, buffers, at).map(|()| true)
}

/// Stores `buffers` to the file's own blocks at `at`, durably.
#[inline]
fn store_in_place(fs: &Fs, core: &InodeCore, buffers: &[IoSlice<'_>], mut at: PoolOff) -> Result<()> {
    let mut data = fs.region().data_writer();
    for buffer in buffers {
        data.copy(at, buffer)?;
        at = at.plus(buffer.len() as u64);
    }
    // Here, the clock is read while the copies are on their way. What takes a lock waits for them: every 4 ms, the time does.
    core.touch_lazily(fs.region(), coarse_now())?;
    data.fence().map(drop)
}

/// Copies the source into `place`, and zeroes what of its first and last block is not written, or copies that from where
/// the file, of `size` bytes, has it.
fn fill(
    fs: &Fs,
    data: &mut DataWriter<'_>,
    place: &WriteMap,
    size: u64,
    source: &mut Source<'_, '_>,
) -> Result<()> {
    let range = place.range;
    let head = range.offset % BLOCK_BYTES;
    let tail = range.end().next_multiple_of(BLOCK_BYTES) - range.end();
    let (first, last) = (PoolOff(place.at.0 - head), place.at.plus(range.len));
    match place.before {
        Before::Data => {}
        Before::Unwritten | Before::New => {
            data.zero(first, head)?;
            data.zero(last, tail)?;
        }
        Before::Shared(from) => {
            let edge = |offset: u64, len: u64| FileRange { offset, len };
            keep(fs, data, edge(range.offset - head, head), size, PoolOff(from.0 - head), first)?;
            keep(fs, data, edge(range.end(), tail), size, from.plus(range.len), last)?;
        }
    }
    source.copy_to(data, place.at, place.range.len)
}

/// Copies the bytes `range` of a file, less than a block, from `from` to `to`; zeros where they lie beyond its end.
fn keep(
    fs: &Fs,
    data: &mut DataWriter<'_>,
    range: FileRange,
    size: u64,
    from: PoolOff,
    to: PoolOff,
) -> Result<()> {
    let kept = range.len.min(size.saturating_sub(range.offset));
    if kept > 0 {
        let mut bytes = [0; BLOCK_BYTES as usize];
        let bytes = &mut bytes[..kept as usize];
        fs.region().read(from, bytes)?;
        data.copy(to, bytes)?;
    }
    data.zero(to.plus(kept), range.len - kept)
}

/// Zeroes what the last block of a file of `size` bytes holds beyond the end, durably, unless it is zeros: a mapping of
/// the file would show it.
///
/// # Errors
/// Damage, errors of the medium, [`Error::ReadOnly`].
pub(super) fn clean_last_block(fs: &Fs, core: &InodeCore, size: u64) -> Result<()> {
    let range = FileRange { offset: size, len: FileBlock::ceil(size).offset() - size };
    // A store that takes no stores shows what is there: bytes that the file held once.
    if range.len == 0 || fs.journal().writable().is_err() {
        return Ok(());
    }
    let map = FileMap::new(fs, core).begin(range, Intent::Read)?;
    let State::Mapped(at) = map.state else { return Ok(()) };
    let (mut piece, mut done) = ([0; 64], 0);
    while done < range.len {
        let part = &mut piece[..(range.len - done).min(64) as usize];
        fs.region().read(at.plus(done), part)?;
        if part.iter().any(|byte| *byte != 0) {
            if map.shared {
                // The copy has zeros there.
                return unshare::tail(fs, core, size, FileBlock::ceil(size).offset());
            }
            let mut data = fs.region().data_writer();
            data.zero(at, range.len)?;
            return data.fence().map(drop);
        }
        done += part.len() as u64;
    }
    Ok(())
}

/// Zeroes what data lie in the bytes from the old end `size` to `to`: they come to light when the file grows, and whatever
/// a longer file left there must not. That is the rest of the last block, and whole blocks only where freeing them
/// failed after a truncate (a bad medium).
///
/// # Errors
/// Damage, errors of the medium.
pub fn zero_tail(fs: &Fs, core: &InodeCore, data: &mut DataWriter<'_>, size: u64, to: u64) -> Result<bool> {
    let mut any = false;
    let range = FileRange { offset: size, len: to.saturating_sub(size) };
    iomap::walk(&FileMap::new(fs, core), range, Intent::Read, |map| {
        if let State::Mapped(at) = map.state {
            check_medium(fs, core.ino, map.range, at)?;
            unshare::check(map)?;
            data.zero(at, map.range.len)?;
            any = true;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(any)
}

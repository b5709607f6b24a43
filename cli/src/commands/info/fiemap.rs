//! Where on its device does a file of the host lie, and what of it was written?
//!
//! `FS_IOC_FIEMAP` without `FIEMAP_FLAG_SYNC`: a sync of a DAX file makes every page fault again.

use daxstore::units::CHUNK_BYTES;
use rustix::ioctl::{self, Updater, opcode};
use std::fs::File;
use std::io;

/// A run of a file's blocks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the file's start.
    pub logical: u64,
    /// Bytes from the device's start.
    pub physical: u64,
    /// Bytes.
    pub len: u64,
    reserved: [u64; 2],
    /// `FIEMAP_EXTENT_...`
    pub flags: u32,
    reserved_flags: [u32; 3],
}

const LAST: u32 = 0x1;
/// Unknown place, delayed allocation, encoded, data that is not aligned: no memory is mapped from such.
const NOWHERE: u32 = 0x2 | 0x4 | 0x8 | 0x100;
/// Allocated and never written.
const UNWRITTEN: u32 = 0x800;
/// Extents a call.
const BATCH: usize = 64;

#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; BATCH],
}

/// The number that the kernel knows the call by holds the size of the request without its extents.
const FIEMAP: ioctl::Opcode = opcode::read_write::<[u64; 4]>(b'f', 11);

/// The extents of `file`, ascending; none where its file system can not tell.
pub fn extents(file: &File) -> io::Result<Option<Vec<Extent>>> {
    let mut all: Vec<Extent> = Vec::new();
    loop {
        let start = all.last().map_or(0, |extent| extent.logical + extent.len);
        let extents = [Extent::default(); BATCH];
        let count = BATCH as u32;
        let mut request =
            Request { start, length: u64::MAX - start, flags: 0, mapped: 0, count, reserved: 0, extents };
        // SAFETY: the request is what `FS_IOC_FIEMAP` takes, and it has room for `count` extents.
        let done = unsafe { ioctl::ioctl(file, Updater::<FIEMAP, Request>::new(&mut request)) };
        match done {
            Ok(()) => {}
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOTTY) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let found = &request.extents[..(request.mapped as usize).min(BATCH)];
        all.extend(found);
        if found.last().is_none_or(|extent| extent.flags & LAST != 0) {
            return Ok(Some(all));
        }
    }
}

/// What a pool's file is as memory, in chunks of 2 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Chunks that the file has.
    pub chunks: u64,
    /// Chunks with a block that lies elsewhere on the device, modulo 2 MiB, than in the file.
    pub askew: u64,
    /// Chunks with a block that is a hole or was never written.
    pub unwritten: u64,
}

impl Layout {
    /// The layout of a file of `size` bytes with these extents, on a device that starts at byte `start` of memory.
    pub fn new(size: u64, start: u64, extents: &[Extent]) -> Self {
        let mut layout = Self { chunks: size / CHUNK_BYTES, ..Self::default() };
        let (mut written_chunks, mut at) = (0, Chunk::default());
        for extent in extents {
            let end = (extent.logical + extent.len).min(layout.chunks * CHUNK_BYTES);
            let is_askew = extent.flags & NOWHERE != 0
                || (extent.physical + start).wrapping_sub(extent.logical) % CHUNK_BYTES != 0;
            let is_written = extent.flags & (UNWRITTEN | NOWHERE) == 0;
            let mut from = extent.logical;
            while from < end {
                let number = from / CHUNK_BYTES;
                if number != at.number {
                    written_chunks += at.close(&mut layout);
                    at = Chunk { number, ..Chunk::default() };
                }
                let to = ((number + 1) * CHUNK_BYTES).min(end);
                at.askew |= is_askew;
                at.written += if is_written { to - from } else { 0 };
                from = to;
            }
        }
        written_chunks += at.close(&mut layout);
        layout.unwritten = layout.chunks - written_chunks;
        layout
    }
}

/// The chunk that the extents have come to.
#[derive(Default)]
struct Chunk {
    number: u64,
    askew: bool,
    written: u64,
}

impl Chunk {
    /// Counts it: 1 if all of it was written.
    fn close(&self, layout: &mut Layout) -> u64 {
        layout.askew += u64::from(self.askew);
        u64::from(self.written == CHUNK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    fn extent(logical: u64, physical: u64, len: u64, flags: u32) -> Extent {
        Extent {
            logical: logical * MIB,
            physical: physical * MIB,
            len: len * MIB,
            flags,
            ..Extent::default()
        }
    }

    #[test]
    fn chunks_are_counted_by_place_and_state() {
        let layout = |extents: &[Extent]| {
            let layout = Layout::new(8 * MIB, 0, extents);
            (layout.chunks, layout.askew, layout.unwritten)
        };
        assert_eq!(layout(&[]), (4, 0, 4));
        assert_eq!(layout(&[extent(0, 100, 8, 0)]), (4, 0, 0));
        assert_eq!(layout(&[extent(0, 101, 8, 0)]), (4, 4, 0));
        assert_eq!(layout(&[extent(0, 100, 3, 0), extent(3, 103, 5, UNWRITTEN)]), (4, 0, 3));
        assert_eq!(layout(&[extent(0, 100, 3, 0), extent(3, 200, 5, 0)]), (4, 3, 0));
        assert_eq!(layout(&[extent(2, 100, 1, 0), extent(3, 101, 1, 0)]), (4, 0, 3));
        assert_eq!(layout(&[extent(4, 0, 2, NOWHERE)]), (4, 1, 4));
        assert_eq!(layout(&[extent(6, 100, 100, 0)]), (4, 0, 3));
        let shifted = Layout::new(8 * MIB, MIB, &[extent(0, 101, 8, 0)]);
        assert_eq!((shifted.askew, shifted.unwritten), (0, 0));
    }

    #[test]
    fn extents_of_a_real_file_ascend_and_cover_what_was_written() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for i in 0..200 {
            file.write_all_at(&[1; 4096], i * 8192).unwrap();
        }
        file.sync_all().unwrap();
        let Some(extents) = extents(&file).unwrap() else { return };
        assert!(extents.windows(2).all(|pair| pair[0].logical + pair[0].len <= pair[1].logical));
        assert!(extents.iter().map(|extent| extent.len).sum::<u64>() >= 200 * 4096);
    }
}

//! How does a pool's file lie on its device, seen as memory?

use daxstore::pmem::HostExtent;
use daxstore::units::CHUNK_BYTES;

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
    pub fn new(size: u64, start: u64, extents: &[HostExtent]) -> Self {
        let mut layout = Self { chunks: size / CHUNK_BYTES, ..Self::default() };
        let (mut written_chunks, mut at) = (0, Chunk::default());
        for extent in extents {
            let end = (extent.logical + extent.len).min(layout.chunks * CHUNK_BYTES);
            let is_askew = !extent.is_placed()
                || (extent.physical + start).wrapping_sub(extent.logical) % CHUNK_BYTES != 0;
            let mut from = extent.logical;
            while from < end {
                let number = from / CHUNK_BYTES;
                if number != at.number {
                    written_chunks += at.close(&mut layout);
                    at = Chunk { number, ..Chunk::default() };
                }
                let to = ((number + 1) * CHUNK_BYTES).min(end);
                at.askew |= is_askew;
                at.written += if extent.is_written() { to - from } else { 0 };
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

    const MIB: u64 = 1 << 20;
    const UNWRITTEN: u32 = HostExtent::UNWRITTEN;
    /// Its place is not known.
    const NOWHERE: u32 = 0x2;

    fn extent(logical: u64, physical: u64, len: u64, flags: u32) -> HostExtent {
        HostExtent::new(logical * MIB, physical * MIB, len * MIB, flags)
    }

    #[test]
    fn chunks_are_counted_by_place_and_state() {
        let layout = |extents: &[HostExtent]| {
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
}

//! How many blocks of each kind does each cell of the picture hold?
//!
//! Invariants:
//! 1. Every chunk is in exactly one cell; each cell but the last has `per_cell` chunks, a power of two.
//! 2. There are at most `MOST_CELLS` cells, whatever the pool's size.

use daxstore::alloc::ChunkUse;
use daxstore::units::{BLOCK_BYTES, CHUNK_BLOCKS, CHUNK_BYTES};
use daxstore::{FileExtent, State};

/// More than this nobody can see.
const MOST_CELLS: u64 = 4096;

/// A run of chunks; counts are chunks where named so, else blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// Chunks in the cell.
    pub chunks: u64,
    /// Chunks that are free.
    pub free_chunks: u64,
    /// Chunks that are whole.
    pub whole_chunks: u64,
    /// Chunks that are broken.
    pub broken_chunks: u64,
    /// Chunks whose descriptor can not be read.
    pub damaged_chunks: u64,
    /// Blocks in use in broken chunks, metadata included.
    pub used_in_broken: u64,
    /// Blocks of metadata.
    pub meta: u64,
    /// Blocks of the marked file.
    pub file: u64,
}

impl Cell {
    /// The part of the broken chunks' blocks that is in use, 0 to 1.
    pub fn fill(&self) -> f64 {
        match self.broken_chunks {
            0 => 0.0,
            broken => self.used_in_broken as f64 / (broken * CHUNK_BLOCKS) as f64,
        }
    }

    fn add(&mut self, state: ChunkUse) {
        self.chunks += 1;
        match state {
            ChunkUse::Free => self.free_chunks += 1,
            ChunkUse::Whole => self.whole_chunks += 1,
            ChunkUse::Broken { used, arena_blocks, .. } => {
                self.broken_chunks += 1;
                self.used_in_broken += used.min(CHUNK_BLOCKS);
                self.meta += arena_blocks.min(CHUNK_BLOCKS);
            }
            ChunkUse::Damaged => self.damaged_chunks += 1,
        }
    }

    fn sum(mut self, other: &Self) -> Self {
        self.chunks += other.chunks;
        self.free_chunks += other.free_chunks;
        self.whole_chunks += other.whole_chunks;
        self.broken_chunks += other.broken_chunks;
        self.damaged_chunks += other.damaged_chunks;
        self.used_in_broken += other.used_in_broken;
        self.meta += other.meta;
        self.file += other.file;
        self
    }
}

/// The grid.
#[derive(Debug)]
pub struct Cells {
    /// Chunks in a cell.
    pub per_cell: u64,
    /// The cells in the order of the pool.
    pub cells: Vec<Cell>,
}

impl Cells {
    /// A grid for a pool of `chunks` chunks, all still to be added.
    pub fn new(chunks: u64) -> Self {
        let per_cell = chunks.div_ceil(MOST_CELLS).max(1).next_power_of_two();
        let count = usize::try_from(chunks.div_ceil(per_cell)).unwrap_or(0);
        Self { per_cell, cells: vec![Cell::default(); count] }
    }

    /// Adds chunk number `chunk`; one past the grid is not there.
    pub fn add(&mut self, chunk: u64, state: ChunkUse) {
        if let Some(cell) = self.at(chunk) {
            cell.add(state);
        }
    }

    fn at(&mut self, chunk: u64) -> Option<&mut Cell> {
        let index = usize::try_from(chunk / self.per_cell).ok()?;
        self.cells.get_mut(index)
    }

    /// Marks the blocks of a file.
    pub fn mark(&mut self, extents: &[FileExtent]) {
        for extent in extents {
            let Some(at) = extent.state.address() else { continue };
            let (mut from, end) = (at.0, at.0.saturating_add(extent.range.len));
            while from < end {
                let chunk = from / CHUNK_BYTES;
                let to = end.min((chunk + 1).saturating_mul(CHUNK_BYTES));
                let Some(cell) = self.at(chunk) else { break };
                cell.file += (to - from).div_ceil(BLOCK_BYTES);
                from = to;
            }
        }
    }

    /// All cells as one.
    pub fn total(&self) -> Cell {
        self.cells.iter().fold(Cell::default(), Cell::sum)
    }
}

/// The file that is marked.
pub struct FileMark {
    /// Its name, as it is shown.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Where it lies.
    pub extents: Vec<FileExtent>,
}

impl FileMark {
    /// Bytes with data, bytes allocated and unwritten, and the part of both that 2 MiB translations can serve.
    pub fn bytes(&self) -> (u64, u64, u64) {
        let (mut mapped, mut unwritten, mut huge) = (0, 0, 0);
        for extent in &self.extents {
            match extent.state {
                State::Mapped(_) => mapped += extent.range.len,
                State::Unwritten(_) => unwritten += extent.range.len,
                State::Hole | State::Reserved => continue,
            }
            huge += if extent.huge { extent.range.len } else { 0 };
        }
        (mapped, unwritten, huge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daxstore::FileRange;
    use daxstore::alloc::ChunkUse;
    use daxstore::units::PoolOff;

    fn mapped(at: u64, len: u64) -> FileExtent {
        FileExtent {
            range: FileRange { offset: 0, len },
            state: State::Mapped(PoolOff(at)),
            shared: false,
            huge: false,
        }
    }

    #[test]
    fn the_grid_stays_small() {
        assert_eq!((Cells::new(4).per_cell, Cells::new(4).cells.len()), (1, 4));
        assert_eq!(Cells::new(4096).per_cell, 1);
        assert_eq!((Cells::new(4097).per_cell, Cells::new(4097).cells.len()), (2, 2049));
        let largest = Cells::new((16 << 40) / CHUNK_BYTES);
        assert_eq!((largest.per_cell, largest.cells.len()), (2048, 4096));
    }

    #[test]
    fn every_chunk_is_counted_once() {
        let mut cells = Cells::new(5000);
        for chunk in 0..5000 {
            let state = match chunk % 3 {
                0 => ChunkUse::Free,
                1 => ChunkUse::Whole,
                _ => ChunkUse::Broken { used: 256, arena_blocks: 16, class: None },
            };
            cells.add(chunk, state);
        }
        let total = cells.total();
        assert_eq!((total.chunks, total.free_chunks, total.whole_chunks), (5000, 1667, 1667));
        assert_eq!((total.broken_chunks, total.meta), (1666, 1666 * 16));
        assert!((total.fill() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_file_is_marked_across_cells() {
        let mut cells = Cells::new(4);
        cells.mark(&[mapped(CHUNK_BYTES - 4096, 8192), mapped(3 * CHUNK_BYTES, 2 * CHUNK_BYTES)]);
        let files: Vec<_> = cells.cells.iter().map(|c| c.file).collect();
        assert_eq!(files, [1, 1, 0, CHUNK_BLOCKS]);
    }
}

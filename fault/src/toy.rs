//! Does the fault handler work without the store and without the system?
//!
//! A file in plain memory ([`ToyFile`]) whose pages hold one number each, and translations in an array ([`ToyTable`]).
//! Both check what they are asked to do: a block is installed only where the file has it, zeros only where it has
//! none, nothing is left after an invalidation, and no block is freed that can still be reached. Feature `mutations`.

mod file;
mod sharing;
mod table;

pub use file::{Cell, ToyFile};
pub use table::{Fatal, ToyTable, ToyView};

/// Bytes in a page.
pub const PAGE: u64 = daxstore::units::BLOCK_BYTES;
/// Pages in a slot.
pub const SLOT: u64 = daxstore::units::CHUNK_BLOCKS;

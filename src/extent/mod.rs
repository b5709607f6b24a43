//! Which blocks hold which part of a file?
//!
//! A file's tree maps file blocks to pool blocks. A record's key is the first file block; its payload of 8 bytes
//! is a little-endian number:
//!
//! | bits | what |
//! | ---: | --- |
//! | 0 to 35 | first pool block |
//! | 36 to 61 | blocks, not 0 |
//! | 62 | 1 mapped, 0 unwritten |
//! | 63 | 1 shared: other files may own some of the blocks too; of mapped ones only, else it is damage |
//!
//! What no record covers is a hole.
//!
//! Invariants:
//! 1. Records do not overlap in the file, lie in allocatable blocks, and end at or before file block 2^50.
//! 2. Records are maximal: two that continue each other, in file and pool, in one state and one allocation group,
//!    are one. (No extent crosses a group border, since each group starts with its header.)
//! 3. State lives in the record only. A conversion changes each block's state and no block's place.
//! 4. Blocks of an extent that is not shared have one owner. How many those of a shared one have is in the tree of shares
//!    (`inode/shares.rs`): the flag says where to look, and may stay when the others are gone.
//! 4. Every record is checked when it is read ([`Extent::decode`]): damage is an error.

mod change;
mod map;
mod record;
mod shift;
#[cfg(test)]
mod tests;

pub use change::{ExtentMapMut, worst_case_nodes};
pub use map::{Beside, ExtentMap};
pub use record::{Content, Extent, FileRun, Found, MAX_FILE_BLOCKS};

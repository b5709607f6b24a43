//! Which bytes lie where?
//!
//! Every persistent structure, declared once; `docs/format.md` draws the same tables and `tests/tidy.rs`
//! compares them. All integers are little-endian. Nothing here touches the medium: these are pure functions
//! between bytes and checked values, and the one place where bytes become values.

mod geometry;
mod inode;
mod object;
mod space;
mod superblock;

pub use geometry::*;
pub use inode::*;
pub(crate) use object::seal;
pub use object::*;
pub use space::*;
pub use superblock::*;

/// Reads a little-endian `u64` at `at`; 0 past the end, which no caller reaches with a fixed-size buffer.
pub(crate) fn get64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Reads a little-endian `u32` at `at`.
pub(crate) fn get32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Reads a little-endian `u16` at `at`.
pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

/// Writes `bytes` at `at`.
pub(crate) fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

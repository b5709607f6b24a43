//! Where does everything lie in a database's file?
//!
//! The first chunk of 2 MiB holds what is found by its place: the superblock, the sessions' rings, the catalog of trees, and the
//! table of chunks. Everything else lies in pages of 2 KiB of further chunks, or in runs of whole chunks. `docs/kv.md` draws the same.
//!
//! | offset | bytes | what |
//! | ---: | ---: | --- |
//! | 0 | 4096 | superblock |
//! | 65536 | 524288 | 64 rings of 8 KiB |
//! | 589824 | 262144 | catalog: 1024 trees of 256 bytes |
//! | 1048576 | 1048576 | table of chunks: 131072 words |

/// A chunk, the unit in which a database takes space from its file.
pub const CHUNK: u64 = 2 << 20;
/// A page, the unit in which chunks are given out.
pub const PAGE: u64 = 2 << 10;
/// Pages of a chunk.
pub const PAGES: usize = (CHUNK / PAGE) as usize;
/// A cache line.
pub const LINE: u64 = 64;

/// The first word of a database.
pub const MAGIC: u64 = u64::from_le_bytes(*b"daxkv\0\0\x01");
/// The version of the format.
pub const VERSION: u64 = 2;

/// Offsets in the superblock. The first five words do not change; each of the others is a sealed word in a line of its own.
pub mod superblock {
    /// [`super::MAGIC`].
    pub const MAGIC: u64 = 0;
    /// [`super::VERSION`].
    pub const VERSION: u64 = 8;
    /// Two words that no other database has.
    pub const ID: u64 = 16;
    /// A checksum of the words before.
    pub const CHECK: u64 = 32;
    /// Bytes of what does not change.
    pub const FIXED_BYTES: usize = 40;
    /// No sequence number at or above it is in use.
    pub const SEQUENCE_LIMIT: u64 = 256;
    /// The hash index's directory: its offset, and the logarithm of its length in the low 8 bits.
    pub const DIRECTORY: u64 = 320;
    /// 1 after a clean close, 0 in use.
    pub const CLEAN: u64 = 384;
    /// What a split of a segment of the hash index is about to do.
    pub const SPLIT: u64 = 512;
}

/// The rings of sessions.
pub const RINGS: u64 = 64 << 10;
/// Bytes of a ring.
pub const RING_BYTES: u64 = 8 << 10;
/// Rings.
pub const SESSIONS: usize = 64;

/// The catalog of trees.
pub const CATALOG: u64 = RINGS + RING_BYTES * SESSIONS as u64;
/// Bytes of a tree's entry.
pub const TREE_BYTES: u64 = 256;
/// Trees that fit.
pub const TREES: usize = 1024;

/// The table of chunks.
pub const CHUNK_TABLE: u64 = 1 << 20;
/// Chunks that the table holds: a database has at most 256 GiB.
pub const MAX_CHUNKS: u64 = (CHUNK - CHUNK_TABLE) / 8;

const _: () = assert!(CATALOG + TREE_BYTES * TREES as u64 <= CHUNK_TABLE);

/// Bits of a word that name an offset in units of 8 bytes.
pub const SLOT_BITS: u32 = 36;
const _: () = assert!(MAX_CHUNKS * CHUNK / 8 <= 1 << SLOT_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of bytes are compared as text by `tests/format.rs`; here the first of them with what the code uses.
    #[test]
    fn the_first_table_has_the_numbers_of_the_code() {
        let rows = [
            (0, superblock::SPLIT.next_multiple_of(4096), "superblock".to_owned()),
            (RINGS, RING_BYTES * SESSIONS as u64, format!("{SESSIONS} rings of {} KiB", RING_BYTES >> 10)),
            (CATALOG, TREE_BYTES * TREES as u64, format!("catalog: {TREES} trees of {TREE_BYTES} bytes")),
            (CHUNK_TABLE, MAX_CHUNKS * 8, format!("table of chunks: {MAX_CHUNKS} words")),
        ];
        for page in [include_str!("layout.rs"), include_str!("../../docs/kv.md")] {
            for (at, bytes, what) in &rows {
                let row = format!("| {at} | {bytes} | {what} |");
                assert!(page.contains(&row), "{row}");
            }
        }
        let page = include_str!("../../docs/kv.md");
        let words = [
            ("the limit of sequence numbers", superblock::SEQUENCE_LIMIT),
            ("the directory of the hash index", superblock::DIRECTORY),
            ("whether the database was closed", superblock::CLEAN),
            ("the intent of a split", superblock::SPLIT),
        ];
        for (what, at) in words {
            assert!(page.contains(&format!("{what} ({at})")), "{what} ({at})");
        }
        assert!(page.contains(&format!("format version {VERSION}")), "the version");
    }
}

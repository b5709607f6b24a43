//! How large are the parts of the two indexes?
//!
//! Databases have [`Sizes::DEFAULT`]. Tests have [`Sizes::SMALL`] ones, so that some hundred changes split segments, double the directory,
//! move windows, and split and merge leaves and groups.
//!
//! Invariant: a database is opened with the sizes it was made with. The medium does not tell them: whoever makes one with others opens it so.

use crate::ordered;

/// The sizes of the parts of the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pages of the smallest segment of the hash index; at least 1.
    pub least: u64,
    /// Pages of the largest; at most 7.
    pub most: u64,
    /// The logarithm of the directory's first length in words; 1 to 8.
    pub bits: u32,
    /// How many bits of the hash depth and window of a segment may be apart; at most 12.
    pub apart: u32,
    /// Of the ordered index.
    pub ordered: ordered::Sizes,
}

impl Sizes {
    /// What databases have.
    pub const DEFAULT: Self =
        Self { least: 4, most: 7, bits: 8, apart: 12, ordered: ordered::Sizes::DEFAULT };
    /// Small ones, so that few keys make everything happen.
    #[cfg(feature = "sim")]
    pub const SMALL: Self = Self { least: 1, most: 2, bits: 1, apart: 1, ordered: ordered::Sizes::SMALL };
}

impl Default for Sizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

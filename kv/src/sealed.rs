//! How does a single word tell that it is whole?
//!
//! | bits of a sealed word | what |
//! | ---: | --- |
//! | 0-47 | value |
//! | 48-63 | checksum of the value and the word's own offset, salted with the database's number |
//!
//! Words that change alone, in one store, can have no checksum beside them: they have it in themselves.

/// Bits of a value.
pub const BITS: u32 = 48;
/// The greatest value.
pub const MOST: u64 = (1 << BITS) - 1;

#[inline]
const fn check(salt: u64, at: u64, value: u64) -> u64 {
    let mixed = (value ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed ^ mixed >> 29).wrapping_mul(0x1656_67b1_9e37_79f9) >> BITS
}

/// The word at `at` that holds `value`, of at most 48 bits.
#[inline]
#[must_use]
pub const fn seal(salt: u64, at: u64, value: u64) -> u64 {
    let value = value & MOST;
    value | check(salt, at, value) << BITS
}

/// What the word at `at` holds; `None`: it is not whole.
#[inline]
#[must_use]
pub const fn unseal(salt: u64, at: u64, word: u64) -> Option<u64> {
    if seal(salt, at, word) == word { Some(word & MOST) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_changed_or_moved_is_not_whole() {
        let word = seal(7, 320, 0x20_0008);
        assert_eq!(unseal(7, 320, word), Some(0x20_0008));
        assert!((0..64).all(|bit| unseal(7, 320, word ^ 1 << bit).is_none()));
        assert_eq!((unseal(7, 328, word), unseal(8, 320, word), unseal(7, 320, 0)), (None, None, None));
    }
}

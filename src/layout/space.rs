//! How does the pool note which blocks are used?
//!
//! The group object, one for a GiB:
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 16 | header |
//! | 16 | 64 | used: one bit a chunk, set where the chunk is not entirely free |
//! | 80 | 64 | broken: one bit a chunk, set where the chunk descriptor tells which blocks are used |
//!
//! A chunk that is used and not broken is used as a whole; broken without used does not occur. The chunk descriptor:
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 16 | header |
//! | 16 | 64 | used: one bit a block |
//! | 80 | 64 | meta: one bit a block that belongs to an arena; such a block is used too |
//! | 144 | 1 | class of the chunk's arenas: 0 none, 1 inodes (256 bytes), 2 nodes (512 bytes) |
//! | 145 | 7 | reserved, zero |
//!
//! A lane's counters, whose sums over the lanes are the pool's totals:
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 16 | header |
//! | 16 | 8 | blocks used by files and arenas (signed) |
//! | 24 | 8 | blocks of unwritten extents (signed) |
//! | 32 | 8 | inodes (signed) |

use super::{HEADER_BYTES, Image, Kind, get64, put};
use crate::error::{Damage, Structure};
use crate::units::PoolOff;

/// 512 bits, one for each chunk of a group or block of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Bits(pub [u64; 8]);

impl std::fmt::Debug for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bits({} of 512)", self.count())
    }
}

impl Bits {
    /// All 512 set.
    pub const ALL: Self = Self([u64::MAX; 8]);

    /// Whether bit `i` (0 to 511) is set.
    #[must_use]
    pub fn get(&self, i: u64) -> bool {
        self.0[(i / 64) as usize & 7] >> (i % 64) & 1 == 1
    }

    /// Sets bit `i`.
    pub fn set(&mut self, i: u64) {
        self.0[(i / 64) as usize & 7] |= 1 << (i % 64);
    }

    /// Clears bit `i`.
    pub fn clear(&mut self, i: u64) {
        self.0[(i / 64) as usize & 7] &= !(1 << (i % 64));
    }

    /// The words' masks of `len` bits from `from`; the range lies within 512.
    fn masks(from: u64, len: u64) -> impl Iterator<Item = (usize, u64)> {
        let end = if len == 0 { 0 } else { (from + len).min(512) };
        (from / 64..end.div_ceil(64)).map(move |w| {
            let low = from.saturating_sub(w * 64);
            let high = (end - w * 64).min(64);
            ((w & 7) as usize, (u64::MAX >> (64 - (high - low))) << low)
        })
    }

    /// Sets `len` bits from `from`.
    pub fn set_run(&mut self, from: u64, len: u64) {
        Self::masks(from, len).for_each(|(w, mask)| self.0[w] |= mask);
    }

    /// Clears `len` bits from `from`.
    pub fn clear_run(&mut self, from: u64, len: u64) {
        Self::masks(from, len).for_each(|(w, mask)| self.0[w] &= !mask);
    }

    /// Whether all of `len` bits from `from` are set.
    #[must_use]
    pub fn all(&self, from: u64, len: u64) -> bool {
        Self::masks(from, len).all(|(w, mask)| self.0[w] & mask == mask)
    }

    /// Whether any of `len` bits from `from` is set.
    #[must_use]
    pub fn any(&self, from: u64, len: u64) -> bool {
        Self::masks(from, len).any(|(w, mask)| self.0[w] & mask != 0)
    }

    /// How many are set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// The first clear bit at or after `from`, 512 if none.
    #[must_use]
    pub fn next_clear(&self, from: u64) -> u64 {
        Self(self.0.map(|w| !w)).next_set(from)
    }

    /// The first set bit at or after `from`, 512 if none.
    #[must_use]
    pub fn next_set(&self, from: u64) -> u64 {
        if from >= 512 {
            return 512;
        }
        let first = (from / 64) as usize;
        let mut word = self.0[first] & (u64::MAX << (from % 64));
        for w in first..8 {
            if w > first {
                word = self.0[w];
            }
            if word != 0 {
                return w as u64 * 64 + u64::from(word.trailing_zeros());
            }
        }
        512
    }

    fn read(bytes: &[u8], at: usize) -> Self {
        Self(std::array::from_fn(|i| get64(bytes, at + i * 8)))
    }

    fn write(&self, bytes: &mut [u8], at: usize) {
        for (i, word) in self.0.iter().enumerate() {
            put(bytes, at + i * 8, &word.to_le_bytes());
        }
    }
}

/// The content of a group object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupObject {
    /// Chunks that are not entirely free.
    pub used: Bits,
    /// Chunks whose descriptor tells which blocks are used.
    pub broken: Bits,
}

impl GroupObject {
    /// Where the used bits start in the object.
    pub const USED_AT: u64 = 16;
    /// Where the broken bits start in the object.
    pub const BROKEN_AT: u64 = 80;

    /// The object to stage.
    #[must_use]
    pub fn encode(&self) -> Image {
        let mut image = Image::new(Kind::Group, 144);
        self.used.write(image.bytes_mut(), 16);
        self.broken.write(image.bytes_mut(), 80);
        image
    }

    /// The content of `image` (free: nothing used). `chunks` is how many the group has.
    ///
    /// # Errors
    /// [`Damage`] for a broken chunk that is not used, or a bit past the group's chunks.
    pub fn decode(at: PoolOff, image: &Image, chunks: u64) -> Result<Self, Damage> {
        if image.kind() == Kind::Free {
            return Ok(Self::default());
        }
        let damage = |what, expected, found| Damage::new(Structure::Group, at, what, expected, found);
        if image.bytes().len() != 144 {
            return Err(damage("length", 144, image.bytes().len() as u64));
        }
        let object = Self { used: Bits::read(image.bytes(), 16), broken: Bits::read(image.bytes(), 80) };
        let lone = (0..8).map(|i| object.broken.0[i] & !object.used.0[i]).find(|w| *w != 0);
        if let Some(word) = lone {
            return Err(damage("broken chunks that are not used", 0, word));
        }
        let past = object.used.next_set(chunks);
        if past < 512 {
            return Err(damage("used chunk past the end", chunks, past));
        }
        Ok(object)
    }
}

/// What the slots of an arena are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotClass {
    /// 256-byte slots of inodes.
    Inode,
    /// 512-byte slots of tree nodes.
    Node,
}

impl SlotClass {
    /// Every class.
    pub const ALL: [Self; 2] = [Self::Inode, Self::Node];

    /// Bytes of a slot.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Inode => 256,
            Self::Node => 512,
        }
    }

    /// The kind of object the slots hold.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Inode => Kind::Inode,
            Self::Node => Kind::Node,
        }
    }
}

/// The content of a chunk descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkObject {
    /// Blocks in use.
    pub used: Bits,
    /// Blocks of arenas; each is used too.
    pub meta: Bits,
    /// The class of the arenas; `None` where there are none.
    pub class: Option<SlotClass>,
}

impl ChunkObject {
    /// The object to stage.
    #[must_use]
    pub fn encode(&self) -> Image {
        let mut image = Image::new(Kind::Chunk, 152);
        self.used.write(image.bytes_mut(), 16);
        self.meta.write(image.bytes_mut(), 80);
        image.bytes_mut()[144] = match self.class {
            None => 0,
            Some(SlotClass::Inode) => 1,
            Some(SlotClass::Node) => 2,
        };
        image
    }

    /// The content of `image` (free: nothing used).
    ///
    /// # Errors
    /// [`Damage`] for an arena block that is not used, or a class that does not fit the arenas.
    pub fn decode(at: PoolOff, image: &Image) -> Result<Self, Damage> {
        if image.kind() == Kind::Free {
            return Ok(Self::default());
        }
        let damage = |what, expected, found| Err(Damage::new(Structure::Chunk, at, what, expected, found));
        let b = image.bytes();
        if b.len() != 152 {
            return damage("length", 152, b.len() as u64);
        }
        let class = match b[144] {
            0 => None,
            1 => Some(SlotClass::Inode),
            2 => Some(SlotClass::Node),
            other => return damage("arena class", 2, u64::from(other)),
        };
        let object = Self { used: Bits::read(b, 16), meta: Bits::read(b, 80), class };
        let lone = (0..8).map(|i| object.meta.0[i] & !object.used.0[i]).find(|w| *w != 0);
        if let Some(word) = lone {
            return damage("arena blocks that are not used", 0, word);
        }
        if class.is_none() && object.meta.count() > 0 {
            return damage("arenas in a chunk without a class", 0, object.meta.count());
        }
        Ok(object)
    }
}

/// The content of a lane's counters; also a change to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks used by files and arenas.
    pub used: i64,
    /// Blocks of unwritten extents.
    pub unwritten: i64,
    /// Inodes.
    pub inodes: i64,
}

impl Counters {
    /// The object to stage.
    #[must_use]
    pub fn encode(&self) -> Image {
        let mut image = Image::new(Kind::Lane, HEADER_BYTES + 24);
        put(image.bytes_mut(), 16, &self.used.to_le_bytes());
        put(image.bytes_mut(), 24, &self.unwritten.to_le_bytes());
        put(image.bytes_mut(), 32, &self.inodes.to_le_bytes());
        image
    }

    /// The content of `image` (free: zeros).
    #[must_use]
    pub fn decode(image: &Image) -> Self {
        let word = |at| get64(image.bytes(), at) as i64;
        Self { used: word(16), unwritten: word(24), inodes: word(32) }
    }

    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            used: self.used.wrapping_add(other.used),
            unwritten: self.unwritten.wrapping_add(other.unwritten),
            inodes: self.inodes.wrapping_add(other.inodes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits_agree_with_single_bits() {
        for from in [0, 1, 63, 64, 100, 448, 511] {
            for len in [0, 1, 2, 63, 64, 65, 300] {
                let len: u64 = len;
                if from + len > 512 {
                    continue;
                }
                let (mut run, mut single) = (Bits::default(), Bits::default());
                run.set_run(from, len);
                (from..from + len).for_each(|i| single.set(i));
                assert_eq!(run, single, "{from}+{len}");
                assert!(run.all(from, len));
                assert_eq!(run.next_set(0), if len == 0 { 512 } else { from });
                run.clear_run(from, len);
                assert_eq!(run.count(), 0);
            }
        }
    }
}

//! How does a check read?
//!
//! From the homes, whatever any cache says. A damaged pool has no open store, so this needs no more than the region
//! and what the superblock tells.

use crate::error::{Damage, Error, Result};
use crate::layout::{Geometry, Image, Kind, MAX_OBJECT_BYTES, Seed};
use crate::pmem::Region;
use crate::units::{Ino, PoolOff};

/// A version above this was not reached by counting changes.
pub(super) const MAX_VERSION: u64 = 1 << 48;

/// The media of one pool, and what its superblock says of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Media<'r> {
    pub region: &'r Region,
    pub seed: Seed,
    pub geometry: Geometry,
    /// The root directory.
    pub root: Ino,
    /// The hidden inode of the intents.
    pub intents: Ino,
}

impl Media<'_> {
    /// The object at `at`, of `kind` or free.
    ///
    /// # Errors
    /// Damage of the object, also where it would lie outside the pool.
    pub fn read(&self, at: PoolOff, kind: Kind) -> Result<Image, Damage> {
        let mut slot = [0; MAX_OBJECT_BYTES];
        let slot = &mut slot[..kind.slot_bytes()];
        match self.region.read(at, slot) {
            Ok(()) => {}
            Err(Error::Corrupt(lost)) => return Err(lost),
            Err(_) => return Err(self.outside(at, kind)),
        }
        let image = Image::open(self.seed, at, kind, slot)?;
        if image.version() > MAX_VERSION {
            return Err(Damage::new(kind.structure(), at, "version", MAX_VERSION, image.version()));
        }
        Ok(image)
    }

    /// The first two words of the object at `at`.
    pub fn header(&self, at: PoolOff) -> Result<[u64; 2], Error> {
        Ok([self.region.load(at)?, self.region.load(at.plus(8))?])
    }

    fn outside(&self, at: PoolOff, kind: Kind) -> Damage {
        Damage::new(kind.structure(), at, "a place outside the pool", self.geometry.size, at.0)
    }
}

/// The kind byte in an object's second word.
pub(super) const fn kind_byte(word: u64) -> u8 {
    (word >> 32) as u8
}

//! What does a pool say of itself?
//!
//! Two copies, at pool offset 0 and at [`SUPERBLOCK_B`]; the valid one with the higher sequence is believed.
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | magic `DAXSTOR1` |
//! | 8 | 8 | check: hash of bytes 16 to 511 |
//! | 16 | 4 | format version |
//! | 20 | 4 | lanes |
//! | 24 | 8 | compat feature bits |
//! | 32 | 8 | ro_compat feature bits |
//! | 40 | 8 | incompat feature bits |
//! | 48 | 16 | UUID |
//! | 64 | 64 | label, UTF-8, padded with zeros |
//! | 128 | 8 | size of the pool in bytes |
//! | 136 | 8 | epoch |
//! | 144 | 8 | sequence of this superblock |
//! | 152 | 8 | seed of object checks, records and name keys |
//! | 160 | 4 | bytes a lane, counters included |
//! | 164 | 4 | blocks an arena |
//! | 168 | 8 | root directory's inode number |
//! | 176 | 8 | inode number of the intents |
//! | 184 | 8 | time of making, nanoseconds since 1970 |
//! | 192 | 320 | reserved, zero |

use super::{Geometry, Seed, get32, get64, put};
use crate::error::{Damage, Error, Structure};
use crate::units::{Ino, MAX_POOL_BYTES, MIN_POOL_BYTES, PoolOff};
use xxhash_rust::xxh3::xxh3_64;

/// incompat: extents may be shared, and the hidden inode has the tree of shares.
pub const INCOMPAT_SHARES: u64 = 1;
/// incompat: there may be intents of kinds 5 to 7: blocks of files that are half moved, trees that are half copied.
pub const INCOMPAT_UNFINISHED: u64 = 2;
const KNOWN_INCOMPAT: u64 = INCOMPAT_SHARES | INCOMPAT_UNFINISHED;
/// ro_compat: there may be sequential files.
pub const RO_COMPAT_SEQUENTIAL: u64 = 1;
const KNOWN_RO_COMPAT: u64 = RO_COMPAT_SEQUENTIAL;

/// The first bytes of a superblock.
pub const MAGIC: [u8; 8] = *b"DAXSTOR1";
/// The format version written here, and the last one known.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of a superblock.
pub const SUPERBLOCK_BYTES: usize = 512;
/// Where the first superblock lies.
pub const SUPERBLOCK_A: PoolOff = PoolOff(0);
/// Where the second superblock lies.
pub const SUPERBLOCK_B: PoolOff = PoolOff(26 * 4096);
/// Bytes of a label.
pub const LABEL_BYTES: usize = 64;

/// What the first programs of this format did not know. A pool says that it has it before it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Several files may own a block.
    Shares,
    /// A file's blocks may be half moved, a tree half copied.
    Unfinished,
    /// Files may be sequential.
    Sequential,
}

/// The checked content of a superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// compat features: may be ignored by a program that does not know them.
    pub compat: u64,
    /// ro_compat features: a program that does not know one must not write.
    pub ro_compat: u64,
    /// incompat features: a program that does not know one must not open.
    pub incompat: u64,
    /// The pool's identity.
    pub uuid: [u8; 16],
    /// The label, padded with zeros.
    pub label: [u8; LABEL_BYTES],
    /// Sizes and places.
    pub geometry: Geometry,
    /// Records of other epochs are not valid.
    pub epoch: u64,
    /// Grows with each write of a superblock.
    pub sequence: u64,
    /// Salt.
    pub seed: Seed,
    /// The root directory.
    pub root: Ino,
    /// The inode whose tree holds the intents.
    pub intents: Ino,
    /// When the pool was made, nanoseconds since 1970.
    pub created: i64,
}

impl Superblock {
    /// Whether the pool may have what `feature` says.
    #[must_use]
    pub const fn has(&self, feature: Feature) -> bool {
        match feature {
            Feature::Shares => self.incompat & INCOMPAT_SHARES != 0,
            Feature::Unfinished => self.incompat & INCOMPAT_UNFINISHED != 0,
            Feature::Sequential => self.ro_compat & RO_COMPAT_SEQUENTIAL != 0,
        }
    }

    /// Says that the pool may have what `feature` says.
    pub const fn add(&mut self, feature: Feature) {
        match feature {
            Feature::Shares => self.incompat |= INCOMPAT_SHARES,
            Feature::Unfinished => self.incompat |= INCOMPAT_UNFINISHED,
            Feature::Sequential => self.ro_compat |= RO_COMPAT_SEQUENTIAL,
        }
    }

    /// Whether this program may write to the pool.
    ///
    /// # Errors
    /// [`Error::ReadOnlyFeatures`], with those that it does not know.
    pub const fn check_writable(&self) -> Result<(), Error> {
        match self.ro_compat & !KNOWN_RO_COMPAT {
            0 => Ok(()),
            unknown => Err(Error::ReadOnlyFeatures(unknown)),
        }
    }

    /// The bytes to write.
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut b = [0; SUPERBLOCK_BYTES];
        put(&mut b, 0, &MAGIC);
        put(&mut b, 16, &FORMAT_VERSION.to_le_bytes());
        put(&mut b, 20, &self.geometry.lanes.to_le_bytes());
        put(&mut b, 24, &self.compat.to_le_bytes());
        put(&mut b, 32, &self.ro_compat.to_le_bytes());
        put(&mut b, 40, &self.incompat.to_le_bytes());
        put(&mut b, 48, &self.uuid);
        put(&mut b, 64, &self.label);
        put(&mut b, 128, &self.geometry.size.to_le_bytes());
        put(&mut b, 136, &self.epoch.to_le_bytes());
        put(&mut b, 144, &self.sequence.to_le_bytes());
        put(&mut b, 152, &self.seed.0.to_le_bytes());
        put(&mut b, 160, &self.geometry.lane_bytes.to_le_bytes());
        put(&mut b, 164, &self.geometry.arena_blocks.to_le_bytes());
        put(&mut b, 168, &self.root.0.to_le_bytes());
        put(&mut b, 176, &self.intents.0.to_le_bytes());
        put(&mut b, 184, &self.created.to_le_bytes());
        let check = xxh3_64(&b[16..]);
        put(&mut b, 8, &check.to_le_bytes());
        b
    }

    /// The superblock in `b`, read from `at`.
    ///
    /// # Errors
    /// [`Error::NotAPool`] without the magic, [`Error::FutureVersion`] and [`Error::UnknownFeatures`] for later
    /// formats, [`Error::Corrupt`] where the check or a field does not hold.
    pub fn decode(at: PoolOff, b: &[u8; SUPERBLOCK_BYTES]) -> Result<Self, Error> {
        if b[..8] != MAGIC {
            return Err(Error::NotAPool);
        }
        let damage = |what, expected, found| Damage::new(Structure::Superblock, at, what, expected, found);
        let (expected, found) = (xxh3_64(&b[16..]), get64(b, 8));
        if expected != found {
            return Err(damage("check", expected, found).into());
        }
        let version = get32(b, 16);
        if version > FORMAT_VERSION {
            return Err(Error::FutureVersion { found: version, known: FORMAT_VERSION });
        }
        let unknown = get64(b, 40) & !KNOWN_INCOMPAT;
        if unknown != 0 {
            return Err(Error::UnknownFeatures(unknown));
        }
        let geometry = Geometry {
            size: get64(b, 128),
            lanes: get32(b, 20),
            lane_bytes: get32(b, 160),
            arena_blocks: get32(b, 164),
        };
        if !(MIN_POOL_BYTES..=MAX_POOL_BYTES).contains(&geometry.size) {
            return Err(damage("pool size", MIN_POOL_BYTES, geometry.size).into());
        }
        geometry.validate().map_err(|(what, limit, value)| damage(what, limit, value))?;
        let (mut uuid, mut label) = ([0; 16], [0; LABEL_BYTES]);
        uuid.copy_from_slice(&b[48..64]);
        label.copy_from_slice(&b[64..128]);
        Ok(Self {
            compat: get64(b, 24),
            ro_compat: get64(b, 32),
            incompat: get64(b, 40),
            uuid,
            label,
            geometry,
            epoch: get64(b, 136),
            sequence: get64(b, 144),
            seed: Seed(get64(b, 152)),
            root: Ino(get64(b, 168)),
            intents: Ino(get64(b, 176)),
            created: get64(b, 184) as i64,
        })
    }
}

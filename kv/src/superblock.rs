//! Is this file a database, and which?
//!
//! The first words never change after they were made; the checksum covers them, and the first word is stored last. Each of the
//! others is one aligned, sealed word that changes at once.

use crate::error::{Damage, Error, Result, Structure};
use crate::layout::{CHUNK, MAGIC, VERSION, superblock as at};
use crate::media::Media;
use crate::sealed::{seal, unseal};
use std::hash::{BuildHasher, Hasher, RandomState};
use xxhash_rust::xxh3::xxh3_64;

/// Sequence numbers that are given out between two moves of their limit.
pub const SEQUENCES: u64 = 1 << 20;

/// What does not change.
#[derive(Clone, Copy, Debug)]
pub struct Superblock {
    /// Tells the database from others; salts every checksum.
    pub salt: u64,
}

fn fixed(version: u64, id: [u64; 2]) -> [u8; at::FIXED_BYTES] {
    let mut bytes = [0; at::FIXED_BYTES];
    let words = [MAGIC, version, id[0], id[1]];
    for (slot, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *slot = word.to_le_bytes();
    }
    let check = xxh3_64(&bytes[..at::CHECK as usize]);
    bytes[at::CHECK as usize..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// A version as an error tells it.
fn short(version: u64) -> u32 {
    u32::try_from(version).unwrap_or(u32::MAX)
}

impl Superblock {
    /// Stores all but the first word. `seed` makes the database's number; `None`: chance does.
    ///
    /// # Errors
    /// Those of the fence.
    pub fn prepare<M: Media>(media: &M, seed: Option<u64>) -> Result<Self> {
        let chance = || RandomState::new().build_hasher().finish();
        let id = seed.map_or_else(|| [chance(), chance()], |seed| [seed, !seed]);
        let bytes = fixed(VERSION, id);
        media.write_through(8, &bytes[8..]);
        let superblock = Self { salt: id[0] };
        store(media, at::SEQUENCE_LIMIT, seal(superblock.salt, at::SEQUENCE_LIMIT, SEQUENCES));
        store(media, at::SPLIT, 0);
        store(media, at::CLEAN, 0);
        media.fence()?;
        Ok(superblock)
    }

    /// Makes a database of what was prepared.
    ///
    /// # Errors
    /// Those of the fence.
    pub fn finish<M: Media>(&self, media: &M) -> Result<()> {
        media.fence()?;
        store(media, at::MAGIC, MAGIC);
        media.fence()
    }

    /// The limit of sequence numbers.
    ///
    /// # Errors
    /// [`Damage`].
    pub fn limit<M: Media>(&self, media: &M) -> Result<u64> {
        load(media, self.salt, at::SEQUENCE_LIMIT)
    }

    /// Whether the database was closed. Where that can not be read, it was not.
    pub fn is_clean<M: Media>(&self, media: &M) -> bool {
        media.load(at::CLEAN) == seal(self.salt, at::CLEAN, 1)
    }

    /// The one of the database in `media`; `None` where there is none yet.
    ///
    /// # Errors
    /// [`Error::NotADatabase`], [`Error::FutureVersion`], [`Error::PastVersion`]; [`Damage`].
    pub fn open<M: Media>(media: &M) -> Result<Option<Self>> {
        if media.len() < CHUNK || media.load(at::MAGIC) == 0 {
            return Ok(None);
        }
        if media.load(at::MAGIC) != MAGIC {
            return Err(Error::NotADatabase);
        }
        let version = media.load(at::VERSION);
        if version > VERSION {
            return Err(Error::FutureVersion { found: short(version), known: short(VERSION) });
        }
        let id = [media.load(at::ID), media.load(at::ID + 8)];
        let expected = u64::from_le_bytes(*fixed(version, id).last_chunk().unwrap_or(&[0; 8]));
        let found = media.load(at::CHECK);
        if found != expected {
            return Err(Damage::new(Structure::Superblock, at::CHECK, "the checksum", expected, found).into());
        }
        if version < VERSION {
            return Err(Error::PastVersion { found: short(version), known: short(VERSION) });
        }
        Ok(Some(Self { salt: id[0] }))
    }
}

/// The value of a sealed word of the superblock.
///
/// # Errors
/// [`Damage`].
pub fn load<M: Media>(media: &M, salt: u64, at: u64) -> Result<u64> {
    let word = media.load(at);
    let damage = || Damage::new(Structure::Superblock, at, "the word's checksum", seal(salt, at, word), word);
    Ok(unseal(salt, at, word).ok_or_else(damage)?)
}

/// Stores a word of the superblock: durable with this thread's fence.
pub fn store<M: Media>(media: &M, at: u64, word: u64) {
    media.store(at, word);
    media.flush(at, 8);
}

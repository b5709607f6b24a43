//! What is a record, byte by byte?
//!
//! | byte | bits | what |
//! | ---: | ---: | --- |
//! | 0 | 4 | flags: tombstone 1, of a batch 2, of a named tree 4, told to the ordered index 8 |
//! | 0.5 | 12 | bytes of the key, less 1 |
//! | 2 | 48 | sequence number |
//! | 8 | 32 | bytes of the value |
//! | 12 | 32 | checksum |
//! | 16 | 64 | the tree's number, if it has a name |
//!
//! Then the key and the value, and zeros up to a multiple of 8.
//!
//! The checksum covers header, key, value and the record's own offset, and is salted with the database's number. So neither a
//! torn record nor one of another place or database is taken for a record.
//!
//! A record of which the ordered index was told (flag 8) is marked when it is superseded: all of its checksum is changed by a constant. So who
//! reads it where the ordered index says sees by the checksum alone that it is right and the newest of its key.

use crate::env::TreeId;
use crate::error::{Damage, Error, Result, Structure};
use crate::media::Media;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Longest key in bytes.
pub const MAX_KEY: usize = 4096;
/// Longest value in bytes.
pub const MAX_VALUE: usize = 1 << 30;
/// Bytes of the header of a record of the tree without a name.
pub const HEADER: u64 = 16;

/// The record says that the key is deleted.
pub const TOMBSTONE: u64 = 1;
/// The record is one of a batch.
pub const BATCH: u64 = 2;
const NAMED: u64 = 4;
/// The ordered index was told where the record lies.
pub const TOLD: u64 = 8;
/// What the checksum of a superseded record that was told of differs by.
const SUPERSEDED: u64 = 0x9e37_79b9 << 32;

/// A key of a tree with its hash.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    /// The tree.
    pub tree: TreeId,
    /// 1 to 4096 bytes.
    pub bytes: &'k [u8],
    /// Of both.
    pub hash: u64,
}

impl<'k> Key<'k> {
    /// A key with its hash.
    ///
    /// # Errors
    /// [`Error::KeyLength`].
    #[inline]
    pub fn new(salt: u64, tree: TreeId, bytes: &'k [u8]) -> Result<Self> {
        if bytes.is_empty() || bytes.len() > MAX_KEY {
            return Err(Error::KeyLength(bytes.len()));
        }
        Ok(Self { tree, bytes, hash: hash(salt, tree, bytes) })
    }
}

/// The hash of a key.
#[inline]
#[must_use]
pub fn hash(salt: u64, tree: TreeId, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, salt ^ u64::from(tree.0).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The first word.
    pub first: u64,
    /// The second.
    pub second: u64,
}

impl Head {
    /// Of a record with these properties; without its checksum.
    #[inline]
    #[must_use]
    pub fn new(sequence: u64, key: &Key<'_>, value: usize, flags: u64) -> Self {
        let named = if key.tree.0 == 0 { 0 } else { NAMED };
        let first = sequence << 16 | (key.bytes.len() as u64 - 1) << 4 | flags | named;
        Self { first, second: value as u64 }
    }

    /// As it lies at `at`.
    #[inline]
    pub fn load<M: Media>(media: &M, at: u64) -> Self {
        let [first, second] = media.load_pair(at);
        Self { first, second }
    }

    /// As it stands at the start of `record`.
    #[inline]
    #[must_use]
    pub fn of(record: &[u8]) -> Self {
        let words = record.first_chunk::<16>().map_or(0, |words| u128::from_le_bytes(*words));
        Self { first: words as u64, second: (words >> 64) as u64 }
    }

    /// Tree, key and value of `record`, a whole one with this header or more.
    #[inline]
    #[must_use]
    pub fn parts<'r>(&self, record: &'r [u8]) -> (TreeId, &'r [u8], &'r [u8]) {
        let (key_at, value_at) = (self.before_key() as usize, self.before_value() as usize);
        let Some(whole) = record.get(..value_at + self.value_len()) else { return Default::default() };
        let named = if self.is(NAMED) { whole[HEADER as usize..].first_chunk() } else { None };
        let tree = TreeId(named.map_or(0, |word| u32::from_le_bytes(*word)));
        (tree, &whole[key_at..value_at], &whole[value_at..])
    }

    /// As it lies at `at`, if a record with it can.
    ///
    /// # Errors
    /// [`Damage`] where none fits.
    pub fn checked<M: Media>(media: &M, at: u64) -> Result<Self, Damage> {
        let damage = |what, found| Damage::new(Structure::Record, at, what, media.len(), found);
        if !at.is_multiple_of(8) || at > media.len() - 64 {
            return Err(damage("a record within the file", at));
        }
        let head = Self::load(media, at);
        if head.fits(at, media.len()) {
            Ok(head)
        } else {
            Err(damage("a record that fits the file", head.second & 0xffff_ffff))
        }
    }

    /// The sequence number; 0 where there never was a record.
    #[inline]
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.first >> 16
    }

    /// Bytes of the key.
    #[inline]
    #[must_use]
    pub const fn key_len(&self) -> usize {
        (self.first >> 4 & 0xfff) as usize + 1
    }

    /// Bytes of the value.
    #[inline]
    #[must_use]
    pub const fn value_len(&self) -> usize {
        (self.second & 0xffff_ffff) as usize
    }

    /// Whether all of these flags are set.
    #[inline]
    #[must_use]
    pub const fn is(&self, flags: u64) -> bool {
        self.first & flags == flags
    }

    /// Bytes before the key.
    #[inline]
    #[must_use]
    pub const fn before_key(&self) -> u64 {
        if self.is(NAMED) { HEADER + 8 } else { HEADER }
    }

    /// Bytes before the value.
    #[inline]
    #[must_use]
    pub const fn before_value(&self) -> u64 {
        self.before_key() + self.key_len() as u64
    }

    /// Bytes of the record, a multiple of 8.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.before_value() + self.value_len() as u64).next_multiple_of(8)
    }

    /// Whether it can be the header of a record at `at` in `len` bytes.
    #[inline]
    #[must_use]
    pub const fn fits(&self, at: u64, len: u64) -> bool {
        self.value_len() <= MAX_VALUE && self.bytes() <= len && at <= len - self.bytes()
    }

    #[inline]
    fn checksum(&self, salt: u64, at: u64, hash: u64, value: &[u8]) -> u32 {
        let seed = (self.first ^ hash).wrapping_mul(0x9fb2_1c65_1e98_df25) ^ (salt ^ at).rotate_left(29);
        let low = xxh3_64_with_seed(value, seed ^ (self.second & 0xffff_ffff) << 13);
        (low ^ low >> 32) as u32
    }

    /// With the checksum of a record at `at`.
    #[inline]
    #[must_use]
    pub fn sealed(mut self, salt: u64, at: u64, hash: u64, value: &[u8]) -> Self {
        let check = self.checksum(salt, at, hash, value);
        self.second = self.second & 0xffff_ffff | u64::from(check) << 32;
        self
    }

    /// Whether the checksum is right for this value of a record at `at`, superseded or not.
    #[inline]
    #[must_use]
    pub fn is_right(&self, salt: u64, at: u64, hash: u64, value: &[u8]) -> bool {
        let differs = self.second ^ u64::from(self.checksum(salt, at, hash, value)) << 32;
        differs >> 32 == 0 || (differs & !0xffff_ffff == SUPERSEDED && self.is(TOLD))
    }

    /// Whether the checksum is right, and the record of `at`, of which the ordered index was told, was not superseded.
    #[inline]
    #[must_use]
    pub fn is_newest(&self, salt: u64, at: u64, hash: u64, value: &[u8]) -> bool {
        self.is(TOLD) && self.second >> 32 == u64::from(self.checksum(salt, at, hash, value))
    }

    /// The second word of the record when it is superseded; `None` where nothing is to be changed.
    #[inline]
    #[must_use]
    pub const fn superseded(&self) -> Option<u64> {
        if self.is(TOLD) { Some(self.second ^ SUPERSEDED) } else { None }
    }

    /// Appends header and key, as they stand before the value.
    #[inline]
    pub fn append(&self, key: &Key<'_>, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.first.to_le_bytes());
        to.extend_from_slice(&self.second.to_le_bytes());
        if self.is(NAMED) {
            to.extend_from_slice(&u64::from(key.tree.0).to_le_bytes());
        }
        to.extend_from_slice(key.bytes);
    }

    /// The tree of the record at `at`.
    #[inline]
    pub fn tree<M: Media>(&self, media: &M, at: u64) -> TreeId {
        TreeId(if self.is(NAMED) { media.load(at + HEADER) as u32 } else { 0 })
    }

    /// Whether the record at `at`, which fits, is one of `key`.
    #[inline]
    pub fn is_of<M: Media>(&self, media: &M, at: u64, key: &Key<'_>) -> bool {
        self.key_len() == key.bytes.len()
            && self.tree(media, at) == key.tree
            && media.equals(at + self.before_key(), key.bytes)
    }
}

/// A record, copied out.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Where it lies.
    pub at: u64,
    /// Its header.
    pub head: Head,
    /// Its tree.
    pub tree: TreeId,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// The key's hash.
    pub hash: u64,
}

/// The record at `at`, checked.
///
/// # Errors
/// [`Damage`] where there is none.
pub fn read<M: Media>(media: &M, salt: u64, at: u64) -> Result<Whole, Damage> {
    let whole = read_unchecked(media, salt, at)?;
    let Whole { head, hash, value, .. } = &whole;
    if head.sequence() == 0 || !head.is_right(salt, at, *hash, value) {
        let wanted = u64::from(head.checksum(salt, at, *hash, value));
        return Err(Damage::new(Structure::Record, at, "the checksum", wanted, head.second >> 32));
    }
    Ok(whole)
}

/// What would be the record at `at`, if its checksum were right.
///
/// # Errors
/// [`Damage`] where none fits.
pub fn read_unchecked<M: Media>(media: &M, salt: u64, at: u64) -> Result<Whole, Damage> {
    let head = Head::checked(media, at)?;
    let tree = head.tree(media, at);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    media.append_to(at + head.before_key(), head.key_len(), &mut key);
    media.append_to(at + head.before_value(), head.value_len(), &mut value);
    let hash = hash(salt, tree, &key);
    Ok(Whole { at, head, tree, key, value, hash })
}

/// Writes a record at `at`, past the cache: durable after this thread's fence. `buf` is scratch.
#[inline]
pub fn write<M: Media>(media: &M, at: u64, head: &Head, key: &Key<'_>, value: &[u8], buf: &mut Vec<u8>) {
    buf.clear();
    head.append(key, buf);
    // A large value is not copied: it follows from the next line on.
    let inline = if value.len() <= 8192 { value.len() } else { (64 - buf.len() % 64) % 64 };
    buf.extend_from_slice(&value[..inline]);
    if inline == value.len() {
        buf.resize(buf.len().next_multiple_of(8), 0);
        return media.write_through(at, buf);
    }
    media.write_through(at, buf);
    let rest = &value[inline..];
    let whole = rest.len() - rest.len() % 64;
    let at = at + buf.len() as u64;
    media.write_through(at, &rest[..whole]);
    if whole < rest.len() {
        buf.clear();
        buf.extend_from_slice(&rest[whole..]);
        buf.resize(buf.len().next_multiple_of(8), 0);
        media.write_through(at + whole as u64, buf);
    }
}

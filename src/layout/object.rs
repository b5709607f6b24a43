//! What does every versioned object start with?
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | version: grows by one with each change, also across free and reuse, as long as the slot is one (J4) |
//! | 8 | 4 | check: hash of the first `len` bytes with this field zero, salted with pool and offset |
//! | 12 | 1 | kind |
//! | 13 | 1 | reserved, zero |
//! | 14 | 2 | len: how many bytes of the slot the object is, header included |
//!
//! Bytes of a slot past `len` belong to no object and carry no meaning, so an image is as short as its object.
//! A slot of zeros is a free slot of version 0: fresh arenas need only be zeroed. Where an arena was given back to files
//! and opened again, versions start from 0 again: an epoch lies between (J7), so no record knows the earlier ones.

use super::{get16, get32, get64, put};
use crate::error::{Damage, Structure};
use crate::units::PoolOff;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of the header of every object.
pub const HEADER_BYTES: usize = 16;
/// The largest slot, in bytes.
pub const MAX_OBJECT_BYTES: usize = 512;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A slot of an arena that holds nothing.
    Free = 0,
    /// An inode (256-byte slot).
    Inode = 1,
    /// A tree node (512-byte slot).
    Node = 2,
    /// An allocation group's object (192-byte slot).
    Group = 3,
    /// A chunk descriptor (192-byte slot).
    Chunk = 4,
    /// A lane's counters (64-byte slot).
    Lane = 5,
}

impl Kind {
    /// The kind a byte tells, if it tells one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Free,
            1 => Self::Inode,
            2 => Self::Node,
            3 => Self::Group,
            4 => Self::Chunk,
            5 => Self::Lane,
            _ => return None,
        })
    }

    /// The slot's size in bytes; for `Free`, the header's.
    #[must_use]
    pub const fn slot_bytes(self) -> usize {
        match self {
            Self::Free => HEADER_BYTES,
            Self::Inode => 256,
            Self::Node => 512,
            Self::Group | Self::Chunk => 192,
            Self::Lane => 64,
        }
    }

    /// The name to use in errors.
    #[must_use]
    pub const fn structure(self) -> Structure {
        match self {
            Self::Free | Self::Node => Structure::Node,
            Self::Inode => Structure::Inode,
            Self::Group => Structure::Group,
            Self::Chunk => Structure::Chunk,
            Self::Lane => Structure::Lane,
        }
    }
}

/// The salt of this pool's object checks and journal records: a random number of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The check of an object's bytes, whose check field must be zero, at `at`.
    fn object(self, at: PoolOff, bytes: &[u8]) -> u32 {
        let hash = xxh3_64_with_seed(bytes, self.0 ^ at.0);
        (hash ^ (hash >> 32)) as u32
    }

    /// The key under which a name is looked for: 55 bits of hash above 8 zero bits.
    #[must_use]
    pub fn name_key(self, name: &[u8]) -> u64 {
        xxh3_64_with_seed(name, self.0.rotate_left(17)) >> 9 << 8
    }
}

// Images come and go many times in an operation: a thread uses their buffers again.
std::thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}
const MAX_SPARE: usize = 32;

/// The bytes of an image; what lies past its length is whatever the last one left.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Self {
        Self(SPARE.with(|spare| spare.borrow_mut().pop()).unwrap_or_else(|| vec![0; MAX_OBJECT_BYTES]))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // At the end of a thread the spare buffers may be gone already.
        let _kept = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(bytes);
            }
        });
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A copy of one object, checked or about to be staged.
#[derive(Clone)]
pub struct Image {
    /// As long as the largest object, on the heap: an image is handed through many calls.
    bytes: Buffer,
    len: usize,
    /// The content was found to be well formed before, or was made by this process.
    trusted: bool,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image {{ kind: {}, version: {}, len: {} }}", self.bytes[12], self.version(), self.len)
    }
}

impl Image {
    /// An object of `kind` and `len` bytes (header included), zero but for its header.
    /// `len` is cut to the kind's slot.
    #[must_use]
    pub fn new(kind: Kind, len: usize) -> Self {
        let len = len.clamp(HEADER_BYTES, kind.slot_bytes());
        let mut bytes = Buffer::new();
        bytes[..len].fill(0);
        bytes[12] = kind as u8;
        put(&mut bytes, 14, &(len as u16).to_le_bytes());
        Self { bytes, len, trusted: true }
    }

    /// Whether the content needs no more checking: it was found to be well formed at this version before, or was
    /// made by this process.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The same image as if it came from the media for the first time.
    #[cfg(test)]
    pub(crate) fn untrusted(mut self) -> Self {
        self.trusted = false;
        self
    }

    /// The object's bytes, header included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The object's bytes, header included, to be filled in.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Changes the object's length in bytes (header included), cut to the kind's slot; new bytes are zero.
    pub fn set_len(&mut self, len: usize) {
        let len = len.clamp(HEADER_BYTES, self.kind().slot_bytes());
        if len > self.len {
            self.bytes[self.len..len].fill(0);
        }
        self.len = len;
        put(&mut self.bytes, 14, &(len as u16).to_le_bytes());
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_byte(self.bytes[12]).unwrap_or(Kind::Free)
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> u64 {
        get64(&self.bytes, 0)
    }

    /// Sets the version, and the check that covers it.
    pub fn seal(&mut self, seed: Seed, at: PoolOff, version: u64) {
        put(&mut self.bytes, 0, &version.to_le_bytes());
        seal(seed, at, &mut self.bytes[..self.len]);
    }

    /// The image of an object of `bytes` (header included) that this process made.
    pub(crate) fn made(bytes: &[u8]) -> Self {
        let len = bytes.len().min(MAX_OBJECT_BYTES);
        let mut image = Self { bytes: Buffer::new(), len, trusted: true };
        image.bytes[..len].copy_from_slice(&bytes[..len]);
        image
    }

    /// The object in a slot's `slot` bytes at `at`: of kind `want`, or free.
    ///
    /// # Errors
    /// [`Damage`] where the kind is another, the length does not fit or the check differs. A slot of zeros is
    /// a free object of version 0.
    pub fn open(seed: Seed, at: PoolOff, want: Kind, slot: &[u8]) -> Result<Self, Damage> {
        let short = || Damage::new(want.structure(), at, "slot size", HEADER_BYTES as u64, slot.len() as u64);
        let (header, rest) = slot.split_first_chunk().ok_or_else(short)?;
        let read = |body: &mut [u8]| {
            body.copy_from_slice(rest.get(..body.len()).ok_or_else(short)?);
            Ok(())
        };
        Self::fetch(seed, at, want, header, |_| false, read)
    }

    /// As [`Self::open`], reading no more than the object has: `header` was read, `read` reads what follows it.
    /// Where `known` says of a version that it was found to be well formed, the check is not computed again.
    ///
    /// # Errors
    /// [`Damage`] as for [`Self::open`], and what `read` returns.
    pub fn fetch<E: From<Damage>>(
        seed: Seed,
        at: PoolOff,
        want: Kind,
        header: &[u8; HEADER_BYTES],
        known: impl FnOnce(u64) -> bool,
        read: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let damage =
            |what, expected, found| Err(Damage::new(want.structure(), at, what, expected, found).into());
        let (kind, len) = (header[12], usize::from(get16(header, 14)));
        if *header == [0; HEADER_BYTES] {
            return Ok(Self::new(Kind::Free, HEADER_BYTES));
        }
        let kind = match Kind::from_byte(kind) {
            Some(kind) if kind == want || kind == Kind::Free => kind,
            _ => return damage("kind", want as u64, u64::from(kind)),
        };
        if len < HEADER_BYTES || len > kind.slot_bytes() {
            return damage("length", kind.slot_bytes() as u64, len as u64);
        }
        let mut image = Self { bytes: Buffer::new(), len, trusted: false };
        image.bytes[..HEADER_BYTES].copy_from_slice(header);
        read(&mut image.bytes[HEADER_BYTES..len])?;
        if known(get64(header, 0)) {
            image.trusted = true;
            return Ok(image);
        }
        put(&mut image.bytes, 8, &[0; 4]);
        let (expected, found) = (seed.object(at, &image.bytes[..len]), get32(header, 8));
        put(&mut image.bytes, 8, &header[8..12]);
        if expected != found {
            return damage("check", u64::from(expected), u64::from(found));
        }
        Ok(image)
    }
}

/// Computes the check of the object of `bytes` at `at`, whose version is set, into its header.
pub(crate) fn seal(seed: Seed, at: PoolOff, bytes: &mut [u8]) {
    put(bytes, 8, &[0; 4]);
    let check = seed.object(at, bytes);
    put(bytes, 8, &check.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_object_opens_and_any_flipped_bit_is_damage() {
        let (seed, at) = (Seed(7), PoolOff(4096));
        let mut image = Image::new(Kind::Inode, 128);
        image.bytes_mut()[40] = 9;
        image.seal(seed, at, 3);
        let slot = image.bytes().to_vec();
        assert_eq!(Image::open(seed, at, Kind::Inode, &slot).unwrap().version(), 3);
        for bit in 0..slot.len() * 8 {
            if bit / 8 == 13 {
                continue;
            }
            let mut torn = slot.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert!(Image::open(seed, at, Kind::Inode, &torn).is_err(), "bit {bit}");
        }
        assert!(Image::open(seed, PoolOff(8192), Kind::Inode, &slot).is_err(), "misplaced");
        assert!(Image::open(Seed(8), at, Kind::Inode, &slot).is_err(), "another pool's");
    }

    #[test]
    fn zeros_are_a_free_slot() {
        let image = Image::open(Seed(1), PoolOff(64), Kind::Node, &[0; 512]).unwrap();
        assert_eq!((image.kind(), image.version()), (Kind::Free, 0));
    }
}

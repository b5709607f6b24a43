//! What does a journal record look like, and when is one valid?
//!
//! | offset | bytes | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | magic `DAXRECRD` |
//! | 8 | 8 | hash of bytes 16 to the end, salted with pool, epoch and lane |
//! | 16 | 8 | epoch |
//! | 24 | 8 | sequence in the lane |
//! | 32 | 4 | lane |
//! | 36 | 4 | bytes of the record |
//! | 40 | 4 | images |
//! | 44 | 4 | reserved, zero |
//! | 48 | | per image: 8 bytes (pool offset / 64 in the low 48 bits, length above), then the image, padded to 8 |
//!
//! A record starts at a multiple of 64 in its lane's ring and does not wrap. J8: only the hash makes it valid.

use super::tx::Draft;
use crate::layout::{HEADER_BYTES, Image, MAX_OBJECT_BYTES, Seed, get32, get64, put};
use crate::pmem::mutation::{self, Mutation};
use crate::units::PoolOff;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const MAGIC: [u8; 8] = *b"DAXRECRD";
/// Bytes before the first image.
pub(super) const RECORD_HEADER_BYTES: u64 = 48;

/// Who wrote a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub seed: Seed,
    pub epoch: u64,
    pub lane: u32,
}

impl Origin {
    fn hash(self, bytes: &[u8]) -> u64 {
        let salt = self.seed.0 ^ self.epoch.rotate_left(32) ^ u64::from(self.lane);
        xxh3_64_with_seed(bytes, salt)
    }
}

/// Bytes that an image of `len` bytes takes in a record.
pub(super) const fn entry_bytes(len: usize) -> u64 {
    8 + (len as u64).next_multiple_of(8)
}

/// The word before an image of `len` bytes that goes to `home`.
pub(super) const fn entry_word(home: PoolOff, len: usize) -> u64 {
    (home.0 / 64) | ((len as u64) << 48)
}

/// Fills in the header of a record whose images are in place after it.
pub(super) fn finish(bytes: &mut [u8], origin: Origin, sequence: u64, images: usize) {
    let len = bytes.len() as u32;
    put(bytes, 0, &MAGIC);
    put(bytes, 16, &origin.epoch.to_le_bytes());
    put(bytes, 24, &sequence.to_le_bytes());
    put(bytes, 32, &origin.lane.to_le_bytes());
    put(bytes, 36, &len.to_le_bytes());
    put(bytes, 40, &(images as u32).to_le_bytes());
    put(bytes, 44, &[0; 4]);
    let hash = origin.hash(&bytes[16..]);
    put(bytes, 8, &hash.to_le_bytes());
}

/// What is left of a record if only the first line of each image is written down (a mutation of J5).
pub(super) fn only_first_lines(draft: &Draft) -> Draft {
    let mut partial = Draft { bytes: vec![0; RECORD_HEADER_BYTES as usize], entries: Vec::new() };
    for entry in &draft.entries {
        partial.put(entry.home, &Image::made(&draft.image(*entry)[..entry.len.min(64)]));
    }
    partial
}

/// A valid record's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    /// The record at the start of `ring`, if a valid one of `origin` is there.
    pub(super) fn parse(ring: &'a [u8], origin: Origin) -> Option<Self> {
        if ring.get(..8)? != MAGIC || get64(ring, 16) != origin.epoch || get32(ring, 32) != origin.lane {
            return None;
        }
        let len = get32(ring, 36) as usize;
        if len < RECORD_HEADER_BYTES as usize {
            return None;
        }
        let bytes = ring.get(..len)?;
        let valid = origin.hash(&bytes[16..]) == get64(bytes, 8) || mutation::is(Mutation::NoHash);
        valid.then_some(Self(bytes))
    }

    /// The images: where each goes, and its bytes.
    pub(super) fn images(self) -> impl Iterator<Item = (PoolOff, &'a [u8])> {
        let mut left = get32(self.0, 40);
        let mut at = RECORD_HEADER_BYTES as usize;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let word = get64(self.0.get(at..at + 8)?, 0);
            let len = (word >> 48) as usize;
            if !(HEADER_BYTES..=MAX_OBJECT_BYTES).contains(&len) {
                return None;
            }
            let bytes = self.0.get(at + 8..at + 8 + len)?;
            at += entry_bytes(len) as usize;
            Some((PoolOff((word & ((1 << 48) - 1)) * 64), bytes))
        })
    }

    /// Bytes of the record.
    pub(super) fn len(self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Kind;

    fn origin() -> Origin {
        Origin { seed: Seed(5), epoch: 3, lane: 1 }
    }

    fn sample() -> Vec<u8> {
        let mut image = Image::new(Kind::Inode, 140);
        image.seal(Seed(5), PoolOff(512), 9);
        let mut free = Image::new(Kind::Free, 16);
        free.seal(Seed(5), PoolOff(1024), 2);
        let mut draft = Draft { bytes: vec![0; RECORD_HEADER_BYTES as usize], entries: Vec::new() };
        draft.put(PoolOff(512), &image);
        draft.put(PoolOff(1024), &free);
        finish(&mut draft.bytes, origin(), 7, 2);
        draft.bytes
    }

    #[test]
    fn a_record_reads_back_what_was_built() {
        let bytes = sample();
        let record = Record::parse(&bytes, origin()).unwrap();
        let images: Vec<_> = record.images().map(|(at, b)| (at.0, b.len(), get64(b, 0))).collect();
        assert_eq!(images, [(512, 140, 9), (1024, 16, 2)]);
        assert_eq!(record.len() as u64, RECORD_HEADER_BYTES + entry_bytes(140) + entry_bytes(16));
    }

    #[test]
    fn any_torn_word_and_any_other_origin_is_invalid() {
        let bytes = sample();
        for word in 0..bytes.len() / 8 {
            let mut torn = bytes.clone();
            torn[word * 8] ^= 1;
            assert!(Record::parse(&torn, origin()).is_none(), "word {word}");
        }
        assert!(Record::parse(&bytes, Origin { epoch: 4, ..origin() }).is_none());
        assert!(Record::parse(&bytes, Origin { lane: 0, ..origin() }).is_none());
        assert!(Record::parse(&bytes, Origin { seed: Seed(6), ..origin() }).is_none());
        for len in 0..bytes.len() {
            assert!(Record::parse(&bytes[..len], origin()).is_none(), "cut at {len}");
        }
    }
}

//! How do several words of the index change at once?
//!
//! The words that link pages are changed in groups. A group is written as a record into one of two areas in turn, with a
//! fence, and only then stored to its places; recovery stores the groups of both areas again, the older first.
//!
//! | offset | size | field | meaning |
//! | --- | --- | --- | --- |
//! | 0 | 8 | `sum` | hash of the rest of the record, salted with the area's offset |
//! | 8 | 8 | `stamp` | one more than that of the record before |
//! | 16 | 8 | `count` | words |
//! | 24 | 16 each | | offset of the word, its value |
//!
//! Invariants:
//! 1. What the new values link to is durable before the record is written.
//! 2. A word is stored after the record's fence, and is durable before the area is used again: the next record's fence
//!    covers its flush.
//! 3. A page that a record's words lie in is not used for anything else before the record is gone: recovery would store
//!    into it. What a group gives up is free after the next group's record; recovery ends by clearing the areas, the
//!    older first.

use super::mutation::{self, Mutation};
use crate::error::Result;
use crate::media::Media;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const HEAD: usize = 24;
const AREA: u64 = 4096;
/// Bytes of both areas.
pub(super) const BYTES: u64 = 2 * AREA;

/// The two areas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    at: u64,
    stamp: u64,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

impl Log {
    /// How many words a record can hold.
    pub(super) const CAPACITY: usize = (AREA as usize - HEAD) / 16;

    /// The areas at `at`.
    pub(super) const fn new(at: u64) -> Self {
        Self { at, stamp: 0 }
    }

    /// Writes a record and waits until it is durable.
    pub(super) fn write<M: Media>(
        &mut self,
        media: &M,
        words: impl ExactSizeIterator<Item = (u64, u64)>,
    ) -> Result<()> {
        let stamp = self.stamp + 1;
        let at = self.at + AREA * (stamp % 2);
        let mut record = vec![0; 8];
        record.extend_from_slice(&stamp.to_le_bytes());
        record.extend_from_slice(&(words.len() as u64).to_le_bytes());
        for (at, value) in words {
            record.extend_from_slice(&at.to_le_bytes());
            record.extend_from_slice(&value.to_le_bytes());
        }
        let sum = xxh3_64_with_seed(&record[8..], at);
        record[..8].copy_from_slice(&sum.to_le_bytes());
        media.write_through(at, &record);
        if !mutation::is(Mutation::NoRecordFence) {
            media.fence()?;
        }
        self.stamp = stamp;
        Ok(())
    }

    /// The stamp and the words of area `i`, if a whole record is there.
    fn read<M: Media>(&self, media: &M, i: u64) -> Option<(u64, Vec<(u64, u64)>)> {
        let at = self.at + AREA * i;
        let mut bytes = vec![0; AREA as usize];
        media.read(at, &mut bytes);
        let count = usize::try_from(word(&bytes, 16)).ok().filter(|count| *count <= Self::CAPACITY)?;
        let record = &bytes[..HEAD + 16 * count];
        let whole = xxh3_64_with_seed(&record[8..], at) == word(record, 0);
        let pairs = record[HEAD..].chunks_exact(16).map(|pair| (word(pair, 0), word(pair, 8)));
        whole.then(|| (word(record, 8), pairs.collect()))
    }

    /// Stores the words of the records again and clears the records, so that both is durable on return.
    ///
    /// # Errors
    /// The medium's.
    pub(super) fn replay<M: Media>(&mut self, media: &M) -> Result<()> {
        let mut records: Vec<_> = (0..2).filter_map(|i| self.read(media, i)).collect();
        records.sort_unstable_by_key(|(stamp, _)| *stamp);
        if mutation::is(Mutation::YoungerFirst) {
            records.reverse();
        }
        for (at, value) in records.iter().flat_map(|(_, words)| words) {
            if at.is_multiple_of(8) && at.saturating_add(8) <= media.len() {
                media.store(*at, *value);
                media.flush(*at, 8);
            }
        }
        media.fence()?;
        for (stamp, _) in records.iter().filter(|_| !mutation::is(Mutation::KeepRecords)) {
            let at = self.at + AREA * (stamp % 2);
            media.store(at, 0);
            media.flush(at, 8);
            media.fence()?;
        }
        self.stamp = if mutation::is(Mutation::KeepRecords) {
            records.last().map_or(0, |(stamp, _)| *stamp)
        } else {
            0
        };
        Ok(())
    }
}

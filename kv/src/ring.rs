//! Which changes may not have reached the index yet?
//!
//! Each session has a ring in the file. A change notes in it where its record lies, under the fence that makes the record
//! durable. The tail passes a note when the index durably names the record (or a later one). What lies between the tail and the
//! first note that is not of its lap is replayed after a crash.
//!
//! | byte | bits | what |
//! | ---: | ---: | --- |
//! | 0 | 16 | lap |
//! | 2 | 48 | sequence number |
//! | 8 | 36 | offset of the record, or of the list of a batch, in units of 8 bytes |
//! | 12.5 | 1 | whether it is a list |
//! | 14 | 16 | checksum |
//!
//! The tail is a sealed word at the ring's start: a position, which counts notes from 0.
//!
//! Invariants:
//! 1. K5: the tail passes a note when what it tells is durable in the index.
//! 2. A note is never overwritten before the tail that passed it is durable.

use crate::error::{Damage, Structure};
use crate::layout::{LINE, RING_BYTES, RINGS, SLOT_BITS};
use crate::media::Media;
use crate::sealed::{seal, unseal};

/// Notes of a ring.
pub const NOTES: u64 = (RING_BYTES - LINE) / 16;

/// What a change notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Of the change.
    pub sequence: u64,
    /// Where the record lies, or the list of a batch.
    pub at: u64,
    /// Whether it is the list of a batch.
    pub list: bool,
}

const LIST: u64 = 1 << SLOT_BITS;

const fn lap(position: u64) -> u64 {
    (position / NOTES + 1) & 0xffff
}

const fn check(salt: u64, first: u64, rest: u64) -> u64 {
    let mixed = (first ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rest.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed ^ mixed >> 29).wrapping_mul(0x1656_67b1_9e37_79f9) >> 48
}

/// A ring in the file.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Its number among the sessions.
    pub number: usize,
    /// Of the database.
    pub salt: u64,
}

impl Ring {
    const fn at(self) -> u64 {
        RINGS + self.number as u64 * RING_BYTES
    }

    const fn note_at(self, position: u64) -> u64 {
        self.at() + LINE + position % NOTES * 16
    }

    /// Writes the note at `position`: durable with this thread's fence.
    #[inline]
    pub fn write<M: Media>(self, media: &M, position: u64, note: Note) {
        let first = note.sequence << 16 | lap(position);
        let rest = (note.at / 8) | if note.list { LIST } else { 0 };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..].copy_from_slice(&(rest | check(self.salt, first, rest) << 48).to_le_bytes());
        media.write_through(self.note_at(position), &bytes);
    }

    /// The note at `position`, if it is of that lap.
    pub fn read<M: Media>(self, media: &M, position: u64) -> Option<Note> {
        let at = self.note_at(position);
        let (first, second) = (media.load(at), media.load(at + 8));
        let rest = second & ((1 << 48) - 1);
        let is_right = first & 0xffff == lap(position) && second >> 48 == check(self.salt, first, rest);
        let note = Note { sequence: first >> 16, at: (rest & (LIST - 1)) * 8, list: rest & LIST != 0 };
        is_right.then_some(note)
    }

    /// The position of the first note that is to be replayed.
    ///
    /// # Errors
    /// [`Damage`] of the word.
    pub fn tail<M: Media>(self, media: &M) -> Result<u64, Damage> {
        let (at, word) = (self.at(), media.load(self.at()));
        let damage =
            || Damage::new(Structure::Ring, at, "the tail's checksum", seal(self.salt, at, word), word);
        unseal(self.salt, at, word).ok_or_else(damage)
    }

    /// Moves the tail: durable with this thread's fence.
    #[inline]
    pub fn set_tail<M: Media>(self, media: &M, position: u64) {
        media.write_through(self.at(), &seal(self.salt, self.at(), position).to_le_bytes());
    }

    /// The notes that are to be replayed, with the position after them.
    ///
    /// # Errors
    /// [`Damage`] of the tail, or of a note that others follow: each was durable before the next was written, so a crash leaves no gap.
    pub fn pending<M: Media>(self, media: &M) -> Result<(Vec<Note>, u64), Damage> {
        let tail = self.tail(media)?;
        let notes: Vec<_> = (tail..tail + NOTES).map_while(|position| self.read(media, position)).collect();
        let end = tail + notes.len() as u64;
        if let Some(later) = (end + 1..tail + NOTES).find(|position| self.read(media, *position).is_some()) {
            let what = "a note before those that follow it";
            return Err(Damage::new(Structure::Ring, self.note_at(end), what, later, end));
        }
        Ok((notes, end))
    }
}

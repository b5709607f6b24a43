//! What must recovery finish?
//!
//! A change too long for one record, an unlinked file that is still open, and a file with space beyond its end
//! leave an intent: a record in the tree of a hidden inode, written with the change's first record and removed
//! with its last. Recovery does what the intents say; each can be done again from any point.
//!
//! | byte | field |
//! | ---: | --- |
//! | 0 | kind: 1 clean up, 2 punch, 3 allocate, 4 zero, 5 collapse, 6 insert, 7 snapshot |
//! | 8 | first file block (kinds 2 to 6) |
//! | 16 | file block after the last |
//! | 24 | size to be at least reached in bytes (kinds 3 and 4), or 0; size to be set (kinds 5 and 6) |
//! | 32 | blocks that what follows moves by (kinds 5 and 6 alone have this) |
//!
//! The key is the inode number times 4, plus 0 for a clean-up, 2 for a snapshot and 1 for the rest: one of each at most.

use super::{Draft, InodeCore};
use crate::alloc::{Op, Space};
use crate::error::{Damage, Result, Structure};
use crate::layout::{Durability, Inode, get64};
use crate::tree;
use crate::units::{BLOCK_BYTES, FileBlock, Ino, MAX_FILE_BYTES};
use std::ops::ControlFlow;

/// Work that recovery finishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Delete the inode if it has no links, else free its blocks beyond the end.
    CleanUp,
    /// A change of a range of blocks, `start` to `end` (exclusive), and of the size.
    Range {
        /// What is done to the blocks.
        change: RangeChange,
        /// The first block.
        start: FileBlock,
        /// The block after the last.
        end: FileBlock,
        /// The size in bytes to be reached at least.
        size: u64,
    },
    /// Blocks of a file move.
    Shift(Shift),
    /// Remove the directory and all below it: a snapshot in the making.
    Snapshot,
}

/// How blocks of a file still have to move. What has moved already is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// In which direction.
    pub change: ShiftChange,
    /// The first block of the range.
    pub start: FileBlock,
    /// The block after the last.
    pub end: FileBlock,
    /// How many blocks everything moves by.
    pub by: u64,
    /// The size in bytes that the file has when all have moved.
    pub size: u64,
}

/// How blocks move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ShiftChange {
    /// What the range holds is freed, and what follows it moves down to its start: the range is `by` long.
    Collapse = 5,
    /// What begins in the range moves up by `by`.
    Insert = 6,
}

/// What is done to a range of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RangeChange {
    /// Blocks are freed.
    Punch = 2,
    /// Holes become unwritten.
    Allocate = 3,
    /// Everything becomes unwritten.
    Zero = 4,
}

const INTENT_BYTES: usize = 32;
const SHIFT_BYTES: usize = 40;
const SNAPSHOT: u8 = 7;

impl Intent {
    const fn key(self, ino: Ino) -> u64 {
        match self {
            Self::CleanUp => ino.0 * 4,
            Self::Range { .. } | Self::Shift(_) => range_key(ino),
            Self::Snapshot => ino.0 * 4 + 2,
        }
    }

    fn encode(self) -> Vec<u8> {
        let words = |kind: u8, words: &[u64]| {
            let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            bytes
        };
        match self {
            Self::CleanUp => words(1, &[0; 3]),
            Self::Snapshot => words(SNAPSHOT, &[0; 3]),
            Self::Range { change, start, end, size } => words(change as u8, &[start.0, end.0, size]),
            Self::Shift(Shift { change, start, end, by, size }) => {
                words(change as u8, &[start.0, end.0, size, by])
            }
        }
    }

    /// The intent in `bytes`, a record of the tree of `owner`, and the inode it is about.
    ///
    /// # Errors
    /// Damage.
    pub fn decode(owner: Ino, key: u64, bytes: &[u8]) -> Result<(Ino, Self)> {
        let damage = |what, expected, found| {
            Err(Damage::new(Structure::Intent, owner.offset(), what, expected, found).into())
        };
        let Some(kind) = bytes.first() else { return damage("length", INTENT_BYTES as u64, 0) };
        let is_shift = *kind == ShiftChange::Collapse as u8 || *kind == ShiftChange::Insert as u8;
        let len = if is_shift { SHIFT_BYTES } else { INTENT_BYTES };
        if bytes.len() != len {
            return damage("length", len as u64, bytes.len() as u64);
        }
        let (start, end) = (FileBlock(get64(bytes, 8)), FileBlock(get64(bytes, 16)));
        let size = get64(bytes, 24);
        let intent = match kind {
            1 => return Ok((Ino(key / 4), Self::CleanUp)),
            2 => Self::Range { change: RangeChange::Punch, start, end, size },
            3 => Self::Range { change: RangeChange::Allocate, start, end, size },
            4 => Self::Range { change: RangeChange::Zero, start, end, size },
            5 => Self::Shift(Shift { change: ShiftChange::Collapse, start, end, size, by: get64(bytes, 32) }),
            6 => Self::Shift(Shift { change: ShiftChange::Insert, start, end, size, by: get64(bytes, 32) }),
            &SNAPSHOT => return Ok((Ino(key / 4), Self::Snapshot)),
            kind => return damage("kind", u64::from(SNAPSHOT), u64::from(*kind)),
        };
        if start > end || end.offset() > MAX_FILE_BYTES {
            return damage("range end", start.0, end.0);
        }
        if size > MAX_FILE_BYTES {
            return damage("size", MAX_FILE_BYTES, size);
        }
        match intent {
            Self::Shift(Shift { change: ShiftChange::Collapse, by, .. }) if by != end.0 - start.0 => {
                damage("blocks taken out", end.0 - start.0, by)
            }
            Self::Shift(Shift { by, .. }) if by > MAX_FILE_BYTES / BLOCK_BYTES => {
                damage("blocks put in", MAX_FILE_BYTES / BLOCK_BYTES, by)
            }
            intent => Ok((Ino(key / 4), intent)),
        }
    }
}

const fn range_key(ino: Ino) -> u64 {
    ino.0 * 4 + 1
}

/// The hidden inode, locked for a change of the intents, or of the shares (`shares`).
#[derive(Debug)]
pub struct Intents<'c>(pub(super) Draft<'c>);

impl<'c> Intents<'c> {
    /// Locks the intents; nothing else is locked after them but space and a lane.
    pub fn lock(core: &'c InodeCore) -> Self {
        Self(Draft::lock_intents(core))
    }

    /// Names the pool's level of durability in the flags of the hidden inode, with `op`.
    ///
    /// # Errors
    /// [`crate::Error::TooBig`].
    pub fn set_durability(&mut self, op: &mut Op<'_>, level: Durability) -> Result<()> {
        self.0.inode.flags = Durability::bits(Some(level));
        self.0.stage(op)
    }

    /// Adds an intent about `ino` with `op`.
    ///
    /// # Errors
    /// No space, damage.
    pub fn put(&mut self, op: &mut Op<'_>, ino: Ino, intent: Intent) -> Result<()> {
        let owner = self.0.ino();
        tree::insert(op, self.0.root(), owner, intent.key(ino), &intent.encode())?;
        self.0.stage(op)
    }

    /// Whether an intent to change a range of `ino` is noted, as one is that could not be finished.
    ///
    /// # Errors
    /// Damage.
    pub fn has_range(core: &InodeCore, space: &Space, ino: Ino) -> Result<bool> {
        Self::has(core, space, range_key(ino))
    }

    /// Whether the directory `ino` is noted as a snapshot in the making.
    ///
    /// # Errors
    /// Damage.
    pub fn has_snapshot(core: &InodeCore, space: &Space, ino: Ino) -> Result<bool> {
        Self::has(core, space, Intent::Snapshot.key(ino))
    }

    fn has(core: &InodeCore, space: &Space, key: u64) -> Result<bool> {
        let state = core.state.read();
        let is_empty = state.root.count == 0;
        Ok(!is_empty && tree::get(space, &state.root, core.ino, key)?.is_some())
    }

    /// Removes the intent to change a range of `ino` with `op`, if there is one.
    ///
    /// # Errors
    /// Damage.
    pub fn remove_range(&mut self, op: &mut Op<'_>, ino: Ino) -> Result<()> {
        self.remove_key(op, range_key(ino))
    }

    fn remove_key(&mut self, op: &mut Op<'_>, key: u64) -> Result<()> {
        let owner = self.0.ino();
        match tree::remove(op, self.0.root(), owner, key)? {
            Some(_) => self.0.stage(op),
            None => Ok(()),
        }
    }

    /// Removes the intent about `ino` of the kind of `intent` with `op`, if there is one.
    ///
    /// # Errors
    /// Damage.
    pub fn remove(&mut self, op: &mut Op<'_>, ino: Ino, intent: Intent) -> Result<()> {
        self.remove_key(op, intent.key(ino))
    }

    /// Publishes the change after the commit.
    ///
    /// # Errors
    /// Errors of the medium.
    pub fn publish(self, space: &Space) -> Result<()> {
        self.0.publish(space.journal().region())
    }
}

/// Every intent of the hidden inode `owner`.
///
/// # Errors
/// Damage.
pub fn list(space: &Space, owner: Ino, inode: &Inode) -> Result<Vec<(Ino, Intent)>> {
    let mut all = Vec::new();
    tree::scan(space, &inode.root, owner, 0, |key, bytes| {
        all.push(Intent::decode(owner, key, bytes)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Ino = Ino(9);

    fn shift(change: ShiftChange, start: u64, end: u64, by: u64, size: u64) -> Intent {
        Intent::Shift(Shift { change, start: FileBlock(start), end: FileBlock(end), by, size })
    }

    #[test]
    fn what_is_written_is_read() {
        let range = |change| Intent::Range { change, start: FileBlock(3), end: FileBlock(9), size: 77 };
        let all = [
            Intent::CleanUp,
            Intent::Snapshot,
            range(RangeChange::Punch),
            range(RangeChange::Allocate),
            range(RangeChange::Zero),
            shift(ShiftChange::Collapse, 3, 9, 6, 5000),
            shift(ShiftChange::Insert, 3, 1 << 50, 6, 5000),
        ];
        for intent in all {
            let read = Intent::decode(OWNER, intent.key(Ino(5)), &intent.encode());
            assert_eq!(read.ok(), Some((Ino(5), intent)));
        }
    }

    #[test]
    fn what_can_not_be_is_damage() {
        let refused = |intent: Intent, len: usize| {
            let mut bytes = intent.encode();
            bytes.resize(len, 0);
            assert!(Intent::decode(OWNER, 21, &bytes).is_err(), "{intent:?}, {len}");
        };
        let collapse = shift(ShiftChange::Collapse, 3, 9, 6, 5000);
        [0, 1, 8, 32, 39, 41].into_iter().for_each(|len| refused(collapse, len));
        [0, 31, 40].into_iter().for_each(|len| refused(Intent::CleanUp, len));
        [0, 31, 40].into_iter().for_each(|len| refused(Intent::Snapshot, len));
        refused(shift(ShiftChange::Collapse, 3, 9, 5, 0), SHIFT_BYTES);
        refused(shift(ShiftChange::Collapse, 9, 3, 0, 0), SHIFT_BYTES);
        refused(shift(ShiftChange::Insert, 3, (1 << 50) + 1, 5, 0), SHIFT_BYTES);
        refused(shift(ShiftChange::Insert, 3, 4, (1 << 50) + 1, 0), SHIFT_BYTES);
        refused(shift(ShiftChange::Insert, 3, 4, 1, MAX_FILE_BYTES + 1), SHIFT_BYTES);
        let mut unknown = collapse.encode();
        unknown[0] = 8;
        assert!(Intent::decode(OWNER, 21, &unknown).is_err());
    }
}

//! What must recovery finish?
//!
//! A change too long for one record, an unlinked file that is still open, and a file with space beyond its end
//! leave an intent: a record in the tree of a hidden inode, written with the change's first record and removed
//! with its last. Recovery does what the intents say; each can be done again from any point.
//!
//! | byte | field |
//! | ---: | --- |
//! | 0 | kind: 1 clean up, 2 punch, 3 allocate, 4 zero |
//! | 8 | first file block (kinds 2 to 4) |
//! | 16 | file block after the last |
//! | 24 | size to be at least reached in bytes (kinds 3 and 4), or 0 |
//!
//! The key is the inode number times 4, plus 0 for a clean-up and 1 for the rest: one of each at most.

use super::{Draft, InodeCore};
use crate::alloc::{Op, Space};
use crate::error::{Damage, Result, Structure};
use crate::layout::{Durability, Inode, get64};
use crate::tree;
use crate::units::{FileBlock, Ino};
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

impl Intent {
    const fn key(self, ino: Ino) -> u64 {
        ino.0 * 4 + matches!(self, Self::Range { .. }) as u64
    }

    fn encode(self) -> [u8; INTENT_BYTES] {
        let mut bytes = [0; INTENT_BYTES];
        match self {
            Self::CleanUp => bytes[0] = 1,
            Self::Range { change, start, end, size } => {
                bytes[0] = change as u8;
                bytes[8..16].copy_from_slice(&start.0.to_le_bytes());
                bytes[16..24].copy_from_slice(&end.0.to_le_bytes());
                bytes[24..].copy_from_slice(&size.to_le_bytes());
            }
        }
        bytes
    }

    /// The intent in `bytes`, a record of the tree of `owner`, and the inode it is about.
    ///
    /// # Errors
    /// Damage.
    pub fn decode(owner: Ino, key: u64, bytes: &[u8]) -> Result<(Ino, Self)> {
        let damage = |what, expected, found| {
            Err(Damage::new(Structure::Intent, owner.offset(), what, expected, found).into())
        };
        if bytes.len() != INTENT_BYTES {
            return damage("length", INTENT_BYTES as u64, bytes.len() as u64);
        }
        let change = match bytes[0] {
            1 => return Ok((Ino(key / 4), Self::CleanUp)),
            2 => RangeChange::Punch,
            3 => RangeChange::Allocate,
            4 => RangeChange::Zero,
            kind => return damage("kind", 4, u64::from(kind)),
        };
        let (start, end) = (FileBlock(get64(bytes, 8)), FileBlock(get64(bytes, 16)));
        if start > end || end.offset() > crate::units::MAX_FILE_BYTES {
            return damage("range end", start.0, end.0);
        }
        let size = get64(bytes, 24);
        if size > crate::units::MAX_FILE_BYTES {
            return damage("size", crate::units::MAX_FILE_BYTES, size);
        }
        Ok((Ino(key / 4), Self::Range { change, start, end, size }))
    }
}

const fn range_key(ino: Ino) -> u64 {
    ino.0 * 4 + 1
}

/// The intents, locked for a change.
#[derive(Debug)]
pub struct Intents<'c>(Draft<'c>);

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
        let state = core.state.read();
        let is_empty = state.root.count == 0;
        Ok(!is_empty && tree::get(space, &state.root, core.ino, range_key(ino))?.is_some())
    }

    /// Removes the intent to change a range of `ino` with `op`, if there is one.
    ///
    /// # Errors
    /// Damage.
    pub fn remove_range(&mut self, op: &mut Op<'_>, ino: Ino) -> Result<()> {
        let owner = self.0.ino();
        match tree::remove(op, self.0.root(), owner, range_key(ino))? {
            Some(_) => self.0.stage(op),
            None => Ok(()),
        }
    }

    /// Removes the intent about `ino` of the kind of `intent` with `op`, if there is one.
    ///
    /// # Errors
    /// Damage.
    pub fn remove(&mut self, op: &mut Op<'_>, ino: Ino, intent: Intent) -> Result<()> {
        let owner = self.0.ino();
        tree::remove(op, self.0.root(), owner, intent.key(ino))?;
        self.0.stage(op)
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

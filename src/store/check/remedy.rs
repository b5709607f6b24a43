//! What mends a fault?
//!
//! Remedies are applied stage by stage, each stage after a new check, since most faults of the later stages are
//! consequences of earlier ones:
//! 1. what every change needs: lane counters;
//! 2. marks: everything that is owned is marked used, so that what is given out from here on is free;
//! 3. trees: what can not be read or is owned by others is taken out, damaged inodes are freed;
//! 4. names: the root directory and the intents are there, what lost its name gets one in `/lost+found`;
//! 5. numbers: links, sizes, block counts, parents, owners of shared blocks;
//! 6. leaks: what nobody owns is freed, totals are set.

use super::inodes::Which;
use crate::layout::FileKind;
use crate::tree::Cut;
use crate::units::{Block, FileBlock, Ino, PoolOff, Run};

/// What mends a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Remedy {
    /// It goes with another fault.
    Nothing,
    /// Recovery has written it anew.
    Rewritten,
    /// A lane's counters begin anew.
    Lane(PoolOff),
    /// Descriptors and group objects are written anew, with everything marked that was.
    Marks,
    /// The slot is freed.
    FreeSlot(PoolOff),
    /// A part of a tree is taken out.
    Cut { ino: Ino, which: Which, part: Cut, high: u64 },
    /// A tree is emptied.
    Empty { ino: Ino, which: Which },
    /// A record is taken out of a tree.
    Drop { ino: Ino, which: Which, key: u64 },
    /// A file gives up blocks that another owns.
    GiveUp { ino: Ino, file: FileBlock, run: Run },
    /// A file gives up its blocks beyond its end.
    GiveUpFrom { ino: Ino, from: FileBlock },
    /// An entry gets the kind of its inode.
    Retype { ino: Ino, key: u64, kind: FileKind },
    /// The inode is freed; what it holds is a leak then.
    FreeInode(Ino),
    /// A new root directory is made.
    Root,
    /// A new inode of the intents is made.
    Intents,
    /// The inode gets a name in `/lost+found`.
    Reattach(Ino),
    /// The record of blocks with several owners that begins here is taken out.
    Unshare(Block),
    /// A record of blocks with several owners is put in.
    Share { run: Run, owners: u32 },
    /// A field of an inode is set.
    Set(Ino, Field),
    /// Marks become what is owned, and totals what was counted.
    Leaks,
}

/// A field of an inode, and what it shall be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Links(u32),
    Size(u64),
    Blocks(u64),
    Parent(Ino),
    /// Known bits only.
    Flags(u32),
    Capacity(u64),
    Hint(u32),
    Generation(u32),
    /// Written as it was understood.
    Mode,
}

/// When a remedy is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    First,
    Marks,
    Trees,
    Names,
    Numbers,
    Leaks,
}

impl Remedy {
    /// When it is applied; `None` where there is nothing to apply.
    pub const fn stage(self) -> Option<Stage> {
        Some(match self {
            Self::Nothing | Self::Rewritten => return None,
            Self::Lane(_) => Stage::First,
            Self::Marks => Stage::Marks,
            Self::Cut { .. }
            | Self::Empty { .. }
            | Self::Drop { .. }
            | Self::GiveUp { .. }
            | Self::GiveUpFrom { .. }
            | Self::Retype { .. }
            | Self::FreeInode(_) => Stage::Trees,
            Self::Root | Self::Intents | Self::Reattach(_) => Stage::Names,
            Self::Set(..) | Self::Unshare(_) | Self::Share { .. } => Stage::Numbers,
            Self::FreeSlot(_) | Self::Leaks => Stage::Leaks,
        })
    }

    /// Cuts come before what goes through the tree.
    pub const fn order(self) -> u8 {
        match self {
            Self::FreeInode(_) => 0,
            Self::Empty { .. } | Self::Root => 1,
            Self::Cut { .. } | Self::Intents | Self::Unshare(_) => 2,
            _ => 3,
        }
    }
}

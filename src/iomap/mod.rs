//! How does a file range become blocks?
//!
//! The vocabulary every mapper and every user of one shares, after Linux's iomap: a mapping is a run of one
//! state; readers, writers and reporters get types that can not carry what they must not see. This module
//! knows no store: the fault handler depends on it alone.
//!
//! Invariants:
//! 1. A mapping covers the position it was asked for and is not empty.
//! 2. It is the maximal run of one state (for mapped and unwritten ranges: contiguous in the pool too), clipped
//!    only to the request.
//! 3. A writer's mapping always has an address: a hole can not be returned to a writer.

mod access;
mod adapter;
mod fault;

pub use access::Access;
pub use adapter::{Blocks, ByBlocks, GetBlocks};
pub use fault::{
    AddressSpace, DetachedTransition, FaultOps, MakeDurable, Memory, Placement, SpaceSlot, Transition,
};

use crate::error::{Error, Result};
use crate::units::PoolOff;

/// A range of a file in bytes: `len` bytes from `offset`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRange {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl FileRange {
    /// `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`Error::FileTooLarge`] where the end is past 2^62.
    #[inline]
    pub fn new(offset: u64, len: u64) -> Result<Self> {
        match offset.checked_add(len) {
            Some(end) if end <= crate::units::MAX_FILE_BYTES => Ok(Self { offset, len }),
            _ => Err(Error::FileTooLarge { offset, len }),
        }
    }

    /// The first byte after the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset + self.len
    }
}

/// The state of a run, for readers and reporters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// No space; reads as zeros.
    Hole,
    /// Space is promised and not placed; reads as zeros.
    Reserved,
    /// Space at the address; reads as zeros.
    Unwritten(PoolOff),
    /// Data at the address.
    Mapped(PoolOff),
}

impl State {
    /// The state `bytes` further into the run.
    #[must_use]
    pub const fn advanced(self, bytes: u64) -> Self {
        match self {
            Self::Unwritten(at) => Self::Unwritten(at.plus(bytes)),
            Self::Mapped(at) => Self::Mapped(at.plus(bytes)),
            other => other,
        }
    }

    /// The pool offset of the run's first byte, where it has one.
    #[must_use]
    pub const fn address(self) -> Option<PoolOff> {
        match self {
            Self::Unwritten(at) | Self::Mapped(at) => Some(at),
            Self::Hole | Self::Reserved => None,
        }
    }
}

/// When a mapping was true: it is stale once the file's mapping sequence has moved on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cookie(pub u64);

/// A run of a file in one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Iomap {
    /// The file range the run covers, in bytes.
    pub range: FileRange,
    /// Its state.
    pub state: State,
    /// The extent has other owners: a store must go to a copy.
    pub shared: bool,
    /// When this was true.
    pub cookie: Cookie,
}

/// Where a writer may store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteMap {
    /// The file range, in bytes.
    pub range: FileRange,
    /// The pool offset of its first byte.
    pub at: PoolOff,
    /// What stands there before.
    pub before: Before,
    /// When this was true.
    pub cookie: Cookie,
}

/// What a writer finds in the blocks it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// The file's data: a store is visible at once.
    Data,
    /// Nothing yet (unwritten): whole blocks must be filled or zeroed, then [`WriteOps::end`] publishes them.
    Unwritten,
    /// Blocks just reserved: as unwritten, and unknown to the file before `end`.
    New,
    /// As `New`, in place of blocks that other files may own too: what the file has at the place's first byte is here (the
    /// source map), and whole blocks must be filled from there, where nothing else is stored.
    Shared(PoolOff),
}

/// What a reader of mappings asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// To read data.
    Read,
    /// To report states (seek, extents).
    Report,
}

/// A file's ranges as runs, for readers: holes in full.
pub trait IomapOps {
    /// The run at `range.offset`, clipped to `range`, which is not empty.
    ///
    /// # Errors
    /// Damage of the file's extents.
    fn begin(&self, range: FileRange, intent: Intent) -> Result<Iomap>;
}

/// A file's ranges as places to store, for writers.
pub trait WriteOps {
    /// A place for the first bytes of `range`, which is not empty; `None` where the change can take no more,
    /// so that the write ends short.
    ///
    /// # Errors
    /// No space (decided before any store), damage.
    fn begin(&mut self, range: FileRange) -> Result<Option<WriteMap>>;

    /// Says that `written` bytes from the mapping's start hold what the file shall have; what was reserved
    /// for the rest goes back.
    ///
    /// # Errors
    /// No space for tree nodes, damage.
    fn end(&mut self, map: &WriteMap, written: u64) -> Result<()>;
}

fn checked(range: FileRange, got: FileRange) -> Result<FileRange> {
    let covers = got.offset == range.offset && got.len > 0 && got.len <= range.len;
    if covers {
        Ok(got)
    } else {
        Err(Error::InvalidArgument("a mapper returned a mapping that does not cover the position"))
    }
}

/// Walks `range` run by run, the only place that advances over mappings: `body` gets each mapping and says
/// whether to go on.
///
/// # Errors
/// What the mapper or the body returns, and a mapping that breaks invariant 1.
pub fn walk(
    ops: &dyn IomapOps,
    range: FileRange,
    intent: Intent,
    mut body: impl FnMut(&Iomap) -> Result<std::ops::ControlFlow<()>>,
) -> Result<()> {
    let mut at = range.offset;
    while at < range.end() {
        let rest = FileRange { offset: at, len: range.end() - at };
        let map = ops.begin(rest, intent)?;
        at = checked(rest, map.range)?.end();
        if body(&map)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Walks `range` place by place for a writer: `body` stores into each and returns the bytes it wrote; fewer
/// than the mapping's end the walk. Returns the bytes written in all.
///
/// # Errors
/// What the mapper or the body returns, and a mapping that breaks invariant 1.
pub fn walk_write(
    ops: &mut dyn WriteOps,
    range: FileRange,
    mut body: impl FnMut(&WriteMap) -> Result<u64>,
) -> Result<u64> {
    let mut at = range.offset;
    while at < range.end() {
        let rest = FileRange { offset: at, len: range.end() - at };
        let Some(map) = ops.begin(rest)? else { break };
        checked(rest, map.range)?;
        let written = body(&map)?.min(map.range.len);
        ops.end(&map, written)?;
        at += written;
        if written < map.range.len {
            break;
        }
    }
    Ok(at - range.offset)
}

//! Which operations are tried?
//!
//! One value of [`Op`] is one call (or, for [`Op::CreateUnnamed`], two of which only the last can be seen after a
//! crash). Names are fixed strings, so that a printed sequence can be pasted into a test.

use proptest::prelude::*;

/// Bytes of a block.
pub const BLOCK: u64 = 4096;

/// What an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Whatever the path leads to; the last symbolic link is followed.
    Path(&'static str),
    /// A handle that [`Op::Open`] left open.
    Open(u8),
}

/// How a rename treats its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Replace,
    NoReplace,
    Exchange,
}

/// How blocks are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    Allocate,
    KeepSize,
    Punch,
    Zero,
    Collapse,
    Insert,
    Unshare,
}

/// Whether an attribute must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    Either,
    Create,
    Replace,
}

/// Attributes to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<i64>,
    pub mtime: Option<i64>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create(&'static str),
    /// A file that is written at its end alone, of so many bytes at most; 0 for no bound.
    CreateSequential {
        path: &'static str,
        capacity: u64,
    },
    /// Says in which pieces space is to be given: what a user sees stays, but that holes may have space.
    Hint {
        on: On,
        blocks: u64,
    },
    /// Empties a sequential file.
    Reset(On),
    /// A file without a name, with `len` bytes, that is then given the name.
    CreateUnnamed {
        path: &'static str,
        len: u64,
        fill: u8,
    },
    Mkdir(&'static str),
    Rmdir(&'static str),
    Unlink(&'static str),
    Link {
        from: &'static str,
        to: &'static str,
    },
    Symlink {
        target: &'static str,
        path: &'static str,
    },
    Rename {
        from: &'static str,
        to: &'static str,
        target: Target,
    },
    Write {
        on: On,
        at: u64,
        len: u64,
        fill: u8,
    },
    Append {
        on: On,
        len: u64,
        fill: u8,
    },
    Truncate {
        on: On,
        size: u64,
    },
    Fallocate {
        on: On,
        blocks: Blocks,
        at: u64,
        len: u64,
    },
    /// A fault gives the whole blocks of a range in the file, of one slot, blocks of zeros; with `whole`, one chunk.
    Populate {
        on: On,
        at: u64,
        len: u64,
        whole: bool,
    },
    /// Blocks of `from` become those of `to` as well; with `same`, only where both hold the same bytes.
    Reflink {
        from: On,
        to: On,
        at: u64,
        to_at: u64,
        len: u64,
        same: bool,
    },
    /// `to` becomes what `from` is.
    Become {
        from: On,
        to: On,
    },
    /// A new name for a copy of a file that shares its blocks.
    Clone {
        from: &'static str,
        to: &'static str,
    },
    /// Moves blocks; nothing that a user sees changes.
    Defrag(On),
    SetAttr {
        on: On,
        set: Attributes,
    },
    SetXattr {
        on: On,
        name: &'static str,
        len: u64,
        fill: u8,
        must: Must,
    },
    RemoveXattr {
        on: On,
        name: &'static str,
    },
    /// Opens a file for reading and writing and keeps it open; nothing happens where the handle is open already.
    Open {
        path: &'static str,
        handle: u8,
    },
    /// Closes a handle if it is open.
    Close(u8),
}

/// What an operation answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// So many bytes were written.
    Wrote(u64),
    /// The bytes were appended at this offset.
    Appended(u64),
    /// A handle was not as the operation needs it; nothing was done.
    Skipped,
}

/// The byte that a write with `fill` leaves at file offset `at`. Neighbouring words and fills differ.
pub fn pattern(fill: u8, at: u64) -> u8 {
    let mixed = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    (mixed as u8) ^ (at as u8 & 7).wrapping_mul(31) ^ fill.wrapping_mul(89) | 1
}

/// `len` bytes of [`pattern`] for file offset `at`.
pub fn bytes(fill: u8, at: u64, len: u64) -> Vec<u8> {
    (at..at + len).map(|at| pattern(fill, at)).collect()
}

/// The names that generated operations use for files, and for directories; now and then the wrong one.
const FILES: [&str; 7] = ["a", "b", "c", "d/a", "d/b", "d/e/a", "e/a"];
const DIRECTORIES: [&str; 3] = ["d", "e", "d/e"];
const XATTRS: [&str; 3] = ["user.x", "user.y", "user.a-longer-name-of-an-attribute"];

fn file() -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => prop::sample::select(&FILES[..]), 1 => prop::sample::select(&DIRECTORIES[..])]
}

fn directory() -> impl Strategy<Value = &'static str> {
    prop_oneof![1 => prop::sample::select(&FILES[..]), 12 => prop::sample::select(&DIRECTORIES[..])]
}

fn path() -> impl Strategy<Value = &'static str> {
    prop_oneof![7 => file(), 3 => directory()]
}

fn on() -> impl Strategy<Value = On> {
    prop_oneof![5 => file().prop_map(On::Path), 1 => (0..2_u8).prop_map(On::Open)]
}

fn on_any() -> impl Strategy<Value = On> {
    prop_oneof![5 => path().prop_map(On::Path), 1 => (0..2_u8).prop_map(On::Open)]
}

/// Offsets and lengths near the borders of blocks, and some far from them.
fn extent(most: u64) -> impl Strategy<Value = (u64, u64)> {
    let border = (0..most / BLOCK, -9..=9_i64).prop_map(|(b, d)| (b * BLOCK).saturating_add_signed(d));
    let offset = prop_oneof![border, 0..most, (0..most / BLOCK).prop_map(|b| b * BLOCK)];
    let len = prop_oneof![1..100_u64, 1..3 * BLOCK, Just(BLOCK), Just(2 * BLOCK), 1..most];
    (offset, len)
}

fn set() -> impl Strategy<Value = Attributes> {
    let time = prop::option::of(-5_000_000_000..5_000_000_000_000_000_000_i64);
    let id = || prop::option::of(0..70_000_u32);
    (prop::option::of(0..0o10000_u32), id(), id(), time.clone(), time)
        .prop_map(|(mode, uid, gid, atime, mtime)| Attributes { mode, uid, gid, atime, mtime })
}

fn data_op(most: u64) -> impl Strategy<Value = Op> {
    let blocks = prop::sample::select(vec![Blocks::Allocate, Blocks::KeepSize, Blocks::Punch, Blocks::Zero]);
    let shifts = prop::sample::select(vec![Blocks::Collapse, Blocks::Insert]);
    prop_oneof![
        6 => (on(), extent(most), any::<u8>())
            .prop_map(|(on, (at, len), fill)| Op::Write { on, at, len, fill }),
        3 => (on(), 1..5000_u64, any::<u8>()).prop_map(|(on, len, fill)| Op::Append { on, len, fill }),
        2 => (on(), extent(most)).prop_map(|(on, (size, _))| Op::Truncate { on, size }),
        3 => (on(), blocks, extent(most))
            .prop_map(|(on, blocks, (at, len))| Op::Fallocate { on, blocks, at, len }),
        3 => (on(), shifts, 0..most / BLOCK, 1..most / BLOCK).prop_map(|(on, blocks, at, len)| {
            // Most ranges that are to be collapsed would reach the end.
            let len = if len % 4 == 0 { len } else { len % 4 };
            Op::Fallocate { on, blocks, at: at * BLOCK, len: len * BLOCK }
        }),
        1 => on().prop_map(Op::Reset),
        1 => (on(), 0..20_u64).prop_map(|(on, blocks)| Op::Hint { on, blocks }),
        2 => (on(), 0..most / BLOCK, 1..5_u64).prop_map(|(on, at, len)| {
            Op::Populate { on, at: at * BLOCK, len: len * BLOCK, whole: false }
        }),
    ]
}

/// Operations that share blocks, or end that.
pub fn share_op(most: u64) -> impl Strategy<Value = Op> {
    let blocks = 0..most / BLOCK;
    let ranges = (blocks.clone(), blocks, 1..4 * BLOCK, 0..6_u32);
    prop_oneof![
        6 => (on(), on(), ranges).prop_map(|(from, to, (at, to_at, len, kind))| {
            // Whole blocks, mostly: the end of a file is met by `Become`.
            let len = if kind == 0 { len } else { len.next_multiple_of(BLOCK) };
            Op::Reflink { from, to, at: at * BLOCK, to_at: to_at * BLOCK, len, same: kind == 1 }
        }),
        3 => (on(), on()).prop_map(|(from, to)| Op::Become { from, to }),
        3 => (file(), file()).prop_map(|(from, to)| Op::Clone { from, to }),
        1 => (on(), extent(most))
            .prop_map(|(on, (at, len))| Op::Fallocate { on, blocks: Blocks::Unshare, at, len }),
    ]
}

fn name_op() -> impl Strategy<Value = Op> {
    let target = prop::sample::select(vec![Target::Replace, Target::NoReplace, Target::Exchange]);
    prop_oneof![
        5 => file().prop_map(Op::Create),
        1 => (file(), prop_oneof![Just(0), 1..20_000_u64])
            .prop_map(|(path, capacity)| Op::CreateSequential { path, capacity }),
        1 => (file(), 0..9000_u64, any::<u8>())
            .prop_map(|(path, len, fill)| Op::CreateUnnamed { path, len, fill }),
        3 => directory().prop_map(Op::Mkdir),
        1 => directory().prop_map(Op::Rmdir),
        2 => file().prop_map(Op::Unlink),
        2 => (file(), file()).prop_map(|(from, to)| Op::Link { from, to }),
        1 => (path(), file()).prop_map(|(target, path)| Op::Symlink { target, path }),
        4 => (path(), path(), target).prop_map(|(from, to, target)| Op::Rename { from, to, target }),
    ]
}

fn node_op() -> impl Strategy<Value = Op> {
    let name = || prop::sample::select(&XATTRS[..]);
    let must = prop::sample::select(vec![Must::Either, Must::Either, Must::Create, Must::Replace]);
    let len = prop_oneof![0..40_u64, 200..400_u64, 4000..9000_u64];
    prop_oneof![
        1 => (on_any(), set()).prop_map(|(on, set)| Op::SetAttr { on, set }),
        2 => (on_any(), name(), len, any::<u8>(), must)
            .prop_map(|(on, name, len, fill, must)| Op::SetXattr { on, name, len, fill, must }),
        1 => (on_any(), name()).prop_map(|(on, name)| Op::RemoveXattr { on, name }),
        2 => (file(), 0..2_u8).prop_map(|(path, handle)| Op::Open { path, handle }),
        1 => (0..2_u8).prop_map(Op::Close),
    ]
}

/// Any operation; file offsets and lengths are below `most` bytes.
pub fn any_op(most: u64) -> impl Strategy<Value = Op> {
    prop_oneof![4 => data_op(most), 4 => name_op(), 2 => node_op()]
}

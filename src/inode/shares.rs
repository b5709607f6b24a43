//! How many files own a block?
//!
//! One, unless a record of the tree of shares says more. The tree hangs on the hidden inode of the intents, as its second
//! tree (where other inodes keep attributes), so it changes under their lock, the last of the inodes'.
//!
//! | byte | field |
//! | ---: | --- |
//! | 0 | blocks, 4 bytes, not 0 |
//! | 4 | owners of each, 4 bytes, at least 2 |
//!
//! The key is the first block in the pool.
//!
//! Invariants:
//! 1. Records do not overlap, and those that lie side by side have different counts.
//! 2. Every block in a record is in as many shared extents as the record says; a block in none is in one extent at most.
//! 3. Only who has a shared extent at hand looks here: files that share nothing pay nothing.
//! 4. A count changes in the record that adds or takes the extent. So between records it is never less than the
//!    owners (a block would be freed under a file), nor more (it would never be freed).

use super::{Fs, Intents};
use crate::alloc::{Op, Space};
use crate::error::{Damage, Result, Structure};
use crate::layout::{Geometry, Inode, get32};
use crate::pmem::mutation::{self, Mutation};
use crate::tree::{self, NodeRoot, ReadNodes};
use crate::units::{Block, Ino, Run};
use std::ops::ControlFlow;

/// Records of shares that one step of an operation goes over at most: what they need fits the room it leaves.
const STEP: usize = 8;
const SHARE_BYTES: usize = 8;

/// Blocks of the pool and how many owners each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The blocks.
    pub run: Run,
    /// Owners of each: at least 2 in a record, 1 where there is none.
    pub owners: u32,
}

impl Share {
    const fn new(start: Block, end: Block, owners: u32) -> Self {
        Self { run: Run::new(start, end.0 - start.0), owners }
    }

    /// The payload of its record.
    #[must_use]
    pub fn encode(&self) -> [u8; SHARE_BYTES] {
        (self.run.len | u64::from(self.owners) << 32).to_le_bytes()
    }

    /// The share in a record of the tree that `owner` keeps.
    ///
    /// # Errors
    /// Damage.
    pub fn decode(owner: Ino, key: u64, bytes: &[u8], geometry: &Geometry) -> Result<Self> {
        let damage = |what, expected, found| {
            Err(Damage::new(Structure::Share, owner.offset(), what, expected, found).into())
        };
        if bytes.len() != SHARE_BYTES {
            return damage("length", SHARE_BYTES as u64, bytes.len() as u64);
        }
        let (len, owners) = (u64::from(get32(bytes, 0)), get32(bytes, 4));
        if !geometry.is_allocatable(Block(key), len) {
            return damage("blocks", geometry.blocks(), key);
        }
        if owners < 2 {
            return damage("owners", 2, u64::from(owners));
        }
        Ok(Self { run: Run::new(Block(key), len), owners })
    }

    /// This and `next` as one, where they are side by side and alike.
    fn joined(&self, next: &Self) -> Option<Self> {
        let fits = self.run.end() == next.run.start && self.owners == next.owners;
        let len = self.run.len + next.run.len;
        (fits && u32::try_from(len).is_ok()).then_some(Self { run: Run::new(self.run.start, len), ..*self })
    }
}

/// The tree of shares of the hidden inode `inode`.
const fn root(inode: &Inode) -> NodeRoot {
    NodeRoot { at: inode.xattrs, level: inode.xattr_level }
}

/// The tree of shares, to be read under the lock of the hidden inode.
struct Tree<'t, N: ?Sized> {
    nodes: &'t N,
    root: NodeRoot,
    owner: Ino,
    geometry: Geometry,
}

impl<N: ReadNodes + ?Sized> Tree<'_, N> {
    fn decode(&self, key: u64, bytes: &[u8]) -> Result<Share> {
        Share::decode(self.owner, key, bytes, &self.geometry)
    }

    /// The record that begins at or before `block`.
    fn at_or_before(&self, block: Block) -> Result<Option<Share>> {
        let decode = |key, bytes: &[u8]| self.decode(key, bytes);
        tree::with_floor(self.nodes, &self.root.area(), self.owner, block.0, decode)?.transpose()
    }

    /// Shows `f` each record that has a block from `from` on, until it breaks.
    fn scan(&self, from: Block, mut f: impl FnMut(Share) -> Result<ControlFlow<()>>) -> Result<()> {
        let before = self.at_or_before(from)?.filter(|share| share.run.end() > from);
        let from = before.map_or(from, |share| share.run.start);
        tree::scan(
            self.nodes,
            &self.root.area(),
            self.owner,
            from.0,
            |key, bytes| f(self.decode(key, bytes)?),
        )
    }

    /// `run` in parts of one count each, ascending, from its start: all of it, or as far as `most` records go.
    fn parts(&self, run: Run, most: usize) -> Result<Vec<Share>> {
        let (mut parts, mut at, mut records) = (Vec::new(), run.start, 0);
        self.scan(run.start, |share| {
            if share.run.start >= run.end() || records == most {
                return Ok(ControlFlow::Break(()));
            }
            let start = share.run.start.max(at);
            if at < start {
                parts.push(Share::new(at, start, 1));
            }
            at = share.run.end().min(run.end());
            parts.push(Share::new(start, at, share.owners));
            records += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        if at < run.end() && records < most {
            parts.push(Share::new(at, run.end(), 1));
        }
        Ok(parts)
    }

    /// The records in `run` and those that touch it at either side, whole.
    fn around(&self, run: Run) -> Result<Vec<Share>> {
        let mut all = Vec::new();
        self.scan(Block(run.start.0.saturating_sub(1)), |share| {
            if share.run.start > run.end() {
                return Ok(ControlFlow::Break(()));
            }
            all.push(share);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }
}

/// The records that stand in place of `old`, all that meet or touch `run`, when `parts`, which make up `run`, are so.
fn exchanged(old: &[Share], run: Run, parts: impl Iterator<Item = Share>) -> Vec<Share> {
    let mut new: Vec<Share> = Vec::new();
    let mut join = |share: Share| {
        if share.run.len == 0 || share.owners < 2 {
            return;
        }
        match new.last_mut().and_then(|last| last.joined(&share).map(|joined| (last, joined))) {
            Some((last, joined)) => *last = joined,
            None => new.push(share),
        }
    };
    for share in old.iter().filter(|share| share.run.start < run.start) {
        join(Share::new(share.run.start, share.run.end().min(run.start), share.owners));
    }
    parts.for_each(&mut join);
    for share in old.iter().filter(|share| share.run.end() > run.end()) {
        join(Share::new(share.run.start.max(run.end()), share.run.end(), share.owners));
    }
    new
}

/// The tree as it is on the media, read under the lock of the hidden inode.
fn with_tree<R>(fs: &Fs, f: impl FnOnce(Tree<'_, Space>) -> Result<R>) -> Result<R> {
    let state = fs.intents.state.read();
    let geometry = fs.journal().geometry();
    f(Tree { nodes: &*fs.space, root: root(&state), owner: fs.intents.ino, geometry })
}

/// How much of the start of `run` one step of an operation may give owners or take them from: counted by records, so that
/// what it writes fits a journal record. `op` may have changed the tree before, under `intents`.
///
/// # Errors
/// Damage.
pub fn reach(fs: &Fs, op: &Op<'_>, intents: Option<&Intents<'_>>, run: Run) -> Result<Run> {
    let parts = match intents {
        None => with_tree(fs, |tree| tree.parts(run, STEP))?,
        Some(intents) => intents.tree(fs, op).parts(run, STEP)?,
    };
    let end = parts.last().map_or(run.end(), |part| part.run.end());
    Ok(Run::new(run.start, end.0 - run.start.0))
}

/// `run` in parts of one count each. They fall only, as long as the caller holds the bytes of a file that owns it.
///
/// # Errors
/// Damage.
pub fn owners(fs: &Fs, run: Run) -> Result<Vec<Share>> {
    with_tree(fs, |tree| tree.parts(run, usize::MAX))
}

/// Blocks with several owners, and how many blocks that saves.
///
/// # Errors
/// Damage.
pub fn shared_blocks(fs: &Fs) -> Result<(u64, u64)> {
    let (mut shared, mut saved) = (0, 0);
    with_tree(fs, |tree| {
        tree.scan(Block(0), |share| {
            shared += share.run.len;
            saved += share.run.len * u64::from(share.owners - 1);
            Ok(ControlFlow::Continue(()))
        })
    })?;
    Ok((shared, saved))
}

/// Frees blocks that were taken from a file with `op`: `shared` ones as far as nobody else owns them. `intents` is locked
/// if it must be.
///
/// # Errors
/// Damage, no space for tree nodes.
pub fn release<'f>(
    fs: &'f Fs,
    op: &mut Op<'_>,
    intents: &mut Option<Intents<'f>>,
    run: Run,
    shared: bool,
) -> Result<()> {
    if !shared {
        return op.release(run);
    }
    intents.get_or_insert_with(|| Intents::lock(&fs.intents)).release(fs, op, run)
}

impl Intents<'_> {
    /// Gives every block of `run` one owner more with `op`; the caller adds the extent, and makes the other one shared.
    ///
    /// # Errors
    /// Damage, no space for tree nodes.
    pub fn share(&mut self, fs: &Fs, op: &mut Op<'_>, run: Run) -> Result<()> {
        if mutation::is(Mutation::ShareUncounted) {
            return Ok(());
        }
        self.change(fs, op, run, |owners| owners.saturating_add(1)).map(drop)
    }

    /// Takes an owner from every block of `run` with `op`, and frees those that had only this one.
    ///
    /// # Errors
    /// Damage, no space for tree nodes.
    fn release(&mut self, fs: &Fs, op: &mut Op<'_>, run: Run) -> Result<()> {
        let before = self.change(fs, op, run, |owners| owners - 1)?;
        let freed = |part: &&Share| part.owners == 1 || mutation::is(Mutation::FreeShared);
        before.iter().filter(freed).try_for_each(|part| op.release(part.run))
    }

    /// The tree as `op` changed it.
    fn tree<'t, 's>(&self, fs: &Fs, op: &'t Op<'s>) -> Tree<'t, Op<'s>> {
        Tree { nodes: op, root: root(&self.0.inode), owner: self.0.ino(), geometry: fs.journal().geometry() }
    }

    /// Gives each block of `run` the owners that `f` makes of those it has: what it had.
    fn change(&mut self, fs: &Fs, op: &mut Op<'_>, run: Run, f: impl Fn(u32) -> u32) -> Result<Vec<Share>> {
        let (owner, before) = (self.0.ino(), root(&self.0.inode));
        let tree = self.tree(fs, op);
        let (parts, old) = (tree.parts(run, usize::MAX)?, tree.around(run)?);
        let changed = parts.iter().map(|part| Share { owners: f(part.owners), ..*part });
        let new = exchanged(&old, run, changed);
        let mut after = before;
        for share in old.iter().filter(|old| new.iter().all(|new| new.run.start != old.run.start)) {
            after.remove(op, owner, share.run.start.0)?;
        }
        for share in new.iter().filter(|new| !old.contains(new)) {
            after.insert(op, owner, share.run.start.0, &share.encode())?;
        }
        if after != before {
            (self.0.inode.xattrs, self.0.inode.xattr_level) = (after.at, after.level);
            self.0.stage(op)?;
        }
        Ok(parts)
    }
}

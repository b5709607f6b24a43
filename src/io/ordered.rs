//! How do many writes become durable with one pair of fences, in order?
//!
//! A write of a file at the level `ordered` copies its data into blocks that nobody can see, waits for nothing, and joins
//! the pool's one [`Group`]. The group is committed as a whole: one fence for the data of all files, one record with
//! their extents and sizes. It always fits one record: what would not makes the group be committed before. So a crash leaves
//! what a prefix of the calls made.
//!
//! Invariants:
//! 1. Whatever else changes the pool commits the group before it ([`settle`](super::settle)): under the bytes it holds in `io`, or
//!    before it locks anything. So what has returned before a call that is durable is durable with it.
//! 2. A byte that can be seen after a crash is not stored to before the group's record: whole blocks go to new ones or to
//!    unwritten space, parts of blocks to a block that waits, past the committed end, or to a copy.
//! 3. Parts of blocks are stored under the group's lock, from memory of ours: else a commit could make the block visible
//!    between the look at it and the store. (Zeros past the end go where zeros are, or nobody looks.) Whole blocks are filled before, from the caller's memory, and are nobody's
//!    until they wait.
//! 4. Everything a commit needs is there when a write joins: blocks ([`Space::keep_run`](crate::alloc::Space::keep_run)),
//!    room for nodes, room in the record. No space is an answer of the write.
//! 5. Nothing waits in a mapped file: a mapping looks at the tree.

use super::Handle;
use super::few::Few;
use super::group::commit;
use super::unshare;
use super::write::{Source, block_start};
use crate::alloc::Want;
use crate::error::{Error, Result};
use crate::extent::{Content, ExtentMap, FileRun};
use crate::inode::{Changes, Fs, Group, InodeCore, Member, PendingRun, now};
use crate::iomap::{self, FileRange, Intent, State};
use crate::layout::Inode;
use crate::mapper::{FileMap, blocks_beside};
use crate::pmem::mutation::{self, Mutation};
use crate::pmem::thread_number;
use crate::units::{BLOCK_BYTES, Block, CHUNK_BLOCKS, FileBlock, PoolOff, Run};
use std::io::IoSlice;
use std::ops::{ControlFlow, Range};

/// Writes `range`, which is held in `io`, of a file of `size` bytes: whether it waits now. `false`, and nothing has
/// changed, where it has to be written by itself: the file is mapped, it shares blocks there with others, the medium has
/// lost bytes, or it does not fit a record with the rest of a group.
///
/// # Errors
/// [`Error::NoSpace`], damage, errors of the medium; nothing has changed then.
pub(super) fn write(handle: &Handle, buffers: &[IoSlice<'_>], range: FileRange, size: u64) -> Result<bool> {
    let (fs, core) = (handle.fs(), handle.core());
    if core.space.get().is_some() || fs.region().has_bad() || unshare::any(fs, core, range, size)? {
        return Ok(false);
    }
    let attempt = || fill(fs, core, buffers, range, size)?.join(handle, size);
    match attempt() {
        Err(Error::NoSpace { .. }) if fs.ordered.waits() || fs.ordered.has_ahead() => {
            // Blocks that were overwritten are free after the commit.
            let mut group = fs.ordered.lock();
            commit(fs, &mut group)?;
            group.give_ahead_back(&fs.space, None);
            drop(group);
            attempt()
        }
        done => done,
    }
}

/// A part of a block that is written, and the bytes.
struct Edge {
    range: FileRange,
    bytes: Vec<u8>,
}

impl Edge {
    fn block(&self) -> FileBlock {
        FileBlock::of(self.range.offset)
    }
}

/// Where an edge is stored.
enum Target {
    /// In place, in a block that waits or past the committed end.
    Place(PoolOff),
    /// In a new block, with the rest of the old one.
    Copy(Run, Vec<u8>),
}

/// A write whose whole blocks are stored and known to nobody. Dropped, it gives its new blocks back.
struct Filled<'f> {
    fs: &'f Fs,
    range: FileRange,
    runs: Few<PendingRun>,
    edges: Vec<Edge>,
    /// Zeros past the end of the file, in place.
    zeros: Vec<(PoolOff, u64)>,
    /// Blocks reserved for where the file goes on.
    ahead: Option<(FileBlock, Run)>,
}

impl Drop for Filled<'_> {
    fn drop(&mut self) {
        let new = self.runs.iter().filter(|run| run.new).map(|run| run.run);
        new.chain(self.ahead.map(|(_, run)| run)).for_each(|run| self.fs.space.give_kept(run));
    }
}

/// The whole blocks of `range`, and those of its edges that are written in part. The block with the end of the file is
/// whole if all that the file has in it is written.
fn split(range: FileRange, size: u64) -> (Range<FileBlock>, Vec<FileRange>) {
    let (start, end) = (range.offset, range.end());
    let mut whole = FileBlock::ceil(start)..FileBlock::of(end);
    if end >= size {
        whole.end = FileBlock::ceil(end);
    }
    if whole.start >= whole.end {
        let middle = FileBlock::ceil(start).offset();
        let both = [(start, end.min(middle.max(start + 1))), (middle, end)];
        let edges =
            if block_start(start) == block_start(end - 1) { vec![(start, end)] } else { both.to_vec() };
        let range = |(from, to)| FileRange { offset: from, len: to - from };
        return (whole.start..whole.start, edges.into_iter().map(range).collect());
    }
    let edges = [(start, whole.start.offset()), (whole.end.offset(), end)];
    let parts = edges.into_iter().filter(|(from, to)| from < to);
    (whole, parts.map(|(from, to)| FileRange { offset: from, len: to - from }).collect())
}

/// Copies the caller's bytes: whole blocks to their places, parts of blocks to memory of ours.
fn fill<'f>(
    fs: &'f Fs,
    core: &InodeCore,
    buffers: &[IoSlice<'_>],
    range: FileRange,
    size: u64,
) -> Result<Filled<'f>> {
    let (whole, edges) = split(range, size);
    let (runs, zeros) = (Few::default(), Vec::new());
    let mut filled = Filled { fs, range, runs, edges: Vec::new(), zeros, ahead: None };
    let mut source = Source::new(buffers);
    let mut edges = edges.into_iter().peekable();
    while let Some(range) = edges.next_if(|edge| edge.offset < whole.start.offset() || whole.is_empty()) {
        filled.edges.push(edge(&mut source, range)?);
    }
    filled.place(core, whole, size)?;
    for run in filled.runs.iter() {
        let (from, to) = (run.file.offset(), run.end().offset());
        let len = to.min(range.end()) - from;
        let at = run.run.start.offset();
        source.take(len, |done, bytes| fs.region().copy_nt(at.plus(done), bytes))?;
        fs.region().zero_nt(at.plus(len), to - from - len)?;
    }
    for range in edges {
        filled.edges.push(edge(&mut source, range)?);
    }
    if range.offset > size {
        filled.zero_tail(core, size)?;
    }
    Ok(filled)
}

fn edge(source: &mut Source<'_, '_>, range: FileRange) -> Result<Edge> {
    let mut bytes = Vec::with_capacity(range.len as usize);
    source.take(range.len, |_, piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(Edge { range, bytes })
}

impl Filled<'_> {
    /// Finds places for the blocks `whole`: unwritten space that the file has, else new blocks.
    fn place(&mut self, core: &InodeCore, whole: Range<FileBlock>, size: u64) -> Result<()> {
        let map = FileMap::new(self.fs, core);
        let bytes =
            FileRange { offset: whole.start.offset(), len: (whole.end.0 - whole.start.0) * BLOCK_BYTES };
        let mut news: Few<Range<FileBlock>> = Few::default();
        iomap::walk(&map, bytes, Intent::Read, |map| {
            let (file, end) = (FileBlock::of(map.range.offset), FileBlock::of(map.range.end()));
            match (map.state, news.last_mut()) {
                (State::Unwritten(at), _) => {
                    let run = Run::new(at.block(), end.0 - file.0);
                    self.runs.push(PendingRun { file, run, new: false });
                }
                (_, Some(last)) if last.end == file => last.end = end,
                _ => news.push(file..end),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for blocks in news {
            self.reserve(core, blocks, size)?;
        }
        self.runs.sort_by_key(|run| run.file);
        Ok(())
    }

    /// New blocks for `blocks`, and some ahead where the file goes on after them.
    fn reserve(&mut self, core: &InodeCore, blocks: Range<FileBlock>, size: u64) -> Result<()> {
        let space = &self.fs.space;
        let mut at = blocks.start;
        let mut goal = None;
        while at < blocks.end {
            let needed = blocks.end.0 - at.0;
            let kept =
                self.fs.ordered.has_ahead().then(|| self.fs.ordered.lock().take_ahead(core.ino, at, needed));
            let run = match kept.flatten() {
                Some(run) => run,
                None => {
                    let goal =
                        goal.map_or_else(|| blocks_beside(self.fs, core, at), |goal| Ok(Some(goal)))?;
                    let more =
                        if blocks.end.offset() >= size { self.ahead(blocks.end, needed, size) } else { 0 };
                    space.keep_run(&Want { blocks: needed + more, file_block: at, goal })?
                }
            };
            let used = Run::new(run.start, run.len.min(needed));
            self.runs.push(PendingRun { file: at, run: used, new: true });
            at = FileBlock(at.0 + used.len);
            if run.len > used.len {
                self.ahead = Some((at, Run::new(used.end(), run.len - used.len)));
            }
            goal = Some(run.end());
        }
        Ok(())
    }

    /// How many blocks to reserve beyond `end`, the end of a growing file: as many as the file has, at most to the end of
    /// the 2 MiB slot; none where the pool is nearly full.
    fn ahead(&self, end: FileBlock, needed: u64, size: u64) -> u64 {
        let scarce = self.fs.journal().geometry().usable_blocks() / 16 + needed;
        let has = FileBlock::ceil(size).0;
        if self.fs.space.free_blocks() < scarce {
            return 0;
        }
        let to_slot_end = end.0.next_multiple_of(CHUNK_BLOCKS) - end.0;
        if end.0 >= CHUNK_BLOCKS { to_slot_end } else { to_slot_end.min(has) }
    }

    /// Zeroes what the committed blocks hold between the old end and the write: a gap that is about to be seen.
    fn zero_tail(&mut self, core: &InodeCore, size: u64) -> Result<()> {
        let gap = FileRange { offset: size, len: self.range.offset - size };
        let (fs, zeros) = (self.fs, &mut self.zeros);
        iomap::walk(&FileMap::new(fs, core), gap, Intent::Read, |map| {
            if let State::Mapped(at) = map.state {
                fs.region().zero_nt(at, map.range.len)?;
                zeros.push((at, map.range.len));
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Makes the write wait with the group.
    fn join(mut self, handle: &Handle, size: u64) -> Result<bool> {
        let (fs, core) = (self.fs, handle.core());
        let mut group = fs.ordered.lock();
        if let Some((file, run)) = self.ahead.take() {
            group.put_ahead(&fs.space, core.ino, file, run);
        }
        let (mut targets, mut added) = self.look(core, size)?;
        if group.bytes_with(core.ino, added.changes, added.touched.iter()) > fs.journal().capacity() {
            commit(fs, &mut group)?;
            // What waited is the tree's now.
            targets.drain(..).for_each(|target| target.give_back(fs));
            (targets, added) = self.look(core, size)?;
            if group.bytes_with(core.ino, added.changes, added.touched.iter()) > fs.journal().capacity() {
                targets.drain(..).for_each(|target| target.give_back(fs));
                return Ok(false);
            }
        }
        self.store_edges(&mut group, targets)?;
        let time = now();
        self.wait(handle, &mut group, added, time);
        let age = time - group.began;
        if fs.ordered.is_due(group.bytes, age) {
            commit(fs, &mut group)?;
        }
        Ok(true)
    }

    /// Where the edges go, and what the record will need more. The caller holds the group.
    fn look(&self, core: &InodeCore, size: u64) -> Result<(Vec<Target>, Added)> {
        let state = core.state.read();
        let mut targets: Vec<Target> = Vec::new();
        for edge in &self.edges {
            match self.target(core, &state, edge, size) {
                Ok(target) => targets.push(target),
                Err(error) => {
                    targets.drain(..).for_each(|target| target.give_back(self.fs));
                    return Err(error);
                }
            }
        }
        let copies = self.edges.iter().zip(&targets).filter_map(|(edge, target)| match target {
            Target::Copy(run, _) => Some(PendingRun { file: edge.block(), run: *run, new: true }),
            Target::Place(_) => None,
        });
        let mut runs: Few<_> = copies.chain(self.runs.iter().copied()).collect();
        runs.sort_by_key(|run| run.file);
        match Added::of(self.fs, core, &state, &runs) {
            Ok(added) => Ok((targets, added)),
            Err(error) => {
                targets.drain(..).for_each(|target| target.give_back(self.fs));
                Err(error)
            }
        }
    }

    fn target(&self, core: &InodeCore, state: &Inode, edge: &Edge, size: u64) -> Result<Target> {
        let (block, into) = (edge.block(), edge.range.offset % BLOCK_BYTES);
        if let Some(run) = core.pending.read().at(block) {
            return Ok(Target::Place(run.run.start.offset().plus(into)));
        }
        let found = tree_run(self.fs, core, state, block)?;
        if let Content::Mapped(at) = found.content
            && (edge.range.offset >= state.size || mutation::is(Mutation::OrderedInPlace))
        {
            return Ok(Target::Place(at.offset().plus(into)));
        }
        let seen = FileRange { offset: block.offset(), len: BLOCK_BYTES };
        let mut bytes = match found.content {
            Content::Mapped(at) => {
                let mut bytes = vec![0; BLOCK_BYTES as usize];
                let len = (size.saturating_sub(seen.offset)).min(BLOCK_BYTES) as usize;
                self.fs.region().read(at.offset(), &mut bytes[..len])?;
                bytes
            }
            _ => vec![0; BLOCK_BYTES as usize],
        };
        let into = into as usize;
        bytes[into..into + edge.bytes.len()].copy_from_slice(&edge.bytes);
        let goal = match found.content {
            Content::Unwritten(at) | Content::Mapped(at) | Content::Shared(at) => Some(Block(at.0 + 1)),
            Content::Hole => None,
        };
        let run = self.fs.space.keep_run(&Want { blocks: 1, file_block: block, goal })?;
        Ok(Target::Copy(run, bytes))
    }

    /// Stores the edges; those that are copies wait with the whole blocks.
    fn store_edges(&mut self, group: &mut Group, targets: Vec<Target>) -> Result<()> {
        let (region, thread) = (self.fs.region(), thread_number());
        for (edge, target) in self.edges.iter().zip(targets) {
            let (at, bytes) = match &target {
                Target::Place(at) => (*at, &edge.bytes),
                Target::Copy(run, bytes) => {
                    self.runs.push(PendingRun { file: edge.block(), run: *run, new: true });
                    (run.start.offset(), bytes)
                }
            };
            region.copy_nt(at, bytes)?;
            group.note_stored(at, bytes.len() as u64, thread);
        }
        Ok(())
    }

    /// Shows the write to readers as made at `time`, and makes it the group's.
    fn wait(&mut self, handle: &Handle, group: &mut Group, added: Added, time: i64) {
        let (fs, core, thread) = (self.fs, handle.shared_core(), thread_number());
        if group.files.is_empty() {
            group.began = time;
        }
        for (at, len) in std::mem::take(&mut self.zeros) {
            group.note_stored(at, len, thread);
        }
        let _state = core.state.read();
        let mut waiting = core.pending.add();
        let mut changes = added.changes;
        for run in std::mem::take(&mut self.runs) {
            group.note_stored(run.run.start.offset(), run.run.len * BLOCK_BYTES, thread);
            let (gone, joined) = waiting.put(run);
            gone.into_iter().for_each(|run| fs.space.give_kept(run));
            if joined {
                changes.places -= 1;
                changes.extents -= 3;
            }
        }
        waiting.time = time;
        if mutation::is(Mutation::ReuseBeforeCommit) {
            added.old.iter().for_each(|run| fs.space.give_kept(*run));
        }
        if self.range.end() > core.size() {
            waiting.size = Some(self.range.end());
            core.set_size(self.range.end());
        }
        drop(waiting);
        group.bytes += self.range.len;
        added.touched.iter().for_each(|run| group.places.add(*run));
        let member = group.files.entry(core.ino);
        let member = member.or_insert_with(|| Member { core: core.clone(), changes: Changes::default() });
        member.changes = member.changes.plus(changes);
    }
}

impl Target {
    fn give_back(self, fs: &Fs) {
        if let Self::Copy(run, _) = self {
            fs.space.give_kept(run);
        }
    }
}

/// What the tree says of `block`, not of what waits. The caller holds `state`.
fn tree_run(fs: &Fs, core: &InodeCore, state: &Inode, block: FileBlock) -> Result<FileRun> {
    ExtentMap::new(&*fs.space, &state.root, core.ino, fs.journal().geometry()).run_at(block, 1)
}

/// What a write adds to the group's record.
struct Added {
    changes: Changes,
    /// Blocks that are taken or freed.
    touched: Few<Run>,
    /// Blocks of the file that others replace.
    old: Vec<Run>,
}

impl Added {
    /// Of `runs`, ascending; the caller holds `state`.
    fn of(fs: &Fs, core: &InodeCore, state: &Inode, runs: &Few<PendingRun>) -> Result<Self> {
        let map = ExtentMap::new(&*fs.space, &state.root, core.ino, fs.journal().geometry());
        let mut changes = Changes { places: 0, extents: 0, level: state.root.level };
        let (mut touched, mut replaced) = (Few::default(), Vec::new());
        for run in runs.iter() {
            // One comes, and what it cuts leaves two.
            changes.places += 1;
            changes.extents += 3;
            if run.new {
                touched.push(run.run);
            }
            map.for_each(run.file, |old| {
                let blocks = run.file..run.end();
                let Some(met) = old.clip(&blocks) else { return Ok(ControlFlow::Break(())) };
                changes.extents += 1;
                if run.new {
                    touched.push(Run::new(met.pool, met.len));
                    replaced.push(Run::new(met.pool, met.len));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(Self { changes, touched, old: replaced })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_and_edges_are_the_range_once_and_in_order() {
        let marks = [0, 1, 100, 4095, 4096, 4097, 8192, 9000, 12_288, 16_383, 16_384, 20_000];
        for (start, end) in
            marks.iter().flat_map(|start| marks.map(|end| (*start, end))).filter(|(a, b)| a < b)
        {
            for size in marks {
                let (whole, edges) = split(FileRange { offset: start, len: end - start }, size);
                let mut parts: Vec<_> = edges.iter().map(|edge| (edge.offset, edge.end())).collect();
                if !whole.is_empty() {
                    parts.push((whole.start.offset(), whole.end.offset().min(end)));
                }
                parts.sort_unstable();
                let joined = parts.windows(2).all(|pair| pair[0].1 == pair[1].0);
                let all = (parts.first().map(|part| part.0), parts.last().map(|part| part.1));
                assert!(joined && all == (Some(start), Some(end)), "{start}..{end} of {size}: {parts:?}");
                assert!(edges.iter().all(|edge| block_start(edge.offset) == block_start(edge.end() - 1)));
                // The end of the file within a whole block is the write's.
                assert!(whole.is_empty() || whole.end.offset() <= end || end >= size);
            }
        }
    }
}

//! How do two files come to own the same blocks?
//!
//! Under the exclusive ranges of both, and in turns in which no mapping shows them. What the source has in its range becomes
//! shared, what the destination had goes, and the destination gets the source's extents, with one owner more for each block:
//! one record for as many extents as fit it. No byte is copied. Holes stay holes; what is unwritten is a hole in
//! the destination, which reads the same.
//!
//! Invariants:
//! 1. Each record leaves both files whole. What needs several is a prefix of the range after a crash; there is no intent,
//!    and nothing for recovery to finish.
//! 2. What was stored to the source through mappings is durable before the first record: from then on the destination has
//!    it, too. No mapping can store to a block from before it is shared until it is not any more.
//! 3. Two files are locked in the order of their numbers, ranges as well as inodes.
//! 4. A last block that is shared holds zeros beyond the end.

use super::Handle;
use super::read::check_regular;
use super::remove::{free_range, publish_intents};
use super::write::{block_start, clean_last_block, zero_tail};
use super::{dedupe, unshare};
use super::{group, sequential};
use crate::alloc::Op;
use crate::error::{Error, Result};
use crate::extent::{Content, Extent, ExtentMap, ExtentMapMut, FileRun};
use crate::inode::{Draft, Fs, InodeCore, Intents, RangeGuard, now, shares};
use crate::iomap::{FileRange, State, Transition};
use crate::layout::Feature;
use crate::mapper::FileMap;
use crate::pmem::Durable;
use crate::pmem::mutation::{self, Mutation};
use crate::sync::Arc;
use crate::units::{FileBlock, MAX_FILE_BYTES, Run};
use std::ops::ControlFlow;

/// Bytes of record kept free before a further extent is shared: two inodes, nodes of three trees.
const ROOM_LEFT: u64 = 6000;

/// What is to be shared, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reflink {
    /// `len` bytes of the source from the first offset on become bytes of the destination from the second on.
    Range {
        /// Where they are in the source, a multiple of 4096.
        from: u64,
        /// Where they go in the destination, a multiple of 4096.
        to: u64,
        /// Bytes; not whole blocks only where they end with the source, and not before the destination's end.
        len: u64,
    },
    /// The destination becomes what the source is, its size included.
    Whole,
    /// As `Range`, if both hold the same already: times and size stay.
    Same {
        /// Where they are in the source, a multiple of 4096.
        from: u64,
        /// Where they are in the destination, a multiple of 4096.
        to: u64,
        /// Bytes; not whole blocks only where both files end there.
        len: u64,
    },
}

/// Makes `dst` share blocks of `src`, in one record where the extents fit one. Durable on return. `false`, and nothing
/// changed, where both should be the same and are not.
///
/// # Errors
/// Not regular files, two stores ([`Error::CrossPool`]), ranges that are not whole blocks, not in the source, or overlap
/// in one file; blocks that are pinned ([`Error::InvalidArgument`]), mappings that can not let go of them
/// ([`Error::Unsupported`]); no space for metadata, damage. After an error the destination may have a prefix.
pub fn reflink(src: &Handle, dst: &Handle, what: Reflink) -> Result<bool> {
    check_regular(src)?;
    check_regular(dst)?;
    if !Arc::ptr_eq(src.fs(), dst.fs()) {
        return Err(Error::CrossPool);
    }
    src.fs().journal().writable()?;
    src.fs().journal().announce(Feature::Shares)?;
    if !matches!(what, Reflink::Same { .. }) {
        sequential::refuse(dst.core(), 0)?;
    }
    let (plan, _guards) = Plan::hold(src.fs(), src.core(), dst.core(), what)?;
    group::settle(src.fs())?;
    if plan.blocks + plan.cut == 0 { Ok(true) } else { plan.run(what) }
}

/// Two ranges of files, held.
struct Plan<'f> {
    fs: &'f Fs,
    src: &'f InodeCore,
    dst: &'f InodeCore,
    from: FileBlock,
    to: FileBlock,
    /// Blocks of the source.
    blocks: u64,
    /// Blocks of the destination beyond those, which become a hole: it gets shorter.
    cut: u64,
    /// The destination's size before.
    old: u64,
    /// Its size with the last record.
    size: u64,
}

/// Bytes held in one file or two, the lower number first.
type Guards<'f> = (RangeGuard<'f>, Option<RangeGuard<'f>>);

impl<'f> Plan<'f> {
    /// Holds the ranges, and says what they are.
    fn hold(fs: &'f Fs, src: &'f InodeCore, dst: &'f InodeCore, what: Reflink) -> Result<(Self, Guards<'f>)> {
        loop {
            let sizes = (src.size(), dst.size());
            let plan = Self::new(fs, src, dst, what, sizes)?;
            let (one, other) = plan.ranges();
            let hold = |core: &'f InodeCore, range: FileRange| core.io.exclusive(range.offset, range.end());
            let guards = match other {
                None => (hold(dst, one), None),
                Some(_) if mutation::is(Mutation::SourceUnheld) => (hold(dst, one), None),
                Some(other) if src.ino < dst.ino => (hold(src, other), Some(hold(dst, one))),
                Some(other) => (hold(dst, one), Some(hold(src, other))),
            };
            if (src.size(), dst.size()) == sizes {
                return Ok((plan, guards));
            }
        }
    }

    fn new(
        fs: &'f Fs,
        src: &'f InodeCore,
        dst: &'f InodeCore,
        what: Reflink,
        (from_size, old): (u64, u64),
    ) -> Result<Self> {
        let (from, to, len) = match what {
            Reflink::Range { from, to, len } | Reflink::Same { from, to, len } => (from, to, len),
            Reflink::Whole => (0, 0, from_size),
        };
        let (source, target) = (FileRange::new(from, len)?, FileRange::new(to, len)?);
        let is_same = matches!(what, Reflink::Same { .. });
        check_ranges(source, target, from_size, old, what)?;
        if is_same && target.end() > old {
            return Err(Error::InvalidArgument("what is the same lies within both files"));
        }
        let blocks = FileBlock::ceil(source.end()).0 - FileBlock::of(from).0;
        let (from, to) = (FileBlock::of(from), FileBlock::of(to));
        if src.ino == dst.ino && from.0.abs_diff(to.0) < blocks {
            return Err(Error::InvalidArgument("ranges of one file do not overlap"));
        }
        let (size, cut) = match what {
            Reflink::Whole => (from_size, FileBlock::ceil(old).0.saturating_sub(blocks)),
            _ => (old.max(target.end()), 0),
        };
        Ok(Self { fs, src, dst, from, to, blocks, cut, old, size })
    }

    fn source(&self) -> FileRange {
        FileRange { offset: self.from.offset(), len: FileBlock(self.blocks).offset() }
    }

    /// The bytes of the destination that change.
    fn target(&self) -> FileRange {
        let grows = self.size > self.old;
        let from = if grows { block_start(self.old).min(self.to.offset()) } else { self.to.offset() };
        FileRange { offset: from, len: FileBlock(self.to.0 + self.blocks).offset() - from }
    }

    /// What is held of the destination, and of the source if that is another file.
    fn ranges(&self) -> (FileRange, Option<FileRange>) {
        let (mut target, source) = (self.target(), self.source());
        if self.size != self.old {
            target.len = u64::MAX - target.offset;
        }
        if self.src.ino != self.dst.ino {
            return (target, Some(source));
        }
        let offset = source.offset.min(target.offset);
        (FileRange { offset, len: source.end().max(target.end()) - offset }, None)
    }

    fn run(self, what: Reflink) -> Result<bool> {
        self.prepare()?;
        let _turns = self.turns()?;
        // A mapping may have stored there until now; a block that is shared already has no translation that could.
        self.clean_source()?;
        if matches!(what, Reflink::Same { .. }) {
            let len = self.source().len.min(self.old - self.to.offset());
            if !dedupe::same(self.fs, (self.src, self.from), (self.dst, self.to), len)? {
                return Ok(false);
            }
        }
        if self.fs.space.is_pinned(self.source_runs()?.into_iter()) {
            return Err(Error::InvalidArgument("blocks that are pinned can not be shared"));
        }
        let mut data = Some(self.settle()?);
        let mut at = 0;
        while at < self.blocks + self.cut {
            let durable = data.take().unwrap_or_else(Durable::no_data);
            at = self.step(at, durable, matches!(what, Reflink::Same { .. }))?;
        }
        Ok(true)
    }

    /// Makes what is zeroed in place the destination's own, and what the source's last block has beyond the end zeros.
    fn prepare(&self) -> Result<()> {
        self.clean_source()?;
        unshare::tail(self.fs, self.dst, self.old, self.to.offset())
    }

    fn clean_source(&self) -> Result<()> {
        if self.source().end() <= self.src.size() {
            return Ok(());
        }
        clean_last_block(self.fs, self.src, self.src.size())
    }

    /// Takes both ranges from all mappings.
    fn turns(&self) -> Result<[Transition; 3]> {
        let invalidate = |core: &InodeCore, range| core.space.invalidate(range, false);
        let (target, source) = (self.target(), self.source());
        let cut = match self.size < self.old {
            false => Transition::none(),
            true => {
                let end = target.end();
                self.dst.space.invalidate(FileRange { offset: end, len: MAX_FILE_BYTES - end }, true)?
            }
        };
        if mutation::is(Mutation::ShareMapped) {
            return Ok([invalidate(self.dst, target)?, Transition::none(), cut]);
        }
        Ok(match self.src.ino.cmp(&self.dst.ino) {
            std::cmp::Ordering::Less => {
                let first = invalidate(self.src, source)?;
                [first, invalidate(self.dst, target)?, cut]
            }
            std::cmp::Ordering::Greater => {
                let first = invalidate(self.dst, target)?;
                [first, invalidate(self.src, source)?, cut]
            }
            std::cmp::Ordering::Equal => {
                let offset = source.offset.min(target.offset);
                let hull = FileRange { offset, len: source.end().max(target.end()) - offset };
                [invalidate(self.dst, hull)?, Transition::none(), cut]
            }
        })
    }

    /// The source's blocks with data.
    fn source_runs(&self) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let map = FileMap::new(self.fs, self.src);
        crate::iomap::walk(&map, self.source(), crate::iomap::Intent::Report, |run| {
            if let State::Mapped(at) = run.state {
                runs.push(Run::new(at.block(), FileBlock::ceil(run.range.len).0));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(runs)
    }

    /// Has everything durable that the first record makes reachable: what was stored to the source through mappings, and zeros
    /// from the destination's old end on.
    fn settle(&self) -> Result<Durable> {
        let region = self.fs.region();
        let mut data = region.data_writer();
        let zeroed = zero_tail(self.fs, self.dst, &mut data, self.old, self.to.offset())?;
        let mapped = self.src.space.get().is_some();
        if mapped {
            for run in self.source_runs()? {
                region.flush(run.start.offset(), FileBlock(run.len).offset())?;
            }
        }
        if zeroed || mapped { data.fence() } else { Ok(Durable::no_data()) }
    }

    /// Shares blocks from the one `at` blocks into the range on, as many as fit one record: how far it came.
    fn step(&self, at: u64, data: Durable, keeps_times: bool) -> Result<u64> {
        let fs = self.fs;
        let mut drafts = Drafts::lock(self.src, self.dst);
        let mut intents = Some(Intents::lock(&fs.intents));
        let mut op = fs.space.begin();
        let (mut reached, all) = (at, self.blocks + self.cut);
        while reached < all && (reached == at || op.room() >= ROOM_LEFT) {
            let next = self.share_one(&mut op, &mut drafts, &mut intents, reached)?;
            if next == reached {
                break;
            }
            reached = next;
        }
        let dst = drafts.dst();
        dst.inode.size = if reached == all {
            self.size
        } else {
            dst.inode.size.max(self.size.min(FileBlock(self.to.0 + reached).offset()))
        };
        if !keeps_times {
            dst.touch(now());
        }
        drafts.stage(&mut op)?;
        op.commit(data)?;
        drafts.publish(fs)?;
        publish_intents(fs, intents)?;
        Ok(reached)
    }

    /// Shares the source's run `at` blocks into the range, or as much of it as one step may: how far it came.
    fn share_one(
        &self,
        op: &mut Op<'_>,
        drafts: &mut Drafts<'f>,
        intents: &mut Option<Intents<'f>>,
        at: u64,
    ) -> Result<u64> {
        let (fs, geometry) = (self.fs, self.fs.journal().geometry());
        let target = FileBlock(self.to.0 + at);
        let run = self.source_at(op, drafts, at)?;
        let (Content::Mapped(pool) | Content::Shared(pool)) = run.content else {
            let end = FileBlock(target.0 + run.len);
            let reached = free_range(fs, op, drafts.dst(), intents, target..end)?;
            return Ok(reached.0 - self.to.0);
        };
        let len = shares::reach(fs, op, intents.as_ref(), Run::new(pool, run.len))?.len;
        let reached = free_range(fs, op, drafts.dst(), intents, target..FileBlock(target.0 + len))?;
        let len = reached.0 - target.0;
        if let Some(intents) = intents {
            intents.share(fs, op, Run::new(pool, len))?;
        }
        let (ino, range) = (self.src.ino, run.file..FileBlock(run.file.0 + len));
        ExtentMapMut::new(op, drafts.src().root(), ino, geometry).set_shared(range, true)?;
        let extent = Extent { file: target, pool, len, written: true, shared: true };
        let dst = drafts.dst();
        ExtentMapMut::new(op, dst.root(), self.dst.ino, geometry).insert(extent)?;
        dst.inode.blocks += len;
        Ok(at + len)
    }

    /// The source's run `at` blocks into the range; a hole behind its end.
    fn source_at(&self, op: &Op<'_>, drafts: &mut Drafts<'f>, at: u64) -> Result<FileRun> {
        let file = FileBlock(self.from.0 + at);
        if at >= self.blocks {
            return Ok(FileRun { file, len: self.blocks + self.cut - at, content: Content::Hole });
        }
        let src = drafts.src();
        let map = ExtentMap::new(op, &src.inode.root, src.ino(), self.fs.journal().geometry());
        map.run_at(file, self.blocks - at)
    }
}

/// Whether these ranges of files of `from_size` and `to_size` bytes can be made the same by sharing blocks.
fn check_ranges(
    source: FileRange,
    target: FileRange,
    from_size: u64,
    to_size: u64,
    what: Reflink,
) -> Result<()> {
    let is_block = |offset: u64| offset == block_start(offset);
    if !is_block(source.offset) || !is_block(target.offset) {
        return Err(Error::InvalidArgument("blocks are shared whole: offsets are multiples of 4096"));
    }
    if source.end() > from_size {
        return Err(Error::InvalidArgument("what is shared lies within the source"));
    }
    let ends = source.end() == from_size && (target.end() >= to_size || what == Reflink::Whole);
    if !is_block(source.len) && !ends {
        return Err(Error::InvalidArgument("a part of a block is shared only at the end of both files"));
    }
    Ok(())
}

/// One inode or two, locked for a change.
struct Drafts<'f> {
    dst: Draft<'f>,
    /// Where that is another file.
    src: Option<Draft<'f>>,
}

impl<'f> Drafts<'f> {
    fn lock(src: &'f InodeCore, dst: &'f InodeCore) -> Self {
        if src.ino < dst.ino {
            let src = Some(Draft::lock(src));
            return Self { dst: Draft::lock(dst), src };
        }
        let first = Draft::lock(dst);
        Self { dst: first, src: (src.ino > dst.ino).then(|| Draft::lock(src)) }
    }

    fn src(&mut self) -> &mut Draft<'f> {
        self.src.as_mut().unwrap_or(&mut self.dst)
    }

    fn dst(&mut self) -> &mut Draft<'f> {
        &mut self.dst
    }

    fn stage(&self, op: &mut Op<'_>) -> Result<()> {
        self.dst.stage(op)?;
        self.src.as_ref().map_or(Ok(()), |src| src.stage(op))
    }

    fn publish(self, fs: &Fs) -> Result<()> {
        self.dst.publish(fs.region())?;
        self.src.map_or(Ok(()), |src| src.publish(fs.region()))
    }
}

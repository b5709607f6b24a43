//! Which blocks hold a range of a file?
//!
//! [`FileMap`] answers readers and reporters, [`Writer`] answers writers: it finds or reserves a place for every byte
//! before any is stored, remembers what it gave, and publishes all of it with the new size in one record.
//!
//! Invariants:
//! 1. The caller holds the byte range in the file's `io` lock (shared to read, exclusive to write) or has the turn of
//!    a fault, so what a mapping says of it stays true; `state` is held only while the tree is looked at, never while
//!    user memory is. To who only reads, a hole may become blocks of zeros meanwhile, which is the same to him.
//! 2. Reserved blocks are the writer's alone until [`Writer::publish`] committed them.
//! 3. Blocks that other files may own too are never stored to either: a write gets others, with a copy of what it does not
//!    cover, and its record takes the file's share from the old ones.
//! 4. Bad blocks are never stored to: a write gets others in their place, which become the file's in its record, so that
//!    a crash leaves the file with the bad blocks or with what was written, and nothing between.
//! 5. What waits to be made durable ([`crate::inode::Pending`]) is shown as mapped, where it waits, in place of what the
//!    tree says; such runs are not kept for the next look.

mod hints;
mod replace;
mod writer;

pub use replace::{Replacement, blocks_beside, replace};
pub use writer::{Planned, Writer};

use crate::error::{Error, Result};
use crate::extent::{Content, ExtentMap, FileRun, MAX_FILE_BLOCKS};
use crate::inode::{Fs, InodeCore, Waiting};
use crate::iomap::{Cookie, FileRange, Intent, Iomap, IomapOps, State};
use crate::sync::atomic::Ordering;
use crate::units::{BLOCK_BYTES, Block, FileBlock, PoolOff, Run};

/// A file's mapping, for readers.
#[derive(Clone, Copy, Debug)]
pub struct FileMap<'f> {
    fs: &'f Fs,
    core: &'f InodeCore,
}

impl<'f> FileMap<'f> {
    /// The mapping of the file `core`.
    #[must_use]
    pub fn new(fs: &'f Fs, core: &'f InodeCore) -> Self {
        Self { fs, core }
    }

    /// Where `range`, which is held in `io`, is mapped to the file's own blocks in one run, if it is the run that was looked for last
    /// and nothing waits in the file.
    #[must_use]
    #[inline]
    pub fn recent(&self, range: FileRange) -> Option<PoolOff> {
        if self.core.pending.any() {
            return None;
        }
        let (from, len) = blocks_of(range);
        let (run, written) = self.core.recent.get(self.core.mapping.load(Ordering::Acquire), from)?;
        (written && run.len >= len).then(|| run.start.offset().plus(range.offset % BLOCK_BYTES))
    }

    /// The run at block `from`, at most `len` blocks.
    fn run(&self, from: FileBlock, len: u64) -> Result<(FileRun, Cookie)> {
        if self.core.pending.any() {
            return self.run_with_pending(from, len);
        }
        let mapping = self.core.mapping.load(Ordering::Acquire);
        if let Some((run, written)) = self.core.recent.get(mapping, from) {
            let content = if written { Content::Mapped(run.start) } else { Content::Unwritten(run.start) };
            return Ok((FileRun { file: from, len: run.len.min(len), content }, Cookie(mapping)));
        }
        let state = self.core.state.read();
        let mapping = self.core.mapping.load(Ordering::Acquire);
        let map = ExtentMap::new(&*self.fs.space, &state.root, self.core.ino, self.fs.journal().geometry());
        // As far as it goes: whoever asks for what follows finds it kept.
        let mut run = map.run_at(from, MAX_FILE_BLOCKS.saturating_sub(from.0).max(len))?;
        self.keep(mapping, &run);
        run.len = run.len.min(len);
        Ok((run, Cookie(mapping)))
    }

    /// As [`Self::run`], of a file in which something waits.
    #[cold]
    fn run_with_pending(&self, from: FileBlock, len: u64) -> Result<(FileRun, Cookie)> {
        let state = self.core.state.read();
        let mapping = self.core.mapping.load(Ordering::Acquire);
        let map = ExtentMap::new(&*self.fs.space, &state.root, self.core.ino, self.fs.journal().geometry());
        let waiting = self.core.pending.read();
        let shown = |at: FileBlock, len| Ok::<_, Error>(shown(&waiting, map.run_at(at, len)?));
        let mut run = shown(from, len)?;
        while run.len < len {
            let next = shown(run.end(), len - run.len)?;
            if !run.continues_in(&next) {
                break;
            }
            run.len += next.len;
        }
        Ok((run, Cookie(mapping)))
    }

    /// Keeps `run`, found under the inode's lock while the mapping's number was `mapping`.
    fn keep(&self, mapping: u64, run: &FileRun) {
        let recent = &self.core.recent;
        match run.content {
            // What is shared is not kept: who overwrites in place is to ask the tree.
            Content::Hole | Content::Shared(_) => {}
            Content::Unwritten(block) => recent.put(mapping, run.file, Run::new(block, run.len), false),
            Content::Mapped(block) => recent.put(mapping, run.file, Run::new(block, run.len), true),
        }
    }

    /// The maximal run of one state that holds byte `offset`, clipped to `within`, which holds it too: what is before
    /// the byte as well as what is after it.
    ///
    /// # Errors
    /// A range that does not hold the byte, damage.
    pub fn around(&self, offset: u64, within: FileRange) -> Result<Iomap> {
        self.look_around(offset, within).map(|(map, _)| map)
    }

    /// As [`Self::around`], and whether the lookup saw a hole of `within` beside the run. It does not see every one.
    ///
    /// # Errors
    /// Those of [`Self::around`].
    pub fn look_around(&self, offset: u64, within: FileRange) -> Result<(Iomap, bool)> {
        if offset < within.offset || offset >= within.end() {
            return Err(Error::InvalidArgument("a byte looked for lies in the range it is looked for in"));
        }
        let state = self.core.state.read();
        let mapping = self.core.mapping.load(Ordering::Acquire);
        let map = ExtentMap::new(&*self.fs.space, &state.root, self.core.ino, self.fs.journal().geometry());
        let (run, beside) = map.run_around(FileBlock::of(offset))?;
        self.keep(mapping, &run);
        let from = within.offset.max(run.file.offset());
        let range = FileRange { offset: from, len: within.end().min(run.end().offset()) - from };
        let state = state_of(&run, run.file.offset()).advanced(from - run.file.offset());
        let hole = beside.hole_before && within.offset < range.offset
            || beside.hole_after && range.end() < within.end();
        Ok((Iomap { range, state, shared: is_shared(&run), cookie: Cookie(mapping) }, hole))
    }
}

/// `found`, which the tree says of its blocks, cut before the first that waits; or that, if it is the first of all.
fn shown(waiting: &Waiting, found: FileRun) -> FileRun {
    if let Some(run) = waiting.at(found.file) {
        let content = Content::Mapped(run.run.start);
        return FileRun { len: run.run.len.min(found.len), content, ..found };
    }
    let end = waiting.after(found.file).unwrap_or(found.end()).min(found.end());
    FileRun { len: end.0 - found.file.0, ..found }
}

/// A file's mapping, for a write into `range`: blocks that the medium has lost or that others may own too are holes, to be
/// filled with others.
#[derive(Clone, Copy, Debug)]
struct WriterMap<'f> {
    map: FileMap<'f>,
    range: FileRange,
    /// The file's size before the write.
    size: u64,
}

/// Blocks of a file that a write replaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Old {
    /// The medium has lost them.
    Bad,
    /// Others may own them too; what they hold is kept where the write does not reach.
    Shared(Block),
}

/// What a writer meets from a block on.
#[derive(Clone, Copy, Debug)]
struct Met {
    run: FileRun,
    cookie: Cookie,
    /// The file has blocks here that are not stored to, and stand as a hole in `run`.
    old: Option<Old>,
}

impl WriterMap<'_> {
    /// The run at block `from`, at most `len` blocks.
    ///
    /// # Errors
    /// [`Error::BadMedium`] where bad blocks hold data that the write does not replace; damage.
    fn run(&self, from: FileBlock, len: u64) -> Result<Met> {
        let (run, cookie) = self.map.run(from, len)?;
        let block = match run.content {
            Content::Unwritten(block) | Content::Mapped(block) | Content::Shared(block) => block,
            Content::Hole => return Ok(Met { run, cookie, old: None }),
        };
        let region = self.map.fs.region();
        let Some((at, bytes)) = region.bad(block.offset(), run.len * BLOCK_BYTES) else {
            return Ok(met(run, cookie));
        };
        let before = at.block().0 - block.0;
        if before > 0 {
            return Ok(met(FileRun { len: before, ..run }, cookie));
        }
        let lost = FileRun { len: bytes / BLOCK_BYTES, content: Content::Hole, ..run };
        if matches!(run.content, Content::Mapped(_) | Content::Shared(_)) {
            self.check_covered(&lost, at)?;
        }
        Ok(Met { run: lost, cookie, old: Some(Old::Bad) })
    }

    /// Checks that the write replaces every byte of the file in `lost`, which begins at `at` in the pool.
    fn check_covered(&self, lost: &FileRun, at: PoolOff) -> Result<()> {
        let (start, end) = (lost.file.offset(), lost.end().offset().min(self.size));
        if start >= end || self.range.offset <= start && end <= self.range.end() {
            return Ok(());
        }
        let ino = self.map.core.ino.0;
        Err(Error::BadMedium { at, ino, offset: start, len: lost.len * BLOCK_BYTES })
    }
}

impl IomapOps for WriterMap<'_> {
    fn begin(&self, range: FileRange, _intent: Intent) -> Result<Iomap> {
        let (from, len) = blocks_of(range);
        let Met { run, cookie, old } = self.run(from, len)?;
        let (state, shared) = (state_of(&run, range.offset), matches!(old, Some(Old::Shared(_))));
        Ok(Iomap { range: clip(&run, range), state, shared, cookie })
    }
}

/// What a writer meets in `run`, whose blocks are sound.
fn met(run: FileRun, cookie: Cookie) -> Met {
    match run.content {
        Content::Shared(block) => {
            Met { run: FileRun { content: Content::Hole, ..run }, cookie, old: Some(Old::Shared(block)) }
        }
        _ => Met { run, cookie, old: None },
    }
}

/// Whether others may own blocks of `run` too.
const fn is_shared(run: &FileRun) -> bool {
    matches!(run.content, Content::Shared(_))
}

/// The part of `range` that `run`, which holds its first byte, covers.
fn clip(run: &FileRun, range: FileRange) -> FileRange {
    FileRange { offset: range.offset, len: run.end().offset().min(range.end()) - range.offset }
}

/// The state of byte `offset`, in the first block of `run`.
fn state_of(run: &FileRun, offset: u64) -> State {
    let into = offset % BLOCK_BYTES;
    match run.content {
        Content::Hole => State::Hole,
        Content::Unwritten(block) => State::Unwritten(block.offset().plus(into)),
        Content::Mapped(block) | Content::Shared(block) => State::Mapped(block.offset().plus(into)),
    }
}

/// The blocks that `range`, which is not empty, touches: the first, and how many.
fn blocks_of(range: FileRange) -> (FileBlock, u64) {
    let from = FileBlock::of(range.offset);
    (from, FileBlock::ceil(range.end()).0 - from.0)
}

impl IomapOps for FileMap<'_> {
    fn begin(&self, range: FileRange, _intent: Intent) -> Result<Iomap> {
        let (from, len) = blocks_of(range);
        let (run, cookie) = self.run(from, len)?;
        let state = state_of(&run, range.offset);
        Ok(Iomap { range: clip(&run, range), state, shared: is_shared(&run), cookie })
    }
}

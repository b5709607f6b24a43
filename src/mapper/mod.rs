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
//! 3. Bad blocks are never stored to: a write gets others in their place, which become the file's in its record, so that
//!    a crash leaves the file with the bad blocks or with what was written, and nothing between.

mod writer;

pub use writer::{Planned, Writer};

use crate::error::{Error, Result};
use crate::extent::{Content, ExtentMap, FileRun, MAX_FILE_BLOCKS};
use crate::inode::{Fs, InodeCore};
use crate::iomap::{Cookie, FileRange, Intent, Iomap, IomapOps, State};
use crate::sync::atomic::Ordering;
use crate::units::{BLOCK_BYTES, FileBlock, PoolOff, Run};

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

    /// The run at block `from`, at most `len` blocks.
    fn run(&self, from: FileBlock, len: u64) -> Result<(FileRun, Cookie)> {
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

    /// Keeps `run`, found under the inode's lock while the mapping's number was `mapping`.
    fn keep(&self, mapping: u64, run: &FileRun) {
        let recent = &self.core.recent;
        match run.content {
            Content::Hole => {}
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
        if offset < within.offset || offset >= within.end() {
            return Err(Error::InvalidArgument("a byte looked for lies in the range it is looked for in"));
        }
        let state = self.core.state.read();
        let mapping = self.core.mapping.load(Ordering::Acquire);
        let map = ExtentMap::new(&*self.fs.space, &state.root, self.core.ino, self.fs.journal().geometry());
        let run = map.run_around(FileBlock::of(offset))?;
        self.keep(mapping, &run);
        let from = within.offset.max(run.file.offset());
        let range = FileRange { offset: from, len: within.end().min(run.end().offset()) - from };
        let state = state_of(&run, run.file.offset()).advanced(from - run.file.offset());
        Ok(Iomap { range, state, shared: false, cookie: Cookie(mapping) })
    }
}

/// A file's mapping, for a write into `range`: blocks that the medium has lost are holes, to be filled with others.
#[derive(Clone, Copy, Debug)]
struct WriterMap<'f> {
    map: FileMap<'f>,
    range: FileRange,
    /// The file's size before the write.
    size: u64,
}

/// What a writer meets from a block on.
#[derive(Clone, Copy, Debug)]
struct Met {
    run: FileRun,
    cookie: Cookie,
    /// The file has bad blocks here, which stand as a hole in `run`.
    bad: bool,
}

impl WriterMap<'_> {
    /// The run at block `from`, at most `len` blocks.
    ///
    /// # Errors
    /// [`Error::BadMedium`] where bad blocks hold data that the write does not replace; damage.
    fn run(&self, from: FileBlock, len: u64) -> Result<Met> {
        let (run, cookie) = self.map.run(from, len)?;
        let (Content::Unwritten(block) | Content::Mapped(block)) = run.content else {
            return Ok(Met { run, cookie, bad: false });
        };
        let region = self.map.fs.region();
        let Some((at, bytes)) = region.bad(block.offset(), run.len * BLOCK_BYTES) else {
            return Ok(Met { run, cookie, bad: false });
        };
        let before = at.block().0 - block.0;
        if before > 0 {
            return Ok(Met { run: FileRun { len: before, ..run }, cookie, bad: false });
        }
        let lost = FileRun { len: bytes / BLOCK_BYTES, content: Content::Hole, ..run };
        if matches!(run.content, Content::Mapped(_)) {
            self.check_covered(&lost, at)?;
        }
        Ok(Met { run: lost, cookie, bad: true })
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
        let Met { run, cookie, .. } = self.run(from, len)?;
        let state = state_of(&run, range.offset);
        Ok(Iomap { range: clip(&run, range), state, shared: false, cookie })
    }
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
        Content::Mapped(block) => State::Mapped(block.offset().plus(into)),
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
        Ok(Iomap { range: clip(&run, range), state, shared: false, cookie })
    }
}

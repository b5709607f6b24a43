//! Which mappings does a file have, and how do they stay right while the file changes?
//!
//! A [`FileSpace`] is the [`AddressSpace`] of one mapped file. What the store is about to do takes a turn of its
//! bytes like any fault does, so nobody installs what is about to go.
//!
//! Rules:
//! 1. A translation of a byte is installed, and taken away, in a turn that covers the byte.
//! 2. When `invalidate` returns, no view has a translation of the range, and none gets one before `end`.
//! 3. A block that may have been stored to through a mapping is an entry of a writable view, or in `lost`, until it was
//!    flushed and fenced. What moves in the file is flushed before: notes are by offset in the file, and would be taken for
//!    those of what comes there.

use crate::entries::{Entries, Entry, What};
use crate::mutation::{self, Mutation};
use crate::table::Table;
use crate::turns::{Kind, TurnId, Turns};
use crate::view::{View, ViewParams};
use daxstore::iomap::{AddressSpace, FaultOps, FileRange, MakeDurable, Memory};
use daxstore::sync::atomic::{AtomicBool, Ordering};
use daxstore::sync::{Arc, Mutex, Weak};
use daxstore::units::{BLOCK_BYTES, PoolOff};
use daxstore::{Error, Result};
use std::any::Any;

/// The mappings of one file.
#[derive(Debug)]
pub struct FileSpace {
    pub(crate) turns: Turns,
    /// The smallest translation: turns of the store cover whole ones.
    unit: u64,
    /// Whether what is stored becomes durable by pages, which the system watches itself.
    pub(crate) by_pages: bool,
    views: Mutex<Vec<Weak<View>>>,
    /// What writable views gave up and nobody flushed yet, where it was. Changed in a turn of those bytes only.
    lost: Mutex<Entries>,
    synced: AtomicBool,
}

/// A file that is kept mapped: [`Self::join`] makes a view of it. Lets the file go when dropped.
#[derive(Debug)]
pub struct Attachment {
    pub(crate) space: Arc<FileSpace>,
    pub(crate) file: Arc<dyn FaultOps>,
    pub(crate) memory: Memory,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.file.detach();
    }
}

impl Attachment {
    /// The file's mappings.
    #[must_use]
    pub fn space(&self) -> &Arc<FileSpace> {
        &self.space
    }

    /// What the pool's memory is.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Adds a view. Where faults do not come, everything is installed before it returns. Ends by [`View::leave`].
    ///
    /// # Errors
    /// A range that is empty or not of whole units; a handle that does not allow it; what installing everything beforehand fails with.
    pub fn join(self, params: ViewParams, table: Box<dyn Table>) -> Result<Arc<View>> {
        let (readable, writable) = self.file.access();
        let unit = self.memory.unit.max(BLOCK_BYTES);
        let range = params.range;
        if range.len == 0 || !range.offset.is_multiple_of(unit) || !range.len.is_multiple_of(unit) {
            return Err(Error::InvalidArgument("a mapping covers whole units of the medium, at least one"));
        }
        if !readable {
            return Err(Error::NotOpenedFor("reading"));
        }
        if params.writable && !params.private && !writable {
            return Err(Error::NotOpenedFor("writing"));
        }
        let space = self.space.clone();
        let view = Arc::new(View::new(self, params, table));
        space.add(&view);
        if let Err(error) = view.joined() {
            let _other = view.leave(|| ());
            return Err(error);
        }
        Ok(view)
    }
}

/// A turn of some bytes of a file; ends when dropped, and wakes whom it kept out.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) space: Arc<FileSpace>,
    pub(crate) id: TurnId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.space.finish(self.id);
    }
}

impl FileSpace {
    /// The mappings of `file`, which is attached as long as the answer lives.
    ///
    /// # Errors
    /// Those of [`FaultOps::memory`] and [`FaultOps::attach`]; a file that somebody else maps in another way.
    pub fn of(file: Arc<dyn FaultOps>) -> Result<Attachment> {
        let memory = file.memory()?;
        let (unit, by_pages) = (memory.unit.max(BLOCK_BYTES), memory.by_pages);
        let space = file.attach(&mut || Arc::new(Self::new(unit, by_pages)))?;
        let any: Arc<dyn Any + Send + Sync> = space;
        match any.downcast::<Self>() {
            Ok(space) => Ok(Attachment { space, file, memory }),
            Err(_) => {
                file.detach();
                Err(Error::Unsupported { backend: "mappings", why: "the file is mapped by another handler" })
            }
        }
    }

    fn new(unit: u64, by_pages: bool) -> Self {
        Self {
            turns: Turns::default(),
            unit,
            by_pages,
            views: Mutex::new(Vec::new()),
            lost: Mutex::new(Entries::new(false)),
            synced: AtomicBool::new(false),
        }
    }

    /// `range` rounded outwards to whole units.
    pub(crate) fn whole(&self, range: FileRange) -> FileRange {
        let offset = range.offset - range.offset % self.unit;
        let end = range.end().checked_next_multiple_of(self.unit).unwrap_or(range.end());
        FileRange { offset, len: end - offset }
    }

    pub(crate) fn turn(self: &Arc<Self>, range: FileRange, kind: Kind) -> Turn {
        let range = self.whole(range);
        Turn { space: self.clone(), id: self.turns.wait(range, kind) }
    }

    pub(crate) fn try_turn(self: &Arc<Self>, range: FileRange, kind: Kind) -> Option<Turn> {
        self.turns.try_turn(self.whole(range), kind).map(|id| Turn { space: self.clone(), id })
    }

    /// Ends a turn and wakes whom it kept out.
    fn finish(&self, id: TurnId) {
        if mutation::is(Mutation::WakeEarly)
            && let Some(dropped) = self.turns.dropped(id)
        {
            self.wake(dropped);
            let _told_before = self.turns.end(id);
            return;
        }
        if let Some(dropped) = self.turns.end(id) {
            self.wake(dropped);
        }
    }

    fn wake(&self, range: FileRange) {
        self.views(range).iter().for_each(|view| view.wake(range));
    }

    /// The views that show bytes of `range`.
    pub(crate) fn views(&self, range: FileRange) -> Vec<Arc<View>> {
        let views = self.views.lock();
        let live = views.iter().filter_map(Weak::upgrade);
        live.filter(|view| crate::turns::overlap(view.range(), range)).collect()
    }

    fn add(&self, view: &Arc<View>) {
        let mut views = self.views.lock();
        views.retain(|other| other.strong_count() > 0);
        views.push(Arc::downgrade(view));
    }

    /// Takes a view out. Whoever is told of the file's changes from now on is told without it.
    pub(crate) fn remove(&self, view: &View) {
        self.views.lock().retain(|other| !std::ptr::eq(other.as_ptr(), view));
    }

    /// Whether the file was synced: what is mapped to be stored to is kept small from then on.
    pub(crate) fn was_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    pub(crate) fn note_sync(&self) {
        self.synced.store(!self.by_pages, Ordering::Relaxed);
    }

    /// Notes what a writable view is about to give up (rule 3).
    pub(crate) fn lose(&self, entries: &[Entry]) {
        if mutation::is(Mutation::ForgetDirty) {
            return;
        }
        let mut lost = self.lost.lock();
        for entry in entries {
            if matches!(entry.what, What::Block(_)) {
                lost.insert(entry.range, entry.what);
            }
        }
    }

    /// The first byte at or after `at` of what was given up.
    pub(crate) fn next_lost(&self, at: u64) -> Option<u64> {
        self.lost.lock().from(at).next().map(|entry| entry.range.offset.max(at))
    }

    /// What was given up in `range`, by places in the pool.
    pub(crate) fn lost(&self, range: FileRange) -> Vec<(PoolOff, u64)> {
        self.lost.lock().within(range).filter_map(Entry::place).collect()
    }

    /// Forgets what was given up in `range`. The caller has its turn.
    pub(crate) fn found(&self, range: FileRange) {
        self.lost.lock().cut(range);
    }
}

impl AddressSpace for FileSpace {
    fn allocate(&self, range: FileRange) {
        self.turns.wait(self.whole(range), Kind::Allocate);
    }

    fn invalidate(&self, range: FileRange, cut: bool) -> Result<()> {
        let whole = self.whole(range);
        match self.turns.allocating(whole) {
            Some(id) => self.turns.upgrade(id),
            None => _ = self.turns.wait(whole, Kind::Invalidate),
        }
        let cut = cut.then(|| range.offset.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(range.offset));
        let forget = |result: Result<()>, view: &Arc<View>| result.and(view.forget(whole, cut));
        self.views(whole).iter().fold(Ok(()), forget)
    }

    fn sync(self: Arc<Self>, file: &dyn FaultOps, range: FileRange) -> Result<u64> {
        Self::sync(&self, file, range)
    }

    fn write_back(&self, range: FileRange, durable: &mut MakeDurable<'_>) -> Result<()> {
        let whole = self.whole(range);
        let places = self.lost(whole);
        if !places.is_empty() && !mutation::is(Mutation::MoveUnflushed) {
            durable(&places)?;
            self.found(whole);
        }
        Ok(())
    }

    fn end(&self, range: FileRange) {
        let whole = self.whole(range);
        self.views(whole).iter().for_each(|view| view.install_again(whole));
        if let Some(id) = self.turns.changing(whole) {
            self.finish(id);
        }
    }
}

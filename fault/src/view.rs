//! What does one mapping of a file show, and what is it told?
//!
//! A [`View`] is one mapping: a range of the file, the translations of it ([`Table`]), and what is installed in
//! them ([`Entries`]).
//!
//! Rules:
//! 1. What can be stored to is recorded before it is installed: a sync that begins after the store knows of it.
//! 2. Translations are taken away before the entries that stand for them.
//! 3. A private view that can be stored to has no blocks of the pool, only copies: a block gives no notice of a store. A page of it
//!    is the file's at its first touch.
//! 4. `state` is a leaf: nothing is called while it is held.

use crate::budget::Budget;
use crate::choose::Reason;
use crate::entries::{Entries, Entry, What};
use crate::serve::Trouble;
use crate::space::{Attachment, FileSpace};
use crate::stats::{Count, Counters, Stats};
use crate::table::{Answer, Handler, Mode, Table};
use crate::turns::Kind;
use daxstore::iomap::{FaultOps, FileRange, Memory};
use daxstore::sync::atomic::{AtomicBool, Ordering};
use daxstore::sync::{Arc, Mutex};
use daxstore::units::{BLOCK_BYTES, CHUNK_BYTES};
use daxstore::{Error, Result};

/// What a view is to be.
#[derive(Clone, Debug)]
pub struct ViewParams {
    /// The bytes of the file; whole units of the medium.
    pub range: FileRange,
    /// The address of the first byte.
    pub address: u64,
    /// Whether stores are allowed.
    pub writable: bool,
    /// Whether stores stay in the mapping.
    pub private: bool,
    /// Whether syncs make durable what is stored; else the user does.
    pub tracked: bool,
    /// The mappings that all views of the process may take.
    pub budget: Arc<Budget>,
}

/// What is guarded by the leaf mutex of a view.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) entries: Entries,
    /// The view was left.
    gone: bool,
    /// Where the next fault of a sequence would be, and how much was installed ahead of the last one.
    pub(crate) ahead: (u64, u64),
}

/// One mapping of a file.
#[derive(Debug)]
pub struct View {
    attachment: Attachment,
    params: ViewParams,
    table: Box<dyn Table>,
    inside: Mutex<Inside>,
    counters: Counters,
    pub(crate) huge_zero: AtomicBool,
    advised: AtomicBool,
    pub(crate) upkeep: crate::upkeep::Upkeep,
}

impl View {
    pub(crate) fn new(attachment: Attachment, params: ViewParams, table: Box<dyn Table>) -> Self {
        let mode = table.mode();
        let entries = Entries::new(mode != Mode::Userfault);
        Self {
            attachment,
            params,
            table,
            inside: Mutex::new(Inside { entries, gone: false, ahead: (u64::MAX, 0) }),
            counters: Counters::default(),
            huge_zero: AtomicBool::new(mode != Mode::Eager),
            advised: AtomicBool::new(true),
            upkeep: crate::upkeep::Upkeep::default(),
        }
    }

    /// The bytes of the file it shows.
    #[must_use]
    pub fn range(&self) -> FileRange {
        self.params.range
    }

    /// What it was made with.
    #[must_use]
    pub fn params(&self) -> &ViewParams {
        &self.params
    }

    /// The file's mappings.
    #[must_use]
    pub fn space(&self) -> &Arc<FileSpace> {
        &self.attachment.space
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Arc<dyn FaultOps> {
        &self.attachment.file
    }

    /// What the pool's memory is.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.attachment.memory
    }

    /// The translations.
    #[must_use]
    pub fn table(&self) -> &dyn Table {
        &*self.table
    }

    /// What became of its faults.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Says whether translations of 2 MiB are welcome from now on (they are at first).
    pub fn advise_huge(&self, welcome: bool) {
        self.advised.store(welcome, Ordering::Relaxed);
    }

    pub(crate) fn is_huge_welcome(&self) -> bool {
        self.advised.load(Ordering::Relaxed)
    }

    /// Whether what is stored to it is stored to the file.
    #[must_use]
    pub fn stores_to_file(&self) -> bool {
        self.params.writable && !self.params.private
    }

    /// Whether a sync is to make durable what is stored to it.
    pub(crate) fn is_tracked(&self) -> bool {
        self.stores_to_file() && self.params.tracked
    }

    /// Whether each page becomes a copy when it is touched (rule 3).
    pub(crate) fn copies(&self) -> bool {
        self.params.writable && self.params.private
    }

    /// Whether the view was left.
    pub(crate) fn is_gone(&self) -> bool {
        self.inside.lock().gone
    }

    /// Where the byte `offset` of the file is, from the mapping's start.
    pub(crate) fn at(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.params.range.offset)
    }

    /// What of `range` the view shows; may be empty.
    pub(crate) fn clip(&self, range: FileRange) -> FileRange {
        clip(range, self.params.range)
    }

    /// Looks at the entries.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Inside) -> R) -> R {
        look(&self.inside.lock())
    }

    /// Changes the entries, and what the budget has of them.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Inside) -> R) -> R {
        let mut inside = self.inside.lock();
        let before = inside.entries.cost();
        let result = change(&mut inside);
        let after = inside.entries.cost();
        self.params.budget.moved(before, after);
        result
    }

    pub(crate) fn wake(&self, range: FileRange) {
        let range = self.clip(range);
        if range.len > 0 {
            self.table.wake(self.at(range.offset), range.len);
        }
    }

    /// What was just joined is known to the budget, and installed where no faults come.
    pub(crate) fn joined(self: &Arc<Self>) -> Result<()> {
        self.params.budget.add(self);
        if self.table.mode() == Mode::Eager { self.fetch_all() } else { Ok(()) }
    }

    /// Takes everything from `range` that stands for blocks or zeros of the file; copies from `cut` on too. The caller has
    /// the turn.
    pub(crate) fn forget(&self, range: FileRange, cut: Option<u64>) -> Result<()> {
        let range = self.clip(range);
        if self.table.mode() == Mode::Eager {
            return self.forget_eager(range, cut.is_some());
        }
        let stays =
            |entry: &Entry| entry.what == What::Copy && cut.is_none_or(|cut| entry.range.offset < cut);
        for group in groups(self.look(|inside| inside.entries.within(range).collect()), stays, cut) {
            self.take_away(&group)?;
        }
        Ok(())
    }

    /// Takes neighbours away by one call (rule 2).
    fn take_away(&self, group: &[Entry]) -> Result<()> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(()) };
        let range = FileRange { offset: first.range.offset, len: last.range.end() - first.range.offset };
        if self.is_tracked() {
            self.space().lose(group);
        }
        self.table.missing(self.at(range.offset), range.len)?;
        self.change(|inside| inside.entries.cut(range));
        Ok(())
    }

    /// Without a fault handler blocks can not go for a while, unless nobody may touch them any more.
    fn forget_eager(&self, range: FileRange, cut: bool) -> Result<()> {
        let blocks = |what: What| matches!(what, What::Block(_) | What::Copy);
        let held: Vec<_> =
            self.look(|inside| inside.entries.within(range).filter(|entry| blocks(entry.what)).collect());
        if !held.is_empty() && !cut {
            return Err(Error::Unsupported {
                backend: "mode E",
                why: "the bytes are mapped without a fault handler; unmap them first",
            });
        }
        for entry in held {
            if self.is_tracked() {
                self.space().lose(&[entry]);
            }
            self.table.beyond(self.at(entry.range.offset), entry.range.len)?;
            self.change(|inside| inside.entries.insert(entry.range, What::Beyond));
        }
        Ok(())
    }

    /// Gives the translations of `range` up: the next touch faults. Copies stay.
    ///
    /// # Errors
    /// The system's; [`Error::Unsupported`] without a fault handler.
    pub fn evict(&self, range: FileRange) -> Result<()> {
        let range = self.clip(range);
        if range.len == 0 {
            return Ok(());
        }
        let _turn = self.space().turn(range, Kind::Invalidate);
        self.forget(range, None)
    }

    /// What is installed in `range`, in order.
    #[must_use]
    pub fn resolved(&self, range: FileRange) -> Vec<Entry> {
        self.look(|inside| inside.entries.within(range).collect())
    }

    /// Leaves the file: waits for what is under way, has the translations removed by `unmap`, and answers nothing after. What
    /// was stored and not synced is flushed by the next sync of another view, or here if there is none.
    ///
    /// # Errors
    /// Those of flushing; the view has left all the same.
    pub fn leave(&self, unmap: impl FnOnce()) -> Result<()> {
        let space = self.space();
        self.keep_up();
        let turn = space.turn(self.params.range, Kind::Invalidate);
        let entries = self.change(|inside| {
            inside.gone = true;
            inside.entries.cut(self.params.range)
        });
        space.remove(self);
        if self.is_tracked() {
            space.lose(&entries);
        }
        unmap();
        drop(turn);
        if space.views(FileRange { offset: 0, len: u64::MAX }).is_empty() {
            space.sync(&**self.file(), FileRange { offset: 0, len: 0 })?;
        }
        Ok(())
    }

    /// Answers a fault whose turn was taken, and that could not be served.
    fn answer(&self, served: Result<FileRange, Trouble>, turn: crate::space::Turn, fault: &Touch) -> Answer {
        let page = page_of(fault.offset);
        match served {
            Ok(range) => {
                drop(turn);
                self.woken(range)
            }
            Err(Trouble::Refused(_)) => {
                self.fail(page);
                drop(turn);
                self.woken(page)
            }
            Err(Trouble::Full) => self.out_of_room(turn, page, fault.may_wait),
            Err(Trouble::Stale(range)) => self.stale(turn, range, page, fault.may_wait),
        }
    }

    pub(crate) fn woken(&self, range: FileRange) -> Answer {
        let range = self.clip(range);
        Answer::Wake { at: self.at(range.offset), len: range.len }
    }

    /// Lets the page raise SIGBUS until somebody asks for it in another way.
    pub(crate) fn fail(&self, page: FileRange) {
        self.counters.add(Count::Failures, 1);
        if self.table.beyond(self.at(page.offset), page.len).is_ok() {
            self.change(|inside| inside.entries.insert(page, What::Failed));
        }
    }

    /// Fails unless each 2 MiB of the file that lie in `range`, cut inwards to whole ones, would be one translation. Nothing
    /// changes.
    ///
    /// # Errors
    /// [`Error::NotHuge`] with the first that would not, and why; damage.
    pub fn huge(&self, range: FileRange) -> Result<()> {
        let range = self.clip(range);
        let mut at = range.offset.next_multiple_of(CHUNK_BYTES);
        while at + CHUNK_BYTES <= range.end() {
            let slot = FileRange { offset: at, len: CHUNK_BYTES };
            let _turn = self.fault_turn(slot, Kind::Read);
            if let Some(why) = self.why_not_huge(at)? {
                return Err(Error::NotHuge { offset: at, why: Reason::text(why) });
            }
            at = slot.end();
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let all = self.params.range;
        self.change(|inside| inside.entries.cut(all));
    }
}

/// A touch that faulted.
pub(crate) struct Touch {
    pub(crate) offset: u64,
    pub(crate) write: bool,
    pub(crate) may_wait: bool,
}

impl Handler for View {
    fn fault(&self, at: u64, write: bool, may_wait: bool) -> Answer {
        if at >= self.params.range.len || (write && !self.params.writable) {
            return Answer::Forbidden;
        }
        let touch = Touch { offset: self.params.range.offset + at, write, may_wait };
        self.counters.fault(write);
        let Some(turn) = self.turn_of(&touch) else {
            self.counters.add(Count::Waits, 1);
            return Answer::Wait;
        };
        if self.is_gone() {
            return self.woken(page_of(touch.offset));
        }
        let served = self.serve(&crate::serve::Scope::of(&turn), touch.offset, write);
        self.answer(served, turn, &touch)
    }

    fn tend(&self) {
        self.keep_up();
    }

    fn wants_tending(&self) -> bool {
        self.upkeep.is_due() || self.params.budget.is_tight()
    }
}

/// The 4 KiB that hold byte `offset`.
pub(crate) const fn page_of(offset: u64) -> FileRange {
    FileRange { offset: offset - offset % BLOCK_BYTES, len: BLOCK_BYTES }
}

/// The 2 MiB that hold byte `offset`.
pub(crate) const fn slot_of(offset: u64) -> FileRange {
    FileRange { offset: offset - offset % CHUNK_BYTES, len: CHUNK_BYTES }
}

/// What of `a` lies in `b`; may be empty.
pub(crate) fn clip(a: FileRange, b: FileRange) -> FileRange {
    let offset = a.offset.max(b.offset);
    FileRange { offset, len: a.end().min(b.end()).saturating_sub(offset) }
}

/// Parts that go by one call each: what stays is between them. A copy that `cut` divides is divided.
fn groups(entries: Vec<Entry>, stays: impl Fn(&Entry) -> bool, cut: Option<u64>) -> Vec<Vec<Entry>> {
    let mut groups = vec![Vec::new()];
    for entry in entries {
        let after = cut.and_then(|cut| {
            entry.within(FileRange { offset: cut, len: entry.range.end().checked_sub(cut)? })
        });
        let goes = if stays(&entry) { after } else { Some(entry) };
        if stays(&entry) {
            groups.push(Vec::new());
        }
        if let (Some(goes), Some(group)) = (goes, groups.last_mut()) {
            group.push(goes);
        }
    }
    groups
}

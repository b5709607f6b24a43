//! What is true of a touched slot?
//!
//! Everything [`choose`](crate::choose::choose) goes by is gathered here, in the turn of the slot.

use crate::choose::{
    Bad, Content, Decision, Fault, Held, Media, Page, Query, Reason, Slot, SlotMap, Space, System, Vma,
    ZeroSize, choose,
};
use crate::entries::What;
use crate::view::{View, clip, page_of, slot_of};
use daxstore::Result;
use daxstore::iomap::{FileRange, Iomap, State};
use daxstore::sync::atomic::Ordering;
use daxstore::units::{BLOCK_BYTES, PoolOff};

/// What was seen of the runs of a slot so far.
#[derive(Debug, Default)]
struct Seen {
    hole: bool,
    unwritten: bool,
    data: bool,
    shared: bool,
    bad: bool,
    page: Option<Page>,
    bad_here: bool,
    /// Where the slot's first byte would be if all were one piece so far.
    one: Option<PoolOff>,
    pieces: bool,
}

impl Seen {
    /// Takes the next run into account.
    fn run(&mut self, view: &View, run: &Iomap, offset: u64) {
        let page = match run.state {
            State::Hole | State::Reserved => Page::Hole,
            State::Unwritten(_) => Page::Unwritten,
            State::Mapped(_) => Page::Mapped,
        };
        match page {
            Page::Hole => self.hole = true,
            Page::Unwritten => self.unwritten = true,
            Page::Mapped => self.data = true,
        }
        self.shared |= run.shared && page == Page::Mapped;
        self.placed(run, offset);
        let here = run.range.offset <= offset && offset < run.range.end();
        if here {
            self.page = Some(page);
        }
        if let State::Mapped(at) = run.state {
            self.bad |= view.file().bad(at, run.range.len).is_some();
            if here && self.bad {
                let page_at = at.plus(page_of(offset).offset.saturating_sub(run.range.offset));
                self.bad_here = view.file().bad(page_at, BLOCK_BYTES).is_some();
            }
        }
    }

    fn placed(&mut self, run: &Iomap, offset: u64) {
        let Some(at) = run.state.address() else { return };
        let into = run.range.offset - slot_of(offset).offset;
        match (at.0.checked_sub(into).map(PoolOff), self.one) {
            (Some(first), None) => self.one = Some(first),
            (Some(first), Some(one)) => self.pieces |= first != one,
            (None, _) => self.pieces = true,
        }
    }

    fn map(&self) -> SlotMap {
        let space = match self.one {
            Some(at) if !self.pieces => Space::One(at),
            _ => Space::Pieces,
        };
        let content = match (self.data, self.hole, self.unwritten) {
            (false, ..) => Content::Zeros,
            (true, true, _) => Content::Holes,
            (true, false, true) => Content::Unwritten(space),
            (true, false, false) => Content::Data(space),
        };
        SlotMap { page: self.page.unwrap_or(Page::Hole), content, shared: self.shared }
    }

    fn bad(&self) -> Bad {
        match (self.bad, self.bad_here) {
            (_, true) => Bad::Here,
            (true, false) => Bad::Elsewhere,
            (false, false) => Bad::Nothing,
        }
    }
}

impl View {
    /// Where the file ends for translations: its size, rounded up to the medium's unit.
    pub(crate) fn end_of(&self, size: u64) -> u64 {
        size.checked_next_multiple_of(self.memory().unit.max(BLOCK_BYTES)).unwrap_or(size)
    }

    /// All that the decision about a touch of `offset` depends on. The caller has the turn of the slot. With `anew`, what the
    /// mapping has there does not count.
    pub(crate) fn query(&self, offset: u64, write: bool, anew: bool) -> Result<Query> {
        let size = self.file().size();
        let slot = slot_of(offset);
        let inside = clip(self.clip(slot), FileRange { offset: 0, len: self.end_of(size) });
        let mut seen = Seen::default();
        let mut at = inside.offset;
        while at < inside.end() && inside.len > 0 {
            let run = self.file().run_at(at, inside)?;
            seen.run(self, &run, offset);
            at = run.range.end().max(at + 1);
        }
        Ok(Query {
            fault: Fault { offset, write: write || self.copies() },
            vma: self.vma(),
            size,
            slot: self.held(offset, anew),
            map: seen.map(),
            media: Media { unit: self.memory().unit, huge: self.memory().huge, bad: seen.bad(), chunk: true },
            system: System {
                huge_zero: self.huge_zero.load(Ordering::Relaxed),
                room: self.params().budget.has_room(),
            },
        })
    }

    fn vma(&self) -> Vma {
        Vma {
            range: self.range(),
            address: self.params().address,
            private: self.params().private,
            writable: self.params().writable,
            huge: self.is_huge_welcome(),
        }
    }

    fn held(&self, offset: u64, anew: bool) -> Slot {
        let (page, copies) = self.look(|inside| {
            let entries = &inside.entries;
            let copies = entries.within(slot_of(offset)).any(|entry| entry.what == What::Copy);
            (entries.get(offset).map(|entry| entry.what), copies)
        });
        let page = match page {
            _ if anew => Held::Nothing,
            None => Held::Nothing,
            Some(What::Zero { .. }) => Held::Zeros,
            Some(What::Block(_)) if self.params().writable => Held::Block,
            Some(What::Block(_)) => Held::BlockToRead,
            Some(What::Copy) => Held::Copy,
            Some(What::Beyond | What::Failed) => Held::Sigbus,
        };
        Slot { page, copies }
    }

    /// Why the slot of `offset` would not be one translation; `None` where it would. The caller has its turn.
    pub(crate) fn why_not_huge(&self, offset: u64) -> Result<Option<Reason>> {
        use crate::choose::Cause;
        let write = self.stores_to_file();
        Ok(match choose(&self.query(offset, write, true)?) {
            Decision::Pte(why)
            | Decision::Zero(ZeroSize::Pte(why))
            | Decision::Sigbus(Cause::NotHuge(why)) => Some(why),
            Decision::Sigbus(Cause::Beyond) => Some(Reason::AfterEnd),
            Decision::Sigbus(Cause::BadMedium) => Some(Reason::BadMedium),
            Decision::Pmd | Decision::Zero(ZeroSize::Pmd) | Decision::Retry => None,
        })
    }
}

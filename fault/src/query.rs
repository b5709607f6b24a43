//! What is true of a touched slot?
//!
//! Everything [`choose`](crate::choose::choose) goes by is gathered here, in the turn of the slot.

use crate::choose::{
    Bad, Content, Decision, Fault, Held, Media, Page, Query, Reason, Slot, SlotMap, System, Vma, ZeroSize,
    choose,
};
use crate::entries::{Entry, What};
use crate::view::{View, clip, page_of, slot_of};
use daxstore::Result;
use daxstore::iomap::{FileRange, Iomap, State};
use daxstore::sync::atomic::Ordering;
use daxstore::units::BLOCK_BYTES;

/// What is true of a touched slot, and what was seen on the way.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) query: Query,
    /// The run at the touched page, where the slot holds all of it.
    pub(crate) here: Option<Iomap>,
}

impl View {
    /// Where the file ends for translations: its size, rounded up to the medium's unit.
    pub(crate) fn end_of(&self, size: u64) -> u64 {
        size.checked_next_multiple_of(self.memory().unit.max(BLOCK_BYTES)).unwrap_or(size)
    }

    /// All that the decision about a touch of `offset` depends on. The caller has the turn of the slot. `page` is what the
    /// mapping has there, as far as it counts.
    pub(crate) fn query(&self, offset: u64, write: bool, page: Option<What>) -> Result<Looked> {
        let size = self.file().size();
        let slot = slot_of(offset);
        let inside = clip(self.clip(slot), FileRange { offset: 0, len: self.end_of(size) });
        let (mut bad, mut bad_here, mut here) = (false, false, None);
        let survey = |at, within| {
            let (run, hole) = self.file().look_at(at, within)?;
            here.get_or_insert(run);
            if let State::Mapped(pool) = run.state
                && self.file().bad(pool, run.range.len).is_some()
            {
                bad = true;
                let page = clip(page_of(offset), run.range);
                let place = pool.plus(page.offset.saturating_sub(run.range.offset));
                bad_here |= page.len > 0 && self.file().bad(place, page.len).is_some();
            }
            Ok((run, hole))
        };
        let is_inside = (inside.offset..inside.end()).contains(&offset);
        // What is beyond the end is decided by the size.
        let beyond = SlotMap { page: Page::Hole, content: Content::Zeros, shared: false };
        let map = if is_inside { SlotMap::survey(offset, inside, survey)? } else { beyond };
        let bad = match (bad, bad_here) {
            (_, true) => Bad::Here,
            (true, false) => Bad::Elsewhere,
            (false, false) => Bad::Nothing,
        };
        let is_whole = |run: &Iomap| inside.offset < run.range.offset && run.range.end() < inside.end();
        let query = Query {
            fault: Fault { offset, write: write || self.copies() },
            vma: self.vma(),
            size,
            slot: self.held(offset, page),
            map,
            media: Media { unit: self.memory().unit, huge: self.memory().huge, bad, chunk: true },
            system: System {
                huge_zero: self.huge_zero.load(Ordering::Relaxed),
                room: self.params().budget.has_room(),
            },
        };
        Ok(Looked { query, here: here.filter(is_whole) })
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

    fn held(&self, offset: u64, page: Option<What>) -> Slot {
        let is_copy = |entry: Entry| entry.what == What::Copy;
        let copies = self.copies() && self.look(|inside| inside.entries.within(slot_of(offset)).any(is_copy));
        let page = match page {
            None => Held::Nothing,
            Some(What::Zero { .. } | What::Guarded) => Held::Zeros,
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
        Ok(match choose(&self.query(offset, write, None)?.query) {
            Decision::Pte(why)
            | Decision::Zero(ZeroSize::Pte(why))
            | Decision::Sigbus(Cause::NotHuge(why)) => Some(why),
            Decision::Sigbus(Cause::Beyond) => Some(Reason::AfterEnd),
            Decision::Sigbus(Cause::BadMedium) => Some(Reason::BadMedium),
            Decision::Pmd | Decision::Zero(ZeroSize::Pmd) | Decision::Retry => None,
        })
    }
}

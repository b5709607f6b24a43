//! Which translation does a fault get?
//!
//! [`choose`] is a pure function of what is true while the faulter has the turn of the 2 MiB slot. It is asked before
//! anything is allocated, so that falling back to 4 KiB leaves nothing behind. The conditions are those under
//! which Linux's DAX falls back (`dax_fault_check_fallback`, `grab_mapping_entry`, `dax_iomap_pmd_fault` in `fs/dax.c`,
//! `__thp_vma_allowable_orders` in `mm/huge_memory.c`); `docs/fault-decision.md` says which can occur here and which can not.
//!
//! Invariants:
//! 1. 2 MiB are chosen only where each page of the slot is right in one translation: inside the mapping and inside the file
//!    rounded up to the medium's unit, and of one piece, all zeros, or about to be one piece.
//! 2. A load never asks for space: [`Query::populate`] answers `None` for it.
//! 3. Where the medium has no 4 KiB translation, none of the pool is chosen: zeros and private copies are the system's
//!    own memory and have one everywhere.

use daxstore::Result;
use daxstore::iomap::{FileRange, Iomap, Placement, State};
use daxstore::units::{BLOCK_BYTES, CHUNK_BYTES, PoolOff};

/// A touch of the mapping that had no translation, or one that allows less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The touched byte, as an offset in the file; it lies in [`Vma::range`].
    pub offset: u64,
    /// Whether it was a store. A private mapping that would not be told of a store to a block that it maps asks for
    /// loads as for stores: it then gets copies only.
    pub write: bool,
}

/// The mapping that was touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vma {
    /// The bytes of the file that it shows.
    pub range: FileRange,
    /// Where its first byte is in memory.
    pub address: u64,
    /// Stores go to copies of the mapping's own.
    pub private: bool,
    /// Stores are allowed: a block is mapped such that no store to it is noticed.
    pub writable: bool,
    /// Translations of 2 MiB are welcome (they are unless the user advised otherwise).
    pub huge: bool,
}

/// What the mapping has at the touched page now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Held {
    /// No translation.
    #[default]
    Nothing,
    /// Zeros, of 4 KiB or 2 MiB, or a copy of shared bytes: a store faults.
    Zeros,
    /// A block of the file, for loads only.
    BlockToRead,
    /// A block of the file, for loads and stores.
    Block,
    /// Memory of its own.
    Copy,
    /// SIGBUS: it lay beyond the end, or could not be had.
    Sigbus,
}

/// What the mapping has in the touched slot now. To ask what a slot could become, leave [`Held::Nothing`] at the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// At the touched page.
    pub page: Held,
    /// Memory of the mapping's own somewhere in the slot: whatever covers the slot would lose it.
    pub copies: bool,
}

/// What the file has at the touched page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// No space, or space that is promised only: zeros.
    Hole,
    /// Space without data: zeros.
    Unwritten,
    /// Data.
    Mapped,
}

/// Where the space of a slot without holes is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// In one piece, whose first byte is the slot's first.
    One(PoolOff),
    /// In several, or in one that is not in order.
    Pieces,
}

/// Whether this is one chunk: the slot is as congruent to the pool as it is to memory.
const fn is_chunk(space: Space) -> bool {
    matches!(space, Space::One(at) if at.0 % CHUNK_BYTES == 0)
}

/// What the file has in the touched slot, in all of its states together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Holes and unwritten space in any mixture: it reads as zeros.
    Zeros,
    /// Unwritten space everywhere, which is one chunk in order: it reads as zeros, and can be written in place.
    Preallocated,
    /// Data everywhere.
    Data(Space),
    /// Data, and unwritten space everywhere else.
    Unwritten(Space),
    /// Data, and a hole.
    Holes,
}

/// What the file has in the touched slot, as far as it lies in the mapping and the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotMap {
    /// At the touched page.
    pub page: Page,
    /// In the whole slot.
    pub content: Content,
    /// Some data of the slot belong to another file too. As the reasons go, another may be named: a caller that installs 4 KiB
    /// looks at the flag of the page's own run.
    pub shared: bool,
}

impl SlotMap {
    /// Looks at the runs of `within`: what of the touched slot lies in the mapping and in the file, with the touched byte
    /// `offset`. It stops where what it has seen decides: then it tells less than there is, never something else.
    ///
    /// # Errors
    /// Those of `look_at` ([`daxstore::iomap::FaultOps::look_at`]).
    pub fn survey(
        offset: u64,
        within: FileRange,
        mut look_at: impl FnMut(u64, FileRange) -> Result<(Iomap, bool)>,
    ) -> Result<Self> {
        let (here, hole) = look_at(offset, within)?;
        let mut seen = Seen { hole, ..Seen::default() };
        seen.add(&here);
        let mut at = within.offset;
        while at < within.end() && !seen.is_enough() {
            let is_here = (here.range.offset..here.range.end()).contains(&at);
            let run = if is_here { here } else { look_at(at, within)?.0 };
            seen.add(&run);
            // A run is not empty; one that is must not hold the faulter for ever.
            at = run.range.end().max(at + BLOCK_BYTES);
        }
        Ok(Self { page: Page::of(here.state), content: seen.content(), shared: seen.shared })
    }
}

impl Page {
    const fn of(state: State) -> Self {
        match state {
            State::Hole | State::Reserved => Self::Hole,
            State::Unwritten(_) => Self::Unwritten,
            State::Mapped(_) => Self::Mapped,
        }
    }
}

/// The states of the runs seen so far.
#[derive(Debug, Default)]
struct Seen {
    hole: bool,
    unwritten: bool,
    data: bool,
    shared: bool,
    /// Where the slot's first byte is by the first run that has space.
    start: Option<PoolOff>,
    /// A run's space says otherwise.
    pieces: bool,
}

impl Seen {
    fn add(&mut self, run: &Iomap) {
        match Page::of(run.state) {
            Page::Hole => self.hole = true,
            Page::Unwritten => self.unwritten = true,
            Page::Mapped => self.data = true,
        }
        self.shared |= run.shared;
        let Some(at) = run.state.address() else { return };
        let start = at.0.checked_sub(run.range.offset % CHUNK_BYTES).map(PoolOff);
        self.pieces |= start.is_none() || self.start.is_some_and(|first| Some(first) != start);
        self.start = self.start.or(start);
    }

    /// Whether nothing that follows makes 2 MiB of it: a slot in 512 pieces is not looked at 512 times by each of its 512 faults.
    const fn is_enough(&self) -> bool {
        self.data && (self.hole || self.pieces)
    }

    fn content(&self) -> Content {
        let space = self.start.filter(|_| !self.pieces).map_or(Space::Pieces, Space::One);
        match (self.data, self.hole, self.unwritten) {
            (false, false, true) if is_chunk(space) => Content::Preallocated,
            (false, _, _) => Content::Zeros,
            (true, true, _) => Content::Holes,
            (true, false, true) => Content::Unwritten(space),
            (true, false, false) => Content::Data(space),
        }
    }
}

/// What is known to be bad among the data of the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Bad {
    /// Nothing.
    #[default]
    Nothing,
    /// Something, but not in the touched page.
    Elsewhere,
    /// Something in the touched page.
    Here,
}

/// What the medium can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Media {
    /// Bytes of its smallest translation ([`daxstore::iomap::Memory::unit`]).
    pub unit: u64,
    /// Bytes of its largest ([`daxstore::iomap::Memory::huge`]).
    pub huge: u64,
    /// What is bad.
    pub bad: Bad,
    /// A whole chunk may still be had: true until [`daxstore::iomap::FaultOps::populate`] denied one.
    pub chunk: bool,
}

/// What the system can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct System {
    /// It has zeros of 2 MiB.
    pub huge_zero: bool,
    /// The mapping may be split into more parts: fewer than the system's limit are in use.
    pub room: bool,
}

/// All that a decision depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    /// The touch.
    pub fault: Fault,
    /// The mapping.
    pub vma: Vma,
    /// The file's size in bytes, read after the turn was taken.
    pub size: u64,
    /// What the mapping has in the slot.
    pub slot: Slot,
    /// What the file has there.
    pub map: SlotMap,
    /// The medium.
    pub media: Media,
    /// The system.
    pub system: System,
}

/// What a fault gets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// A translation of 2 MiB of the pool, after [`Query::populate`].
    Pmd,
    /// A translation of 4 KiB of the pool, after [`Query::populate`]; a copy, for a store to a private mapping.
    Pte(Reason),
    /// Zeros that no store can change.
    Zero(ZeroSize),
    /// SIGBUS.
    Sigbus(Cause),
    /// Nothing: the touch is to be tried again. It finds what it needs, or there is no room for another mapping (then
    /// something has to go first).
    Retry,
}

/// How large a translation of zeros is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ZeroSize {
    /// 2 MiB.
    Pmd,
    /// 4 KiB.
    Pte(Reason),
}

/// Why a fault raises SIGBUS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// The page lies beyond the end of the file (1f: B0).
    Beyond,
    /// The medium is bad there.
    BadMedium,
    /// The medium has translations of 2 MiB only, and this can not be one.
    NotHuge(Reason),
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal, $text:literal;)*) => {
        /// Why a translation is not one of 2 MiB. Where several hold, the first of this order is named.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Reason {
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$reason),*];

            /// A stable name, for machines.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)*
                }
            }

            /// What it means, to follow a colon: `why` of [`daxstore::Error::NotHuge`].
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$reason => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The user advised against 2 MiB (A2). Where the medium has nothing smaller, only zeros follow the advice.
    Advised = "advised", "the mapping was advised to use no huge pages";
    /// The medium has no translations of 2 MiB (A3, A4). Zeros do not need them.
    NoHugeUnit = "no_huge_unit", "the medium has no translations of 2 MiB";
    /// The address is not congruent to the offset in the file (B1).
    Address = "address", "the address and the offset in the file differ modulo 2 MiB";
    /// A store to a private mapping is a copy of one page (B2).
    PrivateWrite = "private_write", "a store to a private mapping copies 4 KiB";
    /// The slot begins before the mapping (B3).
    BeforeMapping = "before_mapping", "the 2 MiB begin before the mapping";
    /// The slot ends after the mapping (B4).
    AfterMapping = "after_mapping", "the 2 MiB end after the mapping";
    /// The slot ends after the file, rounded up to the medium's unit, or to a block where the slot has to be filled (B5).
    AfterEnd = "after_end", "the 2 MiB end after the end of the file";
    /// A private mapping has copies in the slot (C1).
    Copies = "copies", "the mapping has private copies of some of these pages";
    /// Some of the slot are data and some are a hole, or unwritten at a load (D2).
    Mixed = "mixed", "some of these pages have data and some have not";
    /// Data of the slot belong to another file too, and a store would not be noticed (D2).
    Shared = "shared", "some of these pages are shared with another file";
    /// The slot's space is in several pieces (D2).
    Fragmented = "fragmented", "the pages lie in several places of the pool";
    /// The slot's space is in one piece that is not congruent (E3).
    Misplaced = "misplaced", "the pages do not begin at 2 MiB of the pool";
    /// The medium is bad in some other page of the slot (E3).
    BadMedium = "bad_medium", "the medium is bad in another of these pages";
    /// There was no free chunk of 2 MiB.
    NoChunk = "no_chunk", "the pool has no free 2 MiB in one piece";
    /// The system has no zeros of 2 MiB (E1).
    NoHugeZero = "no_huge_zero", "the system has no zero page of 2 MiB";
    /// There are too many mappings to split one for zeros of 2 MiB.
    NoRoom = "no_room", "the process has too many mappings";
}

impl Query {
    /// The 2 MiB of the file that hold the touched byte.
    #[must_use]
    pub const fn slot_range(&self) -> FileRange {
        FileRange { offset: self.fault.offset - self.fault.offset % CHUNK_BYTES, len: CHUNK_BYTES }
    }

    /// The 4 KiB of the file that hold the touched byte.
    #[must_use]
    pub const fn page_range(&self) -> FileRange {
        FileRange { offset: self.fault.offset - self.fault.offset % BLOCK_BYTES, len: BLOCK_BYTES }
    }

    /// The same question, once [`daxstore::iomap::FaultOps::populate`] had no chunk.
    #[must_use]
    pub const fn without_chunk(mut self) -> Self {
        self.media.chunk = false;
        self
    }

    /// What has to be populated before `decision` on this question is installed. Where a whole chunk is denied, the question is asked
    /// again [`Self::without_chunk`]; where it was given, with the file's new map.
    #[must_use]
    pub const fn populate(&self, decision: Decision) -> Option<(FileRange, Placement)> {
        if !self.fault.write || self.vma.private {
            return None;
        }
        match (decision, self.map.content, self.map.page) {
            (Decision::Pmd, Content::Zeros, _) => Some((self.slot_range(), Placement::Whole)),
            (Decision::Pmd, Content::Preallocated | Content::Unwritten(_), _) => {
                Some((self.slot_range(), Placement::Any))
            }
            (Decision::Pte(_), _, Page::Hole | Page::Unwritten) => Some((self.page_range(), Placement::Any)),
            _ => None,
        }
    }
}

/// Decides what a fault gets. The caller has the turn of the slot, so that all of `q` stays true until it has installed it.
#[must_use]
pub fn choose(q: &Query) -> Decision {
    if q.page_range().offset >= end(q) {
        return Decision::Sigbus(Cause::Beyond);
    }
    if settled(q) {
        return Decision::Retry;
    }
    if q.map.page == Page::Mapped && q.media.bad == Bad::Here {
        return Decision::Sigbus(Cause::BadMedium);
    }
    if !q.fault.write && q.map.page != Page::Mapped {
        return Decision::Zero(zero(q));
    }
    block(q)
}

/// Where translations end: the file's size rounded up to the medium's unit.
fn end(q: &Query) -> u64 {
    q.size.checked_next_multiple_of(q.media.unit).unwrap_or(q.size)
}

/// Whether the mapping has already what the touch needs (C2): a message came late, or another thread's fault was answered.
fn settled(q: &Query) -> bool {
    match q.slot.page {
        Held::Block | Held::Copy => true,
        Held::BlockToRead | Held::Zeros => !q.fault.write,
        Held::Nothing | Held::Sigbus => false,
    }
}

/// A translation of the pool, or a copy.
fn block(q: &Query) -> Decision {
    let copied = q.fault.write && q.vma.private;
    match not_huge(q) {
        Some(why) if copied => Decision::Pte(why),
        Some(why) if q.media.unit > BLOCK_BYTES => Decision::Sigbus(Cause::NotHuge(why)),
        _ if !q.system.room => Decision::Retry,
        Some(why) => Decision::Pte(why),
        None => Decision::Pmd,
    }
}

/// Why a translation of the pool can not be of 2 MiB.
fn not_huge(q: &Query) -> Option<Reason> {
    let first = [
        (!q.vma.huge && q.media.unit < CHUNK_BYTES, Reason::Advised),
        (q.media.huge < CHUNK_BYTES, Reason::NoHugeUnit),
        (!congruent_address(q), Reason::Address),
        (q.fault.write && q.vma.private, Reason::PrivateWrite),
    ];
    let end = if fills(q) { file_end(q) } else { end(q) };
    named(&first).or_else(|| outside(q, end)).or_else(|| misfit(q))
}

/// Whether 2 MiB of the pool would have to be filled first: that is done within the file only.
const fn fills(q: &Query) -> bool {
    q.fault.write && matches!(q.map.content, Content::Zeros | Content::Preallocated | Content::Unwritten(_))
}

/// Where the file's blocks end: its size rounded up to one.
fn file_end(q: &Query) -> u64 {
    q.size.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(q.size)
}

/// The first reason that holds.
fn named(conditions: &[(bool, Reason)]) -> Option<Reason> {
    conditions.iter().find(|(holds, _)| *holds).map(|(_, reason)| *reason)
}

/// Whether the slot begins at 2 MiB of memory.
fn congruent_address(q: &Query) -> bool {
    q.vma.address % CHUNK_BYTES == q.vma.range.offset % CHUNK_BYTES
}

/// Why the slot as such can not be covered, with data or zeros.
fn outside(q: &Query, end: u64) -> Option<Reason> {
    let slot = q.slot_range();
    named(&[
        (slot.offset < q.vma.range.offset, Reason::BeforeMapping),
        (slot.end() > q.vma.range.end(), Reason::AfterMapping),
        (slot.end() > end, Reason::AfterEnd),
        (q.slot.copies, Reason::Copies),
    ])
}

/// Why what the file has in the slot is not one translation, and will not be one by populating.
fn misfit(q: &Query) -> Option<Reason> {
    let space = match q.map.content {
        Content::Zeros => return (!q.media.chunk).then_some(Reason::NoChunk),
        Content::Preallocated => return None,
        Content::Holes => return Some(Reason::Mixed),
        Content::Unwritten(_) if !q.fault.write => return Some(Reason::Mixed),
        Content::Unwritten(space) | Content::Data(space) => space,
    };
    if q.map.shared && q.vma.writable && !q.vma.private {
        return Some(Reason::Shared);
    }
    named(&[
        (space == Space::Pieces, Reason::Fragmented),
        (!is_chunk(space), Reason::Misplaced),
        (q.media.bad != Bad::Nothing, Reason::BadMedium),
    ])
}

/// Zeros for a load of a page without data.
fn zero(q: &Query) -> ZeroSize {
    let first = [(!q.vma.huge, Reason::Advised), (!congruent_address(q), Reason::Address)];
    let last = [
        (!matches!(q.map.content, Content::Zeros | Content::Preallocated), Reason::Mixed),
        (!q.system.huge_zero, Reason::NoHugeZero),
        (!q.system.room, Reason::NoRoom),
    ];
    named(&first).or_else(|| outside(q, end(q))).or_else(|| named(&last)).map_or(ZeroSize::Pmd, ZeroSize::Pte)
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

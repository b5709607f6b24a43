//! How is a fault answered?
//!
//! In the turn of the slot: look, decide, give blocks where a store needs them, install the whole extent around, record.
//! Afterwards the turn ends and whoever waited is woken.
//!
//! Rules:
//! 1. Only what lies in the caller's turn is installed: the extent around reaches as far as the turn could be extended.
//! 2. Before a page that got blocks can be stored to here, no other view reads it as zeros.
//! 3. Nothing that is installed and still right is installed again, but for a slot that becomes one translation: each
//!    `mmap` takes the page tables below it away.
//! 4. Blocks that other files own too are never where they can be stored to: a load gets a copy that no store changes, a store
//!    gets the file a block of its own. Views that are only read may have the blocks, and lose them then.

use crate::choose::{Cause, Decision, Query, ZeroSize, choose};
use crate::entries::What;
use crate::mutation::{self, Mutation};
use crate::query::Looked;
use crate::space::Turn;
use crate::stats::Count;
use crate::table::{Installed, Mode};
use crate::turns::{Kind, TurnId};
use crate::view::{Touch, View, clip, page_of, slot_of};
use daxstore::iomap::{FileRange, Iomap, Placement, State};
use daxstore::sync::Arc;
use daxstore::sync::atomic::Ordering;
use daxstore::units::{BLOCK_BYTES, CHUNK_BYTES, PoolOff};
use daxstore::{Error, Result};

/// Bytes that one installation covers at most, and that it starts at a multiple of.
const AROUND: u64 = 1 << 30;
/// Bytes of zeros that a load gets at once, in 4 KiB each.
const ZEROS_AROUND: u64 = 64 << 10;
/// Bytes that one fault lets be stored to once the file was synced, at first, and after a sequence of faults.
const AHEAD: (u64, u64) = (CHUNK_BYTES, 64 << 20);

/// Why a fault could not be served.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The file or the system refused.
    Refused(Error),
    /// There are too many mappings.
    Full,
    /// Another view still reads zeros in this range, and could not be given the blocks.
    Stale(FileRange),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Trouble {
    /// What an answer of a table means.
    fn of(error: Error) -> Self {
        match &error {
            Error::Io { source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => Self::Full,
            _ => Self::Refused(error),
        }
    }
}

/// The turn in which a fault is served.
#[derive(Debug)]
pub(crate) enum Scope<'a> {
    /// A fault's own, which can be extended.
    Own(&'a Turn),
    /// Somebody's turn of this range.
    Given(FileRange),
}

impl<'a> Scope<'a> {
    pub(crate) fn of(turn: &'a Turn) -> Self {
        Self::Own(turn)
    }

    /// What is covered once the turn has grown towards `want`.
    fn extend(&self, want: FileRange) -> FileRange {
        match self {
            _ if mutation::is(Mutation::MapBeyondTurn) => want,
            Self::Own(turn) => turn.space.turns.extend(turn.id, want, CHUNK_BYTES),
            Self::Given(range) => *range,
        }
    }

    fn end_early(&self) {
        if let Self::Own(turn) = self {
            let _dropped = turn.space.turns.end(turn.id);
        }
    }
}

/// A piece of the pool at a piece of the file.
#[derive(Clone, Copy, Debug)]
struct Piece {
    range: FileRange,
    pool: PoolOff,
}

impl Piece {
    fn of(run: &Iomap) -> Result<Self, Trouble> {
        match run.state {
            State::Mapped(pool) => Ok(Self { range: run.range, pool }),
            _ => Err(Error::InvalidArgument("a file's data went in the turn of a fault").into()),
        }
    }

    /// What of it lies between `start` and `end`.
    fn between(self, start: u64, end: u64) -> Self {
        let range = clip(self.range, FileRange { offset: start, len: end.saturating_sub(start) });
        Self { range, pool: self.pool.plus(range.offset - self.range.offset) }
    }
}

impl View {
    /// The range of the turn that a touch needs, and its kind.
    fn need(&self, offset: u64, write: bool) -> (FileRange, Kind) {
        let kind = if write && self.stores_to_file() { Kind::Write } else { Kind::Read };
        let range = if mutation::is(Mutation::TurnOfPage) { page_of(offset) } else { slot_of(offset) };
        (range, kind)
    }

    /// The turn of a touch; `None` where somebody has it and the toucher may not wait here.
    pub(crate) fn turn_of(&self, touch: &Touch) -> Option<Turn> {
        let (range, kind) = self.need(touch.offset, touch.write);
        if touch.may_wait {
            return Some(self.fault_turn(range, kind));
        }
        let id = self.space().turns.try_fault(range, kind)?;
        Some(self.owned(id))
    }

    /// The turn of a fault, waited for.
    pub(crate) fn fault_turn(&self, range: FileRange, kind: Kind) -> Turn {
        self.owned(self.space().turns.wait_fault(range, kind))
    }

    fn owned(&self, id: TurnId) -> Turn {
        Turn { space: self.space().clone(), id }
    }

    /// Waits for the turn of a touch that is no fault.
    pub(crate) fn turn_to_fetch(&self, offset: u64, write: bool) -> Turn {
        let (range, kind) = self.need(offset, write);
        self.fault_turn(range, kind)
    }

    /// Serves a touch of `offset`: the range that is settled then, or to be tried again.
    pub(crate) fn serve(&self, scope: &Scope<'_>, offset: u64, write: bool) -> Result<FileRange, Trouble> {
        let page = self.look(|inside| inside.entries.get(offset)).map(|entry| entry.what);
        if let Some(done) = self.refill(page, offset, write)? {
            return Ok(done);
        }
        let Looked { mut query, here } = self.query(offset, write, page)?;
        let mut decision = choose(&query);
        if let Some((range, placement)) = query.populate(decision) {
            // From the record on, a write may store to the blocks, and so may another view that got them: nobody reads zeros then.
            // A handler thread can not wait for that, and leaves it to the steps after the record.
            if self.table().mode() == Mode::Signal && !mutation::is(Mutation::KeepZeros) {
                self.clear_all(range, false).map_err(Trouble::of)?;
            }
            let given = self.populate(&mut query, &mut decision, range, placement)?;
            self.counters().decided(decision);
            return self.install_given(scope, offset, write, given);
        }
        if matches!(decision, Decision::Pte(_)) && self.stores_to_file() && self.is_shared(&query)? {
            self.counters().decided(decision);
            return if query.fault.write { self.unshare(scope, offset) } else { self.guard(offset) };
        }
        self.counters().decided(decision);
        self.act(scope, &query, here, decision)
    }

    /// Installs what is at `offset` after the file got other blocks for `given`, and sees to it that no view shows what was there
    /// before when one can store to them.
    fn install_given(
        &self,
        scope: &Scope<'_>,
        offset: u64,
        write: bool,
        given: FileRange,
    ) -> Result<FileRange, Trouble> {
        self.upgrade_others(given)?;
        let Looked { query, here } = self.query(offset, write, None)?;
        let settled = self.act(scope, &query, here, choose(&query))?;
        self.upgrade(given)?;
        Ok(settled)
    }

    /// Whether other files may own the touched page's block too.
    fn is_shared(&self, query: &Query) -> Result<bool> {
        let page = query.page_range();
        Ok(query.map.shared && self.file().run_at(page.offset, page)?.shared)
    }

    /// Gives the file a block of its own for the page of `offset`, which is stored to, and installs that (rule 4).
    fn unshare(&self, scope: &Scope<'_>, offset: u64) -> Result<FileRange, Trouble> {
        if mutation::is(Mutation::StoreShared) {
            return self.install(scope, offset, None, false);
        }
        let unit = self.space().whole(page_of(offset));
        if self.table().mode() == Mode::Signal {
            self.clear_all(unit, true).map_err(Trouble::of)?;
        }
        self.file().make_private(unit)?;
        self.counters().add(Count::Unshared, 1);
        self.install_given(scope, offset, true, unit)
    }

    /// Shows the page of `offset`, which other files may own too, by a copy that no store changes: the file's bytes stay what
    /// they are as long as no turn takes them away (rule 4).
    fn guard(&self, offset: u64) -> Result<FileRange, Trouble> {
        let page = page_of(offset);
        let mut bytes = [0; BLOCK_BYTES as usize];
        self.read_page(page, &mut bytes)?;
        if self.table().copy(self.at(page.offset), &bytes, true).map_err(Trouble::of)? == Installed::Done {
            self.change(|inside| inside.entries.insert(page, What::Guarded));
            self.counters().add(Count::Guarded, 1);
        }
        Ok(page)
    }

    /// What the file has in `page`.
    fn read_page(&self, page: FileRange, bytes: &mut [u8; BLOCK_BYTES as usize]) -> Result<()> {
        match self.file().run_at(page.offset, page)?.state {
            State::Mapped(at) => self.file().read(at, bytes),
            _ => Ok(()),
        }
    }

    /// Gives blocks of zeros where the store needs them: where it did.
    fn populate(
        &self,
        query: &mut Query,
        decision: &mut Decision,
        range: FileRange,
        placement: Placement,
    ) -> Result<FileRange, Trouble> {
        if self.file().populate(range, placement)? {
            if placement == Placement::Whole {
                self.upkeep.want_zeros();
            }
            return Ok(range);
        }
        *query = query.without_chunk();
        *decision = choose(query);
        match query.populate(*decision) {
            Some((range, Placement::Any)) if self.file().populate(range, Placement::Any)? => Ok(range),
            _ => match *decision {
                Decision::Sigbus(_) => {
                    self.counters().decided(*decision);
                    Err(Trouble::Refused(self.refusal(query, *decision)))
                }
                _ => Err(Error::InvalidArgument("a file gave no blocks where it has to").into()),
            },
        }
    }

    /// What is missing although it is recorded is filled again: zeros and copies lie in memory that is the process's own, and
    /// its user may have taken them away (`MADV_DONTNEED`); blocks may have gone when others could not be mapped in
    /// their place.
    fn refill(&self, held: Option<What>, offset: u64, write: bool) -> Result<Option<FileRange>, Trouble> {
        let page = page_of(offset);
        match held {
            Some(What::Zero { .. }) if !write => {
                self.table().zero(self.at(page.offset), page.len).map_err(Trouble::of)?;
                Ok(Some(page))
            }
            Some(What::Guarded) if !write => self.guard(offset).map(Some),
            // A copy is put over what is there, and with it over what others have stored since. Nor does one that was thrown away
            // fault again.
            Some(What::Copy) if self.table().mode() != Mode::Userfault => Ok(Some(page)),
            Some(What::Copy) => self.copy(offset).map(Some),
            Some(What::Block(_)) => self.block_again(offset).map(Some),
            _ => Ok(None),
        }
    }

    /// Installs the recorded block at `offset` once more, with its neighbours in the slot. A message that is late costs a fault
    /// of the kernel's.
    fn block_again(&self, offset: u64) -> Result<FileRange, Trouble> {
        let part = slot_of(offset);
        let entry = self.look(|inside| inside.entries.within(part).find(|e| e.range.end() > offset));
        let Some((pool, range)) = entry.and_then(|e| e.place().map(|(pool, _)| (pool, e.range))) else {
            return Ok(page_of(offset));
        };
        self.table().block(self.at(range.offset), range.len, pool).map_err(Trouble::of)?;
        Ok(range)
    }

    fn act(
        &self,
        scope: &Scope<'_>,
        query: &Query,
        here: Option<Iomap>,
        decision: Decision,
    ) -> Result<FileRange, Trouble> {
        let offset = query.fault.offset;
        match decision {
            Decision::Pmd => self.install(scope, offset, here, true),
            Decision::Pte(_) if query.fault.write && query.vma.private => self.copy(offset),
            Decision::Pte(_) => self.install(scope, offset, here, false),
            Decision::Zero(size) => self.zero(query, size),
            Decision::Sigbus(Cause::Beyond) => self.beyond(scope, offset),
            Decision::Sigbus(_) => Err(self.refusal(query, decision).into()),
            Decision::Retry if query.system.room => Ok(page_of(offset)),
            Decision::Retry => Err(Trouble::Full),
        }
    }

    /// What is said to who asked for the page by a call.
    fn refusal(&self, query: &Query, decision: Decision) -> Error {
        let page = query.page_range();
        if let Decision::Sigbus(Cause::NotHuge(why)) = decision {
            return Error::NotHuge { offset: query.slot_range().offset, why: why.text() };
        }
        let run = match self.file().run_at(page.offset, page) {
            Ok(run) => run,
            Err(error) => return error,
        };
        let start = run.state.address().unwrap_or_default();
        let (at, len) = self.file().bad(start, run.range.len).unwrap_or((start, run.range.len));
        let offset = run.range.offset + at.0.saturating_sub(start.0);
        Error::BadMedium { at, ino: self.file().ino(), offset, len }
    }

    /// Where an installation around `offset` may reach.
    fn window(&self, offset: u64) -> FileRange {
        let around = FileRange { offset: offset - offset % AROUND, len: AROUND };
        let file = FileRange { offset: 0, len: self.end_of(self.file().size()) };
        let window = clip(self.clip(around), file);
        if !self.is_tracked() || !self.space().was_synced() {
            return window;
        }
        let slot = slot_of(offset);
        let len = self.look(|inside| if inside.ahead.0 == slot.offset { inside.ahead.1 } else { AHEAD.0 });
        clip(window, FileRange { offset: slot.offset, len })
    }

    /// Notes that `range` was installed after a touch of `offset`, for the next one's window.
    fn went_ahead(&self, offset: u64, range: FileRange) {
        if self.is_tracked() && self.space().was_synced() {
            self.change(|inside| {
                let sequence = inside.ahead.0 == slot_of(offset).offset;
                let len = if sequence { (inside.ahead.1 * 2).min(AHEAD.1) } else { AHEAD.0 * 2 };
                inside.ahead = (range.end(), len);
            });
        }
    }

    /// Installs the extent around `offset`. With `slot`, the whole slot is one translation, whatever was there.
    fn install(
        &self,
        scope: &Scope<'_>,
        offset: u64,
        here: Option<Iomap>,
        slot: bool,
    ) -> Result<FileRange, Trouble> {
        let mut run = match here {
            Some(here) => Piece::of(&here)?,
            None => self.run(offset, self.window(offset))?,
        };
        let own = slot_of(offset);
        if run.range.offset < own.offset || run.range.end() > own.end() {
            let granted = scope.extend(run.range);
            // What is beyond the slot may have changed before it was granted.
            run = self.run(offset, clip(self.window(offset), granted))?;
        }
        let piece = self.without_bad(run, offset);
        let piece = self.without_installed(piece, offset, slot);
        if self.stores_to_file() {
            self.file().touch()?;
        }
        if mutation::is(Mutation::InstallLate) {
            scope.end_early();
        }
        self.put(piece)?;
        self.counters().add_range(Count::Installs, Count::InstalledBytes, piece.range.len);
        self.went_ahead(offset, piece.range);
        Ok(piece.range)
    }

    /// The data around `offset`.
    fn run(&self, offset: u64, within: FileRange) -> Result<Piece, Trouble> {
        Piece::of(&self.file().run_at(offset, within)?)
    }

    /// What of `piece` around `offset` can be read.
    fn without_bad(&self, piece: Piece, offset: u64) -> Piece {
        let page = page_of(offset);
        let after = piece.between(page.end(), piece.range.end());
        let end = match self.file().bad(after.pool, after.range.len) {
            Some((at, _)) => after.range.offset + at.0.saturating_sub(after.pool.0),
            None => piece.range.end(),
        };
        let mut start = piece.range.offset;
        while start < page.offset {
            let before = piece.between(start, page.offset);
            let Some((at, len)) = self.file().bad(before.pool, before.range.len) else { break };
            start = before.range.offset + (at.0 + len.max(1)).saturating_sub(before.pool.0);
        }
        let unit = self.memory().unit.max(BLOCK_BYTES);
        piece.between(start.next_multiple_of(unit).min(page.offset), end - end % unit)
    }

    /// What of `piece` around `offset` is not installed yet; all of the slot with `slot` (rule 3).
    fn without_installed(&self, piece: Piece, offset: u64, slot: bool) -> Piece {
        let kept = if slot { slot_of(offset) } else { page_of(offset) };
        if kept.offset <= piece.range.offset && piece.range.end() <= kept.end() {
            return piece;
        }
        let stays = |what| !matches!(what, What::Zero { .. } | What::Guarded);
        let (start, end) = self.look(|inside| inside.entries.gap(kept, piece.range, stays));
        // A page that failed is smaller than the medium's unit may be.
        let unit = self.memory().unit.max(BLOCK_BYTES);
        piece.between(start.next_multiple_of(unit).min(kept.offset), end - end % unit)
    }

    /// Records a piece and installs it (view rule 1).
    fn put(&self, piece: Piece) -> Result<(), Trouble> {
        let Piece { range, pool } = piece;
        let late = mutation::is(Mutation::RecordLate);
        let record = || self.change(|inside| inside.entries.insert(range, What::Block(pool)));
        self.prime(piece)?;
        let before = if late { Vec::new() } else { record() };
        if let Err(error) = self.table().block(self.at(range.offset), range.len, pool) {
            self.change(|inside| {
                inside.entries.cut(range);
                for entry in before {
                    inside.entries.insert(entry.range, entry.what);
                }
            });
            return Err(Trouble::of(error));
        }
        if late {
            record();
        }
        Ok(())
    }

    /// Has the pool's own mapping touch the chunks first of which a translation is less than all: what a file system with DAX has
    /// mapped by 4 KiB once stays so.
    fn prime(&self, Piece { range, pool }: Piece) -> Result<(), Trouble> {
        if !self.memory().sync {
            return Ok(());
        }
        let address = self.params().address + self.at(range.offset);
        let end = pool.plus(range.len);
        if address % CHUNK_BYTES != pool.0 % CHUNK_BYTES {
            return Ok(self.file().prime(pool, range.len)?);
        }
        let (first, last) = (pool.0.next_multiple_of(CHUNK_BYTES), end.0 - end.0 % CHUNK_BYTES);
        if pool.0 < first {
            self.file().prime(pool, range.len.min(first - pool.0))?;
        }
        if last >= first && last < end.0 {
            self.file().prime(PoolOff(last), end.0 - last)?;
        }
        Ok(())
    }

    fn zero(&self, query: &Query, size: ZeroSize) -> Result<FileRange, Trouble> {
        let slot = query.slot_range();
        if size == ZeroSize::Pmd {
            if self.table().zero_huge(self.at(slot.offset)).map_err(Trouble::of)? {
                self.change(|inside| inside.entries.insert(slot, What::Zero { huge: true }));
                self.counters().add_range(Count::Zeros, Count::ZeroBytes, slot.len);
                return Ok(slot);
            }
            self.huge_zero.store(false, Ordering::Relaxed);
        }
        let range = self.zeros_around(query)?;
        // Before they are installed: where that ends in the middle, some of them are there. The others are filled in when they are
        // touched.
        self.change(|inside| inside.entries.insert(range, What::Zero { huge: false }));
        if self.table().zero(self.at(range.offset), range.len).map_err(Trouble::of)? == Installed::Done {
            self.counters().add_range(Count::Zeros, Count::ZeroBytes, range.len);
        }
        Ok(range)
    }

    /// The zeros around the touched page that are not installed yet.
    fn zeros_around(&self, query: &Query) -> Result<FileRange> {
        let page = query.page_range();
        let around = FileRange { offset: page.offset - page.offset % ZEROS_AROUND, len: ZEROS_AROUND };
        let file = FileRange { offset: 0, len: self.end_of(query.size) };
        let run = self.file().run_at(page.offset, clip(self.clip(around), file))?.range;
        let (start, end) = self.look(|inside| inside.entries.gap(page, run, |_| true));
        Ok(clip(run, FileRange { offset: start, len: end - start }))
    }

    /// Gives the touched page memory of its own, with what the file has there now.
    fn copy(&self, offset: u64) -> Result<FileRange, Trouble> {
        let page = page_of(offset);
        let mut bytes = [0; BLOCK_BYTES as usize];
        self.read_page(page, &mut bytes)?;
        if self.table().copy(self.at(page.offset), &bytes, false).map_err(Trouble::of)? == Installed::Done {
            self.change(|inside| inside.entries.insert(page, What::Copy));
            self.counters().add(Count::Copies, 1);
        }
        Ok(page)
    }

    /// Lets everything from the end of the file on raise SIGBUS, as far as the turn reaches.
    fn beyond(&self, scope: &Scope<'_>, offset: u64) -> Result<FileRange, Trouble> {
        let to_end = |from: u64| FileRange { offset: from, len: self.range().end().saturating_sub(from) };
        let granted = scope.extend(to_end(self.end_of(self.file().size()).max(self.range().offset)));
        let range = self.clip(clip(granted, to_end(self.end_of(self.file().size()))));
        if offset < range.offset || offset >= range.end() {
            return Ok(page_of(offset));
        }
        self.table().beyond(self.at(range.offset), range.len).map_err(Trouble::of)?;
        self.change(|inside| inside.entries.insert(range, What::Beyond));
        Ok(range)
    }

    /// Has no other view show what was there before in `range`, which has other blocks now (rule 2). Where one does, they go from all views before any gets the
    /// blocks: a store through one that had them would not be seen through one that still reads zeros. Without a fault
    /// handler zeros can not go for a while: the blocks take their place.
    fn upgrade_others(&self, range: FileRange) -> Result<(), Trouble> {
        if mutation::is(Mutation::KeepZeros) {
            return Ok(());
        }
        let views = self.space().views(range);
        let others = views.iter().filter(|view| !std::ptr::eq(Arc::as_ptr(view), self));
        let mut result = Ok(());
        for view in others {
            if view.table().mode() == Mode::Eager {
                result = result.and(view.upgrade(range));
            } else if !view.outdated(range)?.is_empty() {
                result = result.and(Err(Trouble::Stale(range)));
            }
        }
        result
    }

    /// Gives the view the blocks of `range` where it shows what was there before.
    fn upgrade(&self, range: FileRange) -> Result<(), Trouble> {
        for zeros in self.outdated(range)? {
            let mut at = zeros.offset;
            while at < zeros.end() {
                let piece = self.run(at, zeros)?;
                let piece = piece.between(at, zeros.end());
                self.put(piece).map_err(|_| Trouble::Stale(range))?;
                self.counters().add_range(Count::Upgrades, Count::UpgradedBytes, piece.range.len);
                at = piece.range.end();
            }
        }
        Ok(())
    }

    /// Where the view has what `is` so in `range`.
    pub(crate) fn ranges_of(&self, range: FileRange, is: impl Fn(What) -> bool) -> Vec<FileRange> {
        self.look(|inside| {
            let inside = inside.entries.within(self.clip(range));
            inside.filter(|entry| is(entry.what)).map(|entry| entry.range).collect()
        })
    }

    /// Where the view shows what the file's blocks are not: zeros, copies of what was shared, blocks that it had before. The
    /// caller has the turn of the range, all of which has blocks.
    pub(crate) fn outdated(&self, range: FileRange) -> Result<Vec<FileRange>> {
        let mut found = self.ranges_of(range, |what| matches!(what, What::Zero { .. } | What::Guarded));
        for entry in self.resolved(self.clip(range)) {
            let Some((pool, _)) = entry.place() else { continue };
            let mut at = entry.range.offset;
            while at < entry.range.end() {
                let run = self.file().run_at(at, entry.range)?;
                let here = run.state.advanced(at - run.range.offset).address();
                let part = clip(entry.range, FileRange { offset: at, len: run.range.end() - at });
                if here != Some(pool.plus(at - entry.range.offset)) {
                    found.push(part);
                }
                at = part.end();
            }
        }
        Ok(found)
    }
}

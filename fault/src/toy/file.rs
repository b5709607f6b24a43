//! What is a file, to a fault handler, at its least?
//!
//! An array of cells by page over an array of numbers by pool page. What changes the file announces it as the store
//! does, one at a time; what is freed must be out of reach.

use super::table::Translations;
use super::{PAGE, SLOT};
use daxstore::iomap::{
    AddressSpace, Cookie, FaultOps, FileRange, Iomap, Memory, Placement, SpaceSlot, State,
};
use daxstore::sync::{Arc, Mutex, Weak};
use daxstore::units::PoolOff;
use daxstore::{Error, Result};
use std::fs::File;

/// What a page of the file has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// No space.
    Hole,
    /// This page of the pool, without data.
    Unwritten(u64),
    /// This page of the pool.
    Mapped(u64),
}

#[derive(Debug)]
pub(super) struct Inside {
    size: u64,
    pub(super) cells: Vec<Cell>,
    /// By pool page: whether the file has it, and how often it is pinned.
    taken: Vec<bool>,
    pins: Vec<u32>,
    /// By pool page: what is there, and what of it is durable.
    pub(super) content: Vec<u64>,
    pub(super) durable: Vec<u64>,
    /// By pool page: what it holds for ever, since another file has it too.
    pub(super) frozen: Vec<Option<u64>>,
    /// What was flushed and not fenced.
    flushed: Vec<(u64, u64)>,
    bad: Option<u64>,
    full: bool,
}

/// A file in plain memory, whose pages hold one number each.
#[derive(Debug)]
pub struct ToyFile {
    pub(super) inside: Mutex<Inside>,
    pub(super) slot: SpaceSlot,
    /// Held by what changes the file: one at a time.
    pub(super) io: Mutex<()>,
    tables: Mutex<Vec<Weak<Translations>>>,
    null: Arc<File>,
    by_pages: bool,
    unit: u64,
    /// The medium is a file with DAX.
    dax: bool,
    primed: Mutex<Vec<(PoolOff, u64)>>,
}

fn pages(range: FileRange) -> std::ops::Range<u64> {
    range.offset / PAGE..range.end().div_ceil(PAGE)
}

pub(super) fn bytes(pages: std::ops::Range<u64>) -> FileRange {
    FileRange { offset: pages.start * PAGE, len: (pages.end - pages.start) * PAGE }
}

impl Inside {
    pub(super) fn cell(&self, page: u64) -> Cell {
        self.cells.get(page as usize).copied().unwrap_or(Cell::Hole)
    }

    fn is_free(&self, page: u64) -> bool {
        !self.taken[page as usize] && self.pins[page as usize] == 0
    }

    /// The first free page but those of whole chunks, else any.
    fn page(&self) -> Option<u64> {
        let chunks = (0..self.taken.len() as u64).step_by(SLOT as usize);
        let free = |chunk: u64| (chunk..chunk + SLOT).filter(|page| self.is_free(*page));
        let broken = chunks.clone().filter(|chunk| (1..SLOT as usize).contains(&free(*chunk).count()));
        broken.chain(chunks).find_map(|chunk| free(chunk).next()).filter(|_| !self.full)
    }

    fn chunk(&self) -> Option<u64> {
        let mut chunks = (0..self.taken.len() as u64).step_by(SLOT as usize);
        chunks.find(|chunk| (*chunk..chunk + SLOT).all(|page| self.is_free(page))).filter(|_| !self.full)
    }

    /// Gives `page` of the file a page of the pool.
    fn give(&mut self, page: u64, pool: u64, value: u64) {
        self.taken[pool as usize] = true;
        self.content[pool as usize] = value;
        self.durable[pool as usize] = value;
        self.cells[page as usize] = Cell::Mapped(pool);
    }

    /// Whether `page` has a page of the pool that another file has too.
    pub(super) fn is_shared(&self, page: u64) -> bool {
        matches!(self.cell(page), Cell::Mapped(pool) if self.frozen[pool as usize].is_some())
    }

    /// Makes `page` a hole: the page of the pool that it had.
    pub(super) fn free(&mut self, page: u64) -> Option<u64> {
        match std::mem::replace(&mut self.cells[page as usize], Cell::Hole) {
            Cell::Hole => None,
            Cell::Unwritten(pool) | Cell::Mapped(pool) => Some(pool),
        }
    }
}

impl ToyFile {
    /// A file of `slots` holes of 2 MiB, in a pool of `chunks`.
    #[must_use]
    pub fn new(slots: u64, chunks: u64) -> Arc<Self> {
        Self::with(slots, chunks, false, PAGE)
    }

    /// As [`Self::new`], on a medium that writes pages back, or whose smallest translation has `unit` bytes.
    ///
    /// # Panics
    /// Where there is no null device.
    #[must_use]
    pub fn with(slots: u64, chunks: u64, by_pages: bool, unit: u64) -> Arc<Self> {
        Self::on(slots, chunks, by_pages, unit, false)
    }

    fn on(slots: u64, chunks: u64, by_pages: bool, unit: u64, dax: bool) -> Arc<Self> {
        let pool = (chunks * SLOT) as usize;
        let inside = Inside {
            size: slots * SLOT * PAGE,
            cells: vec![Cell::Hole; (slots * SLOT) as usize],
            taken: vec![false; pool],
            pins: vec![0; pool],
            content: vec![0; pool],
            durable: vec![0; pool],
            frozen: vec![None; pool],
            flushed: Vec::new(),
            bad: None,
            full: false,
        };
        let null = File::open("/dev/null").expect("a null device");
        Arc::new(Self {
            inside: Mutex::new(inside),
            slot: SpaceSlot::default(),
            io: Mutex::new(()),
            tables: Mutex::new(Vec::new()),
            null: Arc::new(null),
            by_pages,
            unit,
            dax,
            primed: Mutex::new(Vec::new()),
        })
    }

    /// Gives `page` of the file the page `pool` of the pool, before anything is mapped.
    pub fn place(&self, page: u64, pool: u64, value: u64) {
        self.inside.lock().give(page, pool, value);
    }

    /// Makes `page` a page of the pool without data, before anything is mapped.
    pub fn place_unwritten(&self, page: u64, pool: u64) {
        let mut inside = self.inside.lock();
        inside.taken[pool as usize] = true;
        inside.cells[page as usize] = Cell::Unwritten(pool);
    }

    /// Lets the pool have no free page, or some again.
    pub fn set_full(&self, full: bool) {
        self.inside.lock().full = full;
    }

    /// Lets a page of the pool be bad, or none.
    pub fn set_bad(&self, pool: Option<u64>) {
        self.inside.lock().bad = pool;
    }

    /// The file's size in pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.inside.lock().size / PAGE
    }

    /// What `page` has.
    #[must_use]
    pub fn cell(&self, page: u64) -> Cell {
        self.inside.lock().cell(page)
    }

    pub(super) fn cells(&self, pages: std::ops::Range<u64>) -> Vec<Cell> {
        let inside = self.inside.lock();
        pages.map(|page| inside.cell(page)).collect()
    }

    /// What `page` holds, as `read_at` sees it.
    #[must_use]
    pub fn read_page(&self, page: u64) -> u64 {
        let inside = self.inside.lock();
        match inside.cell(page) {
            Cell::Mapped(pool) => inside.content[pool as usize],
            _ => 0,
        }
    }

    /// What `page` would hold after a crash.
    #[must_use]
    pub fn durable(&self, page: u64) -> u64 {
        let inside = self.inside.lock();
        match inside.cell(page) {
            Cell::Mapped(pool) => inside.durable[pool as usize],
            _ => 0,
        }
    }

    /// How many pages of the pool the file has.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inside.lock().taken.iter().filter(|taken| **taken).count()
    }

    pub(super) fn content(&self, pool: u64) -> u64 {
        self.inside.lock().content[pool as usize]
    }

    pub(super) fn set_content(&self, pool: u64, value: u64) {
        let mut inside = self.inside.lock();
        assert_eq!(inside.frozen[pool as usize], None, "nobody stores to what another file has too");
        inside.content[pool as usize] = value;
    }

    pub(super) fn watch(&self, table: &Arc<Translations>) {
        self.tables.lock().push(Arc::downgrade(table));
    }

    fn tables(&self) -> Vec<Arc<Translations>> {
        self.tables.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn assert_none_left(&self, pages: std::ops::Range<u64>) {
        self.tables().iter().for_each(|table| table.assert_nothing_of_file(pages.clone()));
    }

    fn assert_unreachable(&self, pool: &[u64]) {
        self.tables().iter().for_each(|table| table.assert_unreachable(pool));
    }

    /// As `write_at` of one page; what to write is asked for when nothing else can change the page.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn write_with(&self, page: u64, value: impl FnOnce() -> u64) -> Result<()> {
        let _io = self.io.lock();
        let is_shared = self.inside.lock().is_shared(page);
        if let Cell::Mapped(pool) = self.cell(page)
            && !is_shared
        {
            let value = value();
            self.set_content(pool, value);
            self.inside.lock().durable[pool as usize] = value;
            return Ok(());
        }
        let transition = self.slot.allocate(bytes(page..page + 1));
        let value = value();
        transition.invalidate()?;
        self.assert_none_left(page..page + 1);
        let mut inside = self.inside.lock();
        let pool = match inside.cell(page) {
            Cell::Unwritten(pool) => pool,
            // A store got the file a page of its own before this had the turn: it is the place.
            Cell::Mapped(pool) if is_shared && !inside.is_shared(page) => pool,
            Cell::Mapped(_) if is_shared => inside.page().ok_or(Error::NoSpace { needed: 1, free: 0 })?,
            Cell::Hole => inside.page().ok_or(Error::NoSpace { needed: 1, free: 0 })?,
            Cell::Mapped(_) => return Err(Error::InvalidArgument("a fault gave blocks to who writes")),
        };
        inside.give(page, pool, value);
        drop(inside);
        drop(transition);
        Ok(())
    }

    /// As `write_at` of one page.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub fn write(&self, page: u64, value: u64) -> Result<()> {
        self.write_with(page, || value)
    }

    /// Makes `pages` holes.
    ///
    /// # Errors
    /// Those of the mappings.
    pub fn punch(&self, pages: std::ops::Range<u64>) -> Result<()> {
        let _io = self.io.lock();
        let transition = self.slot.invalidate(bytes(pages.clone()), false)?;
        self.assert_none_left(pages.clone());
        self.free(pages);
        drop(transition);
        Ok(())
    }

    fn free(&self, pages: std::ops::Range<u64>) {
        let mut inside = self.inside.lock();
        let freed: Vec<_> = pages.filter_map(|page| inside.free(page)).collect();
        drop(inside);
        self.released(&freed);
    }

    /// Looks that none of these pages can be reached, unless the file has them elsewhere too, and lets others have them.
    pub(super) fn released(&self, freed: &[u64]) {
        let has = |cells: &[Cell], pool: u64| cells.contains(&Cell::Mapped(pool));
        let gone: Vec<_> = {
            let inside = self.inside.lock();
            let mut shared = freed.iter().copied().filter(|pool| inside.frozen[*pool as usize].is_some());
            let stays: Vec<_> = shared.by_ref().filter(|pool| has(&inside.cells, *pool)).collect();
            freed.iter().copied().filter(|pool| !stays.contains(pool)).collect()
        };
        self.assert_unreachable(&gone);
        let mut inside = self.inside.lock();
        let Inside { taken, frozen, .. } = &mut *inside;
        freed.iter().for_each(|pool| taken[*pool as usize] = frozen[*pool as usize].is_some());
    }

    /// Sets the size, in pages, at most what the file was made with.
    ///
    /// # Errors
    /// Those of the mappings.
    pub fn resize(&self, to: u64) -> Result<()> {
        let _io = self.io.lock();
        let from = self.pages();
        let all = self.inside.lock().cells.len() as u64;
        if to < from {
            let transition = self.slot.invalidate(bytes(to..all), true)?;
            self.assert_none_left(to..all);
            self.inside.lock().size = to * PAGE;
            self.free(to..all);
            drop(transition);
        } else if from < to {
            let transition = self.slot.invalidate(bytes(from..to), false)?;
            self.inside.lock().size = to * PAGE;
            drop(transition);
        }
        Ok(())
    }

    /// Moves what the slot has to one chunk, if there is a free one: whether it did.
    ///
    /// # Errors
    /// Those of the mappings.
    pub fn defragment(&self, slot: u64) -> Result<bool> {
        let _io = self.io.lock();
        let pages = slot * SLOT..(slot + 1) * SLOT;
        let transition = self.slot.invalidate(bytes(pages.clone()), false)?;
        self.assert_none_left(pages.clone());
        let mut inside = self.inside.lock();
        if pages.clone().any(|page| inside.is_shared(page)) {
            return Ok(false);
        }
        let Some(chunk) = inside.chunk() else { return Ok(false) };
        let mut freed = Vec::new();
        for page in pages {
            if let Cell::Mapped(pool) = inside.cell(page) {
                let value = inside.content[pool as usize];
                freed.extend(inside.free(page));
                inside.give(page, chunk + page % SLOT, value);
            }
        }
        drop(inside);
        self.released(&freed);
        drop(transition);
        Ok(true)
    }

    /// Takes `pages` out: what follows moves down, and the size with it.
    ///
    /// # Errors
    /// Those of the mappings.
    pub fn collapse(&self, pages: std::ops::Range<u64>) -> Result<()> {
        let _io = self.io.lock();
        let (all, by) = (self.inside.lock().cells.len() as u64, pages.end - pages.start);
        let transition = self.slot.invalidate(bytes(pages.start..all), false)?;
        transition.write_back(&mut |places| self.make_durable(places))?;
        self.assert_none_left(pages.start..all);
        let mut inside = self.inside.lock();
        let freed: Vec<_> = pages.clone().filter_map(|page| inside.free(page)).collect();
        inside.cells[pages.start as usize..].rotate_left(by as usize);
        inside.size -= by * PAGE;
        drop(inside);
        self.released(&freed);
        drop(transition);
        Ok(())
    }

    /// Puts holes in where `pages` begin: what was there moves up, and the size with it, as far as the file was made.
    ///
    /// # Errors
    /// Those of the mappings.
    pub fn insert(&self, pages: std::ops::Range<u64>) -> Result<()> {
        let _io = self.io.lock();
        let (all, by) = (self.inside.lock().cells.len() as u64, pages.end - pages.start);
        assert!(self.pages() + by <= all, "there is room for what moves");
        let transition = self.slot.invalidate(bytes(pages.start..all), false)?;
        transition.write_back(&mut |places| self.make_durable(places))?;
        self.assert_none_left(pages.start..all);
        let mut inside = self.inside.lock();
        inside.cells[pages.start as usize..].rotate_right(by as usize);
        inside.size += by * PAGE;
        drop(inside);
        drop(transition);
        Ok(())
    }

    fn make_durable(&self, places: &[(PoolOff, u64)]) -> Result<()> {
        places.iter().try_for_each(|(at, len)| self.flush(*at, *len))?;
        self.fence()
    }

    /// Which places of the pool the pool's own mapping was asked to touch first.
    #[must_use]
    pub fn primed(&self) -> Vec<(PoolOff, u64)> {
        self.primed.lock().clone()
    }

    /// Lets the medium be a file with DAX.
    #[must_use]
    pub fn with_dax(slots: u64, chunks: u64) -> Arc<Self> {
        Self::on(slots, chunks, false, PAGE, true)
    }

    /// Gives the pages of `range` blocks, from `place`, in two steps as the store does: between them only the turn keeps
    /// others away.
    fn fill(&self, range: FileRange, place: impl Fn(&Inside, u64) -> Option<u64>) -> Result<()> {
        let empty = |cell: Cell| !matches!(cell, Cell::Mapped(_));
        let before = self.cells(pages(range));
        let mut inside = self.inside.lock();
        for (page, before) in pages(range).zip(before) {
            assert_eq!(inside.cell(page), before, "nobody changes what a fault gives blocks to");
            if empty(before) {
                let pool = match before {
                    Cell::Unwritten(pool) => Some(pool),
                    _ => place(&inside, page),
                };
                inside.give(page, pool.ok_or(Error::NoSpace { needed: 1, free: 0 })?, 0);
            }
        }
        Ok(())
    }
}

impl FaultOps for ToyFile {
    fn memory(&self) -> Result<Memory> {
        Ok(Memory {
            file: self.null.clone(),
            sync: self.dax,
            unit: self.unit,
            huge: SLOT * PAGE,
            by_pages: self.by_pages,
        })
    }

    fn access(&self) -> (bool, bool) {
        (true, true)
    }

    fn ino(&self) -> u64 {
        1
    }

    fn size(&self) -> u64 {
        self.inside.lock().size
    }

    fn run_at(&self, offset: u64, within: FileRange) -> Result<Iomap> {
        assert!(within.offset <= offset && offset < within.end(), "{within:?} holds {offset}");
        let inside = self.inside.lock();
        let page = offset / PAGE;
        let shared = inside.is_shared(page);
        let goes_on = |other: u64, by: i64| match (inside.cell(page), inside.cell(other)) {
            _ if inside.is_shared(other) != shared => false,
            (Cell::Hole, Cell::Hole) => true,
            (Cell::Unwritten(a), Cell::Unwritten(b)) | (Cell::Mapped(a), Cell::Mapped(b)) => {
                a.checked_add_signed(by) == Some(b)
            }
            _ => false,
        };
        let (mut start, mut end) = (page, page + 1);
        let all = pages(within);
        while start > all.start && goes_on(start - 1, start as i64 - 1 - page as i64) {
            start -= 1;
        }
        while end < all.end && goes_on(end, end as i64 - page as i64) {
            end += 1;
        }
        let state = match inside.cell(start) {
            Cell::Hole => State::Hole,
            Cell::Unwritten(pool) => State::Unwritten(PoolOff(pool * PAGE)),
            Cell::Mapped(pool) => State::Mapped(PoolOff(pool * PAGE)),
        };
        Ok(Iomap { range: bytes(start..end), state, shared, cookie: Cookie::default() })
    }

    fn prime(&self, at: PoolOff, len: u64) -> Result<()> {
        self.primed.lock().push((at, len));
        Ok(())
    }

    fn populate(&self, range: FileRange, placement: Placement) -> Result<bool> {
        if placement == Placement::Any {
            return self.fill(range, |inside, _| inside.page()).map(|()| true);
        }
        let (chunk, unwritten): (_, Vec<_>) = {
            let mut inside = self.inside.lock();
            let Some(chunk) = inside.chunk() else { return Ok(false) };
            // Nobody else is given a page of it meanwhile.
            (chunk..chunk + SLOT).for_each(|page| inside.taken[page as usize] = true);
            (chunk, pages(range).filter_map(|page| inside.free(page)).collect())
        };
        self.released(&unwritten);
        self.fill(range, |_, page| Some(chunk + page % SLOT)).map(|()| true)
    }

    fn make_private(&self, range: FileRange) -> Result<()> {
        let mut inside = self.inside.lock();
        for page in pages(range) {
            if inside.is_shared(page)
                && let Cell::Mapped(old) = inside.cell(page)
            {
                let value = inside.content[old as usize];
                let new = inside.page().ok_or(Error::NoSpace { needed: 1, free: 0 })?;
                inside.give(page, new, value);
            }
        }
        Ok(())
    }

    fn zero_ahead(&self, _: usize) -> Result<bool> {
        Ok(false)
    }

    fn touch(&self) -> Result<()> {
        Ok(())
    }

    fn read(&self, at: PoolOff, buf: &mut [u8]) -> Result<()> {
        let inside = self.inside.lock();
        let page = at.0 / PAGE;
        if inside.bad == Some(page) {
            return Err(Error::BadMedium { at, ino: 1, offset: 0, len: PAGE });
        }
        let value = inside.content[page as usize].to_le_bytes();
        buf.iter_mut().zip(value).for_each(|(to, from)| *to = from);
        Ok(())
    }

    fn flush(&self, at: PoolOff, len: u64) -> Result<()> {
        let mut inside = self.inside.lock();
        for page in at.0 / PAGE..(at.0 + len).div_ceil(PAGE) {
            let value = inside.content[page as usize];
            inside.flushed.push((page, value));
        }
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        let mut inside = self.inside.lock();
        for (page, value) in std::mem::take(&mut inside.flushed) {
            inside.durable[page as usize] = value;
        }
        Ok(())
    }

    fn bad(&self, at: PoolOff, len: u64) -> Option<(PoolOff, u64)> {
        let bad = self.inside.lock().bad? * PAGE;
        (bad < at.0 + len && at.0 < bad + PAGE).then_some((PoolOff(bad), PAGE))
    }

    fn pin(&self, runs: &[(PoolOff, u64)]) -> Result<()> {
        let mut inside = self.inside.lock();
        for (at, len) in runs {
            (at.0 / PAGE..(at.0 + len) / PAGE).for_each(|page| inside.pins[page as usize] += 1);
        }
        Ok(())
    }

    fn unpin(&self, runs: &[(PoolOff, u64)]) {
        let mut inside = self.inside.lock();
        for (at, len) in runs {
            (at.0 / PAGE..(at.0 + len) / PAGE).for_each(|page| inside.pins[page as usize] -= 1);
        }
    }

    fn attach(&self, make: &mut dyn FnMut() -> Arc<dyn AddressSpace>) -> Result<Arc<dyn AddressSpace>> {
        let _io = self.io.lock();
        Ok(self.slot.attach(make))
    }

    fn detach(&self) {
        self.slot.detach();
    }
}

//! What are translations, at their least?
//!
//! An array by page, under one lock: what a load or a store does to it is one step, as a memory management unit's. Who
//! touches a page without a translation faults, and sleeps until it is woken.

use super::file::{Cell, ToyFile};
use super::{PAGE, SLOT};
use crate::table::{Answer, Handler, Installed, Mode, Table};
use crate::{Attachment, Budget, FileSpace, View, ViewParams};
use daxstore::iomap::FileRange;
use daxstore::sync::{Arc, Condvar, Mutex};
use daxstore::units::{CHUNK_BYTES, PoolOff};
use daxstore::{Error, Result};

/// What a page is translated to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Nothing,
    Block(u64),
    Zeros,
    Own(u64),
    Guarded(u64),
    Sigbus,
}

#[derive(Debug)]
struct Inside {
    pages: Vec<To>,
    /// Pages that somebody sleeps at, by ticket.
    asleep: Vec<(u64, u64)>,
    tickets: u64,
    /// How many installations of blocks fail yet for want of room.
    no_room: u64,
    /// Every so many requests for zeros are to be tried again.
    again: u64,
    asked: u64,
}

/// The translations of one view.
#[derive(Debug)]
pub struct Translations {
    file: Arc<ToyFile>,
    first: u64,
    mode: Mode,
    inside: Mutex<Inside>,
    woken: Condvar,
}

/// Why a touch failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fatal {
    /// SIGBUS.
    Bus,
    /// SIGSEGV.
    Segv,
}

/// A [`Table`] without a system.
#[derive(Clone, Debug)]
pub struct ToyTable(Arc<Translations>);

fn full() -> Error {
    Error::io("mmap", std::io::Error::from_raw_os_error(libc::ENOMEM))
}

impl Translations {
    fn range(at: u64, len: u64) -> std::ops::Range<usize> {
        (at / PAGE) as usize..(at + len).div_ceil(PAGE) as usize
    }

    /// Fails where something is translated that comes from the file.
    pub(super) fn assert_nothing_of_file(&self, pages: std::ops::Range<u64>) {
        let inside = self.inside.lock();
        for page in pages {
            let to = page.checked_sub(self.first).and_then(|i| inside.pages.get(i as usize));
            let gone =
                self.mode == Mode::Eager || !matches!(to, Some(To::Block(_) | To::Zeros | To::Guarded(_)));
            assert!(gone, "page {page} is translated after an invalidation: {to:?}");
        }
    }

    /// The pages of `len` bytes from `at`, with what the file has there.
    fn with_cells(&self, at: u64, len: u64) -> impl Iterator<Item = (usize, Cell)> + use<> {
        let pages = Self::range(at, len);
        let cells = self.file.cells(self.first + pages.start as u64..self.first + pages.end as u64);
        pages.zip(cells)
    }

    /// Fails where one of these pages of the pool can be reached.
    pub(super) fn assert_unreachable(&self, pool: &[u64]) {
        let inside = self.inside.lock();
        for to in &inside.pages {
            let freed = matches!(to, To::Block(page) if pool.contains(page));
            assert!(!freed, "{to:?} was freed and can be reached");
        }
    }
}

impl ToyTable {
    /// Lets the next `calls` that install blocks fail with `ENOMEM`.
    pub fn fail_blocks(&self, calls: u64) {
        self.0.inside.lock().no_room = calls;
    }

    /// Lets every `nth` request for zeros be answered with "again".
    pub fn zeros_again(&self, nth: u64) {
        self.0.inside.lock().again = nth;
    }

    /// How many pages are translated to blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.0.inside.lock().pages.iter().filter(|to| matches!(to, To::Block(_))).count()
    }

    fn try_load(&self, page: usize) -> Option<Result<u64, Fatal>> {
        let inside = self.0.inside.lock();
        match inside.pages[page] {
            To::Nothing => None,
            To::Block(pool) => Some(Ok(self.0.file.content(pool))),
            To::Zeros => Some(Ok(0)),
            To::Own(value) | To::Guarded(value) => Some(Ok(value)),
            To::Sigbus => Some(Err(Fatal::Bus)),
        }
    }

    fn try_store(&self, page: usize, value: u64) -> Option<Result<(), Fatal>> {
        let mut inside = self.0.inside.lock();
        match inside.pages[page] {
            To::Nothing | To::Zeros | To::Guarded(_) => return None,
            To::Block(pool) => self.0.file.set_content(pool, value),
            To::Own(_) => inside.pages[page] = To::Own(value),
            To::Sigbus => return Some(Err(Fatal::Bus)),
        }
        Some(Ok(()))
    }

    /// Sleeps as the kernel lets who faulted sleep: the sleep begins before anybody hears of the fault.
    fn fault(&self, view: &View, page: usize, write: bool) -> Result<(), Fatal> {
        let at = page as u64 * PAGE;
        if self.0.mode != Mode::Userfault {
            let answer = view.fault(at, write, true);
            return if answer == Answer::Forbidden { Err(Fatal::Segv) } else { Ok(()) };
        }
        let ticket = {
            let mut inside = self.0.inside.lock();
            inside.tickets += 1;
            let ticket = inside.tickets;
            inside.asleep.push((ticket, page as u64));
            ticket
        };
        let answer = view.fault(at, write, false);
        match answer {
            Answer::Wake { at, len } => Table::wake(self, at, len),
            Answer::Forbidden => return Err(Fatal::Segv),
            Answer::Wait => {}
        }
        // In a model only what a fault was parked for: the rest would only multiply the interleavings.
        if view.wants_tending() && (cfg!(not(loom)) || answer == Answer::Wait) {
            view.tend();
        }
        let mut inside = self.0.inside.lock();
        while inside.asleep.iter().any(|(sleeper, _)| *sleeper == ticket) {
            inside = self.0.woken.wait(inside);
        }
        Ok(())
    }
}

impl Table for ToyTable {
    fn mode(&self) -> Mode {
        self.0.mode
    }

    fn block(&self, at: u64, len: u64, pool: PoolOff) -> Result<()> {
        let mut inside = self.0.inside.lock();
        if inside.no_room > 0 {
            inside.no_room -= 1;
            return Err(full());
        }
        for (i, (page, has)) in self.0.with_cells(at, len).enumerate() {
            let pool = pool.0 / PAGE + i as u64;
            assert_eq!(has, Cell::Mapped(pool), "a block is installed where the file has it");
            assert!(!matches!(inside.pages[page], To::Own(_)), "a copy is not lost");
            inside.pages[page] = To::Block(pool);
        }
        Ok(())
    }

    fn zero(&self, at: u64, len: u64) -> Result<Installed> {
        let mut inside = self.0.inside.lock();
        inside.asked += 1;
        // What is to be tried again may have been done in part.
        let again = inside.again > 0 && inside.asked.is_multiple_of(inside.again);
        let done = if again { len / PAGE / 2 * PAGE } else { len };
        let eager = self.0.mode == Mode::Eager;
        for (page, has) in self.0.with_cells(at, done) {
            let replaced = eager && matches!(inside.pages[page], To::Sigbus);
            if inside.pages[page] == To::Nothing || replaced {
                assert!(!matches!(has, Cell::Mapped(_)), "zeros are installed where there are no data");
                inside.pages[page] = To::Zeros;
            }
        }
        Ok(if again { Installed::Again } else { Installed::Done })
    }

    fn zero_huge(&self, at: u64) -> Result<bool> {
        assert_eq!((at + self.0.first * PAGE) % CHUNK_BYTES, 0, "zeros of 2 MiB are aligned");
        let mut inside = self.0.inside.lock();
        for (page, has) in self.0.with_cells(at, CHUNK_BYTES) {
            assert!(!matches!(has, Cell::Mapped(_)), "zeros are installed where there are no data");
            let free = matches!(inside.pages[page], To::Nothing | To::Zeros);
            assert!(free, "nothing is lost under zeros of 2 MiB");
            inside.pages[page] = To::Zeros;
        }
        Ok(true)
    }

    fn copy(&self, at: u64, page: &[u8; 4096], guarded: bool) -> Result<Installed> {
        let mut inside = self.0.inside.lock();
        let value = page.first_chunk().map_or(0, |value| u64::from_le_bytes(*value));
        let to = &mut inside.pages[(at / PAGE) as usize];
        if *to == To::Nothing {
            *to = if guarded { To::Guarded(value) } else { To::Own(value) };
        }
        Ok(Installed::Done)
    }

    fn missing(&self, at: u64, len: u64) -> Result<()> {
        let mut inside = self.0.inside.lock();
        Translations::range(at, len).for_each(|page| inside.pages[page] = To::Nothing);
        Ok(())
    }

    fn beyond(&self, at: u64, len: u64) -> Result<()> {
        let mut inside = self.0.inside.lock();
        Translations::range(at, len).for_each(|page| inside.pages[page] = To::Sigbus);
        Ok(())
    }

    fn wake(&self, at: u64, len: u64) {
        let mut inside = self.0.inside.lock();
        let range = Translations::range(at, len);
        let before = inside.asleep.len();
        inside.asleep.retain(|(_, page)| !range.contains(&(*page as usize)));
        if inside.asleep.len() < before {
            self.0.woken.notify_all();
        }
    }
}

/// A view of a toy file, with its translations, to be loaded from and stored to.
#[derive(Clone, Debug)]
pub struct ToyView {
    /// The view.
    pub view: Arc<View>,
    /// Its translations.
    pub table: ToyTable,
}

impl ToyView {
    /// Maps `pages` of `file`.
    ///
    /// # Errors
    /// Those of [`Attachment::join`].
    pub fn map(
        file: &Arc<ToyFile>,
        pages: std::ops::Range<u64>,
        mode: Mode,
        (writable, private): (bool, bool),
        budget: &Arc<Budget>,
    ) -> Result<Self> {
        let attachment: Attachment = FileSpace::of(file.clone())?;
        let len = (pages.end - pages.start) as usize;
        let inside = Inside {
            pages: vec![To::Nothing; len],
            asleep: Vec::new(),
            tickets: 0,
            no_room: 0,
            again: 0,
            asked: 0,
        };
        let table = ToyTable(Arc::new(Translations {
            file: file.clone(),
            first: pages.start,
            mode,
            inside: Mutex::new(inside),
            woken: Condvar::new(),
        }));
        file.watch(&table.0);
        let range = FileRange { offset: pages.start * PAGE, len: len as u64 * PAGE };
        let address = (1 << 40) + pages.start % SLOT * PAGE;
        let params = ViewParams { range, address, writable, private, tracked: true, budget: budget.clone() };
        let view = attachment.join(params, Box::new(table.clone()))?;
        Ok(Self { view, table })
    }

    /// Unmaps it.
    ///
    /// # Errors
    /// Those of [`View::leave`].
    pub fn leave(&self) -> Result<()> {
        self.view.leave(|| self.table.0.inside.lock().pages.fill(To::Nothing))
    }

    fn index(&self, page: u64) -> usize {
        (page - self.table.0.first) as usize
    }

    /// Loads `page` of the file.
    ///
    /// # Errors
    /// The signal.
    pub fn load(&self, page: u64) -> Result<u64, Fatal> {
        let index = self.index(page);
        loop {
            match self.table.try_load(index) {
                Some(value) => return value,
                None => self.table.fault(&self.view, index, false)?,
            }
        }
    }

    /// Stores to `page` of the file.
    ///
    /// # Errors
    /// The signal.
    pub fn store(&self, page: u64, value: u64) -> Result<(), Fatal> {
        let index = self.index(page);
        if !self.view.params().writable {
            return Err(Fatal::Segv);
        }
        loop {
            match self.table.try_store(index, value) {
                Some(done) => return done,
                None => self.table.fault(&self.view, index, true)?,
            }
        }
    }
}

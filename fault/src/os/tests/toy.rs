//! What does a file look like to tables that know no store?
//!
//! Pages with or without a block of a pool, one lock around all, and a range that is kept out while it changes. The
//! rules are those of the real one: the lock is a leaf; no memory of a mapping is touched under it, and nothing is made
//! missing or huge zeros.

use crate::os::{self, OsMap, Protection, Registration, Wish};
use crate::table::{Answer, Handler, Installed, Mode, Table};
use daxstore::iomap::Memory;
use daxstore::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use daxstore::sync::{Arc, Mutex, thread};
use daxstore::units::PoolOff;
use std::fs::File;
use std::os::unix::fs::FileExt;

pub(super) const PAGE: u64 = 4096;
pub(super) const HUGE: u64 = 2 << 20;

/// A pool in memory, each page of which begins with its number.
pub(super) fn pool(len: u64) -> Memory {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    memory(file, len)
}

/// A pool in `file`.
pub(super) fn memory(file: File, len: u64) -> Memory {
    file.set_len(len).unwrap();
    for page in 0..len / PAGE {
        file.write_all_at(&number(page).to_ne_bytes(), page * PAGE).unwrap();
    }
    Memory { file: Arc::new(file), sync: false, unit: PAGE, huge: HUGE, by_pages: true }
}

/// What the pool's page `page` begins with.
pub(super) fn number(page: u64) -> u64 {
    page | 0xB10C << 40
}

#[derive(Debug)]
struct Pages {
    blocks: Vec<Option<u64>>,
    /// The pages that are kept out: none where it is empty.
    busy: std::ops::Range<u64>,
    next: u64,
}

/// A mapped file.
#[derive(Debug)]
pub(super) struct Toy {
    pub(super) table: Box<dyn Table>,
    memory: Memory,
    pages: Mutex<Pages>,
    /// The file's pages: beyond them is SIGBUS.
    pub(super) size: AtomicU64,
    /// Faults taken, and those that stored.
    pub(super) faults: AtomicU64,
    pub(super) stores: AtomicU64,
    /// How often it was tended.
    pub(super) tended: AtomicU64,
    pub(super) wants: AtomicBool,
    /// Holes are given as 2 MiB.
    pub(super) huge: AtomicBool,
    /// Every fault is answered without anything done.
    pub(super) lazy: AtomicBool,
    /// Every fault is left to somebody else.
    pub(super) deaf: AtomicBool,
}

/// A mapped file, its addresses and its registration.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) registration: Mutex<Option<Registration>>,
    pub(super) toy: Arc<Toy>,
    pub(super) map: OsMap,
}

/// What a test usually wants of a mapping.
pub(super) fn wish(len: u64, mode: Mode) -> Wish {
    Wish { len, congruent_to: 0, protection: Protection::Writable, private: false, mode: Some(mode) }
}

/// Maps a file all holes and registers it.
pub(super) fn mapped(memory: &Memory, wish: &Wish) -> Mapped {
    let (map, toy) = unregistered(memory, wish);
    let registration = os::register(&map, toy.clone()).unwrap();
    Mapped { registration: Mutex::new(Some(registration)), toy, map }
}

/// Maps a file all holes.
pub(super) fn unregistered(memory: &Memory, wish: &Wish) -> (OsMap, Arc<Toy>) {
    let (map, table) = os::map(memory, wish).unwrap();
    let pages = Pages { blocks: vec![None; (map.len / PAGE).min(1 << 20) as usize], busy: 0..0, next: 0 };
    let toy = Toy {
        table,
        memory: memory.clone(),
        pages: Mutex::new(pages),
        size: AtomicU64::new(map.len / PAGE),
        faults: AtomicU64::new(0),
        stores: AtomicU64::new(0),
        tended: AtomicU64::new(0),
        wants: AtomicBool::new(false),
        huge: AtomicBool::new(false),
        lazy: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
    };
    (map, Arc::new(toy))
}

impl Mapped {
    /// The address of the page `page`.
    pub(super) fn page(&self, page: u64) -> usize {
        self.map.base + (page * PAGE) as usize
    }

    /// Takes the mapping away, while somebody may touch it.
    pub(super) fn unregister(&self) {
        let registration = self.registration.lock().take();
        drop(registration);
    }
}

impl Toy {
    /// The pool's page that holds the file's page `page`.
    pub(super) fn block(&self, page: u64) -> Option<u64> {
        self.pages.lock().blocks[page as usize]
    }

    /// Gives `count` pages from `page` on the pool's pages from `block` on, with what they hold.
    pub(super) fn give(&self, page: u64, block: u64, count: u64) {
        let mut pages = self.pages.lock();
        for i in 0..count {
            pages.blocks[(page + i) as usize] = Some(block + i);
        }
        pages.next = pages.next.max(block + count);
    }

    /// Makes `count` pages from `page` missing, and keeps faults out meanwhile; with `punch` they lose their blocks.
    pub(super) fn evict(&self, page: u64, count: u64, punch: bool) {
        while !self.keep_out(page..page + count) {
            thread::yield_now();
        }
        self.table.missing(page * PAGE, count * PAGE).unwrap();
        let mut pages = self.pages.lock();
        for i in 0..if punch { count } else { 0 } {
            pages.blocks[(page + i) as usize] = None;
        }
        pages.busy = 0..0;
        drop(pages);
        self.table.wake(page * PAGE, count * PAGE);
    }

    /// Keeps faults of these pages out, if none are kept out.
    fn keep_out(&self, range: std::ops::Range<u64>) -> bool {
        let mut pages = self.pages.lock();
        let free = pages.busy.is_empty();
        if free {
            pages.busy = range;
        }
        free
    }

    fn populate(&self, pages: &mut Pages, page: u64) {
        let block = pages.next;
        pages.next += 1;
        self.memory.file.write_all_at(&[0; PAGE as usize], block * PAGE).unwrap();
        pages.blocks[page as usize] = Some(block);
    }

    fn hole(&self, page: u64) -> Answer {
        let again = self.table.zero(page * PAGE, PAGE).unwrap() == Installed::Again;
        assert!(!again || self.table.mode() == Mode::Userfault);
        Answer::Wake { at: page * PAGE, len: PAGE }
    }

    /// Tries the huge zero page, if `page` is in a hole and no page is kept out: without the lock, because others'
    /// faults must be taken meanwhile.
    fn huge_hole(&self, page: u64) -> bool {
        const SLOT: u64 = HUGE / PAGE;
        let slot = page - page % SLOT;
        let hole =
            |pages: &Pages| pages.blocks.iter().skip(slot as usize).take(SLOT as usize).all(Option::is_none);
        let wanted = self.huge.load(Ordering::Relaxed) && hole(&self.pages.lock());
        if !wanted || !self.keep_out(slot..slot + SLOT) {
            return false;
        }
        let done = hole(&self.pages.lock()) && self.table.zero_huge(slot * PAGE).unwrap();
        self.pages.lock().busy = 0..0;
        self.table.wake(slot * PAGE, HUGE);
        done
    }

    fn serve(&self, pages: &mut Pages, page: u64, write: bool) -> Answer {
        if page >= self.size.load(Ordering::Relaxed) {
            self.table.beyond(page * PAGE, PAGE).unwrap();
            return Answer::Wake { at: page * PAGE, len: PAGE };
        }
        if pages.blocks[page as usize].is_none() && write {
            self.populate(pages, page);
        }
        let Some(block) = pages.blocks[page as usize] else { return self.hole(page) };
        let mut count = 1;
        let is_next = |count| pages.blocks.get((page + count) as usize) == Some(&Some(block + count));
        while is_next(count) && !pages.busy.contains(&(page + count)) {
            count += 1;
        }
        self.table.block(page * PAGE, count * PAGE, PoolOff(block * PAGE)).unwrap();
        Answer::Wake { at: page * PAGE, len: count * PAGE }
    }
}

impl Handler for Toy {
    fn fault(&self, at: u64, write: bool, may_wait: bool) -> Answer {
        self.faults.fetch_add(1, Ordering::SeqCst);
        self.stores.fetch_add(u64::from(write), Ordering::SeqCst);
        if self.table.mode() == Mode::Signal {
            // More than a thread's alternate stack holds.
            std::hint::black_box([write; 64 << 10]);
        }
        if self.deaf.load(Ordering::SeqCst) {
            return Answer::Wait;
        }
        if self.lazy.load(Ordering::SeqCst) {
            return Answer::Wake { at: at & !(PAGE - 1), len: PAGE };
        }
        if !write && self.huge_hole(at / PAGE) {
            return Answer::Wake { at: at & !(HUGE - 1), len: HUGE };
        }
        loop {
            let mut pages = self.pages.lock();
            match (pages.busy.contains(&(at / PAGE)), may_wait) {
                (false, _) => return self.serve(&mut pages, at / PAGE, write),
                (true, false) => return Answer::Wait,
                (true, true) => drop(pages),
            }
            thread::yield_now();
        }
    }

    fn tend(&self) {
        self.wants.store(false, Ordering::SeqCst);
        self.evict(0, 1, false);
        self.tended.fetch_add(1, Ordering::SeqCst);
    }

    fn wants_tending(&self) -> bool {
        self.wants.load(Ordering::SeqCst)
    }
}

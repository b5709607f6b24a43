//! Is what every view shows what the file has, after each step of any history?
//!
//! The model is an array of what each page holds, and for private views of what each page held when it was touched.

use super::{PRIVATE, READ_ONLY, SHARED};
use crate::table::Mode;
use crate::toy::{Cell, Fatal, PAGE, SLOT, ToyFile, ToyView};
use crate::{Budget, Entry, What};
use daxstore::iomap::FileRange;
use daxstore::sync::Arc;
use proptest::prelude::*;

const SLOTS: u64 = 3;
const PAGES: u64 = SLOTS * SLOT;
/// Of the pool: what was shared is never free again.
const CHUNKS: u64 = 2 * SLOTS + 17;
/// Pages that one unshare has copied at most.
const UNSHARED: u64 = 64;

#[derive(Clone, Debug)]
enum Op {
    Load(usize, u64),
    Store(usize, u64),
    Write(u64),
    Punch(u64, u64),
    Resize(u64),
    Defragment(u64),
    Evict(usize, u64, u64),
    Prefault(usize, u64, u64, bool),
    Sync(usize, u64, u64),
    NoRoom(usize),
    /// Another file gets what the pages hold.
    Share(u64, u64),
    /// So many pages from the first become what those from the second are; with `true` if they hold the same.
    Reflink(u64, u64, u64, bool),
    Unshare(u64, u64),
}

/// Pages near the edges of slots and of what is placed beforehand, and others.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..SLOTS, 0..4_u64).prop_map(|(slot, page)| slot * SLOT + page),
        (1..=SLOTS, 1..4_u64).prop_map(|(slot, page)| slot * SLOT - page),
        0..PAGES,
    ]
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (page(), prop_oneof![1..4_u64, 1..PAGES]).prop_map(|(from, len)| (from, len.min(PAGES - from)))
}

fn op() -> impl Strategy<Value = Op> {
    let view = 0..VIEWS.len();
    prop_oneof![
        6 => (view.clone(), page()).prop_map(|(view, page)| Op::Load(view, page)),
        6 => (view.clone(), page()).prop_map(|(view, page)| Op::Store(view, page)),
        3 => page().prop_map(Op::Write),
        2 => range().prop_map(|(from, len)| Op::Punch(from, len)),
        1 => page().prop_map(Op::Resize),
        1 => (0..SLOTS).prop_map(Op::Defragment),
        1 => (view.clone(), range()).prop_map(|(view, (from, len))| Op::Evict(view, from, len)),
        1 => (view.clone(), range(), any::<bool>())
            .prop_map(|(view, (from, len), write)| Op::Prefault(view, from, len, write)),
        2 => (view.clone(), range()).prop_map(|(view, (from, len))| Op::Sync(view, from, len)),
        1 => view.prop_map(Op::NoRoom),
        2 => range().prop_map(|(from, len)| Op::Share(from, len)),
        2 => (page(), page(), 1..40_u64, any::<bool>())
            .prop_map(|(to, from, len, same)| Op::Reflink(to, from, len, same)),
        1 => range().prop_map(|(from, len)| Op::Unshare(from, len)),
    ]
}

/// How each view of the model is made: mode, access, pages.
const VIEWS: [(Mode, (bool, bool), std::ops::Range<u64>); 5] = [
    (Mode::Userfault, SHARED, 0..PAGES),
    (Mode::Signal, SHARED, SLOT - 7..2 * SLOT + 9),
    (Mode::Userfault, READ_ONLY, 3..PAGES),
    (Mode::Userfault, PRIVATE, 0..PAGES),
    (Mode::Signal, PRIVATE, SLOT..PAGES),
];

struct World {
    file: Arc<ToyFile>,
    views: Vec<ToyView>,
    /// What `read_at` of each page gives.
    data: Vec<u64>,
    /// What was stored to each page through mappings and is to be durable after a sync.
    copies: Vec<Vec<Option<u64>>>,
    size: u64,
    next: u64,
}

impl World {
    fn new(pieces: &[(u64, u64, u64)]) -> Self {
        let file = ToyFile::new(SLOTS, CHUNKS);
        let mut data = vec![0; PAGES as usize];
        for (from, len, pool) in pieces {
            for i in 0..*len {
                let (page, pool) = (from + i, pool + i);
                if page < PAGES && matches!(file.cell(page), Cell::Hole) && pool < SLOTS * SLOT {
                    let taken = (0..PAGES).any(|other| file.cell(other) == Cell::Mapped(pool));
                    if !taken {
                        file.place(page, pool, page + 1);
                        data[page as usize] = page + 1;
                    }
                }
            }
        }
        let budget = Budget::new(40);
        let map = |(mode, access, pages)| ToyView::map(&file, pages, mode, access, &budget).unwrap();
        let views: Vec<_> = VIEWS.into_iter().map(map).collect();
        views[0].table.zeros_again(3);
        let copies = vec![vec![None; PAGES as usize]; views.len()];
        Self { file, views, data, copies, size: PAGES, next: 1000 }
    }

    fn shows(&self, view: usize, page: u64) -> bool {
        VIEWS[view].2.contains(&page)
    }

    fn value(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What a load of the view gives; a touch of a private one keeps it.
    fn expect(&mut self, view: usize, page: u64) -> Result<u64, Fatal> {
        if page >= self.size {
            return Err(Fatal::Bus);
        }
        let data = self.data[page as usize];
        if VIEWS[view].1 != PRIVATE {
            return Ok(data);
        }
        Ok(*self.copies[view][page as usize].get_or_insert(data))
    }

    fn clipped(&self, view: usize, from: u64, len: u64) -> FileRange {
        let pages = &VIEWS[view].2;
        let (start, end) = (from.max(pages.start), (from + len).min(pages.end).min(self.size));
        FileRange { offset: start * PAGE, len: end.saturating_sub(start) * PAGE }
    }

    fn touch(&mut self, view: usize, page: u64, store: bool) {
        if !self.shows(view, page) {
            return;
        }
        if !store {
            assert_eq!(self.views[view].load(page), self.expect(view, page), "load of {page} by {view}");
            return;
        }
        let value = self.value();
        let expected = match self.expect(view, page) {
            _ if !VIEWS[view].1.0 => Err(Fatal::Segv),
            Ok(_) => Ok(()),
            Err(signal) => Err(signal),
        };
        assert_eq!(self.views[view].store(page, value), expected, "store to {page} by {view}");
        match VIEWS[view].1 {
            _ if expected.is_err() => {}
            PRIVATE => self.copies[view][page as usize] = Some(value),
            _ => self.data[page as usize] = value,
        }
    }

    fn change(&mut self, op: &Op) {
        match *op {
            Op::Write(page) if page < self.size => {
                let value = self.value();
                self.file.write(page, value).unwrap();
                self.data[page as usize] = value;
            }
            Op::Punch(from, len) => {
                self.file.punch(from..from + len).unwrap();
                (from..from + len).for_each(|page| self.data[page as usize] = 0);
            }
            Op::Resize(size) => {
                self.file.resize(size).unwrap();
                self.size = size;
                for page in size..PAGES {
                    self.data[page as usize] = 0;
                    self.copies.iter_mut().for_each(|copies| copies[page as usize] = None);
                }
            }
            Op::Defragment(slot) => _ = self.file.defragment(slot).unwrap(),
            Op::Share(from, len) => {
                self.file.share(from..from + len).unwrap();
                self.is_durable(from..from + len);
            }
            Op::Reflink(to, from, len, same) => self.reflink(to, from, len, same),
            Op::Unshare(from, len) => {
                let pages = from..(from + len.min(UNSHARED));
                self.file.unshare(pages.clone()).unwrap();
                assert!(pages.into_iter().all(|page| !self.file.is_shared(page)), "from {from}");
            }
            _ => {}
        }
    }

    /// What others got, a crash must not take from them.
    fn is_durable(&self, pages: std::ops::Range<u64>) {
        for page in pages.start..pages.end.min(self.size) {
            assert_eq!(self.file.durable(page), self.data[page as usize], "page {page}");
        }
    }

    fn reflink(&mut self, to: u64, from: u64, len: u64, same: bool) {
        let len = len.min(self.size.saturating_sub(to.max(from))).min(to.abs_diff(from));
        if len == 0 {
            return;
        }
        let (target, source) = (to as usize..(to + len) as usize, from as usize..(from + len) as usize);
        let equal = self.data[target] == self.data[source.clone()];
        assert_eq!(self.file.reflink(from..from + len, to, same).unwrap(), equal || !same);
        if !same || equal {
            self.data.copy_within(source, to as usize);
            self.is_durable(from..from + len);
            self.is_durable(to..to + len);
        }
    }

    fn call(&mut self, op: &Op) {
        match *op {
            Op::Evict(view, from, len) => {
                self.views[view].view.evict(self.clipped(view, from, len)).unwrap();
            }
            Op::Prefault(view, from, len, write) => self.prefault(view, from, len, write),
            Op::Sync(view, from, len) => {
                let range = FileRange { offset: from * PAGE, len: len * PAGE };
                self.views[view].view.sync(range).unwrap();
                let synced = from..(from + len).min(self.size);
                synced
                    .for_each(|page| assert_eq!(self.file.durable(page), self.data[page as usize], "{page}"));
            }
            Op::NoRoom(view) => self.views[view].table.fail_blocks(1),
            _ => {}
        }
    }

    fn prefault(&mut self, view: usize, from: u64, len: u64, write: bool) {
        let range = self.clipped(view, from, len.min(64));
        let private = VIEWS[view].1 == PRIVATE;
        let write = write && VIEWS[view].1.0;
        let done = self.views[view].view.prefault(range, write);
        if let Err(error) = done {
            assert_eq!(error.errno(), libc::ENOMEM, "{error}");
        }
        if private {
            let copied = |entry: &Entry| entry.what == What::Copy;
            for entry in self.views[view].view.resolved(range).into_iter().filter(copied) {
                let pages = entry.range.offset / PAGE..entry.range.end() / PAGE;
                pages.for_each(|page| _ = self.expect(view, page).unwrap());
            }
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Load(view, page) => self.touch(view, page, false),
            Op::Store(view, page) => self.touch(view, page, true),
            _ => {
                self.change(op);
                self.call(op);
            }
        }
        self.check();
    }

    /// What is cheap to see after each step.
    fn check(&self) {
        let mut page = self.next * 37 % PAGES;
        for _ in 0..16 {
            assert_eq!(self.file.read_page(page), self.data[page as usize], "page {page}");
            page = (page + 97) % PAGES;
        }
        for (view, toy) in self.views.iter().enumerate() {
            let range = FileRange { offset: 0, len: PAGES * PAGE };
            let entries = toy.view.resolved(range);
            assert!(entries.iter().all(|entry| self.allowed(view, entry)), "view {view}: {entries:?}");
        }
    }

    fn allowed(&self, view: usize, entry: &Entry) -> bool {
        let private = VIEWS[view].1 == PRIVATE;
        let end = entry.range.end() / PAGE;
        match entry.what {
            What::Block(_) => !private && end <= self.size && !self.can_store_to_others(view, entry),
            What::Zero { .. } => !private && end <= self.size,
            What::Copy => private && end <= self.size,
            What::Beyond => entry.range.offset / PAGE >= self.size,
            What::Guarded => VIEWS[view].1 == SHARED && end <= self.size,
            What::Failed => false,
        }
    }

    /// Whether a store by `view` to a block that `entry` maps would be seen by who else has it.
    fn can_store_to_others(&self, view: usize, entry: &Entry) -> bool {
        let mut pages = entry.range.offset / PAGE..entry.range.end() / PAGE;
        VIEWS[view].1 == SHARED && pages.any(|page| self.file.is_shared(page))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_show_what_the_file_has(
        pieces in prop::collection::vec((page(), 1..600_u64, 0..SLOTS * SLOT), 0..4),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut world = World::new(&pieces);
        ops.iter().for_each(|op| world.step(op));
        for (view, (_, _, pages)) in VIEWS.iter().enumerate() {
            pages.clone().step_by(5).for_each(|page| world.touch(view, page, false));
        }
        world.views.iter().for_each(|view| view.leave().unwrap());
    }
}

/// Loads and stores of shared pages by views that store and views that read.
fn shared_pages() {
    let mut world = World::new(&[(0, 8, 0)]);
    let step = |world: &mut World, ops: &[Op]| ops.iter().for_each(|op| world.step(op));
    step(&mut world, &[Op::Load(2, 5), Op::Share(0, 8), Op::Load(0, 4), Op::Load(2, 4), Op::Store(0, 4)]);
    step(&mut world, &[Op::Load(2, 4), Op::Reflink(600, 0, 8, false), Op::Load(2, 602), Op::Store(0, 602)]);
    step(&mut world, &[Op::Load(2, 602), Op::Load(2, 2), Op::Unshare(0, 8), Op::Store(0, 2), Op::Load(2, 2)]);
}

#[test]
fn pages_are_shared_stored_to_and_shared_again() {
    shared_pages();
}

#[cfg(feature = "mutations")]
#[test]
fn broken_rules_of_sharing_are_noticed() {
    use crate::mutation::{self, Mutation};
    for rule in [Mutation::StoreShared, Mutation::KeepZeros] {
        mutation::set(Some(rule));
        let noticed = std::panic::catch_unwind(shared_pages);
        mutation::set(None);
        assert!(noticed.is_err(), "{rule:?} goes unnoticed");
    }
}

//! Does a thread find in its own pages what it left there?

use super::common::{PAGE, touch};
use super::world::{MAIN, OWNERS, Random, World, tag};
use daxstore::AllocateMode;
use daxstore_fault::Mode;

/// What the first and the last word of each page is.
type Ledger = Vec<(u64, u64)>;

struct Owner<'a> {
    world: &'a World,
    me: u64,
    random: Random,
    seq: u64,
    ledger: Ledger,
}

/// Runs owner `me` until the end, and then looks at all its pages.
pub fn run(world: &World, me: u64) {
    let random = Random::new(world.config.seed * 100 + me);
    let ledger = vec![(0, 0); (world.low() / PAGE) as usize];
    let mut owner = Owner { world, me, random, seq: 0, ledger };
    while world.goes_on() {
        owner.step();
    }
    if world.failures().is_empty() {
        owner.check_all();
    }
    world.done(me as usize);
}

impl Owner<'_> {
    fn tag(&mut self) -> u64 {
        self.seq += 1;
        tag(MAIN, self.me, self.seq)
    }

    /// A page of the unit at `unit`: often the first or the last.
    fn page_in(&mut self, unit: u64) -> u64 {
        let pages = self.world.config.unit / PAGE;
        unit + PAGE
            * match self.random.below(4) {
                0 => 0,
                1 => pages - 1,
                _ => self.random.below(pages),
            }
    }

    fn own_unit(&mut self) -> u64 {
        let units = self.world.low_units() / OWNERS;
        // Half of the time the same few, so that everything meets there.
        let few = if self.random.once_in(2) { units.min(8) } else { units };
        (self.random.below(few) * OWNERS + self.me) * self.world.config.unit
    }

    fn step(&mut self) {
        let unit = self.own_unit();
        let page = self.page_in(unit);
        let op = self.random.below(24);
        match op {
            0..6 => self.store(page),
            6..8 => self.punch(unit, page),
            8 => self.zero(unit, page),
            9 => self.zero_half(page),
            10..13 => self.write(page),
            13..15 => self.write_run(unit, page),
            15..17 => self.copy_by_write(page),
            17 => self.copy_by_read(page),
            18 => self.load_by_kernel(page),
            19..21 => self.store_by_kernel(page),
            21 => self.preallocate(unit, page),
            22 => self.store_by_call(page),
            _ => self.check(page, "idle"),
        }
    }

    fn say(&self, doing: &'static str, at: u64) {
        self.world.step(self.me as usize, doing, at);
    }

    fn at(&mut self, page: u64) -> &mut (u64, u64) {
        &mut self.ledger[(page / PAGE) as usize]
    }

    fn forget(&mut self, unit: u64) {
        let first = (unit / PAGE) as usize;
        let pages = (self.world.config.unit / PAGE) as usize;
        self.ledger[first..first + pages].fill((0, 0));
    }

    /// Looks at a page by a mapping or by a read.
    fn check(&mut self, page: u64, after: &'static str) {
        self.say(after, page);
        let expected = *self.at(page);
        let found = if self.random.once_in(4) {
            let mut bytes = vec![0; PAGE as usize];
            self.world.file.read_exact_at(&mut bytes, page).unwrap();
            let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
            (word(0), word(PAGE as usize - 8))
        } else {
            let place = self.world.place(&mut self.random, page, false);
            let last = place + PAGE as usize - 8;
            (self.world.load(page, place, after), self.world.load(page, last, after))
        };
        if found != expected {
            let me = self.me;
            self.world.fail(format!(
                "owner {me} after {after} at {page:#x}: {found:x?} where {expected:x?} was left"
            ));
        }
    }

    fn store(&mut self, page: u64) {
        self.say("store", page);
        let tags = (self.tag(), self.tag());
        for (at, tag) in [(page, tags.0), (page + PAGE - 8, tags.1)] {
            let place = self.world.place(&mut self.random, at, true);
            if let Err(raised) = touch::store(place, tag) {
                self.world.fail(format!("a store to {at:#x} raised {raised:?}"));
            }
        }
        *self.at(page) = tags;
        self.check(page, "store");
    }

    fn store_by_call(&mut self, page: u64) {
        self.say("atomic", page);
        let tag = self.tag();
        let map = &self.world.maps[0];
        map.write(page, &tag.to_ne_bytes()).unwrap();
        map.flush(page, 8).unwrap();
        self.at(page).0 = tag;
        self.check(page, "atomic");
    }

    fn punch(&mut self, unit: u64, page: u64) {
        self.say("punch", unit);
        self.world.file.allocate(unit, self.world.config.unit, AllocateMode::Punch).unwrap();
        self.forget(unit);
        match self.random.below(3) {
            0 => self.check(page, "punch"),
            1 => self.store(page),
            _ => {}
        }
    }

    fn zero(&mut self, unit: u64, page: u64) {
        self.say("zero", unit);
        self.world.file.allocate(unit, self.world.config.unit, AllocateMode::Zero).unwrap();
        self.forget(unit);
        self.check(page, "zero");
    }

    fn zero_half(&mut self, page: u64) {
        self.say("zero half", page);
        let mode = if self.random.once_in(2) { AllocateMode::Zero } else { AllocateMode::Punch };
        let second = self.random.once_in(2);
        let at = page + if second { PAGE / 2 } else { 0 };
        self.world.file.allocate(at, PAGE / 2, mode).unwrap();
        let words = self.at(page);
        *(if second { &mut words.1 } else { &mut words.0 }) = 0;
        self.check(page, "zero half");
    }

    fn preallocate(&mut self, unit: u64, page: u64) {
        self.say("preallocate", unit);
        self.world.file.allocate(unit, self.world.config.unit, AllocateMode::KeepSize).unwrap();
        self.check(page, "preallocate");
    }

    /// Writes a word, or a page.
    fn write(&mut self, page: u64) {
        self.say("write", page);
        let (first, last) = (self.tag(), self.tag());
        if self.random.once_in(2) {
            self.world.file.write_all_at(&first.to_ne_bytes(), page).unwrap();
            self.at(page).0 = first;
        } else {
            self.world.file.write_all_at(&page_of(first, last), page).unwrap();
            *self.at(page) = (first, last);
        }
        self.check(page, "write");
    }

    /// Writes some pages at once.
    fn write_run(&mut self, unit: u64, page: u64) {
        self.say("write a run", page);
        let end = (page + PAGE * (1 + self.random.below(200))).min(unit + self.world.config.unit);
        let mut bytes = Vec::new();
        for at in (page..end).step_by(PAGE as usize) {
            let tags = (self.tag(), self.tag());
            bytes.extend(page_of(tags.0, tags.1));
            *self.at(at) = tags;
        }
        self.world.file.write_all_at(&bytes, page).unwrap();
        self.check(page, "write a run");
    }

    /// Writes a page from a mapping of another page, perhaps of a hole, perhaps of itself.
    fn copy_by_write(&mut self, page: u64) {
        let unit = self.own_unit();
        let source = if self.random.once_in(4) { page } else { self.page_in(unit) };
        self.say("write from a mapping", page);
        let place = self.world.place(&mut self.random, source, false);
        self.world.file.write_all_at(touch::bytes(place, PAGE as usize), page).unwrap();
        *self.at(page) = *self.at(source);
        self.check(page, "write from a mapping");
    }

    /// Reads a page into a mapping of another page.
    fn copy_by_read(&mut self, page: u64) {
        let unit = self.own_unit();
        let source = self.page_in(unit);
        self.say("read into a mapping", page);
        let place = self.world.place(&mut self.random, page, true);
        self.world.file.read_exact_at(touch::bytes_mut(place, PAGE as usize), source).unwrap();
        *self.at(page) = *self.at(source);
        self.check(page, "read into a mapping");
    }

    /// Whether a call of the kernel may refuse the address.
    fn may_refuse(&self) -> bool {
        self.world.config.mode == Mode::Signal || self.world.config.mixed
    }

    /// `pwrite(2)` from a mapping.
    fn load_by_kernel(&mut self, page: u64) {
        use std::os::unix::fs::FileExt;
        self.say("kernel load", page);
        let place = self.world.place(&mut self.random, page, false);
        match touch::pwrite(&self.world.foreign, place, 8, self.me * PAGE) {
            Ok(8) => {}
            Err(libc::EFAULT) if self.may_refuse() => return,
            other => return self.world.fail(format!("a pwrite from {page:#x}: {other:?}")),
        }
        let mut word = [0; 8];
        self.world.foreign.read_exact_at(&mut word, self.me * PAGE).unwrap();
        let expected = self.at(page).0;
        if u64::from_ne_bytes(word) != expected {
            self.world.fail(format!("a kernel load of {page:#x}: {word:x?} where {expected:x} was left"));
        }
    }

    /// `pread(2)` into a mapping.
    fn store_by_kernel(&mut self, page: u64) {
        use std::os::unix::fs::FileExt;
        self.say("kernel store", page);
        let tag = self.tag();
        self.world.foreign.write_all_at(&tag.to_ne_bytes(), self.me * PAGE).unwrap();
        let place = self.world.place(&mut self.random, page, true);
        match touch::pread(&self.world.foreign, place, 8, self.me * PAGE) {
            Ok(8) => self.at(page).0 = tag,
            Err(libc::EFAULT) if self.may_refuse() => {}
            other => self.world.fail(format!("a pread into {page:#x}: {other:?}")),
        }
        self.check(page, "kernel store");
    }

    fn check_all(&mut self) {
        for page in (0..self.world.low()).step_by(PAGE as usize) {
            if self.world.owner_of(page) == self.me {
                self.check(page, "everything");
            }
        }
    }
}

/// A page with these words at its ends.
pub fn page_of(first: u64, last: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    page[..8].copy_from_slice(&first.to_ne_bytes());
    page[PAGE as usize - 8..].copy_from_slice(&last.to_ne_bytes());
    page
}

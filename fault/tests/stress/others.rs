//! What happens around the owners: the file's end moves, blocks are taken by another file, mappings come and go.

use super::common::{PAGE, address, touch};
use super::owner::page_of;
use super::world::{MAIN, OWNERS, PRIVATE, Random, THIEF, World, tag};
use daxstore::AllocateMode;
use daxstore_fault::{Advice, MapOptions};
use std::collections::HashMap;

/// Loads any page by any mapping, or reads it.
pub fn reader(world: &World, who: usize) {
    let mut random = Random::new(world.config.seed * 100 + who as u64);
    while world.goes_on() {
        let page = random.below(world.len() / PAGE) * PAGE;
        let at = page + if random.once_in(2) { 0 } else { PAGE - 8 };
        world.step(who, "load", at);
        let word = if random.once_in(4) {
            let mut word = [0; 8];
            match world.file.read_at(&mut word, at) {
                Ok(8) => u64::from_ne_bytes(word),
                Ok(_) if at >= world.low() => 0,
                other => return world.fail(format!("a read at {at:#x}: {other:?}")),
            }
        } else {
            match touch::load(world.place(&mut random, at, false)) {
                Ok(word) => word,
                Err(raised) if raised.signal == libc::SIGBUS && at >= world.low() => 0,
                Err(raised) => return world.fail(format!("a load of {at:#x} raised {raised:?}")),
            }
        };
        if !world.belongs(at, word) {
            world.fail(format!("reader {who} found {word:#x} at {at:#x}"));
        }
    }
    world.done(who);
}

struct Tail<'a> {
    world: &'a World,
    random: Random,
    seq: u64,
    size: u64,
    /// The words that are not zero.
    words: HashMap<u64, u64>,
}

/// Moves the end of the file, and is the owner of what lies above the others' pages.
pub fn tail(world: &World, who: usize) {
    let random = Random::new(world.config.seed * 100 + who as u64);
    let mut tail = Tail { world, random, seq: 0, size: world.len(), words: HashMap::new() };
    while world.goes_on() {
        world.step(who, "set_len", tail.size);
        tail.resize();
        world.step(who, "touch the tail", tail.size);
        for _ in 0..4 {
            tail.store();
        }
        tail.beyond();
        if tail.random.once_in(4) {
            world.step(who, "move the tail", tail.size);
            tail.shift();
        }
        if tail.random.once_in(4) {
            world.step(who, "write past the end", tail.size);
            tail.write_past_end();
        }
    }
    world.file.set_len(world.len()).unwrap();
    world.done(who);
}

impl Tail<'_> {
    fn resize(&mut self) {
        let (low, len) = (self.world.low(), self.world.len());
        let mut size = low + 8 * self.random.below((len - low) / 8 + 1);
        if self.random.once_in(2) {
            size -= size % PAGE;
        }
        // What is stored behind the end, in the page that holds it, is nobody's.
        if !self.size.is_multiple_of(PAGE) && self.random.once_in(2) {
            let last = self.size.next_multiple_of(PAGE) - 8;
            let place = self.world.place(&mut self.random, last, true);
            if touch::store(place, tag(MAIN, OWNERS, 77)).is_err() {
                self.world.fail(format!("a store to {last:#x} in the page of the end raised a signal"));
            }
        }
        self.world.file.set_len(size).unwrap();
        self.size = size;
        self.words.retain(|at, _| *at < size);
    }

    /// Takes pages out of the tail, or puts some in: the words move with them.
    fn shift(&mut self) {
        let (low, len) = (self.world.low(), self.world.len());
        let at = low + PAGE * self.random.below((self.size - low) / PAGE + 1);
        let by = PAGE * (1 + self.random.below(16));
        let words = std::mem::take(&mut self.words);
        if self.random.once_in(2) && at + by < self.size {
            self.world.file.allocate(at, by, AllocateMode::Collapse).unwrap();
            self.size -= by;
            let stay = words.into_iter().filter(|(word, _)| !(at..at + by).contains(word));
            self.words = stay.map(|(word, tag)| (if word < at { word } else { word - by }, tag)).collect();
        } else if at < self.size && self.size + by <= len {
            self.world.file.allocate(at, by, AllocateMode::Insert).unwrap();
            self.size += by;
            let moved = words.into_iter().map(|(word, tag)| (if word < at { word } else { word + by }, tag));
            self.words = moved.collect();
        } else {
            self.words = words;
        }
    }

    fn any_word(&mut self) -> Option<u64> {
        let low = self.world.low();
        let words = (self.size - low) / 8;
        if words == 0 {
            return None;
        }
        let at = low + 8 * self.random.below(words);
        Some(at - at % PAGE + if self.random.once_in(2) { 0 } else { at % PAGE })
    }

    fn store(&mut self) {
        let Some(at) = self.any_word() else { return };
        let at = if self.random.once_in(2) { at } else { (at - at % PAGE + PAGE - 8).min(self.size - 8) };
        self.check(at);
        self.seq += 1;
        let word = tag(MAIN, OWNERS, self.seq);
        let place = self.world.place(&mut self.random, at, true);
        if let Err(raised) = touch::store(place, word) {
            return self.world.fail(format!("a store to {at:#x}, below {:#x}, raised {raised:?}", self.size));
        }
        self.words.insert(at, word);
        self.check(at);
        if let Some(other) = self.any_word() {
            self.check(other);
        }
    }

    fn check(&mut self, at: u64) {
        let expected = self.words.get(&at).copied().unwrap_or(0);
        let place = self.world.place(&mut self.random, at, false);
        let found = self.world.load(at, place, "tail");
        if found != expected {
            self.world.fail(format!(
                "the tail at {at:#x}: {found:#x} where {expected:#x} was left, size {:#x}",
                self.size
            ));
        }
    }

    /// The page behind the end raises SIGBUS, by loads and stores.
    fn beyond(&mut self) {
        let at = self.size.next_multiple_of(PAGE);
        if at >= self.world.len() {
            return;
        }
        let write = self.random.once_in(2);
        let place = self.world.place(&mut self.random, at, write);
        let raised = if write { touch::store(place, 1) } else { touch::load(place).map(drop) };
        match raised {
            Err(raised) if raised.signal == libc::SIGBUS => {}
            other => self.world.fail(format!("a touch of {at:#x} behind {:#x}: {other:?}", self.size)),
        }
    }

    fn write_past_end(&mut self) {
        let page = self.size.next_multiple_of(PAGE) + PAGE * self.random.below(4);
        if page + PAGE > self.world.len() {
            return;
        }
        self.seq += 1;
        let word = tag(MAIN, OWNERS, self.seq);
        self.world.file.write_all_at(&page_of(word, word), page).unwrap();
        self.size = page + PAGE;
        self.words.insert(page, word);
        self.words.insert(page + PAGE - 8, word);
        self.check(page);
        self.check(page + PAGE - 8);
    }
}

/// Takes the blocks that others gave up, fills them, and looks after a while whether they are as it left them.
pub fn thief(world: &World, who: usize) {
    let mut random = Random::new(world.config.seed * 100 + who as u64);
    let mut seq = 0;
    while world.goes_on() {
        let file = world.open_thief();
        let pages = 1 + random.below(world.len() / PAGE / 2);
        seq += 1;
        let word = tag(THIEF, 0, seq);
        let page: Vec<u8> = word.to_ne_bytes().repeat(PAGE as usize / 8);
        world.step(who, "take blocks", pages);
        file.write_all_at(&page.repeat(pages as usize), 0).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(random.below(20)));
        world.step(who, "look at the blocks", pages);
        let mut found = vec![0; PAGE as usize];
        let map = MapOptions::new().mode(world.config.mode).map(&file, 0, pages * PAGE).unwrap();
        for i in 0..pages {
            if random.once_in(4) {
                map.read(i * PAGE, &mut found).unwrap();
            } else {
                file.read_exact_at(&mut found, i * PAGE).unwrap();
            }
            if found != page {
                let at = found.chunks(8).position(|other| other != word.to_ne_bytes());
                let bad = at.map(|at| found[at * 8..at * 8 + 8].to_vec());
                world.fail(format!("the thief's page {i} of {word:#x} holds {bad:x?} in word {at:?}"));
                break;
            }
        }
        world.step(who, "give blocks", pages);
        drop(map);
        match random.below(3) {
            0 => file.set_len(0).unwrap(),
            1 => file.allocate(0, pages * PAGE, AllocateMode::Punch).unwrap(),
            _ => {
                drop(file);
                world.pool.store.remove_file("thief").unwrap();
            }
        }
    }
    world.done(who);
}

/// Maps some of the file, looks, and goes.
pub fn visitor(world: &World, who: usize) {
    let mut random = Random::new(world.config.seed * 100 + who as u64);
    let mut seq = 0;
    while world.goes_on() {
        let pages = world.low() / PAGE;
        let first = random.below(pages);
        let count = 1 + random.below(pages - first);
        let private = random.once_in(2);
        world.step(who, "map", first * PAGE);
        let options = MapOptions::new().write(private || random.once_in(2)).private(private);
        let options = options.mode(world.config.mode).flushed_by_user(random.once_in(2));
        let map = options.map(&world.file, first * PAGE, count * PAGE).unwrap();
        for _ in 0..random.below(8) {
            let page = random.below(count) * PAGE;
            let file_page = first * PAGE + page;
            world.step(who, "look", file_page);
            let place = address(&map, page);
            let word = world.load(file_page, place, "visitor");
            if !world.belongs(file_page, word) && word >> 56 != PRIVATE {
                world.fail(format!("a visitor found {word:#x} at {file_page:#x}"));
            }
            if private {
                seq += 1;
                let own = tag(PRIVATE, 0, seq);
                let _ = touch::store(place, own);
                let found = world.load(file_page, place, "visitor");
                if found != own {
                    world.fail(format!("a private page at {file_page:#x} holds {found:#x}, not {own:#x}"));
                }
            }
        }
        world.step(who, "unmap", first * PAGE);
        drop(map);
    }
    world.done(who);
}

/// Gives translations up and installs them, syncs, pins, moves blocks together.
pub fn keeper(world: &World, who: usize) {
    let mut random = Random::new(world.config.seed * 100 + who as u64);
    while world.goes_on() {
        let map = &world.maps[random.below(world.maps.len() as u64) as usize];
        let low = world.low() - map.file_range().offset;
        let at = random.below(low / PAGE) * PAGE;
        let len = (1 + random.below((low - at) / PAGE)) * PAGE;
        match random.below(9) {
            8 => {
                world.step(who, "defrag", at);
                world.file.defrag_range(at, len).unwrap();
            }
            0 => {
                world.step(who, "sync", at);
                map.sync(at, len).unwrap();
            }
            1 => {
                world.step(who, "sync all", 0);
                world.file.sync_all().unwrap();
            }
            2..4 => {
                world.step(who, "evict", at);
                map.advise(at, len, Advice::DontNeed).unwrap();
            }
            4 => {
                world.step(who, "prefault", at);
                // A punch that comes between may let the system's part fail.
                let _ = map.prefault(at, len.min(64 * PAGE), false);
            }
            5 => {
                world.step(who, "pin", at);
                let pin = map.pin(at, len.min(16 * PAGE));
                std::thread::sleep(std::time::Duration::from_millis(random.below(3)));
                drop(pin);
            }
            6 => {
                world.step(who, "madvise", at);
                // Of what the user of a mapping may do by itself.
                touch::madvise(address(map, at), len as usize, libc::MADV_DONTNEED).unwrap();
            }
            _ => std::thread::sleep(std::time::Duration::from_millis(random.below(10))),
        }
    }
    world.done(who);
}

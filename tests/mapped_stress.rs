//! Is no store lost, and no block another file's, while faults meet writes, truncates and punches?
//!
//! A toy address space with the turns of a real one; its translations are entries of a table, and stores through them go
//! to the pool's file at once, under the table's lock, as a processor stores through a page table. Each thread that
//! stores has a word of its own in each block and knows what it must find there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::iomap::{AddressSpace, FaultOps, FileRange, Memory, Placement};
use daxstore::{AllocateMode, File, OpenOptions, State, Store, StoreOptions};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

const BLOCK: u64 = 4096;
const CHUNK: u64 = 2 << 20;
/// Blocks of the file that nobody takes away; as many above them come and go.
const KEPT: u64 = 640;
const STORES: u64 = 40_000;
const STORERS: u64 = 2;
/// Bytes at the start of a block that are stored through mappings; the others are written.
const WORDS: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Load,
    Store,
    Allocate,
    Invalidate,
}

impl Turn {
    fn excludes(self, other: Self) -> bool {
        let is_load = |turn| turn == Self::Load;
        let allocates = |turn| turn == Self::Allocate;
        !(allocates(self) && is_load(other) || is_load(self) && allocates(other))
    }
}

#[derive(Debug, Default)]
struct Table {
    turns: Vec<(FileRange, Turn)>,
    /// Where each block is translated to; `None`: to a page of zeros.
    entries: BTreeMap<u64, Option<u64>>,
}

impl Table {
    fn is_free(&self, range: FileRange, turn: Turn, but: Option<FileRange>) -> bool {
        self.turns.iter().all(|(other, kind)| {
            let apart = other.offset >= range.end() || range.offset >= other.end();
            apart || Some(*other) == but || !turn.excludes(*kind)
        })
    }
}

#[derive(Debug)]
struct Toy {
    memory: Memory,
    table: Mutex<Table>,
    ended: Condvar,
}

impl Toy {
    fn begin(&self, range: FileRange, turn: Turn, but: Option<FileRange>) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap();
        while !table.is_free(range, turn, but) {
            table = self.ended.wait(table).unwrap();
        }
        if but.is_some() {
            table.turns.retain(|(other, _)| Some(*other) != but);
        }
        table.turns.push((range, turn));
        table
    }

    /// Serves a fault at `block`; false where it is beyond the end.
    fn fault(&self, file: &File, block: u64, store: bool, random: u64) -> bool {
        let slot = FileRange { offset: block * BLOCK / CHUNK * CHUNK, len: CHUNK };
        drop(self.begin(slot, if store { Turn::Store } else { Turn::Load }, None));
        let _turn = Ends(self, slot);
        self.install(file, block, slot, store, random)
    }

    fn install(&self, file: &File, block: u64, slot: FileRange, store: bool, random: u64) -> bool {
        let blocks = file.size().div_ceil(BLOCK);
        if block >= blocks {
            return false;
        }
        let run = |at| file.run_at(at, slot).unwrap();
        if store && !matches!(run(block * BLOCK).state, State::Mapped(_)) {
            let end = slot.end().min(blocks * BLOCK);
            let whole = FileRange { offset: slot.offset, len: end - slot.offset };
            let one = FileRange { offset: block * BLOCK, len: BLOCK };
            let few = FileRange { len: (4 * BLOCK).min(end - one.offset), ..one };
            let is_whole = random.is_multiple_of(16)
                && end == slot.end()
                && !matches!(run(block * BLOCK).state, State::Mapped(_))
                && file.populate(slot, Placement::Whole).unwrap();
            if !is_whole {
                let range = [one, few, few, whole][(random / 16 % 4) as usize];
                assert!(file.populate(range, Placement::Any).unwrap());
            }
        }
        let found = run(block * BLOCK);
        let mut table = self.table.lock().unwrap();
        match found.state {
            State::Mapped(at) => {
                for (i, block) in (found.range.offset / BLOCK..found.range.end().div_ceil(BLOCK)).enumerate()
                {
                    if block < blocks {
                        table.entries.insert(block, Some(at.0 + i as u64 * BLOCK));
                    }
                }
            }
            _ => _ = table.entries.insert(block, None),
        }
        true
    }

    /// Stores a word through the translation of `block`; false beyond the end.
    fn store(&self, file: &File, block: u64, word: u64, value: u64, random: u64) -> bool {
        loop {
            if let Some(Some(at)) = self.table.lock().unwrap().entries.get(&block) {
                self.memory.file.write_all_at(&value.to_le_bytes(), at + word * 8).unwrap();
                return true;
            }
            if !self.fault(file, block, true, random) {
                return false;
            }
        }
    }

    /// Loads a word; `None` beyond the end.
    fn load(&self, file: &File, block: u64, word: u64) -> Option<u64> {
        loop {
            let table = self.table.lock().unwrap();
            match table.entries.get(&block) {
                Some(Some(at)) => {
                    let mut found = [0; 8];
                    self.memory.file.read_exact_at(&mut found, at + word * 8).unwrap();
                    return Some(u64::from_le_bytes(found));
                }
                Some(None) => return Some(0),
                None => drop(table),
            }
            if !self.fault(file, block, false, 0) {
                return None;
            }
        }
    }
}

/// Ends a fault's turn, also where an assertion fails in it: others must not wait for ever.
struct Ends<'t>(&'t Toy, FileRange);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

impl AddressSpace for Toy {
    fn allocate(&self, range: FileRange) {
        drop(self.begin(range, Turn::Allocate, None));
    }

    fn invalidate(&self, range: FileRange, _cut: bool) -> daxstore::Result<()> {
        let own = self.table.lock().unwrap().turns.contains(&(range, Turn::Allocate));
        let mut table = self.begin(range, Turn::Invalidate, own.then_some(range));
        table.entries.retain(|block, _| block * BLOCK < range.offset || block * BLOCK >= range.end());
        Ok(())
    }

    fn sync(self: Arc<Self>, _file: &dyn FaultOps, _range: FileRange) -> daxstore::Result<u64> {
        Ok(0)
    }

    fn end(&self, range: FileRange) {
        let mut table = self.table.lock().unwrap();
        let at = table.turns.iter().position(|(turn, _)| *turn == range).unwrap();
        table.turns.swap_remove(at);
        self.ended.notify_all();
    }
}

/// Random numbers that a seed determines.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// The word that `storer` has in a block, as `read_at` finds it; `None` beyond the end.
fn read_word(file: &File, block: u64, storer: u64) -> Option<u64> {
    let mut found = [0; 8];
    let len = file.read_at(&mut found, block * BLOCK + storer * 8).unwrap();
    (len == 8).then(|| u64::from_le_bytes(found))
}

fn storer(toy: &Toy, file: &File, storer: u64) {
    let mut random = Random(0x5eed + storer);
    let mut last = BTreeMap::new();
    for number in 1..=STORES {
        let block = random.below(2 * KEPT);
        let value = 0xa0 << 56 | storer << 48 | number;
        let kept = last.get(&block).copied().unwrap_or(0);
        let found = [toy.load(file, block, storer), read_word(file, block, storer)];
        for found in found.into_iter().flatten() {
            // Above what is kept, blocks go and move: what is there was stored by this thread, if not here.
            let own = block >= KEPT && (found == 0 || found >> 48 == 0xa0 << 8 | storer);
            assert!(found == kept || own, "block {block}: {found:x}, not {kept:x}");
        }
        let stored = toy.store(file, block, storer, value, random.below(1 << 20));
        assert!(stored || block >= KEPT);
        if stored {
            last.insert(block, value);
        }
    }
    for (block, kept) in last.range(..KEPT) {
        assert_eq!(toy.load(file, *block, storer), Some(*kept), "block {block}");
        assert_eq!(read_word(file, *block, storer), Some(*kept), "block {block}");
    }
}

/// Writes what is not stored to, into blocks that may be holes; a mapping shows it at once.
fn writer(toy: &Toy, file: &File, stop: &AtomicBool) {
    let mut random = Random(5);
    while !stop.load(Ordering::Relaxed) {
        let (block, from) = (random.below(2 * KEPT + 9), WORDS + random.below(BLOCK - WORDS));
        let len = 1 + random.below(BLOCK - from);
        file.write_all_at(&vec![0xa5; len as usize], block * BLOCK + from).unwrap();
        let word = from.div_ceil(8);
        if block < KEPT && (word + 1) * 8 <= from + len {
            let found = toy.load(file, block, word);
            assert_eq!(found, Some(u64::from_le_bytes([0xa5; 8])), "block {block}, word {word}");
        }
    }
}

/// Cuts, punches, zeroes, allocates and moves above what is kept.
fn remover(file: &File, stop: &AtomicBool) {
    let mut random = Random(77);
    while !stop.load(Ordering::Relaxed) {
        let at = (KEPT + random.below(KEPT)) * BLOCK;
        let len = (1 + random.below(200)) * BLOCK - random.below(2) * 5;
        match random.below(12) {
            8 | 9 => shift(file, at, len.next_multiple_of(BLOCK), AllocateMode::Collapse),
            10 => shift(file, at, len.next_multiple_of(BLOCK), AllocateMode::Insert),
            0 => file.set_len(at + random.below(2) * 4000).unwrap(),
            1 | 2 => file.set_len(2 * KEPT * BLOCK).unwrap(),
            3 => file.allocate(at, len, AllocateMode::Zero).unwrap(),
            4 => file.allocate(random.below(at), len, AllocateMode::Allocate).unwrap(),
            5 => file.allocate(at, len, AllocateMode::KeepSize).unwrap(),
            _ => file.allocate(at, len, AllocateMode::Punch).unwrap(),
        }
    }
}

/// Takes blocks out, or puts them in, where there is anything to move.
fn shift(file: &File, at: u64, len: u64, mode: AllocateMode) {
    match file.allocate(at, len, mode) {
        Ok(()) => {}
        Err(error) => assert_eq!(error.errno(), 22, "{error}"),
    }
}

/// Reads the file: every byte is zero, stored or written by somebody who may.
fn reader(file: &File, stop: &AtomicBool) {
    let mut random = Random(3);
    let mut bytes = vec![0; BLOCK as usize];
    while !stop.load(Ordering::Relaxed) {
        let block = random.below(2 * KEPT);
        let found = file.read_at(&mut bytes, block * BLOCK).unwrap();
        let words = bytes[..found.min(WORDS as usize)].chunks_exact(8);
        let is_word =
            |word: &[u8]| word.iter().all(|byte| *byte == 0) || word[7] == 0xa0 && word[6] < STORERS as u8;
        assert!(words.into_iter().all(is_word), "block {block} has foreign words");
        let rest = bytes[..found].iter().skip(WORDS as usize);
        assert!(rest.into_iter().all(|byte| matches!(byte, 0 | 0xa5)), "block {block} has foreign bytes");
    }
}

/// Another file that is given what this one lets go, and must find it untouched.
fn neighbour(store: &Store, stop: &AtomicBool) {
    let mut random = Random(9);
    while !stop.load(Ordering::Relaxed) {
        let file = store.create("neighbour").unwrap();
        let own = vec![0xbb; (1 + random.below(900) * BLOCK) as usize];
        file.write_all_at(&own, 0).unwrap();
        std::thread::yield_now();
        let mut found = vec![0; own.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == own, "a neighbour's bytes were stored to");
        drop(file);
        store.remove_file("neighbour").unwrap();
    }
}

#[test]
fn faults_beside_everything_else() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = StoreOptions::new().assume_persistent(cfg!(target_arch = "x86_64"));
    let store = Store::create(dir.path().join("pool"), 48 << 20, &options).unwrap();
    let file = store.open("f", &OpenOptions::new().read(true).write(true).create(true)).unwrap();
    file.set_len(2 * KEPT * BLOCK).unwrap();
    let toy =
        Arc::new(Toy { memory: file.memory().unwrap(), table: Mutex::default(), ended: Condvar::new() });
    let space = toy.clone();
    file.attach(&mut || space.clone()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (store, file, toy, stop) = (&store, &file, &toy, &stop);
        let storers: Vec<_> = (0..STORERS).map(|n| scope.spawn(move || storer(toy, file, n))).collect();
        scope.spawn(move || writer(toy, file, stop));
        scope.spawn(move || remover(file, stop));
        scope.spawn(move || reader(file, stop));
        scope.spawn(move || neighbour(store, stop));
        let stored: Vec<_> = storers.into_iter().map(|thread| thread.join()).collect();
        stop.store(true, Ordering::Relaxed);
        stored.into_iter().for_each(|result| result.unwrap());
    });
    file.detach();
    assert!(toy.table.lock().unwrap().turns.is_empty());
    assert!(store.check().unwrap().is_clean());
}

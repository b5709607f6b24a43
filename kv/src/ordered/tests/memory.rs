//! What is left of a memory when the power goes?
//!
//! Words with two values: what everybody sees, and what is certainly durable. Between them, the stores that may or may not
//! have become durable. At every fence the state just before is kept, so that crashes there can be tried.

#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]

use crate::error::{Error, Result};
use crate::media::Media;
use crate::ordered::{Page, Space};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence of numbers from a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Clone, Default)]
struct Words {
    seen: Vec<u64>,
    durable: Vec<u64>,
    /// Stores that are not certainly durable, in order: word, value, whether a flush covers it.
    stores: Vec<(usize, u64, bool)>,
}

impl Words {
    fn fence(&mut self) {
        // What was stored to a word before what is durable now can not come back.
        let mut last = HashMap::new();
        for (i, (word, value, _)) in self.stores.iter().enumerate().filter(|(_, store)| store.2) {
            self.durable[*word] = *value;
            last.insert(*word, i);
        }
        let mut i = 0..;
        self.stores.retain(|(word, ..)| i.next() > last.get(word).copied());
    }
}

/// A state before a fence.
pub struct Moment {
    words: Words,
    /// Units of 256 bytes that are the index's.
    used: BTreeSet<u64>,
}

impl Moment {
    /// What may be left, by `random`: nothing uncertain, all, any word, any 256 bytes, or any start of each line's stores.
    pub fn image(&self, random: &mut Random) -> Memory {
        let mut words = self.words.durable.clone();
        let mode = random.below(7);
        let salt = random.next();
        for (i, (word, value, _)) in self.words.stores.iter().enumerate() {
            let words_of_a_unit = [1, 1, 1, 1, 8, 8, 32][mode as usize];
            let unit = *word as u64 / words_of_a_unit;
            let hash = Random(salt ^ unit.wrapping_mul(0x1234_5678_9abc_def1)).next();
            let kept = match mode {
                0 => false,
                1 => true,
                2 | 6 => hash.is_multiple_of(2),
                3 => Random(salt ^ i as u64).next().is_multiple_of(2),
                _ => (i as u64) < hash % (self.words.stores.len() as u64 + 1),
            };
            if kept {
                words[*word] = *value;
            }
        }
        let words = Words { seen: words.clone(), durable: words, stores: Vec::new() };
        Memory(Mutex::new(State { words, used: self.used.clone(), ..State::default() }))
    }

    /// What is left where of the words stored since `before` the first one is lost, and no other.
    pub fn without_first(&self, before: &Self) -> Memory {
        let mut words = self.words.seen.clone();
        let mut changed = (0..words.len()).filter(|i| words[*i] != before.words.seen[*i]);
        let first = changed.next().unwrap();
        words[first] = before.words.seen[first];
        let words = Words { seen: words.clone(), durable: words, stores: Vec::new() };
        Memory(Mutex::new(State { words, used: self.used.clone(), ..State::default() }))
    }

    /// As if the pages that are not among `pages` had become somebody else's just before.
    pub fn only(&mut self, pages: &[Page]) {
        self.used = units(pages);
    }
}

fn units(pages: &[Page]) -> BTreeSet<u64> {
    let mut used = BTreeSet::from([0]);
    for unit in pages.iter().flat_map(|page| page.at / 256..(page.at + page.bytes) / 256) {
        assert!(used.insert(unit), "a page is met twice");
    }
    used
}

#[derive(Default)]
struct State {
    words: Words,
    used: BTreeSet<u64>,
    fences: u64,
    lines: u64,
    moments: Option<Vec<Moment>>,
}

/// Memory that forgets.
pub struct Memory(Mutex<State>);

impl Memory {
    pub fn new(bytes: u64) -> Self {
        let words = vec![0; bytes as usize / 8];
        let words = Words { seen: words.clone(), durable: words, stores: Vec::new() };
        let used = BTreeSet::from([0]);
        Self(Mutex::new(State { words, used, ..State::default() }))
    }

    /// Keeps the states before fences from now on.
    pub fn watch(&self) {
        self.0.lock().unwrap().moments = Some(Vec::new());
    }

    /// The states kept, and that of now.
    pub fn moments(&self) -> Vec<Moment> {
        let mut state = self.0.lock().unwrap();
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(Moment { words: state.words.clone(), used: state.used.clone() });
        moments
    }

    /// Fences and flushed lines.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.lock().unwrap();
        (state.fences, state.lines)
    }

    /// Turns one bit around.
    pub fn damage(&self, at: u64, bit: u32) {
        let mut state = self.0.lock().unwrap();
        state.words.seen[at as usize / 8] ^= 1 << bit;
        state.words.durable[at as usize / 8] ^= 1 << bit;
    }

    fn put(&self, at: u64, bytes: &[u8], flushed: bool) {
        let mut state = self.0.lock().unwrap();
        assert!(at.is_multiple_of(8), "unaligned store at {at}");
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let word = at as usize / 8 + i;
            assert!(state.used.contains(&(word as u64 / 32)), "a store to somebody else's page at {at}");
            let mut value = state.words.seen[word].to_le_bytes();
            value[..chunk.len()].copy_from_slice(chunk);
            let value = u64::from_le_bytes(value);
            state.words.seen[word] = value;
            state.words.stores.push((word, value, flushed));
        }
    }
}

impl Media for Memory {
    fn len(&self) -> u64 {
        self.0.lock().unwrap().words.seen.len() as u64 * 8
    }

    fn capacity(&self) -> u64 {
        self.len()
    }

    fn grow(&self, len: u64) -> Result<()> {
        if len > self.len() { Err(Error::NoSpace { needed: len }) } else { Ok(()) }
    }

    fn load(&self, at: u64) -> u64 {
        self.0.lock().unwrap().words.seen[at as usize / 8]
    }

    fn store(&self, at: u64, word: u64) {
        self.put(at, &word.to_le_bytes(), false);
    }

    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        let found = self.load(at);
        if found == old {
            self.store(at, new);
        }
        if found == old { Ok(found) } else { Err(found) }
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        let state = self.0.lock().unwrap();
        assert!(at.is_multiple_of(8));
        for (i, chunk) in buf.chunks_mut(8).enumerate() {
            let word = state.words.seen[at as usize / 8 + i].to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        self.read(at, &mut found);
        found == bytes
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.put(at, bytes, false);
    }

    fn write_through(&self, at: u64, bytes: &[u8]) {
        self.put(at, bytes, true);
    }

    fn flush(&self, at: u64, len: u64) {
        let mut state = self.0.lock().unwrap();
        let lines = at / 64..(at + len).div_ceil(64);
        state.lines += lines.end - lines.start;
        let words = lines.start as usize * 8..lines.end as usize * 8;
        state
            .words
            .stores
            .iter_mut()
            .filter(|(word, ..)| words.contains(word))
            .for_each(|store| store.2 = true);
    }

    fn fence(&self) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        let State { words, moments, fences, used, .. } = &mut *state;
        if let Some(moments) = moments {
            moments.push(Moment { words: words.clone(), used: used.clone() });
        }
        *fences += 1;
        words.fence();
        Ok(())
    }

    fn prefetch(&self, _at: u64) {}
}

/// Pages of a forgetful memory, first fit: what was given back is used again at once.
pub struct Pages {
    pub memory: Memory,
    /// How many more pages may be taken.
    pub allowance: Mutex<u64>,
    /// Pages from here on are to be left.
    pub leaving: AtomicU64,
}

impl Pages {
    pub fn new(memory: Memory) -> Self {
        Self { memory, allowance: Mutex::new(u64::MAX), leaving: AtomicU64::new(u64::MAX) }
    }

    /// Bytes of the pages that were taken.
    pub fn used(&self) -> u64 {
        self.memory.0.lock().unwrap().used.len() as u64 * 256
    }

    /// After a crash: these are in use, and no others.
    pub fn only(&self, pages: &[Page]) {
        self.memory.0.lock().unwrap().used = units(pages);
    }
}

impl Space for Pages {
    type Memory = Memory;

    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn take(&self, bytes: u64) -> Result<u64> {
        let mut allowance = self.allowance.lock().unwrap();
        let all = (self.memory.len() / 256).min(self.leaving.load(Ordering::Relaxed) / 256);
        let used = &mut self.memory.0.lock().unwrap().used;
        let units = bytes / 256;
        let mut at = 1;
        while let Some(taken) = used.range(at..at + units).next_back() {
            at = taken + 1;
        }
        if at + units > all || *allowance == 0 {
            return Err(Error::NoSpace { needed: bytes });
        }
        *allowance -= 1;
        used.extend(at..at + units);
        Ok(at * 256)
    }

    fn give(&self, page: Page) -> Result<()> {
        let used = &mut self.memory.0.lock().unwrap().used;
        for unit in page.at / 256..(page.at + page.bytes) / 256 {
            assert!(used.remove(&unit), "given back twice: {page:?}");
        }
        Ok(())
    }

    fn is_leaving(&self, page: Page) -> bool {
        page.at >= self.leaving.load(Ordering::Relaxed)
    }
}

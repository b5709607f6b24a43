//! How many 2 MiB slots of new large files are one congruent chunk in a pool that has been used for long?
//!
//! Churn in the manner of Geriatrix (USENIX ATC 2018): files of mixed sizes are made, grow in turns and go, in rounds
//! that fill the pool to nine tenths and empty it to a half; then large files fill it to three quarters, and
//! their slots are counted. Two bitmaps beside it get the same requests: a naive first fit, and a first fit that puts
//! requests of 2 MiB or more at multiples of 2 MiB. Everything follows from a seed.
//!
//! What is lost are first slots: a file that grows by little appends is not known to become large before it is, and
//! small files do not get chunks of their own. Those slots `File::defrag` moves.
//!
//!     cargo test --release --features sim --test ageing -- --nocapture

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, OpenOptions, Store, StoreOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

const BLOCK: u64 = 4096;
const SLOT: u64 = 2 << 20;
const SLOT_BLOCKS: u64 = SLOT / BLOCK;
const POOL: u64 = 512 << 20;
const ROUNDS: usize = 10;

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    /// Blocks of a new file: most are small, most blocks are large files'.
    fn size(&mut self) -> u64 {
        match self.next() % 100 {
            0..60 => self.within(1, 16),
            60..85 => self.within(16, 256),
            85..97 => self.within(256, 3 * SLOT_BLOCKS),
            _ => self.large(),
        }
    }

    fn large(&mut self) -> u64 {
        self.within(3 * SLOT_BLOCKS, 16 * SLOT_BLOCKS)
    }
}

/// Who gets requests for space: files grow at the end, and go.
trait Pool {
    fn grow(&mut self, file: u64, blocks: u64);
    fn remove(&mut self, file: u64);
    /// Of each whole slot of the file, whether it is one congruent chunk.
    fn slots(&self, file: u64) -> Vec<bool>;
}

struct Real(Store);

impl Real {
    fn open(&self, file: u64) -> daxstore::File {
        self.0.open(format!("/{file}"), &OpenOptions::new().read(true).write(true).create(true)).unwrap()
    }
}

impl Pool for Real {
    fn grow(&mut self, file: u64, blocks: u64) {
        let file = self.open(file);
        if blocks < SLOT_BLOCKS {
            file.append(&vec![1; (blocks * BLOCK) as usize]).unwrap();
        } else {
            file.allocate(file.len(), blocks * BLOCK, AllocateMode::Allocate).unwrap();
        }
    }

    fn remove(&mut self, file: u64) {
        self.0.remove_file(format!("/{file}")).unwrap();
    }

    fn slots(&self, file: u64) -> Vec<bool> {
        let file = self.open(file);
        let is_one = |n: u64| {
            let extents = file.extents(n * SLOT, SLOT).unwrap();
            let place = |e: &daxstore::FileExtent| e.state.address().unwrap().0.wrapping_sub(e.range.offset);
            let first = place(&extents[0]);
            first % SLOT == 0 && extents.iter().all(|e| place(e) == first)
        };
        (0..file.len() / SLOT).map(is_one).collect()
    }
}

/// First fit over a bitmap: the lowest run that is long enough, else pieces from the lowest free block on.
struct FirstFit {
    taken: Vec<bool>,
    files: BTreeMap<u64, Vec<usize>>,
    aligned: bool,
}

impl FirstFit {
    fn new(aligned: bool) -> Self {
        Self { taken: vec![false; (POOL / BLOCK) as usize], files: BTreeMap::new(), aligned }
    }

    /// The lowest place of `blocks` free blocks in a row, at a multiple of `step`.
    fn place(&self, blocks: usize, step: usize) -> Option<usize> {
        let mut at = 0;
        while at + blocks <= self.taken.len() {
            match self.taken[at..at + blocks].iter().rposition(|taken| *taken) {
                None => return Some(at),
                Some(last) => at = (at + last + 1).next_multiple_of(step),
            }
        }
        None
    }
}

impl Pool for FirstFit {
    fn grow(&mut self, file: u64, blocks: u64) {
        let whole = if self.aligned && blocks >= SLOT_BLOCKS { SLOT_BLOCKS as usize } else { 1 };
        let place = self.place(blocks as usize, whole).or_else(|| self.place(blocks as usize, 1));
        let got: Vec<usize> = match place {
            Some(at) => (at..at + blocks as usize).collect(),
            None => (0..self.taken.len()).filter(|at| !self.taken[*at]).take(blocks as usize).collect(),
        };
        assert_eq!(got.len() as u64, blocks, "not full");
        got.iter().for_each(|at| self.taken[*at] = true);
        self.files.entry(file).or_default().extend(got);
    }

    fn remove(&mut self, file: u64) {
        self.files.remove(&file).unwrap().iter().for_each(|at| self.taken[*at] = false);
    }

    fn slots(&self, file: u64) -> Vec<bool> {
        let is_one = |slot: &[usize]| {
            slot[0].is_multiple_of(SLOT_BLOCKS as usize) && slot.windows(2).all(|w| w[0] + 1 == w[1])
        };
        self.files[&file].chunks_exact(SLOT_BLOCKS as usize).map(is_one).collect()
    }
}

/// The life of a pool: the same for each pool with the same seed.
struct Life<'p> {
    pool: &'p mut dyn Pool,
    random: Random,
    /// Blocks of each file.
    files: BTreeMap<u64, u64>,
    next: u64,
    used: u64,
}

impl Life<'_> {
    fn is_below(&self, percent: u64) -> bool {
        self.used < POOL / BLOCK * percent / 100
    }

    fn grow(&mut self, file: u64, blocks: u64) {
        self.pool.grow(file, blocks);
        *self.files.entry(file).or_default() += blocks;
        self.used += blocks;
    }

    /// Makes a file at once, in appends, or in turns with another one.
    fn make(&mut self, blocks: u64) -> u64 {
        let file = self.next;
        self.next += 1;
        let step = match self.random.next() % 3 {
            0 => blocks,
            1 => 64,
            _ => self.random.within(1, 32),
        };
        let mut left = blocks;
        while left > 0 {
            let some = left.min(step);
            self.grow(file, some);
            left -= some;
            if self.random.next().is_multiple_of(8) {
                self.append_somewhere();
            }
        }
        file
    }

    /// A file that is there grows by a little.
    fn append_somewhere(&mut self) {
        let (file, blocks) = (self.random.within(0, self.next), self.random.within(1, 8));
        if let Some((file, _)) = self.files.range(file..).next() {
            self.grow(*file, blocks);
        }
    }

    fn remove_one(&mut self) {
        let file = self.random.within(0, self.next);
        if let Some((file, blocks)) = self.files.range(file..).next().map(|(f, b)| (*f, *b)) {
            self.files.remove(&file);
            self.pool.remove(file);
            self.used -= blocks;
        }
    }

    fn fill_to(&mut self, percent: u64) {
        while self.is_below(percent) {
            let left = POOL / BLOCK * percent / 100 - self.used;
            let blocks = self.random.size().min(left);
            self.make(blocks);
        }
    }

    fn age(&mut self) {
        for round in 0..ROUNDS {
            self.fill_to(90);
            let low = if round + 1 == ROUNDS { 55 } else { 50 };
            while !self.is_below(low) {
                self.remove_one();
            }
        }
    }

    /// New large files until the pool is three quarters full.
    fn measure(&mut self) -> Found {
        let mut found = Found::default();
        while self.is_below(75) {
            let left = POOL / BLOCK * 75 / 100 - self.used;
            let blocks = self.random.large().min(left.max(SLOT_BLOCKS));
            let file = self.make(blocks);
            let slots = self.pool.slots(file);
            found.files.push(file);
            found.slots += slots.len();
            found.huge += slots.iter().filter(|huge| **huge).count();
            found.first_lost += usize::from(slots.first() == Some(&false));
        }
        found
    }
}

/// New large files, and their slots.
#[derive(Default)]
struct Found {
    files: Vec<u64>,
    slots: usize,
    huge: usize,
    first_lost: usize,
}

impl Found {
    fn add(&mut self, more: &Self) {
        self.slots += more.slots;
        self.huge += more.huge;
        self.first_lost += more.first_lost;
    }

    fn percent(&self) -> usize {
        self.huge * 100 / self.slots
    }
}

/// The new large files of a pool that aged.
fn aged(pool: &mut dyn Pool, seed: u64) -> Found {
    let mut life = Life { pool, random: Random(seed), files: BTreeMap::new(), next: 0, used: 0 };
    life.age();
    life.measure()
}

#[test]
fn new_large_files_of_an_aged_pool_have_huge_slots() {
    let [mut ours, mut naive, mut aligned] = [(); 3].map(|()| Found::default());
    for seed in 1..=5 {
        let sim = Arc::new(Sim::new(POOL).unwrap());
        let store = Store::create_sim(sim, &StoreOptions::new().seed(1)).unwrap();
        let mut real = Real(store.clone());
        let found = aged(&mut real, seed);
        naive.add(&aged(&mut FirstFit::new(false), seed));
        aligned.add(&aged(&mut FirstFit::new(true), seed));
        println!(
            "seed {seed}: {} %, {} slots, {} first ones lost",
            found.percent(),
            found.slots,
            found.first_lost
        );
        found.files.iter().for_each(|file| _ = real.open(*file).defrag().unwrap());
        assert!(found.files.iter().all(|file| real.slots(*file).iter().all(|huge| *huge)), "after defrag");
        assert!(store.check().unwrap().is_clean());
        ours.add(&found);
    }
    println!(
        "of {} slots one congruent chunk: daxstore {} %, first fit {} %, first fit at multiples of 2 MiB {} %",
        ours.slots,
        ours.percent(),
        naive.percent(),
        aligned.percent()
    );
    assert!(ours.slots > 200, "too few to tell");
    assert!(ours.percent() >= 90, "{} %", ours.percent());
}

//! Simulated memory of which loom sees when bytes are copied out, and when a fence stands; and databases over it.

use crate::Pool;
use daxstore::pmem::sim::Sim;
use daxstore::sync::atomic::{AtomicU64, Ordering};
use daxstore::units::PoolOff;
use daxstore_kv::media::{Media, SimMedia};
use daxstore_kv::{Db, Options, Result};
use std::sync::Arc;

/// Bytes of a database.
pub const BYTES: u64 = 8 << 20;
/// How many lines next to each other loom tells apart.
const LINES: usize = 128;

/// Simulated memory of which loom sees when bytes are copied out, and when a fence stands.
#[derive(Debug)]
pub struct Watched {
    memory: SimMedia,
    step: AtomicU64,
    /// What loom sees of each line, which share them; empty: nothing.
    lines: Vec<AtomicU64>,
}

impl Watched {
    /// All of `sim`.
    #[must_use]
    pub fn new(sim: Arc<Sim>) -> Self {
        Self { memory: SimMedia::new(sim), step: AtomicU64::new(0), lines: Vec::new() }
    }

    /// All of `sim`; loom sees who loads and who stores words of the same line, too. Of two loads of an atomic it tries one order only, as if
    /// they were nothing to each other: so here each is a change of one.
    #[must_use]
    pub fn with_words(sim: Arc<Sim>) -> Self {
        Self { lines: (0..LINES).map(|_| AtomicU64::new(0)).collect(), ..Self::new(sim) }
    }

    /// Another thread may run here.
    fn step(&self) {
        self.step.load(Ordering::Relaxed);
    }

    /// Who else touches the line at `at` does so before this in one run, and after it in another.
    fn touch(&self, at: u64) {
        if let Some(line) = self.lines.get((at / 64) as usize % LINES) {
            line.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Media for Watched {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    fn grow(&self, len: u64) -> Result<()> {
        self.memory.grow(len)
    }

    fn load(&self, at: u64) -> u64 {
        self.touch(at);
        self.memory.load(at)
    }

    fn load_line(&self, at: u64) -> [u64; 8] {
        self.touch(at);
        self.memory.load_line(at)
    }

    fn store(&self, at: u64, word: u64) {
        self.touch(at);
        self.memory.store(at, word);
    }

    fn compare_exchange(&self, at: u64, old: u64, new: u64) -> std::result::Result<u64, u64> {
        self.touch(at);
        self.memory.compare_exchange(at, old, new)
    }

    fn read(&self, at: u64, buf: &mut [u8]) {
        self.step();
        self.touch(at);
        self.memory.read(at, buf);
    }

    fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        self.step();
        self.touch(at);
        self.memory.equals(at, bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(at, bytes);
    }

    fn write_through(&self, at: u64, bytes: &[u8]) {
        self.memory.write_through(at, bytes);
    }

    fn flush(&self, at: u64, len: u64) {
        self.memory.flush(at, len);
    }

    fn fence(&self) -> Result<()> {
        self.step();
        self.memory.fence()
    }

    fn prefetch(&self, _at: u64) {}
}

/// A database.
pub type Base = Db<Watched>;

/// Opens what is in `sim`.
///
/// # Panics
/// Where it can not.
pub fn open(sim: Arc<Sim>) -> Base {
    open_watched(Watched::new(sim))
}

/// Opens what is in `memory`.
///
/// # Panics
/// Where it can not.
pub fn open_watched(memory: Watched) -> Base {
    Db::open_media(memory, &Options::new().create(true).seed(7).small()).expect("a database")
}

/// A key.
#[must_use]
pub fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// A value of one size, all bytes of which say which it is.
#[must_use]
pub fn value(n: u64) -> [u8; 40] {
    [n as u8; 40]
}

/// A closed database with the keys below `count`.
#[must_use]
pub fn filled(count: u64) -> Arc<Pool> {
    Pool::new(BYTES, move |sim| {
        let db = open(sim);
        (0..count).for_each(|n| db.put(&key(n), &value(0)).expect("put"));
        db.close().expect("closed");
    })
}

/// The same, but that who put them was killed.
#[must_use]
pub fn killed(count: u64) -> Arc<Pool> {
    Pool::new(BYTES, move |sim| {
        let db = open(sim);
        (0..count).for_each(|n| db.put(&key(n), &value(0)).expect("put"));
        std::mem::forget(db);
    })
}

/// The number of the key that does not find room in the first segment of the index.
#[must_use]
pub fn first_to_split() -> u64 {
    let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = count.clone();
    Pool::new(BYTES, move |sim| {
        let db = open(sim.clone());
        let word = |at| {
            let mut bytes = [0; 8];
            sim.peek(PoolOff(at), &mut bytes);
            u64::from_le_bytes(bytes) & ((1 << 48) - 1)
        };
        let directory = || word(word(320) & !0xff);
        let (before, mut n) = (directory(), 0);
        while directory() == before {
            db.put(&key(n), &value(0)).expect("put");
            n += 1;
        }
        counted.store(n - 1, Ordering::Relaxed);
    });
    count.load(Ordering::Relaxed)
}

//! What do the threads of the stress share?
//!
//! One file of which every page has one thread that changes it, mappings of it, another file that takes what the first frees,
//! and a watch over everybody's progress.
//!
//! A tag is a word that says which file and which owner it belongs to, and when it was made: the first and the last word of each
//! page is a tag or zero. An owner knows exactly which.

use super::common::{PAGE, Pool, SLOT, address, touch};
use daxstore::{File, OpenOptions};
use daxstore_fault::{Advice, MapOptions, Mapping, Mode};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Threads with pages of their own that always lie in the file.
pub const OWNERS: u64 = 3;
/// Blocks that metadata may keep.
const METADATA: u64 = 256;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub mode: Mode,
    /// Also a mapping in the other mode.
    pub mixed: bool,
    pub medium: super::common::Medium,
    /// Bytes that are taken away at once.
    pub unit: u64,
    pub time: Duration,
    pub seed: u64,
}

impl Config {
    fn units(&self) -> u64 {
        if self.unit == PAGE { 3 * SLOT / PAGE } else { 9 }
    }

    /// Bytes of a pool in which there is always space.
    pub fn pool(&self) -> u64 {
        4 * self.units() * self.unit + (48 << 20)
    }
}

/// A small generator of numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) % limit
    }

    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A word of a page that `owner` of `file` wrote as its `seq`-th.
pub fn tag(file: u64, owner: u64, seq: u64) -> u64 {
    file << 56 | owner << 52 | seq
}

/// What somebody does just now.
#[derive(Debug, Default)]
struct Progress {
    steps: AtomicU64,
    doing: Mutex<(&'static str, u64)>,
}

pub const MAIN: u64 = 1;
pub const THIEF: u64 = 2;
pub const PRIVATE: u64 = 3;

pub struct World {
    pub config: Config,
    pub pool: Pool,
    pub file: File,
    pub maps: Vec<Mapping>,
    /// A file of the kernel.
    pub foreign: std::fs::File,
    pub units: u64,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
    progress: Vec<Progress>,
}

impl World {
    pub fn new(config: Config) -> Self {
        let units = config.units();
        let len = units * config.unit;
        let pool = Pool::new(config.pool(), config.medium);
        let file = pool.sparse("main", len);
        let map = |offset: u64, write, mode| {
            MapOptions::new().write(write).mode(mode).map(&file, offset, len - offset).unwrap()
        };
        let mut maps = vec![map(0, true, config.mode), map(3 * PAGE, true, config.mode)];
        maps.push(map(0, false, config.mode));
        if config.mixed {
            let other = if config.mode == Mode::Signal { Mode::Userfault } else { Mode::Signal };
            maps.push(map(0, true, other));
        }
        maps[1].advise(0, maps[1].len(), Advice::NoHuge).unwrap();
        let foreign = tempfile::tempfile().unwrap();
        let progress = (0..16).map(|_| Progress::default()).collect();
        let stop = AtomicBool::new(false);
        Self { config, pool, file, maps, foreign, units, stop, failures: Mutex::default(), progress }
    }

    pub fn len(&self) -> u64 {
        self.units * self.config.unit
    }

    /// Units that always lie in the file, and have an owner each.
    pub fn low_units(&self) -> u64 {
        self.units * 2 / 3
    }

    pub fn low(&self) -> u64 {
        self.low_units() * self.config.unit
    }

    /// Who changes the page at `at`.
    pub fn owner_of(&self, at: u64) -> u64 {
        if at >= self.low() { OWNERS } else { at / self.config.unit % OWNERS }
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub fn fail(&self, what: String) {
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < 20 {
            eprintln!("FAILURE {what}");
            failures.push(what);
        }
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    /// Says what thread `who` is about to do.
    pub fn step(&self, who: usize, doing: &'static str, at: u64) {
        *self.progress[who].doing.lock().unwrap() = (doing, at);
        self.progress[who].steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Thread `who` is done.
    pub fn done(&self, who: usize) {
        self.step(who, "", 0);
    }

    pub fn steps(&self) -> Vec<u64> {
        self.progress.iter().map(|progress| progress.steps.load(Ordering::Relaxed)).collect()
    }

    /// The address of the byte `at` of the file in a mapping that shows it; with `write`, one that may be stored to.
    pub fn place(&self, random: &mut Random, at: u64, write: bool) -> usize {
        loop {
            let i = random.below(self.maps.len() as u64) as usize;
            let offset = self.maps[i].file_range().offset;
            if at >= offset && !(write && i == 2) {
                return address(&self.maps[i], at - offset);
            }
        }
    }

    /// Whether `word`, found at `at`, may be there at all.
    pub fn belongs(&self, at: u64, word: u64) -> bool {
        word == 0 || (word >> 56 == MAIN && (word >> 52) & 15 == self.owner_of(at))
    }

    /// Waits until the time is over or somebody failed.
    pub fn watch(&self) {
        let begun = Instant::now();
        while begun.elapsed() < self.config.time && self.goes_on() {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the process with a report unless somebody takes a step within the time for one, as long as `is_done` says no.
    pub fn guard(&self, is_done: impl Fn() -> bool) {
        // On a crowded machine a step may take long.
        let stall = Duration::from_secs(super::number("DAXSTORE_STRESS_STALL", 40));
        let mut last: Vec<_> = self.steps().into_iter().map(|steps| (steps, Instant::now())).collect();
        while !is_done() {
            std::thread::sleep(Duration::from_millis(50));
            for (who, (steps, since)) in self.steps().into_iter().zip(&mut last).enumerate() {
                if steps != since.0 || self.progress[who].doing.lock().unwrap().0.is_empty() {
                    *since = (steps, Instant::now());
                }
                if since.1.elapsed() > stall {
                    eprintln!("{}", self.report(who));
                    std::process::abort();
                }
            }
        }
    }

    fn report(&self, who: usize) -> String {
        let mut text = format!("STALL of thread {who} in {:?}\n", self.config);
        for (i, progress) in self.progress.iter().enumerate() {
            let doing = *progress.doing.lock().unwrap();
            let steps = progress.steps.load(Ordering::Relaxed);
            if steps > 0 {
                writeln!(text, "  thread {i}: step {steps}, {} at {:#x}", doing.0, doing.1).unwrap();
            }
        }
        for (i, map) in self.maps.iter().enumerate() {
            writeln!(text, "  mapping {i} at {:p}: {:?}", map.as_ptr(), map.stats()).unwrap();
        }
        for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let line = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let line = format!("{} {} {}", line("comm").trim(), line("wchan").trim(), line("syscall").trim());
            writeln!(text, "  task {:?}: {line}", task.file_name()).unwrap();
        }
        text
    }

    /// Everything is given back: the store is sound, and nothing is left of its blocks.
    pub fn end(self, free: u64) -> Vec<String> {
        let Self { pool, file, maps, failures, .. } = self;
        let mut failures = failures.into_inner().unwrap();
        for map in maps {
            map.close().unwrap();
        }
        drop(file);
        for name in ["main", "thief"] {
            if pool.store.exists(name).unwrap() {
                pool.store.remove_file(name).unwrap();
            }
        }
        let report = pool.store.check().unwrap();
        if !report.is_clean() {
            failures.push(format!("the store is damaged: {report:?}"));
        }
        // Blocks of a few metadata objects stay taken, for the next ones; the check has found an owner for each.
        let live = pool.store.statfs().free;
        let reopened = pool.reopened().store.statfs().free;
        if live != reopened || free - reopened > METADATA {
            failures.push(format!("free blocks: {free} at first, {live} at last, {reopened} after opening"));
        }
        failures
    }

    pub fn open_thief(&self) -> File {
        self.pool.store.open("thief", &OpenOptions::new().read(true).write(true).create(true)).unwrap()
    }

    /// A load that must not raise anything.
    pub fn load(&self, at: u64, place: usize, who: &str) -> u64 {
        touch::load(place).unwrap_or_else(|raised| {
            self.fail(format!("{who}: a load of {at:#x} raised {raised:?}"));
            0
        })
    }
}

//! What is done to an engine, operation by operation?

use crate::draw::{Key, Rng, Values, Zipf, ascending, belongs, scattered, shuffled};
use crate::engine::{Engine, Size};
use crate::error::{Failure, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// Records of a batch.
pub const BATCH: u64 = 1000;
/// Records of a scan of the workload `scan`.
pub const SCAN: usize = 100;
/// Records of a scan of YCSB E: 1 to this many.
const SHORT_SCAN: u64 = 100;

/// The workloads. All but the loads start with all records stored, in batches, in scattered order.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Store all records in batches of 1000, keys ascending.
    LoadSeq,
    /// Store all records in batches of 1000, keys scattered.
    LoadRand,
    /// Put new keys.
    Insert,
    /// Put new values of keys that are there.
    Put,
    /// Put new values in batches of 1000; each record counts.
    Batch,
    /// Delete records.
    Delete,
    /// Get records.
    Get,
    /// Scan 100 records from a random key on.
    Scan,
    /// Half gets, half puts; zipfian.
    YcsbA,
    /// 95 % gets, 5 % puts; zipfian.
    YcsbB,
    /// Gets; zipfian.
    YcsbC,
    /// 95 % gets of the latest, 5 % inserts.
    YcsbD,
    /// 95 % scans of 1 to 100 records from a zipfian key on, 5 % inserts.
    YcsbE,
    /// Half gets, half gets each followed by a put of the same key; zipfian.
    YcsbF,
    /// Open after SIGKILL in the middle of puts.
    Reopen,
}

impl Workload {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether all records are there before.
    pub const fn is_loaded(self) -> bool {
        !matches!(self, Self::LoadSeq | Self::LoadRand | Self::Reopen)
    }

    /// Whether the engine must keep its keys in order.
    pub const fn needs_order(self) -> bool {
        matches!(self, Self::Scan | Self::YcsbE)
    }

    /// Records that one step stores, where it is more than one.
    const fn per_step(self) -> u64 {
        if matches!(self, Self::LoadSeq | Self::LoadRand | Self::Batch) { BATCH } else { 1 }
    }
}

/// Keys that threads insert: each its own, and none twice.
#[derive(Debug)]
pub struct Inserted {
    first: u64,
    threads: Vec<Count>,
}

/// A count that no other shares a cache line with.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Inserted {
    /// `first` records are there.
    pub fn new(first: u64, threads: usize) -> Self {
        Self { first, threads: (0..threads).map(|_| Count::default()).collect() }
    }

    /// The index that `thread` inserts next.
    fn next(&self, thread: usize) -> u64 {
        let done = self.threads[thread].0.load(Ordering::Relaxed);
        self.first + done * self.threads.len() as u64 + thread as u64
    }

    /// `thread` has stored what [`Self::next`] said.
    fn done(&self, thread: usize) {
        self.threads[thread].0.fetch_add(1, Ordering::Release);
    }

    /// All indices below this one are stored.
    fn stored(&self) -> u64 {
        let least = self.threads.iter().map(|count| count.0.load(Ordering::Acquire)).min().unwrap_or(0);
        self.first + least * self.threads.len() as u64
    }

    /// How many were inserted.
    pub fn count(&self) -> u64 {
        self.threads.iter().map(|count| count.0.load(Ordering::Acquire)).sum()
    }
}

/// One thread's share of a workload.
pub struct Worker<'a> {
    engine: &'a dyn Engine,
    workload: Workload,
    size: Size,
    thread: usize,
    threads: u64,
    zipf: &'a Zipf,
    inserted: &'a Inserted,
    values: Values,
    rng: Rng,
    found: Vec<u8>,
    records: Vec<(Key, Vec<u8>)>,
}

/// What all threads of a workload share.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// The engine.
    pub engine: &'a dyn Engine,
    /// What is done.
    pub workload: Workload,
    /// Records that are there, and their values' size.
    pub size: Size,
    /// How many threads there are.
    pub threads: u64,
    /// Where random numbers come from.
    pub seed: u64,
    /// Which records are likely.
    pub zipf: &'a Zipf,
    /// Which records were added.
    pub inserted: &'a Inserted,
}

impl<'a> Worker<'a> {
    /// The share of `thread`.
    pub fn new(shared: Shared<'a>, thread: usize) -> Self {
        let Shared { engine, workload, size, threads, seed, zipf, inserted } = shared;
        Self {
            engine,
            workload,
            size,
            thread,
            threads,
            zipf,
            inserted,
            values: Values::new(size.value_bytes, seed),
            rng: Rng::new(seed, thread as u64),
            found: Vec::with_capacity(size.value_bytes),
            records: Vec::new(),
        }
    }

    /// Whether the clock is read around the next step: a random eighth of them, and each that is a batch.
    pub fn is_sampled(&mut self) -> bool {
        self.rng.bits() & 7 == 0 || self.workload.per_step() > 1
    }

    /// Steps after which everything was done once, at `operations` in all.
    pub fn steps(&self, operations: u64) -> u64 {
        let all = operations.div_ceil(self.workload.per_step());
        let bound = if self.workload == Workload::Delete { self.size.records } else { u64::MAX };
        all.min(bound).saturating_sub(self.thread as u64).div_ceil(self.threads)
    }

    /// Does the `step`th step of this thread, and tells how many operations that was.
    pub fn step(&mut self, step: u64) -> Result<u64> {
        let i = step * self.threads + self.thread as u64;
        let records = self.size.records;
        match self.workload {
            Workload::LoadSeq => return self.load(i, ascending),
            Workload::LoadRand => return self.load(i, scattered),
            Workload::Batch => return self.batch(),
            Workload::Insert => self.insert()?,
            Workload::Put => {
                let index = self.rng.below(records);
                self.put(index)?;
            }
            Workload::Delete => self.engine.delete(&scattered(shuffled(i, records)))?,
            Workload::Get => {
                let index = self.rng.below(records);
                self.get(index)?;
            }
            Workload::Scan => {
                let index = self.rng.below(records);
                self.scan(index, SCAN)?;
            }
            _ => self.ycsb()?,
        }
        Ok(1)
    }

    fn ycsb(&mut self) -> Result<()> {
        let rare = self.rng.below(100) < 5;
        let half = self.rng.below(2) == 0;
        let index = self.zipf.scrambled(&mut self.rng);
        match self.workload {
            Workload::YcsbA if half => self.put(index),
            Workload::YcsbB if rare => self.put(index),
            Workload::YcsbD | Workload::YcsbE if rare => self.insert(),
            Workload::YcsbD => {
                let latest = self.inserted.stored() - 1;
                let back = self.zipf.rank(&mut self.rng);
                self.get(latest - back.min(latest))
            }
            Workload::YcsbE => {
                let limit = 1 + self.rng.below(SHORT_SCAN) as usize;
                self.scan(index, limit)
            }
            Workload::YcsbF if half => {
                self.get(index)?;
                self.put(index)
            }
            _ => self.get(index),
        }
    }

    /// Stores the `i`th batch of all records.
    fn load(&mut self, i: u64, key: fn(u64) -> Key) -> Result<u64> {
        let end = (i + 1).saturating_mul(BATCH).min(self.size.records);
        self.fill(end.saturating_sub(i * BATCH), |worker, at| {
            let index = i * BATCH + at;
            worker.record(at, key(index), index);
        })
    }

    fn batch(&mut self) -> Result<u64> {
        self.fill(BATCH, |worker, at| {
            let index = worker.rng.below(worker.size.records);
            worker.record(at, scattered(index), index);
        })
    }

    /// Stores a batch of `n` records that `make` makes; their memory is used again.
    fn fill(&mut self, n: u64, make: impl Fn(&mut Self, u64)) -> Result<u64> {
        self.records.resize_with(n as usize, Default::default);
        for at in 0..n {
            make(self, at);
        }
        self.engine.batch(&self.records)?;
        Ok(n)
    }

    fn record(&mut self, at: u64, key: Key, index: u64) {
        let value = self.values.of(index, &mut self.rng);
        let record = &mut self.records[at as usize];
        record.0 = key;
        record.1.clear();
        record.1.extend_from_slice(value);
    }

    fn put(&mut self, index: u64) -> Result<()> {
        let value = self.values.of(index, &mut self.rng);
        self.engine.put(&scattered(index), value)
    }

    /// Puts a new record.
    pub fn insert(&mut self) -> Result<()> {
        self.put(self.inserted.next(self.thread))?;
        self.inserted.done(self.thread);
        Ok(())
    }

    /// Gets a record that must be there.
    pub fn get(&mut self, index: u64) -> Result<()> {
        let there = self.engine.get(&scattered(index), &mut self.found)?;
        if there && belongs(&self.found, index, self.size.value_bytes) {
            return Ok(());
        }
        Err(wrong("get", index))
    }

    /// Scans up to `limit` records from the one of `index` on, which must be there.
    pub fn scan(&mut self, index: u64, limit: usize) -> Result<()> {
        let from = scattered(index);
        let mut last: Option<Key> = None;
        let (mut in_order, mut whole, mut touched) = (true, true, 0);
        let bytes = self.size.value_bytes;
        let seen = self.engine.scan(&from, limit, &mut |key, value| {
            in_order &= match &last {
                None => key == from,
                Some(before) => before[..] < *key,
            };
            whole &= value.len() == bytes;
            touched ^= value.iter().step_by(64).fold(0, |sum, byte| sum ^ byte);
            last = Key::try_from(key).ok();
        })?;
        // Each cache line of a value is loaded, as its user would.
        std::hint::black_box(touched);
        if in_order && whole && seen > 0 { Ok(()) } else { Err(wrong("scan", index)) }
    }
}

fn wrong(what: &str, index: u64) -> Failure {
    Failure::new(what, format!("the record of index {index} is not what was stored"))
}

//! Are the runs that a file reports those of a map of its blocks: exact, in order, and maximal?
//!
//! Generated changes of one file go to the store and to a map of blocks; another file that grows meanwhile breaks
//! up what would lie together in the pool. Then, for ranges that were generated too:
//!
//! 1. The runs cover the range exactly, in order, and are not empty.
//! 2. Each block is in the state that the map says, and no two blocks of the file are one block of the pool.
//! 3. Neighbouring runs differ in state, or do not lie together in the pool.
//! 4. The runs of a part are the runs of the whole, clipped.
//! 5. Seeks find data and holes where the map has them.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daxstore::pmem::sim::Sim;
use daxstore::{AllocateMode, Error, File, FileExtent, State, Store, StoreOptions};
use proptest::prelude::*;
use proptest::test_runner::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

const BLOCK: u64 = 4096;
/// Changes stay below this; it crosses a boundary of 2 MiB.
const MOST: u64 = 600 * BLOCK;
/// What is looked at: with what appends added, and what was reserved ahead.
const WINDOW: u64 = 2048 * BLOCK;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Hole,
    Unwritten,
    Mapped,
}

impl Content {
    fn of(state: State) -> Self {
        match state {
            State::Hole | State::Reserved => Self::Hole,
            State::Unwritten(_) => Self::Unwritten,
            State::Mapped(_) => Self::Mapped,
        }
    }
}

/// Blocks that are not holes, and the size.
#[derive(Default, Debug)]
struct Model {
    blocks: BTreeMap<u64, Content>,
    size: u64,
    /// Space past the end was asked for, and stays when the last handle goes.
    keep: bool,
}

/// The blocks that a range of bytes touches.
fn outer(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

impl Model {
    fn at(&self, block: u64) -> Content {
        self.blocks.get(&block).copied().unwrap_or(Content::Hole)
    }

    fn write(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.blocks.extend(outer(&range).map(|block| (block, Content::Mapped)));
        self.size = self.size.max(range.end);
    }

    fn truncate(&mut self, size: u64) {
        if size <= self.size {
            self.blocks.split_off(&size.div_ceil(BLOCK));
            self.keep = false;
        }
        self.size = size;
    }

    /// The last handle goes, and with it what was reserved ahead.
    fn close(&mut self) {
        if !self.keep {
            self.blocks.split_off(&self.size.div_ceil(BLOCK));
        }
    }

    fn allocate(&mut self, range: &Range<u64>, mode: AllocateMode) {
        for block in outer(range) {
            let is_whole = range.start <= block * BLOCK && (block + 1) * BLOCK <= range.end;
            match mode {
                AllocateMode::Punch if is_whole => _ = self.blocks.remove(&block),
                AllocateMode::Zero if is_whole => _ = self.blocks.insert(block, Content::Unwritten),
                AllocateMode::Punch => {}
                _ => _ = self.blocks.entry(block).or_insert(Content::Unwritten),
            }
        }
        self.keep |= mode == AllocateMode::KeepSize && range.end > self.size;
        if matches!(mode, AllocateMode::Allocate | AllocateMode::Zero) {
            self.size = self.size.max(range.end);
        }
    }

    /// A write may reserve holes past the end ahead: they are what the file says, hole or unwritten.
    fn learn(&mut self, file: &File) {
        let from = self.size.next_multiple_of(BLOCK);
        for run in file.extents(from, WINDOW - from).unwrap() {
            if matches!(run.state, State::Unwritten(_)) {
                for block in outer(&(run.range.offset..run.range.end())) {
                    self.blocks.entry(block).or_insert(Content::Unwritten);
                }
            }
        }
    }

    /// What a seek from `offset` finds.
    fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let mut blocks = outer(&(offset..self.size));
        match blocks.find(|block| (self.at(*block) == Content::Mapped) == data) {
            Some(block) => Some(offset.max(block * BLOCK)),
            None if data => None,
            None => Some(self.size),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write { at: u64, len: u64 },
    Append { len: u64 },
    Truncate { size: u64 },
    Allocate { at: u64, len: u64, mode: AllocateMode },
    Other { len: u64 },
    Look { at: u64, len: u64 },
}

/// Bytes up to `most`, often at or near the edge of a block.
fn bytes(most: u64) -> impl Strategy<Value = u64> {
    let near = (0..most / BLOCK, 0..3_u64).prop_map(|(block, past)| (block * BLOCK + past).saturating_sub(1));
    prop_oneof![3 => (0..most / BLOCK).prop_map(|block| block * BLOCK), 1 => near, 1 => 0..most]
}

/// A start and a length, short ones more often.
fn range() -> impl Strategy<Value = (u64, u64)> {
    let len = prop_oneof![2 => bytes(8 * BLOCK), 1 => bytes(64 * BLOCK), 1 => bytes(MOST / 2)];
    (prop_oneof![bytes(24 * BLOCK), bytes(MOST / 2)], len.prop_map(|len| len.max(1)))
}

fn op() -> impl Strategy<Value = Op> {
    use AllocateMode::{Allocate, KeepSize, Punch, Zero};
    let mode = prop::sample::select(vec![Allocate, KeepSize, Punch, Punch, Zero]);
    prop_oneof![
        6 => range().prop_map(|(at, len)| Op::Write { at, len }),
        3 => bytes(6 * BLOCK).prop_map(|len| Op::Append { len }),
        2 => bytes(MOST).prop_map(|size| Op::Truncate { size }),
        8 => (range(), mode).prop_map(|((at, len), mode)| Op::Allocate { at, len, mode }),
        3 => (1..6 * BLOCK).prop_map(|len| Op::Other { len }),
        3 => range().prop_map(|(at, len)| Op::Look { at, len }),
    ]
}

/// `run` clipped to `range`, if anything is left.
fn clip(run: &FileExtent, range: &Range<u64>) -> Option<(u64, u64, State)> {
    let (start, end) = (run.range.offset.max(range.start), run.range.end().min(range.end));
    (start < end).then(|| (start, end, run.state.advanced(start - run.range.offset)))
}

struct Pair {
    sim: Arc<Sim>,
    store: Store,
    file: File,
    other: File,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let sim = Arc::new(Sim::new(16 << 20).unwrap());
        let store = Store::create_sim(sim.clone(), &StoreOptions::new().seed(7)).unwrap();
        let (file, other) = (store.create("/file").unwrap(), store.create("/other").unwrap());
        Self { sim, store, file, other, model: Model::default() }
    }

    /// The same file, with nothing kept in memory. What was reserved past its end goes with its last handle.
    fn reopen(self) -> Self {
        let Self { sim, store, file, other, mut model } = self;
        model.close();
        drop((file, other));
        store.close().unwrap();
        let store = Store::open_sim(sim.clone()).unwrap();
        let open = |name| store.open(name, &daxstore::OpenOptions::new().read(true).write(true)).unwrap();
        let (file, other) = (open("/file"), open("/other"));
        Self { sim, store, file, other, model }
    }

    /// Does `op`; one for which there is no space changes nothing.
    fn take(&mut self, op: &Op) {
        let result = match *op {
            Op::Write { at, len } => {
                let taken = self.file.write_at(&vec![1; len as usize], at);
                taken.map(|taken| self.model.write(at..at + taken as u64))
            }
            Op::Append { len } => {
                let at = self.model.size;
                let got = self.file.append(&vec![2; len as usize]);
                got.map(|got| {
                    assert_eq!(got, at);
                    self.model.write(at..at + len);
                })
            }
            Op::Truncate { size } => self.file.set_len(size).map(|()| self.model.truncate(size)),
            Op::Allocate { at, len, mode } => {
                let done = self.file.allocate(at, len, mode);
                done.map(|()| self.model.allocate(&(at..at + len), mode))
            }
            Op::Other { len } => self.other.append(&vec![3; len as usize]).map(drop),
            Op::Look { at, len } => {
                self.look(&(at..at + len));
                Ok(())
            }
        };
        match result {
            Ok(()) | Err(Error::NoSpace { .. }) => {}
            Err(error) => panic!("{op:?}: {error}"),
        }
        assert!(self.model.size < WINDOW, "a window too small for {}", self.model.size);
        self.model.learn(&self.file);
    }

    /// The runs of all that is looked at, held against the map.
    fn whole(&self) -> Vec<FileExtent> {
        let runs = self.file.extents(0, WINDOW).unwrap();
        let mut end = 0;
        let mut used = BTreeSet::new();
        for run in &runs {
            assert!(run.range.offset == end && run.range.len > 0, "a gap at {end}: {run:?}");
            end = run.range.end();
            for block in outer(&(run.range.offset..end)) {
                assert_eq!(Content::of(run.state), self.model.at(block), "block {block} of {run:?}");
                if let Some(at) = run.state.advanced(block * BLOCK - run.range.offset).address() {
                    assert!(at.0 % BLOCK == 0 && used.insert(at), "block {block} of {run:?}");
                }
            }
        }
        assert_eq!(end, WINDOW);
        for pair in runs.windows(2) {
            let continued = pair[0].state.advanced(pair[0].range.len);
            assert_ne!(continued, pair[1].state, "one run and not two: {pair:?}");
        }
        assert_eq!(self.file.metadata().blocks, used.len() as u64);
        runs
    }

    /// The runs of `range`, and what is found from its start.
    fn look(&self, range: &Range<u64>) {
        // A part before the whole, so that it is not answered from what the whole left in memory.
        let part = self.file.extents(range.start, range.end - range.start).unwrap();
        let part: Vec<_> = part.iter().map(|run| (run.range.offset, run.range.end(), run.state)).collect();
        let clipped: Vec<_> = self.whole().iter().filter_map(|run| clip(run, range)).collect();
        assert_eq!(part, clipped, "{range:?}");
        for offset in [range.start, range.end - 1, range.end] {
            for data in [true, false] {
                let found = if data { self.file.seek_data(offset) } else { self.file.seek_hole(offset) };
                let found = match found {
                    Ok(at) => Some(at),
                    Err(Error::NoSuchOffset) => None,
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(found, self.model.seek(offset, data), "from {offset}, data: {data}");
            }
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn runs_are_those_of_a_map_of_blocks(
        ops in prop::collection::vec(op(), 1..60),
        ranges in prop::collection::vec(range(), 1..12),
    ) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.take(op);
        }
        for (at, len) in &ranges {
            pair.look(&(*at..at + len));
        }
        pair = pair.reopen();
        for (at, len) in ranges {
            pair.look(&(at..at + len));
        }
        prop_assert!(pair.store.check().unwrap().faults.is_empty());
    }
}

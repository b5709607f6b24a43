//! Is a file whose blocks move seen as before or as after, wherever the power goes, also while recovery moves on?

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Options, POOL_BYTES, Report, Rig, SEED, tiny};
use common::ops::{BLOCK, Blocks, On, Op};
use common::real::{Real, state};
use common::state::State;
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::pmem::sim::crash::{Mode, Plan, Replay};
use daxstore::units::PoolOff;
use daxstore::{Error, Store, StoreOptions};
use std::sync::Arc;

/// So short that a record has room for few nodes.
const LANE: u32 = 4096;

const ON: On = On::Path("a");

/// A file of `pieces` extents of one block, every third of which is followed by a hole, and a neighbour that keeps them
/// apart in the pool.
fn scattered(pieces: u64) -> Vec<Op> {
    let write = |path, at: u64, fill| Op::Write { on: On::Path(path), at: at * BLOCK, len: BLOCK, fill };
    let mut ops = vec![Op::Create("a"), Op::Create("b")];
    ops.extend((0..pieces).flat_map(|i| [write("a", i + i / 3, i as u8), write("b", i, 1)]));
    ops
}

fn shift(blocks: Blocks, at: u64, len: u64) -> Op {
    Op::Fallocate { on: ON, blocks, at: at * BLOCK, len: len * BLOCK }
}

/// How many fences `op` has after `setup`, with lanes of `lane_bytes`.
fn fences(setup: &[Op], op: &Op, lane_bytes: u32) -> u64 {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let options = StoreOptions::new().geometry(tiny(1, lane_bytes)).seed(SEED);
    let store = Store::create_sim(sim, &options).unwrap();
    let mut real = Real::new(store.clone());
    setup.iter().for_each(|op| _ = real.run(op).unwrap());
    let before = store.counts().fences;
    real.run(op).unwrap();
    store.counts().fences - before
}

fn judge(rig: &Rig, ops: &[Op], options: &Options) -> Report {
    let report = rig.run(ops, options).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{report}");
    report
}

/// Every operation that moves all of 200 extents, in several records.
fn long() -> [Op; 5] {
    [
        shift(Blocks::Collapse, 0, 1),
        shift(Blocks::Collapse, 20, 100),
        shift(Blocks::Collapse, 3, 1),
        shift(Blocks::Insert, 0, 3),
        shift(Blocks::Insert, 70, 1000),
    ]
}

#[test]
fn moves_of_one_record() {
    let setup = scattered(12);
    let rig = Rig::new(tiny(1, 32 << 10), &setup);
    let mut sum = Report::default();
    for (seed, (at, len)) in (1..).zip([(0, 1), (2, 3), (3, 1), (5, 8), (9, 4)]) {
        for blocks in [Blocks::Collapse, Blocks::Insert] {
            let op = shift(blocks, at, len);
            assert_eq!(fences(&setup, &op, 64 << 10), 1, "{op:?}");
            sum.add(&judge(&rig, &[op], &Options::sampled(seed, 200)));
        }
    }
    assert!(sum.images > 1000 && sum.nested > 0, "too little was tried: {sum}");
}

#[test]
fn moves_of_several_records() {
    let setup = scattered(200);
    let rig = Rig::new(tiny(1, LANE), &setup);
    for (seed, op) in (1..).zip(long()) {
        assert!(fences(&setup, &op, LANE) >= 3, "{op:?}");
        // Recovery itself is long here: few images of it, at each of its many points.
        let sampled = Options::sampled(seed, 100);
        let options = Options { nested: 61, nested_plan: sampled.nested_plan, ..sampled };
        let report = judge(&rig, &[op], &options);
        assert!(report.images > 300 && report.nested > 100, "too little was tried: {report}");
    }
}

#[test]
fn an_intent_that_goes_too_early_is_noticed() {
    let rig = Rig::new(tiny(1, LANE), &scattered(200));
    for op in [shift(Blocks::Collapse, 0, 1), shift(Blocks::Insert, 70, 1000)] {
        mutation::set(Some(Mutation::ShiftIntentFirst));
        let result = rig.attempt(&[op], &Options::sampled(1, 12));
        mutation::set(None);
        assert!(result.is_err(), "a file was left half moved, and nothing was noticed");
    }
}

#[test]
fn sequential_files() {
    let seq = |capacity| vec![Op::CreateSequential { path: "a", capacity }];
    let append = |len, fill| Op::Append { on: ON, len, fill };
    let grown = |n: u64| (0..n).map(|i| append(3000 + i * 700, i as u8)).collect::<Vec<_>>();
    let setup = [seq(0), grown(9)].concat();
    let rig = Rig::new(tiny(1, LANE), &setup);
    let mut sum = Report::default();
    let sequences = [
        vec![Op::Reset(ON)],
        vec![append(100, 1), append(9000, 2), append(1, 3), Op::Reset(ON), append(5000, 4)],
        vec![append(20_000, 1), Op::Rename { from: "a", to: "b", target: common::ops::Target::Replace }],
        vec![Op::Link { from: "a", to: "b" }, append(10, 1), Op::Unlink("a")],
    ];
    for (seed, ops) in (1..).zip(&sequences) {
        sum.add(&judge(&rig, ops, &Options::sampled(seed, 100)));
    }
    let create = Rig::new(tiny(1, LANE), &[]);
    let ops = [seq(10_000), vec![append(9000, 1), append(1000, 2), Op::Reset(ON)]].concat();
    sum.add(&judge(&create, &ops, &Options::sampled(9, 100)));
    assert!(sum.images > 1000, "too little was tried: {sum}");
}

/// A reset of more than fits a record is one step to whoever looks.
#[test]
fn a_large_sequential_file_is_reset() {
    let mut setup = vec![Op::CreateSequential { path: "a", capacity: 0 }, Op::Create("b")];
    for i in 0..300 {
        setup.push(Op::Append { on: ON, len: 4096, fill: i as u8 });
        setup.push(Op::Append { on: On::Path("b"), len: 4096, fill: 0 });
    }
    let rig = Rig::new(tiny(1, LANE), &setup);
    judge(&rig, &[Op::Reset(ON)], &Options::sampled(1, 30));
}

/// Whoever opens the pool only to read it, after a crash, sees the file as before or as after, or is told that it needs
/// recovery: every home may have been written when the power went, and the intent be all that is left to do.
#[test]
fn a_half_moved_file_is_not_read() {
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, LANE))).unwrap();
    let mut real = Real::new(store.clone());
    scattered(500).iter().for_each(|op| _ = real.run(op).unwrap());
    let before = state(&store).unwrap();
    let scratch = Arc::new(sim.fork().unwrap());
    sim.start_trace();
    real.run(&shift(Blocks::Insert, 0, 3)).unwrap();
    let (trace, after) = (sim.take_trace(), state(&store).unwrap());
    scratch.start_undo();
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("pool");
    let plan = Plan { mode: Mode::InOrder, exhaustive: 2, singles: 0, samples: 0, seed: 1 };
    let mut replay = Replay::new(&scratch, &trace);
    let (mut refused, mut read) = (0, 0);
    while replay.advance().is_some() {
        let pending = replay.pending(plan.mode);
        let mut images = pending.images(&plan, 0);
        while let Some(words) = images.next_image() {
            let base = scratch.savepoint();
            scratch.poke_words(words);
            let mut bytes = vec![0; POOL_BYTES as usize];
            scratch.peek(PoolOff(0), &mut bytes);
            scratch.roll_back_to(base);
            std::fs::write(&path, &bytes).unwrap();
            let options = StoreOptions::new().assume_persistent(true).read_only(true);
            match Store::open(&path, &options) {
                Err(Error::NeedsRecovery) => refused += 1,
                Ok(store) => {
                    let found = state(&store).unwrap();
                    let differs = |state: &State| state.difference(&found, state, &[]);
                    assert!(differs(&before).is_none() || differs(&after).is_none(), "half a move was seen");
                    read += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("{refused} refused, {read} read");
    assert!(refused >= 5 && read >= 2, "{refused} refused, {read} read");
}

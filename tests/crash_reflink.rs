//! Do files that share blocks hold what they held, each for itself, wherever the power goes?
//!
//! Each operation that shares blocks, or ends that, alone and in generated sequences; `check` counts the owners of every block
//! in every image.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::crash::{Failure, Options, POOL_BYTES, Report, Rig, check, each_image, first_seed, scaled, tiny};
use common::model::Model;
use common::ops::{BLOCK, Blocks, On, Op, any_op, share_op};
use daxstore::pmem::mutation::{self, Mutation};
use daxstore::pmem::sim::Sim;
use daxstore::{OpenOptions, Store, StoreOptions};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::sync::Arc;

const A: On = On::Path("a");
const B: On = On::Path("b");

const fn write(on: On, at: u64, len: u64, fill: u8) -> Op {
    Op::Write { on, at, len, fill }
}

const fn blocks(on: On, blocks: Blocks, at: u64, len: u64) -> Op {
    Op::Fallocate { on, blocks, at, len }
}

const fn reflink(from: On, to: On, at: u64, to_at: u64, len: u64) -> Op {
    Op::Reflink { from, to, at: at * BLOCK, to_at: to_at * BLOCK, len, same: false }
}

/// "a" with data, a hole and unwritten space, "b" with other data, and "c", which shares some blocks of both.
fn setup() -> Vec<Op> {
    vec![
        Op::Create("a"),
        write(A, 0, 3 * BLOCK, 1),
        write(A, 5 * BLOCK, BLOCK + 700, 2),
        blocks(A, Blocks::Allocate, 3 * BLOCK, BLOCK),
        Op::Create("b"),
        write(B, 0, 4 * BLOCK, 3),
        Op::Clone { from: "a", to: "c" },
        reflink(B, On::Path("c"), 1, 9, 2 * BLOCK),
        // "d" holds what "b" does, and shares nothing with it.
        Op::Create("d"),
        write(On::Path("d"), 0, 4 * BLOCK, 3),
    ]
}

fn sharing() -> Vec<Op> {
    let same = |len| Op::Reflink { from: B, to: On::Path("d"), at: 0, to_at: 0, len, same: true };
    vec![
        Op::Clone { from: "a", to: "x" },
        Op::Clone { from: "c", to: "x" },
        Op::Become { from: A, to: B },
        Op::Become { from: B, to: A },
        Op::Become { from: On::Path("c"), to: A },
        reflink(A, B, 0, 1, 2 * BLOCK),
        reflink(A, B, 0, 7, 5 * BLOCK),
        reflink(A, B, 5, 4, BLOCK + 700),
        reflink(A, A, 0, 8, 2 * BLOCK),
        reflink(On::Path("c"), On::Path("c"), 0, 2, 2 * BLOCK),
        reflink(A, On::Path("c"), 0, 0, 3 * BLOCK),
        same(4 * BLOCK),
        same(2 * BLOCK),
    ]
}

fn ending() -> Vec<Op> {
    let c = On::Path("c");
    vec![
        write(c, 100, 8, 9),
        write(c, 0, BLOCK, 9),
        write(c, BLOCK - 50, 100, 9),
        write(c, 2 * BLOCK + 100, 5 * BLOCK, 9),
        write(c, 8 * BLOCK, 3 * BLOCK + 50, 9),
        Op::Append { on: c, len: 3000, fill: 9 },
        write(A, 0, 6 * BLOCK, 9),
        Op::Truncate { on: c, size: 0 },
        Op::Truncate { on: c, size: BLOCK + 100 },
        Op::Truncate { on: A, size: 5 * BLOCK + 300 },
        Op::Truncate { on: A, size: 9 * BLOCK },
        Op::Unlink("c"),
        Op::Unlink("a"),
        blocks(c, Blocks::Punch, 100, 2 * BLOCK),
        blocks(c, Blocks::Zero, 100, 2 * BLOCK),
        blocks(c, Blocks::Zero, 0, 12 * BLOCK),
        blocks(A, Blocks::Allocate, 0, 8 * BLOCK),
        blocks(c, Blocks::Unshare, 0, 12 * BLOCK),
        blocks(c, Blocks::Unshare, BLOCK + 1, 1),
    ]
}

fn judge(rig: &Rig, ops: Vec<Op>, images: usize) {
    let mut sum = Report::default();
    for (seed, op) in (1..).zip(ops) {
        match rig.run(&[op], &Options::sampled(seed, images)) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{sum}");
    assert!(sum.images > 1000 && sum.nested > 0 && sum.further > 0, "too little was tried: {sum}");
}

#[test]
fn blocks_come_to_be_shared() {
    judge(&Rig::new(tiny(1, 32768), &setup()), sharing(), 200);
}

#[test]
fn blocks_cease_to_be_shared() {
    judge(&Rig::new(tiny(1, 32768), &setup()), ending(), 200);
}

/// The superblock says that extents may be shared before one is.
#[test]
fn the_first_share_of_a_pool() {
    let rig = Rig::new(tiny(1, 32768), &[Op::Create("a"), write(A, 0, 2 * BLOCK, 1)]);
    judge(&rig, vec![Op::Clone { from: "a", to: "b" }], 800);
}

/// The others are gone: a write clears the flag in a record, then goes in place.
#[test]
fn blocks_that_were_shared() {
    let mut ops = setup();
    ops.push(Op::Unlink("c"));
    let rig = Rig::new(tiny(1, 32768), &ops);
    judge(
        &rig,
        vec![write(A, 100, 3000, 9), write(A, 0, 6 * BLOCK, 9), Op::Append { on: A, len: 10, fill: 9 }],
        300,
    );
}

/// Many small shares: the tree of shares has several nodes, and rings wrap.
#[test]
fn a_tree_of_shares() {
    let mut ops = vec![Op::Create("a"), write(A, 0, 120 * BLOCK, 1), Op::Clone { from: "a", to: "b" }];
    ops.extend((0..60).map(|i| write(B, (2 * i) * BLOCK, BLOCK, 2)));
    let rig = Rig::new(tiny(1, 16384), &ops);
    let ops = [
        write(B, 51 * BLOCK, BLOCK, 9),
        write(A, 50 * BLOCK, 6 * BLOCK, 9),
        Op::Clone { from: "b", to: "c" },
    ];
    judge(&rig, ops[..2].to_vec(), 100);
    // What does not fit one record has no name until it is complete.
    judge(&rig, ops[2..].to_vec(), 60);
}

/// What does not fit one record is done from the front on, in records each of which leaves both files whole.
#[test]
fn a_crash_in_a_long_reflink_leaves_a_prefix() {
    const BLOCKS: u64 = 129;
    let sim = Arc::new(Sim::new(POOL_BYTES).unwrap());
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(tiny(1, 8192))).unwrap();
    let (a, b) = (store.create("a").unwrap(), store.create("b").unwrap());
    b.write_all_at(&[2; (BLOCKS * BLOCK) as usize], 0).unwrap();
    // Every other block: no two extents are one.
    (0..BLOCKS).step_by(2).for_each(|block| a.write_all_at(&[1; 4096], block * BLOCK).unwrap());
    let whole = store.read("a").unwrap();
    drop((a, b));
    store.close().unwrap();
    let scratch = Arc::new(sim.fork().unwrap());
    sim.start_trace();
    let store = Store::open_sim(sim.clone()).unwrap();
    let open = |store: &Store, name| store.open(name, &OpenOptions::new().read(true).write(true)).unwrap();
    open(&store, "b").reflink(&open(&store, "a")).unwrap();
    let trace = sim.take_trace();
    let (mut seen, mut images) = (std::collections::BTreeSet::new(), 0);
    each_image(&scratch, &trace, &Options::sampled(1, 20), |stop, store| {
        let content = store.read("b").unwrap();
        let is_new: Vec<_> =
            content.chunks(4096).zip(whole.chunks(4096)).map(|(found, new)| found == new).collect();
        let done = is_new.iter().take_while(|new| **new).count();
        assert!(content[done * 4096..].iter().all(|byte| *byte == 2), "{stop:?}: not a prefix: {is_new:?}");
        assert_eq!((content.len() as u64, &store.read("a").unwrap()), (BLOCKS * BLOCK, &whole));
        check(&store).unwrap_or_else(|what| panic!("{stop:?}: {what}"));
        seen.insert(done);
        images += 1;
    });
    assert!(seen.len() > 3 && images > 200, "{images} images, {seen:?}");
}

fn random(mut model: Model, seed: u64, len: usize) -> Vec<Op> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (any, share) = (any_op(6 * BLOCK).boxed(), share_op(6 * BLOCK).boxed());
    let mut ops = Vec::new();
    while ops.len() < len {
        let op = if ops.len() % 2 == 0 { &share } else { &any }.new_tree(&mut runner);
        let op = op.unwrap().current();
        if model.accepts(&op) {
            let _ = model.apply(&op);
            ops.push(op);
        }
    }
    ops
}

#[test]
fn generated_sequences() {
    let rig = Rig::new(tiny(1, 32768), &setup());
    let mut sum = Report::default();
    for seed in first_seed()..first_seed() + scaled(16) as u64 {
        match rig.run(&random(rig.start().clone(), seed, 24), &Options::sampled(seed, 12)) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
    }
    println!("{sum}");
}

/// What goes wrong with a rule broken, if anything does.
fn broken(rule: Mutation, ops: Vec<Op>) -> Option<Box<Failure>> {
    let rig = Rig::new(tiny(1, 32768), &setup());
    mutation::set(Some(rule));
    let result = rig.attempt(&ops, &Options::sampled(1, 60));
    mutation::set(None);
    result.err()
}

#[test]
fn a_share_that_is_not_counted_is_noticed() {
    assert!(broken(Mutation::ShareUncounted, vec![Op::Clone { from: "a", to: "x" }]).is_some());
}

#[test]
fn a_block_that_is_freed_under_another_file_is_noticed() {
    assert!(broken(Mutation::FreeShared, vec![Op::Unlink("c")]).is_some());
}

#[test]
fn a_copy_that_is_not_waited_for_is_noticed() {
    let c = On::Path("c");
    assert!(broken(Mutation::NoCopyFence, vec![write(c, 100, 8, 9)]).is_some());
    assert!(broken(Mutation::NoCopyFence, vec![blocks(c, Blocks::Unshare, 0, BLOCK)]).is_some());
}

//! Do longer sequences survive crashes, with lanes that wrap and space that is used again?
//!
//! Sequences are made from seeds, so that a failure is a number: it belongs into [`REGRESSIONS`] then, and stays.

#![cfg(feature = "sim")]

mod common;

use common::crash::{Options, Report, Rig, first_seed, scaled, tiny};
use common::model::Model;
use common::ops::{BLOCK, Blocks, On, Op, any_op};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::time::Instant;

/// Seeds that failed once.
const REGRESSIONS: [u64; 0] = [];

/// The sequence with this seed. Of the operations that `model` refuses, one in eight is kept.
fn sequence(mut model: Model, seed: u64, len: usize) -> Vec<Op> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let op = (any_op(10 * BLOCK), 0..8_u8);
    let mut ops = Vec::new();
    while ops.len() < len {
        let (op, keep) = op.new_tree(&mut runner).expect("an operation").current();
        if keep == 0 || model.accepts(&op) {
            let _ = model.apply(&op);
            ops.push(op);
        }
    }
    ops
}

fn judge(seeds: impl Iterator<Item = u64>, lanes: u32, len: usize, images: usize) {
    judge_on(&Rig::new(tiny(lanes, 8192), &[]), seeds, len, images);
}

fn judge_on(rig: &Rig, seeds: impl Iterator<Item = u64>, len: usize, images: usize) {
    let (started, mut sum) = (Instant::now(), Report::default());
    for seed in seeds {
        match rig.run(&sequence(rig.start().clone(), seed, len), &Options::sampled(seed, images)) {
            Ok(report) => sum.add(&report),
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
    }
    println!("{sum}; {:.1} s", started.elapsed().as_secs_f64());
}

fn seeds(first: u64, count: usize) -> std::ops::Range<u64> {
    let first = first + first_seed();
    first..first + scaled(count) as u64
}

#[test]
fn sequences_that_failed_once() {
    judge(REGRESSIONS.into_iter(), 1, 60, 20);
    judge(REGRESSIONS.into_iter(), 2, 60, 20);
}

#[test]
fn one_lane_that_wraps() {
    judge(seeds(0, 60), 1, 60, 6);
}

#[test]
fn two_lanes() {
    judge(seeds(1_000_000, 40), 2, 60, 6);
}

/// Space that was freed is used again soon, and operations are refused.
#[test]
fn a_nearly_full_pool() {
    let on = On::Path("filler");
    let fill = |blocks| Op::Fallocate { on, blocks: Blocks::Allocate, at: 0, len: blocks * BLOCK };
    let rig = Rig::new(tiny(1, 8192), &[Op::Create("filler"), fill(1975)]);
    judge_on(&rig, seeds(3_000_000, 40), 30, 10);
}

#[test]
fn short_sequences_with_many_images() {
    judge(seeds(2_000_000, 100), 1, 8, 40);
}
